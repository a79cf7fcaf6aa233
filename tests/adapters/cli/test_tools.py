"""How tools were used: ``ConversationLog.tools`` and ``eventlog tools``."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from agents.tool import default_tool_error_function, default_tool_timeout_error_message

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.tools import failed
from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.errors import InvalidQueryError
from tests.adapters.looking import call, documents, output, run, user

if TYPE_CHECKING:
    from pathlib import Path

NO_CONTEXT: Any = None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def talk(session_id: str, path: Path, *items: Any, **values: Any) -> AdvancedSQLiteSession:
    session = AdvancedSQLiteSession(session_id, path, durability="normal", **values)
    await session.add_items(list(items))
    return session


async def tools(path: Path, by: Any = ("tool",), **which: Any) -> list[tuple[Any, ...]]:
    async with ConversationLog.open(path, read_only=True) as log:
        return [tuple(row.values()) for row in await log.tools(by, **which)]


async def test_calls_failures_and_the_unanswered_by_tool(path: Path) -> None:
    broken = default_tool_error_function(NO_CONTEXT, ValueError("secret"))
    await talk(
        "s",
        path,
        *[user("x"), call("c1"), output("c1"), call("c2"), output("c2", broken)],
        *[call("c3", "track"), call("c4", "track"), output("c4")],
        {"type": "web_search_call", "id": "w1", "status": "completed", "action": {}},
        {"type": "file_search_call", "id": "f1", "status": "failed", "queries": []},
    )
    assert await tools(path) == [
        ("look_up", 2, 1, 0),
        ("track", 2, 0, 1),
        ("file_search_call", 1, 1, 0),
        ("web_search_call", 1, 0, 0),
    ]


async def test_a_row_has_what_it_is_counted_by_and_the_numbers(path: Path) -> None:
    session = await talk("s", path, user("x"), call("c1"), output("c1"))
    [row] = await session.log.tools(["tool", "session", "day"])
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert row == {
        "tool_name": "look_up",
        "session_id": "s",
        "day": day,
        "calls": 1,
        "failures": 0,
        "unanswered": 0,
    }
    assert await session.log.tools(()) == [{"calls": 1, "failures": 0, "unanswered": 0}]


async def test_a_call_counts_once_however_many_branches_share_it(path: Path) -> None:
    session = await talk("s", path, user("x"), call("c1"))
    await session.create_branch("b")
    await session.add_items([output("c1")])
    await session.switch_to_branch("main")
    await session.add_items([output("c1", "Tool 'look_up' not found.")])
    assert await tools(path) == [("look_up", 1, 1, 0)]


async def test_what_stands_on_no_branch_does_not_count(path: Path) -> None:
    session = await talk("s", path, user("x"), call("c1"))
    await session.pop_item()
    await talk("t", path, user("x"), call("c1"), output("c1"))
    await session.delete_session("t")
    assert await tools(path) == []
    assert await tools(path, ()) == [(0, 0, 0)]


async def test_an_id_that_is_used_again_is_another_call(path: Path) -> None:
    await talk("s", path, user("x"), call("c"), output("c"), call("c"), output("c"), call("c"))
    assert await tools(path) == [("look_up", 3, 0, 1)]


async def test_a_call_that_asked_for_approval_is_one_call(path: Path) -> None:
    def request(name: str) -> Any:
        return {"type": "mcp_approval_request", "id": name, "server_label": "docs", "name": "find"}

    def done(name: str, error: str | None) -> Any:
        return {"type": "mcp_call", "approval_request_id": name, "name": "find", "error": error}

    await talk("s", path, user("x"), *[request(name) for name in "abcd"])
    refused = {"type": "mcp_approval_response", "approval_request_id": "c", "approve": False}
    await talk("s", path, done("a", None), done("b", "gone"), refused)
    assert await tools(path) == [("docs.find", 4, 1, 1)]


async def test_filters(path: Path) -> None:
    await talk("s", path, user("x"), call("c1"), user_id="alice")
    await talk("t", path, user("x"), call("c1"), call("c2"))
    assert await tools(path, "session") == [("t", 2, 0, 2), ("s", 1, 0, 1)]
    assert await tools(path, "session", session_id="s") == [("s", 1, 0, 1)]
    assert await tools(path, "session", user_id="alice") == [("s", 1, 0, 1)]
    assert await tools(path, session_id="t", user_id="alice") == []
    today = datetime.now(UTC).date()
    week = timedelta(days=7)
    assert await tools(path, (), since=today - week, until=today + week) == [(3, 0, 3)]
    assert await tools(path, since=today + week) == await tools(path, until=date(2020, 1, 1)) == []


async def test_many_sessions_are_read_a_few_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents_eventlog.adapters.conversations.tools.SESSIONS_AT_ONCE", 2)
    for number in range(5):
        await talk(f"s{number}", path, user("x"), call("c1"))
    assert await tools(path) == [("look_up", 5, 0, 5)]


async def test_an_event_is_decoded_once_however_many_calls_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [each for number in range(9) for each in (call(f"c{number}"), output(f"c{number}"))]
    await talk("s", path, user("x"), *calls)
    decoded: list[int] = []
    decode = codec.decode_items

    def counting(payloads: Any) -> Any:
        decoded.extend(payload[0] for payload in payloads)
        return decode(payloads)

    monkeypatch.setattr(codec, "decode_items", counting)
    assert await tools(path) == [("look_up", 9, 0, 0)]
    assert decoded == [1]


@pytest.mark.parametrize("wrong", [{"by": "hour"}, {"since": "today"}, {"session_id": "\ud800"}])
async def test_what_is_not_acceptable_is_refused(path: Path, wrong: dict[str, Any]) -> None:
    session = await talk("s", path, user("x"))
    with pytest.raises(InvalidQueryError):
        await session.log.tools(**wrong)
    unknown: Any = {"tool": "x"}
    with pytest.raises(TypeError, match="tool"):
        await session.log.tools(**unknown)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (output("c", default_tool_error_function(NO_CONTEXT, ValueError())), True),
        (output("c", default_tool_timeout_error_message(tool_name="x", timeout_seconds=1.5)), True),
        (output("c", "Tool 'look_up' not found."), True),
        (output("c", "I said: An error occurred while running the tool"), False),
        ({**output("c"), "status": "incomplete"}, True),
        ({**output("c"), "status": "completed"}, False),
        ({**call("c"), "status": "incomplete"}, False),
        ({"type": "mcp_call", "error": "gone"}, True),
        ({"type": "mcp_call", "error": None, "status": "completed"}, False),
        ({"type": "apply_patch_call_output", "status": "failed"}, True),
        ({"type": "shell_call_output", "output": [{"outcome": {"type": "timeout"}}]}, True),
        ({"type": "shell_call_output", "output": [{"outcome": {"exit_code": 1}}]}, True),
        ({"type": "shell_call_output", "output": [{"outcome": {"exit_code": 0}}, "x"]}, False),
        ({"type": "code_interpreter_call", "status": "failed"}, True),
        ({"output": {"status": "failed"}}, False),
    ],
)
def test_what_tells_that_a_call_failed(item: Any, expected: bool) -> None:
    assert failed(item) is expected


def test_the_command_shows_how_tools_were_used(path: Path) -> None:
    asyncio.run(talk("s", path, user("x"), call("c1", "look\x1b[2J"), output("c1")))
    shown = run("tools", path)
    assert shown.exit_code == ExitCode.CLEAN
    assert "look\\x1b[2J" in shown.stdout
    assert [each["calls"] for each in documents(run("tools", path, "--json"), "tool")] == [1]
    [row] = documents(run("tools", path, "--by", "session", "--by", "day", "--json"))
    assert list(row) == ["kind", "session_id", "day", "calls", "failures", "unanswered"]
    assert run("tools", path, "--since", "2200-01-01").stdout == ""
    assert run("tools", path, "--since", "soon").exit_code == ExitCode.USAGE
    assert run("tools", path, "--by", "hour").exit_code == ExitCode.USAGE


@pytest.mark.parametrize("kind", ["shell_call", "computer_call", "apply_patch_call"])
async def test_an_output_that_names_its_call_in_id_answers_it(path: Path, kind: str) -> None:
    asked = {"type": kind, "id": "x1", "call_id": "c1", "status": "completed"}
    await talk("s", path, user("x"), asked, {"type": f"{kind}_output", "id": "c1", "output": "a"})
    assert await tools(path) == [(kind, 1, 0, 0)]
    assert "without output" not in run("doctor", path).stdout


async def test_an_id_beside_a_call_id_answers_nothing(path: Path) -> None:
    asked = {"type": "shell_call", "id": "x1", "call_id": "c1", "status": "completed"}
    answered = {"type": "shell_call_output", "id": "c1", "call_id": "other", "output": "a"}
    await talk("s", path, user("x"), asked, answered)
    assert await tools(path) == [("shell_call", 1, 0, 1)]
