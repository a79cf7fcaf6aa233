"""An event as it stands in the log: its columns by name, decoded when asked for."""

from __future__ import annotations

from typing import Any

import pytest

from agents_eventlog.eventlog import ItemsAdded
from agents_eventlog.eventlog.errors import UndecodableEventError
from agents_eventlog.eventlog.recorded_event import (
    EARLIEST,
    LATEST,
    RecordedEvent,
    occurred_at,
)
from tests.history import START

COLUMNS: dict[str, Any] = {
    "position": 12,
    "session_id": "s",
    "version": 3,
    "type": "items_added",
    "schema_version": 1,
    "branch_id": "draft",
    "data": b'{"items":["said"]}',
    "data_digest": b"d" * 32,
    "metadata_json": '{"actor":"alice"}',
    "idempotency_key": "key",
    "recorded_at": START,
    "digest": b"c" * 32,
}
STRUCTURE = b'{"items":[{}]}'


def recorded(structure: bytes | None = None, **columns: Any) -> RecordedEvent:
    found = RecordedEvent(tuple((COLUMNS | columns).values()))
    found.structure = structure
    return found


def columns(found: RecordedEvent) -> dict[str, Any]:
    return {name: getattr(found, name) for name in COLUMNS}


def test_an_event_has_its_row_s_columns_and_no_structure_unless_it_was_looked_for() -> None:
    found = RecordedEvent(tuple(COLUMNS.values()))
    assert columns(found) == COLUMNS
    assert found.structure is None


def test_its_event_and_metadata_are_decoded() -> None:
    assert recorded().event == ItemsAdded(items=["said"])
    assert recorded().metadata == {"actor": "alice"}
    assert recorded(metadata_json=None).metadata == {}
    assert recorded(data=None).event is None


def test_what_cannot_be_decoded_is_named_by_its_position() -> None:
    damaged = recorded(data=b"{", metadata_json="[]")
    for name in ("event", "metadata"):
        with pytest.raises(UndecodableEventError) as caught:
            getattr(damaged, name)
        assert caught.value.position == 12
    with pytest.raises(UndecodableEventError) as caught:
        _ = recorded(metadata_json='{"occurred_at"').occurred_at
    assert caught.value.position == 12


def test_an_event_is_erased_when_its_data_is_gone_or_replaced_by_its_structure() -> None:
    assert not recorded().is_erased
    assert recorded(data=None).is_erased
    assert recorded(STRUCTURE, data=None).is_erased
    assert recorded(STRUCTURE, data=None).outlined().is_erased


def test_an_erased_event_is_outlined_by_its_structure_and_is_otherwise_the_same() -> None:
    outlined = recorded(STRUCTURE, data=None).outlined()
    assert columns(outlined) == COLUMNS | {"data": STRUCTURE}
    assert outlined.structure == STRUCTURE
    assert outlined.event == ItemsAdded(items=[{}])


def test_an_event_that_is_not_erased_or_left_no_structure_is_its_own_outline() -> None:
    for found in (recorded(), recorded(data=None), recorded(STRUCTURE)):
        assert found.outlined() is found


@pytest.mark.parametrize(
    ("metadata_json", "at"),
    [
        (None, START),
        ("{}", START),
        ('{"occurred_at":5}', 5),
        ('{"occurred_at":true}', START),
        ('{"occurred_at":5.5}', START),
        ('{"occurred_at":"5"}', START),
        ('{"note":"occurred_at"}', START),
        ('{"note":"\\"occurred_at\\""}', START),
        (f'{{"occurred_at":{EARLIEST}}}', EARLIEST),
        (f'{{"occurred_at":{EARLIEST - 1}}}', START),
        (f'{{"occurred_at":{LATEST}}}', LATEST),
        (f'{{"occurred_at":{LATEST + 1}}}', START),
    ],
)
def test_an_event_happened_when_it_was_recorded_unless_its_metadata_tells_a_time(
    metadata_json: str | None, at: int
) -> None:
    assert recorded(metadata_json=metadata_json).occurred_at == at
    assert occurred_at(START, metadata_json, 1) == at


def test_metadata_that_tells_no_time_is_not_decoded_for_it() -> None:
    assert recorded(metadata_json="{").occurred_at == START


def test_it_is_shown_by_where_it_stands_without_what_was_said() -> None:
    assert repr(recorded()) == (
        "RecordedEvent(position=12, session_id='s', version=3, type='items_added', branch_id='draft')"
    )


def test_an_event_whose_metadata_cannot_be_read_happened_when_it_was_recorded() -> None:
    unreadable = recorded(metadata_json='{"occurred_at"')
    with pytest.raises(UndecodableEventError):
        assert unreadable.occurred_at
    assert unreadable.happened_at == START
    assert recorded(metadata_json='{"occurred_at":7}').happened_at == 7
