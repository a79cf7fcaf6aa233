"""Import: each session whole or not at all, from our lines, another log, or the SDK's files."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    EventLog,
    ItemPopped,
    ItemRef,
    ItemsAdded,
)
from agents_eventlog.eventlog.errors import SourceError, UnserialisableError
from agents_eventlog.eventlog.jsonl.format import EventLine
from agents_eventlog.eventlog.jsonl.import_ import ImportResult, import_lines
from tests.adapters.moving import (
    brought,
    by_outcome,
    exported,
    imported,
    user,
    versions,
)
from tests.adapters.old_files import (
    assert_sound,
    ours,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


LOG = '{"kind":"log","format":1}'


def said(session_id: str, *events: dict[str, Any]) -> list[str]:
    """Return the lines of a session: items added, or as the fields of each event say."""
    added = {"type": "items_added", "schema_version": 1, "recorded_at": 5, "data": {"items": ["x"]}}
    opening = {"kind": "session", "session_id": session_id, "events": len(events or ({},))}
    following = [
        {"kind": "event", "version": version, **added, **fields}
        for version, fields in enumerate(events or ({},), start=1)
    ]
    return [json.dumps(line) for line in (opening, *following)]


# -- sessions that exist ------------------------------------------------------------------------------


async def test_a_session_that_exists_is_refused_and_the_others_come_in(
    full: Path, new: Path
) -> None:
    async with EventLog.open(new) as log:
        await log.append("t", ItemsAdded(items=["mine"]))
    outcomes = await imported(new, await exported(full))
    assert by_outcome(outcomes) == {"s": "imported", "t": "refused", "u": "imported"}
    assert await versions(new, "s", "t", "u") == [25, 1, 3]
    assert outcomes[1].problem == "session 't' already exists"


async def test_a_session_that_exists_can_be_skipped_or_renamed(full: Path, new: Path) -> None:
    lines = await exported(full)
    await imported(new, lines)
    skipped = await imported(new, lines, on_conflict="skip")
    assert {outcome.outcome for outcome in skipped} == {"skipped"}
    for names in (["s-imported", "t-imported", "u-imported"], ["s-imported-2", "t-imported-2"]):
        renamed = await imported(new, lines, on_conflict="rename")
        assert [outcome.imported_as for outcome in renamed][: len(names)] == names
        assert await versions(new, *names) == [25, 25, 3][: len(names)]
    again = [line.replace("s-imported-2", "s") for line in await exported(new, "s-imported-2")]
    assert again == await exported(full, "s")
    await assert_sound(new)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("on_conflict", "outcome", "names"),
    [
        ("refuse", "refused", [None, None, None, None]),
        ("skip", "skipped", [None, None, None, None]),
        ("rename", "renamed", ["s-imported", "s-imported-2", "s-imported-3", "new-imported"]),
    ],
)
async def test_what_becomes_of_a_session_that_exists_is_told_in_full(
    on_conflict: Any, outcome: Any, names: list[str | None], dry_run: bool
) -> None:
    lines = [LOG, *said("s"), *said("s"), *said("s"), *said("new"), *said("new")]
    async with EventLog.open(":memory:") as log:
        await log.append("s", ItemsAdded(items=["mine"]))
        told = await brought(log, lines, on_conflict=on_conflict, dry_run=dry_run)
        assert await log.version("s") == 1
    conflicts = [
        ImportResult(session_id, outcome, name, 1)
        if name
        else ImportResult(session_id, outcome, None, 0, f"session {session_id!r} already exists")
        for session_id, name in zip(["s", "s", "s", "new"], names, strict=True)
    ]
    assert told == [*conflicts[:3], ImportResult("new", "imported", "new", 1), conflicts[3]]


async def test_a_session_that_was_deleted_exists(full: Path, new: Path) -> None:
    with closing(ours(new, "s")) as session:
        await session.add_items([user("x")])
        await session.delete_session()
    assert by_outcome(await imported(new, await exported(full)))["s"] == "refused"


async def test_what_to_do_about_conflicts_is_checked(new: Path) -> None:
    with pytest.raises(ValueError, match="on_conflict"):
        await imported(new, [], on_conflict="overwrite")


# -- broken sources -----------------------------------------------------------------------------------


def change(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields})


BREAKS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "its tail is cut": (lambda s: s[:-1], "it has 24 of its 25 events"),
    "it has no events": (lambda s: s[:1], "it has 0 of its 25 events"),
    "an event is missing": (lambda s: [*s[:5], *s[6:]], "version 6 comes after version 4"),
    "an event comes twice": (lambda s: [*s[:5], *s[4:]], "version 4 comes after version 4"),
    "there are more": (lambda s: [*s, change(s[-1], version=26)], "it has 26 of its 25 events"),
    "it is no JSON": (lambda s: [*s[:5], s[5][:-9], *s[6:]], "is not JSON"),
    "a kind is unknown": (lambda s: [*s[:5], '{"kind":"x"}', *s[6:]], "unknown kind: expected "),
    "it is no object": (lambda s: [*s[:5], "[]", *s[6:]], "unknown kind: expected "),
    "a type is unknown": (lambda s: [*s[:5], change(s[5], type="x"), *s[6:]], "does not fit"),
    "an erased type is unknown": (
        lambda s: [*s[:2], change(s[2], type="x", data=None), *s[3:]],
        "its type is unknown",
    ),
    "a schema is newer": (
        lambda s: [*s[:5], change(s[5], schema_version=9), *s[6:]],
        "newer release",
    ),
    "data is of another type": (
        lambda s: [*s[:5], change(s[5], data={"items": "x"}), *s[6:]],
        "does not fit",
    ),
    "a digest is missing": (
        lambda s: [*s[:5], change(s[5], data=None), *s[6:]],
        "data_digest",
    ),
    "a time is out of range": (
        lambda s: [*s[:5], change(s[5], recorded_at=10**18), *s[6:]],
        "recorded_at",
    ),
    "metadata is not an object": (
        lambda s: [*s[:5], change(s[5], metadata=[]), *s[6:]],
        "metadata",
    ),
    "a branch is no text": (
        lambda s: [*s[:5], change(s[5], branch_id=7), *s[6:]],
        "invalid branch_id: expected a string",
    ),
    "a name is half a character": (
        lambda s: [
            *s[:3],
            change(s[3], data={"branch_id": "\ud800", "from_branch_id": "main", "last_item": None}),
            *s[4:],
        ],
        "surrogate",
    ),
    "a key stands twice": (
        lambda s: [
            change(line, idempotency_key="k") if n in {2, 9} else line for n, line in enumerate(s)
        ],
        "an idempotency key occurs twice",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_of_a_broken_session_nothing_comes_in_and_the_others_do(
    full: Path, new: Path, what: str, dry_run: bool
) -> None:
    break_it, problem = BREAKS[what]
    lines = [
        LOG,
        *(await exported(full, "s"))[1:],
        *break_it((await exported(full, "t"))[1:]),
        *(await exported(full, "u"))[1:],
    ]
    outcomes = await imported(new, lines, dry_run=dry_run)
    assert by_outcome(outcomes) == {"s": "imported", "t": "broken", "u": "imported"}
    assert problem in str(outcomes[1].problem)
    assert outcomes[1].events == 0
    assert await versions(new, "s", "t", "u") == ([0, 0, 0] if dry_run else [25, 0, 3])


UNFIT = "its data does not fit its type, or the type is of a newer release"


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([{"idempotency_key": "k"}] * 2, "an idempotency key occurs twice"),
        (
            [{"type": "x"}],
            f"line 5 is invalid: {UNFIT}",
        ),
        (
            [
                {"data": None, "data_digest": "00" * 32},
                {
                    "type": "content_erased",
                    "schema_version": 2,
                    "data": {"positions": [99, 1], "structures": [{}, {}]},
                },
            ],
            "the shape kept for version 1, which was erased, does not match its type",
        ),
        (
            [
                {
                    "type": "content_erased",
                    "schema_version": 2,
                    "data": {"positions": [2], "structures": [{}]},
                },
                {"data": None, "data_digest": "00" * 32},
            ],
            "the shape kept for version 2, which was erased, does not match its type",
        ),
    ],
)
async def test_what_is_wrong_with_a_session_is_told(
    events: list[dict[str, Any]], problem: str
) -> None:
    async with EventLog.open(":memory:") as log:
        assert await brought(log, [LOG, *said("a"), *said("b", *events), *said("c")]) == [
            ImportResult("a", "imported", "a", 1),
            ImportResult("b", "broken", None, 0, problem),
            ImportResult("c", "imported", "c", 1),
        ]


async def test_an_event_speaks_of_others_where_they_stand_now_and_of_none_elsewhere() -> None:
    pops = [{"type": "item_popped", "data": {"item": [version, 0]}} for version in (0, 1, 4, 5)]
    async with EventLog.open(":memory:") as log:
        await log.append("before", [ItemsAdded(items=["x"])] * 10)
        await brought(log, [LOG, *said("s", *pops)])
        await log.append("s", ItemsAdded(items=["after"]))
        events = [recorded.event async for recorded in log.read("s", types=[ItemPopped])]
    assert events == [ItemPopped(item=ItemRef(position, 0)) for position in (0, 11, 14, 0)]


def erased_session(structures: list[Any]) -> list[str]:
    """Return a session whose first two contents were erased, with these structures for them."""
    common = {"kind": "event", "schema_version": 1, "branch_id": "main", "recorded_at": 5}
    blank = {**common, "data": None, "data_digest": "00" * 32}
    said = {"positions": [1, 2], "structures": structures}
    erasure = {"type": "content_erased", "schema_version": 2, "data": said}
    return [
        '{"kind":"session","session_id":"erased","events":3}',
        json.dumps({**blank, "version": 1, "type": "items_added"}),
        json.dumps({**blank, "version": 2, "type": "items_replaced"}),
        json.dumps({**common, **erasure, "version": 3}),
    ]


FIRST: dict[str, Any] = {"items": [{"role": "user"}, {"role": "assistant"}]}
SECOND: dict[str, Any] = {"items": [{"role": "assistant"}], "first_item": [1, 1]}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("with_projections", [False, True])
@pytest.mark.parametrize(
    ("structures", "version"),
    [
        ([None, SECOND], 1),
        (["x", SECOND], 1),
        ([{}, SECOND], 1),
        ([{"items": {}}, SECOND], 1),
        ([FIRST, []], 2),
        ([FIRST, {"first_item": [1, 1]}], 2),
        ([FIRST, {**SECOND, "first_item": [1]}], 2),
        ([FIRST, {**SECOND, "first_item": [True, 1]}], 2),
        ([FIRST, {**SECOND, "first_item": [1, -1]}], 2),
        ([FIRST, {**SECOND, "first_item": [1, 2**60]}], 2),
        ([FIRST, {**SECOND, "first_item": "x"}], 2),
    ],
)
async def test_a_session_with_a_malformed_structure_is_told_as_broken_and_the_others_come_in(
    new: Path,
    full: Path,
    structures: list[Any],
    version: int,
    with_projections: bool,
    dry_run: bool,
) -> None:
    lines = [
        *await exported(full, "s"),
        *erased_session(structures),
        *(await exported(full, "u"))[1:],
    ]
    known = projections.default() if with_projections else None
    async with EventLog.open(new, projections=known, durability="normal") as log:
        outcomes = await brought(log, lines, dry_run=dry_run)
    assert by_outcome(outcomes) == {"s": "imported", "erased": "broken", "u": "imported"}
    assert outcomes[1].problem == (
        f"the shape kept for version {version}, which was erased, does not match its type"
    )


@pytest.mark.parametrize("structures", [[], [FIRST], [FIRST, SECOND], [FIRST, SECOND, "more"]])
async def test_a_session_whose_structures_fit_or_lack_comes_in(
    new: Path, structures: list[Any]
) -> None:
    lines = [LOG, *erased_session(structures)]
    assert by_outcome(await imported(new, lines)) == {"erased": "imported"}
    await assert_sound(new)


async def test_an_erasure_may_speak_of_what_is_not_in_the_session(new: Path) -> None:
    lines = [LOG, *erased_session([FIRST, SECOND, FIRST, FIRST])]
    said = json.loads(lines[-1])["data"]
    lines[-1] = change(lines[-1], data={**said, "positions": [1, 2, 0, 99]})
    assert by_outcome(await imported(new, lines)) == {"erased": "imported"}
    await assert_sound(new)


async def test_an_erased_event_of_a_newer_release_breaks_its_session(new: Path) -> None:
    lines = [LOG, *erased_session([])]
    lines[2] = change(lines[2], schema_version=9)
    (outcome,) = await imported(new, lines)
    assert (outcome.outcome, "newer release" in str(outcome.problem)) == ("broken", True)


async def test_a_broken_session_line_breaks_no_session_before_it() -> None:
    broken = said("b")
    broken[0] = broken[0][:-3]
    async with EventLog.open(":memory:") as log:
        outcomes = await brought(log, [LOG, *said("a"), *broken, *said("c")])
    assert by_outcome(outcomes) == {"a": "imported", "(line 4)": "broken", "c": "imported"}


async def test_events_without_a_session_are_told(full: Path, new: Path) -> None:
    lines = await exported(full, "u")
    (outcome,) = await imported(new, [lines[0], *lines[2:]])
    assert (outcome.outcome, outcome.problem) == ("broken", "its session line is missing")


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("hello", "the source is not an exported log: it is not JSON"),
        ('{"role": "user"}', "the source is not an exported log: unknown kind: expected .*"),
        (
            '{"kind":"session","session_id":"s","events":1}',
            "the source is not an exported log: expected a first line of kind .*",
        ),
        (
            '{"kind":"log","format":3}',
            "format 3 is unknown: expected 1 or 2; upgrade agents-eventlog",
        ),
    ],
)
async def test_what_is_no_export_is_refused_as_a_whole(new: Path, first: str, why: str) -> None:
    with pytest.raises(SourceError, match=f"^{why}$"):
        await imported(new, [first])
    with pytest.raises(SourceError, match=r"^the source is not an exported log: it is empty$"):
        await imported(new, [])


async def test_exports_may_stand_one_behind_the_other(full: Path, new: Path) -> None:
    outcomes = await imported(new, [*await exported(full, "s"), *await exported(full, "u")])
    assert by_outcome(outcomes) == {"s": "imported", "u": "imported"}


async def test_blank_lines_behind_the_first_say_nothing(full: Path, new: Path) -> None:
    lines = await exported(full)
    outcomes = await imported(new, [line for each in lines for line in (each, "", " \r")])
    assert by_outcome(outcomes) == {"s": "imported", "t": "imported", "u": "imported"}
    assert await exported(new) == lines


async def test_lines_may_come_from_anywhere(full: Path) -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for line in await exported(full):
            yield line.encode()

    async with EventLog.open(":memory:") as log:
        outcomes = [outcome async for outcome in import_lines(log, arriving())]
        assert [outcome.events for outcome in outcomes] == [25, 25, 3]


# -- dry runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_conflict", ["refuse", "skip", "rename"])
async def test_a_dry_run_tells_what_then_happens_and_writes_nothing(
    full: Path, new: Path, on_conflict: Any
) -> None:
    async with EventLog.open(new) as log:
        await log.append("t", ItemsAdded(items=["mine"]))
    lines = [*await exported(full), *(await exported(full, "s"))[1:]]  # s comes twice
    told = await imported(new, lines, on_conflict=on_conflict, dry_run=True)
    assert await versions(new, "s", "t", "u") == [0, 1, 0]
    assert told == await imported(new, lines, on_conflict=on_conflict)
    assert len(told) == 4


async def test_one_that_imports_its_own_lines_needs_nothing_private(new: Path) -> None:
    lines = [
        LOG,
        '{"kind":"session","session_id":"mine","events":1}',
        (
            '{"kind":"event","version":1,"type":"items_added","schema_version":1,"recorded_at":5,'
            '"data":{"items":[{"role":"user","content":"from elsewhere"}]}}'
        ),
    ]
    async with EventLog.open(new, projections=projections.default()) as log:
        assert [outcome.outcome for outcome in await brought(log, lines)] == ["imported"]
        event = await anext(log.read())
        assert event.occurred_at == 5


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_session_that_this_log_cannot_hold_is_broken_and_the_others_come_in(
    monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    stored = EventLine.stored

    def refusing(event: EventLine, position_of: Any) -> Any:
        if event.type == "session_cleared":
            raise UnserialisableError("$ is nested too deeply", place="$")
        return stored(event, position_of)

    monkeypatch.setattr(EventLine, "stored", refusing)
    lines = [LOG, *said("deep", {"type": "session_cleared", "data": {}}), *said("s")]
    async with EventLog.open(":memory:") as log:
        assert await brought(log, lines, dry_run=dry_run) == [
            ImportResult("deep", "broken", None, 0, "$ is nested too deeply"),
            ImportResult("s", "imported", "s", 1),
        ]
