"""Copies of a log: between engines, while it is in use, continued after an end at any moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import (
    EventLog,
    Head,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    SessionCleared,
    copying,
)
from agents_eventlog.eventlog.copying import copy_log
from agents_eventlog.eventlog.errors import CopyError
from agents_eventlog.projections import default, replay
from tests.faults.support import ran
from tests.postgres import raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ENGINES = ("sqlite", "postgres")


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


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def added(text: str) -> ItemsAdded:
    return ItemsAdded(items=[user(text)])


async def replace_last(session: EventLogSession) -> None:
    """Replace the last item, as the SDK's compaction does."""
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    await snapshot.replace_suffix(1, [user("short")])


async def furnish(path: str) -> None:
    """Write two sessions with every kind of reference between events, and erased content."""
    async with ConversationLog.open(path) as log:
        talk = EventLogSession("talk\0", log, user_id="ann", metadata={"plan": "pro"})
        await talk.add_items([user("one"), user("two\ue000")])
        await talk.store_run_usage(ran())
        other = EventLogSession("other", log)
        await other.add_items([user("to be erased"), user("and this")])
        await replace_last(other)
        await talk.add_items([user("three"), {"role": "assistant", "content": "answer"}])
        await talk.undo_turn()
        await talk.redo()
        await talk.create_branch_from_turn(2, "draft")
        await talk.add_items([user("on the draft")])
        await talk.pop_item()
        await replace_last(talk)
        await talk.switch_to_branch("main")
        await log.reprice(prices=lambda *_: 1.5)
        await log.append("talk\0", ItemsAdded(items=[user("seen"), user("a secret")]))
        secret = await anext(log.read(backward=True))
        await log.redact(secret.position, 1, reason="leaked")
        await log.append("talk\0", added("with a key"), branch_id="main", idempotency_key="k")
        await log.erase(session_id="other")
        await log.erase(popped=True)


async def histories(log: EventLog) -> dict[str, list[Any]]:
    """Return all that a copy keeps of each event that refers to no position."""
    found: dict[str, list[Any]] = {}
    async for each in log.read():
        columns = (each.version, each.type, each.branch_id, each.metadata, each.recorded_at)
        data = (each.idempotency_key, each.data is None)
        found.setdefault(each.session_id, []).append((*columns, *data))
    return found


async def shown(path: str) -> Any:
    """Return what the sessions of a log show."""
    async with ConversationLog.open(path) as log:
        talk = EventLogSession("talk\0", log)
        branches = await talk.list_branches()
        items = {
            each["branch_id"]: await talk.get_items(branch_id=each["branch_id"])
            for each in branches
        }
        return (
            branches,
            items,
            await talk.get_usage_stats(),
            await log.sessions(),
            await histories(log),
        )


@pytest.mark.parametrize("source", ENGINES)
@pytest.mark.parametrize("target", ENGINES)
async def test_a_copy_shows_what_its_source_shows_on_every_engine(
    place: Callable[[str], str], source: str, target: str
) -> None:
    there, here = place(source), place(target)
    await furnish(there)
    async with EventLog.open(there, read_only=True) as log, EventLog.open(here) as copy:
        copied = await copy_log(log, copy)
        assert (copied.events, copied.copied) == ((await log.verify()).events,) * 2
        assert (copied.source, copied.target) == (await log.head(), await copy.head())
        assert copied.sessions == 2
    before = await shown(there)
    assert await shown(here) == before
    async with ConversationLog.open(here) as copy:
        for table in await asyncio.to_thread(replay, copy, default().named([]), check=True):
            assert table.differences == 0
    back = place(source)
    async with EventLog.open(here, read_only=True) as log, EventLog.open(back) as again:
        await copy_log(log, again)
    assert await shown(back) == before


@pytest.mark.parametrize("target", ENGINES)
async def test_a_copy_follows_a_source_in_use_and_continues_after_each_page(
    place: Callable[[str], str], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PAGE_EVENTS", 7)
    there, here = place("sqlite"), place(target)
    async with EventLog.open(there) as log:
        for number in range(20):
            await log.append(f"s{number % 3}", added(str(number)))
        written = 20

        class Killed(Exception):  # noqa: N818
            pass

        def stop(progress: copying.CopyProgress) -> None:
            if progress.events > seen:
                raise Killed

        while True:  # each round copies one page, and is killed after it
            async with EventLog.open(here) as copy:
                seen = (await copy.verify()).events
                if seen == written:
                    break
                with pytest.raises(Killed):
                    await copy_log(log, copy, on_progress=stop)
            if written < 30:
                await log.append("s1", added("meanwhile"))
                written += 1
        async with EventLog.open(here) as copy:
            waited = 0

            def follow() -> bool:
                nonlocal waited
                waited += 1
                return waited < 4

            following = asyncio.create_task(copy_log(log, copy, follow=follow, poll_seconds=0.05))
            await log.append("s2", SessionCleared())
            copied = await following
            assert copied.events == written + 1
            assert await histories(copy) == await histories(log)


async def test_references_to_no_event_and_to_other_sessions_are_copied(
    place: Callable[[str], str],
) -> None:
    async with EventLog.open(place("sqlite")) as source, EventLog.open(place("postgres")) as copy:
        added = await source.append("s", ItemsAdded(items=["x"]))
        for position in (added.position, 2**40):
            await source.append("t", ItemPopped(item=ItemRef(position, 0)))
        await copy_log(source, copy)
        found = [each.event async for each in copy.read("t")]
        (first,) = [each.position async for each in copy.read("s")]
    assert found == [ItemPopped(item=ItemRef(first, 0)), ItemPopped(item=ItemRef(0, 0))]


async def test_what_was_erased_since_it_was_copied_is_erased_in_the_copy(
    place: Callable[[str], str],
) -> None:
    there, here = place("sqlite"), place("postgres")
    async with ConversationLog.open(there) as log:
        session = EventLogSession("s", log)
        await session.add_items([user("secret")])
        async with EventLog.open(here) as copy:
            await copy_log(log, copy)
        await log.erase(session_id="s")
        async with EventLog.open(here) as copy:
            await copy_log(log, copy)
            with raw(here) as connection:
                stored = "SELECT COUNT(*) FROM events WHERE data LIKE '%secret%'"
                assert connection.execute(stored).fetchone() == (0,)


# -- refusals -----------------------------------------------------------------------------------


@pytest.fixture
async def source(place: Callable[[str], str]) -> AsyncIterator[EventLog]:
    async with EventLog.open(place("sqlite")) as log:
        for number in range(4):
            await log.append(f"s{number % 2}", added(str(number)))
        yield log


@pytest.mark.parametrize("target", ENGINES)
async def test_a_log_with_events_of_its_own_is_refused(
    place: Callable[[str], str], source: EventLog, target: str
) -> None:
    async with EventLog.open(place(target)) as copy:
        await copy.append("mine", added("x"))
        with pytest.raises(CopyError, match="1 events that were not copied"):
            await copy_log(source, copy)
        assert await copy.version("s0") == 0


@pytest.mark.parametrize("target", ENGINES)
@pytest.mark.parametrize("session_id", ["s1", "new"])
async def test_sessions_that_were_written_in_the_copy_are_refused_by_name(
    place: Callable[[str], str], source: EventLog, target: str, session_id: str
) -> None:
    async with EventLog.open(place(target)) as copy:
        await copy_log(source, copy)
        await copy.append(session_id, added("x"))
        await source.append("s1", added("more"))
        with pytest.raises(CopyError, match=f"sessions '{session_id}'") as caught:
            await copy_log(source, copy)
        assert caught.value.sessions == (session_id,)


@pytest.mark.parametrize("session_id", ["s1", "new"])
async def test_a_session_that_is_written_in_the_target_during_the_copy_is_refused_by_name(
    place: Callable[[str], str], source: EventLog, session_id: str
) -> None:
    async with EventLog.open(place("postgres")) as copy:
        followed = 0

        async def write() -> None:
            await copy.append(session_id, added("x"))
            if session_id == "s1":
                await source.append("s1", added("more"))

        def follow() -> bool:
            nonlocal followed, writing
            followed += 1
            if followed == 1:
                writing = asyncio.create_task(write())
            return followed < 10

        writing: asyncio.Task[None]
        with pytest.raises(CopyError, match=f"sessions '{session_id}'"):
            await copy_log(source, copy, follow=follow, poll_seconds=0.05)
        await writing


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_copy_of_another_log_is_refused(
    place: Callable[[str], str], source: EventLog, engine: str
) -> None:
    async with EventLog.open(place(engine)) as other, EventLog.open(place("sqlite")) as copy:
        await other.append("s0", added("0"))
        await copy_log(other, copy)
        with pytest.raises(CopyError, match="was copied from another log"):
            await copy_log(source, copy)


async def test_a_source_whose_end_was_cut_off_is_refused(
    place: Callable[[str], str], source: EventLog
) -> None:
    cut = place("sqlite")
    async with EventLog.open(cut) as shorter, EventLog.open(place("sqlite")) as copy:
        await copy_log(source, shorter)
        await source.append("s0", added("more"))
        await copy_log(source, copy)
        with pytest.raises(CopyError, match="was copied from another log"):
            await copy_log(shorter, copy)


async def test_two_copies_into_one_log_at_once_are_refused(
    place: Callable[[str], str], source: EventLog
) -> None:
    async with EventLog.open(place("postgres")) as copy:
        first, second = copying._Copy(source, copy), copying._Copy(source, copy)
        await first.resume()
        await second.resume()
        assert await first.next_page()
        with pytest.raises(CopyError, match="at the same time"):
            await second.next_page()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("metadata = '{}'", "sessions 's0', 's1': expected only"),
        ("data_digest = decode(repeat('00', 32), 'hex')", "sessions 's0', 's1': expected only"),
        ("data = '{}'", "payload does not match"),
    ],
)
async def test_an_event_that_was_changed_in_the_copy_is_found_at_the_end(
    place: Callable[[str], str], source: EventLog, change: str, problem: str
) -> None:
    url = place("postgres")
    async with EventLog.open(url) as copy:
        await copy_log(source, copy)
        with raw(url) as connection:
            connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
            connection.execute(f"UPDATE events SET {change}")
        with pytest.raises(CopyError, match=problem):
            await copy_log(source, copy)


async def test_an_error_names_ten_sessions_and_counts_the_others(
    place: Callable[[str], str], source: EventLog
) -> None:
    async with EventLog.open(place("sqlite")) as copy:
        await copy_log(source, copy)
        for number in range(12):
            await copy.append(f"new{number:02}", added("x"))
        with pytest.raises(CopyError, match="'new09' and 2 more") as caught:
            await copy_log(source, copy)
        assert len(caught.value.sessions) == 12


@pytest.mark.parametrize("target", ENGINES)
async def test_a_reference_to_an_event_that_does_not_exist_stays_one(
    place: Callable[[str], str], target: str
) -> None:
    async with EventLog.open(place("sqlite")) as log, EventLog.open(place(target)) as copy:
        await log.append("s", ItemPopped(item=ItemRef(position=99, index=0)))
        assert (await copy_log(log, copy)).events == 1
        (event,) = [each.event async for each in copy.read()]
        assert event == ItemPopped(item=ItemRef(position=0, index=0))


async def test_an_empty_log_is_copied_as_an_empty_log(place: Callable[[str], str]) -> None:
    async with EventLog.open(place("postgres")) as log, EventLog.open(place("sqlite")) as copy:
        copied = await copy_log(log, copy)
        assert copied == (0, 0, 0, Head(0, bytes(32)), Head(0, bytes(32)))
        await copy_log(log, copy)
