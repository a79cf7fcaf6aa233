"""The lines of an export: each says what its event is, and calls others by their versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents_eventlog.eventlog import (
    BranchCreated,
    ContentErased,
    Event,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    SessionCleared,
    TurnUndone,
    UsageCorrected,
    UsageCorrection,
    codec,
    integrity,
)
from agents_eventlog.eventlog.errors import InvalidEventError, SourceError, UndecodableEventError
from agents_eventlog.eventlog.jsonl import format as jsonl_format
from agents_eventlog.eventlog.jsonl.format import EventLine, Heading, LogLine
from agents_eventlog.eventlog.recorded_event import EARLIEST, LATEST, RecordedEvent
from agents_eventlog.eventlog.sealing import SealedAs
from tests.history import START

DIGEST = b"\xab" * 32
KINDS = 'unknown kind: expected "log", "session" or "event"'
REFERRING: list[tuple[Event, list[int]]] = [
    (ItemPopped(item=ItemRef(3, 1)), [3]),
    (ItemsReplaced(first_item=ItemRef(4, 1), items=["x"]), [4]),
    (ItemsReplaced(first_item=None, items=["x"]), []),
    (TurnUndone(turn=1, removed=[ItemRef(4, 1), ItemRef(6, 0)]), [4, 6]),
    (BranchCreated(branch_id="b", from_branch_id="main", last_item=ItemRef(5, 1)), [5]),
    (BranchCreated(branch_id="b", from_branch_id="main", last_item=None), []),
    (ContentErased(positions=[6, 7], reason="asked"), [6, 7]),
    (
        ContentErased(
            positions=[6, 7],
            structures=[{"items": [], "first_item": [8, 1]}, {"items": [], "first_item": None}, {}],
        ),
        [6, 7, 8],
    ),
    (
        UsageCorrected(
            requests=[
                UsageCorrection(request=ItemRef(9, 1), model="m"),
                UsageCorrection(request=ItemRef(10, 0), model="m"),
            ]
        ),
        [9, 10],
    ),
    (ItemsAdded(items=[{"position": 3, "first_item": [1, 2]}]), []),
]


def recorded(event: Event | None, **columns: Any) -> RecordedEvent:
    data = None if event is None else codec.encode(event)
    found = {
        "position": 12,
        "session_id": "s",
        "version": 3,
        "type": "items_added" if event is None else event.type_name(),
        "schema_version": 1 if event is None else event.schema_version,
        "branch_id": "draft",
        "data": data,
        "data_digest": DIGEST if data is None else integrity.data_digest(data),
        "metadata": None,
        "idempotency_key": None,
        "recorded_at": START,
        "digest": bytes(32),
    } | columns
    return RecordedEvent(tuple(found.values()))


def same(position: int) -> int:
    return position


def line(**fields: Any) -> bytes:
    whole = {
        "kind": "event",
        "version": 3,
        "type": "items_added",
        "schema_version": 1,
        "branch_id": "draft",
        "recorded_at": START,
        "metadata": {"actor": "alice"},
        "idempotency_key": "key",
        "data": {"items": ["said"]},
    } | fields
    return json.dumps(
        {name: value for name, value in whole.items() if value != "left out"}
    ).encode()


# -- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "positions"), REFERRING)
def test_the_events_that_an_event_speaks_of_are_found_and_moved(
    event: Event, positions: list[int]
) -> None:
    assert jsonl_format.positions_in(event) == positions
    assert not positions or event.type_name() in jsonl_format.REFERRING
    moved = jsonl_format.with_positions(event, lambda position: position + 100)
    assert jsonl_format.positions_in(moved) == [position + 100 for position in positions]
    assert jsonl_format.with_positions(moved, lambda position: position - 100) == event


def test_of_an_event_that_was_erased_none_is_spoken_of() -> None:
    assert jsonl_format.positions_in(None) == []


# -- writing -------------------------------------------------------------------------------------


def test_an_event_is_written_with_its_data_last() -> None:
    event = ItemPopped(item=ItemRef(11, 0))
    written = jsonl_format.event_line(
        recorded(event, metadata='{"actor":"alice"}', idempotency_key="key"),
        lambda position: position - 9,
    )
    assert written == (
        '{"kind":"event","version":3,"type":"item_popped","schema_version":1,"branch_id":"draft",'
        f'"recorded_at":{START},"metadata":{{"actor":"alice"}},"idempotency_key":"key",'
        '"data":{"item":[2,0]}}'
    )


def test_an_event_without_metadata_or_branch_says_so() -> None:
    written = json.loads(jsonl_format.event_line(recorded(SessionCleared(), branch_id=None), same))
    assert (written["metadata"], written["branch_id"], written["idempotency_key"]) == (None,) * 3
    assert written["data"] == {}


def test_an_erased_event_is_written_with_the_digest_of_what_it_was() -> None:
    assert jsonl_format.event_line(recorded(None), same) == (
        '{"kind":"event","version":3,"type":"items_added","schema_version":1,"branch_id":"draft",'
        f'"recorded_at":{START},"metadata":null,"idempotency_key":null,'
        f'"data":null,"data_digest":"{DIGEST.hex()}"}}'
    )


def test_an_event_of_an_older_release_is_written_in_its_present_shape() -> None:
    old = recorded(ContentErased(positions=[1]), schema_version=1, data=b'{"positions":[1]}')
    written = json.loads(jsonl_format.event_line(old, same))
    assert written["schema_version"] == ContentErased.schema_version == 5


def test_a_session_is_opened_by_its_id_and_the_number_of_its_events() -> None:
    heading = Heading("s", 2)
    assert jsonl_format.session_line(heading) == '{"kind":"session","session_id":"s","events":2}'
    assert jsonl_format.parse(jsonl_format.session_line(heading).encode()) == heading
    for sealed_as in (None, SealedAs("0f" * 16, "3")):
        written = jsonl_format.log_line(sealed_as)
        assert jsonl_format.parse(written.encode()) == LogLine(sealed_as)


def test_what_a_terminal_would_obey_is_escaped() -> None:
    obeyed = "\x1b\x7f\x9b\u202e\u2066\u2028"
    written = jsonl_format.session_line(Heading(f"s{obeyed}é", 1))
    assert "s\\u001b\\u007f\\u009b\\u202e\\u2066\\u2028" in written
    said = jsonl_format.event_line(recorded(ItemsAdded(items=[f"x{obeyed}"])), same)
    assert not set(obeyed) & set(said)
    assert json.loads(said)["data"]["items"] == [f"x{obeyed}"]


@pytest.mark.parametrize(
    ("metadata", "at_first", "recorded_at"),
    [
        ({"actor": "a"}, {"actor": "a"}, START),
        ({"actor": "a", "occurred_at": 5, "imported": {"recorded_at": 7}}, {"actor": "a"}, 7),
        (
            {"occurred_at": 5, "imported": {"recorded_at": 7, "occurred_at": 4, "imported": "own"}},
            {"occurred_at": 4, "imported": "own"},
            7,
        ),
        ({"imported": "own", "occurred_at": 5}, {"imported": "own", "occurred_at": 5}, START),
        ({"imported": {"recorded_at": "7"}}, {"imported": {"recorded_at": "7"}}, START),
        ({"imported": {"recorded_at": True}}, {"imported": {"recorded_at": True}}, START),
        ({"imported": {}}, {"imported": {}}, START),
        ({"imported": {"recorded_at": 7}}, None, 7),
    ],
)
def test_what_an_import_added_is_taken_off_again(
    metadata: dict[str, Any], at_first: dict[str, Any] | None, recorded_at: int
) -> None:
    moved = recorded(SessionCleared(), metadata=json.dumps(metadata))
    written = json.loads(jsonl_format.event_line(moved, same))
    assert (written["metadata"], written["recorded_at"]) == (at_first, recorded_at)
    assert moved.metadata == metadata


# -- reading -------------------------------------------------------------------------------------


def test_a_line_is_read_as_what_it_says() -> None:
    data = ItemsAdded(items=["said"])
    assert jsonl_format.parse(line()) == EventLine(
        3, "items_added", 1, "draft", START, {"actor": "alice"}, "key", data, b""
    )
    bare = jsonl_format.parse(line(branch_id=None, metadata=None, idempotency_key="left out"))
    assert bare == EventLine(3, "items_added", 1, None, START, {}, None, data, b"")
    erased = jsonl_format.parse(line(data=None, data_digest=DIGEST.hex()))
    assert erased == EventLine(
        3, "items_added", 1, "draft", START, {"actor": "alice"}, "key", None, DIGEST
    )


def test_a_line_of_an_older_release_is_read_in_its_present_shape() -> None:
    read = jsonl_format.parse(line(type="content_erased", data={"positions": [1]}))
    assert isinstance(read, EventLine)
    assert (read.schema_version, read.event) == (5, ContentErased(positions=[1]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", KINDS),
        (b'{"kind":"other"}', KINDS),
        (b"{}", KINDS),
        (
            b'{"kind":"session","session_id":7,"events":1}',
            "invalid session_id: expected a string, got int",
        ),
        (b'{"kind":"session","events":1}', "invalid session_id: expected a string, got NoneType"),
        (
            b'{"kind":"session","session_id":"\\ud800","events":1}',
            "invalid session_id: it contains an unpaired surrogate",
        ),
        (b'{"kind":"session","session_id":"s"}', "invalid events: expected an integer in range"),
        (line(version=True), "invalid version: expected an integer in range"),
        (line(version="left out"), "invalid version: expected an integer in range"),
        (line(schema_version=1.0), "invalid schema_version: expected an integer in range"),
        (line(recorded_at=LATEST + 1), "invalid recorded_at: expected an integer in range"),
        (line(recorded_at=EARLIEST - 1), "invalid recorded_at: expected an integer in range"),
        (line(type=None), "invalid type: expected a string, got NoneType"),
        (line(branch_id=5), "invalid branch_id: expected a string, got int"),
        (line(idempotency_key=5), "invalid idempotency_key: expected a string, got int"),
        (line(metadata=[]), "invalid metadata: expected an object"),
        (line(metadata="x"), "invalid metadata: expected an object"),
        (line(data=None, type="other", data_digest=DIGEST.hex()), "its type is unknown"),
        (line(data=None), "invalid data_digest: expected a SHA-256 hash in hex"),
        (line(data=None, data_digest="zz"), "invalid data_digest: expected a SHA-256 hash in hex"),
        (
            line(data=None, data_digest="ab" * 31),
            "invalid data_digest: expected a SHA-256 hash in hex",
        ),
        (line(data=None, data_digest=7), "invalid data_digest: expected a SHA-256 hash in hex"),
    ],
)
def test_what_is_no_line_is_refused_by_what_is_wrong(text: bytes, why: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        jsonl_format.parse(text)
    assert str(caught.value) == why


@pytest.mark.parametrize("recorded_at", [EARLIEST, LATEST])
def test_a_time_from_the_year_1_to_9999_is_taken(recorded_at: int) -> None:
    read = jsonl_format.parse(line(recorded_at=recorded_at))
    assert isinstance(read, EventLine)
    assert read.recorded_at == recorded_at


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"items": 5}},
        {"type": "other"},
        {"schema_version": 2},
        {"schema_version": 2, "data": None, "data_digest": DIGEST.hex()},
    ],
)
def test_data_that_does_not_fit_is_named_by_its_version(fields: dict[str, Any]) -> None:
    with pytest.raises(UndecodableEventError, match="position 3") as caught:
        jsonl_format.parse(line(**fields))
    assert caught.value.position == 3


@pytest.mark.parametrize("told", [3, None])
def test_a_newer_format_is_refused(told: int | None) -> None:
    with pytest.raises(SourceError) as caught:
        jsonl_format.parse(json.dumps({"kind": "log", "format": told}).encode())
    assert (
        str(caught.value) == f"format {told} is unknown: expected 1 or 2; upgrade agents-eventlog"
    )


# -- storing -------------------------------------------------------------------------------------


def read(**fields: Any) -> EventLine:
    found = jsonl_format.parse(line(**fields))
    assert isinstance(found, EventLine)
    return found


def test_a_line_is_stored_at_the_positions_of_its_new_log() -> None:
    popped = read(type="item_popped", data={"item": [2, 1]}, metadata=None)
    data = b'{"item":[52,1]}'
    metadata = f'{{"occurred_at":{START},"imported":{{"recorded_at":{START}}}}}'
    assert popped.stored(lambda version: version + 50) == (
        *("item_popped", 1, "draft", data, None, metadata, "key"),
    )


def test_an_erased_line_is_stored_without_data_and_with_its_digest() -> None:
    erased = read(data=None, data_digest=DIGEST.hex(), metadata=None)
    assert erased.stored(same)[3:5] == (None, DIGEST)


@pytest.mark.parametrize(
    ("metadata", "stored"),
    [
        ({"actor": "a"}, {"actor": "a", "occurred_at": START, "imported": {"recorded_at": START}}),
        *(
            (
                {"occurred_at": time},
                {"occurred_at": time, "imported": {"recorded_at": START, "occurred_at": time}},
            )
            for time in (5, LATEST)
        ),
        (
            {"occurred_at": EARLIEST, "imported": "own"},
            {
                "occurred_at": EARLIEST,
                "imported": {"recorded_at": START, "occurred_at": EARLIEST, "imported": "own"},
            },
        ),
        *(
            (
                {"occurred_at": no_time},
                {"occurred_at": START, "imported": {"recorded_at": START, "occurred_at": no_time}},
            )
            for no_time in (True, "5", 5.5, None, EARLIEST - 1, LATEST + 1)
        ),
    ],
)
def test_a_stored_line_says_when_it_happened_and_what_stood_under_those_names(
    metadata: dict[str, Any], stored: dict[str, Any]
) -> None:
    text = read(metadata=metadata).stored(same)[5]
    assert text is not None
    assert json.loads(text) == stored


def test_a_structure_fits_an_event_that_can_be_read_with_it() -> None:
    erased = read(data=None, data_digest=DIGEST.hex())
    assert erased.fits({"items": [{}]})
    assert not erased.fits({"items": 5})
    assert not erased.fits(None)
