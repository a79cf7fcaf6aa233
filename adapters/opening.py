"""Opening a file as the SDK's class does: by path and table names, adopting what the SDK left there."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import projections
from adapters import importers
from adapters.importers import Brought
from adapters.log import ConversationLog
from eventlog import logs, schema, shared, sqlite
from eventlog.errors import ForeignFileError, NoLogError, WrongTablesError
from eventlog.store import MEMORY, Durability, Store
from eventlog.transaction import Transaction
from projections.projection import tables as tables_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventlog.events import JSON

SDK_TABLES = "sdk_tables"
"""The property that remembers which pair of the SDK's tables a file is claimed for."""

_QUOTED = {'"': '"', "`": "`", "[": "]"}
_PLAIN = re.compile(r"[^\W\d][\w$]*")
_UPPER_TO_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

_log = logs.get_logger("eventlog.importers")

_pairs: WeakKeyDictionary[Store, TablePair] = WeakKeyDictionary()


class TablePair(NamedTuple):
    """The names of the SDK's sessions table and messages table, as SQL identifiers."""

    sessions: str
    messages: str

    def resolved(self) -> TablePair:
        """Return the names without quotes. Raises WrongTablesError for what is no identifier."""
        return TablePair(_unquoted(self.sessions), _unquoted(self.messages))

    def options(self) -> str:
        """Return resolved names as ``eventlog import`` takes them, for a shell."""
        sessions, messages = (shlex.quote(_as_identifier(name)) for name in self)
        return f"--sessions-table {sessions} --messages-table {messages}"

    def __str__(self) -> str:
        return f"{self.sessions}/{self.messages}"


def open_log(
    path: str | os.PathLike[str],
    *,
    tables: TablePair,
    create: bool,
    durability: Durability,
    search: bool = False,
) -> ConversationLog:
    """
    Open the log of a file for sessions, claiming a new file for a pair of table names.

    search: keep a full-text index, too.

    Raises an OpenError; WrongTablesError (also a ValueError) for a file claimed for other names.
    """
    pair = tables.resolved()
    target = shared.resolve(path)
    if not create and (target == MEMORY or not _holds_history(target)):
        raise NoLogError(
            f"there is no event log in {path}; construct the session with create_tables=True "
            "to make one",
            path=str(path),
        )
    adopted: list[Brought] = []

    def claim(tx: Transaction) -> None:
        adopted[:] = _claim(tx, pair, target)

    log = ConversationLog.open_sync(
        path,
        durability=durability,
        accept=lambda tx: _to_adopt(tx, pair, target),
        on_create=claim,
    )
    try:
        for brought in adopted:
            brought.log()
        _check_pair(log, pair)
        log.join(projections.default(search=search))
    except BaseException:
        log.close()
        raise
    return log


def _claim(tx: Transaction, pair: TablePair, path: str) -> list[Brought]:
    """Take a file that nobody has claimed, and adopt the SDK's tables; return what was brought."""
    found = _to_adopt(tx, pair, path)
    schema.set_property(tx, SDK_TABLES, json.dumps(pair))
    return [] if found is None else importers.adopt(tx, found.sessions, found.messages)


def _to_adopt(tx: Transaction, pair: TablePair, path: str) -> TablePair | None:
    """Return the SDK's tables in a file that holds no log yet; refuse a file of anybody else's."""
    names = {folded(name): name for name in schema.table_names(tx.connection)}
    others = set(names) - set(schema.TABLES)
    owner = importers.structure_owner(tx)
    if owner is not None and _same(TablePair(*owner), pair) is False:
        raise _wrong_tables(path, TablePair(*owner), pair)
    has_tables = {folded(pair.sessions), folded(pair.messages)} <= set(names)
    if others and not has_tables:
        raise ForeignFileError(
            f"{path} holds tables of another program and none called {pair}", path=path
        )
    own = {
        table.name
        for projection in projections.default().named([])
        for table in tables_of(projection)
    }
    if clash := sorted(own & others):
        raise ForeignFileError(
            f"{path} has a table {clash[0]!r} already, a name that the log needs", path=path
        )
    if not has_tables:
        return None
    found = TablePair(names[folded(pair.sessions)], names[folded(pair.messages)])
    if not importers.are_of_the_sdk(tx, found.sessions, found.messages):
        raise ForeignFileError(
            f"{path} holds tables called {found} that are another program's", path=path
        )
    return found


def _check_pair(log: ConversationLog, pair: TablePair) -> None:
    claimed = _pairs.get(log.store)
    if claimed is None:
        claimed, late = log.store.write_sync(lambda tx: _claimed_pair(tx, pair))
        _pairs[log.store] = claimed
        if late:
            _log.warning("import.incomplete", path=log.path, messages_not_adopted=late)
    if not _same(claimed, pair):
        raise _wrong_tables(log.path, claimed, pair)


def _claimed_pair(tx: Transaction, pair: TablePair) -> tuple[TablePair, int]:
    """
    Return the pair that the log is claimed for; one made without a session is claimed now.

    With it, how many messages an old program has left in those tables since they were adopted.
    """
    text = schema.get_property(tx, SDK_TABLES)
    if text is None:
        schema.set_property(tx, SDK_TABLES, json.dumps(pair))
        return pair, 0
    claimed = TablePair(*json.loads(text))
    return claimed, importers.not_adopted(tx, claimed.messages)


def forget_adopted(tx: Transaction, session_id: str, items: Iterable[JSON] | None) -> None:
    """
    Delete, in a unit of work, what the SDK's tables of an adopted file hold of a session.

    items: only adopted messages that say the same as one of these; None for all there is.
    """
    text = schema.get_property(tx, SDK_TABLES)
    if text is None:
        return
    names = {folded(name): name for name in schema.table_names(tx.connection)}
    claimed = TablePair(*json.loads(text))
    found = [names.get(folded(name)) for name in claimed]
    if found[0] is None or found[1] is None:
        return
    if not importers.are_of_the_sdk(tx, found[0], found[1]):
        return
    if items is None:
        importers.forget(tx, found[0], found[1], session_id)
    else:
        importers.forget_items(tx, found[1], session_id, items)


def _holds_history(path: str) -> bool:
    """Whether a file holds a log, or the SDK's tables with structure."""
    sqlite.check_path(path, create=True)
    file = Path(path)
    if not file.exists() or file.stat().st_size == 0:
        return False
    try:
        with closing(sqlite.connect_for_reading(path)) as connection:
            names = schema.table_names(connection)
            return schema.identify(connection, path) or importers.STRUCTURE in names
    except sqlite3.Error as error:
        raise sqlite.translated(error, path) from error


def _wrong_tables(path: str, claimed: TablePair, asked: TablePair) -> WrongTablesError:
    return WrongTablesError(
        f"{path} already belongs to '{claimed}', not to '{asked}': "
        "give each pair of sessions_table and messages_table a file of its own",
        path=path,
        claimed=tuple(claimed),
        asked=tuple(asked),
    )


def _same(left: TablePair, right: TablePair) -> bool:
    return [folded(name) for name in left] == [folded(name) for name in right]


def folded(name: str) -> str:
    """Fold a name as SQLite compares identifiers: ASCII letters only."""
    return name.translate(_UPPER_TO_LOWER)


def _as_identifier(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _unquoted(identifier: str) -> str:
    end = _QUOTED.get(identifier[:1])
    if end is not None and len(identifier) > 2 and identifier.endswith(end):
        inner = identifier[1:-1].replace(end * 2, end)
        if end * 2 in identifier[1:-1] or end not in identifier[1:-1]:
            return inner
    elif _PLAIN.fullmatch(identifier):
        return identifier
    raise WrongTablesError(f"{identifier!r} is no name of a table", path="")
