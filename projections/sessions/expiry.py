"""
Expiry: a session that was not used for long is cleared, and continues empty.

Until its contents are erased, its row has the version of the clearing, so that a killed erasure is finished
by the next one.
"""

from __future__ import annotations

from agents_eventlog.eventlog import sealing
from agents_eventlog.eventlog.appender import append
from agents_eventlog.eventlog.events import MetadataSet, SessionCleared
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import labels


def expire(tx: Transaction, session_id: str) -> None:
    """
    Clear a session because it has expired, in a unit of work; its user id and metadata stay.

    What is added afterwards is sealed with a new key, and so are the user id and metadata, so that the old
    key can be destroyed. Raises KeysMissingError if that needs keys and the log was opened without.
    """
    session = conversations.session(tx, session_id)
    is_sealed = tx.engine.is_sealed(tx)
    kept = None
    if session is not None and is_sealed:
        kept = labels.require(tx, session_id, session.user_id, session.metadata)
    append(tx, session_id, SessionCleared(expired=True))
    if is_sealed:
        sealing.forget_key(tx, session_id)
    if kept is not None and (kept.user_id or kept.metadata):
        append(
            tx,
            session_id,
            MetadataSet(
                user_id=kept.user_id or "", metadata=kept.metadata or {}, salt=labels.new_salt()
            ),
        )
