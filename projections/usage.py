"""Tokens and cost of every model request, by request, turn, branch, run and session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from eventlog.events import (
    BranchDeleted,
    Event,
    ItemPopped,
    JSON,
    RequestUsage,
    SessionCleared,
    UsageRecorded,
)
from eventlog.log import Recorded
from eventlog.store import Transaction
from projections.shape import json_text

USAGE = """
    CREATE TABLE usage (
        position             INTEGER NOT NULL,
        index_in_event       INTEGER NOT NULL,
        session_id           TEXT    NOT NULL,
        branch_id            TEXT    NOT NULL,
        turn                 INTEGER,
        is_live              INTEGER NOT NULL,
        run_id               TEXT    NOT NULL,
        is_interrupted       INTEGER NOT NULL,
        requests             INTEGER NOT NULL,
        input_tokens         INTEGER NOT NULL,
        output_tokens        INTEGER NOT NULL,
        total_tokens         INTEGER NOT NULL,
        cached_input_tokens  INTEGER NOT NULL,
        cache_write_tokens   INTEGER NOT NULL,
        reasoning_tokens     INTEGER NOT NULL,
        input_token_details  TEXT,
        output_token_details TEXT,
        response_id          TEXT,
        model                TEXT,
        agent                TEXT,
        cost_usd             REAL,
        price_source         TEXT,
        occurred_at          INTEGER NOT NULL,
        PRIMARY KEY (position, index_in_event)
    ) STRICT, WITHOUT ROWID
"""
USAGE_OF_TURN = "CREATE INDEX usage_of_turn ON usage (session_id, branch_id, turn)"
INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * 23)})"  # noqa: S608
END_TURN = """
    UPDATE usage SET is_live = 0
    WHERE session_id = ? AND branch_id = ? AND turn = ? AND is_live = 1
"""
END_BRANCH = """
    UPDATE usage SET is_live = 0 WHERE session_id = ? AND branch_id = ? AND is_live = 1
"""
END_SESSION = "UPDATE usage SET is_live = 0 WHERE session_id = ? AND is_live = 1"


class Usage:
    """
    One row for each model request (or each sum of requests, where only that is known).

    ``is_live`` tells whether the turn that it belongs to still stands; what was spent stays either way.
    """

    name: ClassVar[str] = "usage"
    version: ClassVar[int] = 1
    schema: ClassVar[Sequence[str]] = (USAGE, USAGE_OF_TURN)
    handles: ClassVar[Sequence[type[Event]]] = (
        UsageRecorded,
        ItemPopped,
        BranchDeleted,
        SessionCleared,
    )

    def apply(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Add rows for what was used; end rows whose turn, branch or history is gone."""
        rows: list[tuple[Any, ...]] = []
        for recorded in events:
            event = recorded.event
            if isinstance(event, UsageRecorded):
                rows.extend(_rows(recorded, event))
                continue
            end = _end_of(recorded, event)
            if end is not None:
                tx.executemany(INSERT, rows)
                rows = []
                tx.execute(*end)
        tx.executemany(INSERT, rows)


def _end_of(recorded: Recorded, event: Event | None) -> tuple[str, tuple[Any, ...]] | None:
    """Return the statement that ends what this event takes away, if it takes away anything."""
    session_id, branch_id = recorded.session_id, recorded.branch_id or "main"
    if isinstance(event, ItemPopped) and event.emptied_turn is not None:
        return END_TURN, (session_id, branch_id, event.emptied_turn)
    if isinstance(event, BranchDeleted):
        return END_BRANCH, (session_id, event.branch_id)
    if isinstance(event, SessionCleared):
        return END_SESSION, (session_id,)
    return None


def _rows(recorded: Recorded, event: UsageRecorded) -> list[tuple[Any, ...]]:
    return [
        (
            recorded.position,
            index,
            recorded.session_id,
            recorded.branch_id or "main",
            event.turn,
            int(event.turn is not None),
            event.run_id,
            int(event.interrupted),
            *_numbers(request),
            _details(request.input_tokens_details),
            _details(request.output_tokens_details),
            request.response_id,
            request.model,
            request.agent,
            request.cost_usd,
            request.price_source,
            recorded.occurred_at,
        )
        for index, request in enumerate(event.requests)
    ]


def _numbers(request: RequestUsage) -> tuple[int, ...]:
    return (
        request.requests,
        request.input_tokens,
        request.output_tokens,
        request.total_tokens,
        request.cached_input_tokens,
        request.cache_write_tokens,
        request.reasoning_tokens,
    )


def _details(details: dict[str, JSON] | None) -> str | None:
    return None if details is None else json_text(details)
