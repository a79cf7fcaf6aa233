"""
What the calls of the SDK's class, and queries on usage, return: dicts whose keys a type checker knows.

Times are as in the SDK: UTC, ``YYYY-MM-DD HH:MM:SS``.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from agents_eventlog.eventlog.events import JSON


class TurnRow(TypedDict):
    """
    A turn of a branch.

    content: the user text; in lists cut after 100 characters, as in the SDK.
    full_content: the whole content of the user item: a str, or the list of its parts.
    can_branch: always True.
    """

    turn: int
    content: str
    full_content: JSON
    timestamp: str
    can_branch: bool


class BranchRow(TypedDict):
    """A live branch: the number of its items and turns, those that it shares included."""

    branch_id: str
    message_count: int
    user_turns: int
    is_current: bool
    created_at: str


class ItemRow(TypedDict):
    """The type of an item and, for a call, the name of the tool."""

    type: str
    tool_name: str | None


class SessionUsage(TypedDict):
    """The usage of all active turns."""

    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    total_turns: int


class UsageOfTurn(TypedDict, total=False):
    """The usage of one active turn; empty without recorded usage. Only lists have ``user_turn_number``."""

    user_turn_number: int
    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: JSON
    output_tokens_details: JSON


class UsageSums(TypedDict):
    """
    Sums of usage.

    total_cost: USD, of the requests with a known price; unpriced_requests: the number of the others.
    cached_tokens and cache_write_tokens are part of input_tokens, reasoning_tokens of output_tokens.
    """

    total_runs: int
    total_requests: int
    total_tokens: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_cost: float
    unpriced_requests: int


class UsageGroup(UsageSums):
    """The sums of a group, with the keys that it was grouped by; an unknown value is None."""

    session_id: NotRequired[str]
    user_id: NotRequired[str | None]
    branch_id: NotRequired[str]
    turn: NotRequired[int | None]
    run_id: NotRequired[str]
    model: NotRequired[str | None]
    agent: NotRequired[str | None]
    day: NotRequired[str]
    month: NotRequired[str]


class UsageStats(UsageSums):
    """Sums of usage, and with ``by`` those of each group."""

    groups: NotRequired[list[UsageGroup]]
