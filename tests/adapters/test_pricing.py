"""What a request costs: as genai-prices says, or as the application does, or not known."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import genai_prices
import msgspec
import pytest
from typer.testing import CliRunner

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, OnlyPrices, Price
from agents_eventlog.adapters.cli import main as cli_main
from agents_eventlog.adapters.conversations import pricing
from agents_eventlog.eventlog import RequestUsage, UsageRecorded

if TYPE_CHECKING:
    from pathlib import Path

NOVEMBER = datetime(2026, 11, 4, 12, tzinfo=UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def used(model: str | None, **numbers: Any) -> RequestUsage:
    counted = {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100, **numbers}
    return RequestUsage(model=model, **counted)


@pytest.mark.parametrize("at", [NOVEMBER, LONG_AGO], ids=["now", "then"])
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"cached_input_tokens": 400},
        {"cached_input_tokens": 1_000},
        {"cached_input_tokens": 300, "cache_write_tokens": 200},
        {"input_tokens": 300_000},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("model", "name", "provider"),
    [
        ("gpt-4o", "gpt-4o", None),
        ("gpt-5.4", "gpt-5.4", None),
        ("o3", "o3", None),
        ("claude-sonnet-4-5", "claude-sonnet-4-5", None),
        ("openai/gpt-4o", "gpt-4o", "openai"),
        ("litellm/anthropic/claude-sonnet-4-5", "claude-sonnet-4-5", "anthropic"),
    ],
)
def test_a_known_model_costs_what_genai_prices_says_at_the_time(
    model: str, name: str, provider: str | None, numbers: dict[str, int], at: datetime
) -> None:
    request = pricing.priced(used(model, **numbers), microseconds(at), None)
    usage = genai_prices.Usage(
        input_tokens=request.input_tokens,
        output_tokens=100,
        cache_read_tokens=request.cached_input_tokens,
        cache_write_tokens=request.cache_write_tokens,
    )
    expected = genai_prices.calc_price(
        usage, name, provider_id=provider, genai_request_timestamp=at
    )
    assert request.cost_usd == float(expected.total_price) > 0
    assert request.price_source == f"genai-prices {genai_prices.__version__}"


def test_a_price_of_the_past_is_that_of_the_past() -> None:
    before, after = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
    costs = [pricing.priced(used("o3"), microseconds(at), None).cost_usd for at in (before, after)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0] > costs[1], "o3 became cheaper in June 2025"


@pytest.mark.parametrize(
    "request_",
    [
        used(None),
        used(""),
        used("always"),
        used("gpt-99-imaginary"),
        used("a/b/c"),
        used("gpt-4o", requests=2),
        used("gpt-4o", cached_input_tokens=2_000),
    ],
    ids=str,
)
def test_what_has_no_known_price_is_not_priced(request_: RequestUsage) -> None:
    assert pricing.priced(request_, microseconds(NOVEMBER), None) == request_


def test_the_prices_of_the_application_come_before_the_list() -> None:
    prices = {"mine": Price(input=2.0, output=10.0, cached_input=0.5, cache_write=3.0)}
    request = used("mine", cached_input_tokens=300, cache_write_tokens=200)
    priced = pricing.priced(request, 0, prices)
    assert priced.cost_usd == pytest.approx((500 * 2 + 300 * 0.5 + 200 * 3 + 100 * 10) / 1e6)
    assert priced.price_source == "application"
    listed = pricing.priced(used("gpt-4o"), 0, None)
    assert listed.cost_usd
    for own in (prices, {}, lambda request, at: None):
        assert pricing.priced(used("gpt-4o"), 0, own) == listed
    assert pricing.priced(used("gpt-4o"), 0, {"gpt-4o": Price(0.0, 0.0)}).cost_usd == 0


def test_only_the_prices_of_the_application_on_demand() -> None:
    only = OnlyPrices({"mine": Price(1.0, 1.0)})
    assert pricing.priced(used("mine"), 0, only).cost_usd == pytest.approx(1_100 / 1e6)
    for nothing in (only, OnlyPrices({}), OnlyPrices(lambda request, at: None)):
        assert pricing.priced(used("gpt-4o"), 0, nothing).cost_usd is None


@pytest.mark.parametrize("prices", ["list", OnlyPrices(None), OnlyPrices({"m": 1.0})], ids=str)  # type: ignore[arg-type,dict-item]
def test_other_prices_are_refused(prices: Any) -> None:
    with pytest.raises(TypeError, match="invalid price"):
        pricing.checked(prices)


@pytest.mark.parametrize(
    ("model", "endpoint", "is_free"),
    [
        ("deepseek-r1:7b", "http://localhost:11434/v1", None),
        ("gpt-4o", "https://gateway.example.com/v1", None),
        ("deepseek/deepseek-r1:free", "http://localhost:8000/v1", None),
        ("deepseek/deepseek-r1:free", "https://openrouter.ai/api/v1", True),
        ("litellm/openrouter/unheard/of:free", None, True),
        ("deepseek/deepseek-r1", "https://openrouter.ai/api/v1", False),
        ("gpt-4o", "https://mine.openai.azure.com/openai", False),
    ],
)
def test_the_endpoint_determines_the_price(
    model: str, endpoint: str | None, is_free: bool | None
) -> None:
    request = msgspec.structs.replace(used(model), endpoint=endpoint)
    cost = pricing.priced(request, microseconds(NOVEMBER), None).cost_usd
    assert (None if cost is None else cost == 0) is is_free
    mine = pricing.priced(request, 0, {model: Price(1.0, 1.0)})
    assert mine.cost_usd == pytest.approx(1_100 / 1e6)


def test_the_service_tier_determines_the_price() -> None:
    def cost(model: str, tier: str | None, prices: Any = None) -> float | None:
        request = msgspec.structs.replace(used(model), service_tier=tier)
        return pricing.priced(request, microseconds(NOVEMBER), prices).cost_usd

    standard = cost("gpt-5", None)
    assert standard
    assert cost("gpt-5", "flex") == standard / 2
    assert cost("gpt-5", "priority") is None
    assert cost("claude-sonnet-4-5", "flex") is None
    mine = {"gpt-5": Price(1.0, 1.0), ("gpt-5", "priority"): Price(2.0, 2.0)}
    assert cost("gpt-5", None, mine) == pytest.approx(1_100 / 1e6)
    assert cost("gpt-5", "priority", mine) == pytest.approx(2_200 / 1e6)
    assert cost("gpt-5", "flex", mine) == standard / 2


def test_cached_input_without_a_price_of_its_own_costs_what_input_does() -> None:
    request = used("mine", cached_input_tokens=300, cache_write_tokens=200)
    assert Price(2.0, 10.0).cost(request) == Price(2.0, 10.0).cost(used("mine"))


def test_a_callable_is_told_the_request_and_its_time() -> None:
    seen: list[Any] = []

    def prices(request: RequestUsage, at: datetime) -> float | None:
        seen.append((request.model, at))
        return None if request.model is None else 0.25

    assert pricing.priced(used("m"), microseconds(NOVEMBER), prices).cost_usd == 0.25
    assert pricing.priced(used(None), microseconds(NOVEMBER), prices).cost_usd is None
    assert seen == [("m", NOVEMBER), (None, NOVEMBER)]


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_a_cost_that_is_no_number_is_an_error(cost: float) -> None:
    with pytest.raises(ValueError, match="USD"):
        pricing.priced(used("m"), 0, lambda request, at: cost)


def test_the_price_list_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import agents_eventlog.adapters.openai_agents.advanced_sqlite, sys\n"
        "import agents_eventlog.adapters.conversations.log\n"
        "print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- priced again ------------------------------------------------------------------------------

REQUESTS = [
    # session, model, cost, source
    ("a", "gpt-4o", None, None),
    ("a", "gpt-4o", 9.0, "genai-prices 0.0.1"),
    ("a", "gpt-4o", 7.0, "application"),
    ("a", "unheard-of", None, None),
    ("b", "gpt-5.4", None, None),
    ("b", None, None, None),
]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    async with ConversationLog.open(path, durability="normal") as log:
        log.store.clock = lambda: microseconds(NOVEMBER)
        for session_id, model, cost, source in REQUESTS:
            request = used(model, cost_usd=cost, price_source=source)
            await log.append(
                session_id, UsageRecorded(run_id="r", turn=1, requests=[request]), branch_id="main"
            )
    return path


def cost_of(model: str) -> float:
    cost = pricing.priced(used(model), microseconds(NOVEMBER), None).cost_usd
    assert cost is not None
    return cost


async def test_repricing_corrects_what_costs_something_else_and_leaves_the_rest(
    path: Path,
) -> None:
    async with ConversationLog.open(path) as log:
        dry = await log.reprice(dry_run=True)
        assert (await log.usage())["total_cost"] == 16.0
        done = await log.reprice()
        assert (done.requests, done.changed, done.sessions, done.unpriced) == (6, 3, 2, 2)
        assert (dry.requests, dry.changed, dry.cost_after) == (6, 3, done.cost_after)
        expected = 2 * cost_of("gpt-4o") + 7.0 + cost_of("gpt-5.4")
        assert done.cost_before == 16.0
        assert done.cost_after == pytest.approx(expected)
        by_model = (await log.usage("model"))["groups"]
        assert {g["model"]: g["unpriced_requests"] for g in by_model} == {
            None: 1,
            "gpt-4o": 0,
            "gpt-5.4": 0,
            "unheard-of": 1,
        }
        assert (await log.usage())["total_cost"] == pytest.approx(expected)
        events = [e async for e in log.read() if e.type == "usage_corrected"]
        assert [e.session_id for e in events] == ["a", "b"]
        again = await log.reprice()
        assert again.changed == 0
        assert (await log.head()).position == events[-1].position


async def test_repricing_can_be_narrowed(path: Path) -> None:
    async with ConversationLog.open(path) as log:
        assert (await log.reprice(only_unpriced=True, dry_run=True)).changed == 2
        assert (await log.reprice(model="gpt-5.4", dry_run=True)).requests == 1
        assert (await log.reprice(session_id="a", dry_run=True)).changed == 2
        assert (
            await log.reprice(since=datetime(2026, 11, 5, tzinfo=UTC), dry_run=True)
        ).requests == 0
        mine = OnlyPrices({"unheard-of": Price(1.0, 1.0)})
        assert (await log.reprice(prices=mine, dry_run=True)).changed == 1


async def test_prices_are_asked_again_with_all_that_they_were_given_at_first(
    tmp_path: Path,
) -> None:
    def prices(request: RequestUsage, _at: datetime) -> float:
        read, written = request.input_tokens_details, request.output_tokens_details
        return float(
            (read or {}).get("audio_tokens", 0) + 2 * (written or {}).get("audio_tokens", 0)
        )

    details = {
        "input_tokens_details": {"audio_tokens": 3},
        "output_tokens_details": {"audio_tokens": 4},
    }
    request = used("mine", **details)
    request = pricing.priced(request, microseconds(NOVEMBER), prices)
    async with ConversationLog.open(tmp_path / "log.db", durability="normal") as log:
        await log.append("s", UsageRecorded(run_id="r", turn=1, requests=[request]))
        assert (await log.usage())["total_cost"] == 11.0
        again = await log.reprice(prices=prices)
        assert (again.cost_before, again.cost_after, again.changed) == (11.0, 11.0, 0)


async def test_corrections_are_events_of_bounded_size(tmp_path: Path) -> None:
    async with ConversationLog.open(tmp_path / "log.db", durability="normal") as log:
        log.store.clock = lambda: microseconds(NOVEMBER)
        requests = [used("gpt-4o") for _ in range(1_100)]
        await log.append("s", UsageRecorded(run_id="r", turn=1, requests=requests))
        assert (await log.reprice()).changed == 1_100
        sizes = [len(e.event.requests) async for e in log.read(types=["usage_corrected"])]  # type: ignore[union-attr]
        assert sizes == [500, 500, 100]


def run(*words: object) -> Any:
    return CliRunner().invoke(cli_main.app, [str(word) for word in words])


def test_the_command_prices_again_and_says_how_much_changed(path: Path) -> None:
    would = run("reprice", path, "--dry-run")
    assert would.exit_code == 0
    assert would.stdout.startswith("would reprice 3 of 6 requests in 2 sessions: 16.00 -> 7.")
    assert "2 without a known price" in would.stdout
    assert '"changed": 3' in run("reprice", path, "--json").stdout
    assert run("reprice", path).stdout.startswith("repriced 0 of 6 requests in 0 sessions")
    assert run("verify", path).exit_code == 0


# -- the bill ----------------------------------------------------------------------------------


def test_the_bill_is_a_table_with_totals_and_what_is_not_priced(path: Path) -> None:
    shown = run("usage", path)
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines() if line.strip()]
    assert lines[0] == ["model", "runs", "requests", "input", "cached", "output", "USD", "unpriced"]
    assert lines[2] == ["gpt-4o", "1", "3", "3,000", "0", "300", "16.00", "1"]
    assert {tuple(line[:1]) for line in lines[3:6]} == {("unheard-of",), ("gpt-5.4",), ("(none)",)}
    assert lines[-2] == ["total", "2", "6", "6,000", "0", "600", "16.00", "4"]
    assert "4 requests have no known price" in shown.stdout


def test_the_bill_can_be_read_by_programs(path: Path) -> None:
    as_csv = run("usage", path, "--by", "session,day", "--csv").stdout.splitlines()
    assert as_csv[0].startswith("session_id,day,total_runs,total_requests,total_tokens,")
    assert as_csv[1].startswith("a,2026-11-04,1,4,4400,")
    documents = run("usage", path, "--by", "session", "--by", "model", "--json").stdout.splitlines()
    assert '"session_id": "a", "model": "gpt-4o"' in documents[0]
    assert documents[-1].startswith('{"kind": "total", "total_runs": 2, "total_requests": 6')


def test_the_bill_can_be_narrowed(path: Path) -> None:
    def total(*words: str) -> str:
        return run("usage", path, "--json", *words).stdout.splitlines()[-1]

    assert '"total_requests": 4' in total("--session", "a")
    assert '"total_requests": 0' in total("--user", "alice")
    assert '"total_requests": 6' in total("--since", "2026-11-04", "--until", "2026-11-04")
    assert '"total_requests": 0' in total("--since", "2026-11-05")
    assert '"total_requests": 6' in total("--live")


@pytest.mark.parametrize(
    ("words", "says"),
    [(("--by", "colour"), "expected one of: session, user"), (("--since", "soon"), "invalid time")],
)
def test_a_bill_that_cannot_be_made_is_wrong_usage(
    path: Path, words: tuple[str, ...], says: str
) -> None:
    done = run("usage", path, *words)
    assert done.exit_code == 2
    assert says in done.stderr


def test_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    session = AdvancedSQLiteSession("s", path)
    used_ = UsageRecorded(run_id="r", turn=None, requests=[used("red\x1b[31m")])
    session.log.store.write_sync(
        lambda tx: __import__("agents_eventlog.eventlog").eventlog.append(tx, "s", used_)
    )
    session.close()
    assert "\x1b" not in run("usage", path).stdout


def test_days_have_bars_on_a_terminal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert "████" in run("usage", path, "--by", "day").stdout
    assert "████" not in run("usage", path, "--by", "model").stdout
