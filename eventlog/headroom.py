"""
Room in the write-ahead log, made before it is needed.

A sync waits longer for a file that has grown than for one that was written in place, because the file
system records the new size, too: about twice as long for what one commit writes. So zeros are written
beyond the log's end, at once for many commits. SQLite finds no frame in them: they lack its salt.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO

ROOM_BYTES = 256 * 1024
"""How much is written at once: enough for some ten commits, and soon done."""

ENOUGH_BYTES = 4 * 1024 * 1024
"""The size at which SQLite checkpoints a write-ahead log, to begin again at its start."""


class Headroom:
    """Keeps room in the write-ahead log of one connection."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-wal"
        self._file: FileIO | None = None
        self._known_bytes = 0

    def keep(self) -> None:
        """
        Make room if what there was is used up.

        To be called as a writing transaction begins: nobody else writes to the file then.
        """
        with contextlib.suppress(OSError):  # of a disk that is full or fails, the commit tells
            if self._file is None:
                self._file = FileIO(self._path, "r+")
            size = os.fstat(self._file.fileno()).st_size
            if size == self._known_bytes:
                return
            self._known_bytes = size
            if size < ENOUGH_BYTES:
                self._file.seek(size)
                self._known_bytes += self._file.write(bytes(ROOM_BYTES))

    def close(self) -> None:
        """Let go of the file; the next call opens it anew."""
        if self._file is not None:
            self._file.close()
            self._file = None
