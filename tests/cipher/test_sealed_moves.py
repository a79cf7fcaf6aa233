"""Sealed logs that move: copied between engines without keys, and made from logs in plaintext."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLog, projections
from agents_eventlog.eventlog import (
    ItemsAdded,
    KeyFile,
    RootKey,
    copying,
    export_lines,
    import_lines,
    payloads,
    sealing,
)
from agents_eventlog.eventlog.copying import copy_log, encrypt_log
from agents_eventlog.eventlog.errors import (
    CopyError,
    IdempotencyConflictError,
    KeysError,
    KeysMissingError,
    SourceError,
    TamperedPayloadError,
)
from agents_eventlog.projections.replay import replay
from tests.adapters.looking import change
from tests.cipher.conftest import ROOT
from tests.faults.support import ran

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Session = AdvancedSQLiteSession
ENGINES = ("sqlite", "postgres")
SECRETS = ("parcel-4711", "ann@example.com", "gold-customer", "order-66")


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return the path of a new log on an engine."""
    numbers = iter(range(100))

    def new(engine: str) -> str:
        if engine == "sqlite":
            return str(tmp_path / f"{next(numbers)}.db")
        url: str = request.getfixturevalue("server").url()
        return url

    return new


def again(keys: KeyFile) -> KeyFile:
    """Return the keys as another process opens them."""
    return KeyFile(keys.path, RootKey(ROOT), ahead=3)


async def furnish(path: str, keys: KeyFile | None) -> None:
    """Write every kind of event whose payload is content or refers to one, and erase some."""
    session = Session("talk", path, keys=keys, user_id=SECRETS[1], metadata={"plan": SECRETS[2]})
    await session.add_items([user("one"), user(f"Where is {SECRETS[0]}?")])
    await session.store_run_usage(ran())
    other = Session("other", path, keys=keys)
    await other.add_items([user("to be erased")])
    await session.add_items([user("three"), {"role": "assistant", "content": "an answer"}])
    await session.undo_turn()
    await session.redo()
    await session.create_branch_from_turn(2, "draft")
    await session.add_items([user("on the draft")])
    await session.pop_item()
    await shorten(session)
    await session.switch_to_branch("main")
    log = session.log
    await log.append("talk", ItemsAdded(items=[user("seen"), user("a secret")]))
    secret = await anext(log.read("talk", backward=True))
    await log.redact(secret.position, 1, reason="leaked")
    await log.append(
        "talk", ItemsAdded(items=[user("x")]), branch_id="main", idempotency_key=SECRETS[3]
    )
    await session.fork("fork")
    fork = Session("fork", path, keys=keys)
    await fork.add_items([user("in the fork")])
    await shorten(fork)
    await shorten(fork, kept=0)
    await log.erase(session_id="other")
    await log.erase(popped=True)
    for each in (fork, other, session):
        each.close()


async def shorten(session: Session, *, kept: int = 1) -> None:
    """Replace the last item or both, as the SDK's compaction does."""
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    await snapshot.replace_suffix(kept, [user("short")])


async def shown(path: str, keys: KeyFile | None) -> Any:
    """Return what the sessions of a log show, and what each event has but its position."""
    async with ConversationLog.open(path, keys=keys) as log:
        found = []
        for session_id in ("talk", "fork"):
            session = Session(session_id, path, keys=keys)
            branches = await session.list_branches()
            items = [await session.get_items(branch_id=each["branch_id"]) for each in branches]
            found.append((branches, items, await session.get_metadata()))
            session.close()
        events = [
            (*where(each), each.type, each.branch_id, each.recorded_at, each.metadata_json)
            async for each in log.read()
        ]
        users = [row["session_id"] for row in await log.sessions(user_id=SECRETS[1])]
        labelled = await log.sessions(metadata={"plan": SECRETS[2]})
        usage = await log.usage("session")
        return found, sorted(events), users, len(labelled), usage


def where(event: Any) -> tuple[str, int]:
    return event.session_id, event.version


async def envelopes(path: str) -> dict[Any, bytes]:
    async with EventLog.open(path) as log:
        return {
            where(each): bytes(each.data)
            async for each in log.read()
            if each.is_sealed and each.data is not None
        }


async def check_tables(path: str) -> None:
    """Compare the tables with a replay."""
    async with ConversationLog.open(path) as log:
        for table in await asyncio.to_thread(
            replay, log, projections.default().named([]), check=True
        ):
            assert table.differences == 0, table


# -- copies of sealed logs ------------------------------------------------------------------------


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
async def test_a_sealed_log_is_copied_without_its_keys_and_opens_with_them(
    place: Callable[[str], str], keys: KeyFile, source: str, target: str
) -> None:
    there, here = place(source), place(target)
    await furnish(there, keys)
    async with EventLog.open(there, read_only=True) as log, EventLog.open(here) as copy:
        copied = await copy_log(log, copy)
        assert (copied.events, copied.sessions) == ((await log.verify()).events, 3)
        assert (await copy.verify()).ok
    assert await envelopes(here) == await envelopes(there)
    assert await shown(here, again(keys)) == await shown(there, keys)
    await check_tables(here)
    with pytest.raises(KeysMissingError):
        await Session("talk", here).add_items([user("in plaintext")])
    session = Session("talk", here, keys=again(keys))
    await session.add_items([user("after the move")])
    with pytest.raises(IdempotencyConflictError):
        await session.log.append("talk", ItemsAdded(items=[]), idempotency_key=SECRETS[3])
    session.close()


@pytest.mark.parametrize("target", ENGINES)
async def test_a_copy_of_a_sealed_log_follows_its_source_and_its_batches_of_keys(
    place: Callable[[str], str],
    keys: KeyFile,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "PAGE_EVENTS", 7)
    there, here = place("sqlite"), place(target)
    for number in range(70):
        async with EventLog.open(there, keys=keys) as log:
            await log.append(f"s{number}", ItemsAdded(items=[user("x")]), branch_id="main")
            if number % 30 == 0:
                async with EventLog.open(here) as copy:
                    await copy_log(log, copy)
    async with EventLog.open(there) as log, EventLog.open(here) as copy:
        assert (await copy_log(log, copy)).copied == 9
        names = [
            await each.query(lambda tx: tx.all("SELECT name, value FROM log_properties"))
            for each in (log, copy)
        ]
    for name in ("log_id", "key_batch"):
        assert dict(names[0])[name] == dict(names[1])[name]


async def test_a_copy_is_not_mixed_with_another_sealed_log(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, here = place("sqlite"), place("sqlite")
    await furnish(there, keys)
    (EventLog.open_sync(here, keys=again(keys))).close()
    async with EventLog.open(there, keys=keys) as log, EventLog.open(here) as copy:
        with pytest.raises(CopyError, match="sealed as another log"):
            await copy_log(log, copy)
        assert [each async for each in copy.read()] == []


async def test_a_log_that_holds_plaintext_from_before_it_was_sealed_is_not_copied(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, here, earlier = place("sqlite"), place("sqlite"), place("sqlite")
    await furnish(there, None)
    async with EventLog.open(there) as log, EventLog.open(earlier) as copy:
        await copy_log(log, copy)
    async with EventLog.open(there, keys=keys) as log:
        await log.append("s", ItemsAdded(items=[user("x")]), branch_id="main")
        async with EventLog.open(here) as copy:
            with pytest.raises(CopyError, match="eventlog encrypt"):
                await copy_log(log, copy)
            assert [each async for each in copy.read()] == []
        async with EventLog.open(earlier) as copy:
            with pytest.raises(CopyError, match="sealed after it was copied"):
                await copy_log(log, copy)
            assert await copy.version("s") == 0


async def test_a_log_in_plaintext_is_not_copied_into_a_sealed_one_without_keys(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, here = place("sqlite"), place("sqlite")
    await furnish(there, None)
    EventLog.open_sync(here, keys=keys).close()
    async with EventLog.open(there) as log, EventLog.open(here) as copy:
        with pytest.raises(KeysMissingError):
            await copy_log(log, copy)
        assert [each async for each in copy.read()] == []


# -- logs in plaintext ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
async def test_a_log_in_plaintext_becomes_a_sealed_one_that_shows_the_same(
    place: Callable[[str], str], keys: KeyFile, source: str, target: str
) -> None:
    there, here = place(source), place(target)
    await furnish(there, None)
    before = await shown(there, None)
    async with EventLog.open(there, read_only=True) as log, EventLog.open(here) as copy:
        head = await log.head()
        copied = await encrypt_log(log, copy, again(keys))
        assert (copied.source, copied.copied) == (head, (await log.verify()).events)
        assert await log.head() == head
        assert (await copy.query(payloads.contents)).in_plaintext == 0
    assert await shown(here, keys) == before
    await check_tables(here)
    sealed = b"".join((await envelopes(here)).values())
    assert not any(secret.encode() in sealed for secret in SECRETS)
    async with EventLog.open(here, keys=keys) as copy:
        with pytest.raises(IdempotencyConflictError):
            await copy.append("talk", ItemsAdded(items=[]), idempotency_key=SECRETS[3])


async def test_nothing_of_the_plaintext_is_in_the_files_of_a_sealed_log(
    tmp_path: Path, keys: KeyFile
) -> None:
    await furnish(str(tmp_path / "plain.db"), None)
    async with (
        EventLog.open(tmp_path / "plain.db", read_only=True) as log,
        EventLog.open(tmp_path / "sealed.db", projections=projections.default()) as copy,
    ):
        await encrypt_log(log, copy, keys)
        files = [each.read_bytes() for each in tmp_path.glob("sealed.db*")]
        assert len(files) == 3
        assert not any(secret.encode() in file for secret in SECRETS for file in files)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_log_that_was_sealed_late_keeps_its_envelopes_and_its_keys(
    place: Callable[[str], str], keys: KeyFile, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PAGE_EVENTS", 5)
    there, here = place(engine), place(engine)
    await furnish(there, None)
    session = Session("talk", there, keys=keys)
    await session.add_items([user("later")])
    await session.set_metadata({"plan": "silver"})
    session.close()
    before, kept = await shown(there, keys), await envelopes(there)
    assert kept
    async with (
        EventLog.open(there, read_only=True, keys=keys) as log,
        EventLog.open(here) as copy,
    ):
        await encrypt_log(log, copy, keys)
        assert (await copy.query(payloads.contents)).in_plaintext == 0
    assert await shown(here, keys) == before
    sealed = await envelopes(here)
    assert kept.items() <= sealed.items()
    of_talk = {sealed[place][2:34] for place in sealed if place[0] == "talk"}
    assert len(of_talk) == 1  # one key seals a session
    async with EventLog.open(there, read_only=True, keys=keys) as log, EventLog.open(here) as copy:
        await encrypt_log(log, copy, keys)  # it can be continued
        async with EventLog.open(place("sqlite")) as third:
            with pytest.raises(KeysError, match="sealed with other keys"):
                await encrypt_log(log, third, KeyFile(place("sqlite"), RootKey(ROOT)))
    async with EventLog.open(there, read_only=True) as log, EventLog.open(place("sqlite")) as third:
        with pytest.raises(KeysMissingError):
            await encrypt_log(log, third, keys)


async def test_contents_of_before_a_session_was_shredded_are_sealed_with_another_key(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, here = place("sqlite"), place("sqlite")
    for given in (None, keys):
        session = Session("s", there, keys=given)
        await session.add_items([user("x")])
        session.close()
    [shredded] = (await envelopes(there)).values()
    assert keys.destroy([shredded[2:34]]) == 1
    async with EventLog.open(there, read_only=True, keys=keys) as log, EventLog.open(here) as copy:
        await encrypt_log(log, copy, keys)
        first, second = [each async for each in copy.read("s", types=[ItemsAdded])]
        assert first.event == ItemsAdded(items=[user("x")])
        assert second.data == shredded
        assert second.withheld == "shredded"


async def test_what_was_erased_since_it_was_sealed_is_erased_in_the_sealed_log(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, here = place("sqlite"), place("sqlite")
    async with ConversationLog.open(there) as log, EventLog.open(here) as copy:
        await log.append("s", ItemsAdded(items=[user("secret")]), branch_id="main")
        await encrypt_log(log, copy, keys)
        await log.erase(session_id="s")
        await encrypt_log(log, copy, keys)
        assert (await copy.query(payloads.contents)) == (0, 0)


async def test_a_sealed_log_is_not_sealed_again_nor_a_target_with_plaintext(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    sealed, plain, copied = place("sqlite"), place("sqlite"), place("sqlite")
    await furnish(sealed, keys)
    await furnish(plain, None)
    async with EventLog.open(plain) as log, EventLog.open(copied) as copy:
        await copy_log(log, copy)
    async with (
        EventLog.open(sealed, read_only=True, keys=keys) as log,
        EventLog.open(copied) as copy,
    ):
        with pytest.raises(CopyError, match="copy it with"):
            await encrypt_log(log, copy, keys)
    async with EventLog.open(plain, read_only=True) as log, EventLog.open(copied) as copy:
        with pytest.raises(CopyError, match="holds events in plaintext"):
            await encrypt_log(log, copy, keys)
        assert await copy.query(sealing.sealed_as) is None


async def test_content_that_was_planted_in_plaintext_is_not_sealed(
    tmp_path: Path, keys: KeyFile
) -> None:
    there = tmp_path / "log.db"
    async with EventLog.open(there, keys=keys) as log:
        await log.append("s", ItemsAdded(items=[user("x")]), branch_id="main")
    planted = '{"items":[{"role":"user","content":"yes"}]}'
    change(
        there,
        "DROP TRIGGER events_are_never_changed",
        ("UPDATE events SET data = ?, sealed = NULL", (planted,)),
    )
    async with (
        EventLog.open(there, read_only=True, keys=keys) as log,
        EventLog.open(tmp_path / "new.db") as copy,
    ):
        with pytest.raises(TamperedPayloadError, match="is not sealed"):
            await encrypt_log(log, copy, keys)
        assert [each async for each in copy.read()] == []


async def test_a_sealed_content_that_differs_from_its_source_is_found_at_the_end(
    tmp_path: Path, keys: KeyFile
) -> None:
    there, here = tmp_path / "log.db", tmp_path / "new.db"
    await furnish(str(there), None)
    async with EventLog.open(there) as log, EventLog.open(here) as copy:
        await encrypt_log(log, copy, keys)
    change(
        there,
        "DROP TRIGGER events_are_never_changed",
        "UPDATE events SET data = replace(data, 'an answer', 'no answer')",
    )
    async with EventLog.open(there) as log, EventLog.open(here) as copy:
        with pytest.raises(CopyError, match="sessions 'talk'"):
            await encrypt_log(log, copy, keys)


# -- exports --------------------------------------------------------------------------------------


async def exported(path: str, *sessions: str, keys: KeyFile | None = None) -> list[str]:
    async with EventLog.open(path, keys=keys, read_only=True) as log:
        return [line async for line in export_lines(log, sessions or None, sealed=True)]


async def imported(
    path: str, lines: list[str], *, keys: KeyFile | None = None, **options: Any
) -> list[tuple[str, str | None]]:
    async with ConversationLog.open(path, keys=keys) as log:
        return [
            (each.outcome, each.problem)
            async for each in import_lines(log, [each.encode() for each in lines], **options)
        ]


async def without_fork(path: str, keys: KeyFile) -> None:
    await furnish(path, keys)
    async with ConversationLog.open(path, keys=keys) as log:
        await log.append("late", ItemsAdded(items=[user("x")]), branch_id="main")


SESSIONS = ("talk", "other", "late")


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
async def test_a_sealed_export_is_imported_without_keys_and_opens_with_them(
    place: Callable[[str], str], keys: KeyFile, source: str, target: str
) -> None:
    there, here = place(source), place(target)
    await without_fork(there, keys)
    lines = await exported(there, *SESSIONS)
    assert not any(secret in line for secret in SECRETS for line in lines)
    assert await imported(here, lines) == [("imported", None)] * 3
    assert await exported(here, *SESSIONS) == lines
    assert {**await envelopes(there)}.items() >= (await envelopes(here)).items()
    async with ConversationLog.open(here, keys=again(keys)) as log:
        assert (await log.verify()).ok
        assert [row["session_id"] for row in await log.sessions(user_id=SECRETS[1])] == ["talk"]
        opened = [each async for each in export_lines(log, ["talk"])]
    async with EventLog.open(there, keys=keys) as log:
        assert [each async for each in export_lines(log, ["talk"])] == opened
    session, same = Session("talk", here, keys=again(keys)), Session("talk", there, keys=keys)
    for branch in ("main", "draft"):
        assert await session.get_items(branch_id=branch) == await same.get_items(branch_id=branch)
    session.close()
    same.close()
    await check_tables(here)


async def test_a_session_comes_back_into_a_copy_of_its_log_only(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there, copy, other = place("sqlite"), place("sqlite"), place("sqlite")
    await without_fork(there, keys)
    lines = await exported(there, "talk")
    assert await imported(copy, await exported(there, "late")) == [("imported", None)]
    assert await imported(copy, lines, dry_run=True) == [("imported", None)]
    assert await imported(copy, lines, keys=again(keys)) == [("imported", None)]
    for dry_run in (True, False):
        exists = "session 'talk' already exists"
        assert await imported(copy, lines, dry_run=dry_run) == [("refused", exists)]
        cannot = f"{exists}, and a sealed session cannot be renamed"
        refused = await imported(copy, lines, on_conflict="rename", dry_run=dry_run)
        assert refused == [("refused", cannot)]
    assert await imported(copy, await exported(there, "other"), on_conflict="rename") == [
        ("imported", None)
    ]
    await furnish(other, None)
    for dry_run in (True, False):
        with pytest.raises(KeysError, match="keys of another log"):
            await imported(other, lines, dry_run=dry_run)
    with pytest.raises(KeysError, match="keys of another log"):
        await imported(place("sqlite"), lines, keys=again(keys))


async def test_only_what_is_sealed_whole_is_exported_sealed(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there = place("sqlite")
    await furnish(there, None)
    with pytest.raises(KeysError, match="is not sealed"):
        await exported(there)
    async with EventLog.open(there, keys=keys) as log:
        await log.append("late", ItemsAdded(items=[user("x")]), branch_id="main")
    for sessions in ((), ("fork",)):
        with pytest.raises(KeysError, match="session 'fork' is a fork"):
            await exported(there, *sessions, keys=keys)
    with pytest.raises(KeysError, match="session 'talk' has contents in plaintext"):
        await exported(there, "talk")
    assert len(await exported(there, "late")) == 3


async def test_a_sealed_export_that_was_changed_is_broken(
    place: Callable[[str], str], keys: KeyFile
) -> None:
    there = place("sqlite")
    async with EventLog.open(there, keys=keys) as log:
        for session_id in ("s", "t"):
            await log.append(session_id, ItemsAdded(items=[user("x")]), branch_id="main")
        plain = [json.loads(line) async for line in export_lines(log)]
    lines = [json.loads(line) for line in await exported(there)]
    head, first, event, second, other = lines
    moved = {**event, "sealed": other["sealed"]}
    for changed, problem in (
        (moved, "version 1 was sealed for another session, type or branch"),
        ({**event, "branch_id": "b"}, "version 1 was sealed for another session, type or branch"),
        (plain[2], "version 1 is not sealed, though the export"),
        ({**event, "sealed": "AA=="}, "invalid sealed: expected an envelope in base64"),
        ({**event, "sealed": "?"}, "invalid sealed: expected an envelope in base64"),
        ({**event, "data": {}}, "invalid sealed: expected an envelope in base64"),
        ({**event, "version": 2}, "its data does not fit its type"),
    ):
        text = [json.dumps(each) for each in (head, first, changed, second, other)]
        found = await imported(place("sqlite"), text)
        assert [outcome for outcome, _ in found] == ["broken", "imported"]
        assert problem in str(found[0][1])
    text = [json.dumps(each) for each in (plain[0], first, event)]
    [(outcome, said)] = await imported(place("sqlite"), text)
    assert (outcome, said) == ("broken", "version 1 is sealed, but not the export")
    for wrong in ({"log_id": "x"}, {"key_batch": -1}, {"key_batch": None}, {"log_id": None}):
        with pytest.raises(SourceError, match=f"invalid {next(iter(wrong))}"):
            await imported(place("sqlite"), [json.dumps({**head, **wrong}), json.dumps(first)])
