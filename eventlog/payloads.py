"""
Payloads as they leave the ``events`` table: the only module outside ``storage`` whose SQL reads ``data``.

In a sealed log, contents are stored as envelopes (see ``cipher.envelope``). ``event_rows`` returns them as
``Envelope`` objects, which open themselves; ``stored`` and ``items`` return them opened. They are sealed in
``sealing``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

from agents_eventlog.eventlog import codec, integrity
from agents_eventlog.eventlog.cipher import envelope, identity
from agents_eventlog.eventlog.cipher.access import cipher_of
from agents_eventlog.eventlog.cipher.envelope import (
    ITEMS_ADDED,
    SEALED_TYPES,
    Envelope,
    Place,
    Planted,
    PositionOf,
    Withheld,
)
from agents_eventlog.eventlog.cipher.keys import UsedKey, UsedKeys
from agents_eventlog.eventlog.errors import (
    KeyNotFoundError,
    KeysError,
    KeysMissingError,
    ShreddedError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.events import JSON, SessionForked
from agents_eventlog.eventlog.storage.transaction import Insert, Row, Transaction

COLUMNS: Final = (
    *("position", "session_id", "version", "type", "schema_version", "branch_id", "data"),
    *("data_digest", "metadata", "idempotency_key", "recorded_at", "digest"),
)
INSERT_EVENT: Final = Insert(
    "events", COLUMNS, {"data": "CAST(? AS TEXT)"}
)  # which is given as bytes
INSERT_SEALED_EVENT: Final = Insert("events", (*COLUMNS, "sealed"), {"data": "CAST(? AS TEXT)"})

EVENT_COLUMNS: Final = (
    "position, session_id, version, type, schema_version, branch_id, "
    "CAST(data AS BLOB), data_digest, metadata, idempotency_key, recorded_at, digest"
)
"""An event as a row, in the order that ``RecordedEvent`` and ``integrity`` expect."""

PLAIN: Final = "CAST({alias}data AS BLOB)"
SEALED_APART: Final = "COALESCE({alias}sealed, CAST({alias}data AS BLOB))"

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
ENVELOPES: Final = """
    SELECT {payload}, e.version, wanted.number - wanted.index_in_event
    FROM ({wanted}) AS wanted
    JOIN events AS e ON e.position = wanted.position
    ORDER BY wanted.number
"""
SIZES: Final = """
    SELECT type, COUNT(*), COALESCE(SUM(LENGTH({payload})), 0), COUNT(*) - COUNT({payload})
    FROM events GROUP BY type ORDER BY 3 DESC, type
"""
BLANK: Final = "UPDATE events SET data = NULL WHERE position = ? AND data IS NOT NULL"
BLANK_BOTH: Final = """
    UPDATE events SET data = NULL, sealed = NULL
    WHERE position = ? AND (data IS NOT NULL OR sealed IS NOT NULL)
"""
FIRST_BYTES: Final = """
    SELECT SUBSTR({payload}, 1, 1), COUNT(*) FROM events
    WHERE type IN ({types}) AND {payload} IS NOT NULL {rest} GROUP BY 1
"""
FORKED_FROM: Final = "WHERE session_id = ? AND type = 'session_forked' ORDER BY version"
POSITION_OF: Final = "SELECT position FROM events WHERE session_id = ? AND version = ?"
DIGEST: Final = "SELECT {payload}, data_digest FROM events WHERE position = ?"
TYPES: Final = ", ".join(f"'{name}'" for name in sorted(SEALED_TYPES))
NEWEST_CONTENT: Final = f"""
    SELECT SUBSTR({{payload}}, 1, 34), position FROM events
    WHERE session_id = ? AND {{payload}} IS NOT NULL
        AND (type IN ({TYPES}) OR (type = 'session_cleared' AND LENGTH({{payload}}) > 2))
    ORDER BY version DESC LIMIT 1
"""
"""
The newest content of a session since it last expired, or the event with which it expired: a clearing that
says more than ``{}``.
"""
NEWEST_CONTENT_OF_ALL: Final = f"""
    SELECT SUBSTR({{payload}}, 1, 34), position FROM events
    WHERE type IN ({TYPES}) AND {{payload}} IS NOT NULL
    ORDER BY position DESC LIMIT 1
"""

USED_KEYS: Final = f"""
    SELECT session_id, SUBSTR({{payload}}, 1, 34), COUNT(*), MAX(position) FROM events
    WHERE type IN ({TYPES}) AND SUBSTR({{payload}}, 1, 1) <= ?
    GROUP BY session_id, SUBSTR({{payload}}, 1, 34)
    ORDER BY session_id, 4
"""
NO_JSON: Final = bytes([envelope.MAX_FORMAT])
"""JSON begins with a later byte, an envelope does not."""

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
    Return whole events as rows of ``EVENT_COLUMNS``; a sealed payload is an ``Envelope``.

    rest: what follows ``FROM events``. more: further columns, each after a comma.
    """
    column = tx.engine.envelope_column(tx)
    columns = EVENT_COLUMNS
    if column == "sealed":
        columns = columns.replace(PLAIN.format(alias=""), SEALED_APART.format(alias=""))
    rows = iter(tx.scan(f"SELECT {columns}{more} FROM events {rest}", parameters))
    return rows if column is None else _with_envelopes(tx, rows)


def _with_envelopes(tx: Transaction, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        position, session_id, version, kind, schema_version, branch_id, data = row[:7]
        if envelope.is_sealed(data):
            context = identity.context(session_id, kind, schema_version, branch_id)
            place = Place(session_id, version, kind, position, context)
            yield (*row[:6], _envelope(tx, data, place), *row[7:])
        elif data is not None and _is_planted(tx, kind, position):
            yield (*row[:6], _planted(tx, data, schema_version, row), *row[7:])
        else:
            yield row


def stored(
    tx: Transaction,
    source: str,
    parameters: Sequence[Any] = (),
    *,
    columns: str = "",
    session_id: str | None = None,
    is_opened: bool = True,
) -> Iterator[Row]:
    """
    Return payloads as (position, type, schema version, data); an erased one has None for data.

    source: what follows FROM; it calls the events ``e``.
    columns: columns to select before these four.
    session_id: the session that is read; the content of another one does not open. None: that of the row.
    is_opened: open what is sealed; otherwise it is an ``Envelope``.

    Raises KeysMissingError, KeyNotFoundError, ShreddedError, TamperedPayloadError.
    """
    if tx.engine.envelope_column(tx) is None:
        return iter(tx.scan(statement(source, columns=columns), parameters))
    return _stored_envelopes(tx, source, parameters, columns, session_id, is_opened=is_opened)


def _stored_envelopes(
    tx: Transaction,
    source: str,
    parameters: Sequence[Any],
    columns: str,
    session_id: str | None,
    *,
    is_opened: bool,
) -> Iterator[Row]:
    comma = ", " if columns else ""
    sql = _stored(source, f"{columns}{comma}e.session_id, e.version", _payload(tx, "e."))
    cipher = cipher_of(tx) if is_opened else None
    unsealers: dict[str, Callable[[bytes, int, int], bytes]] = {}
    sessions: dict[str, str] = {}
    for row in tx.scan(sql, parameters):
        *before, of_row, version, position, kind, schema_version, data = row
        of_session = sessions.get(of_row)
        if of_session is None:
            of_session = sessions[of_row] = _session_of(tx, of_row, session_id)
        if not envelope.is_sealed(data):
            if data is not None and _is_planted(tx, kind, position):
                data = _planted(tx, data, schema_version, (position, of_row, version, kind))
                data = data.opened() if is_opened else data
        elif cipher is not None and kind == ITEMS_ADDED:
            unseal = unsealers.get(of_session)
            if unseal is None:
                unseal = unsealers[of_session] = cipher.unsealer(of_session)
            try:
                data = unseal(data, version, position)
            except KeyNotFoundError:
                data = opened(tx, _envelope(tx, data, Place(of_session, version, kind, position)))
        else:
            data = _envelope(tx, data, Place(of_session, version, kind, position))
            data = opened(tx, data) if is_opened else data
        yield (*before, position, kind, schema_version, data)


def _session_of(tx: Transaction, of_row: str, session_id: str | None) -> str:
    """Return the session as whose an envelope is opened: that of its row only if the reader may see it."""
    if session_id in (None, of_row):
        return of_row
    for row in event_rows(tx, FORKED_FROM, (session_id,)):
        event = codec.decode(row[3], row[4], row[6], position=row[0])
        if isinstance(event, SessionForked) and of_row in {o.session_id for o in event.origins}:
            return of_row
    return str(session_id)


@cache
def _stored(source: str, columns: str, payload: str) -> str:
    return statement(source, columns=columns).replace(PLAIN.format(alias="e."), payload)


def statement(source: str, *, columns: str = "") -> str:
    """Return the statement that ``stored`` runs where nothing is sealed."""
    comma = ", " if columns else ""
    return (
        f"SELECT {columns}{comma}e.position, e.type, e.schema_version, CAST(e.data AS BLOB) "
        f"FROM {source}"
    )


AT_POSITION: Final = "events AS e WHERE e.position = ?"
AT: Final = statement(AT_POSITION)


def at(
    tx: Transaction, position: int, *, session_id: str | None = None, is_opened: bool = True
) -> Row | None:
    """Return one event's payload as ``stored`` does; None if the event does not exist."""
    if tx.engine.envelope_column(tx) is None:
        return tx.one(AT, (position,))
    rows = stored(tx, AT_POSITION, (position,), session_id=session_id, is_opened=is_opened)
    return next(rows, None)


def is_blanked(tx: Transaction, position: int) -> bool:
    """Return whether an event has no payload, or does not exist."""
    row = at(tx, position, is_opened=False)
    return row is None or row[-1] is None


def sizes(tx: Transaction) -> list[Row]:
    """Return (type, events, bytes of payloads, erased payloads), the largest type first."""
    return tx.all(SIZES.format(payload=_payload(tx)))


class Contents(NamedTuple):
    """The numbers of contents in the log, erased ones excepted."""

    in_plaintext: int
    sealed: int


def contents(tx: Transaction, session_id: str | None = None) -> Contents:
    """Count the contents of the log, or of a session."""
    rest, parameters = ("", ()) if session_id is None else ("AND session_id = ?", (session_id,))
    sql = FIRST_BYTES.format(payload=_payload(tx), types=TYPES, rest=rest)
    plain = sealed = 0
    for first, count in tx.all(sql, parameters):
        if envelope.is_sealed(first):
            sealed += count
        else:
            plain += count
    return Contents(plain, sealed)


def blank(tx: Transaction, positions: Iterable[int]) -> None:
    """Blank payloads for good."""
    is_apart = tx.engine.envelope_column(tx) == "sealed"
    tx.executemany(BLANK_BOTH if is_apart else BLANK, ((position,) for position in positions))


def insert(tx: Transaction, rows: Sequence[Row]) -> None:
    """Insert whole events, later in the transaction; a payload is JSON or an envelope."""
    if tx.engine.envelope_column(tx) != "sealed":
        tx.defer(INSERT_EVENT, rows)
        return
    apart = [
        (*row[:6], None, *row[7:], bytes(row[6])) if envelope.is_sealed(row[6]) else (*row, None)
        for row in rows
    ]
    tx.defer(INSERT_SEALED_EVENT, apart)


def items(
    tx: Transaction,
    wanted: str,
    parameters: Sequence[Any],
    *,
    first: int,
    last: int,
    session_id: str | None = None,
) -> list[JSON] | None:
    """
    Return the items numbered ``first`` to ``last``, or None if one statement cannot read them.

    wanted: a statement that selects (position, index_in_event, number) of the first item of each event,
        in the range; only the first event may begin in its middle.
    session_id: the session that is read, as in ``stored``.

    None means that a payload was erased, has an older shape or cannot be decoded by msgspec, that together
    they are too long for one value, or that the range is empty. Reading them one by one shows which.
    """
    if tx.cipher is not None and session_id is not None:
        return _sealed_items(tx, wanted, parameters, first, last, session_id)
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
        starts = map(int, str(numbers).split(","))
        decoded = _in_range(decoded, [*starts, last + 1], index)
    return list(chain.from_iterable(decoded))


@cache
def _joined(wanted: str, data: str) -> str:
    return JOINED.format(wanted=wanted, data=data)


def _sealed_items(
    tx: Transaction,
    wanted: str,
    parameters: Sequence[Any],
    first: int,
    last: int,
    session_id: str,
) -> list[JSON] | None:
    cipher = cipher_of(tx)
    rows = tx.all(_envelopes(wanted, _payload(tx, "e.")), parameters)
    if cipher is None or not rows or codec.older_item_shapes():
        return None
    unseal = cipher.unsealer(session_id)
    try:
        plain = [unseal(sealed, version, 0) for sealed, version, _ in rows]
    except (TypeError, KeysError, UndecodableEventError):
        return (
            None  # read one by one, they show which one is erased, not sealed, or of another place
        )
    decoded = codec.decode_lines_of_items(b"\n".join(plain), len(plain))
    if decoded is None:
        return None
    if sum(map(len, decoded)) != last - first + 1:
        starts = [first, *(start for _, _, start in rows[1:]), last + 1]
        decoded = _in_range(decoded, starts, first - rows[0][2])
    return list(chain.from_iterable(decoded))


@cache
def _envelopes(wanted: str, payload: str) -> str:
    return ENVELOPES.format(wanted=wanted, payload=payload)


def _in_range(decoded: list[list[JSON]], starts: Sequence[int], index: int) -> list[list[JSON]]:
    """Cut the items of events to those in a range: the first event's begin at an index."""
    sizes = [following - start for start, following in pairwise(starts)]
    decoded[0] = decoded[0][index:]
    return [some[:size] for some, size in zip(decoded, sizes, strict=True)]


# -- envelopes --------------------------------------------------------------------------------


def opened(tx: Transaction, data: Envelope) -> bytes:
    """Return the content of an envelope, in a unit of work. Raises what ``stored`` raises."""
    try:
        return data.opened()
    except KeyNotFoundError:
        position = data.place.position
        row = tx.one(DIGEST.format(payload=_payload(tx)), (position,))
        if row is not None and row[0] is not None and integrity.data_digest(row[0]) != row[1]:
            raise envelope.tampered(position, "it does not match its recorded digest") from None
        raise


def content(tx: Transaction, data: bytes | None) -> bytes | Withheld:
    """
    Return a payload that ``stored`` returned without opening it, or why it cannot be read.

    Raises KeyNotFoundError, TamperedPayloadError.
    """
    if data is None:
        return "erased"
    if not isinstance(data, Envelope):
        return data
    try:
        return opened(tx, data)
    except KeysMissingError:
        return "sealed"
    except ShreddedError:
        return "shredded"


def newest_key(tx: Transaction, session_id: str | None = None) -> UsedKey | None:
    """
    Return the key that sealed the newest content of a session, or of the log.

    None if that is not sealed, if nothing is left of it, or if the session has expired since.
    """
    sql = NEWEST_CONTENT_OF_ALL if session_id is None else NEWEST_CONTENT
    row = tx.one(sql.format(payload=_payload(tx)), () if session_id is None else (session_id,))
    if row is None or not envelope.is_sealed(row[0]):
        return None
    return UsedKey(envelope.key_id(row[0]), row[1])


def used_keys(tx: Transaction) -> list[UsedKeys]:
    """Return the keys that sealed the contents of a sealed log, by session. Its time grows with the log."""
    rows = tx.all(USED_KEYS.format(payload=_payload(tx)), (NO_JSON,))
    return [
        UsedKeys(session_id, envelope.key_id(head), contents, position)
        for session_id, head, contents, position in rows
    ]


def _payload(tx: Transaction, alias: str = "") -> str:
    """Return an SQL expression for a payload as bytes, sealed or not."""
    is_apart = tx.engine.envelope_column(tx) == "sealed"
    return (SEALED_APART if is_apart else PLAIN).format(alias=alias)


def _envelope(tx: Transaction, data: bytes, place: Place) -> Envelope:
    outline = envelope.placed(envelope.raw_outline(data), _position_of(tx, place.session_id))
    return Envelope(data, place, outline, cipher_of(tx))


def _position_of(tx: Transaction, session_id: str) -> PositionOf:
    """Return a function for the position of a version of the session, or of another one."""

    def position_of(version: int, of: str = session_id) -> int:
        row = tx.one(POSITION_OF, (of, version))
        return 0 if row is None else int(row[0])

    return position_of


def _is_planted(tx: Transaction, kind: str, position: int) -> bool:
    """Whether content in plaintext is where the log has been sealed."""
    cipher = cipher_of(tx)
    return cipher is not None and kind in SEALED_TYPES and position >= cipher.sealed_from


def _planted(tx: Transaction, data: bytes, schema_version: int, row: Row) -> Planted:
    position, session_id, version, kind = row[:4]
    try:
        outline = envelope.outline(
            kind, schema_version, data, token=lambda *_: "", version_of=lambda position: position
        )
    except UndecodableEventError:
        outline = data
    return Planted(data, Place(session_id, version, kind, position), outline, cipher_of(tx))


def _present_data() -> str:
    """Return the payload, or NULL if it has an older shape."""
    older = [f"('{name}', {version})" for name, version in codec.older_item_shapes()]
    if not older:
        return "e.data"
    shapes = ", ".join(older)
    return f"CASE WHEN (e.type, e.schema_version) NOT IN (VALUES {shapes}) THEN e.data END"


# -- plaintext --------------------------------------------------------------------------------


def narrowed(tx: Transaction, text: str) -> tuple[str, tuple[str, ...]]:
    """Return a condition as ``may_hold`` does; in a sealed log one that every payload meets."""
    return ("", ()) if tx.engine.is_sealed(tx) else may_hold(text)


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
