"""Whatever was said, and whatever is sought: each way to find it finds what a look at everything finds."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents_eventlog import projections
from agents_eventlog.eventlog import (
    ContentErased,
    EventLog,
    ExpirySet,
    ItemRedacted,
    ItemRef,
    ItemsAdded,
    codec,
)
from agents_eventlog.eventlog.appender import append_all, read_events
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.events import ITEM_EVENTS
from agents_eventlog.eventlog.item_kind import classify
from agents_eventlog.projections.conversations.placeholder import placeholder
from agents_eventlog.projections.erasure import eraser
from agents_eventlog.projections.erasure.scopes import PoppedItems
from agents_eventlog.projections.reference import fold
from agents_eventlog.projections.search import plan
from agents_eventlog.projections.search.searcher import ItemQuery, Searcher, cursor
from tests import history
from tests.history import Entry
from tests.properties.profiles import examples
from tests.properties.strategies import contents, histories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agents_eventlog.eventlog import RecordedEvent, Transaction

LETTERS = ("ab", "aB", "AB", "ba", "aab", "b a", "abc")
OTHERS = (
    ("%", "_", "a%b", "a_b", "axb", "*", " OR ", "("),  # what means something to SQLite
    ('"', '""', "'", "\\", "\\n", "\n", "\x1b", "\0"),  # what JSON escapes, or SQL
    ("é", "É", "ß", "ẞ", "s", "\u017f", "k", "\u212a", "世界"),
    ("😀", "\ud83d", "\ude00", "\ud800", "世"),  # what makes an event be written by escapes
)
LENGTHS = (3, 3, 4, 5, 7, 9, 60, 1, 2)
"""So much of it is sought; the index can be asked for three characters or more."""
Place = tuple[str, ItemRef, tuple[str, ...]]


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """Let short histories take several steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BATCH_EVENTS", 3)
        patch.setattr(plan, "BATCH_POSITIONS", 7)
        patch.setattr(plan, "FEW_EVENTS", 2)
        yield


class Talk(NamedTuple):
    """A history in which the items say something, and what is sought in it."""

    events: list[RecordedEvent]
    sought: ItemQuery


def few(pieces: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(pieces), min_size=2, max_size=4)


@st.composite
def talks(draw: Any) -> Talk:
    """Return a talk; what is sought is mostly a piece of what is said, in either case."""
    others = st.sampled_from(OTHERS).flatmap(few)
    pieces = [draw(st.sampled_from(LETTERS)), *draw(others), *draw(others)]  # shared by all texts
    texts = st.lists(st.sampled_from(pieces), min_size=2, max_size=6).map("".join)
    said = draw(st.lists(texts, min_size=1, max_size=5))
    if draw(st.integers(0, 7)) == 0:
        said.append(40 * said[0] + said[-1])
    drawn = draw(histories(max_size=20))
    events = [speaking(kept(each), said) for each in drawn]
    redact_again(events)
    text = draw(st.sampled_from([*said, *said, draw(texts)]))
    start = draw(st.integers(0, max(0, len(text) - 3)))
    text = text[start : start + draw(st.sampled_from(LENGTHS))]
    text = with_case(text, draw(st.sampled_from([str, str.upper, str.lower, str.swapcase])))
    filters = draw(st.sampled_from(FILTERS))
    return Talk(events, ItemQuery(text=draw(st.sampled_from([text, text, text, None])), **filters))


FILTERS: list[dict[str, Any]] = [
    *(8 * [{}]),
    *(2 * [{"session_id": "a"}]),
    {"session_id": "b"},
    *(2 * [{"user_id": "alice"}]),
    {"branch_id": "main"},
    {"branch_id": "b0"},
    {"branch_id": "x"},
    {"session_id": "a", "branch_id": "b0"},
    {"role": "user"},
    {"role": "assistant"},
    {"type": "function_call"},
    {"type": "user"},
    {"tool_name": "web.look"},
    {"since": 8},
    {"until": 12},
    {"since": 5, "until": 9},
]


def kept(recorded: RecordedEvent) -> RecordedEvent:
    """Put an event that changes nothing in an erasure's place, so that all others keep their positions."""
    if not isinstance(recorded.event, ContentErased):
        return recorded
    nothing = Entry(ExpirySet(expires_after_seconds=None), recorded.session_id, None)
    return history.recorded(recorded.position, recorded.version, nothing)


def speaking(recorded: RecordedEvent, said: Sequence[str]) -> RecordedEvent:
    """Put texts into an event's items, where each kind of item has its own."""
    event = recorded.event
    if isinstance(event, ITEM_EVENTS):
        for index, item in enumerate(event.items):
            place = 7 * recorded.position + index
            one, other = said[place % len(said)], said[(place + 1) % len(said)]
            event.items[index] = saying(item, one, other)
    return recorded


def redact_again(events: Sequence[RecordedEvent]) -> None:
    """Let redactions carry what the events say now."""
    said: dict[int, list[Any]] = {}
    for recorded in events:
        event = recorded.event
        if isinstance(event, ITEM_EVENTS):
            said[recorded.position] = event.items
        elif isinstance(event, ItemRedacted) and event.item.position in said:
            items = [*said[event.item.position]]
            items[event.item.index] = placeholder(items[event.item.index])
            event.items[:] = said[event.item.position] = items


def saying(item: Any, one: str, other: str) -> Any:
    """Return an item that says a text, and has another one where nothing is said."""
    match item:
        case {"role": "user"}:
            return {**item, "content": one}
        case {"role": "assistant"}:
            parts = [{"type": "output_text", "text": one}, {"type": "refusal", "refusal": one}]
            return {**item, "content": parts, "id": other}
        case {"type": "function_call"}:
            return {**item, "arguments": one, "call_id": other}
        case {"output": _}:
            return {**item, "output": one, "call_id": other}
        case {"summary": _}:
            return {**item, "summary": [{"text": one}], "encrypted_content": other}
    return item


def texts(item: Any) -> list[str]:
    """Return what an item says."""
    match item:
        case {"role": "assistant", "content": [{"text": text}, {"refusal": refusal}]}:
            return [text, refusal]
        case {"summary": [{"text": text}]}:
            return [text]
        case {"content": str(text)} | {"output": str(text)} | {"arguments": str(text)}:
            return [text]
    return []


def write(log: EventLog, events: Sequence[RecordedEvent]) -> None:
    """Append events, each in the microsecond of its place."""

    def unit(tx: Transaction) -> None:
        for recorded in events:
            if (event := recorded.event) is not None:
                encoded = ((event, codec.encode(event)),)
                where = {"branch_id": recorded.branch_id, "occurred_at": recorded.position}
                append_all(tx, recorded.session_id, encoded, **where)

    log.store.write_sync(unit)


def found(log: EventLog, sought: ItemQuery, limit: int | None = None) -> list[Place]:
    """Return what a find finds, page by page if there is a limit."""
    places: list[Place] = []
    after = None
    while True:
        searcher = Searcher(sought, limit=limit, after=after)
        while searcher.collect(log.store.read_sync(searcher.read_batch)):
            pass
        for hit in searcher.hits:
            shown = hit.snippet.text[hit.snippet.start : hit.snippet.end]
            assert plain(sought.text or "").startswith(plain(shown))
            assert shown or not sought.text
            places.append((hit.session_id, hit.ref, hit.branch_ids))
        if limit is None or len(searcher.hits) < limit:
            return places
        after = cursor(searcher.hits[-1].ref)


def expected(log: EventLog, sought: ItemQuery) -> set[Place]:
    """Look at every item of every live branch."""
    cursor = Cursor(log.store.engine.lanes)
    events = log.store.read_sync(partial(read_events, cursor=cursor, structures=ErasedShapes()))
    present = {event.position: event for event in events}
    left = contents([event.outlined() for event in events])
    places: dict[tuple[str, ItemRef], list[str]] = {}
    for session_id, session in fold([event.outlined() for event in events]).sessions.items():
        if (
            session.deleted_at is not None
            or session.expires_after is not None  # what happened in 1970 has expired
            or sought.session_id not in (None, session_id)
            or sought.user_id not in (None, session.user_id)
        ):
            continue
        for name, branch in session.branches.items():
            for item in branch.items if branch.is_live else []:
                content = left.get(item.ref.position, [])[item.ref.index]
                if is_sought(present[item.ref.position], content, sought):
                    places.setdefault((session_id, item.ref), []).append(name)
    matching = {place: x for place, x in places.items() if sought.branch_id in (None, *x)}
    first: dict[ItemRef, str] = {}  # the session that an item was added to, or else the first fork
    for session_id, ref in sorted(matching):
        if session_id == present[ref.position].session_id:
            first[ref] = session_id
        first.setdefault(ref, session_id)
    return {
        (session_id, ref, tuple(sorted(names)))
        for (session_id, ref), names in matching.items()
        if first[ref] == session_id
    }


def is_sought(recorded: RecordedEvent, item: Any, sought: ItemQuery) -> bool:
    """Look at an item, and at when it was said."""
    kind = classify(item)
    since, until = sought.since or 0, sought.until or 10**9
    return (
        since <= recorded.occurred_at < until
        and sought.type in (None, kind.type)
        and sought.tool_name in (None, kind.tool_name)
        and sought.role in (None, item.get("role") if isinstance(item, dict) else None)
        and (sought.text is None or any(plain(sought.text) in plain(text) for text in texts(item)))
    )


def plain(text: str) -> str:
    """Return a text as JSON gives it back, with the cases folded that the pieces have."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return with_case(whole, str.lower)


def with_case(text: str, change: Callable[[str], str]) -> str:
    """Change the case of the letters that are one letter in either."""
    return "".join(change(each) if each.isascii() or each in "éÉ" else each for each in text)


def one_by_one(*said: str, sought: str) -> Talk:
    """Return a talk in which a user says each in an event of its own."""
    entries = [Entry(ItemsAdded(items=[{"role": "user", "content": each}])) for each in said]
    return Talk(
        [history.recorded(n, n, each) for n, each in enumerate(entries, 1)], ItemQuery(text=sought)
    )


@example(one_by_one('say "no"', sought='"no"'), 1, False)
@example(one_by_one("ÉTÉ", "été", sought="étÉ"), 1, False)
@example(one_by_one("before", "just behind the index", sought="just"), 1, False)
@given(talks(), st.integers(1, 4), st.sampled_from([False, False, True]))
@examples(40)
def test_every_way_finds_the_same_and_nothing_else(talk: Talk, limit: int, erased: bool) -> None:
    events, sought = talk
    half = len(events) // 2
    with tempfile.TemporaryDirectory() as folder:
        path, behind = Path(folder) / "l.db", Path(folder) / "behind.db"
        with closing(opened(path)) as log:
            write(log, events)
            if erased:
                erase(log)
            scanned = found(log, sought)
            assert {(s, r, tuple(sorted(b))) for s, r, b in scanned} == expected(log, sought)
            assert [ref for _, ref, _ in scanned] == sorted(
                {r for _, r, _ in scanned}, reverse=True
            )
            assert found(log, sought, limit) == scanned
        with closing(opened(path, search=True)) as log:
            assert found(log, sought) == scanned
            assert found(log, sought, limit) == scanned
        with closing(opened(behind, search=True)) as log:
            write(log, events[:half])
        with closing(opened(behind)) as log:
            write(log, events[half:])
            if erased:
                erase(log)
            assert found(log, sought) == scanned
            assert found(log, sought, limit) == scanned


def erase(log: EventLog) -> None:
    """Erase what is on no branch any more."""
    assert asyncio.run(eraser.erase(log, PoppedItems())).is_complete


def opened(path: Path, *, search: bool = False) -> EventLog:
    """Open a log, with its full-text index or without."""
    kept_up = projections.default(search=search)
    return EventLog.open_sync(path, projections=kept_up, durability="normal")
