"""
The commands on a conversation: read, decide, append. They know no SDK.

Each is a plain function of an open transaction and of a context, the place of one live session object.
Turns are numbered from 1 here; 0 is what stands before the first user item.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.appender import append, append_all
from agents_eventlog.eventlog.errors import (
    BranchExistsError,
    BranchNotFoundError,
    ConversationError,
    InvalidBranchError,
    InvalidEventError,
    SessionDeletedError,
    TurnNotFoundError,
)
from agents_eventlog.eventlog.events import (
    JSON,
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
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
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations import queries as conversation_queries
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.queries import Place, UserItem
from agents_eventlog.projections.search.text import ascii_folded, message_texts

RANDOM_BYTES: Final = 8

OPENABLE_ID: Final = re.compile(rf"branch_from_turn_-?\d+_\d+_[0-9a-f]{{{2 * RANDOM_BYTES}}}")
"""
The form of generated branch ids that open their session. The SDK's have no random part: a turn and a second
are soon guessed, and would open a session whose own id is a secret.
"""

MOST_CORRECTIONS: Final = 500
"""How many corrections one event holds."""

SELECT_LABELS = "SELECT user_id, metadata FROM sessions WHERE session_id = ?"


class SessionContext:
    """
    Where one live session object stands: its branch, and the last clearing it knows of.

    Changed only inside units of work, and changed back when they are rolled back.
    """

    __slots__ = ("branch_id", "cleared_version", "labels", "session_id")

    def __init__(
        self,
        session_id: str,
        branch_id: str = MAIN,
        labels: tuple[str | None, dict[str, JSON] | None] | None = None,
    ) -> None:
        self.session_id = session_id
        self.branch_id = branch_id
        self.cleared_version: int | None = None
        self.labels = labels

    def missed_clearing(self, here: Place) -> bool:
        """Whether the session was cleared by somebody else since this context was last used."""
        return self.cleared_version not in (None, here.cleared_version)

    def move(self, tx: Transaction, branch_id: str, cleared_version: int | None) -> None:
        """Stand on another branch; undone if the transaction is rolled back."""
        before = self.branch_id, self.cleared_version

        def back() -> None:
            self.branch_id, self.cleared_version = before

        tx.on_rollback(back)
        self.branch_id, self.cleared_version = branch_id, cleared_version


# -- where a context stands ----------------------------------------------------------------------


def look(tx: Transaction, context: SessionContext) -> Place:
    """Return the place of a context's branch; a context that missed a clearing is on main now."""
    here = conversation_queries.place(tx, context.session_id, context.branch_id)
    if context.missed_clearing(here):
        context.move(tx, MAIN, here.cleared_version)
        here = conversation_queries.place(tx, context.session_id, context.branch_id)
    elif context.cleared_version is None:
        context.move(tx, context.branch_id, here.cleared_version)
    return here


def look_at(tx: Transaction, context: SessionContext, branch_id: str | None) -> Place:
    """Return the place of a given branch, or of the context's own for None."""
    if branch_id is None:
        return look(tx, context)
    return conversation_queries.place(tx, context.session_id, branch_id)


def writable(tx: Transaction, context: SessionContext) -> Place:
    """Return the context's place for writing. A deleted branch or session is never brought back."""
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    if context.branch_id != MAIN and not here.branch_exists:
        raise BranchNotFoundError(context.branch_id)
    if context.labels is not None:
        record_labels(tx, context, *context.labels)
    return here


def check_labels(
    user_id: str | None, metadata: Mapping[str, JSON] | None
) -> tuple[str | None, dict[str, JSON] | None]:
    """
    Return labels as they are recorded.

    Raises InvalidEventError, TypeError for no mapping, and UnserialisableError for what JSON cannot hold.
    """
    if user_id is not None:
        codec.check_text("user_id", user_id)
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is of type {type(metadata).__name__}, not a mapping")
    if metadata is None:
        return user_id, None
    codec.encode_json(dict(metadata))
    return user_id, dict(metadata)


def record_labels(
    tx: Transaction, context: SessionContext, user_id: str | None, metadata: dict[str, JSON] | None
) -> None:
    """Label the context's session, unless it is labelled so already; what is empty takes a label away."""
    made_with, context.labels = context.labels, None  # which these take the place of
    tx.on_rollback(lambda: setattr(context, "labels", made_with))
    before = tx.one(SELECT_LABELS, (context.session_id,)) or (None, None)
    after = (
        before[0] if user_id is None else user_id or None,
        before[1] if metadata is None else _json_text(metadata),
    )
    if after != tuple(before):
        append(tx, context.session_id, MetadataSet(user_id=user_id, metadata=metadata))


def _json_text(metadata: dict[str, JSON]) -> str | None:
    return codec.encode_json(metadata).decode() if metadata else None


# -- items ------------------------------------------------------------------------------------


def add_items(tx: Transaction, context: SessionContext, event: ItemsAdded, data: bytes) -> None:
    """Add items at the end of the context's branch, all or none."""
    writable(tx, context)
    append_all(tx, context.session_id, ((event, data),), branch_id=context.branch_id)


def pop_item(tx: Transaction, context: SessionContext) -> JSON | None:
    """
    Take the newest item off the context's branch and return it; None when the branch is empty.

    The item stays in the log, and on every other branch that shares it.
    """
    here = writable(tx, context)
    newest, before = branch_tree.tail(tx, here.pointer)
    if newest is None:
        return None
    if before is None:  # it stands in the parent segment, if there is one
        before = branch_tree.newest(
            tx, branch_tree.at_length(tx, here.pointer, here.pointer.length - 1)
        )
    is_last_of_turn = before is None or before.turn != newest.turn
    content = conversation_queries.item(tx, newest.ref)
    popped = ItemPopped(item=newest.ref, emptied_turn=newest.turn if is_last_of_turn else None)
    append(tx, context.session_id, popped, branch_id=context.branch_id)
    return content


def replace_items(
    tx: Transaction,
    context: SessionContext,
    event: ItemsReplaced,
    data: bytes,
    expected: Sequence[ItemRef],
) -> bool:
    """
    Put other items in place of those from ``event.first_item`` on; no other branch is touched.

    Returns False, and changes nothing, unless the branch still ends with the expected items.
    """
    here = writable(tx, context)
    if expected and conversation_queries.refs(tx, here.pointer, len(expected)) != list(expected):
        return False
    append_all(tx, context.session_id, ((event, data),), branch_id=context.branch_id)
    return True


def clear_session(tx: Transaction, context: SessionContext) -> None:
    """Empty and delete all branches and stand on main; ids and what was spent stay."""
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
    cleared_version = here.cleared_version
    if here.session_exists:
        cleared_version = append(tx, context.session_id, SessionCleared()).version
    context.move(tx, MAIN, cleared_version)


def get_items(
    tx: Transaction, context: SessionContext, branch_id: str | None, limit: int | None
) -> list[JSON]:
    """Return a branch's items, all or the newest so many; a negative limit is none."""
    pointer = look_at(tx, context, branch_id).pointer
    if limit == 0:
        return []
    return conversation_queries.items(tx, pointer, None if limit is None or limit < 0 else limit)


def get_past_items(
    tx: Transaction,
    context: SessionContext,
    branch_id: str | None,
    limit: int | None,
    as_of: past.AsOf,
) -> list[JSON]:
    """Return a branch's items as they were; of a branch that was not there, none."""
    look(tx, context)
    branch_id = context.branch_id if branch_id is None else branch_id
    with past.session_as_of(tx, context.session_id, as_of) as then:
        return get_items(then, context, branch_id, limit)


# -- branches ---------------------------------------------------------------------------------


def check_branch_name(name: str | None) -> None:
    """Raise InvalidBranchError for a name that is blank, or no text."""
    if name is None:
        return
    try:
        codec.check_text("branch name", name)
    except InvalidEventError as error:
        raise InvalidBranchError(str(error)) from None
    if not name.strip():
        raise InvalidBranchError("Branch name cannot be empty")


def check_branch_id(branch_id: str) -> None:
    """Raise BranchNotFoundError for what no branch can be called; SQLite would take 7 for "7"."""
    try:
        codec.check_text("branch id", branch_id)
    except InvalidEventError:
        raise BranchNotFoundError(branch_id) from None


def create_branch(tx: Transaction, context: SessionContext, name: str | None, label: int) -> str:
    """Branch off at the end of the context's branch and stand on the new one; return its id."""
    here = writable(tx, context)
    return _branch_off(tx, context, here.pointer, None, name, label + here.turn)


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
    Branch off before a turn, or after it, and stand on the new branch; return its id.

    Turn 0 is the very beginning. ``label`` is what the caller calls the turn.
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
    return _branch_off(tx, context, pointer, turn, name, label)


def _branch_off(
    tx: Transaction,
    context: SessionContext,
    pointer: Pointer,
    before_turn: int | None,
    name: str | None,
    label: int,
) -> str:
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
    """Return an id that nothing else in the file has, and that nobody can guess."""
    return f"branch_from_turn_{label}_{tx.now // 1_000_000}_{secrets.token_hex(RANDOM_BYTES)}"


def switch_to_branch(tx: Transaction, context: SessionContext, branch_id: str) -> str:
    """Stand on another branch; return the one left. Main can always be switched to."""
    check_branch_id(branch_id)
    here = look(tx, context)
    if here.is_deleted:
        raise SessionDeletedError(context.session_id)
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
    """Delete a branch; its id stays taken, shared items stay where they are shared."""
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
    append(tx, context.session_id, BranchDeleted(branch_id=branch_id), branch_id=branch_id)
    if branch_id == context.branch_id:
        context.move(tx, MAIN, context.cleared_version)


def list_branches(tx: Transaction, context: SessionContext) -> list[tuple[str, int, int, int]]:
    """Return (id, items, user turns, created at) of the live branches; none of an empty session."""
    if look(tx, context).is_deleted:
        return []
    rows: list[Any] = tx.all(conversation_queries.BRANCHES, (context.session_id,))
    is_empty = all(branch_id == MAIN and length == 0 for branch_id, length, *_ in rows)
    return [] if is_empty else rows


# -- turns ------------------------------------------------------------------------------------


def turn_number(given: Any) -> int | None:
    """Return a turn's number as SQLite takes it: 2.0 and "2" are 2; None for what is no whole number."""
    try:
        number = int(given)
        return number if number == float(given) else None
    except (TypeError, ValueError, OverflowError):
        return None


def find_turns(
    tx: Transaction, context: SessionContext, branch_id: str | None, term: str
) -> list[UserItem]:
    """
    Return a branch's turns whose user text contains the term; ASCII letters match either case.

    Raises TypeError for a term that is no text.
    """
    if not isinstance(term, str):
        raise TypeError(f"a search term is a text, not of type {type(term).__name__}")
    needle = ascii_folded(term)
    pointer = look_at(tx, context, branch_id).pointer
    return [
        user_item
        for user_item in conversation_queries.user_items(tx, pointer, term)
        if any(needle in ascii_folded(text) for text in message_texts(user_item.item))
    ]


def first_turn_with(tx: Transaction, context: SessionContext, term: str) -> int:
    """Return the earliest turn whose user text contains the term. Raises ConversationError."""
    found = find_turns(tx, context, None, term)
    if not found:
        raise ConversationError(f"No user turns found containing '{term}'")
    return found[0].turn


def count_tools(
    tx: Transaction, context: SessionContext, branch_id: str | None
) -> list[tuple[Any, int, int]]:
    """Return (tool name, count, turn) by turn; a tool search counts by its call, or its output."""
    rows = conversation_queries.tool_calls(tx, look_at(tx, context, branch_id).pointer)
    searched = {turn for turn, _, kind, _ in rows if kind == "tool_search_call"}
    counts: dict[tuple[int, str | None], int] = {}
    for turn, tool_name, kind, count in rows:
        if kind != "tool_search_output" or turn not in searched:
            counts[turn, tool_name] = counts.get((turn, tool_name), 0) + count
    return [(tool_name, count, turn) for (turn, tool_name), count in counts.items()]


# -- usage and the session's id ----------------------------------------------------------------


def record_usage(
    tx: Transaction,
    context: SessionContext,
    *,
    run_id: str,
    requests: Sequence[RequestUsage],
    interrupted: bool,
) -> int:
    """
    Record what a run's requests used, on the last turn of the context's branch; return its position.

    What was spent is recorded even when that turn is gone: then it belongs to none.
    """
    branch_id = context.branch_id
    was_cleared = context.missed_clearing(
        conversation_queries.place(tx, context.session_id, branch_id)
    )
    here = look(tx, context)
    has_turn = here.branch_exists and here.pointer.length > 0 and not was_cleared
    used = UsageRecorded(
        run_id=run_id,
        turn=here.turn if has_turn else None,
        requests=list(requests),
        interrupted=interrupted,
    )
    return append(tx, context.session_id, used, branch_id=branch_id).position


def correction(ref: ItemRef, known: RequestUsage, better: RequestUsage) -> UsageCorrection:
    """Return the correction of a recorded request: the fields that are known better now."""
    names = ("response_id", "model", "agent", "cost_usd", "price_source")
    learnt = {
        name: value
        for name in names
        if (value := getattr(better, name)) is not None and value != getattr(known, name)
    }
    return UsageCorrection(request=ref, **learnt)


def correct_usage(
    tx: Transaction, session_id: str, corrections: Sequence[UsageCorrection], reason: str | None
) -> None:
    """Record what was learnt of a session's recorded requests, in events of bounded size."""
    for start in range(0, len(corrections), MOST_CORRECTIONS):
        part = list(corrections[start : start + MOST_CORRECTIONS])
        append(tx, session_id, UsageCorrected(requests=part, reason=reason))


def owner_of_branch(tx: Transaction, branch_id: str) -> str | None:
    """
    Return the session that a generated branch id belongs to; None if it is a session's own id.

    Raises BranchNotFoundError if that branch was deleted; InvalidBranchError if several sessions have
    such a branch, as a history that was imported twice has.
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
            f"{len(live)} sessions have a branch {branch_id!r}: "
            "open the one that is meant, with branch_id="
        )
    return str(live[0])
