"""The cipher of a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from agents_eventlog.eventlog.cipher import shredding

if TYPE_CHECKING:
    from agents_eventlog.eventlog.cipher.cipher import Cipher
    from agents_eventlog.eventlog.storage.transaction import Transaction


def cipher_of(tx: Transaction) -> Cipher | None:
    """
    Return the cipher of the transaction's log; None if it was opened without keys, or is not sealed.

    It has forgotten keys that were destroyed before the transaction first asked for it.
    """
    cipher = cast("Cipher | None", tx.cipher)
    if cipher is not None and not tx.is_refreshed:
        if cipher.refresh():
            cipher.shredded = shredding.recorded(tx)
        tx.is_refreshed = True
    return cipher
