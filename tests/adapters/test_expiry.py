"""A session that was not used for long reads as cleared, and an expiry erases what it held."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner

from agents_eventlog import ConversationLog, EventLogSession, projections
from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.window import window
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel
from agents_eventlog.eventlog import (
    ContentErased,
    ExpirySet,
    ItemsAdded,
    KeyFile,
    RootKey,
    payloads,
)
from agents_eventlog.eventlog.appender import append_all, encode_checked
from agents_eventlog.eventlog.errors import (
    KeysMissingError,
    SessionNotFoundError,
    ShreddedError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.events import RequestUsage, UsageRecorded
from agents_eventlog.projections import replay
from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import ErasurePlan, ExpiredSessions
from tests.adapters.looking import answer, call, output, user
from tests.cipher.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agents_eventlog.eventlog import Transaction

DAY = 86_400_000_000
MONTH = timedelta(days=30)
SECRET = "4111 1111 1111"


VIEW_OF_SESSION = """
    SELECT current_branch_id, item_count, turn_count, branch_count, user_id FROM v_sessions
"""


class Place:
    """Where a log is, and with which keys; its clock is set by the test."""

    def __init__(self, path: Any, keys: KeyFile | None) -> None:
        self.path, self.keys = path, keys
        self.days = 0

    async def opened(self, *, has_keys: bool = True) -> ConversationLog:
        log = await ConversationLog.open(self.path, keys=self.keys if has_keys else None)
        clock = log.store.clock
        log.store.clock = lambda: clock() + self.days * DAY
        return log


@pytest.fixture(params=["sqlite", "postgres", "sealed sqlite", "sealed postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    path: Any = tmp_path / "log.db"
    if "postgres" in request.param:
        path = request.getfixturevalue("server").url()
    is_sealed = "sealed" in request.param
    return Place(path, KeyFile(tmp_path / "keys.db", RootKey(ROOT)) if is_sealed else None)


@pytest.fixture
async def log(place: Place) -> AsyncIterator[ConversationLog]:
    async with await place.opened() as opened:
        yield opened


@pytest.fixture
async def session(log: ConversationLog) -> EventLogSession:
    return await filled(log)


async def filled(log: ConversationLog) -> EventLogSession:
    """Return a session with two branches and usage, that expires after 30 days without use."""
    labels: Any = {"user_id": "alice", "metadata": {"plan": "free"}}
    opened = EventLogSession("s", log, expires_after=MONTH, **labels)
    await opened.add_items([user(f"my card is {SECRET}"), call("c"), output("c", "stored")])
    await log.append(
        "s", UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=7)])
    )
    await opened.create_branch_from_turn(1, "other")
    await opened.add_items([user("once more"), answer("yes")])
    return opened


async def everything(log: ConversationLog, session: EventLogSession) -> dict[str, Any]:
    """Return what each read of a session's present returns."""
    found: dict[str, Any] = {
        "items": await session.get_items(),
        "other": await session.get_items(branch_id="other"),
        "branches": await session.list_branches(),
        "tree": [each["branch_id"] for each in await session.branch_tree() if each["is_live"]],
        "versions": await session.siblings(1),
        "turn": await session.get_current_turn(),
        "turns": await session.get_conversation_turns(),
        "by turn": await session.get_conversation_by_turns(),
        "transcript": await session.get_transcript(),
        "tools": await session.get_tool_usage(),
        "usage": await session.get_session_usage(),
        "usage of turns": await session.get_turn_usage(),
        "live usage": await log.usage(live=True),
        "views": [
            await log.query(lambda tx, name=name: tx.all(f"SELECT COUNT(*) FROM {name}"))
            for name in ("v_messages", "v_turns")
        ],
        "view of the session": await log.query(lambda tx: tx.all(VIEW_OF_SESSION)),
        "view of costs": await log.query(lambda tx: tx.all("SELECT is_active FROM v_costs")),
        "found": [dict(each) for each in await session.find_items()],
        "found by text": [dict(each) for each in await log.find_items("once")],
        "sessions by text": await log.sessions(text="once"),
        "sessions with items": await log.sessions(min_items=1),
        "outline": [each["items"] for each in await log.outline("s") if not each["removed"]],
        "branch": session.current_branch,
    }
    (row,) = await log.sessions()
    names = ("title", "item_count", "turn_count", "branch_count", "current_branch", "user_id")
    return {**found, **{name: row[name] for name in names}}


async def test_an_expired_session_reads_as_a_cleared_one(
    log: ConversationLog, place: Place
) -> None:
    place.days = -29  # and now 0, as the views have the clock of the database
    session = await filled(log)
    place.days = 0
    full = await everything(log, session)
    assert [len(full[name]) for name in ("items", "other", "outline")] == [2, 2, 1]
    assert full["views"] == [[(5,)], [(2,)]]
    ends = log.query(lambda tx: tx.all("SELECT expires_at FROM v_sessions"))
    assert (await ends)[0][0][:19] == (await log.session("s"))["expires_at"].replace(" ", "T")
    await log.set_expiry("s", timedelta(days=28))
    expired = await everything(log, session)
    await session.clear_session()
    assert expired == await everything(log, session)
    assert [expired[name] for name in ("items", "outline", "views")] == [[], [], [[(0,)]] * 2]
    assert expired["view of the session"][0][:4] == ("main", 0, 0, 0)


async def test_outlines_and_windows_mark_what_has_expired(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    before = await log.outline("s", branch_id="main")
    place.days = 31
    version = await log.version("s")
    rows = await log.outline("s", branch_id="main")
    assert [row["removed"] for row in rows] == ["expired"]
    assert await log.outline("s", branch_id="main", as_of=version - 1) == before

    def unit(tx: Transaction) -> Any:
        paths = Paths.read(tx, "s")
        return [window(tx, paths, "s", "main", version=v) for v in (None, version - 1)]

    now, then = await log.query(unit)
    removals = [item.removal for turn in now.turns for item in turn.items]
    assert {each.how for each in removals} == {"expired"}
    assert {item.removal for turn in then.turns for item in turn.items} == {None}
    expires_at = (await log.session("s"))["expires_at"]
    assert {timestamps.as_text(each.origin.occurred_at) for each in removals} == {expires_at}


async def test_using_a_session_keeps_it(session: EventLogSession, place: Place) -> None:
    place.days = 29
    await session.add_items([user("I am here")])
    place.days = 58
    assert len(await session.get_items()) == 3
    place.days = 60
    assert await session.get_items() == []


async def test_the_next_write_starts_empty_and_the_past_stays_until_the_expiry(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    version = await log.version("s")
    place.days = 31
    await session.add_items([user("hello again")])
    assert await session.get_items() == [user("hello again")]
    assert session.current_branch == "main"
    assert len(await session.get_items(as_of=version, branch_id="other")) == 2
    assert (await session.get_metadata()) == {"user_id": "alice", "metadata": {"plan": "free"}}
    expired = await log.expire()
    assert (expired.sessions, expired.is_complete) == (1, True)
    assert await session.get_items() == [user("hello again")]
    with pytest.raises((UndecodableEventError, ShreddedError)):
        await session.get_items(as_of=version, branch_id="other")
    assert (await log.expire()).sessions == 0


async def test_expiring_erases_what_a_session_held_and_the_session_continues_empty(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    await EventLogSession("kept", log).add_items([user("not to expire")])
    before = await log.usage(by="user")
    assert (await log.expire()).sessions == 0
    place.days = 31
    would = await log.expire(dry_run=True)
    assert (would.sessions, would.events) == (1, 2 + (place.keys is not None))
    assert await log.version("s") == 6
    erased = await log.expire(reason="30 days")
    assert erased == would
    assert erased.keys == (place.keys is not None)
    assert (await session.state(), await session.get_items()) == ("active", [])
    assert (await session.get_metadata()) == {"user_id": "alice", "metadata": {"plan": "free"}}
    assert await log.usage(by="user") == before
    held = [each async for each in log.read("s", types=[ItemsAdded])]
    assert all(each.is_erased for each in held)
    (last,) = [each.event async for each in log.read("s", types=[ContentErased])]
    assert isinstance(last, ContentErased)
    assert (last.reason, last.is_whole) == ("30 days", False)
    assert (await log.expire(), await log.expire(dry_run=True)) == (
        *[erased._replace(sessions=0, events=0, payload_bytes=0, keys=0)] * 2,
    )
    await session.add_items([user("hello again")])
    assert await session.get_items() == [user("hello again")]
    assert len(await EventLogSession("kept", log).get_items()) == 1
    for result in replay(log, projections.default().named([]), check=True):
        assert not result.differences


async def test_only_what_expired_long_ago_is_erased(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    assert (await log.expire(older_than=timedelta(days=7))).sessions == 0
    place.days = 38
    assert (await log.expire(older_than=timedelta(days=7))).sessions == 1


async def test_every_process_knows_the_expiry(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    other = EventLogSession("s", log)
    await other.add_items([user("and more")])
    place.days = 31
    assert await other.get_items() == []
    set_to = [each.event async for each in log.read("s", types=[ExpirySet])]
    assert set_to == [ExpirySet(expires_after_seconds=30 * 86_400)]


async def test_nothing_expires_unless_asked(log: ConversationLog, place: Place) -> None:
    session = EventLogSession("s", log)
    await session.add_items([user("hello")])
    place.days = 10_000
    assert await session.get_items() == [user("hello")]
    assert (await log.expire()).sessions == 0
    assert (await log.session("s"))["expires_at"] is None


async def test_an_expiry_is_set_changed_and_removed_for_any_session(
    log: ConversationLog, place: Place
) -> None:
    session = EventLogSession("s", log)
    await session.add_items([user("hello")])
    updated_at = (await log.session("s"))["updated_at"]
    place.days = 10
    await log.set_expiry("s", timedelta(days=20))
    row = await log.session("s")
    assert row["updated_at"] == updated_at  # setting it is no use
    await log.set_expiry("s", timedelta(days=20))
    assert await log.version("s") == 2
    await log.set_expiry("s", None)
    place.days = 100
    assert await session.get_items() == [user("hello")]
    await log.set_expiry("s", timedelta(days=20))
    assert await session.get_items() == []
    await log.set_expiry("s", None)  # too late
    assert await session.get_items() == []
    with pytest.raises(SessionNotFoundError):
        await log.set_expiry("unknown", MONTH)


@pytest.mark.parametrize("age", [timedelta(), timedelta(days=-1), timedelta(days=400 * 365)])
async def test_an_age_that_cannot_be_is_refused(log: ConversationLog, age: timedelta) -> None:
    with pytest.raises(ValueError, match="expires_after"):
        EventLogSession("s", log, expires_after=age)
    with pytest.raises(TypeError, match="expires_after"):
        EventLogSession("s", log, expires_after=30)  # type: ignore[arg-type]


async def test_a_session_that_is_cleared_or_popped_empty_expires_with_what_it_held(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    await session.clear_session()
    place.days = 31
    assert (await log.expire()).events == 2 + (place.keys is not None)


async def test_a_fork_keeps_its_items(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    await log.fork("s", "fork", branch_id="main")
    place.days = 31
    assert (await log.expire()).sessions == 1
    fork = EventLogSession("fork", log)
    assert (await fork.get_items())[0] == user(f"my card is {SECRET}")
    assert await session.get_items() == []


async def test_a_deleted_session_is_restored_without_what_had_expired(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    await log.delete_session("s")
    await log.restore_session("s")
    assert await session.get_items() == []


async def test_a_killed_expiry_is_finished_by_the_next(
    log: ConversationLog,
    session: EventLogSession,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(5):
        await session.add_items([user(f"{SECRET} {number}")])
    monkeypatch.setattr(eraser, "PAGE_EVENTS", 2)
    place.days = 31

    def killed(_erased: object) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        await log.expire(on_progress=killed)
    assert await session.get_items() == []
    await session.add_items([user("hello again")])
    steps: list[int] = []
    erased = await log.expire(on_progress=lambda so_far: steps.append(so_far.events))
    assert erased.is_complete
    assert len(steps) > 1
    assert await session.get_items() == [user("hello again")]
    left = [each async for each in log.read("s", types=[ItemsAdded]) if not each.is_erased]
    assert len(left) == 1
    assert (await log.expire()).sessions == 0


async def test_a_session_that_is_used_between_looking_and_erasing_is_left_alone(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    scope = ExpiredSessions(log.store.clock())
    plan = await log.query(lambda tx: scope.plan(tx, "s"))
    assert plan.payloads
    await log.append("s", ItemsAdded(items=[user("used without a session object")]))

    def unit(tx: Transaction) -> bool:
        return scope.may_erase(tx, "s", None)

    assert not await log.write(unit)


async def test_what_was_used_since_the_expiry_was_planned_is_not_erased(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    await session.add_items([user("since the first expiry")])
    place.days = 62

    async def used(unit: Any) -> Any:
        found = await asked(unit)
        if isinstance(found, list) and found and isinstance(found[0], ErasurePlan):
            log.query = asked  # type: ignore[method-assign]
            await log.append("s", ItemsAdded(items=[user("used without a session object")]))
        return found

    asked = log.query
    log.query = used  # type: ignore[method-assign]
    await log.expire()
    said = [user("since the first expiry"), user("used without a session object")]
    assert await session.get_items() == said


async def test_an_empty_session_does_not_expire_again(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    await log.expire()
    version = await log.version("s")
    place.days = 100
    assert (await log.expire()).sessions == 0
    assert (await log.version("s"), (await log.session("s"))["expires_at"]) == (version, None)


async def test_a_sealed_session_continues_under_a_new_key(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    if place.keys is None:
        pytest.skip("of sealed logs")
    place.days = 31
    await session.add_items([user("hello again")])
    old, new = await log.query(payloads.used_keys)
    assert {old.contents, new.contents} == {3, 2}
    assert (await log.expire()).keys == 1
    other = EventLogSession("s", log, user_id="alice")
    assert await other.get_items() == [user("hello again")]


async def test_expiring_a_sealed_session_needs_its_keys(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    if place.keys is None:
        pytest.skip("of sealed logs")
    place.days = 31
    log.close()
    async with await place.opened(has_keys=False) as blind:
        assert (await blind.expire(dry_run=True)).sessions == 1
        with pytest.raises(KeysMissingError):
            await blind.expire()
        assert await blind.version("s") == 6


async def test_a_run_on_an_expired_session_is_not_taken_for_a_concurrent_one(
    log: ConversationLog, session: EventLogSession, place: Place
) -> None:
    place.days = 31
    careful = EventLogSession("s", log, on_concurrent_run="reject")
    model = ScriptedModel(["Hello."])
    result = await Runner.run(Agent(name="a", model=model), "Hi.", session=careful)
    assert result.final_output == "Hello."
    said: list[Any] = list(await careful.get_items())
    assert [each["role"] for each in said] == ["user", "assistant"]


# -- max_age ------------------------------------------------------------------------------------


async def test_the_model_sees_no_turn_that_is_older_and_always_whole_turns(
    log: ConversationLog, place: Place
) -> None:
    session = EventLogSession("s", log, max_age=timedelta(days=10))
    first = [user("one"), call("c")]
    second = [user("two"), answer("2")]
    await session.add_items(first)
    assert (await session.get_items(), session.left_out) == (first, 0)
    place.days = 8
    await session.add_items([output("c", "found")])
    place.days = 11  # the call is older than 10 days, its output is not
    first.append(output("c", "found"))
    assert (await session.get_items(), session.left_out) == (first, 0)
    await session.add_items(second)
    assert (await session.get_items(limit=3), session.left_out) == ([*first[-1:], *second], 0)
    place.days = 19
    assert (await session.get_items(), session.left_out) == (second, 3)
    assert (await session.get_items(limit=1), session.left_out) == (second[-1:], 0)
    assert (await session.get_items(limit=4), session.left_out) == (second, 2)
    assert (await session.get_items(limit=0), session.left_out) == ([], 0)
    place.days = 22
    assert (await session.get_items(), session.left_out) == ([], 5)
    assert await session.get_items(as_of=await log.version("s")) == [*first, *second]
    assert await EventLogSession("s", log).get_items() == [*first, *second]


async def test_a_maximum_age_holds_on_each_branch_and_in_a_fork(
    log: ConversationLog, place: Place
) -> None:
    brief: Any = {"max_age": timedelta(days=10)}
    session = EventLogSession("s", log, **brief)
    await session.add_items([user("one"), answer("1"), user("two")])
    place.days = 20
    await session.create_branch_from_turn(2, "other")
    await session.add_items([user("deux")])
    assert (await session.get_items(), session.left_out) == ([user("deux")], 2)
    assert (await session.get_items(branch_id="main"), session.left_out) == ([], 3)
    await log.fork("s", "fork", branch_id="other")
    fork = EventLogSession("fork", log, **brief)
    assert (await fork.get_items(), fork.left_out) == ([user("deux")], 2)


async def test_the_age_of_an_imported_item_is_its_own(log: ConversationLog, place: Place) -> None:
    session = EventLogSession("s", log, max_age=timedelta(days=10))
    event = ItemsAdded(items=[user("long ago")])
    encoded = [(event, encode_checked(event))]
    occurred_at = log.store.clock() - 11 * DAY
    await log.write(lambda tx: append_all(tx, "s", encoded, occurred_at=occurred_at))
    assert (await session.get_items(), session.left_out) == ([], 1)


async def test_a_run_gets_no_old_turns(log: ConversationLog, place: Place) -> None:
    session = EventLogSession("s", log, max_age=timedelta(days=10))
    await session.add_items([user("one"), answer("1")])
    place.days = 11
    model = ScriptedModel(["Hello."])
    await Runner.run(Agent(name="a", model=model), "Hi.", session=session)
    (asked,) = model.inputs
    assert [each["content"] for each in asked] == ["Hi."]
    assert session.left_out == 2
    snapshot = await session._get_compaction_snapshot(10)
    assert [each["role"] for each in snapshot.items] == ["user", "assistant"]
    assert not snapshot.complete


def test_a_maximum_age_that_cannot_be_is_refused() -> None:
    unused: Any = None
    for age in (timedelta(), timedelta(days=-1), timedelta(days=400 * 365)):
        with pytest.raises(ValueError, match="max_age"):
            EventLogSession("s", unused, max_age=age)
    with pytest.raises(TypeError, match="max_age"):
        EventLogSession("s", unused, max_age=600)  # type: ignore[arg-type]
