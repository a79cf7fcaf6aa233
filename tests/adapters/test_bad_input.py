"""Arguments that no session can accept: an error of the documented kind, and nothing written."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import ConversationLog, eventlog
from agents_eventlog.eventlog import errors
from tests.adapters.old_files import assert_sound, ours, rows
from tests.contract.items import ran, turns, user

if TYPE_CHECKING:
    from pathlib import Path

LONE = "\ud800"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.db"


@pytest.fixture
async def session(path: Path) -> Any:
    """A session with two turns, a branch of two turns, and usage; it stands on the branch."""
    session = ours(path)
    await session.add_items(turns("first", "second"))
    await session.store_run_usage(ran())
    await session.create_branch_from_turn(2, "draft")
    await session.add_items(turns("other second"))
    return session


async def assert_refused(session: Any, kind: type[Exception], text: str, call: Any) -> Exception:
    """Check that a call is refused, writes nothing, moves nowhere, and leaves the session usable."""
    before = await everything(session)
    with pytest.raises(kind, match=text) as caught:
        await call(session)
    assert await everything(session) == before
    await session.add_items([user("and on")])
    assert (await session.get_items())[-1] == user("and on")
    session.close()
    await assert_sound(session.db_path)
    return caught.value


async def everything(session: Any) -> Any:
    tables = ("events", "sessions", "branches", "segments", "items", "usage")
    stored = [rows(session.db_path, f"SELECT * FROM {table}") for table in tables]
    return stored, session.current_branch, await session.get_items()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# -- items ------------------------------------------------------------------------------------


def circular() -> Any:
    value: dict[str, Any] = {"role": "user"}
    value["content"] = [value]
    return value


def circle_of_two() -> Any:
    one: list[Any] = []
    other = [one]
    one.append(other)
    return {"role": "user", "content": one}


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (object(), "$.items[1]"),
        ({"role": "user", "content": datetime.now(UTC)}, "$.items[1].content"),
        ({"content": [{"text": "ok"}, {"text": b"bytes"}]}, "$.items[1].content[1].text"),
        ({"content": {"deep": {"er": {1, 2}}}}, "$.items[1].content.deep.er"),
        ({("a", "b"): 1}, "$.items[1] (a key)"),
        ({"output": lambda: None}, "$.items[1].output"),
        (SimpleNamespace(role="user"), "$.items[1]"),
        (circular(), "$.items[1].content"),
        (circle_of_two(), "$.items[1].content"),
        ({"content": nested(100_000)}, "$.items[1].content"),
    ],
    ids=[
        "object",
        "time",
        "bytes",
        "set",
        "key",
        "function",
        "no dict",
        "circular",
        "circle of two",
        "too deep",
    ],
)
async def test_an_item_that_is_not_json_is_refused_with_its_place(
    session: Any, item: Any, place: str
) -> None:
    error = await assert_refused(
        session,
        errors.UnserialisableError,
        f"^{re.escape(place)}.* cannot be stored as JSON",
        lambda session: session.add_items([user("fine"), item, user("never")]),
    )
    assert isinstance(error, TypeError)
    assert isinstance(error, errors.UnserialisableError)
    assert error.place.startswith(place)


@pytest.mark.parametrize("items", [5, object()])
async def test_items_that_are_no_list_are_refused(session: Any, items: Any) -> None:
    await assert_refused(
        session, TypeError, "not iterable", lambda session: session.add_items(items)
    )


# -- ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("session_id", [None, 7.5, b"talk", LONE, f"a{LONE}b", ["talk"]])
async def test_a_session_id_that_is_no_text_is_refused(path: Path, session_id: Any) -> None:
    session = ours(path)
    await session.add_items(turns("first"))
    before = rows(path, "SELECT * FROM events")
    with pytest.raises(
        errors.InvalidEventError, match=r"session_id.*(expected a string|surrogate)"
    ):
        ours(path, session_id)
    assert rows(path, "SELECT * FROM events") == before
    assert await session.get_items() == turns("first")


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u2003"])
@pytest.mark.parametrize("way", ["turn", "content", "here"])
async def test_a_blank_branch_name_is_refused(session: Any, name: str, way: str) -> None:
    calls = {
        "turn": lambda session: session.create_branch_from_turn(1, name),
        "content": lambda session: session.create_branch_from_content("first", name),
        "here": lambda session: session.create_branch(name),
    }
    error = await assert_refused(
        session, errors.InvalidBranchError, "^Branch name cannot be empty$", calls[way]
    )
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("name", [7, b"draft", ["draft"], LONE])
@pytest.mark.parametrize("way", ["turn", "content", "here"])
async def test_a_branch_name_that_is_no_text_is_refused(session: Any, name: Any, way: str) -> None:
    calls = {
        "turn": lambda session: session.create_branch_from_turn(1, name),
        "content": lambda session: session.create_branch_from_content("first", name),
        "here": lambda session: session.create_branch(name),
    }
    await assert_refused(
        session, errors.InvalidBranchError, r"expected a string|unpaired surrogate", calls[way]
    )


@pytest.mark.parametrize("branch_id", [7, b"7", ["7"], LONE])
@pytest.mark.parametrize("way", ["switch", "delete"])
async def test_what_is_no_text_is_no_branch(session: Any, branch_id: Any, way: str) -> None:
    await session.create_branch("7")
    await session.switch_to_branch("main")
    calls = {
        "switch": lambda session: session.switch_to_branch(branch_id),
        "delete": lambda session: session.delete_branch(branch_id),
    }
    await assert_refused(session, errors.BranchNotFoundError, "does not exist$", calls[way])


async def test_none_is_no_branch(session: Any) -> None:
    with pytest.raises(errors.InvalidBranchError, match=r"^Branch ID cannot be empty$"):
        await session.delete_branch(None)
    await assert_refused(
        session,
        errors.BranchNotFoundError,
        "^Branch 'None' does not exist$",
        lambda session: session.switch_to_branch(None),
    )


async def test_an_unknown_branch_cannot_be_opened(path: Path, session: Any) -> None:
    before = await everything(session)
    with pytest.raises(errors.BranchNotFoundError, match=r"^Branch 'none such' does not exist$"):
        ours(path, branch_id="none such")
    assert await everything(session) == before


@pytest.mark.parametrize("branch_id", [7, b"draft", LONE, None])
async def test_a_branch_to_open_that_is_no_text_is_refused(
    path: Path, session: Any, branch_id: Any
) -> None:
    await session.create_branch("7")
    before = await everything(session)
    with pytest.raises(errors.BranchNotFoundError, match=r"does not exist$"):
        ours(path, branch_id=branch_id)
    assert await everything(session) == before


@pytest.mark.parametrize("turn", [3, -1, 99, 2**70])
async def test_an_unknown_turn_is_refused(session: Any, turn: int) -> None:
    error = await assert_refused(
        session,
        errors.TurnNotFoundError,
        f"^Turn {turn} does not contain a user message in branch 'draft'$",
        lambda session: session.create_branch_from_turn(turn, "new"),
    )
    assert isinstance(error, errors.TurnNotFoundError)
    assert (error.turn, error.branch_id) == (turn, "draft")


@pytest.mark.parametrize("turn", [None, "one", 1.5, [1]])
async def test_a_turn_that_is_no_number_is_refused(session: Any, turn: Any) -> None:
    await assert_refused(
        session,
        errors.TurnNotFoundError,
        "^Turn .* does not contain a user message in branch 'draft'$",
        lambda session: session.create_branch_from_turn(turn, "new"),
    )


async def test_an_unknown_turn_has_no_usage(session: Any) -> None:
    for turn in (99, -1, 2**70):
        assert await session.get_turn_usage(turn) == {}


# -- sessions and options ---------------------------------------------------------------------


async def test_an_unknown_session_cannot_be_deleted(session: Any) -> None:
    await assert_refused(
        session,
        errors.ConversationError,
        "^session 'none such' does not exist$",
        lambda session: session.delete_session("none such"),
    )


async def test_a_deleted_session_takes_no_more_and_its_neighbours_do(path: Path) -> None:
    gone, other = ours(path), ours(path, "other")
    await gone.add_items(turns("first"))
    await gone.delete_session()
    before = rows(path, "SELECT * FROM events")
    with pytest.raises(errors.SessionDeletedError, match="'talk' was deleted"):
        await gone.add_items(turns("second"))
    with pytest.raises(errors.SessionDeletedError, match="'talk' was deleted"):
        await ours(path).clear_session()
    assert rows(path, "SELECT * FROM events") == before
    await other.add_items(turns("second"))
    assert await other.get_items() == turns("second")


@pytest.mark.parametrize("number", [2, -1, None, "1"])
def test_a_first_turn_number_that_is_neither_0_nor_1_is_refused(path: Path, number: Any) -> None:
    with pytest.raises(ValueError, match="invalid first_turn_number: expected 0 or 1, got"):
        ours(path, first_turn_number=number)


class Key(str):
    """A str of its own, such as an application's type of ids."""

    __slots__ = ()

    def __str__(self) -> str:
        return "not the text"


async def test_ids_and_texts_of_subclasses_of_str_are_taken_for_their_text(path: Path) -> None:
    session = ours(path, Key("s"), user_id=Key("alice"), metadata={Key("a"): Key("b")})
    await session.add_items([{"role": "user", "content": Key("hello")}])
    await session.create_branch(Key("b"))
    await session.switch_to_branch("main")
    await session.switch_to_branch(Key("b"))
    await session.pop_item()
    await session.log.append(Key("t"), eventlog.SessionCleared(), idempotency_key=Key("k"))
    await session.log.append("t", eventlog.SessionCleared(), idempotency_key="k")
    again = ours(path, "s", user_id="alice", branch_id="b")
    assert await again.get_items(branch_id="main") == [{"role": "user", "content": "hello"}]
    assert await again.get_items() == []
    assert await again.get_metadata() == {"user_id": "alice", "metadata": {"a": "b"}}
    assert (await session.log.verify()).ok
    assert await session.log.version("t") == 1


async def test_a_new_session_has_an_id(path: Path) -> None:
    refused = pytest.raises(errors.InvalidEventError, match="expected a non-empty string, got ''")
    with refused:
        ours(path, "")
    async with ConversationLog.open(path) as log:
        with refused:
            await log.append("", eventlog.SessionCleared())


@pytest.mark.parametrize("option", ["colour", "table", "sessions_tables"])
def test_an_option_that_there_is_not_is_refused(path: Path, option: str) -> None:
    unknown: dict[str, Any] = {option: 1}
    with pytest.raises(TypeError, match=option):
        ours(path, **unknown)
    assert not path.exists()


@pytest.mark.parametrize("settings", [{"limitt": 1}, 5, "all"])
def test_session_settings_that_there_are_not_are_refused(path: Path, settings: Any) -> None:
    with pytest.raises(TypeError, match=r"[Ss]ession"):
        ours(path, session_settings=settings)


@pytest.mark.parametrize("name", ["", "two words", '"unclosed', "1st", "a;b", '""', "x'y"])
def test_a_table_name_that_is_no_identifier_is_refused(path: Path, name: str) -> None:
    pairs: list[dict[str, Any]] = [{"sessions_table": name}, {"messages_table": name}]
    for names in pairs:
        with pytest.raises(errors.WrongTablesError, match="invalid table name"):
            ours(path, **names)
    assert not path.exists()


async def test_labels_that_are_not_json_are_refused_and_nothing_is_written(path: Path) -> None:
    with pytest.raises(errors.UnserialisableError, match=r"\$\.when cannot be stored as JSON"):
        ours(path, metadata={"when": datetime.now(UTC)})
    assert rows(path, "SELECT COUNT(*) FROM events") == [(0,)]


@pytest.mark.parametrize("prices", [[1], 0.5, {"gpt": 0.5}, {"gpt": None}])
def test_what_tells_no_prices_is_refused(path: Path, prices: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a mapping or a callable|expected a Price"):
        ours(path, prices=prices)


@pytest.mark.parametrize("by", ["colour", ["day", "colour"], ["day", "day"], None, 3])
async def test_a_group_of_usage_that_there_is_not_is_refused(session: Any, by: Any) -> None:
    with pytest.raises(errors.InvalidQueryError, match=r"cannot group usage|invalid by"):
        await session.get_usage_stats(by=by)


@pytest.mark.parametrize("name", ["since", "until"])
async def test_a_time_of_usage_that_is_no_time_is_refused(session: Any, name: str) -> None:
    with pytest.raises(
        errors.InvalidQueryError, match=f"invalid {name}: expected a datetime or a date, got str"
    ):
        await session.get_usage_stats(**{name: "2026-01-01"})


@pytest.mark.parametrize("name", ["user_id", "session_id"])
@pytest.mark.parametrize("value", [7, object(), LONE])
async def test_a_name_whose_usage_is_asked_for_is_a_text(path: Path, name: str, value: Any) -> None:
    async with ConversationLog.open(path) as log:
        with pytest.raises(errors.InvalidQueryError, match=name):
            await log.usage(**{name: value})


@pytest.mark.parametrize("prices", [5, {"small": 3}])
async def test_prices_that_are_none_are_refused_before_anything_is_repriced(
    session: Any, prices: Any
) -> None:
    with pytest.raises(TypeError, match=r"expected a mapping or a callable|expected a Price"):
        await session.log.reprice(prices=prices)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (date(2026, 11, 4), date(2026, 11, 3)),
        (datetime(2026, 11, 4, 9, tzinfo=UTC), datetime(2026, 11, 4, 8, tzinfo=UTC)),
        (datetime(2026, 11, 4, 9, tzinfo=UTC), date(2026, 11, 3)),
    ],
)
async def test_a_time_that_ends_before_it_begins_is_refused(
    session: Any, since: date, until: date
) -> None:
    refused = pytest.raises(errors.InvalidQueryError, match="until must be after since")
    with refused:
        await session.get_usage_stats(since=since, until=until)
    async with ConversationLog.open(session.db_path) as log:
        with refused:
            await log.find_items("a", since=since, until=until)
        with refused:
            await log.tools(since=since, until=until)
    one_day = {"since": date(2026, 11, 4), "until": date(2026, 11, 4)}
    assert (await session.get_usage_stats(**one_day))["total_requests"] == 0


@pytest.mark.parametrize("result", [None, 5, SimpleNamespace(), SimpleNamespace(context_wrapper=1)])
async def test_a_result_without_usage_is_logged_and_nothing_is_stored(
    session: Any, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = await everything(session)
    await session.store_run_usage(result)
    assert await everything(session) == before
    assert "Failed to store session usage" in caplog.text
    await session.store_run_usage(ran(1, 3, 4))
    assert (await session.get_turn_usage(2))["total_tokens"] == 7
