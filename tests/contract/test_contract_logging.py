"""What is logged, and what is not, on both sides (bullets 7, 16, 44, 57, 80)."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import SIDES, World
from tests.contract.items import ran, result_of, turns, user

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "my secret is forty-two"
Records = list[logging.LogRecord]


@pytest.fixture(params=SIDES)
def logged(request: pytest.FixtureRequest, world: World) -> Any:
    """A session that logs to a logger of the program's own, and what it logged."""
    records: Records = []
    logger = logging.getLogger(f"the program's own {world.folder.name}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    logger.addHandler(handler)
    side = request.param
    session = world.session_class(side)(
        session_id="s", db_path=world.path(side), create_tables=True, logger=logger
    )
    world.opened.append(session)
    return SimpleNamespace(session=session, records=records)


@pytest.fixture
def model_data(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Turn the SDK's logging of model and tool data on or off."""

    def turn(*, model: bool, tool: bool) -> None:
        monkeypatch.setattr("agents._debug.DONT_LOG_MODEL_DATA", not model)
        monkeypatch.setattr("agents._debug.DONT_LOG_TOOL_DATA", not tool)

    turn(model=False, tool=False)
    return turn


def only(records: Records, text: str) -> logging.LogRecord:
    """Return the one record that contains a text."""
    (record,) = [record for record in records if text in record.getMessage()]
    return record


class Unstorable:
    """What is no JSON, and whose failure could give something away."""

    def __repr__(self) -> str:
        return SECRET


async def test_a_failing_add_is_logged_without_content(logged: Any, model_data: Any) -> None:
    with pytest.raises(TypeError):
        await logged.session.add_items([user(SECRET), Unstorable()])
    record = only(logged.records, "Failed to add session items")
    assert (record.levelname, record.msg) == ("ERROR", "%s")
    assert record.args == ("Failed to add session items",)
    assert record.exc_info is None
    assert not hasattr(record, "openai_agents_diagnostic_context")


@pytest.mark.parametrize(("model", "tool"), [(True, False), (False, True)])
async def test_a_failing_add_is_redacted_if_either_is(
    logged: Any, model_data: Any, *, model: bool, tool: bool
) -> None:
    model_data(model=model, tool=tool)
    with pytest.raises(TypeError):
        await logged.session.add_items([Unstorable()])
    assert only(logged.records, "Failed to add session items").exc_info is None


async def test_a_failing_add_is_logged_in_full_where_data_may_be(
    logged: Any, model_data: Any
) -> None:
    model_data(model=True, tool=True)
    with pytest.raises(TypeError) as raised:
        await logged.session.add_items([Unstorable()])
    record = only(logged.records, "Failed to add session items")
    assert record.getMessage() == f"Failed to add session items: {raised.value}"
    assert record.exc_info is not None
    assert record.exc_info[0] is type(raised.value)


async def test_failing_to_store_usage_is_logged_without_content(
    logged: Any, model_data: Any
) -> None:
    await logged.session.add_items(turns("one"))
    await logged.session.store_run_usage(result_of(SECRET))
    record = only(logged.records, "Failed to store session usage")
    assert (record.levelname, record.msg) == ("ERROR", "%s")
    assert record.args == ("Failed to store session usage",)
    assert record.exc_info is None
    assert not hasattr(record, "openai_agents_diagnostic_context")


async def test_failing_to_store_usage_tells_the_session_where_data_may_be_logged(
    logged: Any, model_data: Any
) -> None:
    model_data(model=True, tool=False)
    logged.session.close()
    await logged.session.store_run_usage(ran())
    record = only(logged.records, "Failed to store session usage")
    assert record.getMessage() == "Failed to store session usage: SQLiteSession is closed"
    assert record.exc_info is not None
    assert record.__dict__["openai_agents_diagnostic_context"] == {"session_id": "s"}
    assert not hasattr(record, "session_id")


async def test_a_switch_is_logged(logged: Any, model_data: Any) -> None:
    await logged.session.add_items(turns("one", "two"))
    await logged.session.create_branch_from_turn(2, "draft")
    await logged.session.switch_to_branch("main")
    record = only(logged.records, "Switched from")
    assert record.levelname == "INFO"
    assert record.getMessage() == "Switched from branch 'draft' to 'main'"


async def test_a_new_branch_is_logged_without_its_turns_text(logged: Any, model_data: Any) -> None:
    await logged.session.add_items(turns("one", SECRET))
    await logged.session.create_branch_from_turn(2, "draft")
    record = only(logged.records, "Created branch")
    assert record.levelname == "DEBUG"
    assert record.getMessage() == "Created branch 'draft' from turn 2 in 'main'"


async def test_a_new_branch_shows_fifty_characters_where_data_may_be_logged(
    logged: Any, model_data: Any
) -> None:
    model_data(model=True, tool=False)
    await logged.session.add_items([user("x" * 60)])
    await logged.session.create_branch_from_turn(1, "draft")
    message = only(logged.records, "Created branch").getMessage()
    assert message == f"Created branch 'draft' from turn 1 ('{'x' * 50}...') in 'main'"


async def test_nothing_that_was_said_is_logged(logged: Any, model_data: Any) -> None:
    session = logged.session
    await session.add_items([*turns("one", SECRET), user([{"text": SECRET}])])
    await session.store_run_usage(ran())
    await session.create_branch_from_content(SECRET, "draft")
    await session.find_turns_by_content(SECRET)
    await session.switch_to_branch("main")
    await session.pop_item()
    await session.delete_branch("draft")
    with pytest.raises(TypeError):
        await session.add_items([user(SECRET), Unstorable()])
    await session.clear_session()
    assert logged.records
    told = [f"{record.getMessage()} {record.__dict__}" for record in logged.records]
    assert not [text for text in told if SECRET in text]
