"""The tables of the SDK's ``SQLiteSession`` or ``AdvancedSQLiteSession`` in a file."""

from __future__ import annotations

import json
import re
import shlex
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.errors import UnserialisableError, WrongTablesError
from agents_eventlog.eventlog.properties import get_property

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

STRUCTURE = "message_structure"
USAGE = "turn_usage"
RESERVATIONS = "branch_reservations"
CLEARINGS = "session_clear_generations"
MIGRATED = "adopted_message_id"
"""The property that holds the id of the last migrated message of the SDK."""

MIGRATED_TO = "migrated_position"
"""The property that holds the position of the last event of the migration."""

SDK_TABLES = "sdk_tables"
"""The property that holds the pair of the SDK's tables that the file belongs to."""

_QUOTED = {'"': '"', "`": "`", "[": "]"}
_PLAIN = re.compile(r"[^\W\d][\w$]*")
_UPPER_TO_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

REFERRING = """
    SELECT p.name, m.name FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f
    JOIN sqlite_schema AS p ON p.name = f."table" COLLATE NOCASE AND p.type = 'table'
    WHERE m.type = 'table' AND f."from" = 'session_id' ORDER BY m.rowid
"""
"""Each pair of a table with a foreign key for session ids, and the table that the key references."""

MIGRATED_ITEMS = """
    events AS e WHERE e.type = 'items_added' AND e.position <= ? ORDER BY e.session_id, e.version
"""

_SESSION_COLUMNS = {"session_id", "created_at"}
_MESSAGE_COLUMNS = {"id", "session_id", "message_data", "created_at"}


class TablePair(NamedTuple):
    """The names of the SDK's sessions table and messages table, as SQL identifiers."""

    sessions: str
    messages: str

    def resolved(self) -> TablePair:
        """Return the names with SQL quotes removed. Raises WrongTablesError for an invalid identifier."""
        return TablePair(_unquoted(self.sessions), _unquoted(self.messages))

    def options(self) -> str:
        """Return the resolved names as options of ``eventlog import``, quoted for a shell."""
        sessions, messages = (shlex.quote(_as_identifier(name)) for name in self)
        return f"--sessions-table {sessions} --messages-table {messages}"

    def __str__(self) -> str:
        return f"{self.sessions}/{self.messages}"


class Refusal(NamedTuple):
    """Why the file's tables cannot be read under the given names."""

    reason: str
    owner: TablePair | None = None
    """The pair of tables that the SDK's structure in the file references instead."""


def find(tx: Transaction, pair: TablePair) -> TablePair | Refusal | None:
    """Return the SDK's tables with these names, as spelled in the file; None if they are missing."""
    owner = _structure_owner(tx)
    if owner is not None and not same(owner, pair):
        return Refusal(
            f"has the SDK's sessions in other tables: expected {pair}, got {owner}", owner
        )
    return _called(tx, pair)


def _called(tx: Transaction, pair: TablePair) -> TablePair | Refusal | None:
    names = {folded(name): name for name in tx.engine.table_names(tx)}
    if not {folded(name) for name in pair} <= names.keys():
        return None
    found = TablePair(*(names[folded(name)] for name in pair))
    if not _are_of_the_sdk(tx, found):
        return Refusal(f"has tables named {found} that belong to another program")
    return found


def _structure_owner(tx: Transaction) -> TablePair | None:
    """Return the pair of tables that the SDK's structure in this file references; None without one."""
    owners = {
        column: table
        for table, column in tx.execute(
            'SELECT "table", "from" FROM pragma_foreign_key_list(?)', (STRUCTURE,)
        )
    }
    if not {"session_id", "message_id"} <= owners.keys():
        return None
    return TablePair(owners["session_id"], owners["message_id"])


def _are_of_the_sdk(tx: Transaction, pair: TablePair) -> bool:
    """Whether two tables have the columns of the SDK's tables."""
    needed = ((pair.sessions, _SESSION_COLUMNS), (pair.messages, _MESSAGE_COLUMNS))
    return all(
        columns
        <= {name for (name,) in tx.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        for table, columns in needed
    )


def find_any(tx: Transaction) -> TablePair | None:
    """Return the SDK's sessions table and messages table, under any names; None without them."""
    for pair in map(TablePair._make, tx.all(REFERRING)):
        if _are_of_the_sdk(tx, pair):
            return pair
    return None


def all_of(pair: TablePair) -> set[str]:
    """Return the names of all tables that the SDK's classes make."""
    return {STRUCTURE, USAGE, RESERVATIONS, CLEARINGS, *pair}


def messages(tx: Transaction) -> int:
    """Return the number of messages that the SDK's tables of a migrated file hold."""
    text = get_property(tx, SDK_TABLES)
    table = None if text is None else TablePair(*json.loads(text)).messages
    if table is None or table not in tx.engine.table_names(tx):
        return 0
    row = tx.one(f"SELECT COUNT(*) FROM {quoted(table)}")
    return 0 if row is None else int(row[0])


def not_migrated(tx: Transaction, messages_table: str) -> int:
    """Return the number of messages that were added to the SDK's table after the migration."""
    if not tx.one("SELECT 1 FROM pragma_table_info(?) WHERE name = 'id'", (messages_table,)):
        return 0
    sql = f"SELECT COUNT(*) FROM {quoted(messages_table)} WHERE id > ?"
    row = tx.one(sql, (int(get_property(tx, MIGRATED) or 0),))
    return 0 if row is None else int(row[0])


def removed_by_others(tx: Transaction, messages_table: str) -> Iterator[tuple[str, int]]:
    """
    Yield the migrated sessions whose items the log has, but no longer the SDK's table; and their number.

    A message that was changed there counts, too. Yields nothing if the table was dropped.
    """
    last = get_property(tx, MIGRATED_TO)
    if last is None or messages_table not in tx.engine.table_names(tx):
        return
    messages = (
        f"SELECT CAST(message_data AS BLOB) FROM {quoted(messages_table)} WHERE session_id = ?"
    )
    events = payloads.stored(
        tx, MIGRATED_ITEMS, (int(last),), columns="e.session_id", is_opened=False
    )
    for session_id, some in groupby(events, key=itemgetter(0)):
        present = {
            found[1]
            for (data,) in tx.execute(messages, (session_id,))
            if (found := decoded_item(data)) is not None
        }
        missing = 0
        for _, *stored in some:
            if not isinstance(content := payloads.content(tx, stored[-1]), str):
                [items] = codec.decode_items([(*stored[:-1], content)])
                missing += sum(codec.encode_json(item) not in present for item in items)
        if missing:
            yield session_id, missing


def forget(tx: Transaction, session_id: str, items: Iterable[JSON] | None) -> None:
    """
    Delete a session, or some of its messages, from the SDK's tables of a migrated file.

    items: delete only migrated messages that equal one of these items; None deletes all of the session.
    """
    text = get_property(tx, SDK_TABLES)
    found = None if text is None else _called(tx, TablePair(*json.loads(text)))
    if not isinstance(found, TablePair):
        return
    if items is None:
        _forget_session(tx, found, session_id)
    else:
        _forget_items(tx, found.messages, session_id, items)


def _forget_session(tx: Transaction, pair: TablePair, session_id: str) -> None:
    """Delete a session's rows from those of the SDK's tables that exist."""
    there = tx.engine.table_names(tx)
    for name in (STRUCTURE, USAGE, RESERVATIONS, CLEARINGS, pair.messages, pair.sessions):
        if name in there:
            tx.execute(f"DELETE FROM {quoted(name)} WHERE session_id = ?", (session_id,))


def _forget_items(
    tx: Transaction, messages_table: str, session_id: str, items: Iterable[JSON]
) -> None:
    """Delete a session's migrated messages that equal one of these items."""
    gone = {codec.encode_json(item) for item in items}
    if not gone:
        return
    messages = quoted(messages_table)
    rows = tx.all(
        f"SELECT id, CAST(message_data AS BLOB) FROM {messages} WHERE session_id = ? AND id <= ?",
        (session_id, int(get_property(tx, MIGRATED) or 0)),
    )
    for message_id, data in rows:
        item = decoded_item(data)
        if item is not None and item[1] in gone:
            if STRUCTURE in tx.engine.table_names(tx):
                tx.execute(f"DELETE FROM {STRUCTURE} WHERE message_id = ?", (message_id,))
            tx.execute(f"DELETE FROM {messages} WHERE id = ?", (message_id,))


def quoted(name: str) -> str:
    """Quote a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def decoded_item(data: Any) -> tuple[JSON, bytes] | None:
    """Return a message's item and its encoding; None if the message cannot be decoded."""
    try:
        item = json.loads(data)
        return item, codec.encode_json(item)
    except (TypeError, ValueError, RecursionError, UnserialisableError):
        return None


def same(left: TablePair, right: TablePair) -> bool:
    """Whether two pairs of names mean the same tables in SQLite."""
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
    raise WrongTablesError(
        f"invalid table name: expected an SQL identifier, got {identifier!r}", path=""
    )
