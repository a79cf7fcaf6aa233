"""
The payloads of many events as one document: one row in place of one for each event.

What is SQLite's own about it stays here; ``group_concat`` takes the rows in the order of its subquery.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import EVENT_TYPES, JSON
from agents_eventlog.eventlog.storage.transaction import Transaction

JOINED = """
    SELECT CAST(group_concat(data, char(10)) AS BLOB), group_concat(number),
        SUM(index_in_event), COUNT(*), COUNT(data)
    FROM (
        SELECT wanted.number, wanted.index_in_event, {data} AS data
        FROM ({wanted}) AS wanted
        JOIN events AS e ON e.position = wanted.position
        ORDER BY wanted.number
    ) AS payloads
"""


def items(
    tx: Transaction, wanted: str, parameters: Sequence[Any], *, first: int, last: int
) -> list[JSON] | None:
    """
    Return the items numbered ``first`` to ``last``, or None where they cannot be had at once.

    wanted: a statement that gives (position, index_in_event, number) of the first item of each event,
        in the range; only the first event may begin in its middle.

    None means that a payload was erased, has an older shape, is beyond msgspec, that they are too long for
    one value, or that there are none: read one by one, they tell which.
    """
    try:
        row = tx.one(JOINED.format(wanted=wanted, data=_present_data()), parameters)
    except sqlite3.DataError:
        return None  # over SQLite's longest text
    if row is None or row[3] != row[4]:
        return None
    document, numbers, index, count, _ = row
    decoded = codec.decode_lines_of_items(document, count) if count else None
    if decoded is None:
        return None
    if sum(map(len, decoded)) != last - first + 1:  # some events' items are not all in the range
        starts = [*map(int, str(numbers).split(",")), last + 1]
        sizes = [following - start for start, following in pairwise(starts)]
        decoded[0] = decoded[0][index:]
        decoded = [some[:size] for some, size in zip(decoded, sizes, strict=True)]
    return list(chain.from_iterable(decoded))


def _present_data() -> str:
    """Return the column of what needs no lifting; while items have one shape only, that is all."""
    older = [
        f"('{name}', {version})"
        for name, version in codec.UPCASTS
        if "items" in EVENT_TYPES[name].__struct_fields__
    ]
    if not older:
        return "e.data"
    shapes = ", ".join(older)
    return f"CASE WHEN (e.type, e.schema_version) NOT IN (VALUES {shapes}) THEN e.data END"
