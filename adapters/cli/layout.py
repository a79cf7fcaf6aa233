"""
Tables that fit the terminal: numbers, times, money and keys are never cut or wrapped.

Where a table is too wide, minor columns are left out, texts are cut with an ellipsis, and session ids are
shortened to a unique beginning. A table that is still too wide is wider than the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GAP = 2
"""Spaces between two columns."""


class Column(NamedTuple):
    """
    A column of a table.

    right: align right. minor: columns with the highest number are left out first; 0: always there.
    least: cut texts down to this width where room is short; 0: never.
    """

    title: str
    right: bool = False
    minor: int = 0
    least: int = 0


class _Fitted(NamedTuple):
    columns: list[int]
    widths: list[int]
    are_ids_short: bool


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Text]],
    *,
    width: int | None,
    footer: Sequence[Text] = (),
    shorter: Mapping[str, str] | None = None,
) -> Text:
    """
    Return a table of one-line cells.

    width: in cells; None: as wide as the content. footer: a row of sums. shorter: short session ids, for
    cells with exactly the long one.
    """
    short = {} if shorter is None else shorter
    cells = [[_on_one_line(cell) for cell in row] for row in [*rows, *([footer] if footer else [])]]
    fitted = _fit(columns, cells, width, short)
    header = [Text(column.title, style="dim") for column in columns]
    lines = [_line(header, columns, fitted)]
    rule = Text("─" * (sum(fitted.widths) + GAP * (len(fitted.widths) - 1)), style="dim")
    lines.append(rule)
    for number, row in enumerate(cells):
        if footer and number == len(rows):
            lines.append(rule)
        shown = [_shortened(cell, short) for cell in row] if fitted.are_ids_short else row
        lines.append(_line(shown, columns, fitted))
    return Text("\n").join(lines)


def _on_one_line(cell: Text) -> Text:
    return cell if "\n" not in cell.plain else Text(" ".join(cell.plain.split()), style=cell.style)


def _shortened(cell: Text, shorter: Mapping[str, str]) -> Text:
    short = shorter.get(cell.plain)
    return cell if short is None else Text(short, style=cell.style)


def _fit(
    columns: Sequence[Column],
    cells: Sequence[Sequence[Text]],
    width: int | None,
    shorter: Mapping[str, str],
) -> _Fitted:
    """Return the columns that have room, and their widths."""
    places = [*range(len(columns))]
    widths = _widths(columns, cells)
    if width is None:
        return _Fitted(places, widths, are_ids_short=False)
    short_cells = [[_shortened(cell, shorter) for cell in row] for row in cells]
    short_widths = _widths(columns, short_cells)
    minor = sorted({column.minor for column in columns if column.minor}, reverse=True)
    for least_minor in [None, *minor]:
        kept = [
            place for place in places if least_minor is None or columns[place].minor < least_minor
        ]
        for natural, are_short in ((widths, False), (short_widths, True)):
            chosen = _cut([columns[place] for place in kept], [natural[p] for p in kept], width)
            if chosen is not None:
                return _Fitted(kept, chosen, are_short)
    kept = [place for place in places if not columns[place].minor]
    return _Fitted(
        kept,
        [min(short_widths[place], columns[place].least or short_widths[place]) for place in kept],
        are_ids_short=True,
    )


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> list[int]:
    return [
        max([len(column.title), *(row[place].cell_len for row in cells)])
        for place, column in enumerate(columns)
    ]


def _cut(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int] | None:
    """Return the widths, with texts cut so that they fit; None if that is not enough."""
    widths = [*natural]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    for place, column in enumerate(columns):
        if excess > 0 and column.least:
            narrower = max(widths[place] - excess, min(column.least, widths[place]))
            excess -= widths[place] - narrower
            widths[place] = narrower
    return None if excess > 0 else widths


def _line(cells: Sequence[Text], columns: Sequence[Column], fitted: _Fitted) -> Text:
    line = Text()
    for number, (place, width) in enumerate(zip(fitted.columns, fitted.widths, strict=True)):
        cell = cells[place].copy()
        cell.truncate(width, overflow="ellipsis")
        space = " " * (width - cell.cell_len)
        if number:
            line.append(" " * GAP)
        if columns[place].right:
            line.append(space).append_text(cell)
        else:
            line.append_text(cell).append(space)
    line.rstrip()
    return line
