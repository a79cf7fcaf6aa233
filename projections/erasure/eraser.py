"""
Erasure in bounded transactions, after which the file is rewritten.

A killed erasure keeps what it committed; erasing again finishes it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import codec, erasure, payloads
from agents_eventlog.eventlog.appender import PAGE_BYTES, PAGE_EVENTS, append
from agents_eventlog.eventlog.cipher import shredding
from agents_eventlog.eventlog.cipher.envelope import Envelope
from agents_eventlog.eventlog.codec import StoredPayload
from agents_eventlog.eventlog.erasure import Payload
from agents_eventlog.eventlog.errors import KeysError, KeysMissingError
from agents_eventlog.eventlog.events import (
    ITEM_EVENTS,
    JSON,
    ItemRedacted,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    TurnRedone,
)
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.redacted_items import REDACTING
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections import build
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import forks, redactions
from agents_eventlog.projections.conversations.builder import Conversations
from agents_eventlog.projections.conversations.placeholder import placeholder
from agents_eventlog.projections.erasure.scopes import (
    ErasurePlan,
    ExpiredSessions,
    Scope,
    added_at,
    key_of,
    replaced_by,
    stored_payloads,
    structure,
)
from agents_eventlog.projections.projector import Projections
from agents_eventlog.projections.search import index as search_index

WITH_ITEMS: Final = (ItemsAdded, ItemsReplaced, TurnRedone, ItemRedacted)
"""The events whose payload has items."""

PSEUDONYM: Final = re.compile("erased-[0-9a-f]{16}", re.ASCII)


class ErasureResult(NamedTuple):
    """
    What an erasure erased, or would erase in a dry run.

    sessions, events: the numbers of erased sessions and events. payload_bytes: their size.
    kept_items: the number of removed items that were not erased, because active items are in their events.
    forks: the sessions, forked from erased ones, in which placeholders take the place of erased items.
    keys: the number of keys that were destroyed with the contents that they sealed.
    keys_left: the number of keys that are still to be destroyed, because the log was opened without keys.
    is_complete: False if another process prevented rewriting the file, which may still contain copies, or
        if keys are left. Erase again to finish, with keys in a sealed log.
    """

    sessions: int = 0
    events: int = 0
    payload_bytes: int = 0
    kept_items: int = 0
    is_complete: bool = True
    forks: tuple[str, ...] = ()
    keys: int = 0
    keys_left: int = 0


OnProgress: TypeAlias = Callable[[ErasureResult], None]
Forget: TypeAlias = Callable[[Transaction, str, "Iterable[JSON] | None"], None]
"""
Removes, in the erasing transaction, copies of a session's items elsewhere in the file: these items, or all
for None.
"""


async def erase(
    log: EventLog,
    scope: Scope,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    shred_only: bool = False,
    on_progress: OnProgress | None = None,
    forget: Forget | None = None,
) -> ErasureResult:
    """
    Blank the payloads that a scope selects, in bounded transactions, then rewrite the file without them.

    dry_run: count what would be erased, and write nothing.
    shred_only: destroy the keys of whole sessions, and leave the file unchanged otherwise.
    forget: removes copies of the erased items elsewhere in the file.

    Other programs may write meanwhile; they wait while the file is rewritten. The metadata of the
    ``ContentErased`` events records the actor, as with any other event. Erasing again finds nothing to do,
    or finishes an interrupted erasure.

    In a sealed log, the keys are destroyed that seal nothing else. Raises KeysError if ``shred_only``
    finds contents that are not sealed, and KeysMissingError if it has no keys.
    """
    if shred_only and log.store.cipher is None:
        raise KeysMissingError(
            "destroying keys needs keys: open a sealed log with keys= or set EVENTLOG_KEYS"
        )
    needed = Projections(Conversations())
    await asyncio.to_thread(log.join, needed)
    look = partial(_look_through, needed, scope, shred_only=shred_only)
    act = partial(_shred if shred_only else _blank, scope, {}, reason, forget)
    total = _Total()
    after: str | None = None
    while page := await log.query(partial(scope.sessions, after=after)):
        after = page[-1]
        found = await log.query(partial(look, page))
        total.kept_items += sum(plan.kept_items for plan in found)
        if dry_run:
            total.add(found)
            continue
        while found := [plan for plan in found if not plan.is_nothing]:
            for batch in [found] if shred_only else _batches(found):
                total.add(await log.write(partial(act, batch)))
                if on_progress is not None:
                    on_progress(total.erased())
            # Until nothing is left: a session that was live may have grown before it was deleted.
            again = [plan.session_id for plan in found]
            found = await log.query(partial(look, again))
    if dry_run:
        return total.erased(is_complete=True)
    keys_left = await asyncio.to_thread(shredding.finish, log.store, again=True)
    is_rewritten = shred_only or await asyncio.to_thread(finish, log)
    return total.erased(is_complete=is_rewritten and not keys_left, keys_left=keys_left)


class _Total:
    """The sums of an erasure."""

    def __init__(self) -> None:
        self.kept_items = 0
        self._sessions: set[str] = set()
        self._forks: set[str] = set()
        self._key_ids: set[bytes] = set()
        self._events = 0
        self._payload_bytes = 0

    def add(self, found: Iterable[ErasurePlan]) -> None:
        """Count the payloads of these plans."""
        for plan in found:
            if not plan.is_nothing:
                self._sessions.add(plan.session_id)
                self._forks.update(plan.forks)
                self._key_ids.update(plan.key_ids)
                self._events += len(plan.payloads)
                self._payload_bytes += sum(size for _, size in plan.payloads)

    def erased(self, *, is_complete: bool = False, keys_left: int = 0) -> ErasureResult:
        """Return the sums so far."""
        sessions = len(self._sessions)
        return ErasureResult(
            sessions,
            self._events,
            self._payload_bytes,
            self.kept_items,
            is_complete,
            tuple(sorted(self._forks)),
            0 if keys_left else len(self._key_ids),
            keys_left,
        )


def _look_through(
    needed: Projections,
    scope: Scope,
    session_ids: Sequence[str],
    tx: Transaction,
    *,
    shred_only: bool,
) -> list[ErasurePlan]:
    needed.require_fresh(tx)
    plans = [scope.plan(tx, session_id) for session_id in session_ids]
    return [_to_shred(tx, plan) for plan in plans] if shred_only else plans


def _to_shred(tx: Transaction, plan: ErasurePlan) -> ErasurePlan:
    """Return a plan without the keys that are destroyed already. Raises KeysError for plaintext."""
    if plan.plain:
        raise KeysError(
            f"session {plan.session_id!r} has contents in plaintext, in {plan.plain} of its events, which "
            "destroying its key would leave readable: erase the session"
        )
    key_ids = {each for each in plan.key_ids if not shredding.is_recorded(tx, each)}
    return plan._replace(payloads=plan.payloads if key_ids else [], key_ids=frozenset(key_ids))


def _batches(found: Iterable[ErasurePlan]) -> Iterator[list[ErasurePlan]]:
    """Split plans into parts that fit one transaction."""
    batch: list[ErasurePlan] = []
    events = size = 0
    for plan in found:
        part = plan._replace(payloads=[])
        batch.append(part)
        for position, length in plan.payloads:
            if events >= PAGE_EVENTS or size >= PAGE_BYTES:
                yield batch
                part = plan._replace(payloads=[], is_marked=True)
                batch = [part]
                events = size = 0
            part.payloads.append((position, length))
            events, size = events + 1, size + length
        events += 1  # the ``ContentErased`` event
    yield batch


def _blank(
    scope: Scope,
    names: dict[str, str],
    reason: str | None,
    forget: Forget | None,
    batch: Sequence[ErasurePlan],
    tx: Transaction,
) -> list[ErasurePlan]:
    """
    Blank a batch in a unit of work; return what was blanked.

    names: the pseudonym of each user of this erasure.
    """
    blanked = []
    # Tables of other versions could keep what is erased; programs that use them build them again.
    build.drop_other_versions(tx)
    has_index = search_index.is_there(tx)
    for plan in batch:
        if not scope.may_erase(tx, plan.session_id, reason):
            continue
        positions = {position for position, _ in plan.payloads}
        expired_version = None
        if isinstance(scope, ExpiredSessions):
            left = scope.left(tx, plan.session_id)  # the session may have been used meanwhile
            positions &= left
            expired_version = scope.version(tx, plan.session_id) if left == positions else None
        rows = [payloads.at(tx, position, is_opened=False) for position in sorted(positions)]
        stored: list[Any] = [row for row in rows if row is not None and row[-1] is not None]
        if scope.is_whole:
            _withhold(tx, plan.session_id, stored, reason)
        going = [
            Payload(row[0], structure(row, replaced_by(tx, row)), len(row[3])) for row in stored
        ]
        if forget is not None:
            forget(tx, plan.session_id, None if scope.is_whole else _items(tx, stored))
        if going or not plan.is_marked:
            is_whole = scope.is_whole
            key_ids = _spent_keys(tx, plan.session_id, stored, is_whole=is_whole)
            erasure.blank(
                tx,
                plan.session_id,
                going,
                reason=reason,
                is_whole=is_whole,
                pseudonym=_pseudonym(tx, plan.session_id, names) if is_whole else None,
                key_ids=[each.hex() for each in key_ids],
                expired_version=expired_version,
            )
            if has_index:  # this process may not keep it up to date
                _update_index(tx, stored)
            sizes = [(each.position, each.bytes) for each in going]
            blanked.append(plan._replace(payloads=sizes, key_ids=frozenset(key_ids)))
    return blanked


def _spent_keys(
    tx: Transaction, session_id: str, going: Sequence[StoredPayload], *, is_whole: bool
) -> list[bytes]:
    """Return the keys of payloads that seal nothing which stays."""
    positions = {row[0] for row in going}
    used = {key_id for row in going if (key_id := key_of(row)) is not None}
    if used and not is_whole:
        staying = (row for row in stored_payloads(tx, session_id) if row[0] not in positions)
        used.difference_update(key_of(row) or b"" for row in staying)
    return sorted(used)


def _shred(
    scope: Scope,
    names: dict[str, str],
    reason: str | None,
    forget: Forget | None,
    batch: Sequence[ErasurePlan],
    tx: Transaction,
) -> list[ErasurePlan]:
    """Record in a unit of work that the keys of a batch are destroyed; return what they sealed."""
    shredded = []
    for plan in batch:
        if not scope.may_erase(tx, plan.session_id, reason):
            continue
        _withhold(tx, plan.session_id, stored_payloads(tx, plan.session_id), reason)
        if forget is not None:
            forget(tx, plan.session_id, None)
        key_ids = sorted(each.hex() for each in plan.key_ids)
        erasure.blank(
            tx,
            plan.session_id,
            (),
            reason=reason,
            is_whole=True,
            pseudonym=_pseudonym(tx, plan.session_id, names),
            key_ids=key_ids,
        )
        shredded.append(plan)
    return shredded


def _withhold(
    tx: Transaction, session_id: str, going: Iterable[StoredPayload], reason: str | None
) -> None:
    """Leave placeholders for the forks of a session that is erased as a whole."""
    held = forks.held(tx, session_id)
    if not held:
        return
    adding = dict.fromkeys(position for position in map(added_at, going) if position in held)
    for position in adding:
        row = redactions.at(tx, position)
        if row is not None and row[-1] is not None and row[1] != ItemsWithheld.type_name():
            items = [placeholder(item) for item in codec.decode_items([row])[0]]
            withheld = ItemsWithheld(position=position, items=items, reason=reason)
            append(tx, session_id, withheld)


def _update_index(tx: Transaction, blanked: Sequence[StoredPayload]) -> None:
    """Remove the texts of blanked payloads from the index; those that a redaction keeps go in again."""
    events = dict.fromkeys(map(added_at, blanked))
    search_index.take_out(tx, events)
    if tx.engine.is_sealed(tx):
        return  # what is sealed is in no index
    rows = {position: redactions.at(tx, position) for position in events}
    present = {at: row for at, row in rows.items() if row is not None and row[-1] is not None}
    kept = {at: row for at, row in present.items() if row[1] in REDACTING}
    search_index.put(tx, dict(zip(kept, codec.decode_items([*kept.values()]), strict=True)))


def _pseudonym(tx: Transaction, session_id: str, names: dict[str, str]) -> str | None:
    """
    Return a name for the user of a session, under which its usage stays counted.

    It is random, and the log does not keep whose it was. The next erasure chooses another one.
    """
    session = conversations.session(tx, session_id)
    user_id = None if session is None else session.user_id
    if user_id is None or PSEUDONYM.fullmatch(user_id):
        return user_id
    return names.setdefault(user_id, f"erased-{secrets.token_hex(8)}")


def _items(tx: Transaction, stored: Iterable[StoredPayload]) -> Iterator[JSON]:
    """Return the items in payloads, without those that a redaction keeps."""
    for row in stored:
        position, type_name, schema_version, data = row
        if isinstance(data, Envelope):
            data = payloads.opened(tx, data)
        event = codec.decode(type_name, schema_version, data, position=position)
        is_replaced = replaced_by(tx, row) is not None
        if isinstance(event, ITEM_EVENTS) and is_replaced:
            redacted = redactions.of_event(tx, position)
            yield from (item for index, item in enumerate(event.items) if index in redacted)
        elif isinstance(event, WITH_ITEMS) and not is_replaced:
            yield from event.items


def finish(log: EventLog) -> bool:
    """Rewrite the file, and delete the files that killed replays left beside it. Blocks."""
    for left in log.store.engine.leftovers(log.store):
        left.unlink(missing_ok=True)
    return erasure.rewrite(log.store, before=_optimize)


def _optimize(tx: Transaction) -> None:
    if search_index.is_there(tx):
        search_index.optimize(tx)
