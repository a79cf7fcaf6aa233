"""One item anywhere becomes a placeholder for every read, and its content goes with the next erase."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, EventLogSession, projections
from agents_eventlog.adapters.conversations import redaction
from agents_eventlog.eventlog import (
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    export_lines,
    import_lines,
    recording,
)
from agents_eventlog.eventlog.errors import (
    InvalidEventError,
    ItemErasedError,
    ItemNotFoundError,
    ItemRedactedError,
    SessionOwnerError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.projections import replay
from tests.adapters.looking import answer, call, documents, one, output, run, tampered, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.postgres import Server

SECRET = "4111 1111 1111"
GONE = {"role": "user", "content": "[redacted]"}


@pytest.fixture(params=["sqlite", "postgres"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationLog]:
    """A log on either engine, with a full-text index."""
    path: Any = tmp_path / "talk.db"
    if request.param == "postgres":
        server: Server = request.getfixturevalue("server")
        path = server.url()
    async with ConversationLog.open(path, search=True) as opened:
        yield opened


@pytest.fixture
async def session(log: ConversationLog) -> EventLogSession:
    """A session whose first turn holds a secret."""
    opened = EventLogSession("s", log, user_id="alice")
    await opened.add_items([user(f"my card is {SECRET}"), call("c"), output("c", "stored")])
    await opened.add_items([answer("thank you")])
    await opened.add_items([user("what else?"), answer("nothing")])
    return opened


async def place(session: EventLogSession, number: int = 0) -> tuple[int, int]:
    """Return the position and the index of an item of the current branch."""
    row = (await session.get_transcript())[number]
    return row["position"], row["index"]


async def everything(log: ConversationLog, session: EventLogSession) -> str:
    """Return all that any read of a conversation returns, as one text."""
    by_turns = await session.get_conversation_by_turns()
    turn_rows = await session.get_conversation_turns()
    found = await log.find_items(None, include_removed=True)
    views = await log.query(
        lambda tx: [
            tx.all("SELECT text, item FROM v_messages"),
            tx.all("SELECT user_text FROM v_turns"),
        ]
    )
    return repr(
        (
            await session.get_items(),
            await session.get_items(2),
            await session.get_items(as_of=await log.version("s")),
            await session.get_transcript(),
            await session.branch_tree(),
            await session.siblings(1),
            await session.compare_branches("main", "main"),
            await session.find_turns_by_content(""),
            await session.find_items("4111"),
            await log.find_items("4111", include_removed=True),
            await log.sessions(),
            await log.sessions(text="4111"),
            [dict(each) for each in found],
            views,
            by_turns,
            turn_rows,
            [line async for line in export_lines(log)],
        )
    )


async def test_no_read_returns_a_redacted_item(
    log: ConversationLog, session: EventLogSession
) -> None:
    assert SECRET in await everything(log, session)
    redacted = await session.redact(*await place(session), reason="a card number")
    assert redacted["placeholder"] == GONE
    assert (redacted["type"], redacted["copies"]) == ("user", [])
    assert SECRET not in await everything(log, session)
    items = await session.get_items()
    assert items == [
        *(GONE, call("c"), output("c", "stored"), answer("thank you")),
        *(user("what else?"), answer("nothing")),
    ]
    assert [row["is_redacted"] for row in await session.get_transcript()] == [True, *[False] * 5]


async def test_what_stays_of_its_event_is_found_and_what_was_redacted_is_not(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.redact(*await place(session))
    for text, count in (("card is", 0), ("stored", 1), ("[redacted]", 1), ("thank", 1)):
        assert len(await log.find_items(text)) == count, text
    assert len(await session.find_turns_by_content("[redacted]")) == 1
    assert [row["session_id"] for row in await log.sessions(text="[redacted]")] == ["s"]
    assert (await log.session("s"))["title"] == "[redacted]"


async def test_a_call_and_its_output_stay_together(session: EventLogSession) -> None:
    await session.redact(*await place(session, 1))
    await session.redact(*await place(session, 2))
    items: Any = await session.get_items()
    assert items[1] == call("c")
    assert items[2] == output("c", "[redacted]")
    assert items[0] == user(f"my card is {SECRET}")
    assert await session.get_tool_usage() == [("look_up", 1, 1)]
    (counts,) = await session.log.tools()  # type: ignore[attr-defined]
    assert (counts["calls"], counts["unanswered"]) == (1, 0)


async def test_the_past_shows_the_item_until_it_is_erased(
    log: ConversationLog, session: EventLogSession
) -> None:
    position, index = await place(session)
    before = await log.version("s")
    await session.redact(position, index)
    assert (await session.get_items(as_of=before))[0] == user(f"my card is {SECRET}")
    assert (await session.get_items(as_of=before + 1))[0] == GONE
    dry = await log.erase(popped=True, dry_run=True)
    assert (dry.sessions, dry.events, dry.kept_items) == (1, 1, 0)
    erased = await log.erase(popped=True)
    assert erased.events == 1
    with pytest.raises(UndecodableEventError):
        await session.get_items(as_of=before)
    assert (await session.get_items())[:2] == [GONE, call("c")]
    assert (await log.erase(popped=True, dry_run=True)).events == 0
    assert SECRET not in await everything(log, session)
    assert len(await log.find_items("stored")) == 1


async def test_each_redaction_of_an_event_adds_to_the_others(
    log: ConversationLog, session: EventLogSession
) -> None:
    for number in (0, 2):
        await session.redact(*await place(session, number))
    assert (await log.erase(popped=True)).events == 2  # the event and its first redaction
    await session.redact(*await place(session, 1))
    items = await session.get_items()
    assert items[:3] == [GONE, call("c"), output("c", "[redacted]")]
    assert (await log.erase(popped=True)).events == 1
    assert (await session.get_items())[:3] == items[:3]
    assert len(await log.find_items("[redacted]")) == 2


async def test_a_replay_gives_the_tables_and_the_index_that_were_there(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.redact(*await place(session), reason="a card number")
    for erases in (False, True):
        if erases:
            await log.erase(popped=True)
        kept = projections.default(search=True).named([])
        differences = await asyncio.to_thread(replay, log, kept, check=True)
        assert [each for each in differences if each.differences] == []
        await asyncio.to_thread(replay, log, kept)
        assert (await session.get_items())[0] == GONE
        assert len(await log.find_items("stored")) == 1
        assert len(await log.find_items("card is")) == 0


@pytest.mark.parametrize("removal", ["popped", "undone", "branch", "cleared", "deleted"])
async def test_an_item_that_was_removed_is_redacted_too(
    log: ConversationLog, session: EventLogSession, removal: str
) -> None:
    await session.create_branch("other")
    await session.add_items([user(SECRET)])
    position, index = await place(session, -1)
    if removal == "popped":
        await session.pop_item()
    elif removal == "undone":
        await session.undo_turn()
    elif removal == "branch":
        await session.delete_branch("other", force=True)
    elif removal == "cleared":
        await session.clear_session()
    else:
        await session.delete_session()
    assert len(await log.find_items(SECRET, include_removed=True)) > 0
    await session.redact(position, index)
    hits = await log.find_items(SECRET, include_removed=True)
    assert (position, index) not in {(hit["position"], hit["index"]) for hit in hits}
    hits = await log.find_items("[redacted]", include_removed=True)
    assert [(hit["position"], hit["index"]) for hit in hits] == [(position, index)]


async def test_an_item_that_branches_share_is_redacted_on_all_of_them(
    session: EventLogSession,
) -> None:
    await session.create_branch_from_turn(2, "other")
    await session.redact(*await place(session))
    assert (await session.get_items())[0] == GONE
    await session.switch_to_branch("main")
    assert (await session.get_items())[0] == GONE


async def test_the_copies_that_a_redo_made_are_redacted_with_their_item(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.add_items([user(SECRET), answer("noted")])
    first = await place(session, -2)
    for _ in range(2):
        await session.undo_turn()
        await session.redo()
    last = await place(session, -2)
    dry = await log.redact(*last, dry_run=True)
    assert len(dry["copies"]) == 2
    assert await log.version("s") == 9
    redacted = await session.redact(*last)
    assert redacted["copies"] == dry["copies"]
    assert list(first) in redacted["copies"]
    assert SECRET not in repr([*await log.find_items(SECRET, include_removed=True)][:-1])
    assert (await session.get_items())[-2:] == [GONE, answer("noted")]
    with pytest.raises(ItemRedactedError):
        await session.redact(*first)


async def test_the_copies_that_a_redo_made_in_forks_are_redacted_with_their_item(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.add_items([user(SECRET), answer("noted")])
    original = await place(session, -2)
    forked = [session]
    for name in ("fork", "fork of the fork"):
        await forked[-1].fork(name)
        forked.append(EventLogSession(name, log))
        await forked[-1].undo_turn()
        await forked[-1].redo()
    copy, copy_of_copy = [await place(each, -2) for each in forked[1:]]
    own = await forked[-1].redact(*copy_of_copy)
    assert own["copies"] == []  # the other is of another session
    assert (await log.redact(*copy, dry_run=True))["copies"] == [list(original)]
    assert (await session.redact(*original))["copies"] == [list(copy)]
    for each in forked:
        assert (await each.get_items())[-2:] == [GONE, answer("noted")]


async def test_what_is_undone_after_a_redaction_is_redone_redacted(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.add_items([user(SECRET)])
    position, index = await place(session, -1)
    await session.redact(position, index)
    assert await session.undo_turn() == [GONE]
    assert await session.redo() == [GONE]
    assert await session.pop_item() == GONE
    await session.add_items([user(SECRET)])
    position, index = await place(session, -1)
    await session.undo_turn()
    await session.redact(position, index)
    assert await session.redo() == [GONE]
    assert (await log.redact(*await place(session, -1), dry_run=True))["copies"] == []


async def test_a_redacted_turn_is_run_again_with_its_placeholder(session: EventLogSession) -> None:
    await session.redact(*await place(session))
    assert await session.retry(1) == "[redacted]"
    await session.switch_to_branch("main")
    assert await session.edit(1, "hello") == "hello"


async def test_an_erased_session_erases_its_redactions(
    log: ConversationLog, session: EventLogSession
) -> None:
    await session.redact(*await place(session))
    dry = await log.erase(session_id="s", dry_run=True)
    erased = await log.erase(session_id="s")
    assert (erased.events, erased.payload_bytes) == (dry.events, dry.payload_bytes)
    assert (await log.find_items(None, include_removed=True)).rows == ()
    assert (await log.find_items("stored", include_removed=True)).rows == ()
    assert "stored" not in repr([line async for line in export_lines(log)])
    kept = projections.default(search=True).named([])
    assert sum(each.differences for each in replay(log, kept, check=True)) == 0


async def test_a_redaction_says_who_why_and_when_and_changes_nothing_else(
    log: ConversationLog, session: EventLogSession
) -> None:
    before = await log.session("s")
    with recording(actor="root"):
        await session.redact(*await place(session), reason="a card number")
    assert await log.session("s") == {**before, "title": "[redacted]"}
    (event,) = [each async for each in log.read("s", types=["item_redacted"])]
    assert event.metadata["actor"] == "root"
    assert isinstance(event.event, ItemRedacted)
    assert event.event.reason == "a card number"


async def test_what_cannot_be_redacted_is_refused_and_nothing_is_written(
    log: ConversationLog, session: EventLogSession
) -> None:
    position, index = await place(session)
    other = EventLogSession("other", log)
    await other.add_items([user("mine")])
    head = await log.head()
    for given, error in (
        ((position, 3), ItemNotFoundError),
        ((position + 1_000, 0), ItemNotFoundError),
        ((0, 0), ItemNotFoundError),
        ((2**70, 0), ItemNotFoundError),
        ((position, -1), ItemNotFoundError),
        ((await place(other)), ItemNotFoundError),
        (("1", 0), TypeError),
        ((1, True), TypeError),
    ):
        with pytest.raises(error):
            await session.redact(*given)
    with pytest.raises(ItemNotFoundError):
        await log.redact(position + 1_000, 0)
    with pytest.raises(InvalidEventError):
        await session.redact(position, index, reason="\ud800")
    with pytest.raises(SessionOwnerError):
        await EventLogSession("s", log, user_id="mallory").redact(position, index)
    assert await log.head() == head
    await session.redact(position, index)
    with pytest.raises(ItemRedactedError) as caught:
        await session.redact(position, index)
    assert caught.value.redaction_position > position
    await log.erase(session_id="other")
    with pytest.raises(ItemErasedError):
        await log.redact(*(await _first(log, "other")), dry_run=True)


async def _first(log: ConversationLog, session_id: str) -> tuple[int, int]:
    async for recorded in log.read(session_id, types=[ItemsAdded], limit=1):
        return recorded.position, 0
    raise AssertionError


async def test_an_event_that_adds_no_item_has_none_to_redact(
    log: ConversationLog, session: EventLogSession
) -> None:
    async for recorded in log.read("s", types=["metadata_set"]):
        with pytest.raises(ItemNotFoundError):
            await log.redact(recorded.position, 0)


async def test_an_export_holds_placeholders_and_an_import_reads_as_the_source(
    log: ConversationLog, session: EventLogSession, tmp_path: Path
) -> None:
    await session.redact(*await place(session))
    await session.redact(*await place(session, 2))
    for erases in (False, True):
        if erases:
            await log.erase(popped=True)
        lines = [line async for line in export_lines(log)]
        assert SECRET not in "".join(lines)
        path = tmp_path / f"copy {erases}.db"
        async with ConversationLog.open(path, search=True) as copy:
            outcomes = [each async for each in import_lines(copy, [x.encode() for x in lines])]
            assert [each.outcome for each in outcomes] == ["imported"]
            moved = EventLogSession("s", copy)
            assert await moved.get_items() == await session.get_items()
            assert [line async for line in export_lines(copy)] == lines
            assert len(await copy.find_items("[redacted]")) == 2
            kept = projections.default(search=True).named([])
            assert sum(each.differences for each in replay(copy, kept, check=True)) == 0
            if not erases:
                await copy.erase(popped=True)
                assert await moved.get_items() == await session.get_items()


@pytest.mark.parametrize(
    "data",
    [
        {"item": [1, 0], "items": [{}, {}]},
        {"item": [1, 0], "items": []},
    ],
)
async def test_an_import_refuses_a_redaction_that_fits_no_event(
    log: ConversationLog, data: Any
) -> None:
    event = {"kind": "event", "schema_version": 1, "branch_id": "main", "recorded_at": 0}
    lines = [
        {"kind": "log", "format": 1},
        {"kind": "session", "session_id": "s", "events": 2},
        {**event, "version": 1, "type": "items_added", "data": {"items": ["x"]}},
        {**event, "version": 2, "type": "item_redacted", "data": data},
    ]
    source = [json.dumps(line).encode() for line in lines]
    (outcome,) = [each async for each in import_lines(log, source)]
    assert outcome.outcome == "broken"
    assert outcome.problem == "version 2 does not have the items of the event that it redacts"


async def test_items_of_the_sdks_tables_go_with_the_redacted_item_only(tmp_path: Path) -> None:
    from agents.extensions.memory import AdvancedSQLiteSession as Theirs

    path = tmp_path / "theirs.db"
    theirs = Theirs(session_id="s", db_path=path, create_tables=True)
    await theirs.add_items([user(SECRET), answer("thank you")])
    theirs.close()
    session = AdvancedSQLiteSession("s", path)
    await session.redact(*await place(session))
    await session.log.erase(popped=True)
    rows = await session.log.query(lambda tx: tx.all("SELECT message_data FROM agent_messages"))
    assert [json.loads(data) for (data,) in rows] == [answer("thank you")]
    session.close()
    assert SECRET.encode() not in path.read_bytes()


async def test_no_byte_of_it_is_left_after_an_erase(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    session = AdvancedSQLiteSession("s", path, search=True)
    await session.add_items([user(f"my card is {SECRET}"), answer("thank you")])
    await session.redact(*await place(session))
    assert (await session.log.erase(popped=True)).is_complete
    session.close()
    assert SECRET.encode() not in path.read_bytes()
    assert b"thank you" in path.read_bytes()


async def test_a_log_without_redactions_is_read_by_the_same_statements(
    log: ConversationLog, session: EventLogSession
) -> None:
    source = "items AS i JOIN events AS {o} ON {o}.position = i.position {join}"

    def unit(tx: Any) -> str:
        return redaction.redactions.present(tx, source)

    plain = await log.query(unit)
    assert plain == "items AS i JOIN events AS e ON e.position = i.position "
    await session.redact(*await place(session))
    assert "redactions" in await log.query(unit)


def test_the_item_of_a_redaction_is_a_reference() -> None:
    assert redaction.parse(3, 1, None) == ItemRef(3, 1)


async def test_a_redaction_that_cannot_be_read_covers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    session = AdvancedSQLiteSession("s", path)
    await session.add_items([user(SECRET)])
    await session.redact(*await place(session))
    session.close()
    tampered(path, "UPDATE events SET data = '{' WHERE type = 'item_redacted'")
    async with ConversationLog.open(path, read_only=True) as log:
        events = [each async for each in log.read("s")]
    covering = RedactedItems()
    covering.left = {1: [GONE]}
    added, broken = events
    assert [getattr(covering.covered(added).event, "items", None)] == [[GONE]]
    assert covering.covered(broken) is broken
    covering.left = {2: [GONE]}
    assert covering.covered(broken) is broken
    assert covering.covered(added) is added


# -- on the command line ------------------------------------------------------------------------


def filled(path: Path) -> tuple[int, int]:
    """Write a conversation with a secret; return where the secret is."""

    async def fill() -> tuple[int, int]:
        session = AdvancedSQLiteSession("s", path)
        await session.add_items([user(f"my card is {SECRET}"), call("c"), output("c", "stored")])
        await session.add_items([user(SECRET)])
        await session.pop_item()
        found = await place(session)
        session.close()
        return found

    return asyncio.run(fill())


def test_the_command_previews_unless_it_is_told_to_redact(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    position, index = filled(path)
    words = ("redact", path, position, index, "--reason", "a card number")
    dry = run(*words)
    assert dry.exit_code == 0
    assert f"would redact user item 0 at position {position} of session 's'" in dry.stdout
    assert "pass --yes" in dry.stdout
    assert SECRET in run("show", path, "s").stdout
    found = one(run(*words, "--json"), "redaction")
    assert (found["dry_run"], found["placeholder"], found["copies"]) == (True, GONE, [])
    done = run(*words, "--yes", "--actor", "root")
    assert "redacted user item 0" in done.stdout
    assert "erase --popped" in done.stdout
    again = run(*words, "--yes")
    assert (again.exit_code, "redacted before" in again.stderr) == (2, True)


def test_no_command_shows_a_redacted_item(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    position, _ = filled(path)
    for place_ in ((position, 0), (position + 1, 0)):
        assert run("redact", path, *place_, "--yes", "--actor", "root").exit_code == 0
    for words in (
        ("show", path, "s"),
        ("show", path, "s", "--json"),
        ("show", path, "s", "--turns"),
        ("search", path, "4111"),
        ("search", path, "4111", "--removed", "--json"),
        ("audit", path),
        ("audit", path, "--json"),
        ("audit", path, "--full"),
        ("sessions", path, "--json"),
        ("branches", path, "s", "--turns"),
        ("compare", path, "s", "main", "main", "--json"),
        ("tools", path, "--json"),
        ("doctor", path),
        ("export", path),
        ("export", path, "--format", "markdown"),
        ("export", path, "--format", "html"),
    ):
        found = run(*words)
        assert found.exit_code in (0, 1), (words, found.output)
        assert SECRET not in found.stdout, words
    assert "redacted item 0 at position" in run("audit", path).stdout
    (event, *_) = documents(run("audit", path, "--json"), "event")
    assert event["data"]["items"][0] == GONE
    assert [each["popped"] for each in documents(run("audit", path, "--json"), "event")][2] == GONE
    assert run("doctor", path).exit_code == 0
    assert run("erase", path, "--popped", "--yes").exit_code == 0
    assert run("doctor", path).exit_code == 0
    assert run("replay", path, "--check").exit_code == 0
    assert SECRET not in run("audit", path, "--full").stdout
