"""
The vocabulary: every event of a conversation.

An event is a frozen record of one fact, named in the past tense, already resolved: it says which item
was removed, not "remove one", so that no later rule can change its meaning. Its tag is stored in
the column ``type``, its fields as JSON in ``data``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, TypeAlias

import msgspec

JSON: TypeAlias = Any
"""Any value that ``json.loads`` can return."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A count that every JSON reader holds exactly, and whose sums fit a 64-bit column."""


class ItemRef(msgspec.Struct, frozen=True, order=True, array_like=True):
    """An item's identity: the position of the event that added it, and its index there, from 0."""

    position: Count
    index: Count


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """The base of all events. Subclasses set their tag; ``schema_version`` counts their shapes."""

    schema_version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        """Return the event's name in the column ``type``."""
        return str(cls.__struct_config__.tag)


class ItemsAdded(Event, frozen=True, tag="items_added"):
    """Items were added at the end of a branch, in this order, in one action."""

    items: list[JSON]


class ItemPopped(Event, frozen=True, tag="item_popped"):
    """The newest item of a branch was removed. ``emptied_turn`` is its turn if it was the turn's last."""

    item: ItemRef
    emptied_turn: Count | None = None


class ItemsReplaced(Event, frozen=True, tag="items_replaced"):
    """From one item on (None: from the first), the branch's items were replaced by these."""

    first_item: ItemRef | None
    items: list[JSON]


class TurnUndone(Event, frozen=True, tag="turn_undone"):
    """The last turn of a branch was removed: these items, from the first of them to the branch's end."""

    turn: Count
    removed: list[ItemRef]


class TurnRedone(Event, frozen=True, tag="turn_redone"):
    """
    An undone turn was added again, as these new items at the end of the branch.

    ``undone_version``: of the session, after the ``turn_undone``.
    """

    turn: Count
    undone_version: Count
    items: list[JSON]


class BranchCreated(Event, frozen=True, tag="branch_created"):
    """A branch now shares another branch's items, up to and including one of them (None: none)."""

    branch_id: str
    from_branch_id: str
    last_item: ItemRef | None
    before_turn: Count | None = None
    generated: bool = False


class BranchSwitched(Event, frozen=True, tag="branch_switched"):
    """A program moved from one branch to another."""

    from_branch_id: str
    branch_id: str


class BranchDeleted(Event, frozen=True, tag="branch_deleted"):
    """A branch was deleted. Its id stays reserved."""

    branch_id: str


class SessionCleared(Event, frozen=True, tag="session_cleared"):
    """All branches were emptied and deleted; the session starts again on main."""


class SessionDeleted(Event, frozen=True, tag="session_deleted"):
    """The session was deleted. Its usage and cost stay counted."""

    reason: str | None = None


class SessionRestored(Event, frozen=True, tag="session_restored"):
    """The deletion of the session was undone."""


class MetadataSet(Event, frozen=True, tag="metadata_set"):
    """
    The session's user id or metadata was set: None leaves one unchanged, an empty value removes it.

    ``salt``: random, so that the digest, which stays after an erasure, cannot confirm a guessed user id.
    """

    schema_version: ClassVar[int] = 2

    user_id: str | None = None
    metadata: dict[str, JSON] | None = None
    salt: str | None = None


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The tokens of one model request, or of ``requests`` of them where only their sum is known.

    Cached input and cache writes are part of ``input_tokens``, reasoning of ``output_tokens``. The
    details are the provider's own, unchanged. ``cost_usd`` is None where no price is known. ``endpoint`` is
    the base URL of the model's server, and ``service_tier`` the tier, where they are not the default ones.
    """

    requests: Count = 1
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    input_tokens_details: dict[str, JSON] | None = None
    output_tokens_details: dict[str, JSON] | None = None
    response_id: str | None = None
    model: str | None = None
    agent: str | None = None
    endpoint: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None
    price_source: str | None = None


class UsageRecorded(Event, frozen=True, tag="usage_recorded"):
    """
    A run's model requests were recorded; each request is recorded once.

    ``turn`` is the turn that they belong to, from 1 (0: before the first user item), or None if that
    turn had been removed. ``interrupted``: the run waited for an approval; no longer recorded.
    """

    run_id: str
    turn: Count | None
    requests: list[RequestUsage]
    interrupted: bool = False


class UsageCorrection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A correction of one recorded request. None leaves a field unchanged."""

    request: ItemRef
    response_id: str | None = None
    model: str | None = None
    agent: str | None = None
    endpoint: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None
    price_source: str | None = None


class UsageCorrected(Event, frozen=True, tag="usage_corrected"):
    """
    Recorded requests were corrected: their agent, model or cost.

    ``request`` names one by the position of its ``usage_recorded`` and its index there.
    """

    requests: list[UsageCorrection]
    reason: str | None = None


class ContentErased(Event, frozen=True, tag="content_erased"):
    """
    The payloads of these events were blanked for good.

    ``structures`` keeps the shape of each payload, in the same order: its items without their
    content, so that a replay numbers items and turns as before. ``is_whole``: the whole
    session was erased and cannot be restored. ``payload_bytes``: the size of the blanked payloads.
    ``pseudonym``: replaces the user id of the whole session, so that its usage stays that of one user.
    """

    schema_version: ClassVar[int] = 3

    positions: list[int]
    reason: str | None = None
    structures: list[JSON] = []
    payload_bytes: Count = 0
    is_whole: bool = False
    pseudonym: str | None = None


class HistoryImported(Event, frozen=True, tag="history_imported"):
    """The next events were imported; the metadata of each says when it happened."""

    source: str
    counts: dict[str, int]


EVENT_TYPES: dict[str, type[Event]] = {
    kind.type_name(): kind
    for kind in (
        ItemsAdded,
        ItemPopped,
        ItemsReplaced,
        TurnUndone,
        TurnRedone,
        BranchCreated,
        BranchSwitched,
        BranchDeleted,
        SessionCleared,
        SessionDeleted,
        SessionRestored,
        MetadataSet,
        UsageRecorded,
        UsageCorrected,
        ContentErased,
        HistoryImported,
    )
}

ITEM_EVENTS: Final[tuple[type[ItemsAdded | ItemsReplaced | TurnRedone], ...]] = (
    ItemsAdded,
    ItemsReplaced,
    TurnRedone,
)
"""The events whose payload holds items."""

ITEM_EVENT_NAMES: Final = ", ".join(f"'{kind.type_name()}'" for kind in ITEM_EVENTS)
"""Their types, as a list in SQL."""
