"""Copies of a database that others write to, by SQLite's own backup, complete and as of one moment."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agents_eventlog.eventlog.errors import OpenError
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.eventlog.storage.sqlite.connections import BESIDE, translated


@contextmanager
def copying(path: str, target: str) -> Iterator[str]:
    """Yield the path of a complete copy, and put it in place as ``new_file`` does."""
    with new_file(target) as part:
        try:
            Path(part).touch(exist_ok=False)
            Path(part).chmod(Path(path).stat().st_mode & 0o777)
            _copy(path, part)
        except sqlite3.Error as error:
            raise translated(error, part) from error
        yield part


@contextmanager
def new_file(target: str) -> Iterator[str]:
    """
    Yield the path for a database, and put it in place at the end of the block, or remove it on an error.

    Raises OpenError if the target or a file that belongs to it exists: SQLite would apply an old
    write-ahead log to the new database.
    """
    for name in (target, *(f"{target}{ending}" for ending in BESIDE)):
        if os.path.lexists(name):
            raise OpenError(f"{name} exists: expected a new file", path=target)
    folder = Path(target).parent
    if not folder.is_dir():
        raise OpenError(f"the folder {folder} does not exist", path=target)
    part = f"{target}.{secrets.token_hex(4)}.part"
    try:
        yield part
        os.replace(part, target)  # noqa: PTH105 - a file that no connection has open
        _sync_folder(folder)
    finally:
        for name in (part, *(f"{part}{ending}" for ending in BESIDE)):
            Path(name).unlink(missing_ok=True)


def _copy(path: str, part: str) -> None:
    """Copy all pages in one step, which another writer cannot interrupt; SQLite syncs the copy."""
    with (
        closing(connections.connect_for_reading(path)) as source,
        closing(sqlite3.connect(part)) as copy,
    ):
        copy.execute("PRAGMA synchronous=FULL")
        source.backup(copy)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable."""
    with suppress(OSError):  # Windows cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
