"""
The views ``v_messages``, ``v_turns``, ``v_sessions`` and ``v_costs``, for tools that speak SQL.

``docs/sql-views.md`` documents each column; a change there needs a new version here. The views read the
tables of ``Conversations`` and ``Usage``, so they are never behind them and need no upkeep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Final

from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.conversations import redactions

if TYPE_CHECKING:
    from agents_eventlog.eventlog.events import Event
    from agents_eventlog.eventlog.recorded_event import RecordedEvent
    from agents_eventlog.eventlog.storage.engine import Engine
    from agents_eventlog.eventlog.storage.transaction import Transaction

# The last item of a segment that is on the branch; NULL if the branch does not lead through the segment.
# The inner query depends on the branch, so that a condition on sessions limits the work.
LAST_ON_BRANCH: Final = """
    (
        WITH RECURSIVE line (segment_id, last) AS (
            SELECT b.segment_id, b.length
            UNION
            SELECT p.parent_segment_id,
                CASE WHEN p.parent_length < line.last THEN p.parent_length ELSE line.last END
            FROM line
            JOIN segments AS p ON p.segment_id = line.segment_id
        )
        SELECT last FROM line WHERE line.segment_id = g.segment_id
    )
"""
# An expired session is shown as it will be once it is cleared: without items and branches.
HAS_EXPIRED: Final = """
    (
        s.is_filled = 1 AND s.deleted_at IS NULL AND s.expires_after IS NOT NULL
        AND s.updated_at + COALESCE(s.expires_after, 0) <= {now}
    )
"""
ON_BRANCHES: Final = f"""
    FROM branches AS b
    JOIN sessions AS s
        ON s.session_id = b.session_id AND s.deleted_at IS NULL AND NOT {HAS_EXPIRED}
    JOIN segments AS g ON g.session_id = b.session_id
    JOIN items AS i ON i.segment_id = g.segment_id AND i.number <= {LAST_ON_BRANCH}
    JOIN events AS e ON e.position = i.position
    WHERE b.is_live = 1
"""
MESSAGES: Final = """
    SELECT
        b.session_id,
        s.user_id,
        b.branch_id,
        CASE WHEN b.branch_id = s.branch_id THEN 1 ELSE 0 END AS is_current_branch,
        i.number,
        i.turn,
        i.type,
        i.tool_name,
        i.is_tool_call,
        {text} AS text,
        {item} AS item,
        {time} AS created_at,
        i.position,
        i.index_in_event
    {on_branches}
"""
USED_IN_TURN: Final = """
    (
        SELECT {sum} FROM usage AS u
        WHERE u.session_id = m.session_id AND u.branch_id = m.branch_id AND u.turn = m.turn
            AND u.is_live = 1
    )
"""
# Grouped before any content is read: the database sorts what it groups.
TURNS: Final = """
    SELECT
        m.session_id,
        m.user_id,
        m.branch_id,
        m.is_current_branch,
        m.turn,
        (
            SELECT {text}
            FROM items AS i
            JOIN events AS e ON e.position = i.position
            WHERE i.segment_id = m.user_segment_id AND i.number = m.user_number
        ) AS user_text,
        m.item_count,
        m.tool_calls,
        {started_at} AS started_at,
        {ended_at} AS ended_at,
        {usage}
    FROM (
        SELECT
            b.session_id,
            s.user_id,
            b.branch_id,
            CASE WHEN b.branch_id = s.branch_id THEN 1 ELSE 0 END AS is_current_branch,
            i.turn,
            MAX(CASE WHEN i.type = 'user' THEN i.segment_id END) AS user_segment_id,
            MAX(CASE WHEN i.type = 'user' THEN i.number END) AS user_number,
            COUNT(*) AS item_count,
            SUM(i.is_tool_call) AS tool_calls,
            MIN({time}) AS started_at,
            MAX({time}) AS ended_at
        {on_branches}
        GROUP BY b.session_id, s.user_id, b.branch_id, s.branch_id, i.turn
    ) AS m
"""
EXPIRES_AT: Final = """
    CASE WHEN s.is_filled = 1 AND s.deleted_at IS NULL THEN s.updated_at + s.expires_after END
"""
USED_IN_SESSION: Final = "(SELECT {sum} FROM usage AS u WHERE u.session_id = s.session_id)"
SESSIONS: Final = """
    SELECT
        s.session_id,
        s.user_id,
        s.metadata,
        CASE WHEN {has_expired} THEN 'main' ELSE s.branch_id END AS current_branch_id,
        CASE WHEN {has_expired} THEN 0 ELSE s.item_count END AS item_count,
        CASE WHEN {has_expired} THEN 0 ELSE s.turn_count END AS turn_count,
        CASE WHEN {has_expired} THEN 0 ELSE s.branch_count END AS branch_count,
        {created_at} AS created_at,
        {updated_at} AS updated_at,
        {deleted_at} AS deleted_at,
        {erased_at} AS erased_at,
        {expires_at} AS expires_at,
        {usage}
    FROM sessions AS s
"""
COSTS: Final = """
    SELECT
        u.session_id,
        s.user_id,
        u.branch_id,
        u.turn,
        CASE
            WHEN u.is_live = 1 AND s.deleted_at IS NULL AND NOT COALESCE({has_expired}, 1 = 0) THEN 1
            ELSE 0
        END AS is_active,
        u.run_id,
        {time} AS occurred_at,
        NULLIF(u.model, '') AS model,
        NULLIF(u.agent, '') AS agent,
        u.endpoint,
        u.service_tier,
        u.response_id,
        u.requests,
        u.input_tokens,
        u.output_tokens,
        u.total_tokens,
        u.cached_input_tokens,
        u.cache_write_tokens,
        u.reasoning_tokens,
        u.cost_usd,
        u.price_source,
        u.position,
        u.index_in_event
    FROM usage AS u
    LEFT JOIN sessions AS s ON s.session_id = u.session_id
"""
# The event of a redaction is called "e" here, too, so that the same expression reads its payload.
PRESENT: Final = """
    CASE
        WHEN EXISTS (SELECT 1 FROM redactions AS r WHERE r.position = i.position)
        THEN (SELECT {content} FROM events AS e WHERE e.position = {newest})
        ELSE {content}
    END
"""
SUMS: Final = {
    "requests": "COALESCE(SUM(u.requests), 0)",
    "input_tokens": "COALESCE(SUM(u.input_tokens), 0)",
    "output_tokens": "COALESCE(SUM(u.output_tokens), 0)",
    "total_tokens": "COALESCE(SUM(u.total_tokens), 0)",
    "cost_usd": "COALESCE(SUM(u.cost_nanos), 0) / 1000000000.0",
    "unpriced_requests": (
        "COALESCE(SUM(CASE WHEN u.cost_usd IS NULL THEN u.requests ELSE 0 END), 0)"
    ),
}


class Views(Projection):
    """The views of the file; they have no rows of their own."""

    name: ClassVar[str] = "views"
    version: ClassVar[int] = 3  # 2: redactions; 3: expired sessions
    schema: ClassVar[Sequence[str]] = ()
    handles: ClassVar[Sequence[type[Event]]] = ()

    def apply(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        """Do nothing: there are no rows."""

    def views(self, engine: Engine) -> Mapping[str, str]:
        """Return each view's name and its query, in an order in which they can be created."""
        return _queries(engine)


@cache  # engines have no state, and making the texts takes longer than creating the views
def _queries(engine: Engine) -> Mapping[str, str]:
    times = ("created_at", "updated_at", "deleted_at", "erased_at")
    has_expired = HAS_EXPIRED.format(now=engine.current_time)
    on_branches = ON_BRANCHES.format(now=engine.current_time)
    return {
        "v_messages": MESSAGES.format(
            text=_present(engine.item_text),
            item=_present(engine.item_json),
            time=engine.iso_time(engine.event_time),
            on_branches=on_branches,
        ),
        "v_turns": TURNS.format(
            text=_present(engine.item_text),
            time=engine.event_time,
            started_at=engine.iso_time("m.started_at"),
            ended_at=engine.iso_time("m.ended_at"),
            on_branches=on_branches,
            usage=_sums(USED_IN_TURN),
        ),
        "v_sessions": SESSIONS.format(
            usage=_sums(USED_IN_SESSION),
            has_expired=has_expired,
            expires_at=engine.iso_time(EXPIRES_AT),
            **{name: engine.iso_time(f"s.{name}") for name in times},
        ),
        "v_costs": COSTS.format(time=engine.iso_time("u.occurred_at"), has_expired=has_expired),
    }


def _present(content: str) -> str:
    """Return an expression for the content of an item, or of the placeholder in its place."""
    return PRESENT.format(content=content, newest=redactions.NEWEST_OF.format("i.position"))


def _sums(query: str) -> str:
    return ",\n".join(f"{query.format(sum=each)} AS {name}" for name, each in SUMS.items())
