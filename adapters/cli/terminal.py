"""Shared by the commands: exit codes, consoles, JSON output, errors, and opening a log."""

from __future__ import annotations

import getpass
import os
import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import json_lines, timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog import EventLog, recording
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import (
    EventLogError,
    ForeignFileError,
    NoLogError,
    SessionNotFoundError,
    UnknownProjectionError,
)
from agents_eventlog.eventlog.storage.engines import POSTGRES, engine_for
from agents_eventlog.eventlog.storage.pending import UNEXPECTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.text import Text

    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

WIDEST = 100
"""Maximum line width, because longer lines are hard to read on any terminal."""

_opened: ContextVar[Path | None] = ContextVar("_opened", default=None)


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    CLEAN = 0
    FINDINGS = 1
    USAGE = 2
    CANNOT_OPEN = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class _Unconverted:
    """
    Passes parameter values that already have their type; typer converts the others.

    Typer converts with pydantic, whose import takes longer than most commands.
    """

    def __init__(self, typers_own: Callable[[], Any]) -> None:
        self._typers_own = typers_own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        kind = param.type_descriptor.annotation
        if value is None:
            return () if param.multiple else None
        if kind == list[str] and param.multiple:
            return list(value)
        if kind is Path and isinstance(value, str) and _can_be_opened(value):
            return Url(value) if value.startswith(POSTGRES) else Path(value)
        if isinstance(kind, type) and isinstance(value, kind):
            return value
        return self._typers_own().coerce(value, param=param, ctx=ctx)


def _convert_less(command: Any, ctx: Any) -> None:
    for parameter in command.get_params(ctx):
        typers_own = getattr(
            parameter, "get_runtime_param", None
        )  # missing in some releases of typer
        if typers_own is not None:
            vars(parameter)["get_runtime_param"] = partial(_Unconverted, typers_own)


class Url(type(Path())):  # type: ignore[misc]
    """The URL of a log, where a path may also be given; as a plain path it would lose a slash."""

    url: str

    def __new__(cls, url: str) -> Url:
        """Keep the URL unchanged."""
        made: Url = super().__new__(cls, url)
        made.url = url
        return made

    def __fspath__(self) -> str:
        return self.url

    __str__ = __fspath__


def _can_be_opened(path: str) -> bool:
    return not os.path.exists(path) or os.access(path, os.R_OK)  # noqa: PTH110 - nothing is raised


class Commands(TyperGroup):
    """
    The commands, with shared exit codes and error handling.

    A command that returns False has findings, or is incomplete.

    An error of the log or the file is one line on stderr. Ctrl-C and a closed pipe end silently.
    Impossible values are reported as damage if the file is damaged. Any other exception is a bug and
    keeps its traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the command's name."""
        _convert_less(self, ctx)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if it does not exist."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _convert_less(command, ctx)
            # Typer keeps the line breaks of the docstring, which are wrong on a narrower terminal.
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
        return command

    def invoke(self, ctx: Any) -> None:
        """Run the selected command."""
        _opened.set(None)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # while a closed pipe still raises
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except UnknownProjectionError as error:
            fail(ExitCode.USAGE, error)
        except EventLogError as error:
            fail(ExitCode.CANNOT_OPEN, error)
        except OSError as error:
            fail(ExitCode.CANNOT_OPEN, f"{error.filename or 'stdout'}: {error.strerror or error}")
        except UNEXPECTED:
            if (damage := _damage()) is None:
                raise
            fail(ExitCode.CANNOT_OPEN, damage)
        if result is False:
            raise typer.Exit(ExitCode.FINDINGS)


def fail(code: ExitCode, why: object) -> NoReturn:
    """Print an error on stderr, in one line, and exit."""
    from rich.text import Text

    line = Text.assemble(("error: ", "bold red"), printable(str(why)))
    console(stderr=True).print(line, soft_wrap=True)
    raise typer.Exit(code)


def time(text: str | None, *, end_of_day: bool = False) -> datetime | None:
    """Parse a time; exit with USAGE if it is invalid."""
    if text is None:
        return None
    try:
        instant = timestamps.instant(text, end_of_day=end_of_day)
    except ValueError as error:
        fail(ExitCode.USAGE, error)
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=instant)


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text literally: no markup, emoji codes or highlighting."""
    from rich.console import Console

    class Leaving(Console):
        """Raises BrokenPipeError, which the commands handle, if the pipe is closed."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    made = Leaving(stderr=stderr, markup=False, emoji=False, highlight=False)
    made.width = min(made.width, WIDEST)
    return made


def folded(out: Console, row: Text, words: Text) -> Text:
    """Return a row with words appended, folded at the console's width."""
    indent, room = row.cell_len, max(out.width - row.cell_len, 20)
    fits = words.cell_len <= room and "\n" not in words.plain
    for number, line in enumerate([words] if fits else words.wrap(out, room, overflow="fold")):
        if number:
            row.append("\n" + " " * indent)
        row.append_text(line)
    return row


def print_json(document: dict[str, JSON]) -> None:
    """Print a document on one line, in ASCII."""
    sys.stdout.write(json_lines.line(document))


@contextmanager
def opened(path: Path, *, read_only: bool, with_projections: bool = False) -> Iterator[EventLog]:
    """Open an existing log, by default without its projections. Raises an OpenError."""
    kept = projections.default() if with_projections else None
    _opened.set(path)
    with explain_foreign_file(path):
        log = EventLog.open_sync(
            path, create=False, read_only=read_only, projections=kept, seal=False
        )
    try:
        yield log
    finally:
        log.close()


@contextmanager
def conversations(path: Path, *, read_only: bool) -> Iterator[ConversationLog]:
    """Open an existing conversation log; with its projections unless read-only."""
    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.projections import default

    _opened.set(path)
    with explain_foreign_file(path):
        log = ConversationLog.open_sync(
            path,
            create=False,
            read_only=read_only,
            projections=None if read_only else default(),
            seal=False,
        )
    try:
        yield log
    finally:
        log.close()


def require_session(tx: Transaction, session_id: str) -> None:
    """Raise SessionNotFoundError if the session never existed."""
    try:
        version = session_version(tx, session_id)
    except UnicodeEncodeError:
        version = 0  # the id contains an unpaired surrogate
    if not version:
        raise SessionNotFoundError(session_id)


def check_session(log: EventLog, session_id: str | None) -> None:
    """Exit with USAGE if the session never existed; deleted sessions are accepted."""
    if session_id is not None:
        try:
            log.store.read_sync(lambda tx: require_session(tx, session_id))
        except SessionNotFoundError as error:
            fail(ExitCode.USAGE, error)


@contextmanager
def acting(actor: str | None) -> Iterator[None]:
    """Record the actor of all writes in the block, by default the login name."""
    with recording(actor=actor or _login_name()):
        yield


def _login_name() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None  # a container's user need not have a name


@contextmanager
def explain_foreign_file(path: Path) -> Iterator[None]:
    """Raise an error that names the kind of file if it does not contain a log."""
    try:
        yield
    except (NoLogError, ForeignFileError) as error:
        from agents_eventlog.adapters.openai_agents.migration.import_file import what_it_is

        if not path.expanduser().is_file() or path.expanduser().stat().st_size == 0:
            raise
        raise what_it_is(path, error) from error


def _damage() -> EventLogError | None:
    """Check the file that the command opened, which is slow; return its damage."""
    path = _opened.get()
    try:
        return None if path is None else engine_for(path).damage(str(path))
    except EventLogError as error:
        return error


def _forget_stdout() -> None:
    """Discard buffered output, which Python would otherwise fail to flush at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return  # stdout is not a file
