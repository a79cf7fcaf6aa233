"""How far a log was read, which is one position for each of its lanes."""

from __future__ import annotations

from collections.abc import Iterable

from agents_eventlog.eventlog.errors import CorruptFileError


class Cursor:
    """
    The last position read in each lane of a log.

    Events become visible in the order of their positions within a lane, not across lanes: a reader that
    kept only the highest position would miss events of other lanes. On SQLite there is one lane.
    """

    __slots__ = ("ends",)

    def __init__(self, lanes: int, after: int = 0) -> None:
        self.ends = [after] * lanes

    def advance(self, positions: Iterable[int]) -> None:
        """
        Move past a page of positions.

        Raises CorruptFileError unless the page ends after the cursor: rows that are out of order in a
        damaged table would be read again and again.
        """
        last: dict[int, int] = {}
        for position in positions:
            last[position % len(self.ends)] = position
        for lane, position in last.items():
            check_progress(self.ends[lane], position)
            self.ends[lane] = position


def check_progress(after: int, last: int) -> None:
    """Raise CorruptFileError for a page of rows that does not end after where it begins."""
    if not last > after:
        raise CorruptFileError(
            f"the rows after {after!r} are out of order: run `eventlog verify` and `eventlog doctor`"
        )
