"""
``eventlog verify``: verify the digest chain, and compare the tables with a replay.

Documents of ``--json``, one per line: ``finding`` (where: "log" or "projection", position or null,
problem), ``difference`` and ``table`` as ``eventlog replay --check`` prints them, and at the end
``verified`` (ok, events, first_bad_position or null, head: position, digest). ``--head`` and ``--after``
skip the tables, and print no ``table``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import replay, terminal
from agents_eventlog.adapters.conversations import doctor_checks, summary, verification
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.errors import EventLogError
from agents_eventlog.eventlog.integrity import Head
from agents_eventlog.projections.base import tables as tables_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from agents_eventlog.eventlog import EventLog, Verification
    from agents_eventlog.projections import Difference, ReplayResult
    from agents_eventlog.projections.base import Projection

SHOWN_FINDINGS = 20
"""Maximum number of findings printed for people; ``--json`` prints all of them."""

_UNREADABLE = (EventLogError, ValueError, TypeError, KeyError)


class Tables(NamedTuple):
    """Result for the projections: problems, and one entry per compared table."""

    problems: list[str]
    replayed: list[ReplayResult]


def run(
    path: Path, *, expect_head: str | None, after: str | None, only_head: bool, as_json: bool
) -> bool:
    """Verify; return whether there are no findings. Raises an EventLogError."""
    expected = None if expect_head is None else _head(expect_head)
    begin = None if after is None else _head(after)
    skips_tables = only_head or begin is not None
    out = terminal.console()
    with terminal.opened(path, read_only=True) as log:
        verified = asyncio.run(log.verify(expected, after=begin))
        if as_json:
            for finding in verified.findings:
                terminal.print_json(verification.finding("log", finding.position, finding.problem))
        elif verified.findings or not only_head:
            print_chain(out, verified)
        tables = Tables([], []) if skips_tables else check_tables(log, out, as_json=as_json)
    is_clean = (
        verified.ok and not tables.problems and not any(t.differences for t in tables.replayed)
    )
    if as_json:
        for problem in tables.problems:
            terminal.print_json(verification.finding("projection", None, problem))
        terminal.print_json(verification.result(verified, ok=is_clean))
        return is_clean
    for problem in tables.problems:
        out.print(Text(printable(problem), style="bold red"), soft_wrap=True)
    if only_head and verified.ok:
        out.print(Text(str(verified.head)), soft_wrap=True)
    elif not only_head:
        out.print(Text(f"head   {verified.head}"), soft_wrap=True)
    return is_clean


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except (ValueError, OverflowError):
        terminal.fail(
            terminal.ExitCode.USAGE, f"invalid head: expected POSITION:DIGEST, got {text!r}"
        )


def print_chain(out: Console, verified: Verification) -> None:
    """Print the result for the log, with the first bad event and the findings."""
    line = Text(f"log   {summary.counted(verified.events, 'event')}   ")
    if verified.ok:
        out.print(line.append("as recorded", style="green"), soft_wrap=True)
        return
    first = verified.findings[0].position
    what = "its table is damaged" if first is None else f"the first bad event is {first}"
    line.append(f"not as recorded: {what}", style="bold red")
    out.print(line, soft_wrap=True)
    for finding in verified.findings[:SHOWN_FINDINGS]:
        text = finding.problem
        if finding.position is not None:
            text = f"event {finding.position}: {text}"
        out.print(Text(f"  {printable(text)}"), soft_wrap=True)
    left = len(verified.findings) - SHOWN_FINDINGS
    if left > 0:
        out.print(Text(f"  and {left:,} more: --json prints all"))


def check_tables(log: EventLog, out: Console, *, as_json: bool) -> Tables:
    """Compare each projection with its replay, and print one line per table."""
    problems: list[str] = []

    def differs(difference: Difference) -> None:
        replay.print_difference(out, difference, as_json=as_json)

    try:
        comparable, problems = log.store.read_sync(doctor_checks.to_compare)
        problems += _damages(log, comparable)
        replayed = (
            projections.replay(log, comparable, check=True, on_difference=differs)
            if comparable
            else []
        )
    except _UNREADABLE as error:
        why = str(error) if isinstance(error, EventLogError) else type(error).__name__
        return Tables([*problems, f"the projections cannot be checked: {why}"], [])
    if replayed:
        replay.print_tables(out, replayed, check=True, as_json=as_json)
    return Tables(problems, replayed)


def _damages(log: EventLog, compared: list[Projection]) -> list[str]:
    """Return the damage that SQLite finds in tables and indexes, which a replay does not compare."""
    present = log.store.read_sync(lambda tx: tx.engine.table_names(tx))
    return [
        f"table {table.name!r} is damaged: {problem}; `eventlog replay` rebuilds it"
        for projection in compared
        for table in tables_of(log.store.engine, projection)
        if table.name in present
        for problem in log.store.engine.damages(log.path, table.name)
    ]
