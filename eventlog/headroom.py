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

from agents_eventlog.eventlog.storage.sqlite.connections import FileId, file_id

ROOM_BYTES = 256 * 1024 + 1
"""
How much is written at once: enough for some ten commits, and soon done.

What SQLite writes ends at a multiple of 8 bytes. Room never does, so every process sees which it is.
"""

ENOUGH_BYTES = 32 + 1000 * (4096 + 24) + 1
"""Where SQLite checkpoints a write-ahead log, at its 1000th frame, to begin again at its start."""


class Headroom:
    """
    Keeps room in the write-ahead log of one connection.

    database: the file that the connection has open. There may soon be another at its path, whose log is
        not locked, and never touched.
    """

    def __init__(self, path: str, database: FileId) -> None:
        self._path = path
        self._database = database
        self._file: FileIO | None = None

    def keep(self) -> None:
        """
        Make room if what there was is used up.

        To be called as a writing transaction begins: nobody else writes to the file then.
        """
        with contextlib.suppress(OSError):  # of a disk that is full or fails, the commit tells
            file = self._file = self._file or self._opened()
            if file is None:
                return
            size = os.fstat(file.fileno()).st_size
            if size % 8 == 0 and 0 < size < ENOUGH_BYTES:
                room = min(ROOM_BYTES, ENOUGH_BYTES - size)
                file.seek(size)
                if file.write(bytes(room)) < room:
                    file.truncate(size)  # what little is left of the disk is for others

    def _opened(self) -> FileIO | None:
        file = FileIO(f"{self._path}-wal", "r+")
        if file_id(self._path) == self._database:  # then what was opened before is its log
            return file
        file.close()
        return None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
