"""
Leases: at most one holder of a session at a time, across processes.

A lease is a row, not an event: replay keeps it, and exports leave it out. It expires unless its holder
renews it, so a dead holder blocks others for a bounded time. Each lease of a session has a higher token
than the one before. A process that was stopped while its lease expired finds another one in the table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agents_eventlog.eventlog.storage.transaction import Transaction

TABLE: Final = "session_leases"
CREATE: Final = f"""
    CREATE TABLE {TABLE} (
        session_id TEXT    PRIMARY KEY,
        token      INTEGER NOT NULL,
        holder     TEXT    NOT NULL,
        since      INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    )
"""
TAKE: Final = f"""
    INSERT INTO {TABLE} (session_id, token, holder, since, expires_at) VALUES (?, 1, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE SET
        token = {TABLE}.token + 1, holder = excluded.holder,
        since = excluded.since, expires_at = excluded.expires_at
    RETURNING session_id, token, holder, since, expires_at
"""
CURRENT: Final = f"SELECT session_id, token, holder, since, expires_at FROM {TABLE}"
RENEW: Final = f"""
    UPDATE {TABLE} SET expires_at = ?
    WHERE session_id = ? AND token = ? AND expires_at > 0
"""
RELEASE: Final = f"UPDATE {TABLE} SET expires_at = 0 WHERE session_id = ? AND token = ?"
DELETE: Final = f"DELETE FROM {TABLE} WHERE session_id = ?"


class Lease(NamedTuple):
    """
    A lease of a session.

    token: grows with each lease of the session.
    holder: the process that holds it, in words.
    since, expires_at: microseconds since 1970 UTC, of the clock of the store that wrote them.
    """

    session_id: str
    token: int
    holder: str
    since: int
    expires_at: int


def current(tx: Transaction, session_id: str) -> Lease | None:
    """Return a session's last lease, expired or not; None if it never had one."""
    tx.lock_session(session_id)  # before the look: another server may be creating the table
    if TABLE not in tx.engine.table_names(tx):
        return None
    row = tx.one(f"{CURRENT} WHERE session_id = ?", (session_id,))
    return None if row is None else Lease(*row)


def held(tx: Transaction) -> list[Lease]:
    """Return all leases that have not expired, by session."""
    if TABLE not in tx.engine.table_names(tx):
        return []
    rows = tx.all(f"{CURRENT} WHERE expires_at > ? ORDER BY session_id", (tx.now,))
    return [Lease(*row) for row in rows]


def is_free(tx: Transaction, session_id: str, dead: Lease | None = None) -> bool:
    """
    Whether a session's lease can be taken: it has expired, or it is ``dead`` and was not renewed.

    A waiter that saw no renewal during a whole duration knows that the holder is dead, even if the clock
    was set back.
    """
    last = current(tx, session_id)
    return last is None or last.expires_at <= tx.now or last == dead


def prepare(tx: Transaction) -> None:
    """Create the table, if it does not exist."""
    if TABLE not in tx.engine.table_names(tx):
        tx.execute(tx.engine.create_statement(CREATE))


def take(tx: Transaction, session_id: str, holder: str, duration: int) -> Lease:
    """Take a session's free lease for a number of microseconds, and return it."""
    prepare(tx)
    rows = tx.all(TAKE, (session_id, holder, tx.now, tx.now + duration))
    return Lease(*rows[0])


def renew(tx: Transaction, lease: Lease, duration: int) -> bool:
    """Renew a lease; return False if it was released, or another holder has taken it over."""
    # A renewal that comes after the release, because its task was cancelled meanwhile, changes nothing.
    return tx.execute(RENEW, (tx.now + duration, lease.session_id, lease.token)).rowcount == 1


def release(tx: Transaction, lease: Lease) -> None:
    """Release a lease, unless another holder has taken it over."""
    tx.execute(RELEASE, (lease.session_id, lease.token))


def delete(tx: Transaction, session_id: str) -> None:
    """Delete what is stored of a session's leases, when the session is erased."""
    if TABLE in tx.engine.table_names(tx):
        tx.execute(DELETE, (session_id,))
