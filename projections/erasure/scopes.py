"""
Erasure scopes: sessions, and their payloads that may be erased.

Only payloads with content are ever blanked: those of items, of user ids and of metadata. One may be erased
with its whole session, or when nothing of it is live: none of its items is on a branch, later metadata has
replaced it, or a redaction has replaced its items. Any other event that holds a live item stays whole; its
removed items are counted, not erased.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol, cast

from agents_eventlog.eventlog import codec, item_kind, payloads, sealing
from agents_eventlog.eventlog.appender import MOST_EVENTS, append, session_version
from agents_eventlog.eventlog.cipher import envelope
from agents_eventlog.eventlog.cipher.envelope import Envelope
from agents_eventlog.eventlog.codec import StoredPayload
from agents_eventlog.eventlog.cursor import check_progress
from agents_eventlog.eventlog.errors import SessionNotFoundError
from agents_eventlog.eventlog.events import (
    ITEM_EVENT_NAMES,
    JSON,
    Event,
    ItemRedacted,
    ItemsReplaced,
    MetadataSet,
    SessionDeleted,
    TurnRedone,
)
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import forks, labels, redactions
from agents_eventlog.projections.sessions import expiry

PAGE_SESSIONS: Final = 500
"""Maximum number of sessions that one unit of work reads."""

FIRST_SESSIONS: Final = "SELECT session_id FROM sessions ORDER BY session_id LIMIT ?"
NEXT_SESSIONS: Final = """
    SELECT session_id FROM sessions WHERE session_id > ? ORDER BY session_id LIMIT ?
"""
OF_USER: Final = """
    SELECT session_id FROM sessions
    WHERE (user_id = ? OR erased_at IS NOT NULL) AND session_id > ?
    ORDER BY session_id
    LIMIT ?
"""
"""A user's sessions, and erased ones: an interrupted erasure has removed their user ids."""
ERASABLE: Final = f"""
    events AS e
    WHERE e.session_id = ? AND e.type IN ({ITEM_EVENT_NAMES}, 'item_redacted', 'metadata_set')
    ORDER BY e.version DESC
"""
EXPIRED: Final = """
    SELECT session_id FROM (
        SELECT session_id FROM sessions
        WHERE expires_after IS NOT NULL AND is_filled = 1 AND deleted_at IS NULL
            AND updated_at + expires_after <= ?
        UNION
        SELECT session_id FROM sessions WHERE expired_version IS NOT NULL
    ) AS expired
    WHERE session_id > ?
    ORDER BY session_id
    LIMIT ?
"""
"""The sessions that expired by a time, and those that were cleared and not erased yet."""
OF_FORKS: Final = """
    SELECT i.position, i.index_in_event
    FROM forks AS f
    JOIN segments AS s ON s.session_id = f.session_id
    JOIN items AS i ON i.segment_id = s.segment_id AND i.position < s.segment_id
    WHERE f.origin_session_id = ?
"""
ITEMS_OF_FORKS: Final = f"""
    SELECT position, COUNT(*) FROM (SELECT DISTINCT * FROM ({OF_FORKS}) AS listed) AS live
    GROUP BY position
"""
"""How many items of each event are on a branch of a fork."""
LIVE_ITEMS: Final = f"""
    SELECT position, COUNT(*)
    FROM (
        SELECT i.position, i.index_in_event
        FROM segments AS s
        JOIN items AS i ON i.segment_id = s.segment_id
        WHERE s.session_id = ?
        UNION
        {OF_FORKS}
    ) AS live
    GROUP BY position
"""
"""How many items of each event are on a branch of its session, or of a fork."""
POSITION: Final = "SELECT position FROM events WHERE session_id = ? AND version = ?"


_KEPT_IN_PART: Final = {kind.type_name() for kind in (ItemsReplaced, TurnRedone, ItemRedacted)}
"""The types of events that keep more than the shapes of their items."""


class ErasurePlan(NamedTuple):
    """
    The payloads of a session to erase: (position, bytes) of each payload, newest first.

    forks: the sessions that show placeholders of the erased items afterwards.
    key_ids: the keys of a sealed log that seal nothing else, so that they are to be destroyed.
    plain: how many of the payloads are not sealed.
    """

    session_id: str
    payloads: list[tuple[int, int]]
    kept_items: int = 0
    is_marked: bool = True
    forks: tuple[str, ...] = ()
    key_ids: frozenset[bytes] = frozenset()
    plain: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to do: no payload is left, and the session is marked."""
        return self.is_marked and not self.payloads


class Scope(Protocol):
    """The sessions to read, and what to erase of each."""

    @property
    def is_whole(self) -> bool:
        """Whether sessions are erased as a whole."""

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the first sessions, or the next ones after an id, in the order of their ids."""

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return the payloads to erase of a session."""

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Return whether a session may be erased, in the erasing transaction; a scope may prepare it."""


class SessionScope(NamedTuple):
    """A session, all of it; it is deleted first if it is live. Raises SessionNotFoundError."""

    session_id: str
    is_whole: bool = True

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the session once."""
        if not session_version(tx, self.session_id):
            raise SessionNotFoundError(self.session_id)
        return [self.session_id] if after is None else []

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return every payload, and whether the session is yet to be marked."""
        return _all_payloads(tx, session_id)

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Delete the session if it is live."""
        session = conversations.session(tx, session_id)
        if session is None or session.deleted_at is None:
            append(tx, session_id, SessionDeleted(reason=reason))
        return True


class UserSessions(NamedTuple):
    """
    Every session of a user, deleted or not; live ones are deleted first.

    Erased sessions are read, too, to finish an interrupted erasure.
    """

    user_id: str
    is_whole: bool = True

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the user's next sessions, and those that were erased."""
        found = {
            session_id
            for name in sealing.user_names(tx, self.user_id)
            for (session_id,) in tx.all(OF_USER, (name, after or "", PAGE_SESSIONS))
        }
        return sorted(found, key=str.encode)[:PAGE_SESSIONS]

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return every payload of a session that still belongs to the user or was erased."""
        session = conversations.session(tx, session_id)
        if session is None or not self._includes(tx, session):
            return ErasurePlan(session_id, [])
        return _all_payloads(tx, session_id)

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Delete the session if it is live; return whether it still belongs to the user."""
        session = conversations.session(tx, session_id)
        if session is None or not self._includes(tx, session):
            return False
        if session.deleted_at is None:
            append(tx, session_id, SessionDeleted(reason=reason))
        return True

    def _includes(self, tx: Transaction, session: conversations.Session) -> bool:
        is_theirs = labels.is_of(tx, session.user_id, self.user_id)
        return is_theirs or session.erased_at is not None


class DeletedSessions(NamedTuple):
    """Every session that was deleted at this time or before, in microseconds since 1970 UTC."""

    until: int
    is_whole: bool = True

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the next sessions, deleted or not."""
        return _next_sessions(tx, after)

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return every payload of a session that is deleted; of a live one, nothing."""
        if not self.may_erase(tx, session_id, None):
            return ErasurePlan(session_id, [])
        return _all_payloads(tx, session_id)

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Return whether it is still deleted."""
        session = conversations.session(tx, session_id)
        deleted_at = None if session is None else session.deleted_at
        return deleted_at is not None and deleted_at <= self.until


class PoppedItems(NamedTuple):
    """
    Items that are not on any branch, items that were redacted, and replaced user ids and metadata, in every
    session.
    """

    is_whole: bool = False

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the next sessions. A deleted one keeps what a restored one would show."""
        return _next_sessions(tx, after)

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return the payloads that hold nothing live."""
        return _removed_payloads(tx, session_id, dict(tx.all(LIVE_ITEMS, (session_id, session_id))))

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Return True: an item that left every branch never returns to one."""
        return True


class ExpiredSessions(NamedTuple):
    """
    The contents of sessions that expired by a time, in microseconds since 1970 UTC.

    The sessions are cleared first. Their user ids and metadata stay, and items that a fork has.
    """

    until: int
    is_whole: bool = False

    def sessions(self, tx: Transaction, after: str | None) -> list[str]:
        """Return the next expired sessions, and those that were cleared and not erased yet."""
        rows = tx.all(EXPIRED, (self.until, after or "", PAGE_SESSIONS))
        return [session_id for (session_id,) in rows]

    def plan(self, tx: Transaction, session_id: str) -> ErasurePlan:
        """Return the payloads of items that were added before the session expired."""
        session = conversations.session(tx, session_id)
        is_due = session is not None and session.is_expired(self.until)
        if session is None or not (is_due or session.expired_version is not None):
            return ErasurePlan(session_id, [])
        before = MOST_EVENTS
        if not is_due:
            row = tx.one(POSITION, (session_id, session.expired_version))
            before = 0 if row is None else row[0]
        live: dict[int, int] = dict(tx.all(ITEMS_OF_FORKS, (session_id,)))
        plan = _removed_payloads(tx, session_id, live, before=before, is_resealed=is_due)
        return plan._replace(is_marked=False)

    def may_erase(self, tx: Transaction, session_id: str, reason: str | None) -> bool:
        """Clear the session if it is still expired; return whether it has expired contents."""
        session = conversations.session(tx, session_id)
        if session is not None and session.is_expired(self.until):
            expiry.expire(tx, session_id)
        return session is not None and session.expired_version is not None

    def left(self, tx: Transaction, session_id: str) -> set[int]:
        """Return the positions of the payloads that are to be erased, in the erasing transaction."""
        return {position for position, _ in self.plan(tx, session_id).payloads}

    def version(self, tx: Transaction, session_id: str) -> int | None:
        """Return the version with which the session expired; None once that is done with."""
        session = conversations.session(tx, session_id)
        return None if session is None else session.expired_version


def _removed_payloads(
    tx: Transaction,
    session_id: str,
    live: Mapping[int, int],
    *,
    before: int = MOST_EVENTS,
    is_resealed: bool = False,
) -> ErasurePlan:
    """
    Return the payloads that hold nothing live.

    live: how many items of each event are. before: the contents from this position on stay.
    is_resealed: whether sealed metadata is about to be recorded again, so that this one is replaced.
    """
    found: list[tuple[int, int]] = []
    kept_items = 0
    going, staying = set[bytes | None](), set[bytes | None]()
    history = _MetadataHistory()
    for stored in stored_payloads(tx, session_id):
        position, type_name, _, data = stored
        if type_name == MetadataSet.type_name():
            is_live = history.shows(stored) and not (is_resealed and key_of(stored))
            is_later = position >= before
        elif replaced_by(tx, stored) is not None:
            is_live, is_later = False, position >= before
        else:
            adding = added_at(stored)
            count = len(item_kind.classify_items(*_outlined(stored)))
            is_live, is_later = adding in live or count == 0, adding >= before
            kept_items += count - live.get(adding, 0) if is_live and not is_later else 0
        is_live = is_live or is_later
        if not is_live:
            found.append((position, len(data)))
        (staying if is_live else going).add(key_of(stored))
    key_ids = frozenset(each for each in going - staying if each is not None)
    return ErasurePlan(session_id, found, kept_items, key_ids=key_ids)


class _MetadataHistory:
    """The user ids and metadata of a session, from the newest event to the oldest."""

    def __init__(self) -> None:
        self._replaced: set[str] = set()

    def shows(self, stored: StoredPayload) -> bool:
        """Take the next older event; return whether no later one replaced all of it."""
        event = _decoded(stored)
        given = {name for name in ("user_id", "metadata") if getattr(event, name) is not None}
        is_shown = not given <= self._replaced
        self._replaced |= given
        return is_shown


def _next_sessions(tx: Transaction, after: str | None) -> list[str]:
    if after is None:
        rows = tx.all(FIRST_SESSIONS, (PAGE_SESSIONS,))
    else:
        rows = tx.all(NEXT_SESSIONS, (after, PAGE_SESSIONS))
        if rows:
            check_progress(after, rows[-1][0])
    return [session_id for (session_id,) in rows]


def _all_payloads(tx: Transaction, session_id: str) -> ErasurePlan:
    session = conversations.session(tx, session_id)
    stored = [(row[0], len(row[3]), key_of(row)) for row in stored_payloads(tx, session_id)]
    return ErasurePlan(
        session_id,
        [(position, size) for position, size, _ in stored],
        is_marked=session is not None and session.erased_at is not None,
        forks=forks.holding(tx, session_id),
        key_ids=frozenset(key_id for *_, key_id in stored if key_id is not None),
        plain=sum(key_id is None for *_, key_id in stored),
    )


def key_of(stored: StoredPayload) -> bytes | None:
    """Return the id of the key that sealed a payload; None if it is not sealed."""
    return envelope.key_id(stored[-1]) if envelope.is_sealed(stored[-1]) else None


def stored_payloads(tx: Transaction, session_id: str) -> Iterator[Row]:
    """Return the session's payloads that may be erased and have not been, newest first."""
    rows = payloads.stored(tx, ERASABLE, (session_id,), is_opened=False)
    return (row for row in rows if row[-1] is not None)


def added_at(stored: StoredPayload) -> int:
    """Return the position of the event that added the items of a payload."""
    if stored[1] != ItemRedacted.type_name():
        return int(stored[0])
    event = _decoded(stored)
    return event.item.position if isinstance(event, ItemRedacted) else 0


def replaced_by(tx: Transaction, stored: StoredPayload) -> int | None:
    """Return the position of the newer redaction whose items replace those of a payload, if any."""
    if not redactions.exist(tx) or stored[1] == MetadataSet.type_name():
        return None
    newest = redactions.newest(tx, added_at(stored))
    return None if newest == stored[0] else newest


def structure(stored: StoredPayload, replaced_by: int | None = None) -> JSON:
    """
    Return what is kept of a payload: the number and the shape of its items, nothing of its content.

    replaced_by: the position of the redaction that replaces its items.
    """
    type_name = stored[1]
    if type_name == MetadataSet.type_name():
        return {}
    stored = _outlined(stored)
    kept = item_kind.outline(*stored)
    if replaced_by is not None:
        kept["replaced_by"] = replaced_by
    if type_name in _KEPT_IN_PART:
        kept |= _beside_items(_decoded(stored))
    return kept


def _beside_items(event: Event) -> dict[str, JSON]:
    """Return what an event that replaced, redacted or redid items holds beside the items."""
    if isinstance(event, TurnRedone):
        return {"turn": event.turn, "undone_version": event.undone_version}
    if isinstance(event, ItemRedacted):
        kept: dict[str, JSON] = {"item": [event.item.position, event.item.index]}
        return kept if event.reason is None else {**kept, "reason": event.reason}
    first = cast("ItemsReplaced", event).first_item
    return {"first_item": None if first is None else [first.position, first.index]}


def _outlined(stored: StoredPayload) -> StoredPayload:
    """Return a payload, if it is sealed its outline: erasing needs no key."""
    data = stored[-1]
    return (*stored[:-1], data.outline) if isinstance(data, Envelope) else stored


def _decoded(stored: StoredPayload) -> Event:
    position, type_name, schema_version, data = _outlined(stored)
    return codec.decode(type_name, schema_version, data, position=position)
