"""
Shredding: keys of a sealed log are destroyed for good, so that no copy of the log can be read with them.

The log and its keys are two databases. In the transaction that erases, the log notes which keys are to be
destroyed; then they are, and the note is deleted. After a crash in between, the next opening with keys or
the next erasure destroys them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from agents_eventlog.eventlog.cipher.keys import Key, Keys, Shredding
from agents_eventlog.eventlog.properties import (
    get_property,
    properties_after,
    rename_property,
    set_property,
)

if TYPE_CHECKING:
    from agents_eventlog.eventlog.cipher.cipher import Cipher
    from agents_eventlog.eventlog.storage.engine import Store
    from agents_eventlog.eventlog.storage.transaction import Transaction

DUE: Final = "shred_due:"
"""With the position of an erasure, the property that names the keys which it has yet to destroy."""

DONE: Final = "shred_done:"
"""The name of that property once they are destroyed."""

RECORDED: Final = "shredded:"
"""With the id of a destroyed key whose contents the log still has, the property that says who and why."""

PAGE_KEYS: Final = 1_000
"""How many keys are destroyed in one transaction."""


class CheckedSessions(set[str]):
    """The sessions whose remembered key still seals, as long as no other connection writes."""


def note_due(tx: Transaction, session_id: str, position: int, key_ids: Iterable[str]) -> None:
    """Note in a session's erasing transaction which keys are to be destroyed after it."""
    tx.cache[CheckedSessions].discard(session_id)
    set_property(tx, f"{DUE}{position}", ",".join(key_ids))


def record(tx: Transaction, key_id: str, said: Shredding) -> None:
    """Record that a key is destroyed, though its contents stay in the log."""
    set_property(tx, f"{RECORDED}{key_id}", msgspec.json.encode(said).decode())


def is_recorded(tx: Transaction, key_id: bytes) -> bool:
    """Whether the log records that a key is destroyed, as of this transaction."""
    return get_property(tx, f"{RECORDED}{key_id.hex()}") is not None


def recorded(tx: Transaction) -> dict[bytes, Shredding]:
    """Return what the log records of destroyed keys whose contents it still has."""
    return {
        bytes.fromhex(key_id): msgspec.json.decode(said, type=Shredding)
        for key_id, said in properties_after(tx, RECORDED).items()
    }


def due(tx: Transaction) -> dict[str, list[bytes]]:
    """Return the keys that are to be destroyed, by the property that says so."""
    return {
        f"{DUE}{position}": _parsed(key_ids)
        for position, key_ids in properties_after(tx, DUE).items()
    }


def revived(tx: Transaction, keys: Keys) -> list[bytes]:
    """Return the keys that were destroyed, and are there again: their store was replaced by a copy."""
    noted = properties_after(tx, DONE).values()
    found = keys.find([key_id for key_ids in noted for key_id in _parsed(key_ids)])
    return [key_id for key_id, key in found.items() if isinstance(key, Key)]


def finish(store: Store, *, again: bool = False) -> int:
    """
    Destroy the keys that are due. Blocks.

    again: also those that were destroyed and are there again.

    Returns how many are left, because the log was opened without keys.
    """
    noted = store.read_sync(due)
    key_ids = [key_id for some in noted.values() for key_id in some]
    cipher: Cipher | None = store.cipher  # type: ignore[assignment]
    if cipher is None:
        return len(set(key_ids))
    if again:
        key_ids += store.read_sync(partial(revived, keys=cipher.keys))
    for start in range(0, len(key_ids), PAGE_KEYS):
        cipher.keys.destroy(key_ids[start : start + PAGE_KEYS])
    cipher.forget()
    if noted:
        store.write_sync(lambda tx: _note_done(tx, noted))
    return 0


def _note_done(tx: Transaction, names: Iterable[str]) -> None:
    for name in names:
        rename_property(tx, name, DONE + name.removeprefix(DUE))


def _parsed(key_ids: str) -> list[bytes]:
    return [bytes.fromhex(key_id) for key_id in key_ids.split(",")]
