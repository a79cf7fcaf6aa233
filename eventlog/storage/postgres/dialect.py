"""SQL as PostgreSQL takes it: the shared subset, with other placeholders, types and a few fragments."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count
from typing import Final

TYPES: Final = {
    "INTEGER": "BIGINT",
    "REAL": "DOUBLE PRECISION",
    "BLOB": "BYTEA",
    "TEXT": 'TEXT COLLATE "C"',  # or keys would be in the order of a language
}

FRAGMENTS: Final = (
    ('main."', '"'),
    ("CAST(data AS BLOB)", "data"),  # payloads are bytea here
    ("CAST(e.data AS BLOB)", "e.data"),
    (
        "CAST(group_concat(data, char(10)) AS BLOB), group_concat(number)",
        "string_agg(data, '\\x0a' ORDER BY number), string_agg(CAST(number AS TEXT), ',' ORDER BY number)",
    ),
    ("NOT IN ()", "IS DISTINCT FROM NULL"),
    ("IN ()", "IN (NULL)"),
    ("e.data LIKE", "convert_from(e.data, 'UTF8') ILIKE"),  # LIKE on SQLite folds the case of ASCII
)
"""What SQLite and PostgreSQL have no common spelling for."""

_TYPE = re.compile(r"\b(INTEGER|REAL|BLOB|TEXT)\b")
_CREATE_TABLE = re.compile(r"\s*CREATE\s+TABLE\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\?")


def create_statement(statement: str) -> str:
    """Return a CREATE statement of the shared subset with PostgreSQL's types."""
    if not _CREATE_TABLE.match(statement):
        return statement
    return _TYPE.sub(lambda found: TYPES[found[0]], statement)


@lru_cache(maxsize=4096)
def translated(sql: str) -> str:
    """Return a statement of the shared subset with numbered placeholders."""
    if sql.startswith("INSERT INTO events "):
        sql = sql.replace("CAST(? AS TEXT)", "?")  # the payload, which is bytea here
    for shared, ours in FRAGMENTS:
        sql = sql.replace(shared, ours)
    numbers = count(1)
    return _PLACEHOLDER.sub(lambda found: f"${next(numbers)}" if found[0] == "?" else found[0], sql)
