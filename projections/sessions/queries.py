"""
Queries on sessions: by user, metadata, time, size and text, in order, page by page.

A page is read in one of two ways. Usually an index walks the sessions in their order, and each is checked
against the other filters. If one filter matches few sessions (rare metadata), these are checked and sorted
instead. The matches of each filter are counted first, up to a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from agents_eventlog.eventlog import _logging, codec, payloads, sealing
from agents_eventlog.eventlog.appender import complete_checkpoint
from agents_eventlog.eventlog.cipher.envelope import Withheld
from agents_eventlog.eventlog.codec import StoredPayload
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.transaction import Row, Transaction
from agents_eventlog.projections.conversations import branch_tree, forks, labels, redactions
from agents_eventlog.projections.conversations.branch_tree import Pointer
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.search import index as search_index
from agents_eventlog.projections.search import text as search_text
from agents_eventlog.projections.sessions.filters import Period, SessionCursor, SessionQuery

FEW: Final = 2_000
"""Up to this number of sessions is checked and sorted, rather than all walked in order."""

TITLE: Final = "title"
"""The member of the metadata that holds a session's title."""

SCANNED_AT_ONCE: Final = 500
"""How many sessions one unit of work searches for a text."""

COLUMNS = """
    s.session_id, s.created_at, s.updated_at, s.user_id, s.metadata, s.branch_id, s.item_count,
    s.turn_count, s.branch_count, s.deleted_at,
    CASE WHEN s.is_filled = 1 AND s.deleted_at IS NULL THEN s.updated_at + s.expires_after END
"""
WITH_LEAF = """
    SELECT session_id FROM session_labels WHERE path = ? AND value = ?
"""
OF_USER = """
    SELECT session_id FROM sessions WHERE user_id = ? AND deleted_at IS NULL
"""
ALL_OF_USER = """
    SELECT session_id, created_at FROM sessions WHERE user_id = ? ORDER BY created_at, session_id
"""
HAS_EXPIRED = """
    (
        s.expires_after IS NOT NULL AND s.is_filled = 1 AND s.deleted_at IS NULL
        AND s.updated_at + COALESCE(s.expires_after, 0) <= ?
    )
"""
HAS_LEAF = """
    ? = (SELECT l.value FROM session_labels AS l WHERE l.session_id = s.session_id AND l.path = ?)
"""
END_OF_BRANCH = "SELECT segment_id, length FROM branches WHERE session_id = ? AND branch_id = ?"
FIRST_USER_ITEM = """
    SELECT position, index_in_event FROM items
    WHERE segment_id = ? AND type = 'user' AND number <= ?
    ORDER BY turn
    LIMIT 1
"""
MESSAGES = """
    segments AS g
    JOIN items AS i ON i.segment_id = g.segment_id
    JOIN events AS {o} ON {o}.position = i.position
    {join}
    WHERE g.session_id = ? AND i.type IN ('user', 'assistant')
"""

USAGE = """
    SELECT session_id, SUM(total_tokens), SUM(cost_nanos),
        SUM(CASE WHEN cost_usd IS NULL THEN requests ELSE 0 END)
    FROM usage
    WHERE session_id IN ({})
    GROUP BY session_id
"""

Condition: TypeAlias = tuple[str, tuple[Any, ...]]
"""A piece of SQL, and its parameters."""

log = _logging.get_logger("eventlog.projections")


class Session(NamedTuple):
    """
    A session's row, in the order of COLUMNS; times in microseconds since 1970 UTC.

    expires_at: None for never, or without anything that could expire. One that has expired and is not
    cleared yet has no items and branches.
    withheld: why the user id and metadata cannot be read.
    """

    session_id: str
    created_at: int
    updated_at: int
    user_id: str | None
    metadata: str | None
    branch_id: str
    item_count: int
    turn_count: int
    branch_count: int
    deleted_at: int | None
    expires_at: int | None
    withheld: Withheld | None = None

    def place(self, query: SessionQuery) -> SessionCursor:
        """Return the session's place in the order of a query."""
        time = self.updated_at if query.order_by == "updated_at" else self.created_at
        return SessionCursor(time, self.session_id)


class SessionUsage(NamedTuple):
    """All usage of a session, including that of removed items."""

    total_tokens: int = 0
    cost_nanos: int = 0
    unpriced_requests: int = 0


class Page(NamedTuple):
    """Some sessions in order, and where the next page begins; None at the end."""

    sessions: list[Session]
    after: SessionCursor | None


def page(tx: Transaction, query: SessionQuery) -> Page:
    """
    Return the next sessions that a query asks for, up to its limit.

    With a text a page may be short or empty although more follow: each call searches a bounded number.
    """
    query = _named(tx, query)
    if query.text is None:
        found = _find(tx, query)
        is_full = bool(found) and len(found) == query.limit
        return Page(found, found[-1].place(query) if is_full else None)
    candidates = _find(tx, replace(query, limit=SCANNED_AT_ONCE))
    filled = [each.session_id for each in candidates if each.branch_count]
    holding = sessions_with_text(tx, filled, query.text)
    found = [each for each in candidates if each.session_id in holding]
    if query.limit is not None and len(found) > query.limit:
        found = found[: query.limit]
        return Page(found, found[-1].place(query) if found else None)
    is_full = len(candidates) == SCANNED_AT_ONCE
    return Page(found, candidates[-1].place(query) if is_full else None)


def of_user(tx: Transaction, user_id: str) -> list[str]:
    """Return the ids of all sessions of a user, deleted ones included, oldest first."""
    found = {
        row for name in sealing.user_names(tx, user_id) for row in tx.all(ALL_OF_USER, (name,))
    }
    return [session_id for session_id, _ in sorted(found, key=lambda row: (row[1], row[0]))]


def sessions_with_text(tx: Transaction, session_ids: Sequence[str], text: str) -> set[str]:
    """Return those of the sessions in which a live user or assistant item holds a text; a scan."""
    condition, needle = payloads.narrowed(tx, text)
    source = redactions.present(tx, f"{MESSAGES} {condition}")
    log.info("sessions.scanned", sessions=len(session_ids))
    return {
        session_id
        for session_id in session_ids
        if any(
            search_text.ascii_folded(text) in search_text.ascii_folded(each)
            for message in _messages(tx, source, (session_id, *needle))
            for each in search_text.message_texts(message)
        )
    }


def _messages(tx: Transaction, source: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
    for index, *stored in payloads.stored(tx, source, parameters, columns="i.index_in_event"):
        if stored[-1] is not None:
            yield codec.decode_items([tuple(stored)])[0][index]


# -- finding --------------------------------------------------------------------------------------


def _find(tx: Transaction, query: SessionQuery) -> list[Session]:
    sql, parameters = statement(query, _narrowest(tx, query))
    return [_opened(tx, Session(*row)) for row in tx.all(sql, parameters)]


def _named(tx: Transaction, query: SessionQuery) -> SessionQuery:
    """Return a query with what the tables may hold for its user id and metadata, and the time."""
    users = () if query.user_id is None else sealing.user_names(tx, query.user_id)
    leaves = tuple(sealing.leaf_names(tx, leaf) for leaf in query.leaves)
    return replace(query, user_names=users, leaf_names=leaves, now=tx.now)


def _opened(tx: Transaction, session: Session) -> Session:
    """Return a session's row as it reads now, its user id and metadata opened where they are sealed."""
    if session.expires_at is not None and session.expires_at <= tx.now:
        session = session._replace(item_count=0, turn_count=0, branch_count=0, branch_id=MAIN)
    if session.metadata is None or not session.metadata.startswith("["):
        return session
    found = labels.read(tx, session.session_id, session.user_id, session.metadata)
    metadata = None if found.metadata is None else codec.encode_json(found.metadata).decode()
    return session._replace(user_id=found.user_id, metadata=metadata, withheld=found.withheld)


def statement(query: SessionQuery, few: Condition | None) -> Condition:
    """Return the SQL for a query: over the few sessions that are given, or along its order."""
    source, conditions = "sessions AS s", list(_conditions(query))
    if few is not None:
        source = f"({few[0]}) AS few CROSS JOIN sessions AS s"  # which SQLite does not turn around
        conditions = [("s.session_id = few.session_id", ()), *conditions]
    way = ("DESC", "ASC") if not query.is_reversed else ("ASC", "DESC")
    sql = f"""
        SELECT {COLUMNS} FROM {source}
        WHERE {" AND ".join(condition for condition, _ in conditions)}
        ORDER BY s.{query.order_by} {way[0]}, s.session_id {way[1]}
    """
    parameters = [value for _, values in conditions for value in values]
    if few is not None:
        parameters = [*few[1], *parameters]
    if query.limit is not None:
        sql, parameters = f"{sql} LIMIT ?", [*parameters, query.limit]
    return sql, tuple(parameters)


def _narrowest(tx: Transaction, query: SessionQuery) -> Condition | None:
    """Return the filter that leaves the fewest sessions, if it leaves few."""
    conditions = [*_narrowing(query), *_narrowing_by_text(tx, query.text)]
    counted = [(_count(tx, condition), condition) for condition in conditions]
    count, condition = min(counted, key=itemgetter(0), default=(FEW + 1, None))
    return condition if count <= FEW else None


def _count(tx: Transaction, condition: Condition) -> int:
    """Count up to one more than few."""
    sql, parameters = condition
    row = tx.one(f"SELECT COUNT(*) FROM ({sql} LIMIT ?) AS first_ones", (*parameters, FEW + 1))
    return 0 if row is None else int(row[0])


def _narrowing(query: SessionQuery) -> Iterator[Condition]:
    """Return what finds a query's sessions by an index other than that of its order."""
    for names in query.leaf_names or ((leaf,) for leaf in query.leaves):
        yield _any_of(WITH_LEAF, names)
    if query.is_deleted:
        return  # the other indexes are of those that are not
    if query.user_id is not None and query.order_by != "updated_at":
        users = query.user_names or (query.user_id,)
        yield _any_of(OF_USER, [(name,) for name in users])
    for column, period in query.periods.items():
        if column != query.order_by:
            within = list(_within(column, period))
            conditions = " AND ".join(["deleted_at IS NULL", *(sql for sql, _ in within)])
            sql = f"SELECT session_id FROM sessions WHERE {conditions}"
            yield sql, tuple(value for _, values in within for value in values)


def _narrowing_by_text(tx: Transaction, text: str | None) -> Iterator[Condition]:
    """Return what finds the sessions whose items may hold a text, if the index shows all of them."""
    expression = None if text is None or tx.engine.is_sealed(tx) else search_index.expression(text)
    built_to = None if expression is None else search_index.built_to(tx)
    if expression is None or built_to is None or built_to != complete_checkpoint(tx):
        return
    if search_index.count(tx, expression, FEW + 1) <= FEW:
        yield forks.with_forks(tx, tx.engine.full_text.sessions(expression))


def _conditions(query: SessionQuery) -> Iterator[Condition]:
    """Return what a session must be. A column in an expression is not looked for in an index."""
    yield f"s.deleted_at IS {'NOT NULL' if query.is_deleted else 'NULL'}", ()
    if query.session_id is not None:
        yield "s.session_id = ?", (query.session_id,)
    if query.user_id is not None:
        user_id = "s.user_id" if query.order_by == "updated_at" else "s.user_id || ''"
        yield _equals(user_id, query.user_names or (query.user_id,))
    for column, period in query.periods.items():
        name = f"s.{column}" if column == query.order_by else f"s.{column} + 0"
        yield from _within(name, period)
    if query.min_items is not None:
        yield "s.item_count >= ?", (query.min_items,)
        if query.min_items:
            yield f"NOT {HAS_EXPIRED}", (query.now,)
    for names in query.leaf_names or ((leaf,) for leaf in query.leaves):
        conditions = " OR ".join([HAS_LEAF] * len(names))
        yield f"({conditions})", tuple(part for path, value in names for part in (value, path))
    if query.after is not None:
        time, session_id = query.after
        name = f"s.{query.order_by}"
        farther, later = ("<", ">") if not query.is_reversed else (">", "<")
        yield f"{name} {farther}= ?", (time,)
        yield f"({name} <> ? OR s.session_id {later} ?)", (time, session_id)


def _any_of(query: str, parameters: Sequence[Sequence[Any]]) -> Condition:
    """Return the query for the sessions that a query finds with any of these parameters."""
    return " UNION ".join([query] * len(parameters)), tuple(chain.from_iterable(parameters))


def _equals(column: str, names: Sequence[str]) -> Condition:
    if len(names) == 1:
        return f"{column} = ?", tuple(names)
    return f"{column} IN ({', '.join('?' * len(names))})", tuple(names)


def _within(column: str, period: Period) -> Iterator[Condition]:
    if period.start is not None:
        yield f"{column} >= ?", (period.start,)
    if period.end is not None:
        yield f"{column} < ?", (period.end,)


# -- details of each ------------------------------------------------------------------------------


def titles(tx: Transaction, sessions: Sequence[Session]) -> list[str | None]:
    """Return the title in the metadata of each session, or its first user message; None without either."""
    given = [_given_title(session) for session in sessions]
    others = [each for each, title in zip(sessions, given, strict=True) if title is None]
    first = iter(_first_messages(tx, others))
    return [next(first) if title is None else title for title in given]


def _given_title(session: Session) -> str | None:
    if session.withheld is not None and session.metadata is None:
        return f"({session.withheld})"
    metadata = {} if session.metadata is None else codec.decode_metadata(session.metadata)
    title = metadata.get(TITLE)
    return title if isinstance(title, str) and title else None


def _first_messages(tx: Transaction, sessions: Sequence[Session]) -> list[str | None]:
    """Return the first user message of each session, one line; None without one."""
    places = [_first_user_item(tx, session) for session in sessions]
    withheld: dict[int, str] = {}
    present: dict[int, StoredPayload] = {}
    for session, place in zip(sessions, places, strict=True):
        if place is None:
            continue
        row = redactions.at(tx, place[0], session_id=session.session_id, is_opened=False)
        content = payloads.content(tx, None if row is None else row[-1])
        if row is None or isinstance(content, str):
            withheld[place[0]] = str(content)
        else:
            present[place[0]] = (*row[:-1], content)
    decoded = dict(zip(present, codec.decode_items([*present.values()]), strict=True))
    return [_title_of(place, decoded, withheld) for place in places]


def _title_of(
    place: Row | None, decoded: Mapping[int, list[JSON]], withheld: Mapping[int, str]
) -> str | None:
    if place is None:
        return None
    if place[0] in decoded:
        return search_text.title(decoded[place[0]][place[1]])
    why = withheld[place[0]]
    return None if why == "erased" else f"({why})"


def _first_user_item(tx: Transaction, session: Session) -> Row | None:
    """Return (position, index) of the first user item on the branch last switched to."""
    end = tx.one(END_OF_BRANCH, (session.session_id, session.branch_id))
    if end is None or session.branch_count == 0:
        return None
    for span in reversed(list(branch_tree.spans(tx, Pointer(*end)))):
        if row := tx.one(FIRST_USER_ITEM, (span.segment_id, span.last)):
            return row
    return None


def usage(tx: Transaction, sessions: Sequence[Session]) -> list[SessionUsage]:
    """Return the usage of each session."""
    session_ids = [session.session_id for session in sessions]
    sql = USAGE.format(", ".join("?" * len(sessions)))
    found = {session_id: SessionUsage(*sums) for session_id, *sums in tx.all(sql, session_ids)}
    return [found.get(session_id, SessionUsage()) for session_id in session_ids]
