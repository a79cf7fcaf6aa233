"""The slider shows at every version what the library returns for it, for any history."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from tests.browser.conftest import serving, watched
from tests.browser.using import in_a_thread, slide

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STEPS = (
    "add",
    "add",
    "tool",
    "pop",
    "undo",
    "redo",
    "branch",
    "switch",
    "replace",
    "delete",
    "clear",
)
MESSAGES = """
    () => [...document.querySelectorAll('.item')].filter((each) =>
        !each.hidden && !each.closest('[hidden]') && !(each.closest('.gone') && !each.closest('.then'))
    ).flatMap((each) => [...each.querySelectorAll('.said p, .work > summary code')]).map(
        (each) => each.textContent.trim())
"""


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), min_size=4, max_size=10))
@settings(
    max_examples=5,
    phases=[Phase.generate],  # to find a shorter history would take minutes
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_slider_equals_the_library_at_every_version_of_every_branch(
    browser: Browser, steps: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        expected = in_a_thread(wander(path, steps))
        with serving(path) as server:
            context = browser.new_context(base_url=server)
            page = next(opened := watched(context, server))
            for branch, versions in expected.items():
                page.goto(f"/session?id=s&branch={branch}")
                for version, texts in enumerate(versions):
                    slide(page, version)
                    assert page.evaluate(MESSAGES) == texts, (branch, version)
                page.goto(f"/session?id=s&branch={branch}&v={len(versions) // 2}")
                assert page.evaluate(MESSAGES) == versions[len(versions) // 2]
            next(opened, None)


async def wander(path: Path, steps: list[tuple[str, int]]) -> dict[str, list[list[str]]]:
    """Write a history; return the texts of each branch at each version."""
    branches = ["main"]
    async with AdvancedSQLiteSession("s", path, durability="normal") as session:
        await session.add_items([{"role": "user", "content": "start"}])
        for number, (step, choice) in enumerate(steps):
            await take(session, step, choice, number, branches)
    async with ConversationLog.open(path) as log:
        session = AdvancedSQLiteSession("s", path, resume=True)
        count = await log.version("s")
        found = {}
        for branch in branches:
            found[branch] = [
                [said(item) for item in await session.get_items(branch_id=branch, as_of=version)]
                for version in range(count + 1)
            ]
        session.close()
        return found


def said(item: Any) -> str:
    return item["content"] if "role" in item else f"{item['name']}()"


async def take(  # noqa: C901 - one case for each step
    session: AdvancedSQLiteSession, step: str, choice: int, number: int, branches: list[str]
) -> None:
    """Do one thing, unless the conversation has nothing to do it to."""
    text = f"text {number}"
    role = "user" if choice % 2 else "assistant"
    call: Any = {
        "type": "function_call",
        "name": f"tool{number}",
        "call_id": text,
        "arguments": "{}",
    }
    try:
        match step:
            case "add":
                await session.add_items([{"role": role, "content": text}])  # type: ignore[misc, list-item]
            case "tool":
                await session.add_items([call])
            case "pop":
                await session.pop_item()
            case "undo":
                await session.undo_turn()
            case "redo":
                await session.redo()
            case "branch":
                name = f"b{number}"
                await session.create_branch_from_turn(1 + choice, name)
                branches.append(name)
            case "switch":
                await session.switch_to_branch(branches[choice % len(branches)])
            case "replace":
                await session._atomic_replace_items([{"role": "user", "content": text}])
            case "delete":
                await session.delete_branch(branches[choice % len(branches)])
            case "clear":
                await session.clear_session()
    except ValueError:
        pass  # there was nothing to do it to
