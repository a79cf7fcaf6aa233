"""``eventlog replay``: prints progress, one line per table, and each row that differs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.projections import Difference, Progress, ReplayResult, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console


def run(path: Path, names: Sequence[str], *, check: bool, as_json: bool) -> bool:
    """Replay, or check; return whether no row differs. Raises an EventLogError."""
    known = projections.default(search=True).named(list(dict.fromkeys(names)))
    out = terminal.console()
    what = "checking" if check else "replaying"
    with (
        terminal.opened(path, read_only=check) as log,
        progress(what, shown=not as_json) as bar,
    ):

        def differs(difference: Difference) -> None:
            bar.stop()
            print_difference(out, difference, as_json=as_json)

        selected = known if names else log.store.read_sync(projections.kept).named([])
        tables = projections.replay(
            log, selected, check=check, on_progress=bar.show, on_difference=differs
        )
        if not check and not names:
            log.store.write_sync(build.drop_other_versions)
    print_tables(out, tables, check=check, as_json=as_json)
    return not any(table.differences for table in tables)


def print_difference(out: Console, difference: Difference, *, as_json: bool) -> None:
    """Print a row that differs from the replay."""
    if as_json:
        terminal.print_json({"kind": "difference", **difference._asdict()})
    else:
        out.print(Text(printable(str(difference))), soft_wrap=True)


def print_tables(out: Console, tables: list[ReplayResult], *, check: bool, as_json: bool) -> None:
    """Print one line per table."""
    names = max(len(table.table) for table in tables)
    numbers = max(len(f"{table.rows:,}") for table in tables)
    for table in tables:
        if as_json:
            terminal.print_json({"kind": "table", **table._asdict()})
        else:
            line = Text(f"{table.table:<{names}}   {table.rows:>{numbers},} rows   ")
            out.print(line.append_text(outcome(table, check=check)), soft_wrap=True)


def outcome(table: ReplayResult, *, check: bool) -> Text:
    """Return the result for a table in one or two words."""
    if not check:
        return Text("replayed", style="green")
    if not table.differences:
        return Text("same", style="green")
    verb = "differs" if table.differences == 1 else "differ"
    return Text(f"{table.differences:,} {verb}", style="bold red")


class _Shown:
    """A progress bar that may be hidden."""

    def __init__(self, bar: Bar | None, what: str) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task(what, total=None, rate=0.0)

    @property
    def show(self) -> Callable[[Progress], None] | None:
        return None if self._bar is None else self._show

    def _show(self, progress: Progress) -> None:
        if self._bar is not None and self._task is not None:
            rate = progress.events / progress.seconds if progress.seconds else 0.0
            self._bar.update(self._task, completed=progress.events, total=progress.total, rate=rate)

    def stop(self) -> None:
        """Remove the bar for the rest of the command."""
        if self._bar is not None:
            self._bar.stop()


class _Rate(ProgressColumn):
    """Events per second, averaged over the whole replay."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rate']:,.0f} events/s", style="progress.data.speed")


@contextmanager
def progress(what: str, *, shown: bool) -> Iterator[_Shown]:
    """Show a bar on stderr while the block runs, if stderr is a terminal."""
    err = terminal.console(stderr=True)
    if not (shown and err.is_terminal):
        yield _Shown(None, what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    # The bar must not redirect stdout, which may be a file.
    with Bar(
        *columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        yield _Shown(bar, what)
