"""Runs that stop for an approval and go on, in the same process and in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.adapters.openai_agents.testing import call, together
from tests.adapters.running import Bank, Spy, answered, called, said, user

if TYPE_CHECKING:
    from tests.adapters.running import Resume, Sessions


async def test_an_interrupted_run_leaves_the_call_that_waits(sessions: Sessions, run: Any) -> None:
    bank = Bank(call("pay", {"to": "Ada"}))
    result = await run(bank.agent, "Pay Ada", session=sessions())
    assert len(result.interruptions) == 1
    assert bank.paid == []
    assert await sessions().get_items() == [user("Pay Ada"), called("pay", {"to": "Ada"}, 1)]


async def test_an_approved_call_gets_its_output_and_nothing_is_stored_twice(
    sessions: Sessions, run: Any, resume: Resume
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done", "Ada")
    interrupted = await run(bank.agent, "Pay Ada", session=sessions())
    state = await resume(interrupted, bank.agent)
    state.approve(state.get_interruptions()[0])
    session = sessions()
    spy = Spy(session)
    await run(bank.agent, state, session=session)

    held = [user("Pay Ada"), called("pay", {"to": "Ada"}, 1), answered("paid Ada", 1)]
    assert bank.paid == ["Ada"]
    assert bank.model.inputs[1] == held
    assert await sessions().get_items() == [*held, said("Done", 2)]
    assert spy.added() == [["function_call_output"], ["assistant"]]
    assert [name for name, _, _ in spy.calls] == ["get_items", "add_items", "add_items"]

    await run(bank.agent, "Who?", session=sessions())
    assert bank.model.inputs[2] == [*held, said("Done", 2), user("Who?")]


async def test_a_rejected_call_is_answered_with_the_refusal(
    sessions: Sessions, run: Any, resume: Resume
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Not paid")
    state = await resume(await run(bank.agent, "Pay Ada", session=sessions()), bank.agent)
    state.reject(state.get_interruptions()[0], rejection_message="Over the limit")
    await run(bank.agent, state, session=sessions())
    assert bank.paid == []
    assert await sessions().get_items() == [
        user("Pay Ada"),
        called("pay", {"to": "Ada"}, 1),
        answered("Over the limit", 1),
        said("Not paid", 2),
    ]


async def test_two_calls_that_wait_are_settled_one_after_the_other(
    sessions: Sessions, run: Any, resume: Resume
) -> None:
    both = together(call("pay", {"to": "Ada"}), call("pay", {"to": "Bob"}))
    bank = Bank(both, "Both paid")
    result = await run(bank.agent, "Pay both", session=sessions())
    for _ in range(2):
        state = await resume(result, bank.agent)
        state.approve(state.get_interruptions()[0])
        result = await run(bank.agent, state, session=sessions())
    assert result.final_output == "Both paid"
    assert bank.paid == ["Ada", "Bob"]

    held = await sessions().get_items()
    assert held[:3] == [
        user("Pay both"),
        called("pay", {"to": "Ada"}, "1"),
        called("pay", {"to": "Bob"}, "1_2"),
    ]
    assert sorted(held[3:5], key=lambda item: item["call_id"]) == [
        answered("paid Ada", "1"),
        answered("paid Bob", "1_2"),
    ]
    assert held[5:] == [said("Both paid", 2)]


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
async def test_a_resumed_run_whose_write_failed_is_resumed_again_without_doubling(
    sessions: Sessions, run: Any, committed: bool
) -> None:
    bank = Bank(call("pay", {"to": "Ada"}), "Done")
    state = (await run(bank.agent, "Pay Ada", session=sessions())).to_state()
    state.approve(state.get_interruptions()[0])
    session = sessions()
    spy = Spy(session)
    failures = spy.failures_after if committed else spy.failures
    failures["add_items"] = [OSError("lost")]
    with pytest.raises(OSError, match="lost"):
        await run(bank.agent, state, session=session)

    await run(bank.agent, state, session=sessions())
    assert bank.paid == ["Ada"]
    assert await sessions().get_items() == [
        user("Pay Ada"),
        called("pay", {"to": "Ada"}, 1),
        answered("paid Ada", 1),
        said("Done", 2),
    ]


async def test_an_approval_on_a_branch_goes_on_on_that_branch(
    ours: Sessions, run: Any, resume: Resume
) -> None:
    bank = Bank("Hello", call("pay", {"to": "Ada"}), "Done")
    session = ours()
    await run(bank.agent, "Hi", session=session)
    await session.create_branch("risky")
    interrupted = await run(bank.agent, "Pay Ada", session=session)
    state = await resume(interrupted, bank.agent)
    state.approve(state.get_interruptions()[0])
    await run(bank.agent, state, session=ours(branch_id="risky"))
    assert await ours().get_items() == [user("Hi"), said("Hello", 1)]
    assert await ours(branch_id="risky").get_items() == [
        user("Hi"),
        said("Hello", 1),
        user("Pay Ada"),
        called("pay", {"to": "Ada"}, 2),
        answered("paid Ada", 2),
        said("Done", 3),
    ]
