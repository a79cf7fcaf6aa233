"""Budgets: no request is made when nothing is left, whatever used it up."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from agents import Agent, Runner, RunState

from agents_eventlog import (
    AdvancedSQLiteSession,
    Budget,
    ConversationLog,
    EventLogSession,
    Price,
    UsageHooks,
)
from agents_eventlog.adapters.conversations import budgets
from agents_eventlog.adapters.openai_agents.testing import ScriptedModel, call, tokens
from agents_eventlog.eventlog.errors import BudgetExceededError
from tests.adapters.running import Bank, kinds, weather

if TYPE_CHECKING:
    from pathlib import Path

    from tests.adapters.running import Sessions

PRICES = {"small": Price(input=1.0, output=1.0)}
DOLLAR = tokens(600_000, 400_000)
"""The usage of a request that costs a dollar."""


def host(*script: Any, model: str | None = "small") -> Any:
    return Agent(
        name="Host", model=ScriptedModel(script, model=model, usage=DOLLAR), tools=[weather]
    )


def asked(agent: Any) -> int:
    """Return how many requests the model got."""
    return len(agent.model.inputs)


async def test_a_run_ends_before_the_request_that_would_exceed_its_budget(
    ours: Sessions, run: Any
) -> None:
    session = ours(budgets=Budget(usd=2.0, per="run"), prices=PRICES)
    agent = host(*[call("weather", {"city": "Oslo"})] * 3, "Sunny")
    with pytest.raises(BudgetExceededError) as caught:
        await run(agent, "Weather?", session=session, hooks=UsageHooks(session))
    assert asked(agent) == 2
    assert (caught.value.cost_usd, caught.value.tokens) == (2.0, 2_000_000)
    assert str(caught.value).startswith(
        "budget is used up: expected less than 2 USD per run, got 2 USD, 2,000,000 tokens (run_id "
    )
    assert (await session.get_usage_stats())["total_cost"] == 2.0


async def test_the_next_run_has_a_budget_of_its_own(ours: Sessions, run: Any) -> None:
    for _ in range(2):
        session = ours(budgets=Budget(usd=1.0, per="run"), prices=PRICES)
        await run(host("Hi"), "Hello", session=session, hooks=UsageHooks(session))


async def test_without_hooks_a_budget_is_checked_when_a_run_starts_and_nothing_is_written(
    ours: Sessions, run: Any
) -> None:
    limit = Budget(usd=1.0)
    await run(host("Hi"), "Hello", session=ours(budgets=limit, prices=PRICES))
    agent = host("Hi")
    session = ours(budgets=limit, prices=PRICES)
    with pytest.raises(BudgetExceededError, match=r"session_id 'talk'"):
        await run(agent, "Again", session=session)
    assert asked(agent) == 0
    assert kinds(await session.get_items()) == ["user", "assistant"]


@pytest.mark.parametrize("per", ["run", "session"])
async def test_a_budget_per_run_without_hooks_is_warned_about(
    ours: Sessions, caplog: pytest.LogCaptureFixture, per: Any, run: Any
) -> None:
    session = ours(budgets=Budget(usd=5.0, per=per), prices=PRICES)
    await run(host("Hi"), "Hello", session=session)
    await run(host("Hi"), "Hello", session=session)
    found = [each.getMessage() for each in caplog.records if "UsageHooks" in each.getMessage()]
    assert len(found) == (1 if per == "run" else 0)
    with_hooks = ours("other", budgets=Budget(usd=5.0, per="run"), prices=PRICES)
    await run(host("Hi"), "Hello", session=with_hooks, hooks=UsageHooks(with_hooks))
    assert len(found) == len([each for each in caplog.records if "UsageHooks" in each.getMessage()])


async def test_calls_outside_of_a_run_do_not_need_a_budget(ours: Sessions) -> None:
    session = ours(budgets=Budget(tokens=0))
    await session.add_items([{"role": "user", "content": "Hello"}])
    assert kinds(await session.get_items()) == ["user"]


async def test_all_sessions_of_a_user_share_a_budget(ours: Sessions, run: Any) -> None:
    limit = Budget(usd=2.0, per=("user", "month"))
    for name in ("a", "b"):
        session = ours(name, user_id="alice", budgets=limit, prices=PRICES)
        await run(host("Hi"), "Hello", session=session, hooks=UsageHooks(session))
    # The id of a session that does not exist yet counts, too.
    session = ours("c", user_id="alice", budgets=limit, prices=PRICES)
    with pytest.raises(BudgetExceededError, match=r"user_id 'alice', month '\d{4}-\d\d'"):
        await run(host("Hi"), "Hello", session=session)
    for name, user_id in (("d", "bob"), ("e", None), ("f", None), ("g", None)):
        session = ours(name, user_id=user_id, budgets=limit, prices=PRICES)
        await run(host("Hi"), "Hello", session=session, hooks=UsageHooks(session))


async def test_a_day_or_month_counts_all_sessions_of_the_log_until_it_ends(
    tmp_path: Path, run: Any
) -> None:
    now = datetime(2026, 10, 31, 22, 30, tzinfo=UTC)
    limits = [Budget(usd=2, per="day", tz="Europe/Berlin"), Budget(tokens=2_500_000, per="month")]
    async with ConversationLog.open(tmp_path / "log.db", budgets=limits) as log:

        async def runs(name: str, minutes: int) -> str:
            at = int((now + timedelta(minutes=minutes)).timestamp() * 1e6)
            log.store.clock = lambda: at
            session = EventLogSession(name, log, prices=PRICES)
            try:
                await run(host("Hi"), "Hello", session=session, hooks=UsageHooks(session))
            except BudgetExceededError as error:
                return f"{error.keys}"
            return "answered"

        assert await runs("a", 0) == "answered"
        assert await runs("b", 1) == "answered"
        assert await runs("c", 2) == "{'day': '2026-10-31'}"
        assert await runs("c", 30) == "answered"  # the 1st of November in Berlin
        assert await runs("d", 31) == "{'month': '2026-10'}"
        assert await runs("d", 90) == "answered"  # and in UTC


async def test_the_budgets_of_an_open_log_apply_to_all_sessions_of_the_process_on_its_file(
    tmp_path: Path, run: Any
) -> None:
    path = tmp_path / "log.db"
    async with ConversationLog.open(path, budgets=Budget(tokens=0, per="user")) as log:
        for session in (EventLogSession("a", log), AdvancedSQLiteSession("b", path)):
            with pytest.raises(BudgetExceededError):
                await run(host("Hi"), "Hello", session=session)
        other = AdvancedSQLiteSession("a", tmp_path / "other.db")
        await run(host("Hi"), "Hello", session=other, hooks=UsageHooks(other))
    await run(host("Hi"), "Hello", session=AdvancedSQLiteSession("b", path))


async def test_runs_at_the_same_time_exceed_a_budget_by_at_most_one_request_each(
    ours: Sessions,
) -> None:
    everybody = asyncio.Barrier(4)

    async def answer(_: Any) -> str:
        await everybody.wait()
        return "Hi"

    limit = Budget(usd=2.0, per="user")
    sessions = [ours(f"{n}", user_id="alice", budgets=limit, prices=PRICES) for n in range(5)]
    await Runner.run(host("Hi"), "Hello", session=sessions[4])  # leaves a dollar
    await asyncio.gather(
        *(Runner.run(host(answer), "Hello", session=session) for session in sessions[:4])
    )
    (alice,) = await sessions[0].log.budget_usage(limit)
    assert alice.cost_usd == 1.0 + 4.0


async def test_a_run_that_another_process_continues_has_used_what_it_had_used(
    ours: Sessions,
) -> None:
    limit = Budget(usd=1.0, per="run")
    bank = Bank(call("pay", {"to": "Bob"}), "Paid", model="small", usage=DOLLAR)
    session = ours(budgets=limit, prices=PRICES)
    result = await Runner.run(bank.agent, "Pay", session=session, hooks=UsageHooks(session))
    stored = json.dumps(result.to_state().to_json())
    state: Any = await RunState.from_json(bank.agent, json.loads(stored))
    state.approve(state.get_interruptions()[0])
    session = ours(budgets=limit, prices=PRICES)
    with pytest.raises(BudgetExceededError):
        await Runner.run(bank.agent, state, session=session, hooks=UsageHooks(session))
    assert len(bank.model.inputs) == 1


async def test_a_soft_budget_only_logs_and_once_per_session_object(
    ours: Sessions, caplog: pytest.LogCaptureFixture, run: Any
) -> None:
    session = ours(budgets=Budget(usd=1.0, per="run", soft=True), prices=PRICES)
    agent = host(*[call("weather", {"city": "Oslo"})] * 3, "Sunny")
    await run(agent, "Weather?", session=session, hooks=UsageHooks(session))
    assert asked(agent) == 4
    (record,) = [each for each in caplog.records if "budget" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "A soft budget is used up budget='1 USD per run' cost_usd=1.0" in record.getMessage()


async def test_requests_without_a_price_count_as_tokens_and_a_warning_says_so(
    ours: Sessions, caplog: pytest.LogCaptureFixture, run: Any
) -> None:
    limits = [Budget(usd=0.5, per="run"), Budget(tokens=2_000_000, per="run")]
    session = ours(budgets=limits)
    agent = host(*[call("weather", {"city": "Oslo"})] * 3, "Sunny", model="unheard of")
    with pytest.raises(BudgetExceededError, match="2,000,000 tokens per run, got 0 USD"):
        await run(agent, "Weather?", session=session, hooks=UsageHooks(session))
    (record,) = [each for each in caplog.records if "budget" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert "Requests without a known price do not count budget=" in record.getMessage()
    assert "unpriced_requests=1" in record.getMessage()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "expected usd or tokens, got neither"),
        ({"usd": -1}, "invalid usd: expected 0 or more, got -1"),
        ({"usd": float("nan")}, "invalid usd"),
        ({"tokens": -1}, "invalid tokens"),
        ({"usd": 1, "per": "week"}, "invalid per"),
        ({"usd": 1, "per": ()}, "invalid per"),
        ({"usd": 1, "per": ("run", "day")}, "invalid per"),
        ({"usd": 1, "per": ("user", "session")}, "invalid per"),
        ({"usd": 1, "per": ("user", "day", "day")}, "invalid per"),
        ({"usd": 1, "tz": "Mars/Olympus"}, "unknown time zone: expected an IANA name"),
        ({"usd": 1, "tz": "../etc/passwd"}, "unknown time zone"),
    ],
)
def test_a_budget_that_limits_nothing_is_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**facts)


def test_budgets_are_a_budget_or_several() -> None:
    limits: Any = {"usd": 5}
    with pytest.raises(TypeError, match="invalid budget: expected a Budget, got str"):
        AdvancedSQLiteSession("s", budgets=limits)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20usd/user/month", Budget(usd=20, per=("user", "month"))),
        ("0.5 usd/run", Budget(usd=0.5, per=("run",))),
        ("5000tokens/session", Budget(tokens=5000, per=("session",))),
    ],
)
def test_a_budget_can_be_written_as_a_text(text: str, budget: Budget) -> None:
    assert budgets.parsed(text) == budget


@pytest.mark.parametrize("text", ["", "20", "20usd", "usd/day", "20usd/week", "1.5tokens/day"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        budgets.parsed(text)


async def test_the_usage_of_a_budget_is_listed_the_most_used_first(ours: Sessions) -> None:
    for name, user_id, count in (
        ("a", "alice", 1),
        ("b", "alice", 1),
        ("c", "bob", 3),
        ("d", None, 1),
    ):
        session = ours(name, user_id=user_id, prices=PRICES)
        for _ in range(count):
            await Runner.run(host("Hi"), "Hello", session=session)
    log = session.log
    found = await log.budget_usage(Budget(usd=2.0, tokens=10_000_000, per="user"))
    assert [(each.keys, each.cost_usd, each.fraction, each.is_exceeded) for each in found] == [
        ({"user_id": "bob"}, 3.0, 1.5, True),
        ({"user_id": "alice"}, 2.0, 1.0, True),
        ({"session_id": "d"}, 1.0, 0.5, False),
    ]
    (alice,) = await log.budget_usage(Budget(usd=0, per="session"), session_id="a")
    assert (alice.keys, alice.fraction) == ({"session_id": "a"}, float("inf"))
    (month,) = await log.budget_usage(Budget(tokens=7_000_000, per="month"), user_id="alice")
    assert (list(month.keys), month.tokens, month.is_exceeded) == (["month"], 2_000_000, False)
    assert len(await log.budget_usage(Budget(tokens=1, per="run"))) == 6
