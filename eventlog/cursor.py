"""How far a log was read, which is one position for each of its lanes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agents_eventlog.eventlog.errors import CorruptFileError
from agents_eventlog.eventlog.integrity import Head


class Cursor:
    """
    The last position read in each lane of a log.

    Events become visible in the order of their positions within a lane, not across lanes: a reader that
    kept only the highest position would miss events of other lanes. On SQLite there is one lane.
    """

    __slots__ = ("ends",)

    def __init__(self, lanes: int, after: int = 0) -> None:
        self.ends = [after] * lanes

    @classmethod
    def of(cls, lanes: int, after: int | Head | Sequence[int]) -> Cursor:
        """Return the cursor after a head, a position, or the highest of several in each lane."""
        if isinstance(after, int):
            return cls(lanes, after)
        cursor = cls(lanes)
        positions = (after.lanes or (after.position,)) if isinstance(after, Head) else after
        for position in positions:
            lane = position % lanes
            cursor.ends[lane] = max(cursor.ends[lane], position)
        return cursor

    def check(self, page: Iterable[int]) -> dict[int, int]:
        """
        Return the last position of each lane in a page of ascending positions.

        Raises CorruptFileError unless each is after the cursor: rows that are out of order in a damaged
        table would be read again and again.
        """
        lanes = len(self.ends)
        last = {position % lanes: position for position in page}
        for lane, position in last.items():
            check_progress(self.ends[lane], position)
        return last

    def advance(self, page: Iterable[int]) -> None:
        """Move past a page of ascending positions. Raises CorruptFileError as ``check`` does."""
        for lane, position in self.check(page).items():
            self.ends[lane] = position


def check_progress(after: Any, last: Any) -> None:
    """Raise CorruptFileError for a page of rows that does not end after where it begins."""
    if not last > after:
        raise CorruptFileError(
            f"the rows after {after!r} are out of order: run `eventlog verify` and `eventlog doctor`"
        )
