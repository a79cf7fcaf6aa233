"""The arguments and options that several commands take, each declared once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., object]")

Database = Annotated[Path, typer.Argument(metavar="DB", help="The log's file.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")
]
After = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on behind the one with this cursor.")
]
Reason = Annotated[str | None, typer.Option(help="Why, to be recorded.")]
Actor = Annotated[
    str | None,
    typer.Option(help="Who, to be recorded. [dim]\\[default: your login name][/dim]"),
]
Session = Annotated[str | None, typer.Option(metavar="ID", help="Only this session.")]
User = Annotated[str | None, typer.Option(metavar="ID", help="Only this user's sessions.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Only from then on.")]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only before then; a day alone counts whole.")
]


class Which(TypedDict):
    """Which sessions are meant: those to which all that is given applies."""

    user: User
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Labelled with each of these, nested or not.")
    ]
    created_after: Annotated[str | None, typer.Option(metavar="TIME", help="Begun then or later.")]
    created_before: Annotated[str | None, typer.Option(metavar="TIME", help="Begun before then.")]
    updated_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Last used then or later.")
    ]
    updated_before: Annotated[str | None, typer.Option(metavar="TIME", help="Not used since then.")]
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="In which the user or the assistant says so."),
    ]
    min_items: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of so many items or more.")
    ]


def of_sessions(command: Command) -> Command:
    """Let typer see a command's ``**which: Unpack[Which]`` as options of its own, first in its help."""
    signature = inspect.signature(command, eval_str=True)
    db, *own, _ = signature.parameters.values()
    which = [
        inspect.Parameter(name, db.kind, default=None, annotation=option)
        for name, option in get_type_hints(Which, include_extras=True).items()
    ]
    command.__signature__ = signature.replace(parameters=[db, *which, *own])  # type: ignore[attr-defined]
    return command
