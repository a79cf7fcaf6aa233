"""The log inside a transaction: what is appended, linked, projected and read there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import (
    ContentErased,
    Event,
    EventLog,
    ItemsAdded,
    SessionCleared,
    appender,
    codec,
    integrity,
)
from agents_eventlog.eventlog.appender import (
    MOST_EVENTS,
    Appender,
    append,
    append_all,
)
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.erased_shapes import ErasedShapes
from agents_eventlog.eventlog.errors import CorruptFileError, InvalidEventError
from agents_eventlog.eventlog.integrity import FIRST, Head
from agents_eventlog.eventlog.storage.sqlite import schema
from agents_eventlog.eventlog.storage.sqlite.engine import SQLITE
from agents_eventlog.eventlog.storage.transaction import Transaction
from tests.history import START

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents_eventlog.eventlog import RecordedEvent

SAID = ItemsAdded(items=["said"])
DATA = codec.encode(SAID)


@pytest.fixture
def tx() -> Iterator[Transaction]:
    """A transaction on an empty log in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        opened = Transaction(connection, now=START, participant=Appender(), engine=SQLITE)
        schema.create(opened)
        appender.ledger(opened).begin(opened)
        yield opened


def next_one(tx: Transaction) -> Transaction:
    """Return the next transaction, which remembers nothing of this one."""
    tx.flush()
    following = Transaction(tx.connection, now=START + 1, participant=Appender(), engine=SQLITE)
    appender.ledger(following).begin(following)
    return following


class Watching:
    """A projector that notes what it is asked, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self.error = error

    def begin(self, tx: Transaction, head: Head) -> None:
        self.asked.append(("begin", tx, head))

    def project(self, tx: Transaction, events: Sequence[RecordedEvent]) -> None:
        self.asked.append(("project", tx, [recorded.position for recorded in events]))
        if self.error is not None:
            raise self.error

    def before_commit(self, tx: Transaction, head: Head) -> None:
        self.asked.append(("commit", tx, head))


STORED = (
    *("position", "session_id", "version", "type", "schema_version", "branch_id", "data"),
    *("data_digest", "metadata_json", "idempotency_key", "recorded_at", "digest"),
)


def test_an_event_is_stored_with_its_columns_and_linked_to_the_one_before(tx: Transaction) -> None:
    tx.recording = {"actor": "alice"}
    first = append(tx, "s", SAID, branch_id="draft")
    second = append(tx, "t", SessionCleared())
    digest = integrity.data_digest(DATA)
    kept = (digest, '{"actor":"alice"}', None, START)
    linked = integrity.link(FIRST, 1, "s", 1, "items_added", 1, "draft", *kept)
    expected = (1, "s", 1, "items_added", 1, "draft", DATA, *kept, linked)
    (row, other) = appender.read_rows(tx, Cursor(1))
    assert row == expected
    assert tuple(getattr(first, name) for name in STORED) == expected
    assert other[:6] == (2, "t", 1, "session_cleared", 2, None)
    assert other[-1] == second.digest
    assert second.digest == integrity.link(
        linked, 2, "t", 1, "session_cleared", 2, None, integrity.data_digest(b"{}"), *kept[1:]
    )


def test_versions_go_on_in_each_session_and_positions_in_the_log(tx: Transaction) -> None:
    append_all(tx, "s", [(SAID, DATA)] * 2)
    append(tx, "t", SAID)
    append(tx, "s", SAID)
    following = next_one(tx)
    assert [appender.session_version(each, "s") for each in (tx, following)] == [3, 3]
    assert appender.session_version(following, "nobody") == 0
    append(following, "s", SAID)
    rows = appender.read_rows(following, Cursor(1))
    assert [row[:3] for row in rows] == [
        *((1, "s", 1), (2, "s", 2), (3, "t", 1), (4, "s", 3)),
        (5, "s", 4),
    ]


def test_the_head_is_carried_on_and_found_again(tx: Transaction) -> None:
    assert tx.lane == appender.read_head(tx) == Head(0, FIRST)
    last = append_all(tx, "s", [(SAID, DATA)] * 3)[-1]
    assert tx.lane == Head(3, last.digest)
    assert next_one(tx).lane == appender.read_head(tx) == Head(3, last.digest)


def test_a_position_is_not_given_again_though_the_tail_was_cut(tx: Transaction) -> None:
    first, *_ = append_all(tx, "s", [(SAID, DATA)] * 3)
    tx.execute("DROP TRIGGER events_are_never_deleted")
    tx.execute("DELETE FROM events WHERE position > 1")
    assert appender.read_head(tx) == Head(3, first.digest)
    tx.execute("UPDATE sqlite_sequence SET seq = 0")
    assert appender.read_head(tx) == Head(1, first.digest)
    tx.execute("UPDATE sqlite_sequence SET seq = 'many'")
    assert appender.read_head(tx) == Head(1, first.digest)


def test_a_key_stands_with_the_first_event_and_metadata_with_each(tx: Transaction) -> None:
    recorded = appender.ledger(tx).append(
        tx,
        "s",
        [(SAID, DATA), (SessionCleared(), b"{}")],
        branch_id="b",
        version=4,
        metadata="{}",
        idempotency_key="key",
    )
    assert [each.idempotency_key for each in recorded] == ["key", None]
    assert [(each.metadata_json, each.branch_id) for each in recorded] == [("{}", "b")] * 2
    assert [each.version for each in recorded] == [5, 6]
    assert appender.session_version(tx, "s") == 6


def test_what_happened_earlier_tells_when_beside_what_is_recorded(tx: Transaction) -> None:
    tx.recording = {"actor": "alice", "occurred_at": 1}
    append_all(tx, "s", [(SAID, DATA)], branch_id="b", occurred_at=5)
    append_all(tx, "s", [(SAID, DATA)], occurred_at=0)
    tx.recording = {}
    append_all(tx, "s", [(SAID, DATA)])
    rows = appender.read_rows(tx, Cursor(1))
    assert [(row[5], row[8]) for row in rows] == [
        ("b", '{"actor":"alice","occurred_at":5}'),
        (None, '{"actor":"alice","occurred_at":0}'),
        (None, None),
    ]


def test_projections_are_told_of_each_append_and_of_the_head_at_both_ends(
    tx: Transaction,
) -> None:
    watching = appender.ledger(tx).projector = Watching()  # type: ignore[assignment]
    appender.ledger(tx).begin(tx)
    append_all(tx, "s", [(SAID, DATA)] * 2)
    appender.ledger(tx).before_commit(tx)
    assert watching.asked == [
        ("begin", tx, Head(0, FIRST)),
        ("project", tx, [1, 2]),
        ("commit", tx, appender.read_head(tx)),
    ]


def test_an_event_whose_rows_could_not_be_made_breaks_the_transaction(tx: Transaction) -> None:
    error = ValueError("no rows")
    appender.ledger(tx).projector = Watching(error)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no rows"):
        append(tx, "s", SAID)
    assert tx.broken is error


@pytest.mark.parametrize("what", ["position", "version"])
def test_a_number_that_no_log_comes_to_by_counting_is_refused(tx: Transaction, what: str) -> None:
    def put(number: int) -> None:
        tx.lane = Head(number if what == "position" else 0, FIRST)
        stored = ("items_added", 1, None, DATA, integrity.data_digest(DATA), None, None)
        appender.ledger(tx).put(tx, "s", number if what == "version" else 0, [stored])

    put(MOST_EVENTS)
    assert appender.read_rows(tx, Cursor(1))[0][0 if what == "position" else 2] == MOST_EVENTS + 1
    with pytest.raises(CorruptFileError) as caught:
        put(MOST_EVENTS + 1)
    told = f"an event has {what} {MOST_EVENTS + 1}: run `eventlog verify` to locate it"
    assert str(caught.value) == told


def positions(rows: Sequence[Any]) -> list[int]:
    return [row[0] for row in rows]


def test_a_page_goes_on_behind_a_position_up_to_so_many_events(tx: Transaction) -> None:
    append_all(tx, "s", [(SAID, DATA)] * 5)
    for read in (appender.read_rows, appender.read_rows_as_stored):
        assert positions(read(tx, Cursor(1, 1), 3)) == [2, 3, 4]
        assert positions(read(tx, Cursor(1, 3))) == [4, 5]
    assert [each.position for each in appender.read_events(tx, Cursor(1, 2), limit=2)] == [3, 4]
    assert [each.event for each in appender.read_events(tx, Cursor(1, 4))] == [SAID]


def test_an_erased_event_comes_with_the_structure_that_is_kept_of_it(tx: Transaction) -> None:
    append(tx, "s", SAID)
    append(tx, "s", ContentErased(positions=[1], structures=[{"items": [{}]}]))
    tx.execute("UPDATE events SET data = NULL WHERE position = 1")
    kept = b'{"items":[{}]}'
    assert [each.structure for each in appender.read_events(tx, Cursor(1))] == [kept, None]
    assert [
        each.structure for each in appender.read_events(tx, Cursor(1), structures=ErasedShapes())
    ] == [
        kept,
        None,
    ]


def test_a_page_ends_with_the_event_that_fills_it(
    tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_all(tx, "s", [(SAID, DATA)] * 5)
    tx.execute("UPDATE events SET data = NULL WHERE position = 1")
    monkeypatch.setattr(appender, "PAGE_BYTES", 2 * len(DATA))
    assert positions(appender.read_rows(tx, Cursor(1))) == [1, 2, 3, 4]
    assert positions(appender.read_linked_rows(tx, "s", 1)) == [2, 3, 4]
    monkeypatch.setattr(appender, "PAGE_BYTES", 2 * len(DATA) - 1)
    assert positions(appender.read_rows(tx, Cursor(1))) == [1, 2, 3]


def test_a_session_s_events_come_with_the_digests_before_them(
    tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = append(tx, "s", SAID), append(tx, "t", SAID)
    three = append(tx, "s", SAID)
    rows = appender.read_linked_rows(tx, "s", 0)
    assert [(row[0], row[11], row[12]) for row in rows] == [
        (1, one.digest, None),
        (3, three.digest, two.digest),
    ]
    assert positions(appender.read_linked_rows(tx, "s", 1)) == [3]
    monkeypatch.setattr(appender, "PAGE_EVENTS", 1)
    assert positions(appender.read_linked_rows(tx, "s", 0)) == [1]


def test_a_text_that_is_not_utf_8_comes_as_bytes_and_only_where_that_was_asked(
    tx: Transaction,
) -> None:
    append(tx, "s", SAID)
    tx.execute("DROP TRIGGER events_are_never_changed")
    tx.execute("UPDATE events SET session_id = CAST(x'ff' AS TEXT)")
    assert appender.read_rows_as_stored(tx, Cursor(1))[0][1:4] == (b"\xff", 1, "items_added")
    with pytest.raises(sqlite3.OperationalError, match="decode"):
        appender.read_rows(tx, Cursor(1))


def test_texts_are_read_as_before_after_a_read_that_failed(tx: Transaction) -> None:
    tx.execute("DROP TABLE events")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        appender.read_rows_as_stored(tx, Cursor(1))
    assert tx.connection.text_factory is str


def test_what_is_recorded_with_an_event_is_json_or_nothing() -> None:
    assert appender.metadata_json({}) is None
    assert appender.metadata_json({"actor": "alice"}) == '{"actor":"alice"}'


@pytest.mark.parametrize(
    ("session_id", "event", "branch_id"),
    [
        (7, SAID, None),
        (None, SAID, None),
        ("\ud800", SAID, None),
        ("s", SAID, 5),
        ("s", SAID, "\ud800"),
        ("s", "said", None),
        ("s", type("Mine", (Event,), {})(), None),
    ],
)
async def test_an_append_of_a_unit_that_would_break_the_chain_is_refused(
    log: EventLog, session_id: Any, event: Any, branch_id: Any
) -> None:
    with pytest.raises(InvalidEventError):
        await log.write(lambda tx: append(tx, session_id, event, branch_id=branch_id))
    await log.append("s", SAID)
    verified = await log.verify()
    assert (verified.events, verified.findings) == (1, ())


@pytest.mark.parametrize("key", [7, "\ud800"])
def test_a_stored_event_whose_key_is_not_text_is_refused(tx: Transaction, key: Any) -> None:
    stored = ("items_added", 1, None, DATA, integrity.data_digest(DATA), None, key)
    with pytest.raises(InvalidEventError, match="idempotency_key"):
        appender.ledger(tx).put(tx, "s", 0, [stored])
