"""Random histories: what sensible programs record, and nonsense that fits nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    ContentErased,
    ExpirySet,
    ForkCreated,
    ForkedItems,
    HistoryImported,
    ItemPopped,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    SessionForked,
    SessionRestored,
    TurnRedone,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
)
from agents_eventlog.eventlog.events import ITEM_EVENTS
from agents_eventlog.eventlog.item_kind import smallest
from agents_eventlog.projections.conversations.placeholder import placeholder
from agents_eventlog.projections.reference import State
from tests.history import Entry, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agents_eventlog.eventlog import Event
    from agents_eventlog.eventlog.recorded_event import RecordedEvent
    from agents_eventlog.projections.reference import Branch, Session

USER = {"role": "user", "content": "hello"}
ITEMS: st.SearchStrategy[Any] = st.sampled_from(
    [
        USER,
        USER,
        {"role": "assistant", "content": "hi"},
        {"type": "function_call", "name": "look", "namespace": "web", "arguments": "{}"},
        {"type": "function_call_output", "output": "sunny"},
        {"type": "mcp_call", "name": "find", "server_label": "docs"},
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": float("nan")},
        {},
        None,
        "text",
    ]
)
BATCHES = st.lists(ITEMS, min_size=1, max_size=4)
SESSION_IDS = st.sampled_from(["a", "a", "a", "b"])
BRANCH_IDS = st.sampled_from(["main", "x", "y", "z"])
REFS = st.builds(ItemRef, st.integers(0, 30), st.integers(0, 3))
MAYBE_REFS = st.none() | REFS
COUNTS = st.integers(0, 9)
REQUESTS = st.builds(
    RequestUsage,
    requests=COUNTS,
    total_tokens=COUNTS,
    response_id=st.none() | st.text(max_size=3).filter(str.isprintable),
    cost_usd=st.none() | st.floats(0, 10),
    model=st.sampled_from([None, "small", "large", ""]),
    agent=st.sampled_from([None, "host", "guest"]),
    input_tokens_details=st.none() | st.just({"cached_tokens": 3}),
)
CORRECTIONS = st.builds(
    UsageCorrected,
    requests=st.lists(
        st.builds(
            UsageCorrection,
            request=st.builds(ItemRef, st.integers(1, 30), st.integers(0, 1)),
            response_id=st.none() | st.just("r"),
            model=st.sampled_from([None, "small", "large", ""]),
            agent=st.sampled_from([None, "host"]),
            cost_usd=st.none() | st.floats(0, 10),
            price_source=st.none() | st.just("list"),
        ),
        max_size=3,
    ),
)
LABELS = st.none() | st.sampled_from(["alice", "bob", ""])
LEAVES = st.sampled_from([1, 1.0, 2.5, True, None, "1", "", [], [1, "x"], {}])
METADATA = st.none() | st.dictionaries(
    st.sampled_from("ab"),
    LEAVES | st.dictionaries(st.sampled_from(["a", "b.c", "$"]), LEAVES, max_size=2),
    max_size=2,
)

NONSENSE: st.SearchStrategy[Event] = st.one_of(
    st.builds(ItemsAdded, items=st.lists(ITEMS, max_size=3)),
    st.builds(ItemPopped, item=REFS, emptied_turn=st.none() | st.integers(0, 3)),
    st.builds(ItemsReplaced, first_item=MAYBE_REFS, items=st.lists(ITEMS, max_size=3)),
    st.builds(
        ItemRedacted,
        item=st.builds(ItemRef, st.integers(100, 120), st.integers(0, 3)),
        items=st.lists(ITEMS, max_size=3),
        reason=LABELS,
    ),
    st.builds(TurnUndone, turn=st.integers(0, 3), removed=st.lists(REFS, max_size=2)),
    st.builds(
        TurnRedone,
        turn=st.integers(0, 3),
        undone_version=st.integers(0, 30),
        items=st.lists(ITEMS, max_size=3),
    ),
    st.builds(
        BranchCreated,
        branch_id=BRANCH_IDS,
        from_branch_id=BRANCH_IDS,
        last_item=MAYBE_REFS,
        generated=st.booleans(),
    ),
    st.builds(BranchSwitched, from_branch_id=BRANCH_IDS, branch_id=BRANCH_IDS),
    st.builds(BranchDeleted, branch_id=BRANCH_IDS),
    st.builds(SessionCleared, expired=st.booleans()),
    st.builds(ExpirySet, expires_after_seconds=st.none() | st.integers(1, 10**9)),
    st.builds(SessionDeleted, reason=LABELS),
    st.just(SessionRestored()),
    st.builds(MetadataSet, user_id=LABELS, metadata=METADATA),
    st.builds(
        UsageRecorded,
        run_id=st.sampled_from(["r1", "r2"]),
        turn=st.none() | st.integers(0, 3),
        requests=st.lists(REQUESTS, max_size=2),
        interrupted=st.booleans(),
    ),
    CORRECTIONS,
    st.builds(
        ContentErased,
        positions=st.lists(st.integers(1, 30), max_size=2),
        is_whole=st.booleans(),
        pseudonym=st.sampled_from([None, "erased-1", "erased-2"]),
        expired_version=st.none() | st.integers(1, 10),
    ),
    st.just(HistoryImported(source="elsewhere", counts={"items": 1})),
    st.builds(ForkCreated, session_id=SESSION_IDS, branch_id=BRANCH_IDS),
)


def _add(draw: Any, session: Session | None, branch_id: str) -> Event:
    return ItemsAdded(items=draw(BATCHES))


def _branch(session: Session | None, branch_id: str) -> Branch | None:
    return None if session is None else session.branches.get(branch_id)


def _pop(draw: Any, session: Session | None, branch_id: str) -> Event:
    branch = _branch(session, branch_id)
    if branch is None or not branch.items:
        return _add(draw, session, branch_id)
    *before, last = branch.items
    is_last = not before or before[-1].turn != last.turn
    return ItemPopped(item=last.ref, emptied_turn=last.turn if is_last else None)


def _create(draw: Any, session: Session | None, branch_id: str) -> Event:
    branch = _branch(session, branch_id)
    refs = [None, *([] if branch is None else [item.ref for item in branch.items])]
    taken = {} if session is None else session.branches
    return BranchCreated(
        branch_id=next(f"b{n}" for n in range(len(taken) + 1) if f"b{n}" not in taken),
        from_branch_id=branch_id,
        last_item=draw(st.sampled_from(refs[::-1])),
        generated=draw(st.booleans()),
    )


def _replace(draw: Any, session: Session | None, branch_id: str) -> Event:
    branch = _branch(session, branch_id)
    refs = [None, *([] if branch is None else [item.ref for item in branch.items])]
    first = draw(st.sampled_from(refs[::-1]))
    return ItemsReplaced(first_item=first, items=draw(st.lists(ITEMS, max_size=3)))


def _undo(draw: Any, session: Session | None, branch_id: str) -> Event:
    branch = _branch(session, branch_id)
    if branch is None or not branch.items:
        return _add(draw, session, branch_id)
    turn = branch.turn
    return TurnUndone(turn=turn, removed=[each.ref for each in branch.items if each.turn == turn])


def _redo(draw: Any, session: Session | None, branch_id: str) -> Event:
    used = [] if session is None else session.usage
    undone = [each for each in used if each.undone_version and each.branch_id == branch_id]
    if not undone:
        return _undo(draw, session, branch_id)
    last = max(undone, key=lambda each: each.undone_version or 0)
    return TurnRedone(
        turn=last.turn or 0, undone_version=last.undone_version or 0, items=draw(BATCHES)
    )


def _switch(draw: Any, session: Session | None, branch_id: str) -> Event:
    return BranchSwitched(from_branch_id="main", branch_id=branch_id)


def _delete(draw: Any, session: Session | None, branch_id: str) -> Event:
    return BranchDeleted(branch_id=branch_id)


def _clear(draw: Any, session: Session | None, branch_id: str) -> Event:
    return SessionCleared(expired=draw(st.booleans()))


def _correct(draw: Any, session: Session | None, branch_id: str) -> Event:
    used = [] if session is None else session.usage
    if not used:
        return _use(draw, session, branch_id)
    known = draw(st.sampled_from(used))
    event = draw(CORRECTIONS)
    better = draw(
        st.builds(
            UsageCorrection,
            request=st.just(ItemRef(known.position, known.index)),
            model=st.sampled_from([None, "small", "large"]),
            cost_usd=st.none() | st.floats(0, 10),
        )
    )
    return UsageCorrected(requests=[*event.requests, better])


def _use(draw: Any, session: Session | None, branch_id: str) -> Event:
    branch = _branch(session, branch_id)
    return UsageRecorded(
        run_id=draw(st.sampled_from(["r1", "r2"])),
        turn=None if branch is None else branch.turn,
        requests=draw(st.lists(REQUESTS, min_size=1, max_size=2)),
    )


COMMANDS: list[Callable[[Any, Session | None, str], Event]] = [
    *(3 * [_add]),
    *(3 * [_pop]),
    *(2 * [_create]),
    *(2 * [_replace]),
    *(2 * [_undo]),
    *(2 * [_redo]),
    _switch,
    _delete,
    _clear,
    _use,
    _correct,
]


@st.composite
def histories(draw: Any, *, nonsense: bool = True, max_size: int = 30) -> list[RecordedEvent]:
    """Return a log's events: commands that the present allows, and nonsense between."""
    state = State()
    versions: dict[str, int] = {}
    events: list[RecordedEvent] = []
    for position in range(1, draw(st.integers(1, max_size)) + 1):
        session_id = draw(SESSION_IDS)
        entry = (
            Entry(draw(NONSENSE), session_id, draw(st.none() | BRANCH_IDS))
            if nonsense and draw(st.integers(0, 2)) == 0
            else draw(sensible(state.sessions.get(session_id), session_id))
        )
        if (given := contents(events, session_id)) and draw(st.integers(0, 7)) == 0:
            entry = Entry(draw(redactions(given)), session_id, None)
        if session_id not in versions and state.sessions and draw(st.booleans()):
            entry = Entry(draw(forks(state)), session_id, "main")
        version = versions[session_id] = versions.get(session_id, 0) + 1
        events.append(recorded(position, version, entry))
        state.apply(events[-1])
    return events


def contents(
    events: Iterable[RecordedEvent], session_id: str | None = None
) -> dict[int, list[Any]]:
    """Return the items of each event that added some, as its newest redaction left them, by position."""
    found: dict[int, list[Any]] = {}
    for each in events:
        event = each.event
        if isinstance(event, ItemRedacted) and event.item.position in found:
            found[event.item.position] = event.items
        elif isinstance(event, ITEM_EVENTS) and session_id in (None, each.session_id):
            found[each.position] = event.items
    return {position: items for position, items in found.items() if items}


@st.composite
def redactions(draw: Any, given: dict[int, list[Any]]) -> ItemRedacted:
    """Return the redaction of one of these items."""
    position = draw(st.sampled_from(sorted(given)))
    index = draw(st.integers(0, len(given[position]) - 1))
    items = [*given[position]]
    items[index] = placeholder(items[index])
    return ItemRedacted(item=ItemRef(position, index), items=items, reason=draw(LABELS))


@st.composite
def forks(draw: Any, state: State) -> SessionForked:
    """Return a fork of a branch of a session."""
    session_id = draw(st.sampled_from(sorted(state.sessions)))
    branches = state.sessions[session_id].branches or {"main": None}
    branch_id = draw(st.sampled_from(sorted(branches)))
    branch = branches[branch_id]
    items = [] if branch is None else branch.items
    kinds = list(dict.fromkeys(item.kind for item in items))
    return SessionForked(
        from_session_id=session_id,
        from_branch_id=branch_id,
        origins=[
            ForkedItems(
                session_id=session_id,
                items=[
                    (item.ref.position, item.ref.index, kinds.index(item.kind)) for item in items
                ],
            )
        ],
        kinds=[smallest(kind) for kind in kinds],
    )


@st.composite
def sensible(draw: Any, session: Session | None, session_id: str) -> Entry:
    """Return what a program may do next to a session."""
    live = [] if session is None else [name for name, b in session.branches.items() if b.is_live]
    branch_id = draw(st.sampled_from(live or ["main"]))
    command = draw(st.sampled_from(COMMANDS))
    if command is _delete and branch_id == "main":
        command = _add
    return Entry(command(draw, session, branch_id), session_id, branch_id)


Erasure: TypeAlias = "dict[str, Any]"
"""What is given to ``ConversationLog.erase``."""

ERASURES: st.SearchStrategy[Erasure] = st.sampled_from(
    [
        {"popped": True},
        {"popped": True},
        {"deleted": True},
        {"session_id": "a"},
        {"session_id": "b"},
    ]
)
