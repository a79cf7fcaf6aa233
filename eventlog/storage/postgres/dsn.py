"""The name of a log on PostgreSQL: the URL of its database, and in it the schema."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from agents_eventlog.eventlog.errors import OpenError

DEFAULT_SCHEMA: Final = "eventlog"
TRANSACTION: Final = "transaction"
"""The parameter ``pooling`` for a pooler in transaction mode."""
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_passwords: dict[str, str] = {}
"""The passwords of the URLs that were given, by the name of the log, which errors show."""


class Target(NamedTuple):
    """What to connect to, and the schema that holds the log."""

    conninfo: str
    schema: str
    is_pooled: bool = False
    """Whether a pooler gives each transaction a connection that others had before."""


def resolve(url: str) -> str:
    """Return the one name of a log, without the password of its URL."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema):
        raise OpenError(
            f"invalid schema: expected lower-case letters, digits and '_', got {schema!r}", path=url
        )
    if query.get("pooling", TRANSACTION) != TRANSACTION:
        raise OpenError(
            f"invalid pooling: expected {TRANSACTION!r} or none, got {query['pooling']!r}", path=url
        )
    password = query.pop("password", None)
    user, at, host = parts.netloc.rpartition("@")
    user, colon, in_user = user.partition(":")
    if colon:
        password = in_user
    rest = urlencode({**dict(sorted(query.items())), "schema": schema}, quote_via=quote)
    name = _url(f"{user}{at}{host}", parts.path, rest)
    if password is not None:
        _passwords[name] = password if colon else quote(password, safe="")
    return name


def target(name: str) -> Target:
    """Return the database and the schema of a resolved name."""
    parts = urlsplit(name)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema")
    is_pooled = "pooling" in query
    query.pop("pooling", None)
    netloc = parts.netloc
    if name in _passwords:
        user, at, host = netloc.rpartition("@")
        netloc = f"{user}:{_passwords[name]}{at}{host}"
    rest = urlencode(query, quote_via=quote)
    return Target(_url(netloc, parts.path, rest), schema, is_pooled)


def _url(netloc: str, path: str, query: str) -> str:
    return f"postgresql://{netloc}{path}" + (f"?{query}" if query else "")
