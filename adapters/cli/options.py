"""Arguments and options shared by several commands."""

from __future__ import annotations

import inspect
import io
import os
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Command = TypeVar("Command", bound="Callable[..., object]")

Database = Annotated[
    Path, typer.Argument(metavar="DB", help="Log file or URL; may be left out with EVENTLOG_DB.")
]
MAX_COMPLETIONS = 50
"""Maximum number of session ids that a shell is offered."""


def session_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of sessions that begin with a text, for the shell; none if the log cannot be read."""
    from agents_eventlog.adapters.cli import terminal
    from agents_eventlog.eventlog import reader

    # Before the value of an option, the parser leaves the arguments aside.
    given = context.params.get("db") or next(iter(context.args), None)
    with (
        suppress(Exception),
        redirect_stderr(io.StringIO()),
        terminal.opened(Path(given or os.environ["EVENTLOG_DB"]), read_only=True) as log,
    ):
        return log.store.read_sync(
            lambda tx: reader.session_ids(tx, incomplete, limit=MAX_COMPLETIONS)
        )
    return []


SessionId = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="Session id, or a unique beginning of it.",
        autocompletion=session_ids,
    ),
]
WholeSessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="Session id.", autocompletion=session_ids)
]

AsJson = Annotated[bool, typer.Option("--json", "-j", help="Print one JSON document per line.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would happen, and change nothing.")
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it. Without it, only show what would happen.")
]
Removed = Annotated[bool, typer.Option("--removed", help="Include what was removed or deleted.")]
Tz = Annotated[
    str,
    typer.Option(metavar="ZONE", help="Time zone of days, months and times: Europe/Berlin ..."),
]
After = Annotated[
    str | None,
    typer.Option(metavar="CURSOR", help="Continue after this cursor, from the previous page."),
]
Reason = Annotated[str | None, typer.Option(help="Reason to record in the log.")]
Actor = Annotated[
    str | None,
    typer.Option(help="Actor to record in the log. [dim]\\[default: your login name][/dim]"),
]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        "-s",
        metavar="ID",
        help="Only this session.",
        autocompletion=session_ids,
    ),
]
User = Annotated[
    str | None, typer.Option("--user", "-u", metavar="ID", help="Only this user's sessions.")
]
SignedHead = Annotated[
    Path | None,
    typer.Option(metavar="HEAD", help="File with the signed head of the proof."),
]
EarlierHead = Annotated[
    Path | None,
    typer.Option(
        metavar="HEAD", help="File with an earlier signed head, which the log must still contain."
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Start time: ISO 8601, a day, yesterday, 30d (ago)."),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="End time, in the same forms; includes a day.")
]


class Which(TypedDict):
    """Session filters; a session must match all of them."""

    user: User
    metadata: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Only with these keys and values, at any depth."),
    ]
    created_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Created at this time or later.")
    ]
    created_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Created before this time.")
    ]
    updated_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Last event at this time or later.")
    ]
    updated_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Last event before this time.")
    ]
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only with this text in a user or assistant message."),
    ]
    min_items: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only with at least N items.")
    ]


def names(by: Sequence[str] | None, default: str) -> list[str]:
    """Return the names of a ``--by``, which is separated by commas and may be repeated."""
    return [name.strip() for each in by or [default] for name in each.split(",")]


def of_sessions(command: Command) -> Command:
    """Expand a command's ``**which: Unpack[Which]`` into options for typer, first in its help."""
    signature = inspect.signature(command, eval_str=True)
    db, *own, _ = signature.parameters.values()
    which = [
        inspect.Parameter(name, db.kind, default=None, annotation=option)
        for name, option in get_type_hints(Which, include_extras=True).items()
    ]
    command.__signature__ = signature.replace(parameters=[db, *which, *own])  # type: ignore[attr-defined]
    return command
