"""
Labels: the leaves of a session's metadata, each a row, so that sessions are found by them.

The leaf of ``{"customer": {"tier": 2}}`` is at the path ``["customer","tier"]`` and has the value ``2``,
both kept as JSON in ASCII, so that no key or value means anything to SQL. What is no object, or an empty
one, is a leaf; so a list is one. Leaves are equal when they are as JSON: 1 is 1.0, and is not true or "1".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Transaction

SESSION_LABELS = """
    CREATE TABLE session_labels (
        session_id TEXT NOT NULL,
        path       TEXT NOT NULL,
        value      TEXT NOT NULL,
        PRIMARY KEY (session_id, path)
    )
"""
SESSIONS_OF_LABEL = """
    CREATE INDEX sessions_of_label ON session_labels (path, value, session_id)
"""
SCHEMA = (SESSION_LABELS, SESSIONS_OF_LABEL)

INSERT_LABEL = "INSERT INTO session_labels (session_id, path, value) VALUES (?, ?, ?)"
DELETE_LABELS = "DELETE FROM session_labels WHERE session_id = ?"

MAX_LEVELS: Final = 64
"""What is nested deeper has no label: it is kept, and cannot be searched for."""

MAX_CHARACTERS: Final = 256
"""Of a longer path or value, its digest is kept, which finds it as well."""


class Label(NamedTuple):
    """A leaf: its path and its value, as a row has them."""

    path: str
    value: str


class TooDeepError(ValueError):
    """A value is nested too deeply for a label."""


def set_labels(tx: Transaction, session_id: str, metadata: Mapping[str, JSON]) -> None:
    """Put the leaves of this metadata in the place of what a session had."""
    tx.execute(DELETE_LABELS, (session_id,))
    tx.executemany(INSERT_LABEL, [(session_id, *label) for label in labels(metadata)])


def labels(metadata: Mapping[str, JSON]) -> Iterator[Label]:
    """Return the leaves, but for those that are nested too deeply."""
    for keys, value in _leaves(metadata, ()):
        with suppress(TooDeepError):
            yield _label(keys, value)


def wanted(metadata: Mapping[str, JSON]) -> list[Label]:
    """Return the leaves to search for. Raises TooDeepError for what has no label."""
    return [_label(keys, value) for keys, value in _leaves(metadata, ())]


def _leaves(
    metadata: Mapping[str, JSON], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], JSON]]:
    """Walk down the objects, as deep as there are labels."""
    for key, value in metadata.items():
        keys = (*above, key)
        if isinstance(value, dict) and value and len(keys) < MAX_LEVELS:
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _plain(value: JSON, levels: int) -> JSON:
    """Return a value of which equal ones are written equally: 2 for 2.0, keys in order."""
    if levels == 0:
        raise TooDeepError
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(each, levels - 1) for each in value]
    if isinstance(value, dict):
        return {key: _plain(value[key], levels - 1) for key in sorted(value)}
    return value


def _label(keys: tuple[str, ...], value: JSON) -> Label:
    return Label(_kept(list(keys)), _kept(_plain(value, MAX_LEVELS + 1 - len(keys))))


def _kept(value: JSON) -> str:
    text = json.dumps(value, separators=(",", ":"))
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
