"""Scratch databases: files and memory that may be lost, for replays and for the past."""

from __future__ import annotations

import errno
import glob
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agents_eventlog.eventlog.errors import DiskError, DiskFullError, StoreError
from agents_eventlog.eventlog.storage.sqlite.connections import translated
from agents_eventlog.eventlog.storage.transaction import Transaction

if TYPE_CHECKING:
    from agents_eventlog.eventlog.storage.engine import Engine

CACHE_KIB = 4 * 1024


@contextmanager
def scratch(engine: Engine, path: str) -> Iterator[Transaction]:
    """Open an empty database without a journal: fast, and small in memory."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
        yield Transaction(connection, now=0, engine=engine)
    except sqlite3.Error as error:
        raise translated(error, path or "a temporary file") from error
    finally:
        connection.close()


@contextmanager
def scratch_file(log_path: str, *, is_memory: bool) -> Iterator[str]:
    """Provide a new file beside the log, on the same disk; remove those that killed replays left."""
    if is_memory:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "replay")
        return
    log_file = Path(log_path)
    for old in leftovers(log_path):
        with suppress(OSError):
            old.unlink()
    try:
        handle, path = tempfile.mkstemp(
            prefix=f"{log_file.name}-replay-", suffix=f"-{os.getpid()}", dir=log_file.parent
        )
    except OSError as error:
        raise _cannot_create(error, log_path) from error
    os.close(handle)
    try:
        yield path
    finally:
        with suppress(OSError):  # the next replay removes it
            Path(path).unlink()


def _cannot_create(error: OSError, path: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the disk is full beside {path}", path=path)
    return DiskError(f"cannot create a file beside {path}: {error.strerror}", path=path)


def leftovers(path: str) -> list[Path]:
    """Return the files that killed replays left beside a log."""
    log_file = Path(path)
    found = log_file.parent.glob(f"{glob.escape(log_file.name)}-replay-*")
    return sorted(old for old in found if not _is_running(old.name.rpartition("-")[2]))


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
