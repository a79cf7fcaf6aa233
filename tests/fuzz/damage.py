"""Ways to damage bytes, a payload, an event that stands in a log: each by chance, from a seed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agents_eventlog.eventlog import integrity, payloads
from agents_eventlog.eventlog.storage.sqlite import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

PAGE_BYTES = 4_096
INTEGERS = (0, -1, 1, 2, 99, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 253_402_300_800_000_000)
TEXTS = ("", "x", "main", "\u202e\x1b[31m", "a" * 50_000, b"\xff\xfe", b"\xed\xa0\x80", "\x00")
TYPES = ("items_added", "item_popped", "usage_recorded", "content_erased", "never_heard_of")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2.5, 10**30, -(10**30), 2**53 + 1, 2**63, 1e999, float("nan")),
    *("", "x", "main", "\ud800", "\x1b[31m", "\x00"),
    *([], {}, [0, 0], [5, 0], [10**20, 0], [-1, -1], {"a": "\ud800"}, ["\ud800"]),
)
PAYLOADS = (
    *(b"", b"null", b"[]", b"{}", b"1", b'"x"', b"NaN", b"[" * 50_000, b'{"items":' * 3_000),
    *(
        b'{"items":[1]},{"items":[2]}',
        b'{"items":[1',
        b'{"items":[1]}]',
        b'{"items":[{"role":[]}]}',
    ),
    *(b'{"occurred_at":1e999}', b'{"occurred_at":"x"}', b'{"imported":{"recorded_at":1e999}}'),
    *(b'{"events_in_append":"x"}', b'{"actor":null,"trace_id":[1],"reason":{}}'),
)
COLUMNS = (
    *("data", "data", "data", "data", "metadata", "metadata", "type", "schema_version", "version"),
    *("session_id", "branch_id", "idempotency_key", "recorded_at", "data_digest", "digest"),
)
BLOBS = {"data_digest", "digest"}
NUMBERS = {"version", "schema_version", "recorded_at"}
TABLE = (
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 7",
    "UPDATE events SET position = position + 100 WHERE position > 20",
    "UPDATE events SET position = -3 WHERE position = 1",
    "UPDATE events SET position = 9223372036854775807 WHERE position = 40",
    "DELETE FROM sqlite_sequence",
    "UPDATE sqlite_sequence SET seq = 'x'",
    "UPDATE sqlite_sequence SET seq = 9e99",
)


def damaged(chance: Random, whole: bytes) -> bytes:
    """Return the bytes of a file with some changed, cut off, blanked, moved or put in."""
    data = bytearray(whole)
    start = chance.randrange(len(data))
    end = start + chance.choice([16, 512, PAGE_BYTES, 20_000])
    match chance.randrange(8):
        case 0:
            data[start] ^= 1 << chance.randrange(8)
        case 1:
            for _ in range(chance.randrange(2, 200)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 2:
            del data[start:]
        case 3:
            data[start:end] = bytes(len(data[start:end]))
        case 4:
            data[start:end] = chance.randbytes(len(data[start:end]))
        case 5:  # the header, and the schema on the page that it begins
            for _ in range(chance.randrange(1, 8)):
                data[chance.choice([100, PAGE_BYTES]) - chance.randrange(1, 100)] ^= 0x80
        case 6:
            data[start:start] = chance.randbytes(chance.randrange(1, 50))
        case _:
            pages = len(data) // PAGE_BYTES
            here, there = (
                slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
                for page in (chance.randrange(pages), chance.randrange(pages))
            )
            data[here], data[there] = data[there], data[here]
    return bytes(data)


def damaged_json(chance: Random, text: bytes) -> bytes:
    """Return JSON with a byte changed, its end cut off, a value replaced, or something else instead."""
    place = chance.randrange(len(text) + 1)
    match chance.randrange(6):
        case 0:
            return chance.choice(PAYLOADS)
        case 1:
            return text[:place]
        case 2:
            return text[:place] + chance.randbytes(2) + text[place + chance.randrange(3) :]
    try:
        document = json.loads(text)
    except ValueError:
        return text[::-1]
    where, key = chance.choice([*_places(document), (None, None)])
    if where is None:
        return json.dumps(chance.choice(VALUES)).encode()
    if chance.randrange(6):
        where[key] = chance.choice(VALUES)
    else:
        del where[key]
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(children):
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)


def damage_events(chance: Random, path: Path) -> None:
    """Change columns of one or two events, or the table; mostly the chain is made to fit again."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        for trigger in ("events_are_never_changed", "events_are_never_deleted"):
            connection.execute(f"DROP TRIGGER {trigger}")
        if chance.randrange(15) == 0:
            connection.execute(chance.choice(TABLE))
        for _ in range(chance.choice([1, 1, 2])):
            _damage_column(chance, connection, chance.choice(COLUMNS))
        if chance.randrange(4):
            _chain_again(connection)
        for trigger in (schema.NO_UPDATE, schema.NO_DELETE):
            connection.execute(trigger)
        if chance.randrange(3) == 0:  # whoever opens the log replays what is in it
            connection.execute("DELETE FROM checkpoints")
            for table in ("items", "segments", "branches", "sessions", "usage"):
                connection.execute(f"DROP TABLE {table}")
        connection.commit()


def _damage_column(chance: Random, connection: sqlite3.Connection, column: str) -> None:
    positions = [position for (position,) in connection.execute("SELECT position FROM events")]
    if not positions:
        return
    position = chance.choice(positions)
    (old,) = connection.execute(
        f"SELECT CAST({column} AS BLOB) FROM events WHERE position = ?", (position,)
    ).fetchone()
    new: Any
    if column in {"data", "metadata"}:
        new = damaged_json(chance, old or b"{}")
    elif column in BLOBS:
        new = chance.choice([b"", bytes(32), chance.randbytes(32)])
    elif column in NUMBERS:
        new = chance.choice(INTEGERS)
    else:
        new = chance.choice(TYPES if column == "type" else TEXTS)
    value = "?" if column in BLOBS | NUMBERS else "CAST(? AS TEXT)"
    try:
        connection.execute(
            f"UPDATE events SET {column} = {value} WHERE position = ?", (new, position)
        )
    except sqlite3.IntegrityError:
        return  # it would not even fit the table


def _chain_again(connection: sqlite3.Connection) -> None:
    connection.text_factory = lambda stored: stored.decode(errors="surrogateescape")
    last = integrity.FIRST
    rows = connection.execute(f"SELECT {payloads.EVENT_COLUMNS} FROM events ORDER BY position")
    for row in rows.fetchall():
        digest = row[7] if row[6] is None else integrity.data_digest(row[6])
        try:
            last = integrity.link(last, *row[:6], digest, *row[8:11])
        except UnicodeEncodeError:
            return  # a text that is none has no digest
        connection.execute(
            "UPDATE events SET data_digest = ?, digest = ? WHERE position = ?",
            (digest, last, row[0]),
        )


def put_impossible(path: Path, table: str, assignment: str, where: str) -> None:
    """Give rows a value that their column can never hold."""
    schema_of = "SELECT sql FROM sqlite_schema WHERE name = ?"
    declare = "UPDATE sqlite_schema SET sql = ? WHERE name = ?"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (strict,) = connection.execute(schema_of, (table,)).fetchone()
        loose = strict.replace(") STRICT, WITHOUT", ") WITHOUT").replace(") STRICT", ")")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(declare, (loose.replace("NOT NULL", ""), table))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER IF EXISTS events_are_never_changed")
        connection.execute(f"UPDATE {table} SET {assignment} WHERE {where}")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(declare, (strict, table))


def put_out_of_order(path: Path) -> None:
    """Give the last event of a short log, which nobody has open, the position 0."""
    with closing(sqlite3.connect(path)) as connection:
        ((size,),) = connection.execute("PRAGMA page_size")
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'")
    data = bytearray(path.read_bytes())
    page = size * (root - 1)
    assert data[page] == 13, "the events no longer stand on one page"
    cells = int.from_bytes(data[page + 3 : page + 5])
    last = page + 8 + 2 * (cells - 1)
    place = page + int.from_bytes(data[last : last + 2])
    while data[place] & 0x80:  # the length of the payload; its position comes behind it
        place += 1
    data[place + 1] = 0
    path.write_bytes(data)
