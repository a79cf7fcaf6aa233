"""Small drawings made on the server: the ticks of the time bar, sparklines, and bars of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from agents_eventlog.projections.conversations.paths import Change

BINS: Final = 400
"""Maximum number of ticks; more versions share them."""

KINDS: Final = {
    "items_added": "added",
    "turn_redone": "added",
    "history_imported": "added",
    "item_popped": "removed",
    "turn_undone": "removed",
    "items_replaced": "removed",
    "item_redacted": "removed",
    "items_withheld": "ended",
    "session_forked": "added",
    "fork_created": "forked",
    "branch_created": "forked",
    "branch_deleted": "ended",
    "session_cleared": "ended",
    "session_deleted": "ended",
    "content_erased": "ended",
}
"""What a tick shows of an event; other events are "noted"."""

ORDER: Final = ("noted", "added", "forked", "removed", "ended")
"""What a tick of several events shows: the last of these."""


class Tick(NamedTuple):
    """A tick of the time bar: its place from 0 to 1, its kind, and whether the branch shown did it."""

    place: float
    kind: str
    is_here: bool


def ticks(changes: Sequence[Change], branch_ids: set[str]) -> list[Tick]:
    """Return the ticks of a session's versions. branch_ids: those whose events are not dimmed."""
    count = len(changes)
    found: dict[int, tuple[bool, int]] = {}
    for number, change in enumerate(changes, 1):
        place = number if count <= BINS else round(number * BINS / count)
        rank = ORDER.index(KINDS.get(change.type, "noted"))
        mine = (change.branch_id in branch_ids, rank)
        found[place] = max(found.get(place, mine), mine)
    most = min(count, BINS) or 1
    return [Tick(place / most, ORDER[rank], here) for place, (here, rank) in found.items()]


def drawn_ticks(found: Iterable[Tick]) -> Markup:
    """Return ticks as an SVG that stretches over its place."""
    lines = [
        f'<rect class="{tick.kind}{"" if tick.is_here else " elsewhere"}" '
        f'x="{tick.place * 1000:.1f}" y="{2 if tick.kind in ("ended", "removed") else 6}" '
        f'width="2" height="{14 if tick.kind in ("ended", "removed") else 10}"/>'
        for tick in found
    ]
    return _drawn("ticks", 1002, 16, lines, stretches=True)


def sparkline(values: Sequence[int], *, width: int = 80, height: int = 18) -> Markup:
    """Return bars for a row of numbers, the highest as high as the drawing; empty without numbers."""
    if not values:
        return Markup()
    most = max(values) or 1
    room = min(width / len(values), 10)
    lines = [
        f'<rect x="{index * room:.1f}" y="{height - size:.1f}" width="{max(room - 1, room * 0.7):.1f}" '
        f'height="{size:.1f}"/>'
        for index, size in enumerate(max(1.0, height * value / most) for value in values)
    ]
    return _drawn("spark", width, height, lines)


def bar(
    parts: Sequence[tuple[str, int]], most: int, *, width: int = 130, height: int = 6
) -> Markup:
    """Return one bar of coloured parts; the longest of all bars has ``most``."""
    lines, place = [], 0.0
    for name, value in parts:
        size = width * value / (most or 1)
        lines.append(
            f'<rect class="{name}" x="{place:.1f}" y="0" width="{size:.1f}" height="{height}"/>'
        )
        place += size
    return _drawn("tokens", width, height, lines)


def _drawn(
    name: str, width: int, height: int, lines: Iterable[str], *, stretches: bool = False
) -> Markup:
    """Return a drawing; everything in it is made of numbers and of names from this file."""
    size = "" if stretches else f' width="{width}" height="{height}"'
    ratio = ' preserveAspectRatio="none"' if stretches else ""
    body = "".join(lines)
    return Markup(  # noqa: S704 - numbers and class names of this file
        f'<svg class="{name}" viewBox="0 0 {width} {height}"{size}{ratio} aria-hidden="true">{body}</svg>'
    )
