"""Opening a file: recognise a log, or create one."""

from __future__ import annotations

from collections.abc import Callable

from agents_eventlog.eventlog import sealing
from agents_eventlog.eventlog.appender import Appender
from agents_eventlog.eventlog.cipher.keys import Keys
from agents_eventlog.eventlog.errors import ForeignFileError, NoLogError, ReadOnlyFileError
from agents_eventlog.eventlog.storage.engine import Engine, Store
from agents_eventlog.eventlog.storage.transaction import Transaction


def open_read_only(engine: Engine, path: str, keys: Keys | None = None) -> Store:
    """Return a store that reads a log and cannot write. Raises an OpenError, or a KeysError."""

    def require_log(tx: Transaction) -> None:
        if not engine.identify(tx, path):
            raise NoLogError(f"{path} contains no event log", path=path)

    def prepare(store: Store) -> None:
        store.read_sync(require_log)
        if keys is not None:
            sealing.attach(store, keys, seal=False)

    return engine.open_read_only(path, prepare)


def claim(
    store: Store,
    *,
    create: bool,
    accept: Callable[[Transaction], bool] | None,
    on_create: Callable[[Transaction], None] | None,
    keys: Keys | None = None,
) -> None:
    """
    Create a log in the file unless it has one. Reads first, so that an existing log is not written.

    keys: seal a log that is created.
    """
    if not store.is_memory:
        store.engine.check_path(store.path, create=create)

    def look(tx: Transaction) -> bool:
        if store.engine.identify(tx, store.path):
            return True
        _is_shared(tx, store.path, accept)
        return False

    def make(tx: Transaction) -> None:
        if not store.engine.identify(tx, store.path):  # another process may have been first
            is_shared = _is_shared(tx, store.path, accept)
            store.engine.create_log(tx, shared_path=store.path if is_shared else None)
            tx.participant, tx.lane = Appender(), store.engine.claim_lane(tx)
            if keys is not None:
                sealing.begin(tx, store, keys)
            if on_create is not None:
                on_create(tx)

    if store.engine.exists(store.path) and _answer(store, look):
        store.participant = Appender()
        store.write_sync(lambda _: None)  # can it be written at all?
        return
    if not create:
        raise NoLogError(f"{store.path} contains no event log", path=store.path)
    store.prepare_storage()
    store.write_sync(make)
    store.participant = Appender()


def is_copied(store: Store, template: object) -> bool:
    """Whether a new log in memory could be copied from one with the same tables."""
    if not store.copy_template(template):
        return False
    store.participant = Appender()
    return True


def _answer(store: Store, look: Callable[[Transaction], bool]) -> bool:
    try:
        return store.read_sync(look)
    except ReadOnlyFileError:  # a killed writer left a journal, which only a writer can roll back
        return store.write_sync(look)


def _is_shared(tx: Transaction, path: str, accept: Callable[[Transaction], bool] | None) -> bool:
    """
    Return whether a new log shares the file with other tables.

    Raises ForeignFileError for a file with other tables, unless ``accept`` accepts them.
    """
    names = tx.engine.table_names(tx)
    if names and accept is None:
        raise ForeignFileError(f"{path} holds tables of another program", path=path)
    return accept is not None and accept(tx)
