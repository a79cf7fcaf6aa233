"""``eventlog export`` and ``eventlog import``."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Literal, TypeAlias, get_args

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import retain, terminal
from agents_eventlog.adapters.cli.markdown import export_markdown
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.commands import check_age
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.conversations.sdk_tables import TablePair
from agents_eventlog.adapters.conversations.summary import counted
from agents_eventlog.adapters.openai_agents.migration.export_file import SDKExport, export_sdk_file
from agents_eventlog.adapters.openai_agents.migration.import_file import check_source, import_file
from agents_eventlog.eventlog.errors import NoLogError, OpenError, WrongTablesError
from agents_eventlog.eventlog.jsonl.export import ExportProgress, export_lines
from agents_eventlog.eventlog.jsonl.import_ import ImportOutcome, ImportResult, OnConflict
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.engine import MEMORY
from agents_eventlog.eventlog.storage.sqlite import files
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.sessions import queries as session_queries

Form: TypeAlias = Literal["jsonl", "markdown", "html", "sdk"]
OUTCOMES: tuple[ImportOutcome, ...] = get_args(ImportOutcome)


# -- export -----------------------------------------------------------------------------------


def export(
    path: Path,
    sessions: Sequence[str] | None,
    user_id: str | None = None,
    *,
    form: Form,
    sealed: bool = False,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write histories to stdout, or atomically to a file. Raises an EventLogError."""
    _check_options(sessions, user_id, form=form, sealed=sealed, output=output)
    if output is not None:
        check_output(path, output)
    shown = not (as_json or (output is None and sys.stdout.isatty()))
    with terminal.opened(path, read_only=True) as log, bar("exporting", shown=shown) as show:
        written = ExportProgress(0, 0, 0)

        def on_progress(progress: ExportProgress) -> None:
            nonlocal written
            written = progress
            if show is not None:
                show(progress.events, progress.total)

        for session_id in sessions or ():
            terminal.check_session(log, session_id)
        if user_id is not None:
            sessions = _sessions_of(log, user_id)
        if form == "sdk" and output is not None:
            exported = asyncio.run(
                export_sdk_file(log, output, sessions or None, on_progress=on_progress)
            )
            _print_sdk_export(exported, written.events, output, as_json=as_json)
            return
        write = partial(_texts(form), sealed=True) if sealed else _texts(form)
        texts = write(log, sessions or None, on_progress=on_progress)
        asyncio.run(_write(texts, output))
    if output is not None:
        _print_exported(written, output, as_json=as_json)


def _check_options(
    sessions: Sequence[str] | None,
    user_id: str | None,
    *,
    form: Form,
    sealed: bool,
    output: Path | None,
) -> None:
    """Exit with USAGE for options that exclude each other, and a database for stdout."""
    if sealed and form != "jsonl":
        terminal.fail(ExitCode.USAGE, f"--sealed and --format {form} cannot be combined")
    if sessions and user_id is not None:
        terminal.fail(ExitCode.USAGE, "--session and --user cannot be combined")
    if form == "sdk" and output is None:
        terminal.fail(ExitCode.USAGE, "--format sdk needs --output")


def _texts(form: Form) -> Callable[..., AsyncIterator[str]]:
    if form == "html":
        from agents_eventlog.adapters.view.export import export_html

        return export_html
    return export_markdown if form == "markdown" else export_lines


def _sessions_of(log: EventLog, user_id: str) -> list[str]:
    """Return the sessions of a user; exit with USAGE if the user has no session."""

    def unit(tx: Transaction) -> list[str]:
        projections.default().require_fresh(tx)
        return session_queries.of_user(tx, user_id)

    if not (found := log.store.read_sync(unit)):
        terminal.fail(ExitCode.USAGE, f"user {user_id!r} has no sessions")
    return found


def check_output(path: Path, output: Path) -> None:
    """Exit with USAGE if the output would replace a database or a file that belongs to one."""
    target = SQLITE.resolve(output)
    if target == SQLITE.resolve(path):
        terminal.fail(ExitCode.USAGE, f"{output} is the log itself")
    is_kept = files.is_beside_database(target) or (
        Path(target).is_file() and files.is_database(target)
    )
    if is_kept:
        terminal.fail(
            ExitCode.USAGE,
            f"{output} belongs to an SQLite database: expected a file that may be replaced",
        )


async def _write(texts: AsyncIterator[str], output: Path | None) -> None:
    """Write texts, each with a line break at the end."""
    try:
        with _opened(output) as file:
            async for text in texts:
                file.write(text.encode() + b"\n")
            file.flush()
    except OSError as error:
        if output is not None and error.errno is not None:  # else it is an error of the log
            error.filename = str(output)
        raise


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """Open stdout, or a file that appears only once it is complete."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    if output.exists() and not output.is_file():
        with output.open("wb") as device:
            yield device
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f"{output.name}-", suffix=".part", dir=output.parent)
    except OSError as error:
        is_lacking = isinstance(error, FileNotFoundError)
        why = f"the folder {output.parent} does not exist" if is_lacking else error.strerror
        raise OpenError(f"{output} cannot be written: {why}", path=str(output)) from error
    try:
        with os.fdopen(handle, "wb") as part:
            yield part
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _print_exported(written: ExportProgress, output: Path, *, as_json: bool) -> None:
    sessions, events = written.sessions, written.events
    if as_json:
        document = {"kind": "exported", "sessions": sessions, "events": events}
        terminal.print_json({**document, "output": str(output)})
    else:
        line = f"exported {counted(sessions, 'session')}, {counted(events, 'event')} to {output}"
        terminal.console().print(Text(printable(line)), soft_wrap=True)


def _print_sdk_export(exported: SDKExport, events: int, output: Path, *, as_json: bool) -> None:
    if as_json:
        document = {**exported._asdict(), "events": events, "output": str(output)}
        terminal.print_json({"kind": "exported", **document})
        return
    what = f"{counted(exported.sessions, 'session')}, {counted(exported.items, 'item')}"
    left_out = "" if exported.left_out is None else f"; left out: {exported.left_out}"
    line = f"exported {what} to {output}{left_out}"
    terminal.console().print(Text(printable(line)), soft_wrap=True)


# -- import -----------------------------------------------------------------------------------


def import_(
    path: Path,
    source: Path,
    *,
    on_conflict: OnConflict,
    tables: TablePair | None,
    key_variable: str | None,
    ttl: str | None,
    dry_run: bool,
    actor: str | None,
    as_json: bool,
) -> bool:
    """Import histories; return whether every session is complete. Raises an EventLogError."""
    try:
        if tables is not None:
            tables.resolved()
    except WrongTablesError as error:
        terminal.fail(ExitCode.USAGE, error)
    key = None if key_variable is None else os.environ.get(key_variable)
    if key_variable is not None and not key:
        terminal.fail(
            ExitCode.USAGE, f"{key_variable} is not set: expected an encryption key in it"
        )
    if ttl is not None and key is None:
        terminal.fail(ExitCode.USAGE, "--encrypted-ttl needs --encryption-key-env")
    age = retain.age(ttl)
    try:
        _ = None if age is None else check_age("--encrypted-ttl", age)
    except ValueError as error:
        terminal.fail(ExitCode.USAGE, error)
    is_sealed = check_source(source, tables, key)  # before creating a log
    import_source = partial(
        import_file,
        path=source,
        tables=tables,
        encryption_key=key,
        encrypted_ttl=age,
        on_conflict=on_conflict,
    )
    outcomes: list[ImportResult] = []
    try:
        is_tried = dry_run or (not _is_there(path) and _is_all_broken(import_source))
        seal = not is_sealed and not _holds_log(path)
        with (
            _target(path, dry_run=is_tried, seal=seal) as log,
            bar("importing", shown=not as_json) as show,
        ):
            imported = import_source(log, dry_run=is_tried, on_progress=show)
            with terminal.acting(actor):
                asyncio.run(_collect(imported, outcomes, as_json=as_json))
    finally:  # sessions imported before an error stay
        _print_receipt(outcomes, path, dry_run=dry_run, as_json=as_json)
    return not any(
        outcome.outcome in {"refused", "broken"} or _is_incomplete(outcome) for outcome in outcomes
    )


def _is_incomplete(outcome: ImportResult) -> bool:
    """Return whether a session was imported without some of its content."""
    return outcome.imported_as is not None and outcome.problem is not None


async def _collect(
    imported: AsyncIterator[ImportResult], outcomes: list[ImportResult], *, as_json: bool
) -> None:
    async for outcome in imported:
        outcomes.append(outcome)
        if as_json:
            terminal.print_json({"kind": "session", **outcome._asdict()})


def _is_all_broken(import_source: Callable[..., AsyncGenerator[ImportResult, None]]) -> bool:
    """Return whether a source has sessions and all of them are broken, so that no log is created."""

    async def found() -> set[bool]:
        seen = set()
        async with (
            EventLog.open_sync(MEMORY, seal=False) as log,
            aclosing(import_source(log, dry_run=True)) as outcomes,
        ):
            async for outcome in outcomes:
                seen.add(outcome.outcome == "broken")
                if False in seen:
                    break
        return seen

    return asyncio.run(found()) == {True}


def _holds_log(path: Path) -> bool:
    try:
        with terminal.opened(path, read_only=True):
            return True
    except NoLogError:
        return False


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@contextmanager
def _target(path: Path, *, dry_run: bool, seal: bool) -> Iterator[EventLog]:
    """
    Open the target log, creating it if missing; a dry run creates and writes nothing.

    seal: whether keys seal a new one.
    """
    if dry_run and _is_there(path):
        with terminal.explain_foreign_file(path):
            log = EventLog.open_sync(path, read_only=True)
    else:
        with terminal.explain_foreign_file(path):
            log = EventLog.open_sync(
                MEMORY if dry_run else path,
                projections=None if dry_run else projections.default(),
                seal=seal and not dry_run,
            )
    try:
        yield log
    finally:
        log.close()


def _print_receipt(
    outcomes: Sequence[ImportResult], path: Path, *, dry_run: bool, as_json: bool
) -> None:
    if not outcomes and sys.exc_info()[0] is not None:
        return  # the import failed before the first session
    counts = Counter(outcome.outcome for outcome in outcomes)
    numbers: dict[str, int] = {name: counts[name] for name in OUTCOMES}
    numbers["incomplete"] = sum(map(_is_incomplete, outcomes))
    events = sum(outcome.events for outcome in outcomes)
    if as_json:
        terminal.print_json({"kind": "receipt", **numbers, "events": events, "dry_run": dry_run})
        return
    out = terminal.console()
    for outcome in outcomes:
        if (remark := _remark(outcome)) is not None:
            out.print(Text(printable(f"{outcome.session_id}: {remark}")), soft_wrap=True)
    sessions = counted(numbers.pop("imported") + numbers["renamed"], "session")
    verb = "would import" if dry_run else "imported"
    rest = "".join(f"; {number:,} {name}" for name, number in numbers.items() if number)
    line = f"{verb} {sessions}, {counted(events, 'event')} into {path}{rest}"
    out.print(Text(printable(line)), soft_wrap=True)


def _remark(outcome: ImportResult) -> str | None:
    """Return the line to print for a session; None if it was imported unchanged."""
    remarks: list[str] = [] if outcome.outcome == "imported" else [outcome.outcome]
    if outcome.outcome == "renamed":
        remarks = [f"renamed to {outcome.imported_as}"]
    if outcome.problem is not None:
        remarks.append(outcome.problem)
    return ": ".join(remarks) or None


# -- both -------------------------------------------------------------------------------------


@contextmanager
def bar(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield the callback of a progress bar on stderr, or None if stderr is not a terminal."""
    err = terminal.console(stderr=True)
    if not (shown and err.is_terminal):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    # The bar must not redirect stdout, which may be a file.
    with Progress(
        *columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
