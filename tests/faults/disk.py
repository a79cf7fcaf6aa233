"""
A disk that fails, stops or keeps a record, under real SQLite: ``shim/disk.c``, loaded with LD_PRELOAD.

It is compiled when first asked for, and works in processes of its own, since it has to be there before
SQLite is.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "shim" / "disk.c"
LIBRARY = "EVENTLOG_TEST_DISK"

What = Literal["never", "write fails", "sync fails", "killed before", "killed after"]
WHATS: tuple[What, ...] = ("never", "write fails", "sync fails", "killed before", "killed after")


class Disk:
    """The shim, in a process that it was loaded into."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[LIBRARY])

    def watch(self, path: Path) -> None:
        """Look at this database from now on, in what is opened from now on."""
        self._library.disk_watch(os.fsencode(path))

    def record(self, path: Path) -> None:
        """Write down what happens to the database."""
        self._library.disk_record(os.fsencode(path))

    def note(self, text: str) -> None:
        """Write something of ours into the record."""
        self._library.disk_note(text.encode())

    def arm(self, what: What, nth: int = 0, error: int = 0, *, lasting: bool = False) -> None:
        """Let something happen at the nth operation of its kind, counted from now."""
        self._library.disk_arm(WHATS.index(what), ctypes.c_long(nth), error, int(lasting))

    def hits(self) -> int:
        """Return how many operations failed since the disk was armed."""
        return int(self._library.disk_hits())

    def counted(self) -> int:
        """Return how many operations could have, or did."""
        return int(self._library.disk_counted())


class RecordedEvent(NamedTuple):
    """One operation on a file of the database (or a note), as it was recorded."""

    operation: str
    file: int
    offset: int
    data: bytes


HEADER = struct.Struct("=cb6xqq")


def read_record(path: Path) -> list[RecordedEvent]:
    """Return all that was recorded, in order."""
    raw = path.read_bytes()
    at, found = 0, []
    while at < len(raw):
        operation, file, offset, length = HEADER.unpack_from(raw, at)
        at += HEADER.size
        found.append(RecordedEvent(operation.decode(), file, offset, raw[at : at + length]))
        at += length
    return found


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("FAULTS OF THE DISK ARE NOT TESTED: that takes Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "disk.so"
    command = [compiler, "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, SOURCE]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return library


def run_on_disk(shim: Path, function: str, **arguments: Any) -> Any:
    """Run a function of ``children.on_disk`` in a process with the shim, and return what it returns."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), LIBRARY: str(shim)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.children.on_disk", function, json.dumps(arguments)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{function} failed:\n{ended.stderr[-6000:]}"
    return json.loads(ended.stdout.splitlines()[-1])
