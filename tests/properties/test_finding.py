"""Whatever was said, and whatever is sought: each way to find it finds what a look at everything finds."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import projections
from eventlog import ContentErased, EventLog, ItemRef, ItemsAdded, ItemsReplaced, append
from eventlog.ledger import read_events
from projections import finding, walking
from projections.finding import Finder, Sought
from projections.state import fold
from tests.properties.profiles import examples
from tests.properties.strategies import BRANCH_IDS, SESSION_IDS, histories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventlog import Recorded, Transaction

LETTERS = "aAbB" * 8
ALPHABET = LETTERS + "c \"*%_\\'\0\n\x1b-()éÉßẞ\u017f\u212a世界\u0301😀\ud800"
TEXTS = st.text(alphabet=ALPHABET, min_size=3, max_size=12)
Place = tuple[str, ItemRef, tuple[str, ...]]


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """Let short histories take several steps and windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walking, "STEP_EVENTS", 3)
        patch.setattr(walking, "STEP_POSITIONS", 7)
        patch.setattr(walking, "FEW_EVENTS", 2)
        patch.setattr(finding, "WINDOW_HITS", 4)
        yield


class Talk(NamedTuple):
    """A history in which the items say something and nothing is erased, and a text that may be in it."""

    events: list[Recorded]
    text: str


@st.composite
def talks(draw: Any) -> Talk:
    """Return a talk; its text is mostly a piece of what is said, in either case."""
    said = draw(st.lists(TEXTS, min_size=1, max_size=4))
    events = [speaking(each, said) for each in draw(histories()) if not is_erasing(each)]
    text = draw(st.sampled_from([*said, draw(TEXTS)]))
    start = draw(st.integers(0, 3))
    piece = text[start : start + draw(st.integers(2, 8))]
    return Talk(events, draw(st.sampled_from([piece, piece.upper(), piece.lower()])))


def is_erasing(recorded: Recorded) -> bool:
    return isinstance(recorded.event, ContentErased)


def speaking(recorded: Recorded, said: Sequence[str]) -> Recorded:
    """Put texts into an event's items."""
    event = recorded.event
    if isinstance(event, ItemsAdded | ItemsReplaced):
        for index, item in enumerate(event.items):
            if isinstance(item, dict) and item:
                key = "output" if "output" in item else "content"
                item[key] = said[(7 * recorded.position + index) % len(said)]
    return recorded


def write(log: EventLog, events: Sequence[Recorded]) -> None:
    def unit(tx: Transaction) -> None:
        for recorded in events:
            if recorded.event is not None:
                append(tx, recorded.session_id, recorded.event, branch_id=recorded.branch_id)

    log.store.write_sync(unit)


def found(log: EventLog, sought: Sought, limit: int | None = None) -> list[Place]:
    """Return what a find finds, page by page if there is a limit."""
    places: list[Place] = []
    after = None
    while True:
        finder = Finder(sought, limit=limit, after=after)
        while finder.take(log.store.read_sync(finder.look)):
            pass
        places += [(hit.session_id, hit.ref, hit.branch_ids) for hit, _ in finder.hits]
        if limit is None or len(finder.hits) < limit:
            return places
        after = str(finder.hits[-1][1])


def expected(log: EventLog, sought: Sought) -> set[Place]:
    """Look at every item of every live branch."""
    events = log.store.read_sync(lambda tx: read_events(tx, 0))
    items = {event.position: getattr(event.event, "items", []) for event in events}
    places: dict[tuple[str, ItemRef], list[str]] = {}
    for session_id, session in fold(events).sessions.items():
        live = [(name, b) for name, b in session.branches.items() if b.is_live]
        for name, branch in live if session.deleted_at is None else []:
            for item in branch.items:
                content = items[item.ref.position][item.ref.index]
                if sought.session_id in (None, session_id) and says(content, sought.text):
                    places.setdefault((session_id, item.ref), []).append(name)
    return {
        (*place, tuple(sorted(names)))
        for place, names in places.items()
        if sought.branch_id in (None, *names)
    }


def says(item: Any, text: str | None) -> bool:
    if text is None:
        return True
    content = item.get("content", item.get("output")) if isinstance(item, dict) else None
    return isinstance(content, str) and folded(text) in folded(content)


def folded(text: str) -> str:
    """Fold what the alphabet has of cases; the rest stays."""
    return "".join({"A": "a", "B": "b", "É": "é"}.get(character, character) for character in text)


@given(talks(), st.none() | SESSION_IDS, st.none() | BRANCH_IDS, st.integers(1, 4))
@examples(40)
def test_every_way_finds_the_same_and_nothing_else(
    talk: Talk, session_id: str | None, branch_id: str | None, limit: int
) -> None:
    events = talk.events
    sought = Sought(text=talk.text, session_id=session_id, branch_id=branch_id)
    half = len(events) // 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.db"
        with closing(opened(path)) as log:
            write(log, events)
            scanned = found(log, sought)
            assert {(s, r, tuple(sorted(b))) for s, r, b in scanned} == expected(log, sought)
            assert len(scanned) == len(set(scanned))
            assert found(log, sought, limit) == scanned
        with closing(opened(path, search=True)) as log:
            assert found(log, sought) == scanned
        behind = Path(folder) / "behind.db"
        with closing(opened(behind, search=True)) as log:
            write(log, events[:half])
        with closing(opened(behind)) as log:
            write(log, events[half:])
            assert found(log, sought) == scanned
            assert found(log, sought, limit) == scanned


def opened(path: Path, *, search: bool = False) -> EventLog:
    """Open a log, with its full-text index or without."""
    kept_up = projections.default(search=search)
    return EventLog.open_sync(path, projections=kept_up, durability="normal")
