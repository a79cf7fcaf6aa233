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
from typing import TYPE_CHECKING, Any, NoReturn, overload

import typer
from typer.core import TyperCommand, TyperGroup

from agents_eventlog import projections
from agents_eventlog.adapters.cli import pager
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
from agents_eventlog.eventlog.reader import session_ids
from agents_eventlog.eventlog.storage.engines import POSTGRES, engine_for
from agents_eventlog.eventlog.storage.pending import UNEXPECTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console
    from rich.text import Text

    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.eventlog.cipher.keys import Keys
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

PIPED_WIDTH = 100
"""Width of folded texts that do not go to a terminal, unless COLUMNS is set."""
DATABASE = "EVENTLOG_DB"
"""The environment variable with the log for commands without DB."""
PANELS = ("Inspect", "Cost", "Manage", "Move", "Maintain")
"""The panels of the help, in order."""
LEAST_PREFIX = 4
"""Minimum length of the beginning of a session id that is accepted for the whole id."""

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


class Command(TyperCommand):
    """A command on a log; without DB it uses the one in EVENTLOG_DB."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; insert DB if EVENTLOG_DB is set and they do not name a log."""
        database = os.environ.get(DATABASE)
        if not database or all(parameter.name != "db" for parameter in self.params):
            return super().parse_args(ctx, args)
        if not self._names_a_log(ctx, args) and not self._trial(ctx, [database, *args]).args:
            args = [database, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; long output for people goes to a pager."""
        is_for_people = not any(ctx.params.get(name) for name in ("as_json", "as_csv", "follow"))
        with pager.paged(is_wanted=is_for_people and ctx.info_name in pager.COMMANDS):
            return super().invoke(ctx)

    def _names_a_log(self, ctx: Any, args: list[str]) -> bool:
        """Return whether the first argument is a URL or the path of a file."""
        path = self._trial(ctx, args).params.get("db")
        return path is not None and (isinstance(path, Url) or path.exists())

    def _trial(self, ctx: Any, args: list[str]) -> Any:
        """Parse without errors, into a context of its own."""
        trial = type(ctx)(self, info_name=ctx.info_name, parent=ctx.parent, resilient_parsing=True)
        super().parse_args(trial, [*args])
        return trial


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

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        panels = [getattr(command, "rich_help_panel", None) for command in self.commands.values()]
        order = {panel: PANELS.index(panel) for panel in {*panels} & {*PANELS}}
        return sorted(
            self.commands,
            key=lambda name: (
                order.get(getattr(self.commands[name], "rich_help_panel", None), len(PANELS)),
                name,
            ),
        )

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
    """Parse a time: ISO 8601, today, yesterday, or 30d; exit with USAGE if it is invalid."""
    if text is None:
        return None
    try:
        instant = timestamps.typed(text, datetime.now(UTC), end_of_day=end_of_day)
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

    paged = None if stderr else pager.width.get()
    made = Leaving(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=bool(paged) or None,
    )
    if paged is not None:
        made.width = paged
    elif not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPED_WIDTH
    return made


def table_width(out: Console) -> int | None:
    """Return the width that a table may have; None if it may be as wide as its content."""
    return out.width if out.is_terminal or "COLUMNS" in os.environ else None


def nothing(what: str) -> None:
    """Report on stderr that nothing matches; the exit code stays 0."""
    from rich.text import Text

    console(stderr=True).print(Text(f"no {what} found", style="dim"), soft_wrap=True)


def check_dry_run(*, yes: bool, dry_run: bool) -> None:
    """Exit with USAGE for both options; without either, a command that removes content only previews."""
    if yes and dry_run:
        fail(ExitCode.USAGE, "--yes and --dry-run cannot be combined")


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
def opened(
    path: Path, *, read_only: bool, with_projections: bool = False, keys: Keys | None = None
) -> Iterator[EventLog]:
    """
    Open an existing log, by default without its projections. Raises an OpenError.

    keys: None for those of EVENTLOG_KEYS.
    """
    kept = projections.default() if with_projections else None
    _opened.set(path)
    with explain_foreign_file(path):
        log = EventLog.open_sync(
            path, create=False, read_only=read_only, projections=kept, keys=keys, seal=False
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
            meant = _beginning_with(log, session_id)
            fail(
                ExitCode.USAGE,
                f"{error}: expected the whole id, as {meant[0]!r}" if meant else error,
            )


@overload
def session_of(log: EventLog, given: str) -> str: ...
@overload
def session_of(log: EventLog, given: None) -> None: ...
@overload
def session_of(log: EventLog, given: str | None) -> str | None: ...
def session_of(log: EventLog, given: str | None) -> str | None:
    """
    Return the id of a session from its id, or from a beginning that no other id has.

    Exits with USAGE if the session never existed or the beginning is ambiguous; deleted ones are accepted.
    """
    if given is None:
        return None
    try:
        log.store.read_sync(lambda tx: require_session(tx, given))
    except SessionNotFoundError as error:
        found = _beginning_with(log, given)
        if len(found) == 1:
            return found[0]
        if found:
            examples = f"{found[0]!r}, {found[1]!r}"
            fail(
                ExitCode.USAGE,
                f"ambiguous session id {given!r}: several begin with it: {examples} ...",
            )
        fail(ExitCode.USAGE, error)
    return given


def _beginning_with(log: EventLog, prefix: str) -> list[str]:
    """Return up to two ids that begin with a prefix."""
    if len(prefix) < LEAST_PREFIX or not prefix.isprintable():
        return []
    return log.store.read_sync(lambda tx: session_ids(tx, prefix, limit=2))


def shorter(log: EventLog, ids: Iterable[str]) -> dict[str, str]:
    """Return a unique beginning of each id that can be shortened, for a table that needs the room."""

    def unit(tx: Transaction) -> dict[str, str]:
        short = {}
        for session_id in ids:
            for length in range(8, len(session_id) - 4, 4):
                if len(session_ids(tx, session_id[:length], limit=2)) == 1:
                    short[session_id] = session_id[:length]
                    break
        return short

    return log.store.read_sync(unit)


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
