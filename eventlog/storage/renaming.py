"""SQL with other names for some tables: statements are written with one name, the storage has another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache


@cache
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    words = "|".join(sorted(map(re.escape, names)))
    # What names something else comes first: tables of a scratch database, and texts. Only one text is a
    # table's name.
    return re.compile(
        rf"""scratch\."?\w+"?|'(?!events')(?:[^']|'')*'|(?<![\w$.])(?:main\.)?(["']?)\b({words})\b\1""",
        re.IGNORECASE,
    )


def substituted(sql: str, names: frozenset[str], other: Callable[[str], str]) -> str:
    """Return a statement with other names for some tables, views and indexes; the case is ignored."""

    def replaced(found: re.Match[str]) -> str:
        return found[0] if found[2] is None else f"{found[1]}{other(found[2])}{found[1]}"

    return _pattern(names).sub(replaced, sql)


@lru_cache(maxsize=1_024)
def with_suffixes(sql: str, suffixes: frozenset[tuple[str, str]]) -> str:
    """Return a statement with a suffix after each of these names."""
    by_name = dict(suffixes)
    return substituted(sql, frozenset(by_name), lambda name: name + by_name[name.lower()])


def suffix_of(name: str, suffixes: Iterable[tuple[str, str]]) -> str:
    """Return the suffix of a name; an empty one if it has none."""
    return dict(suffixes).get(name.lower(), "")
