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


LONGEST_EXPIRY_SECONDS: Final = 300 * 366 * 86_400

ExpirySeconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_EXPIRY_SECONDS)]
"""An age in seconds, whose sum with a time fits a 64-bit column."""


class ItemRef(msgspec.Struct, frozen=True, order=True, array_like=True):
    """An item's identity: the position of the event that added it, and its index in that event, from 0."""

    position: Count
    index: Count


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """The base of all events. ``schema_version`` is the version of the event's fields."""

    schema_version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        """Return the event's name, e.g. "items_added", which is stored in the column ``type``."""
        return str(cls.__struct_config__.tag)


class ItemsAdded(Event, frozen=True, tag="items_added"):
    """These items were added at the end of a branch, in this order."""

    items: list[JSON]


class ItemPopped(Event, frozen=True, tag="item_popped"):
    """
    The newest item of a branch was removed.

    ``emptied_turn``: the item's turn, if no item of the turn is left; otherwise None.
    """

    item: ItemRef
    emptied_turn: Count | None = None


class ItemsReplaced(Event, frozen=True, tag="items_replaced"):
    """
    The items at the end of a branch, from ``first_item`` on, were replaced by these.

    ``first_item``: None if all items of the branch were replaced.
    """

    first_item: ItemRef | None
    items: list[JSON]


class TurnUndone(Event, frozen=True, tag="turn_undone"):
    """
    The last turn of a branch was removed.

    ``turn``: its number, from 1. ``removed``: its items, up to the end of the branch.
    """

    turn: Count
    removed: list[ItemRef]


class TurnRedone(Event, frozen=True, tag="turn_redone"):
    """
    An undone turn was added again at the end of its branch, as new items.

    ``turn``: its number, from 1. ``undone_version``: the version of its ``TurnUndone`` event.
    """

    turn: Count
    undone_version: Count
    items: list[JSON]


class ItemRedacted(Event, frozen=True, tag="item_redacted"):
    """
    The content of an item was replaced by a placeholder, on every branch.

    ``item``: the item. ``items``: all items of the item's event, with the placeholders of those that were
    redacted. They replace the items of that event, so that its payload can be erased.
    """

    item: ItemRef
    items: list[JSON]
    reason: str | None = None


class ItemsWithheld(Event, frozen=True, tag="items_withheld"):
    """
    All items of an event were replaced by placeholders, because they are erased and forks still have them.

    ``position``: the event. ``items``: the placeholders of all of its items.
    """

    position: Count
    items: list[JSON]
    reason: str | None = None


class ForkedItems(msgspec.Struct, frozen=True):
    """
    Items of a session that a fork of it has.

    ``items``: for each one its position, its index in that event, and its place in ``kinds`` of the fork.
    """

    session_id: str
    items: list[tuple[Count, Count, Count]]


class SessionForked(Event, frozen=True, tag="session_forked"):
    """
    The session was created with the items of another session's branch, which it refers to.

    ``origins``: the items in order, by the session that added them; a fork can be forked again. ``kinds``:
    the smallest item of each kind that occurs. More items follow in further events of this type.
    """

    from_session_id: str
    from_branch_id: str
    origins: list[ForkedItems]
    kinds: list[JSON]


class ForkCreated(Event, frozen=True, tag="fork_created"):
    """Another session was created with the items of a branch of this one."""

    session_id: str
    branch_id: str


class BranchCreated(Event, frozen=True, tag="branch_created"):
    """
    A branch was created, with the items of another branch up to and including ``last_item``.

    ``last_item``: None for an empty branch. ``before_turn``: the first turn that is not on it, from 1; None
    if it was created at the end. ``generated``: whether its id was auto-generated.
    """

    branch_id: str
    from_branch_id: str
    last_item: ItemRef | None
    before_turn: Count | None = None
    generated: bool = False


class BranchSwitched(Event, frozen=True, tag="branch_switched"):
    """A session object switched from one branch to another."""

    from_branch_id: str
    branch_id: str


class BranchDeleted(Event, frozen=True, tag="branch_deleted"):
    """A branch was deleted. Its id cannot be used again."""

    branch_id: str


class SessionCleared(Event, frozen=True, tag="session_cleared"):
    """
    All items and branches were deleted; the session continues on an empty main.

    ``expired``: because the session had not been used for long enough to expire.
    """

    schema_version: ClassVar[int] = 2

    expired: bool = False


class ExpirySet(Event, frozen=True, tag="expiry_set"):
    """
    The session expires when it has not been used for this long. This event does not count as use.

    ``expires_after_seconds``: None: never.
    """

    expires_after_seconds: ExpirySeconds | None


class SessionDeleted(Event, frozen=True, tag="session_deleted"):
    """The session was deleted. Its usage and cost still count."""

    reason: str | None = None


class SessionRestored(Event, frozen=True, tag="session_restored"):
    """The deletion of the session was undone."""


class MetadataSet(Event, frozen=True, tag="metadata_set"):
    """
    The session's user id or metadata was set. None: not changed. An empty value: removed.

    ``salt``: random, so that a guessed user id cannot be confirmed with the digest, which erasing keeps.
    """

    schema_version: ClassVar[int] = 2

    user_id: str | None = None
    metadata: dict[str, JSON] | None = None
    salt: str | None = None


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The tokens of one model request, or of several (``requests``) if only their sum is known.

    ``input_tokens`` includes cached input and cache writes, and ``output_tokens`` includes reasoning. The
    details are stored as the provider reports them. ``cost_usd``: None if the price is unknown.
    ``price_source``: the origin of the price. ``endpoint``, ``service_tier``: the base URL and the service
    tier of the model's server; None for the defaults.
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
    The usage of a run's model requests was recorded, each request once.

    ``turn``: the turn of the requests, from 1; 0 before the first user item; None if the turn had been
    removed. ``interrupted``: whether the run waited for an approval; no longer recorded.
    """

    run_id: str
    turn: Count | None
    requests: list[RequestUsage]
    interrupted: bool = False


class UsageCorrection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A correction of one recorded request. None: not changed.

    ``request``: the position of its ``UsageRecorded`` event, and its index in that event.
    """

    request: ItemRef
    response_id: str | None = None
    model: str | None = None
    agent: str | None = None
    endpoint: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None
    price_source: str | None = None


class UsageCorrected(Event, frozen=True, tag="usage_corrected"):
    """Details of recorded requests were corrected, for example their agent, model or cost."""

    requests: list[UsageCorrection]
    reason: str | None = None


class ContentErased(Event, frozen=True, tag="content_erased"):
    """
    The payloads of the events at these positions were erased.

    ``structures``: for each of them, its items without their content, so that a replay numbers items and
    turns as before. ``payload_bytes``: the size of the erased payloads. ``is_whole``: whether the whole
    session was erased, and cannot be restored. ``pseudonym``: replaces the user id of an erased session, so
    that its usage still counts as that of one user. ``key_ids``: in hex, the keys of a sealed log that were
    destroyed with it, so that no copy of the log can be read with them. ``expired_version``: the version of
    the ``SessionCleared`` event with which the session expired, once no content from before it is left.
    """

    schema_version: ClassVar[int] = 5

    positions: list[int]
    reason: str | None = None
    structures: list[JSON] = []
    payload_bytes: Count = 0
    is_whole: bool = False
    pseudonym: str | None = None
    key_ids: list[str] = []
    expired_version: Count | None = None


class HistoryImported(Event, frozen=True, tag="history_imported"):
    """
    A history was imported: the next events of the session.

    ``source``: "openai-agents" for the SDK's tables. ``counts``: the number of each kind of imported row.
    The metadata of each imported event has the time at which it happened.
    """

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
        ItemRedacted,
        BranchCreated,
        BranchSwitched,
        BranchDeleted,
        SessionCleared,
        ExpirySet,
        SessionDeleted,
        SessionRestored,
        MetadataSet,
        UsageRecorded,
        UsageCorrected,
        ContentErased,
        HistoryImported,
        SessionForked,
        ForkCreated,
        ItemsWithheld,
    )
}

ITEM_EVENTS: Final[tuple[type[ItemsAdded | ItemsReplaced | TurnRedone], ...]] = (
    ItemsAdded,
    ItemsReplaced,
    TurnRedone,
)
"""The events that add items."""

ITEM_EVENT_NAMES: Final = ", ".join(f"'{kind.type_name()}'" for kind in ITEM_EVENTS)
"""Their types, as a list in SQL."""
