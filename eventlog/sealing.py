"""
Sealing: how content enters the table of a sealed log, and how a log becomes one.

A log is sealed from the moment at which it is first opened with keys. From then on, contents are stored as
envelopes, and user ids, metadata and idempotency keys as tokens. A process without keys reads what is not
content, and refuses to append content.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agents_eventlog.eventlog import item_kind, payloads
from agents_eventlog.eventlog.cipher import envelope, identity, shredding
from agents_eventlog.eventlog.cipher.access import cipher_of
from agents_eventlog.eventlog.cipher.envelope import (
    ITEMS_ADDED,
    SEALED_TYPES,
    Envelope,
    Place,
    PositionOf,
    VersionOf,
)
from agents_eventlog.eventlog.cipher.keys import Keys, UsedKey, where
from agents_eventlog.eventlog.cipher.shredding import CheckedSessions
from agents_eventlog.eventlog.errors import (
    KeyNotFoundError,
    KeysError,
    OpenError,
    ShreddedError,
    StoreError,
)
from agents_eventlog.eventlog.metadata_leaves import Leaf
from agents_eventlog.eventlog.properties import get_property, set_property
from agents_eventlog.eventlog.storage.engine import Store
from agents_eventlog.eventlog.storage.transaction import Transaction

if TYPE_CHECKING:
    from agents_eventlog.eventlog.cipher.cipher import Cipher, OpenKey

LOG_ID: Final = "log_id"
"""The property that names a sealed log, in hex, where it keeps keys."""

KEY_BATCH: Final = "key_batch"
"""The property that holds the number of the last batch of keys that the log uses."""

LOG_ID_BYTES: Final = 16
IDEMPOTENCY_KEY: Final = "idempotency"
LAST_POSITIONS: Final = "SELECT (SELECT MAX(position) FROM events), {assigned}"
NOTE_BATCH: Final = """
    INSERT INTO log_properties (name, value) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
        WHERE CAST(log_properties.value AS INTEGER) < CAST(excluded.value AS INTEGER)
"""


# -- content ----------------------------------------------------------------------------------


def seal(
    tx: Transaction,
    session_id: str,
    version: int,
    position: int,
    kind: str,
    schema_version: int,
    branch_id: str | None,
    data: bytes,
    version_of: VersionOf,
) -> bytes:
    """
    Return an event's data as the table of a sealed log holds it: sealed, if it is content.

    version_of: returns the version of the event at a position.

    Raises KeysMissingError for content, if the log was opened without keys.
    """
    if kind not in SEALED_TYPES or envelope.is_sealed(data):
        return data
    cipher = cipher_of(tx)
    if cipher is None:
        raise envelope.missing_keys()
    key = _key(tx, cipher, session_id)
    context = identity.context(session_id, kind, schema_version, branch_id)
    if kind == ITEMS_ADDED:
        outline = placed = item_kind.outline_json(0, kind, schema_version, data)
    else:
        made = partial(envelope.outline, kind, schema_version, data, token=cipher.token)
        outline, placed = made(version_of=version_of), made(version_of=lambda position: position)
        data = envelope.content(kind, data)
    sealed = cipher.seal(key, version, context, data, outline)
    return Envelope(sealed, Place(session_id, version, kind, position, context), placed, cipher)


def _key(tx: Transaction, cipher: Cipher, session_id: str) -> OpenKey:
    """Return the key that seals a session's contents; a session without any gets a new one."""
    checked = tx.cache[CheckedSessions]
    current = cipher.current(session_id)
    if current is not None and session_id in checked:
        return current
    newest = payloads.newest_key(tx, session_id)
    if newest is None or shredding.is_recorded(tx, newest.key_id):
        key = _new_key(tx, cipher, session_id)
    else:
        key = cipher.key(newest.key_id, session_id, newest.position)
        cipher.remember_current(session_id, key)
    checked.add(session_id)
    return key


def forget_key(tx: Transaction, session_id: str) -> None:
    """Look up again, in a unit of work, which key seals a session's contents."""
    tx.cache[CheckedSessions].discard(session_id)


def _new_key(tx: Transaction, cipher: Cipher, session_id: str) -> OpenKey:
    if cipher.is_pool_empty():
        cipher.fill_pool(int(get_property(tx, KEY_BATCH) or 0))
    key = cipher.new_key(session_id)
    tx.on_rollback(partial(cipher.forget_current, session_id))
    if cipher.noted_batch != cipher.batch:
        tx.on_rollback(partial(setattr, cipher, "noted_batch", cipher.noted_batch))
        cipher.noted_batch = cipher.batch
        tx.execute(NOTE_BATCH, (KEY_BATCH, str(cipher.batch)))
    return key


# -- tokens -----------------------------------------------------------------------------------


def user_names(tx: Transaction, user_id: str) -> tuple[str, ...]:
    """Return what the tables may hold for a user id: in a sealed log, its token; also the id itself."""
    cipher = cipher_of(tx)
    if cipher is None:
        return (user_id,)
    token = cipher.token(envelope.USER, user_id)
    return (token,) if user_id.startswith(identity.TOKEN) else (token, user_id)


def leaf_names(tx: Transaction, leaf: Leaf) -> tuple[Leaf, ...]:
    """Return what the index of metadata may hold for a leaf: in a sealed log, its token; also itself."""
    cipher = cipher_of(tx)
    return (leaf,) if cipher is None else (Leaf(cipher.token(envelope.LABEL, *leaf), ""), leaf)


def idempotency_key(tx: Transaction, session_id: str, key: str) -> str:
    """
    Return an idempotency key as the table holds it: in a sealed log, its token.

    Raises KeysMissingError for a sealed log that was opened without keys.
    """
    cipher = cipher_of(tx)
    if cipher is not None:
        return cipher.token(IDEMPOTENCY_KEY, session_id, key)
    if tx.engine.is_sealed(tx):
        raise envelope.missing_keys()
    return key


def imported_key(tx: Transaction, session_id: str, key: str | None) -> str | None:
    """Return the idempotency key of an imported event as the table holds it; a token is left unchanged."""
    if key is None or key.startswith(identity.TOKEN):
        return key
    return idempotency_key(tx, session_id, key)


# -- logs -------------------------------------------------------------------------------------


def attach(store: Store, keys: Keys, *, seal: bool) -> None:
    """
    Open a sealed log with its keys; seal one that is not, from now on. Blocks.

    seal: whether to seal one that is not sealed; False leaves it so.

    Raises KeyNotFoundError for the keys of another log or an older copy of them, WrongKeyError, and
    KeysError if this process has opened the log with other keys.
    """
    present: Any = store.cipher
    if present is not None:
        if present.keys != keys:
            raise KeysError(
                f"{store.path} is open in this process with other keys: {present.where}"
            )
        return
    cipher = store.read_sync(partial(_cipher, keys=keys))
    if cipher is not None:
        store.cipher = cipher
        if not store.read_only:
            with suppress(OpenError, StoreError):  # doctor and the next erasure say why
                shredding.finish(store)
    elif seal and not store.read_only:
        store.write_sync(partial(begin, store=store, keys=keys))


def begin(tx: Transaction, store: Store, keys: Keys, *, index_key: bytes | None = None) -> None:
    """
    Seal a log from now on, in a unit of work, unless another process was first.

    index_key: the key of its tokens, if it shares them with another log.
    """
    from agents_eventlog.eventlog.cipher.cipher import Cipher

    cipher = _cipher(tx, keys)
    if cipher is None:
        tx.engine.begin_sealing(tx)
        log_id = secrets.token_bytes(LOG_ID_BYTES)
        last, assigned = tx.one(LAST_POSITIONS.format(assigned=tx.engine.last_position)) or (0, 0)
        sealed_from = max(last or 0, assigned or 0) + 1
        kept = keys.register(log_id, sealed_from, index_key=index_key)
        cipher = Cipher(keys, log_id, kept)
        set_property(tx, LOG_ID, log_id.hex())
    tx.on_rollback(partial(setattr, store, "cipher", store.cipher))
    store.cipher = tx.cipher = cipher


def _cipher(tx: Transaction, keys: Keys) -> Cipher | None:
    """Return the cipher of a sealed log; None if it is not sealed."""
    from agents_eventlog.eventlog.cipher.cipher import Cipher

    log_id = get_property(tx, LOG_ID)
    if log_id is None:
        if tx.engine.is_sealed(tx):
            raise KeysError(f"the log is sealed, but its property {LOG_ID!r} is missing")
        return None
    kept = keys.log(bytes.fromhex(log_id))
    newest = payloads.newest_key(tx)
    if kept is None or (newest is not None and not keys.find([newest.key_id])):
        why = "they are of another log" if kept is None else "they are older than its last session"
        raise KeyNotFoundError(f"the keys in {where(keys)} do not open this log: {why}")
    return Cipher(keys, bytes.fromhex(log_id), kept, shredding.recorded(tx))


# -- copies -----------------------------------------------------------------------------------


class SealedAs(NamedTuple):
    """What a log is called where it keeps keys, and the last batch of keys that it uses: both as text."""

    log_id: str
    key_batch: str


def sealed_as(tx: Transaction) -> SealedAs | None:
    """Return what the log is called where it keeps keys, in a unit of work; None if it is not sealed."""
    log_id = get_property(tx, LOG_ID)
    return None if log_id is None else SealedAs(log_id, get_property(tx, KEY_BATCH) or "0")


def become(tx: Transaction, name: SealedAs) -> None:
    """Make a log a copy of a sealed one, in a unit of work: it belongs to the same keys. Needs no keys."""
    if get_property(tx, LOG_ID) is None:
        tx.engine.begin_sealing(tx)
        set_property(tx, LOG_ID, name.log_id)
    tx.execute(NOTE_BATCH, (KEY_BATCH, name.key_batch))


def seal_copy(store: Store, keys: Keys, *, like: Store) -> None:
    """
    Seal a log that is to have the events of another one, unless it is sealed already. Blocks.

    like: the other log. If a part of it is sealed, both have the same tokens.

    Raises KeysMissingError if a part of the other log is sealed and it was opened without keys, and
    KeysError if these keys are not its own.
    """
    cipher: Any = like.cipher
    if cipher is None and like.read_sync(sealed_as) is not None:
        raise envelope.missing_keys()
    if cipher is not None and cipher.keys != keys:
        raise KeysError(f"a part of {like.path} is sealed with other keys: {cipher.where}")
    index_key = None if cipher is None else cipher.index_key
    attach(store, keys, seal=False)
    if store.cipher is None:
        store.write_sync(partial(begin, store=store, keys=keys, index_key=index_key))


def is_alike(tx: Transaction, other: Store) -> bool:
    """Whether a log can hold the envelopes of another one: both are open, and have the same tokens."""
    ours: Any = cipher_of(tx)
    theirs: Any = other.cipher
    return None not in (ours, theirs) and ours.index_key == theirs.index_key


def use_keys(tx: Transaction, keys: Mapping[str, UsedKey]) -> None:
    """Seal the contents of these sessions with these keys from now on, unless they were destroyed."""
    cipher: Any = cipher_of(tx)
    for session_id, used in keys.items():
        try:
            key = cipher.key(used.key_id, session_id, used.position)
        except ShreddedError:
            continue
        cipher.remember_current(session_id, key)
        tx.cache[CheckedSessions].add(session_id)


def envelope_of(tx: Transaction, stored: bytes, place: Place, position_of: PositionOf) -> Envelope:
    """
    Return an envelope of another log in its place in this one, in a unit of work.

    position_of: returns the position of a version of the session.
    """
    outline = envelope.placed(envelope.raw_outline(stored), position_of)
    return Envelope(stored, place, outline, cipher_of(tx))
