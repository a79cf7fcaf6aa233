"""Queries on the tables of conversations. Plain functions of an open transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias, TypeVar

from agents_eventlog.eventlog import codec, payloads
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.cipher.envelope import Envelope, Withheld
from agents_eventlog.eventlog.errors import ProjectionError, UndecodableEventError
from agents_eventlog.eventlog.events import ITEM_EVENT_NAMES, JSON, ItemRef
from agents_eventlog.eventlog.recorded_event import RecordedEvent, occurred_at
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import branch_tree, redactions
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN

FIRST_OF_EACH_EVENT = """
    SELECT position, index_in_event, number FROM items
    WHERE segment_id = ? AND number BETWEEN ? AND ? AND (index_in_event = 0 OR number = ?)
"""
FIRST_PAYLOADS = FIRST_OF_EACH_EVENT.replace(
    "SELECT position,", f"SELECT {redactions.NEWEST_OF.format('items.position')} AS position,"
)
"""Where the payload of each event is, in a log with redactions."""
PAYLOADS = """
    ({first}) AS i
    JOIN events AS e ON e.position = i.position
    ORDER BY i.number
"""
REFS = """
    SELECT position, index_in_event FROM items
    WHERE segment_id = ? AND number BETWEEN ? AND ?
    ORDER BY number
"""
# Most turns begin with the first item of an event. One statement reads these, other turns take two: a join
# would return the data of a large event with each of its items.
FIRST_USER_ITEMS = """
    items AS i JOIN events AS {o} ON {o}.position = i.position {join}
    WHERE i.segment_id = ? AND i.type = 'user' AND i.turn > 0 AND i.number <= ? AND i.index_in_event = 0
"""
USER_ITEMS = """
    SELECT turn, position, index_in_event FROM items
    WHERE segment_id = ? AND type = 'user' AND turn > 0 AND number <= ? AND index_in_event > 0
    ORDER BY turn
"""
USER_EVENTS = """
    events AS {o} {join} WHERE {o}.position IN (
        SELECT position FROM items
        WHERE segment_id = ? AND type = 'user' AND turn > 0 AND number <= ? AND index_in_event > 0
    )
"""
ENTRIES = """
    SELECT turn, position, index_in_event FROM items
    WHERE segment_id = ? AND number BETWEEN ? AND ?
    ORDER BY number
"""
EVENTS_OF_ENTRIES = """
    events AS {o}
    {join}
    WHERE {o}.position IN (
        SELECT position FROM items WHERE segment_id = ? AND number BETWEEN ? AND ?
    )
"""
ITEMS_TO_FORK = """
    SELECT e.session_id, i.position, i.index_in_event, i.type, i.tool_name, i.is_tool_call
    FROM items AS i
    JOIN events AS e ON e.position = i.position
    WHERE i.segment_id = ? AND i.number BETWEEN ? AND ?
    ORDER BY i.number
"""
TIMES_OF_ITEMS = """
    SELECT i.number, i.turn, e.position, e.recorded_at, e.metadata
    FROM items AS i
    JOIN events AS e ON e.position = i.position
    WHERE i.segment_id = ? AND i.number BETWEEN ? AND ?
    ORDER BY i.number DESC
"""
VERSION = "SELECT version FROM events WHERE position = ?"
ENTRY_COLUMNS = "{o}.position, {o}.version, {o}.branch_id, {o}.recorded_at, {o}.metadata"
STRUCTURE = """
    SELECT turn, type, tool_name FROM items
    WHERE segment_id = ? AND number BETWEEN ? AND ?
    ORDER BY number
"""
TOOL_CALLS = """
    SELECT turn, tool_name, type FROM items
    WHERE segment_id = ? AND number BETWEEN ? AND ?
        AND (is_tool_call = 1 OR type = 'tool_search_output')
    ORDER BY number
"""
BRANCHES = """
    SELECT branch_id, length, turn, created_at FROM branches
    WHERE session_id = ? AND is_live = 1
    ORDER BY created_position, branch_id <> 'main', branch_id
"""
LIVE_BRANCHES_OF_SESSION = """
    SELECT b.session_id, b.branch_id, b.from_branch_id, b.segment_id, b.length
    FROM branches AS b
    JOIN sessions AS s ON s.session_id = b.session_id AND s.deleted_at IS NULL
    WHERE b.session_id = ? AND b.is_live = 1
    ORDER BY b.session_id, b.created_position, b.branch_id <> 'main', b.branch_id
"""
LIVE_BRANCHES = LIVE_BRANCHES_OF_SESSION.replace("b.session_id = ? AND ", "")
ALL_BRANCHES = """
    SELECT branch_id, segment_id, length, turn, is_live, from_branch_id, created_at, updated_at,
        created_position
    FROM branches
    WHERE session_id = ?
    ORDER BY created_position, branch_id <> 'main', branch_id
"""
FORKS_AND_ENDS = """
    WHERE session_id = ? AND type IN ('branch_created', 'branch_deleted', 'session_cleared',
        'session_deleted', 'session_restored')
    ORDER BY version
"""
UNDONE_AND_REDONE = """
    WHERE session_id = ? AND type IN ('turn_undone', 'turn_redone')
    ORDER BY version
"""
LAST_CHANGES = f"""
    WHERE session_id = ?
        AND (COALESCE(branch_id, 'main') = ? OR type = 'session_cleared')
        AND type IN ({ITEM_EVENT_NAMES}, 'item_popped', 'turn_undone', 'session_cleared')
    ORDER BY version DESC
"""
TIME = "SELECT recorded_at, metadata FROM events WHERE position = ?"
ORIGINS = "SELECT position, branch_id, metadata FROM events WHERE session_id = ?"
TIMES = "SELECT position, recorded_at, metadata FROM events WHERE session_id = ?"
TIMES_OF_FORKED = """
    SELECT e.position, e.recorded_at, e.metadata
    FROM segments AS g
    JOIN items AS i ON i.segment_id = g.segment_id AND i.position < g.segment_id
    JOIN events AS e ON e.position = i.position
    WHERE g.session_id = ?
"""
OWNERS = """
    SELECT session_id, user_id FROM sessions
    WHERE session_id > ? AND deleted_at IS NULL
    ORDER BY session_id
    LIMIT ?
"""
OWNER = "SELECT session_id, user_id FROM sessions WHERE session_id = ? AND deleted_at IS NULL"
SEGMENTS = "SELECT segment_id FROM segments WHERE session_id = ? ORDER BY segment_id"
TOOL_ITEM_COLUMNS = """
    i.position, i.index_in_event, i.type, i.tool_name, i.is_tool_call, {o}.recorded_at, {o}.metadata
"""
TOOL_ITEMS = """
    items AS i
    JOIN events AS {{o}} ON {{o}}.position = i.position
    {{join}}
    WHERE i.segment_id = ? AND i.position >= i.segment_id
        AND (i.is_tool_call = 1 OR i.type IN ({outputs}))
    ORDER BY i.number
"""
GENERATED_BRANCH = """
    SELECT session_id, is_live FROM branches
    WHERE branch_id = ? AND is_generated = 1
    ORDER BY is_live DESC, session_id
"""
SESSION_EXISTS = "SELECT 1 FROM sessions WHERE session_id = ?"
BRANCH_EXISTS = "SELECT 1 FROM branches WHERE session_id = ? AND branch_id = ?"


T = TypeVar("T")
Instead: TypeAlias = Callable[[Withheld], JSON]
"""Returns the replacement for a content that cannot be read, by the reason."""


class Place(NamedTuple):
    """
    The state of a branch: whether the session and the branch exist, its end and last turn.

    is_expired: the session has expired and is not cleared yet; it is read as if it were.
    """

    session_exists: bool
    is_deleted: bool
    cleared_version: int
    last_branch_id: str
    branch_exists: bool
    pointer: Pointer
    turn: int
    is_expired: bool = False


class LiveBranch(NamedTuple):
    """A live branch: where it ends, and the branch that it was created from."""

    session_id: str
    branch_id: str
    from_branch_id: str | None
    pointer: Pointer


class BranchRow(NamedTuple):
    """A row of ``branches``, live or not."""

    branch_id: str
    segment_id: int | None
    length: int
    turn: int
    is_live: int
    from_branch_id: str | None
    created_at: int
    updated_at: int
    created_position: int


class _ByPosition(dict[int, T]):
    """Values by the position of their event; a missing event is named."""

    def __missing__(self, position: int) -> T:
        raise UndecodableEventError(
            f"the event at position {position} is missing: run `eventlog verify` for details",
            position=position,
        )


_NOWHERE = Place(
    session_exists=False,
    is_deleted=False,
    cleared_version=0,
    last_branch_id=MAIN,
    branch_exists=False,
    pointer=Pointer(None, 0),
    turn=0,
)


class UserItem(NamedTuple):
    """The content of a user item that opens a turn, and when it happened (µs since 1970 UTC)."""

    turn: int
    content: JSON
    occurred_at: int


class Entry(NamedTuple):
    """
    An item of a branch, with the event that added it.

    occurred_at: microseconds since 1970 UTC.
    content: None if it cannot be read, for the reason in ``withheld``.
    """

    turn: int
    ref: ItemRef
    version: int
    branch_id: str
    occurred_at: int
    metadata_json: str | None
    content: JSON
    withheld: Withheld | None
    is_redacted: bool

    @property
    def is_erased(self) -> bool:
        """Whether the content was erased."""
        return self.withheld == "erased"


def place(tx: Transaction, session_id: str, branch_id: str) -> Place:
    """Return the state of a branch; without the branch or the session, that of an empty branch."""
    session, branch = conversations.both(tx, session_id, branch_id)
    if session is None:
        return _NOWHERE
    is_deleted = session.deleted_at is not None
    if session.expires_after is not None and session.is_expired(tx.now):
        cleared_version = session_version(tx, session_id) + 1  # that of the clearing to come
        return _NOWHERE._replace(
            session_exists=True, cleared_version=cleared_version, is_expired=True
        )
    if branch is None or not branch.is_live or is_deleted:
        last = session.cleared_version, session.branch_id
        return Place(True, is_deleted, *last, False, _NOWHERE.pointer, 0)
    pointer = Pointer(branch.segment_id, branch.length)
    # By position, because each call of a session does this: names take twice as long.
    return Place(
        True, False, session.cleared_version, session.branch_id, True, pointer, branch.turn
    )


def items(
    tx: Transaction,
    pointer: Pointer,
    newest: int | None = None,
    *,
    session_id: str | None = None,
    instead: Instead | None = None,
) -> list[JSON]:
    """
    Return a branch's items in order: all, or the newest ones. Reads about one row an item.

    newest: maximum number of items; None returns all.
    session_id: the session that is read; in a sealed log, the content of another one does not open.
    instead: returns the value for an item whose content cannot be read, by the reason. By default an
        UndecodableEventError or KeysMissingError is raised, so that a caller cannot mistake an incomplete
        history for a complete one.
    """
    found: list[JSON] = []
    for span in _newest_spans(tx, pointer, newest):
        where = (*span, span.first)
        some = payloads.items(
            *(tx, _first(tx), where),
            first=span.first,
            last=span.last,
            session_id=session_id,
        )
        found += _items_one_by_one(tx, span, session_id, instead) if some is None else some
    return found


def recent(tx: Transaction, pointer: Pointer, newest: int | None, since: int) -> int:
    """
    Return how many of a branch's newest items belong to turns to which an item was added since a time.

    newest: maximum number of items, as in ``items``. since: microseconds since 1970 UTC.

    Reads one row an item, up to the newest one that is older.
    """
    kept, turn = 0, None
    for span in reversed(_newest_spans(tx, pointer, newest)):
        for number, of_turn, position, recorded_at, metadata in tx.execute(TIMES_OF_ITEMS, span):
            is_old = recorded_at < since or occurred_at(recorded_at, metadata, position) < since
            if is_old and of_turn != turn:
                return kept
            if not is_old:
                turn = of_turn
            kept = pointer.length - number + 1
    return kept


def _items_one_by_one(
    tx: Transaction, span: branch_tree.Span, session_id: str | None, instead: Instead | None
) -> Iterable[JSON]:
    columns = "i.index_in_event, i.number"
    source = PAYLOADS.format(first=_first(tx))
    rows = list(
        payloads.stored(
            *(tx, source, (*span, span.first)),
            columns=columns,
            session_id=session_id,
            is_opened=False,
        )
    )
    if not rows or rows[0][1] != span.first:
        raise ProjectionError(
            "the tables lack items of a branch: `eventlog replay` rebuilds them",
            projection="conversations",
        )
    decoded = _decoded(tx, rows, may_lack=instead is not None)
    # An event's items follow each other, so the next event's first number ends them.
    ends = [*(row[1] for row in rows[1:]), span.last + 1]
    for (index, number, *_), items, end in zip(rows, decoded, ends, strict=True):
        count = end - number
        if instead is not None and isinstance(items, str):
            yield from [instead(items)] * count
        else:
            yield from items[index : index + count]


def _first(tx: Transaction) -> str:
    """Return the statement for the payload and the number of the first item of each event in a span."""
    return FIRST_PAYLOADS if redactions.exist(tx) else FIRST_OF_EACH_EVENT


def _decoded(
    tx: Transaction, rows: Sequence[Row], *, may_lack: bool
) -> list[list[JSON] | Withheld]:
    """Return the items of each row's event, or if ``may_lack`` why they cannot be read."""
    stored = [row[2:] for row in rows]
    if not may_lack:
        return [*codec.decode_items([_present(tx, *each) for each in stored])]
    contents = [payloads.content(tx, each[-1]) for each in stored]
    present = iter(
        codec.decode_items(
            [
                (*each[:-1], content)
                for each, content in zip(stored, contents, strict=True)
                if not isinstance(content, str)
            ]
        )
    )
    return [content if isinstance(content, str) else next(present) for content in contents]


def refs(tx: Transaction, pointer: Pointer, newest: int | None = None) -> list[ItemRef]:
    """Return references to a branch's items in order: all, or the newest ones."""
    return [
        ItemRef(*row) for span in _newest_spans(tx, pointer, newest) for row in tx.all(REFS, span)
    ]


def item(
    tx: Transaction,
    ref: ItemRef,
    *,
    session_id: str | None = None,
    instead: Instead | None = None,
) -> JSON:
    """Return an item's content; ``session_id`` and ``instead`` as in ``items``."""
    row = redactions.at(tx, ref.position, session_id=session_id, is_opened=False)
    row = row or (ref.position, "", 0, None)
    if instead is not None and isinstance(content := payloads.content(tx, row[-1]), str):
        return instead(content)
    return codec.decode_items([_present(tx, *row)])[0][ref.index]


def contents(
    tx: Transaction, refs: Iterable[ItemRef], *, session_id: str | None = None
) -> list[JSON]:
    """Return the contents of items, in the order of the references."""
    found: list[JSON] = []
    for position, some in groupby(refs, key=lambda ref: ref.position):
        row = redactions.at(tx, position, session_id=session_id) or (position, "", 0, None)
        items = codec.decode_items([_present(tx, *row)])[0]
        found += [items[ref.index] for ref in some]
    return found


def last_changes(tx: Transaction, session_id: str, branch_id: str) -> Iterator[RecordedEvent]:
    """Return the events that changed the items of a branch, the newest first."""
    return map(RecordedEvent, payloads.event_rows(tx, LAST_CHANGES, (session_id, branch_id)))


def opening(tx: Transaction, pointer: Pointer, turn: int) -> ItemRef | None:
    """Return the user item that opens a turn of a branch; None if the branch has no such turn."""
    before = branch_tree.before_turn(tx, pointer, turn)
    if before is None:
        return None
    found = branch_tree.newest(tx, branch_tree.at_length(tx, pointer, before.length + 1))
    return None if found is None else found.ref


def entries(
    tx: Transaction,
    pointer: Pointer,
    first_turn: int | None = None,
    last_turn: int | None = None,
    *,
    newest: int | None = None,
    session_id: str | None = None,
) -> list[Entry]:
    """
    Return a branch's items with their events, in order: all, or those of a range of turns.

    newest: maximum number of items, the last ones; None returns all.
    """
    start = 0
    if first_turn is not None and first_turn > 0:
        before = branch_tree.before_turn(tx, pointer, first_turn)
        start = pointer.length if before is None else before.length
    if last_turn is not None:
        pointer = branch_tree.before_turn(tx, pointer, last_turn + 1) or pointer
    if newest is not None:
        start = max(start, pointer.length - newest)
    found: list[Entry] = []
    for span in _newest_spans(tx, pointer, max(0, pointer.length - start)):
        source = redactions.present(tx, EVENTS_OF_ENTRIES)
        columns = redactions.present(tx, ENTRY_COLUMNS)
        rows = list(
            payloads.stored(
                *(tx, source, span), columns=columns, session_id=session_id, is_opened=False
            )
        )
        decoded = _decoded(tx, [row[3:] for row in rows], may_lack=True)
        events: _ByPosition[tuple[Row, list[JSON] | Withheld]] = _ByPosition(
            {row[0]: (row, items) for row, items in zip(rows, decoded, strict=True)}
        )
        listed = tx.all(ENTRIES, span)
        is_forked = bool(listed) and listed[0][1] < span.segment_id
        forked_at = tx.all(VERSION, (span.segment_id,))[0][0] if is_forked else 0
        redacted = redactions.of_items(tx, (ItemRef(*ref) for _, *ref in listed))
        for turn, position, index in listed:
            (_, version, branch_id, recorded_at, metadata, *_), items = events[position]
            if position < span.segment_id:  # of another session, which this one was forked from
                version, branch_id = forked_at, MAIN
            found.append(
                Entry(
                    turn=turn,
                    ref=(ref := ItemRef(position, index)),
                    version=version,
                    branch_id=branch_id or MAIN,
                    occurred_at=occurred_at(recorded_at, metadata, position),
                    metadata_json=metadata,
                    content=None if isinstance(items, str) else _item_at(items, ref),
                    withheld=items if isinstance(items, str) else None,
                    is_redacted=ref in redacted,
                )
            )
    return found


def _item_at(items: Sequence[JSON], ref: ItemRef) -> JSON:
    if ref.index < len(items):
        return items[ref.index]
    raise UndecodableEventError(
        f"the event at position {ref.position} has no item {ref.index}: "
        "run `eventlog verify` for details",
        position=ref.position,
    )


def user_items(
    tx: Transaction,
    pointer: Pointer,
    text: str | None = None,
    *,
    session_id: str | None = None,
) -> list[UserItem]:
    """
    Return the items that open a branch's turns, with their contents, by turn.

    text: skip events that cannot hold it, ASCII letters compared case-insensitively. The events that are
        left may not hold it either.
    session_id: the session that is read, as in ``items``.
    """
    condition, needle = ("", ()) if text is None else payloads.narrowed(tx, text)
    first = redactions.present(tx, f"{FIRST_USER_ITEMS} {condition} ORDER BY i.turn")
    others = redactions.present(tx, f"{USER_EVENTS} {condition}")
    columns = redactions.present(tx, "{o}.recorded_at, {o}.metadata, {o}.position")

    def read(source: str, columns: str, parameters: tuple[object, ...]) -> Iterable[Row]:
        return payloads.stored(tx, source, parameters, columns=columns, session_id=session_id)

    events: list[Row] = []
    places: list[
        tuple[int, int, int]
    ] = []  # the turn, the number of its event, and the index in that
    for span in _spans_in_order(tx, pointer):
        where = (span.segment_id, span.last)
        opening = list(read(first, f"i.turn, {columns}", (*where, *needle)))
        places += [(row[0], number, 0) for number, row in enumerate(opening, len(events))]
        events += [row[1:] for row in opening]
        if rest := tx.all(USER_ITEMS, where):
            within = list(read(others, columns, (*where, *needle)))
            numbers = {row[2]: number for number, row in enumerate(within, len(events))}
            events += within
            places += [(turn, numbers[at], index) for turn, at, index in rest if at in numbers]
            places.sort()
    for row in events:
        if row[-1] is None:
            _present(tx, *row[3:])
    times = [
        at if metadata is None else occurred_at(at, metadata, position)
        for at, metadata, position, *_ in events
    ]
    contents = codec.contents(events, [(number, index) for _, number, index in places])
    return [
        UserItem(turn, content, times[number])
        for (turn, number, _), content in zip(places, contents, strict=True)
    ]


def items_to_fork(tx: Transaction, pointer: Pointer) -> list[Row]:
    """Return (session, position, index, type, tool name, is a call) of each item of a branch, in order."""
    return [row for span in _spans_in_order(tx, pointer) for row in tx.all(ITEMS_TO_FORK, span)]


def structure(tx: Transaction, pointer: Pointer) -> list[tuple[int, str, str | None]]:
    """Return (turn, type, tool name) of each of a branch's items, in order."""
    return [row for span in _spans_in_order(tx, pointer) for row in tx.all(STRUCTURE, span)]


def tool_calls(tx: Transaction, pointer: Pointer) -> list[tuple[int, str | None, str]]:
    """Return (turn, tool name, item type) of a branch's tool calls, and of searches for tools, in order."""
    return [row for span in _spans_in_order(tx, pointer) for row in tx.all(TOOL_CALLS, span)]


def live_branches(tx: Transaction, session_id: str | None = None) -> list[LiveBranch]:
    """Return the live branches of a session, or of all, in the order of creation within each session."""
    of_session = () if session_id is None else (session_id,)
    rows = tx.all(LIVE_BRANCHES_OF_SESSION if of_session else LIVE_BRANCHES, of_session)
    return [LiveBranch(row[0], row[1], row[2], Pointer(row[3], row[4])) for row in rows]


def all_branches(tx: Transaction, session_id: str) -> list[BranchRow]:
    """Return all branches that a session ever had, in the order of creation."""
    return [BranchRow(*row) for row in tx.all(ALL_BRANCHES, (session_id,))]


def forks_and_ends(tx: Transaction, session_id: str) -> Iterator[RecordedEvent]:
    """Return the events that created or ended branches of a session, or all of them, in order."""
    return map(RecordedEvent, payloads.event_rows(tx, FORKS_AND_ENDS, (session_id,)))


def undone_and_redone(tx: Transaction, session_id: str) -> Iterator[RecordedEvent]:
    """Return the events that undid or redid turns of a session, in order."""
    return map(RecordedEvent, payloads.event_rows(tx, UNDONE_AND_REDONE, (session_id,)))


def owners(
    tx: Transaction, *, session_id: str | None = None, after: str = "", limit: int = 1
) -> list[tuple[str, str | None]]:
    """Return (session id, user id) of one session, or of the next ones after an id, if not deleted."""
    if session_id is not None:
        return [(found, user_id) for found, user_id in tx.all(OWNER, (session_id,))]
    return [(found, user_id) for found, user_id in tx.all(OWNERS, (after, limit))]


def tool_items(tx: Transaction, session_id: str, outputs: Sequence[str]) -> Iterator[list[Row]]:
    """
    Yield the rows of tool calls and their outputs, one list for each event, segment by segment.

    outputs: the item types of outputs.

    Items of a fork are only those that were added to it.

    A row is (position, index, type, tool name, is a call, recorded_at, metadata) and the payload.
    """
    listed = TOOL_ITEMS.format(outputs=", ".join(f"'{kind}'" for kind in outputs))
    source = redactions.present(tx, listed)
    columns = redactions.present(tx, TOOL_ITEM_COLUMNS)
    for segment in tx.all(SEGMENTS, (session_id,)):
        found = payloads.stored(tx, source, segment, columns=columns)
        for _, rows in groupby(found, key=itemgetter(0)):
            yield list(rows)


def time(tx: Transaction, position: int) -> int:
    """Return when an event happened (µs since 1970 UTC)."""
    recorded_at, metadata = tx.execute(TIME, (position,)).fetchone()
    return occurred_at(recorded_at, metadata, position)


def origins(tx: Transaction, session_id: str) -> dict[int, tuple[str, str | None]]:
    """Return the branch and the actor of a session's events, by position."""
    found = {}
    for position, branch_id, metadata in tx.execute(ORIGINS, (session_id,)):
        bound = {} if metadata is None else codec.decode_recording(metadata, position=position)
        actor = bound.get("actor")
        found[position] = (branch_id or MAIN, actor if isinstance(actor, str) else None)
    return found


def times(tx: Transaction, session_id: str) -> dict[int, int]:
    """
    Return when each event of a session happened (µs since 1970 UTC), by its position.

    Includes the events that added the items of a fork.
    """
    rows = [*tx.all(TIMES, (session_id,)), *tx.all(TIMES_OF_FORKED, (session_id,))]
    return _ByPosition(
        {
            position: occurred_at(recorded_at, metadata, position)
            for position, recorded_at, metadata in rows
        }
    )


def _spans_in_order(tx: Transaction, pointer: Pointer) -> Sequence[branch_tree.Span]:
    return list(branch_tree.spans(tx, pointer))[::-1]


def _newest_spans(tx: Transaction, pointer: Pointer, newest: int | None) -> list[branch_tree.Span]:
    """Return the spans that hold the newest items, in order."""
    start = 1 if newest is None else max(1, pointer.length - newest + 1)
    found = []
    for span in branch_tree.spans(tx, pointer):
        if span.last >= start:
            found.append(span._replace(first=max(span.first, start)))
        if span.first <= start:
            break
    return found[::-1]


def _present(
    tx: Transaction, position: int, type_name: str, schema_version: int, data: bytes | None
) -> codec.StoredPayload:
    if isinstance(data, Envelope):
        data = payloads.opened(tx, data)
    if data is None:
        raise UndecodableEventError(
            f"the content of the event at position {position} was erased", position=position
        )
    return position, type_name, schema_version, data
