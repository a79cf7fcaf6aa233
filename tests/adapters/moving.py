"""What the tests of export and import share: a log with everything in it, and how to move it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from agents_eventlog import projections
from agents_eventlog.adapters.conversations.sdk_tables import TablePair
from agents_eventlog.adapters.openai_agents.migration.import_file import import_file
from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    EventLog,
    ExpirySet,
    ForkCreated,
    HistoryImported,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
    append,
    recording,
)
from agents_eventlog.eventlog.events import EVENT_TYPES
from agents_eventlog.eventlog.jsonl.export import export_lines
from agents_eventlog.eventlog.jsonl.import_ import import_lines
from tests.adapters.old_files import grow, sdk, set_times
from tests.contract.items import turns
from tests.history import found_in_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agents_eventlog.eventlog import Event, Transaction
    from agents_eventlog.eventlog.jsonl.import_ import ImportResult

NASTY = (
    "\x1b[31mred\x1b[0m \u202eevil\u2066 \x00\x7f\x9b \u2028 ```\n# head\n<b> [x](javascript:1) é"
)


PAIR = TablePair("my_sessions", "my_messages")
NAMES = {"sessions_table": PAIR.sessions, "messages_table": PAIR.messages}


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def everything(positions: Sequence[int]) -> list[Event]:
    """Return events of every type; ``positions`` are where they will stand."""
    here = positions
    return [
        ItemsAdded(items=[user("one"), {"role": "assistant", "content": NASTY}]),
        ItemsAdded(items=[user("two"), float("nan"), "\ud800", 10**30, None, {"a": 1.5}]),
        BranchCreated(branch_id="b", from_branch_id="main", last_item=ItemRef(here[0], 1)),
        BranchSwitched(from_branch_id="main", branch_id="b"),
        ItemsReplaced(
            first_item=ItemRef(here[0], 1), items=[{"role": "assistant", "content": "x"}]
        ),
        ItemPopped(item=ItemRef(here[4], 0)),
        ItemsReplaced(first_item=None, items=[user("again")]),
        BranchCreated(branch_id="c", from_branch_id="b", last_item=None, generated=True),
        BranchDeleted(branch_id="c"),
        MetadataSet(user_id="u", metadata={"plan": "x"}),
        UsageRecorded(
            run_id="r",
            turn=1,
            requests=[RequestUsage(input_tokens=3, cost_usd=0.1, response_id="id")],
        ),
        ContentErased(positions=[here[1], 999_999], reason="asked for"),
        HistoryImported(source="elsewhere", counts={"items": 1}),
        SessionCleared(),
        ItemsAdded(items=[user("after")]),
        UsageCorrected(requests=[UsageCorrection(request=ItemRef(here[10], 0), model="m")]),
        SessionDeleted(reason="done"),
        SessionRestored(),
        SessionDeleted(reason="done"),
        TurnUndone(turn=1, removed=[ItemRef(here[14], 0)]),
        TurnRedone(turn=1, undone_version=20, items=[user("after")]),
        # Nothing secret, so that an export, which has placeholders, is the same history.
        ItemRedacted(item=ItemRef(here[14], 0), items=[user("after")], reason="a secret"),
        ItemsWithheld(position=here[14], items=[user("after")]),
        ForkCreated(session_id="v", branch_id="main"),
        ExpirySet(expires_after_seconds=60),
    ]


def _appended(session_id: str, event: Event, tx: Transaction) -> Any:
    return append(tx, session_id, event, branch_id="main")


async def fill(path: Path) -> None:
    """Write a log of two interleaved sessions with every event, one content of it erased."""
    async with EventLog.open(path, projections=projections.default(), durability="normal") as log:
        seen = {SessionForked.type_name()}  # exported as other events: in test_forks
        count = len(everything(range(100)))
        ones = [everything(range(1, 2 * count, 2)), everything(range(2, 999, 2))]
        for number, pair in enumerate(zip(*ones, strict=True)):
            for session_id, event in zip("st", pair, strict=True):
                with recording(
                    actor=f"actor {number}", trace_id="trace", nested={"b": 1, "a": [2]}
                ):
                    await log.write(partial(_appended, session_id, event))
                seen.add(event.type_name())
        assert seen == EVENT_TYPES.keys()
        with found_in_metadata(occurred_at=1_000_000, imported="a word of the program's own"):
            await log.append("u", ItemsAdded(items=[user("keyed")]), idempotency_key="key")
        await log.append("u", [ItemsAdded(items=["x"]), ItemsAdded(items=["y"])], branch_id="x")
        await log.write(lambda tx: tx.execute("UPDATE events SET data = NULL WHERE position = 3"))


async def lines_of(log: EventLog, *session_ids: str) -> list[str]:
    return [line async for line in export_lines(log, session_ids or None)]


async def exported(path: Path, *session_ids: str) -> list[str]:
    async with EventLog.open(path, read_only=True) as log:
        return await lines_of(log, *session_ids)


async def brought(log: EventLog, lines: Iterable[str], **options: Any) -> list[ImportResult]:
    encoded = [line.encode() + b"\n" for line in lines]
    return [outcome async for outcome in import_lines(log, encoded, **options)]


async def imported(path: Path, lines: Iterable[str], **options: Any) -> list[ImportResult]:
    async with EventLog.open(path, projections=projections.default(), durability="normal") as log:
        return await brought(log, lines, **options)


def rows(path: Path, columns: str, session_id: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            f"SELECT {columns} FROM events WHERE session_id = ? ORDER BY version", (session_id,)
        ).fetchall()


async def from_file(target: Path, source: Path, **options: Any) -> list[ImportResult]:
    async with EventLog.open(target, projections=projections.default()) as log:
        return [outcome async for outcome in import_file(log, source, **options)]


async def versions(path: Path, *session_ids: str) -> list[int]:
    async with EventLog.open(path, read_only=True) as log:
        return [await log.version(session_id) for session_id in session_ids]


def by_outcome(outcomes: Iterable[ImportResult]) -> dict[str, str]:
    return {outcome.session_id: outcome.outcome for outcome in outcomes}


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


async def sdk_file(path: Path, **names: str) -> None:
    for session_id in ("talk", "short"):
        with closing(sdk(path, session_id, **names)) as session:
            await (grow(session) if session_id == "talk" else session.add_items(turns("a", "b")))
    set_times(
        path,
        names.get("messages_table", "agent_messages"),
        names.get("sessions_table", "agent_sessions"),
    )
