"""
What a disk holds after a power cut, made from a record of what was written, truncated and synced.

What was synced is there. What was written since may be there or not: in full, in part, or torn between
sectors of 512 bytes. A file that was made or unlinked is so for sure once its folder was synced; until then
the folder may be as it was at any moment since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.disk import RecordedEvent

SECTOR = 512
DATABASE, WAL, JOURNAL, FOLDER = 1, 2, 3, 4
SUFFIXES = {DATABASE: "", WAL: "-wal", JOURNAL: "-journal"}

Luck = Literal["none", "all", "some", "torn"]
"""What of the unsynced writes is there: nothing, everything, some of them, some sectors of them."""


class File:
    """What a disk holds of one file."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.pending: list[RecordedEvent] = []

    def sync(self) -> None:
        """Make sure of all that was written."""
        for recorded in self.pending:
            _apply(self.synced, recorded.operation, recorded.offset, recorded.data)
        self.pending.clear()

    def after_power_cut(self, luck: Luck, chance: random.Random) -> bytes:
        """Return what is there then."""
        found = bytearray(self.synced)
        for recorded in [] if luck == "none" else self.pending:
            parts = _sectors(recorded) if luck == "torn" else iter([recorded])
            for part in parts:
                if luck == "all" or chance.random() < 0.5:
                    _apply(found, part.operation, part.offset, part.data)
        return bytes(found)


class Platter:
    """What a disk holds of a database's files, as a record goes by."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.synced_names: dict[int, File] = {}
        self.pending_names: list[dict[int, File]] = []

    def take(self, recorded: RecordedEvent) -> None:
        """Take the next operation."""
        operation, file = recorded.operation, recorded.file
        if operation in "cu":
            if operation == "c":
                self.files[file] = File()
            else:
                del self.files[file]
            self.pending_names.append(dict(self.files))
        elif operation == "s" and file == FOLDER:
            self.synced_names = dict(self.files)
            self.pending_names.clear()
        elif operation == "s":
            self.files[file].sync()
        elif operation in "wt":
            self.files[file].pending.append(recorded)

    def cut_power(self, path: Path, luck: Luck, chance: random.Random) -> None:
        """Make the files as they may be found after a power cut."""
        moments = [self.synced_names, *self.pending_names]
        names = {"none": moments[0], "all": moments[-1]}.get(luck) or chance.choice(moments)
        for file, suffix in SUFFIXES.items():
            target = path.with_name(path.name + suffix)
            target.unlink(missing_ok=True)
            if file in names:
                target.write_bytes(names[file].after_power_cut(luck, chance))


def _sectors(recorded: RecordedEvent) -> Iterator[RecordedEvent]:
    if recorded.operation == "t":
        yield recorded
        return
    at = recorded.offset
    end = at + len(recorded.data)
    while at < end:
        upto = min(end, (at // SECTOR + 1) * SECTOR)
        piece = recorded.data[at - recorded.offset : upto - recorded.offset]
        yield recorded._replace(offset=at, data=piece)
        at = upto


def _apply(content: bytearray, operation: str, offset: int, data: bytes) -> None:
    if operation == "t":
        del content[offset:]
    end = offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[offset:end] = data
