"""Files that hold a history of a given length, made once in a run and copied for every round."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.contestants import Contestant


class Histories:
    """Prepared files in one folder; both contestants are seen to hold the same items."""

    def __init__(self, folder: Path, contestants: Sequence[Contestant]) -> None:
        self.folder = folder
        self.contestants = contestants
        self._copies = 0

    async def prepare(self, turns: int, branches: int = 0, *, in_one_call: bool = False) -> None:
        """Make each contestant's file, with branches at the middle turn, unless it is there."""
        held = []
        for contestant in self.contestants:
            path = self._path(contestant, turns, branches, in_one_call=in_one_call)
            if path.exists():
                return
            items = await self._write(contestant, path, turns, branches, in_one_call=in_one_call)
            held.append(items)
        if any(items != held[0] for items in held):
            raise RuntimeError(f"the contestants' histories of {turns} turns differ")

    def copy(
        self, contestant: Contestant, turns: int, branches: int = 0, *, in_one_call: bool = False
    ) -> Path:
        """Copy a prepared file to a path that was never used before."""
        return self.fresh(self._path(contestant, turns, branches, in_one_call=in_one_call))

    def size_bytes(self, contestant: Contestant, turns: int, branches: int) -> int:
        """Tell the size of a prepared file, its write-ahead log merged in."""
        return self._path(contestant, turns, branches).stat().st_size

    def new_path(self) -> Path:
        """Return a path that was never used before."""
        self._copies += 1
        return self.folder / f"copy-{self._copies}.db"

    def fresh(self, sealed: Path) -> Path:
        """Copy a sealed file to a path that was never used before."""
        return shutil.copyfile(sealed, self.new_path())

    def discard(self, path: Path) -> None:
        """Delete a database with the files beside it."""
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def _path(
        self, contestant: Contestant, turns: int, branches: int, *, in_one_call: bool = False
    ) -> Path:
        shape = "one-call" if in_one_call else "calls"
        return self.folder / f"{contestant.name}-{turns}-{branches}-{shape}.db"

    async def _write(
        self, contestant: Contestant, path: Path, turns: int, branches: int, *, in_one_call: bool
    ) -> list[str]:
        draft = self.new_path()
        await contestant.write_history(draft, turns, in_one_call=in_one_call)
        session = contestant.open(draft)
        for number in range(branches):
            await session.create_branch_from_turn(turns // 2, f"branch {number}")
            await session.switch_to_branch("main")
        items = await session.get_items()
        session.close()
        seal(draft, path)
        self.discard(draft)
        return [json.dumps(item) for item in items]


def seal(source: Path, target: Path) -> None:
    """Copy a database that may still be open, with its write-ahead log merged in."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
