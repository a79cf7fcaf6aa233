"""
The leaves of a session's metadata, by which sessions are found.

The leaf of ``{"customer": {"tier": 2}}`` is at the path ``["customer","tier"]`` and has the value ``2``,
both kept as JSON in ASCII, so that no key or value means anything to SQL. A value that is not an object, or
an empty object, is a leaf; so a list is one. Leaves compare as JSON: 1 equals 1.0, but not true or "1".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from agents_eventlog.eventlog.events import JSON

MAX_LEVELS: Final = 64
"""Values nested deeper are stored, but not indexed."""

MAX_CHARACTERS: Final = 256
"""The index holds the digest of a longer path or value; a search compares digests."""


class Leaf(NamedTuple):
    """A leaf: its path and its value, as a row has them."""

    path: str
    value: str


class TooDeepError(ValueError):
    """A value is nested too deeply for the index."""


def leaves(metadata: Mapping[str, JSON]) -> Iterator[Leaf]:
    """Return the leaves, except those that are nested too deeply."""
    for keys, value in _leaves(metadata, ()):
        with suppress(TooDeepError):
            yield _leaf(keys, value)


def leaves_to_match(metadata: Mapping[str, JSON]) -> list[Leaf]:
    """Return the leaves to search for. Raises TooDeepError for a value nested too deeply."""
    return [_leaf(keys, value) for keys, value in _leaves(metadata, ())]


def _leaves(
    metadata: Mapping[str, JSON], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], JSON]]:
    """Walk down the objects, as deep as the index goes."""
    for key, value in metadata.items():
        keys = (*above, key)
        if isinstance(value, dict) and value and len(keys) < MAX_LEVELS:
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _plain(value: JSON, levels: int) -> JSON:
    """Normalise a value so that equal values are written equally: 2 for 2.0, keys in order."""
    if levels == 0:
        raise TooDeepError
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(each, levels - 1) for each in value]
    if isinstance(value, dict):
        return {key: _plain(value[key], levels - 1) for key in sorted(value)}
    return value


def _leaf(keys: tuple[str, ...], value: JSON) -> Leaf:
    return Leaf(_kept(list(keys)), _kept(_plain(value, MAX_LEVELS + 1 - len(keys))))


def _kept(value: JSON) -> str:
    text = json.dumps(value, separators=(",", ":"))
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
