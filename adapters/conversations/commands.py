"""
Commands on a conversation: read, decide, append. They do not depend on an SDK.

Each command is a plain function of an open transaction and the context of a session object.
Turns are numbered from 1 here; turn 0 holds the items before the first user item.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from msgspec import structs

from agents_eventlog.eventlog import codec, leases
from agents_eventlog.eventlog.appender import append, append_all
from agents_eventlog.eventlog.appending import first_result
from agents_eventlog.eventlog.errors import (
    BranchExistsError,
    BranchNotFoundError,
    ConversationError,
    InvalidBranchError,
    InvalidEventError,
    InvalidQueryError,
    SessionBusyError,
    SessionDeletedError,
    SessionOwnerError,
    TurnNotFoundError,
)
from agents_eventlog.eventlog.events import (
    JSON,
    LONGEST_EXPIRY_SECONDS,
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    Event,
    ExpirySet,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.leases import Lease
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import branch_tree, labels
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.queries import Place, UserItem
from agents_eventlog.projections.search.text import ascii_folded, content_texts
from agents_eventlog.projections.sessions import expiry

ItemEvent: TypeAlias = ItemsAdded | ItemsReplaced

RANDOM_BYTES: Final = 8

OPENABLE_ID: Final = re.compile(rf"branch_from_turn_-?\d+_\d+_[0-9a-f]{{{2 * RANDOM_BYTES}}}")
"""
The form of generated branch ids that open their session. Branch ids of the SDK do not match: they have no
random part, so that an attacker could guess one and open a session whose own id is a secret.
"""

MAX_EVENT_ITEMS: Final = 50
MAX_EVENT_BYTES: Final = 64 * 1024
"""Limits of one event with items. More items are added as several events of one append."""

MOST_CORRECTIONS: Final = 500
"""Maximum number of corrections in one event."""


class SessionContext:
    """
    The state of one session object: its current branch, and the last clearing that it has seen.

    ``user_id``: the owner that the session must have; None accepts any, "" means without one.
    ``metadata``: recorded, with the user id, if a call of this object creates the session.
    ``expires_after_seconds``: recorded by the next write, unless the session has it; None changes nothing.
    ``lease``: the lease that the object holds, or has lost; None outside of ``exclusive``.

    Only units of work change it; a rollback restores the former values.
    """

    __slots__ = (
        *("branch_id", "cleared_version", "expires_after_seconds", "lease", "metadata"),
        *("session_id", "user_id"),
    )

    def __init__(
        self,
        session_id: str,
        branch_id: str = MAIN,
        *,
        user_id: str | None = None,
        metadata: dict[str, JSON] | None = None,
        expires_after_seconds: int | None = None,
    ) -> None:
        self.session_id = session_id
        self.branch_id = branch_id
        self.cleared_version: int | None = None
        self.user_id = user_id
        self.metadata = metadata
        self.expires_after_seconds = expires_after_seconds
        self.lease: Lease | None = None

    def missed_clearing(self, here: Place) -> bool:
        """Whether another session object cleared the session since this context was last used."""
        return self.cleared_version not in (None, here.cleared_version)

    def move(self, tx: Transaction, branch_id: str, cleared_version: int | None) -> None:
        """Make another branch the current one; a rollback restores the former one."""
        before = self.branch_id, self.cleared_version

        def back() -> None:
            self.branch_id, self.cleared_version = before

        tx.on_rollback(back)
        self.branch_id, self.cleared_version = branch_id, cleared_version


# -- whose session it is ---------------------------------------------------------------------------


def check_owner(tx: Transaction, context: SessionContext, session_id: str | None = None) -> None:
    """
    Raise SessionOwnerError if a session, by default the context's, exists and is not the context's user's.

    A session without an owner belongs to no user; ``set_metadata`` gives it one. An erased session passes:
    its content is erased, and a pseudonym replaces its owner.
    """
    if context.user_id is None:
        return
    session_id = context.session_id if session_id is None else session_id
    # Reads both rows with one statement: the unit of work that follows finds them in memory.
    session, _ = conversations.both(tx, session_id, context.branch_id)
    if session is None or session.erased_at is not None:
        return
    if not labels.is_of(tx, session.user_id, context.user_id):
        raise SessionOwnerError(session_id, context.user_id)


def own_sessions(context: SessionContext, user_id: str | None) -> str | None:
    """Return the user whose sessions a query may read. Raises InvalidQueryError for another user."""
    if user_id is None:
        return context.user_id
    if context.user_id not in (None, user_id):
        raise InvalidQueryError(
            f"invalid user_id: expected {context.user_id!r} as in the constructor, got {user_id!r}"
        )
    return user_id


# -- the current branch --------------------------------------------------------------------------


def look(tx: Transaction, context: SessionContext) -> Place:
    """
    Return the place of the current branch; a context that missed a clearing moves to main.

    In a unit of work that writes, an expired session is cleared first.
    """
    here = conversation_queries.place(tx, context.session_id, context.branch_id)
    if here.is_expired and tx.participant is not None:
        expiry.expire(tx, context.session_id)
        here = conversation_queries.place(tx, context.session_id, context.branch_id)
    if context.missed_clearing(here):
        context.move(tx, MAIN, here.cleared_version)
        here = conversation_queries.place(tx, context.session_id, context.branch_id)
    elif context.cleared_version is None:
        context.move(tx, context.branch_id, here.cleared_version)
    return here


def may_change(tx: Transaction, context: SessionContext, session_id: str) -> None:
    """Raise what forbids a session object to delete or restore a session: its owner, or a lost lease."""
    check_owner(tx, context, session_id)
    if session_id == context.session_id:
        require_lease(tx, context)


def user_of(tx: Transaction, context: SessionContext) -> str | None:
    """Return the session's user id, or the one that its first write will record."""
    session = conversations.session(tx, context.session_id)
    if session is None:
        return context.user_id or None
    return labels.read(tx, context.session_id, session.user_id, session.metadata).user_id


def look_at(tx: Transaction, context: SessionContext, branch_id: str | None) -> Place:
    """Return the place of a branch; None is the current one."""
    if branch_id is None:
        return look(tx, context)
    return conversation_queries.place(tx, context.session_id, branch_id)


def writable(tx: Transaction, context: SessionContext) -> Place:
    """
    Return the place of the current branch for writing; create the session if it does not exist.

    Raises SessionDeletedError and BranchNotFoundError: a write never restores a session or a branch.
    """
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    if context.branch_id != MAIN and not here.branch_exists:
        raise BranchNotFoundError(context.branch_id)
    if not here.session_exists or context.expires_after_seconds is not None:
        create_session(tx, context, here)
    if context.lease is not None:
        require_lease(tx, context)
    return here


def require_lease(tx: Transaction, context: SessionContext) -> None:
    """Raise SessionBusyError if the session object lost its lease to another holder."""
    if context.lease is not None:
        last = leases.current(tx, context.session_id)
        if last is None or last.token != context.lease.token:
            raise busy(context.session_id, last)


def busy(session_id: str, lease: Lease | None) -> SessionBusyError:
    """Return the error for a session whose lease another holder has."""
    if lease is None or lease.expires_at == 0:
        return SessionBusyError(session_id=session_id, holder=None, since=None)
    since = datetime.fromtimestamp(lease.since / 1_000_000, UTC)
    return SessionBusyError(session_id=session_id, holder=lease.holder, since=since)


def check_labels(
    user_id: str | None, metadata: Mapping[str, JSON] | None
) -> tuple[str | None, dict[str, JSON] | None]:
    """
    Return a user id and metadata in the form in which they are recorded.

    Raises InvalidEventError for an invalid user id, TypeError for metadata that is not a mapping, and
    UnserialisableError for values that JSON cannot represent.
    """
    if user_id is not None:
        user_id = codec.check_text("user_id", user_id)
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"invalid metadata: expected a mapping, got {type(metadata).__name__}")
    if metadata is None:
        return user_id, None
    codec.encode_json(dict(metadata))
    return user_id, dict(metadata)


def create_session(tx: Transaction, context: SessionContext, here: Place) -> None:
    """Record the user id and the metadata of the context, unless the session exists, and its expiry."""
    if not here.session_exists and (context.user_id or context.metadata):
        record_labels(tx, context, context.user_id or None, context.metadata or None)
    if context.expires_after_seconds is not None:
        record_expiry(tx, context.session_id, context.expires_after_seconds)


def record_expiry(tx: Transaction, session_id: str, seconds: int | None) -> None:
    """Record after how many seconds without use a session expires, if that is not recorded yet."""
    session = conversations.session(tx, session_id)
    if seconds != (None if session is None else session.expires_after_seconds):
        append(tx, session_id, ExpirySet(expires_after_seconds=seconds))


def expiry_seconds(expires_after: timedelta) -> int:
    """Return an age in seconds, rounded up. Raises TypeError, and ValueError for one out of range."""
    check_age("expires_after", expires_after)
    return -(-expires_after // timedelta(seconds=1))


def check_age(what: str, age: timedelta) -> timedelta:
    """Return an age. Raises TypeError, and ValueError for one out of range."""
    if not isinstance(age, timedelta):
        raise TypeError(f"invalid {what}: expected a timedelta, got {type(age).__name__}")
    if not timedelta(0) < age <= timedelta(seconds=LONGEST_EXPIRY_SECONDS):
        raise ValueError(f"invalid {what}: expected more than 0 and up to 300 years, got {age!r}")
    return age


def record_labels(
    tx: Transaction, context: SessionContext, user_id: str | None, metadata: dict[str, JSON] | None
) -> None:
    """Record a user id and metadata: None keeps the stored one, an empty value removes it."""
    labelled = MetadataSet(user_id=user_id, metadata=metadata, salt=labels.new_salt())
    append(tx, context.session_id, labelled)


# -- items ------------------------------------------------------------------------------------


def in_parts(event: ItemEvent) -> list[tuple[ItemEvent, bytes]]:
    """
    Return an event with its encoded data, or several events that mean the same if it is large.

    Reading an item decodes the whole event that holds it. An item is never divided.
    """
    data = codec.encode(event)  # at first whole, so that an error names the right item
    if _is_small(event.items, data):
        return [(event, data)]
    first, *more = _portions(event.items)
    parts: list[ItemEvent] = [
        structs.replace(event, items=first),
        *(ItemsAdded(items=items) for items in more),
    ]
    return [(part, codec.encode(part)) for part in parts]


def _portions(items: list[JSON]) -> Iterator[list[JSON]]:
    for start in range(0, len(items), MAX_EVENT_ITEMS):
        yield from _halved(items[start : start + MAX_EVENT_ITEMS])


def _halved(items: list[JSON]) -> Iterator[list[JSON]]:
    if _is_small(items, codec.encode_json(items)):
        yield items
    else:
        half = len(items) // 2
        yield from _halved(items[:half])
        yield from _halved(items[half:])


def _is_small(items: list[JSON], data: bytes) -> bool:
    return len(items) < 2 or (len(items) <= MAX_EVENT_ITEMS and len(data) <= MAX_EVENT_BYTES)


def add_items(
    tx: Transaction,
    context: SessionContext,
    events: Sequence[tuple[Event, bytes]],
    *,
    idempotency_key: str | None = None,
) -> bool:
    """
    Append the parts of an ``ItemsAdded`` to the current branch, all or none.

    Returns False, without a change, if they were added before with the same idempotency key. Raises
    IdempotencyConflictError if other items were.
    """
    here = writable(tx, context)
    session_id, branch_id = context.session_id, context.branch_id
    if (
        idempotency_key is not None
        and here.session_exists
        and first_result(tx, session_id, idempotency_key, events, branch_id) is not None
    ):
        return False
    append_all(tx, session_id, events, branch_id=branch_id, idempotency_key=idempotency_key)
    return True


def pop_item(tx: Transaction, context: SessionContext) -> JSON | None:
    """
    Remove the newest item from the current branch and return it; None if the branch is empty.

    The item stays in the log, and on every other branch that shares it.
    """
    here = writable(tx, context)
    newest, before = branch_tree.tail(tx, here.pointer)
    if newest is None:
        return None
    if before is None:  # the parent segment holds it, if there is one
        before = branch_tree.newest(
            tx, branch_tree.at_length(tx, here.pointer, here.pointer.length - 1)
        )
    is_last_of_turn = before is None or before.turn != newest.turn
    content = conversation_queries.item(tx, newest.ref, session_id=context.session_id)
    popped = ItemPopped(item=newest.ref, emptied_turn=newest.turn if is_last_of_turn else None)
    append(tx, context.session_id, popped, branch_id=context.branch_id)
    return content


def replace_items(
    tx: Transaction,
    context: SessionContext,
    events: Sequence[tuple[Event, bytes]],
    expected: Sequence[ItemRef],
) -> bool:
    """
    Replace items of the current branch, to its end, by the parts of an ``ItemsReplaced``.

    expected: the items that the branch must end with; () accepts any.

    Other branches do not change. Returns False, without a change, if the branch ends with other items.
    """
    here = writable(tx, context)
    if expected and conversation_queries.refs(tx, here.pointer, len(expected)) != list(expected):
        return False
    append_all(tx, context.session_id, events, branch_id=context.branch_id)
    return True


def clear_session(tx: Transaction, context: SessionContext) -> None:
    """Delete all items and branches, and move to main; branch ids stay reserved, usage stays counted."""
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    require_lease(tx, context)
    cleared_version = here.cleared_version
    if here.session_exists:
        cleared_version = append(tx, context.session_id, SessionCleared()).version
    context.move(tx, MAIN, cleared_version)


def get_items(
    tx: Transaction, context: SessionContext, branch_id: str | None, limit: int | None
) -> list[JSON]:
    """Return a branch's items, oldest first: all, or the newest ``limit``; a negative limit means all."""
    pointer = look_at(tx, context, branch_id).pointer
    if limit == 0:
        return []
    newest = None if limit is None or limit < 0 else limit
    return conversation_queries.items(tx, pointer, newest, session_id=context.session_id)


def get_recent_items(
    tx: Transaction,
    context: SessionContext,
    branch_id: str | None,
    limit: int | None,
    max_age: timedelta,
) -> tuple[list[JSON], int]:
    """Return the items of ``get_items`` without turns that are older, and how many items are left out."""
    pointer = look_at(tx, context, branch_id).pointer
    most = pointer.length if limit is None or limit < 0 else min(limit, pointer.length)
    newest = recent(tx, pointer, most, max_age)
    return get_items(tx, context, branch_id, newest), most - newest


def recent(tx: Transaction, pointer: Pointer, newest: int, max_age: timedelta) -> int:
    """Return how many of the newest items of a branch belong to turns that are not older than an age."""
    since = tx.now - max_age // timedelta(microseconds=1)
    return conversation_queries.recent(tx, pointer, newest, since)


def get_past_items(
    tx: Transaction,
    context: SessionContext,
    branch_id: str | None,
    limit: int | None,
    as_of: past.AsOf,
) -> list[JSON]:
    """Return a branch's items at a version or time; an empty list if the branch did not exist then."""
    look(tx, context)
    branch_id = context.branch_id if branch_id is None else branch_id
    with past.session_as_of(tx, context.session_id, as_of) as then:
        return get_items(then, context, branch_id, limit)


# -- branches ---------------------------------------------------------------------------------


def check_branch_name(name: str | None) -> None:
    """Raise InvalidBranchError for a name that is blank or is not valid text."""
    if name is None:
        return
    try:
        codec.check_text("branch name", name)
    except InvalidEventError as error:
        raise InvalidBranchError(str(error)) from None
    if not name.strip():
        raise InvalidBranchError("Branch name cannot be empty")


def check_branch_id(branch_id: str) -> None:
    """Raise BranchNotFoundError for an id that is not valid text; SQLite would match 7 with "7"."""
    try:
        codec.check_text("branch id", branch_id)
    except InvalidEventError:
        raise BranchNotFoundError(branch_id) from None


def create_branch(tx: Transaction, context: SessionContext, name: str | None, label: int) -> str:
    """Create a branch at the end of the current one, make it the current one, and return its id."""
    here = writable(tx, context)
    return branch_off(tx, context, here.pointer, None, name, label + here.turn)


def create_branch_from_turn(
    tx: Transaction,
    context: SessionContext,
    turn: int,
    name: str | None,
    *,
    include_turn: bool,
    label: int,
) -> str:
    """
    Create a branch that ends before a turn, make it the current one, and return its id.

    turn: 0 creates an empty branch.
    include_turn: end after the turn instead.
    ``label``: the turn's number in the caller's numbering, for the generated id and for errors.
    """
    here = writable(tx, context)
    pointer = Pointer(None, 0) if turn == 0 else None
    if 0 < turn <= here.turn:
        pointer = branch_tree.before_turn(tx, here.pointer, turn)
    if pointer is None:
        raise TurnNotFoundError(label, context.branch_id)
    if include_turn:
        turn += 1
        pointer = branch_tree.before_turn(tx, here.pointer, turn) or here.pointer
    return branch_off(tx, context, pointer, turn, name, label)


def branch_off(
    tx: Transaction,
    context: SessionContext,
    pointer: Pointer,
    before_turn: int | None,
    name: str | None,
    label: int,
) -> str:
    """
    Create a branch that ends at a place, make it the current one, and return its id.

    ``label``: the number of the turn, for a generated id.
    """
    branch_id = _generated_id(tx, label) if name is None else name
    if branch_id == MAIN or tx.one(
        conversation_queries.BRANCH_EXISTS, (context.session_id, branch_id)
    ):
        raise BranchExistsError(branch_id)
    last = branch_tree.newest(tx, pointer)
    created = BranchCreated(
        branch_id=branch_id,
        from_branch_id=context.branch_id,
        last_item=None if last is None else last.ref,
        before_turn=before_turn,
        generated=name is None,
    )
    append(tx, context.session_id, created, branch_id=context.branch_id)
    context.move(tx, branch_id, context.cleared_version)
    return branch_id


def _generated_id(tx: Transaction, label: int) -> str:
    """Return an id that is unique in the file and cannot be guessed."""
    return f"branch_from_turn_{label}_{tx.now // 1_000_000}_{secrets.token_hex(RANDOM_BYTES)}"


def switch_to_branch(tx: Transaction, context: SessionContext, branch_id: str) -> str:
    """Make another branch the current one, and return the former one; main always exists."""
    check_branch_id(branch_id)
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    require_lease(tx, context)
    if (
        branch_id != MAIN
        and not conversation_queries.place(tx, context.session_id, branch_id).branch_exists
    ):
        raise BranchNotFoundError(branch_id)
    before = context.branch_id
    if here.session_exists and (branch_id, branch_id) != (before, here.last_branch_id):
        switched = BranchSwitched(from_branch_id=before, branch_id=branch_id)
        append(tx, context.session_id, switched, branch_id=branch_id)
    context.move(tx, branch_id, context.cleared_version)
    return before


def delete_branch(tx: Transaction, context: SessionContext, branch_id: str, *, force: bool) -> None:
    """Delete a branch; its id stays reserved, shared items stay on the other branches."""
    here = look(tx, context)
    if not branch_id or not str(branch_id).strip():
        raise InvalidBranchError("Branch ID cannot be empty")
    check_branch_id(branch_id)
    if branch_id == MAIN:
        raise InvalidBranchError("Cannot delete the 'main' branch")
    if branch_id == context.branch_id and not force:
        raise InvalidBranchError(
            f"Cannot delete current branch '{branch_id}'. Use force=True or switch branches first"
        )
    if (
        here.is_deleted
        or not conversation_queries.place(tx, context.session_id, branch_id).branch_exists
    ):
        raise BranchNotFoundError(branch_id)
    require_lease(tx, context)
    append(tx, context.session_id, BranchDeleted(branch_id=branch_id), branch_id=branch_id)
    if branch_id == context.branch_id:
        context.move(tx, MAIN, context.cleared_version)


def list_branches(tx: Transaction, context: SessionContext) -> list[tuple[str, int, int, int]]:
    """Return (id, items, user turns, created at) of each live branch; [] for an empty session."""
    here = look(tx, context)
    if here.is_deleted or here.is_expired:
        return []
    rows: list[Any] = tx.all(conversation_queries.BRANCHES, (context.session_id,))
    is_empty = all(branch_id == MAIN and length == 0 for branch_id, length, *_ in rows)
    return [] if is_empty else rows


# -- turns ------------------------------------------------------------------------------------


def turn_number(given: Any) -> int | None:
    """Parse a turn number as SQLite would (2.0 and "2" mean 2); return None if it is not an integer."""
    try:
        number = int(given)
        return number if number == float(given) else None
    except (TypeError, ValueError, OverflowError):
        return None


def find_turns(
    tx: Transaction, context: SessionContext, branch_id: str | None, term: str
) -> list[UserItem]:
    """
    Return a branch's turns whose user text contains the term; ASCII letters are case-insensitive.

    Raises TypeError for a term that is not a str.
    """
    if not isinstance(term, str):
        raise TypeError(f"invalid search term: expected a str, got {type(term).__name__}")
    needle = ascii_folded(term)
    pointer = look_at(tx, context, branch_id).pointer
    return [
        user_item
        for user_item in conversation_queries.user_items(
            tx, pointer, term, session_id=context.session_id
        )
        if any(needle in ascii_folded(text) for text in content_texts(user_item.content))
    ]


def first_turn_with(tx: Transaction, context: SessionContext, term: str) -> int:
    """Return the earliest turn whose user text contains the term. Raises ConversationError without one."""
    found = find_turns(tx, context, None, term)
    if not found:
        raise ConversationError(f"No user turns found containing '{term}'")
    return found[0].turn


def count_tools(
    tx: Transaction, context: SessionContext, branch_id: str | None
) -> list[tuple[Any, int, int]]:
    """Return (tool name, count, turn) by turn; a tool search without a call counts by its output."""
    rows = conversation_queries.tool_calls(tx, look_at(tx, context, branch_id).pointer)
    searched = {turn for turn, _, kind in rows if kind == "tool_search_call"}
    counts: dict[tuple[int, str | None], int] = {}
    for turn, tool_name, kind in rows:
        if kind != "tool_search_output" or turn not in searched:
            key = turn, tool_name
            counts[key] = counts.get(key, 0) + 1
    in_order = sorted(counts.items(), key=lambda counted: (counted[0][0], counted[0][1] or ""))
    return [(tool_name, count, turn) for (turn, tool_name), count in in_order]


# -- usage and the session's id ----------------------------------------------------------------


def record_usage(
    tx: Transaction,
    context: SessionContext,
    *,
    run_id: str,
    requests: Sequence[RequestUsage],
    turn: int | None = None,
) -> int:
    """
    Record the usage of a run's requests on a turn of the current branch; return the position.

    turn: the turn that the run answers; None, or a turn that was removed, for the last one.

    Without such a turn, or after a clearing, the usage is recorded without a turn.
    """
    branch_id = context.branch_id
    was_cleared = context.missed_clearing(
        conversation_queries.place(tx, context.session_id, branch_id)
    )
    here = look(tx, context)
    create_session(tx, context, here)
    has_turn = here.branch_exists and here.pointer.length > 0 and not was_cleared
    turn = here.turn if turn is None else min(turn, here.turn)
    used = UsageRecorded(
        run_id=run_id,
        turn=turn if has_turn else None,
        requests=list(requests),
    )
    return append(tx, context.session_id, used, branch_id=branch_id).position


def correction(ref: ItemRef, known: RequestUsage, better: RequestUsage) -> UsageCorrection:
    """Return the correction of a recorded request: the fields with a new, known value."""
    names = (
        *("response_id", "model", "agent", "endpoint", "service_tier"),
        *("cost_usd", "price_source"),
    )
    learnt = {
        name: value
        for name in names
        if (value := getattr(better, name)) is not None and value != getattr(known, name)
    }
    return UsageCorrection(request=ref, **learnt)


def correct_usage(
    tx: Transaction, session_id: str, corrections: Sequence[UsageCorrection], reason: str | None
) -> None:
    """Record corrections of a session's requests, in events of bounded size."""
    for start in range(0, len(corrections), MOST_CORRECTIONS):
        part = list(corrections[start : start + MOST_CORRECTIONS])
        append(tx, session_id, UsageCorrected(requests=part, reason=reason))


def owner_of_branch(tx: Transaction, branch_id: str) -> str | None:
    """
    Return the session that a generated branch id belongs to; None if it is not such an id.

    Raises BranchNotFoundError if the branch was deleted, and InvalidBranchError if several sessions have
    the branch, because a history was imported twice.
    """
    if not OPENABLE_ID.fullmatch(branch_id) or tx.one(
        conversation_queries.SESSION_EXISTS, (branch_id,)
    ):
        return None
    rows = tx.all(conversation_queries.GENERATED_BRANCH, (branch_id,))
    if not rows:
        return None
    live = [session_id for session_id, is_live in rows if is_live]
    if not live:
        raise BranchNotFoundError(branch_id)
    if len(live) > 1:
        raise InvalidBranchError(
            f"ambiguous branch {branch_id!r}: expected one session, got {len(live)}; "
            "open the session by its own id, with branch_id="
        )
    return str(live[0])
