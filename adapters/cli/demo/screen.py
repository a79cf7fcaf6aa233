"""Layout of the demo: sections of a page at most 100 columns wide."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from agents_eventlog.adapters.cli import audit
from agents_eventlog.adapters.cli.replay import outcome
from agents_eventlog.adapters.conversations import event_descriptions, summary
from agents_eventlog.adapters.conversations.audit_trail import Histories
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.events import BranchCreated, ItemPopped, ItemRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agents_eventlog.eventlog.recorded_event import RecordedEvent
    from agents_eventlog.projections import ReplayResult

WHO_WIDTH = 8
MAIN = "main"
QUERY = "'SELECT position, type, data FROM events'"


class View:
    """Prints the demo, section by section."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def opening(self, file: Path, session_id: str, model: str) -> None:
        """Print the file, the session and the model."""
        grid = _grid()
        grid.add_row("file", _plain(str(file)))
        grid.add_row("session", _plain(session_id))
        grid.add_row("model", _plain(model))
        title = Text("A conversation on an event log", style="bold")
        self._console.print(Panel(grid, title=title, title_align="left", box=box.ROUNDED))
        self._section("The conversation")

    # -- the conversation ---------------------------------------------------------------------

    def step(self, code: str) -> None:
        """Print the next call."""
        self._console.print()
        self._console.print(Text(code, style="dim italic"), soft_wrap=True)

    def user(self, text: str) -> None:
        """Print a user message."""
        self._say("user", "bold cyan", text)

    def item(self, item: Mapping[str, Any]) -> None:
        """Print an item of a run."""
        kind = item.get("type")
        if kind == "function_call":
            self._say("calls", "yellow", summary.call(item))
        elif kind == "function_call_output":
            self._say("gets", "yellow", summary.output(item))
        elif text := summary.content(item):
            self._say("agent", "bold green", text)

    def taken_back(self, item: Mapping[str, Any]) -> None:
        """Print a popped item."""
        self._say("popped", "red", summary.brief(item))

    def _say(self, who: str, style: str, text: str) -> None:
        grid = _grid()
        grid.add_row(Text(who, style=style), Text(printable(text, lines=True)))
        self._console.print(grid)

    # -- what it left --------------------------------------------------------------------------

    def branches(
        self,
        events: Sequence[RecordedEvent],
        listed: Sequence[Mapping[str, Any]],
        turns: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> None:
        """Print the tree of branches, each with its own turns."""
        self._section("The branches", "a branch points into its parent; nothing is copied")
        created = [event.event for event in events if isinstance(event.event, BranchCreated)]
        parents = {event.branch_id: event for event in created}
        nodes: dict[str, Tree] = {}
        for branch in listed:
            name = str(branch["branch_id"])
            node = Tree(_branch_label(branch, parents.get(name)), guide_style="dim")
            for turn in _own_turns(name, parents, turns):
                node.add(Text(f"{turn['turn']}  {_one_line(turn['content'])}", style="dim"))
            if name in parents:
                nodes[parents[name].from_branch_id].children.append(node)
            nodes[name] = node
        self._console.print(nodes[MAIN])

    def usage(
        self, sessions: Mapping[str, Mapping[str, int] | None], stats: Mapping[str, Any]
    ) -> None:
        """Print the usage of each branch, and the total usage and cost."""
        self._section("The usage", "popped turns stay in the total")
        titles = ("", "requests", "input tokens", "output tokens", "total", "cost")
        table = _table(*titles, numbers_from=1)
        for branch_id, used in sessions.items():
            table.add_row(_plain(branch_id), *_numbers(used or {}, "requests"))
        table.add_section()
        totals = [Text(number, style="bold") for number in _numbers(stats, "total_requests")]
        cost = f"${summary.usd(stats['total_cost'])}{'+' if stats['unpriced_requests'] else ''}"
        table.add_row(Text("all recorded", style="bold"), *totals, Text(cost, style="bold"))
        self._console.print(table)

    def events(self, events: Sequence[RecordedEvent]) -> None:
        """Print the recorded events."""
        self._section("The events", "the only source of truth; all tables are derived from them")
        table = _table("position", "version", "type", "branch", "what happened", numbers_from=0)
        for column in table.columns[2:]:
            column.justify = "left"
        for column in table.columns[:4]:
            column.no_wrap = True
        histories = Histories()
        said: dict[ItemRef, Any] = {}
        for recorded in events:
            histories.follow(recorded)
            for index, item in enumerate(getattr(recorded.event, "items", ())):
                said[ItemRef(recorded.position, index)] = item
        for recorded in events:
            event = recorded.event
            popped = said.get(event.item) if isinstance(event, ItemPopped) else None
            table.add_row(
                str(recorded.position),
                str(recorded.version),
                Text(recorded.type, style="cyan"),
                _plain(recorded.branch_id or ""),
                audit.line(
                    event_descriptions.describe_event(
                        recorded, histories.paths[recorded.session_id], popped
                    ),
                ),
            )
        self._console.print(table)

    # -- the replay ---------------------------------------------------------------------------

    def dropped(self, names: Sequence[str]) -> None:
        """Print the names of the dropped tables."""
        self._section("The replay", "the tables are dropped and rebuilt from the events")
        grid = _grid()
        grid.add_row(Text("dropped", style="red"), ", ".join(names))
        self._console.print(grid)

    def replayed(self, events: int, seconds: float) -> None:
        """Print the duration of the replay."""
        grid = _grid()
        took = f"{summary.counted(events, 'event')} in {seconds * 1000:,.0f} ms"
        grid.add_row(Text("replayed", style="green"), took)
        self._console.print(grid)

    def compared(
        self, checked: Sequence[ReplayResult], before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> bool:
        """Print the comparison of tables and reads; return whether all are the same."""
        rows = _table("table", "rows", "replay --check", numbers_from=1)
        for table in checked:
            rows.add_row(table.table, f"{table.rows:,}", outcome(table, check=True))
        answers = _table("session read", "before, after", numbers_from=1)
        same = not any(table.differences for table in checked)
        for name in {**before, **after}:
            is_same = name in before and name in after and before[name] == after[name]
            same = same and is_same
            word = Text("same", style="green") if is_same else Text("differs", style="bold red")
            answers.add_row(name, word)
        answers.columns[0].no_wrap = True
        beside = Table.grid(padding=(0, 4))
        beside.add_row(rows, answers)
        self._console.print(beside)
        return same

    def closing(self, file: Path, *, same: bool) -> None:
        """Print the result, and commands to try next."""
        quoted = shlex.quote(str(file))
        verdict = (
            Text("Every read returns the same result as before.", style="bold green")
            if same
            else Text("Some reads return a different result: this is a bug.", style="bold red")
        )
        self._console.print()
        self._console.print(Panel(Group(verdict), box=box.ROUNDED))
        self._console.print(_plain("The demo keeps the file. Try next:"))
        for line in (
            f"eventlog replay {quoted} --check",
            f"eventlog demo --db {quoted}",
            f"sqlite3 {quoted} {QUERY}",
            "from agents_eventlog import AdvancedSQLiteSession",
            f"eventlog view {quoted}",
        ):
            self._console.print(Text(f"  {printable(line)}", style="bold"), soft_wrap=True)

    def failed(self, error: Exception, file: Path) -> None:
        """Report an error of the model."""
        self._console.print()
        self._console.print(Text(printable(f"The model did not answer: {error}"), style="red"))
        self._console.print(_plain("Without OPENAI_API_KEY, a scripted model answers."))
        self._console.print(_plain(f"The conversation so far is in {file}"), soft_wrap=True)

    def _section(self, title: str, aside: str = "") -> None:
        heading = Text(f" {title} ", style="bold")
        self._console.print()
        self._console.print(Rule(heading, align="left", style="dim"))
        if aside:
            self._console.print(Text(aside, style="dim"))


def _branch_label(branch: Mapping[str, Any], created: BranchCreated | None) -> Text:
    label = Text(printable(str(branch["branch_id"])), style="bold")
    items = summary.counted(branch["message_count"], "item")
    label.append(f"  {summary.counted(branch['user_turns'], 'turn')}, {items}", style="not bold")
    if created is not None:
        turn = created.before_turn
        place = "at its end" if turn is None else f"before turn {turn}"
        left = printable(created.from_branch_id)
        label.append(f"  leaves {left} {place}", style="not bold dim")
    if branch["is_current"]:
        label.append("  current", style="not bold green")
    return label


def _own_turns(
    name: str,
    parents: Mapping[str, BranchCreated],
    turns: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Mapping[str, Any]]:
    """Return the turns that a branch does not share with its parent."""
    created = parents.get(name)
    if created is None:
        return list(turns[name])
    shared = turns[created.from_branch_id]
    return [
        turn
        for number, turn in enumerate(turns[name])
        if number >= len(shared) or turn["full_content"] != shared[number]["full_content"]
    ]


def _numbers(used: Mapping[str, Any], requests: str) -> list[str]:
    keys = (requests, "input_tokens", "output_tokens", "total_tokens")
    return [f"{used.get(key, 0):,}" for key in keys]


def _one_line(text: object) -> str:
    return printable(summary.shortened(str(text)))


def _plain(text: str) -> Text:
    return Text(printable(text))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=WHO_WIDTH, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _table(*titles: str, numbers_from: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="dim")
    for index, title in enumerate(titles):
        is_number = index >= numbers_from
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    return table
