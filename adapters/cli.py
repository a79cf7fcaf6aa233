"""
The command line: ``eventlog COMMAND``.

Quiet when all is well, exact when not. Exit codes: 0 clean, 1 findings, 2 usage, 3 cannot open.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters import terminal
from adapters.terminal import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

DISTRIBUTION = "agents-eventlog"

app = typer.Typer(
    cls=terminal.Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Database = Annotated[Path, typer.Argument(metavar="DB", help="The log's file.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"eventlog {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 clean, 1 findings, 2 usage, 3 cannot open.")
def eventlog(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """
    Conversations of LLM agents, as a log of events.

    Example: [bold]eventlog demo[/bold]
    """


@app.command()
def replay(
    db: Database,
    projection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this projection; may be given several times."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the tables, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Build the projections' tables again from the first event, or check them.

    Programs may go on writing meanwhile. Safe to kill, and to run again.

    A check names each row that differs; it exits with 1 if there is one.

    Example: [bold]eventlog replay conversations.db --check[/bold]
    """
    from adapters import replaying

    clean = replaying.run(db, projection or [], check=check, as_json=as_json)
    raise typer.Exit(ExitCode.CLEAN if clean else ExitCode.FINDINGS)


@app.command()
def demo(
    db: Annotated[
        Path | None,
        typer.Option(
            "--db",
            metavar="PATH",
            help="The log's file, made if need be. [dim]\\[default: in a temporary folder][/dim]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """
    Show it: a conversation with a tool, branches and usage, its events, and a replay.

    With OPENAI_API_KEY set, the SDK's default model answers; else a scripted one.

    It exits with 1 if anything reads differently after the replay.

    Example: [bold]eventlog demo --db conversations.db[/bold]
    """
    from adapters import demo

    clean = demo.run(db)
    raise typer.Exit(ExitCode.CLEAN if clean else ExitCode.FINDINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding
    try:
        app(args=None if arguments is None else list(arguments), prog_name="eventlog")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.CLEAN
    return ExitCode.CLEAN
