"""``eventlog usage``: the forms of its answer."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemsAdded
from agents_eventlog.eventlog.events import MetadataSet, RequestUsage, UsageRecorded
from agents_eventlog.projections import default
from tests.adapters.looking import documents, one, run, user, write

if TYPE_CHECKING:
    from pathlib import Path


def test_two_forms_at_once_are_wrong_usage(db: Path) -> None:
    result = run("usage", db, "--csv", "--json")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "--json and --csv cannot be combined" in result.stderr


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("alice", "alice"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "\\t=1"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\u202e=1", "\\u202e=1"),
        ("a,b", "a,b"),
    ],
)
def test_a_cell_of_csv_is_never_a_formula_or_a_control_character(
    path: Path, written: str, shown: str
) -> None:
    used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(model=written)])
    write(path, [("s", "main", ItemsAdded(items=[user("hi")])), ("s", "main", used)])
    text = run("usage", path, "--csv").stdout
    assert [row["model"] for row in csv.DictReader(io.StringIO(text))] == [shown]


@pytest.fixture
def two_users(path: Path) -> Path:
    """Return a log in which alice used all of two dollars, and bob half."""
    for name, cost in (("alice", 2.0), ("bob", 1.0)):
        requests = [RequestUsage(total_tokens=10, cost_usd=cost), RequestUsage()]
        used = UsageRecorded(run_id="r", turn=1, requests=requests)
        write(path, [(name, "main", MetadataSet(user_id=name)), (name, "main", used)])
    return path


def test_usage_is_compared_with_a_budget(two_users: Path) -> None:
    result = run("usage", two_users, "--budget", "2usd/user")
    assert result.exit_code == ExitCode.FINDINGS
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert lines == [
        ["user", "tokens", "USD", "unpriced", "used"],
        [lines[1][0]],
        ["alice", "10", "2.00", "1", "100%"],
        ["bob", "10", "1.00", "1", "50%"],
    ]
    result = run("usage", two_users, "--budget", "2usd/user", "--user", "bob", "--json")
    assert result.exit_code == ExitCode.CLEAN
    assert one(result, "budget") == {
        "kind": "budget",
        "user_id": "bob",
        "total_cost": 1.0,
        "total_tokens": 10,
        "unpriced_requests": 1,
        "limit_usd": 2.0,
        "limit_tokens": None,
        "is_exceeded": False,
    }


def test_usage_of_one_session_is_compared_with_a_budget(two_users: Path) -> None:
    result = run("usage", two_users, "--budget", "10tokens/session", "--session", "bob", "--json")
    assert result.exit_code == ExitCode.FINDINGS
    assert one(result, "budget")["session_id"] == "bob"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "2usd"], "invalid budget: expected for example 20usd/user/month"),
        (["--budget", "2usd/year"], "invalid per"),
        (["--budget", "2usd/day", "--by", "user"], "--budget: expected only --user"),
        (["--budget", "2usd/day", "--csv"], "--budget: expected only --user"),
        (["--budget", "2usd/day", "--session", "none such"], "none such"),
    ],
)
def test_a_budget_that_cannot_be_compared_is_wrong_usage(
    two_users: Path, options: list[str], message: str
) -> None:
    result = run("usage", two_users, *options)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert message in result.stderr


async def test_months_are_those_of_the_time_zone(path: Path) -> None:
    async with EventLog.open(path, projections=default()) as log:
        log.store.clock = lambda: int(datetime(2026, 10, 31, 23, 30, tzinfo=UTC).timestamp() * 1e6)
        used = UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(total_tokens=10)])
        await log.append("s", used, branch_id="main")
    options = ("--by", "month,session", "--since", "2026-11-01", "--json")
    found = one(run("usage", path, *options, "--tz", "Europe/Berlin"), "usage")
    assert (found["month"], found["session_id"], found["total_tokens"]) == ("2026-11", "s", 10)
    assert documents(run("usage", path, *options), "usage") == []
    table = run("usage", path, "--by", "month", "--tz", "Europe/Berlin").stdout
    assert table.splitlines()[0].split()[0] == "month"
    assert "2026-11" in table


@pytest.mark.parametrize("more", [[], ["--budget", "1usd/day"]])
def test_an_unknown_time_zone_is_wrong_usage(db: Path, more: list[str]) -> None:
    result = run("usage", db, "--tz", "Berlin", *more)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "unknown time zone: expected an IANA name" in result.stderr
