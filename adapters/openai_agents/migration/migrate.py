"""Opening of files by path and table names, as in the SDK's class, with migration of the SDK's tables."""

from __future__ import annotations

import json
import os
from weakref import WeakKeyDictionary

from agents_eventlog import projections
from agents_eventlog.adapters.conversations import sdk_tables
from agents_eventlog.adapters.conversations.log import ConversationLog, check_search
from agents_eventlog.adapters.conversations.sdk_tables import (
    SDK_TABLES,
    Refusal,
    TablePair,
    folded,
    same,
)
from agents_eventlog.adapters.openai_agents.migration import importer
from agents_eventlog.adapters.openai_agents.migration.importer import MigratedSession
from agents_eventlog.eventlog import _logging, properties
from agents_eventlog.eventlog.cipher.key_store import KeysOption
from agents_eventlog.eventlog.errors import ForeignFileError, NoLogError, WrongTablesError
from agents_eventlog.eventlog.storage.engine import MEMORY, Durability, Store
from agents_eventlog.eventlog.storage.engines import engine_for
from agents_eventlog.eventlog.storage.sqlite import files
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.base import names as names_of

_log = _logging.get_logger("eventlog.importers")

_pairs: WeakKeyDictionary[Store, TablePair] = WeakKeyDictionary()


def open_log(
    path: str | os.PathLike[str],
    *,
    tables: TablePair,
    create: bool,
    durability: Durability,
    search: bool = False,
    keys: KeysOption = None,
) -> ConversationLog:
    """
    Open the log of a file for sessions; assign a new file to a pair of table names.

    search: also maintain a full-text index.
    keys: what seals the contents, as for ``EventLog.open``.

    Raises an OpenError; WrongTablesError (also a ValueError) if the file belongs to another pair.
    """
    check_search(keys, search=search)
    pair = tables.resolved()
    if path == MEMORY or engine_for(path) is not SQLITE:  # only files can hold the SDK's tables
        try:
            return ConversationLog.open_sync(
                path,
                projections=projections.default(search=search),
                create=create,
                durability=durability,
                keys=keys,
            )
        except NoLogError as error:
            raise _no_log(error.path) from None
    if not create and not _holds_history(SQLITE.resolve(path)):
        raise _no_log(str(path))
    migrated: list[MigratedSession] = []

    def claim(tx: Transaction) -> None:
        migrated[:] = _claim(tx, pair, SQLITE.resolve(path))

    log = ConversationLog.open_sync(
        path,
        durability=durability,
        keys=keys,
        accept=lambda tx: _shares_file(tx, pair, SQLITE.resolve(path)),
        on_create=claim,
    )
    try:
        for brought in migrated:
            brought.log()
        _check_pair(log, pair)
        log.join(projections.default(search=search))
    except BaseException:
        log.close()
        raise
    return log


def _no_log(path: str) -> NoLogError:
    return NoLogError(
        f"{path} contains no event log: construct the session with create_tables=True to create one",
        path=path,
    )


def _claim(tx: Transaction, pair: TablePair, path: str) -> list[MigratedSession]:
    """Assign a new file to a pair, and migrate the SDK's tables; return the import counts."""
    found = _to_migrate(tx, pair, path)
    properties.set_property(tx, SDK_TABLES, json.dumps(pair))
    return [] if found is None else importer.migrate(tx, found.sessions, found.messages)


def _to_migrate(tx: Transaction, pair: TablePair, path: str) -> TablePair | None:
    """Return the SDK's tables in a file without a log. Raises an OpenError for another program's file."""
    found = sdk_tables.find(tx, pair)
    if isinstance(found, Refusal):
        if found.owner is not None:
            raise _wrong_tables(path, found.owner, pair)
        raise ForeignFileError(f"{path} {found.reason}", path=path)
    if found is None:
        if other := sdk_tables.find_any(tx):
            raise ForeignFileError(
                f"{path} holds the SDK's sessions in other tables: expected {pair}, got {other}",
                path=path,
            )
        return None
    own = {
        *tx.engine.log_tables,
        *(
            name
            for projection in projections.default().named([])
            for name in names_of(tx.engine, projection)
        ),
    }
    if clash := sorted(own & {folded(name) for name in found}):
        raise ForeignFileError(
            f"{path} already has a table {clash[0]!r}, but the log needs this name", path=path
        )
    return found


def _shares_file(tx: Transaction, pair: TablePair, path: str) -> bool:
    """Return whether a file without a log has tables beside those of the SDK. Raises an OpenError."""
    found = _to_migrate(tx, pair, path)
    others = tx.engine.table_names(tx)
    return bool(others if found is None else others - sdk_tables.all_of(found))


def _check_pair(log: ConversationLog, pair: TablePair) -> None:
    claimed = _pairs.get(log.store)
    if claimed is None:
        claimed, late = log.store.write_sync(lambda tx: _claimed_pair(tx, pair))
        _pairs[log.store] = claimed
        if late:
            _log.warning("import.incomplete", path=log.path, messages_not_adopted=late)
    if not same(claimed, pair):
        raise _wrong_tables(log.path, claimed, pair)


def _claimed_pair(tx: Transaction, pair: TablePair) -> tuple[TablePair, int]:
    """
    Return the pair that the log belongs to, and the number of messages added to it since its migration.

    A log that was created without a session is assigned to ``pair``.
    """
    text = properties.get_property(tx, SDK_TABLES)
    if text is None:
        properties.set_property(tx, SDK_TABLES, json.dumps(pair))
        return pair, 0
    claimed = TablePair(*json.loads(text))
    return claimed, sdk_tables.not_migrated(tx, claimed.messages)


def _holds_history(path: str) -> bool:
    """Whether a file holds a log, or the SDK's tables with structure."""
    SQLITE.check_path(path, create=True)
    if not SQLITE.exists(path):
        return False
    with files.reading(path) as tx:
        names = tx.engine.table_names(tx)
        return tx.engine.identify(tx, path) or sdk_tables.STRUCTURE in names


def _wrong_tables(path: str, claimed: TablePair, asked: TablePair) -> WrongTablesError:
    return WrongTablesError(
        f"{path} already belongs to '{claimed}', not to '{asked}': "
        "give each pair of sessions_table and messages_table a file of its own",
        path=path,
        claimed=tuple(claimed),
        asked=tuple(asked),
    )
