"""One holder of a session at a time, across processes: a lease that a task renews."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Final

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog import leases
from agents_eventlog.eventlog.errors import ClosedError, StoreError
from agents_eventlog.eventlog.leases import Lease
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.storage.transaction import Transaction

RENEWALS: Final = 0.3
"""After which part of its duration a lease is renewed."""

FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 0.25

_log = logging.getLogger("eventlog.session")


@asynccontextmanager
async def exclusive(
    log: EventLog, context: SessionContext, *, wait_seconds: float, lease_seconds: float
) -> AsyncIterator[None]:
    """Hold a session's lease. Raises SessionBusyError if another holder keeps it for too long."""
    if not wait_seconds >= 0:
        raise ValueError(f"invalid wait_seconds: expected 0 or more, got {wait_seconds!r}")
    if not lease_seconds > 0:
        raise ValueError(f"invalid lease_seconds: expected more than 0, got {lease_seconds!r}")
    lease = await _acquire(log, context, wait_seconds, lease_seconds)
    context.lease = lease
    renewing = asyncio.create_task(_renew(log, lease, lease_seconds))
    try:
        yield
    finally:
        renewing.cancel()
        if context.lease is lease:
            context.lease = None
        try:
            await log.write(lambda tx: leases.release(tx, lease))
        except (StoreError, ClosedError) as error:
            _log.warning("The lease of a session was not released, and will expire: %s", error)


async def _acquire(
    log: EventLog, context: SessionContext, wait_seconds: float, lease_seconds: float
) -> Lease:
    def current(tx: Transaction) -> Lease | None:
        commands.check_owner(tx, context)
        return leases.current(tx, context.session_id)

    now = asyncio.get_running_loop().time
    started, pause = now(), FIRST_PAUSE_SECONDS
    seen: Lease | None = None
    seen_at = started
    while True:
        lease = await log.query(current)
        if lease != seen:
            seen, seen_at = lease, now()
        # The waiter's own clock counts, too: if the clock of the computer was set back, the lease of a
        # dead holder would not expire.
        dead = seen if now() - seen_at > lease_seconds else None
        if taken := await _take(log, context, lease_seconds, dead):
            return taken
        left = started + wait_seconds - now()
        if left <= 0:
            raise commands.busy(context.session_id, lease)
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def _take(
    log: EventLog, context: SessionContext, lease_seconds: float, dead: Lease | None
) -> Lease | None:
    """Take a lease that is free or dead; return None if it is neither."""
    session_id = context.session_id
    if not await log.query(lambda tx: leases.is_free(tx, session_id, dead)):
        return None  # found by reading: who waits does not keep writers off
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    taken: list[Lease] = []

    def unit(tx: Transaction) -> Lease | None:
        taken[:] = ()
        commands.check_owner(tx, context)
        if leases.is_free(tx, session_id, dead):
            taken.append(leases.take(tx, session_id, holder, _micros(lease_seconds)))
        return taken[0] if taken else None

    try:
        return await log.write(unit)
    except asyncio.CancelledError:  # raised after the commit
        if taken:
            log.store.submit_write(lambda tx: leases.release(tx, taken[0]), Future())
        raise


async def _renew(log: EventLog, lease: Lease, lease_seconds: float) -> None:
    """Renew a lease until another holder has it."""
    is_held = True
    while is_held:
        await asyncio.sleep(RENEWALS * lease_seconds)
        try:
            is_held = await log.write(lambda tx: leases.renew(tx, lease, _micros(lease_seconds)))
        except StoreError as error:  # the file is locked for long, for example
            _log.warning("The lease of a session was not renewed; trying again: %s", error)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
