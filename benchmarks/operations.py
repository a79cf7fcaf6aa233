"""The operations that are measured, each with what it must reach beside the SDK's class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.turns import adds, marker, run_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.contestants import Session


@dataclass(frozen=True)
class Call:
    """One measured call: on which session, of how many turns, and a number never used before."""

    session: Session
    turns: int
    number: int


async def _nothing(call: Call) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """
    One line of the comparison, at several lengths of history.

    ``prepare`` runs outside the measured time and hands its result to ``run``. ``answer`` reduces
    the result to what both contestants must agree on. ``targets`` says, by turns, how many times
    faster ours must be; None where the length is measured for its growth alone. ``in_one_call`` says
    that one call added the whole history.
    """

    name: str
    title: str
    run: Callable[[Call, Any], Awaitable[Any]]
    targets: Mapping[int, float | None]
    prepare: Callable[[Call], Awaitable[Any]] = _nothing
    answer: Callable[[Any], Any] = field(default=lambda result: result)
    branches: int = 0
    calls_per_round: int = 5
    reads_all: bool = False
    in_one_call: bool = False


async def _batches(call: Call) -> Any:
    return adds(call.number)


async def _add_turn(call: Call, batches: Any) -> None:
    for items in batches:
        await call.session.add_items(items)


async def _finished_run(call: Call) -> Any:
    await _add_turn(call, adds(call.number))
    return run_result(call.number)


async def _store_usage(call: Call, result: Any) -> None:
    await call.session.store_run_usage(result)


async def _newest(call: Call, _: None) -> Any:
    return await call.session.get_items(limit=20)


async def _whole(call: Call, _: None) -> Any:
    return await call.session.get_items()


async def _pop(call: Call, _: None) -> Any:
    return await call.session.pop_item()


async def _to_main(call: Call) -> None:
    await call.session.switch_to_branch("main")


async def _branch_at_half(call: Call, _: None) -> Any:
    return await call.session.create_branch_from_turn(call.turns // 2, f"branch {call.number}")


async def _list_branches(call: Call, _: None) -> Any:
    return await call.session.list_branches()


def _branch_sizes(branches: Any) -> Any:
    return sorted((b["branch_id"], b["message_count"], b["user_turns"]) for b in branches)


async def _find(call: Call, _: None) -> Any:
    return await call.session.find_turns_by_content(marker(call.turns // 2))


def _found(turns: Any) -> Any:
    return [(turn["turn"], turn["content"]) for turn in turns]


async def _turns(call: Call, _: None) -> Any:
    return await call.session.get_conversation_turns()


def _previews(turns: Any) -> Any:
    return [(turn["turn"], turn["content"], turn["can_branch"]) for turn in turns]


async def _by_turns(call: Call, _: None) -> Any:
    return await call.session.get_conversation_by_turns()


def _kinds(turns: Any) -> Any:
    return [
        (turn, [(item["type"], item["tool_name"]) for item in items])
        for turn, items in turns.items()
    ]


async def _tools(call: Call, _: None) -> Any:
    return await call.session.get_tool_usage()


async def _used_turns(call: Call) -> None:
    """Record a run's usage, so that there is something to read."""
    await call.session.store_run_usage(await _finished_run(call))


async def _turn_usage(call: Call, _: None) -> Any:
    return await call.session.get_turn_usage()


async def _session_usage(call: Call, _: None) -> Any:
    return await call.session.get_session_usage()


async def _other_branch(call: Call) -> str:
    """Return a branch that is not the current one."""
    return "main" if call.number % 2 else "branch 0"


async def _switch(call: Call, branch: str) -> Any:
    return await call.session.switch_to_branch(branch)


async def _branch_at_content(call: Call, _: None) -> Any:
    return await call.session.create_branch_from_content(
        marker(call.turns // 2), f"branch {call.number}"
    )


async def _new_branch(call: Call) -> str:
    await _to_main(call)
    name = await _branch_at_half(call, None)
    await _to_main(call)
    return str(name)


async def _delete_branch(call: Call, branch: str) -> Any:
    return await call.session.delete_branch(branch)


async def _a_turn(call: Call) -> None:
    await _add_turn(call, adds(call.number))


async def _clear(call: Call, _: None) -> Any:
    return await call.session.clear_session()


def _totals(turns: Any) -> Any:
    return [(turn["user_turn_number"], turn["total_tokens"]) for turn in turns]


_ONE_BY_ONE = (
    Operation(
        name="add_items",
        title="a turn's two add_items",
        prepare=_batches,
        run=_add_turn,
        targets={10: 1.3, 1_000: 2.5, 10_000: 15, 100_000: None},
    ),
    Operation(
        name="store_run_usage",
        title="store_run_usage",
        prepare=_finished_run,
        run=_store_usage,
        targets={10: 1.2, 1_000: 1.2, 10_000: 1.5},
    ),
    Operation(
        name="get_items_limit",
        title="get_items(limit=20)",
        run=_newest,
        targets={10: 1.5, 1_000: 15, 10_000: 150, 100_000: None},
        calls_per_round=10,
    ),
    Operation(
        name="get_items",
        title="get_items(), whole",
        run=_whole,
        targets={1_000: 3, 10_000: 3},
        calls_per_round=3,
        reads_all=True,
    ),
    Operation(
        name="pop_item",
        title="pop_item()",
        run=_pop,
        targets={10: 1.2, 1_000: 6, 10_000: 75, 100_000: None},
    ),
    Operation(
        name="create_branch",
        title="create_branch_from_turn(half)",
        prepare=_to_main,
        run=_branch_at_half,
        targets={10: 1.2, 1_000: 30, 10_000: 300},
        calls_per_round=3,
    ),
    Operation(
        name="list_branches",
        title="list_branches(), ten branches",
        run=_list_branches,
        answer=_branch_sizes,
        targets={10: None, 1_000: 20, 10_000: 200},
        branches=10,
    ),
    Operation(
        name="find_turns",
        title="find_turns_by_content",
        run=_find,
        answer=_found,
        targets={10: 1, 1_000: 1.5, 10_000: 1.5},
        reads_all=True,
    ),
    Operation(
        name="turns",
        title="get_conversation_turns",
        run=_turns,
        answer=_previews,
        targets={10: 1, 1_000: 1.5, 10_000: 1.5},
        calls_per_round=3,
        reads_all=True,
    ),
    Operation(
        name="by_turns",
        title="get_conversation_by_turns",
        run=_by_turns,
        answer=_kinds,
        targets={10: 1, 1_000: 1.5, 10_000: 1.5},
        calls_per_round=3,
        reads_all=True,
    ),
    Operation(
        name="tools",
        title="get_tool_usage",
        run=_tools,
        targets={10: 1, 1_000: 1.5, 10_000: 1.5},
        calls_per_round=3,
        reads_all=True,
    ),
    Operation(
        name="turn_usage",
        title="get_turn_usage",
        prepare=_used_turns,
        run=_turn_usage,
        answer=_totals,
        targets={10: 1, 1_000: 1.5, 10_000: 1.5},
    ),
)
_MANAGING = (
    Operation(
        name="session_usage",
        title="get_session_usage",
        prepare=_used_turns,
        run=_session_usage,
        targets={10: 1, 1_000: 1, 10_000: 1},
    ),
    Operation(
        name="switch_branch",
        title="switch_to_branch",
        prepare=_other_branch,
        run=_switch,
        targets={10: 1, 1_000: 1, 10_000: 1},
        branches=10,
    ),
    Operation(
        name="branch_from_content",
        title="create_branch_from_content(half)",
        prepare=_to_main,
        run=_branch_at_content,
        targets={10: 1, 1_000: 1, 10_000: 1},
        calls_per_round=3,
        reads_all=True,
    ),
    Operation(
        name="delete_branch",
        title="delete_branch",
        prepare=_new_branch,
        run=_delete_branch,
        targets={10: 1, 1_000: 1, 10_000: 1},
        calls_per_round=3,
    ),
    Operation(
        name="clear_session",
        title="clear_session, of one turn",
        prepare=_a_turn,
        run=_clear,
        targets={10: 1},
    ),
)
_READS = {"get_items_limit", "get_items", "find_turns", "turns", "by_turns", "tools"}
OPERATIONS = (
    *_ONE_BY_ONE,
    *_MANAGING,
    *(
        replace(
            operation,
            name=f"{operation.name}_of_branches",
            title=f"{operation.title.removesuffix(', ten branches')}, a hundred branches",
            branches=100,
            targets=dict.fromkeys((1_000,), operation.targets[1_000]),
        )
        for operation in _ONE_BY_ONE
        if operation.name in {*_READS, "list_branches"}
    ),
    *(
        replace(
            operation,
            name=f"{operation.name}_of_one_call",
            title=f"{operation.title}, one event",
            in_one_call=True,
        )
        for operation in _ONE_BY_ONE
        if operation.name in {*_READS, "pop_item"}
    ),
)
