"""
``eventlog usage`` and ``eventlog reprice``: show usage and cost, and update costs.

Documents of ``--json``, one per line: ``usage`` for each group (its keys, then total_runs, total_requests,
total_tokens, input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
total_cost in USD, unpriced_requests), then ``total`` with the same sums. ``repriced``: requests, changed,
sessions, unpriced, cost_before, cost_after, dry_run. ``budget`` (of ``usage --budget``): its keys (run_id,
session_id or user_id; day or month), total_cost, total_tokens, unpriced_requests, limit_usd, limit_tokens,
is_exceeded.
"""

from __future__ import annotations

import asyncio
import csv
import re
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from agents_eventlog.adapters.cli import layout, terminal
from agents_eventlog.adapters.cli.layout import Column
from agents_eventlog.adapters.conversations import budgets, summary, timestamps
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import BY, UsageQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.status import Status

    from agents_eventlog.adapters.conversations.budgets import BudgetUsage
    from agents_eventlog.adapters.conversations.repricing import RepriceResult
    from agents_eventlog.eventlog.events import JSON

COLUMNS: Final = {
    "runs": "total_runs",
    "requests": "total_requests",
    "input": "input_tokens",
    "cached": "cached_tokens",
    "output": "output_tokens",
    "USD": "total_cost",
    "unpriced": "unpriced_requests",
}
MINOR: Final = {"unpriced": 8, "cached": 7, "runs": 6, "requests": 5}
"""Columns that are left out on a narrow terminal; the highest number first."""
UNKNOWN: Final = "(none)"
BAR_CELLS: Final = 20
_FORMULA: Final = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
"""The beginnings of texts that spreadsheets evaluate, in their wide forms, too."""


def usage(
    path: Path,
    *,
    by: Sequence[str],
    since: str | None,
    until: str | None,
    user_id: str | None,
    session_id: str | None,
    live: bool,
    tz: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print usage and cost. Raises an EventLogError."""
    if as_json and as_csv:
        terminal.fail(terminal.ExitCode.USAGE, "--json and --csv cannot be combined")
    query = _query(by, since, until, tz)._replace(user_id=user_id, live=live)
    with terminal.opened(path, read_only=True) as log:
        query = query._replace(session_id=terminal.session_of(log, session_id))
        answer: dict[str, Any] = {**log.store.read_sync(lambda tx: usage_calls.ask(tx, query))}
        shown = [group["session_id"] for group in answer["groups"] if "session_id" in group]
        short = {} if as_json or as_csv else terminal.shorter(log, shown)
    if as_json:
        for document in usage_calls.documents(answer):
            terminal.print_json(document)
        return
    groups: list[dict[str, JSON]] = answer.pop("groups")
    keys = [BY[name] for name in query.by]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, [*keys, *answer], lineterminator="\n")
        writer.writeheader()
        for group in groups:
            writer.writerow({name: _cell(value) for name, value in group.items()})
    else:
        _print_table(terminal.console(), keys, groups, answer, short)


def budget(
    path: Path,
    text: str,
    *,
    tz: str,
    user_id: str | None,
    session_id: str | None,
    as_json: bool,
) -> bool:
    """Print the usage that counts towards a budget; return whether no part of it is used up."""
    try:
        limit = replace(budgets.parsed(text), tz=tz)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    with terminal.conversations(path, read_only=True) as log:
        session_id = terminal.session_of(log, session_id)
        found = asyncio.run(log.budget_usage(limit, user_id=user_id, session_id=session_id))
    if as_json:
        for used in found:
            terminal.print_json(_budget_document(used))
    else:
        out = terminal.console()
        table = _budget_table(found, terminal.table_width(out))
        out.print(table, soft_wrap=True)
    return not any(used.is_exceeded for used in found)


def _budget_document(used: BudgetUsage) -> dict[str, JSON]:
    return {
        "kind": "budget",
        **used.keys,
        "total_cost": used.cost_usd,
        "total_tokens": used.tokens,
        "unpriced_requests": used.unpriced_requests,
        "limit_usd": used.budget.usd,
        "limit_tokens": used.budget.tokens,
        "is_exceeded": used.is_exceeded,
    }


def _budget_table(found: Sequence[BudgetUsage], width: int | None) -> Text:
    keys = [*dict.fromkeys(key for used in found for key in used.keys)]
    numbers = ("tokens", "USD", "unpriced", "used")
    columns = [Column(key.removesuffix("_id")) for key in keys]
    columns += [Column(title, right=True, minor=int(title == "unpriced")) for title in numbers]
    rows = []
    for used in found:
        names = [Text(printable(used.keys.get(key) or "")) for key in keys]
        share = Text(f"{used.fraction:.0%}", style="bold red" if used.is_exceeded else "")
        cells = (f"{used.tokens:,}", summary.usd(used.cost_usd), f"{used.unpriced_requests:,}")
        rows.append([*names, *map(Text, cells), share])
    return layout.table(columns, rows, width=width)


def _cell(value: JSON) -> JSON:
    """Return a CSV cell without control characters that no spreadsheet evaluates as a formula."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def reprice(
    path: Path,
    *,
    since: str | None,
    until: str | None,
    session_id: str | None,
    model: str | None,
    only_unpriced: bool,
    dry_run: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Reprice recorded requests; print a summary. Raises an EventLogError."""
    from agents_eventlog.adapters.conversations import repricing

    query = _query((), since, until)
    with (
        terminal.opened(path, read_only=dry_run, with_projections=not dry_run) as log,
        terminal.acting(actor),
        _status(shown=not as_json) as status,
    ):
        query = query._replace(session_id=terminal.session_of(log, session_id))

        def show(done: RepriceResult) -> None:
            if status is not None:
                status.update(f"repricing: {done.requests:,} requests, {done.changed:,} changed")

        done = repricing.reprice(
            log.store,
            query,
            model=model,
            prices=None,
            only_unpriced=only_unpriced,
            dry_run=dry_run,
            on_progress=show,
        )
    if as_json:
        terminal.print_json({"kind": "repriced", **asdict(done)})
        return
    terminal.console().print(Text(_sentence(done)), soft_wrap=True)


def _sentence(done: RepriceResult) -> str:
    verb = "would reprice" if done.dry_run else "repriced"
    changed = f"{verb} {done.changed:,} of {summary.counted(done.requests, 'request')}"
    sessions = summary.counted(done.sessions, "session")
    costs = f"{summary.usd(done.cost_before)} -> {summary.usd(done.cost_after)} USD"
    left = f"; {done.unpriced:,} without a known price" if done.unpriced else ""
    return f"{changed} in {sessions}: {costs}{left}"


def _query(by: Sequence[str], since: str | None, until: str | None, tz: str = "UTC") -> UsageQuery:
    """Return the usage query; exit with USAGE if it is invalid."""
    try:
        zone = timestamps.zone(tz)
        start, end = timestamps.typed_period(since, until, zone, datetime.now(UTC))
        return UsageQuery(by=usage_queries.check_by(by), since=start, until=end, tz=zone)
    except ValueError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)


def _print_table(
    out: Console,
    keys: Sequence[str],
    groups: list[dict[str, JSON]],
    total: dict[str, JSON],
    short: Mapping[str, str],
) -> None:
    bars = _bars(groups) if out.is_terminal and {"day", "month"} & set(keys) else None
    columns = [Column(key.removesuffix("_id")) for key in keys]
    columns += [Column(title, right=True, minor=MINOR.get(title, 0)) for title in COLUMNS]
    columns += [] if bars is None else [Column("", minor=9)]
    is_timeline = keys[0] in {"day", "month", "turn"}
    order = sorted(
        range(len(groups)), key=lambda place: 0 if is_timeline else _weight(groups[place])
    )
    rows = []
    for place in order:
        group = groups[place]
        names = [UNKNOWN if group[key] is None else printable(str(group[key])) for key in keys]
        numbers = [_shown(name, group) for name in COLUMNS.values()]
        rows.append(
            [Text(cell) for cell in (*names, *numbers, *(bars[place : place + 1] if bars else []))]
        )
    footer: list[Text] = []
    if len(groups) > 1:
        sums = [_shown(name, total) for name in COLUMNS.values()]
        footer = [Text("total"), *[Text("")] * (len(keys) - 1), *map(Text, sums)]
        footer += [] if bars is None else [Text("")]
    if groups:
        width = terminal.table_width(out)
        table = layout.table(columns, rows, width=width, footer=footer, shorter=short)
        out.print(table, soft_wrap=True)
    else:
        terminal.nothing("usage")
    if unpriced := total["unpriced_requests"]:
        verb = "has" if unpriced == 1 else "have"
        note = f"{summary.counted(unpriced, 'request')} {verb} no known price: not in the sum"
        out.print(Text(note, style="yellow"), soft_wrap=True)


def _weight(group: dict[str, JSON]) -> tuple[float, int]:
    """Sort what cost most first, and what is not priced by its tokens."""
    return -group["total_cost"], -group["total_tokens"]


def _bars(groups: list[dict[str, JSON]]) -> list[str]:
    """Return a bar for each group, proportional to its cost, or to its tokens without costs."""
    measure = "total_cost" if any(group["total_cost"] for group in groups) else "total_tokens"
    most = max((group[measure] for group in groups), default=0) or 1
    return ["█" * round(BAR_CELLS * group[measure] / most) for group in groups]


def _shown(name: str, sums: dict[str, JSON]) -> str:
    value: Any = sums[name]
    return summary.usd(value) if name == "total_cost" else f"{value:,}"


@contextmanager
def _status(*, shown: bool) -> Iterator[Status | None]:
    """Show progress on stderr while the block runs, if stderr is a terminal."""
    err = terminal.console(stderr=True)
    if not (shown and err.is_terminal):
        yield None
        return
    with err.status("repricing") as status:
        yield status
