"""
Payloads as they leave the ``events`` table: the only module outside ``storage`` whose SQL reads ``data``.

Encryption of payloads belongs here, and in ``appender``, where they enter the table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Any, Final

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Row, Transaction

EVENT_COLUMNS: Final = (
    "position, session_id, version, type, schema_version, branch_id, "
    "CAST(data AS BLOB), data_digest, metadata, idempotency_key, recorded_at, digest"
)
"""An event as a row, in the order that ``RecordedEvent`` and ``integrity`` expect."""

JOINED: Final = """
    SELECT CAST(group_concat(data, char(10)) AS BLOB), group_concat(number),
        SUM(index_in_event), COUNT(*), COUNT(data)
    FROM (
        SELECT wanted.number, wanted.index_in_event, {data} AS data
        FROM ({wanted}) AS wanted
        JOIN events AS e ON e.position = wanted.position
        ORDER BY wanted.number
    ) AS payloads
"""
SIZES: Final = """
    SELECT type, COUNT(*), COALESCE(SUM(LENGTH(CAST(data AS BLOB))), 0), COUNT(*) - COUNT(data)
    FROM events GROUP BY type ORDER BY 3 DESC, type
"""
BLANK: Final = "UPDATE events SET data = NULL WHERE position = ? AND data IS NOT NULL"

LONGEST_PATTERN_CHARACTERS: Final = 1_000
"""How much of a text SQLite's LIKE compares, because it limits patterns; Python compares all of it."""

HOLDS: Final = r"AND (e.data LIKE ? ESCAPE '\' OR e.data IS NULL)"
HOLDS_OR_ESCAPED: Final = (
    r"AND (e.data LIKE ? ESCAPE '\' OR e.data LIKE '%\\u%' ESCAPE '\' OR e.data IS NULL)"
)


def event_rows(
    tx: Transaction, rest: str, parameters: Sequence[Any] = (), *, more: str = ""
) -> Iterator[Row]:
    """
    Return whole events as rows of ``EVENT_COLUMNS``.

    rest: what follows ``FROM events``. more: further columns, each after a comma.
    """
    return iter(tx.scan(f"SELECT {EVENT_COLUMNS}{more} FROM events {rest}", parameters))


def stored(
    tx: Transaction, source: str, parameters: Sequence[Any] = (), *, columns: str = ""
) -> Iterator[Row]:
    """
    Return payloads as (position, type, schema version, data); an erased one has None for data.

    source: what follows FROM; it calls the events ``e``.
    columns: columns to select before these four.
    """
    return iter(tx.scan(statement(source, columns=columns), parameters))


def statement(source: str, *, columns: str = "") -> str:
    """Return the statement that ``stored`` runs."""
    comma = ", " if columns else ""
    return (
        f"SELECT {columns}{comma}e.position, e.type, e.schema_version, CAST(e.data AS BLOB) "
        f"FROM {source}"
    )


def at(tx: Transaction, position: int) -> Row | None:
    """Return one event's payload as ``stored`` does; None if the event does not exist."""
    return tx.one(statement("events AS e WHERE e.position = ?"), (position,))


def is_blanked(tx: Transaction, position: int) -> bool:
    """Return whether an event has no payload, or does not exist."""
    row = at(tx, position)
    return row is None or row[-1] is None


def sizes(tx: Transaction) -> list[Row]:
    """Return (type, events, bytes of payloads, erased payloads), the largest type first."""
    return tx.all(SIZES)


def blank(tx: Transaction, positions: Iterable[int]) -> None:
    """Blank payloads for good."""
    tx.executemany(BLANK, ((position,) for position in positions))


def items(
    tx: Transaction, wanted: str, parameters: Sequence[Any], *, first: int, last: int
) -> list[JSON] | None:
    """
    Return the items numbered ``first`` to ``last``, or None if one statement cannot read them.

    wanted: a statement that selects (position, index_in_event, number) of the first item of each event,
        in the range; only the first event may begin in its middle.

    None means that a payload was erased, has an older shape or cannot be decoded by msgspec, that together
    they are too long for one value, or that the range is empty. Reading them one by one shows which.
    """
    try:
        row = tx.one(_joined(wanted, _present_data()), parameters)
    except tx.engine.value_too_long:
        return None
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


@cache
def _joined(wanted: str, data: str) -> str:
    return JOINED.format(wanted=wanted, data=data)


def _present_data() -> str:
    """Return the payload, or NULL if it has an older shape."""
    older = [f"('{name}', {version})" for name, version in codec.older_item_shapes()]
    if not older:
        return "e.data"
    shapes = ", ".join(older)
    return f"CASE WHEN (e.type, e.schema_version) NOT IN (VALUES {shapes}) THEN e.data END"


# -- plaintext --------------------------------------------------------------------------------


def may_hold(text: str) -> tuple[str, tuple[str, ...]]:
    """
    Return a condition on the events ``e`` that every payload which holds a text meets, and its parameters.

    It narrows a scan; the caller decodes and compares what is left. An erased payload meets it, too, and
    so does any payload that may hold the text in other case. Plain ASCII is stored unchanged. Other text is
    stored as msgspec writes it, or with the escapes of the standard library's ``json``. A letter whose
    case SQLite does not fold matches any text.
    """
    text = text[:LONGEST_PATTERN_CHARACTERS]
    if text.isascii() and text.isprintable() and not set('"\\') & set(text):
        return (HOLDS, (f"%{_literal(text)}%",)) if text else ("", ())
    pattern = "".join(map(_pattern, text))
    return (HOLDS_OR_ESCAPED, (f"%{pattern}%",)) if pattern.strip("%") else ("", ())


def _literal(written: str) -> str:
    """Return the pattern for exactly this text."""
    return re.sub(r"([\\%_])", r"\\\1", written)


def _pattern(character: str) -> str:
    if not character.isascii() and not _has_one_case(character):
        return "%"
    return _literal(codec.encode_text(character).decode()) or "%"  # empty: an unpaired surrogate


def _has_one_case(character: str) -> bool:
    """Whether no other character folds to this one; combining marks can result from folding letters."""
    forms = {character.lower(), character.upper(), character.casefold()}
    return forms == {character} and not unicodedata.combining(character)
