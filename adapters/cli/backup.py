"""
``eventlog backup``: a complete, verified copy of a log in use; also the way to restore one.

Document of ``--json``: ``backup`` (path: null if none was due, events, bytes, head: position, digest,
removed: the paths of old backups that ``--keep`` removed).
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations import timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.conversations.summary import counted

if TYPE_CHECKING:
    from agents_eventlog.eventlog import Backup

TIME = "%Y%m%dT%H%M%SZ"
"""The time in the name of a backup, in UTC, so that names sort by age."""


def run(
    path: Path,
    target: Path,
    *,
    every: str | None,
    keep: int | None,
    expect_head: str | None,
    as_json: bool,
) -> None:
    """Back up a log. Raises an EventLogError."""
    is_folder = target.is_dir()
    if every is not None or keep is not None:
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            terminal.fail(
                ExitCode.USAGE, f"{target}: {error.strerror}: --every and --keep expect a folder"
            )
        is_folder = True
    now = datetime.now(UTC)
    made = None
    name = target / f"{path.stem}-{now.strftime(TIME)}{path.suffix}" if is_folder else target
    with terminal.opened(path, read_only=True) as log:
        if every is None or _is_due(path, target, every, now):
            try:
                made = asyncio.run(log.backup(name, expect_head=expect_head))
            except ValueError as error:
                terminal.fail(ExitCode.USAGE, error)
    removed = [] if made is None or keep is None else _earlier(path, target)[:-keep]
    for old in removed:
        old.unlink()
    _print(made, name, removed, as_json=as_json)


def _earlier(path: Path, folder: Path) -> list[Path]:
    """Return the backups of a log in a folder, the oldest first."""
    name = re.compile(rf"{re.escape(path.stem)}-\d{{8}}T\d{{6}}Z{re.escape(path.suffix)}", re.ASCII)
    return sorted(file for file in folder.iterdir() if name.fullmatch(file.name))


def _is_due(path: Path, folder: Path, every: str, now: datetime) -> bool:
    """Return whether the newest backup is older than a duration; exit with USAGE for an invalid one."""
    try:
        age = timestamps.duration(every)
    except ValueError as error:
        terminal.fail(ExitCode.USAGE, error)
    earlier = _earlier(path, folder)
    if not earlier:
        return True
    newest = datetime.strptime(earlier[-1].stem[len(path.stem) + 1 :], TIME).replace(tzinfo=UTC)
    return now - newest >= age


def _print(made: Backup | None, name: Path, removed: list[Path], *, as_json: bool) -> None:
    if as_json:
        document: dict[str, object] = {"path": None, "events": None, "bytes": None, "head": None}
        if made is not None:
            head = {"position": made.head.position, "digest": made.head.digest.hex()}
            document = {**made._asdict(), "head": head}
        terminal.print_json(
            {"kind": "backup", **document, "removed": [str(each) for each in removed]}
        )
        return
    out = terminal.console()
    if made is None:
        out.print("no backup is due")
        return
    line = f"backed up {counted(made.events, 'event')} to {name}"
    out.print(Text(printable(line)), soft_wrap=True)
    out.print(Text(f"head   {made.head}"), soft_wrap=True)
    if removed:
        out.print(f"removed {counted(len(removed), 'old backup')}")
