"""What an event is in the table: stored once and for all, and readable by every later release."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from eventlog import (
    BranchDeleted,
    Event,
    EventLog,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    UsageRecorded,
    codec,
    errors,
)
from eventlog.errors import InvalidEventError
from eventlog.events import EVENT_TYPES
from tests.eventlog.goldens import EVENTS, OLDER

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.iterdir())


def by_name(event: Event) -> str:
    """Return an event's name for the list of tests."""
    return event.type_name()


def test_every_type_and_version_has_a_golden_file() -> None:
    shapes = {
        f"{name}.v{version}.json"
        for name, kind in EVENT_TYPES.items()
        for version in range(1, kind.schema_version + 1)
    }
    assert {file.name for file in FILES} == shapes


@pytest.mark.parametrize("event", EVENTS, ids=by_name)
def test_an_event_is_written_as_its_golden_file_has_it(event: Event) -> None:
    file = GOLDEN / f"{event.type_name()}.v{event.schema_version}.json"
    assert codec.encode(event) == file.read_bytes()


@pytest.mark.parametrize("event", EVENTS, ids=by_name)
def test_a_golden_file_s_event_has_every_field_set(event: Event) -> None:
    fields = msgspec.structs.fields(event)
    assert [f.name for f in fields if getattr(event, f.name) == f.default] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_golden_file_is_read_by_this_release(file: Path) -> None:
    name, version = re.fullmatch(r"(\w+)\.v(\d+)\.json", file.name).groups()  # type: ignore[union-attr]
    (newest,) = [event for event in EVENTS if event.type_name() == name]
    expected = OLDER.get(file.stem, newest)
    assert codec.decode(name, int(version), file.read_bytes(), position=1) == expected


@pytest.mark.parametrize("event", EVENTS, ids=by_name)
def test_data_is_plain_json_without_the_type(event: Event) -> None:
    data = json.loads(codec.encode(event))
    assert isinstance(data, dict)
    assert set(data) <= set(event.__struct_fields__)


def test_a_field_that_says_nothing_new_is_left_out() -> None:
    assert codec.encode(SessionCleared()) == codec.encode(MetadataSet()) == b"{}"
    assert codec.encode(UsageRecorded(run_id="r", turn=None, requests=[RequestUsage()])) == (
        b'{"run_id":"r","turn":null,"requests":[{}]}'
    )


def test_what_msgspec_cannot_write_is_written_by_the_standard_library() -> None:
    odd = ItemsAdded(items=[float("inf"), "\ud800", {1: 10**30}])
    assert codec.encode(odd) == b'{"items":[Infinity,"\\ud800",{"1":' + b"1" + b"0" * 30 + b"}]}"
    (usage,) = [event for event in EVENTS if isinstance(event, UsageRecorded)]
    priced = msgspec.structs.replace(
        usage, requests=[msgspec.structs.replace(usage.requests[0], cost_usd=float("inf"))]
    )
    assert codec.decode("usage_recorded", 1, codec.encode(priced), position=1) == priced


class Slotted:
    """Something with an equality of its own, which proves nothing."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("items", "place", "kind"),
    [
        ([object()], "$.items[0]", "object"),
        ([{"a": 1}, {"content": [{"text": b"x"}]}], "$.items[1].content[0].text", "bytes"),
        ([{"a": {"b": {1, 2}}}], "$.items[0].a.b", "set"),
        ([[{"x": [1, (2, 3j)]}]], "$.items[0][0].x[1][1]", "complex"),
        ([{"a": {(1, 2): "x"}}], "$.items[0].a (a key)", "tuple"),
        ([{"a": {b"k": "x"}}], "$.items[0].a (a key)", "bytes"),
        ([{"when": Slotted()}], "$.items[0].when", "Slotted"),
        ([{"raw": msgspec.Raw(b"1")}], "$.items[0].raw", "Raw"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_place(
    items: list[Any], place: str, kind: str
) -> None:
    with pytest.raises(errors.UnserialisableError) as caught:
        codec.encode(ItemsAdded(items=items))
    assert caught.value.place == place
    assert str(caught.value) == f"{place} cannot be stored as JSON: {kind}"


def test_an_error_names_no_content() -> None:
    secret = {"content": {"secret", "words"}}
    with pytest.raises(errors.UnserialisableError) as caught:
        codec.encode(ItemsAdded(items=[{"said": "secret"}, secret]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"items": 5}',
        b'{"item": []}',
        b"\xff",
        b'{"items": [}',
        b"[" * 9_999,
    ],
)
def test_data_that_is_no_such_event_is_named_by_its_position(data: bytes) -> None:
    with pytest.raises(errors.UndecodableEventError, match="position 77") as caught:
        codec.decode("items_added", 1, data, position=77)
    assert caught.value.position == 77


@pytest.mark.parametrize(
    ("name", "version"), [("items_added", 2), ("items_taken", 1), ("", 1), ("ItemsAdded", 1)]
)
def test_an_event_of_a_newer_release_is_named_by_its_position(name: str, version: int) -> None:
    with pytest.raises(errors.UndecodableEventError, match="position 77") as caught:
        codec.decode(name, version, b"{}", position=77)
    assert repr(name) in str(caught.value)
    assert f"schema version {version}" in str(caught.value)


# -- older shapes --------------------------------------------------------------------------------


class Ended(Event, frozen=True, tag="branch_deleted"):
    """A branch was deleted, as a third shape might tell it."""

    schema_version: ClassVar[int] = 3
    name: str
    why: str


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    """Lift the first shape to the second."""
    return {"name": data["branch_id"]}


def explained(data: dict[str, Any]) -> dict[str, Any]:
    """Lift the second shape to the third."""
    return {**data, "why": "unknown"}


@pytest.fixture
def later_release(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the third shape be the present one, with steps from the older ones."""

    def install(*steps: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        monkeypatch.setitem(EVENT_TYPES, "branch_deleted", Ended)
        monkeypatch.setitem(codec._decoders, "branch_deleted", msgspec.json.Decoder(Ended))
        for version, step in enumerate(steps, start=1):
            monkeypatch.setitem(codec.UPCASTS, ("branch_deleted", version), step)

    return install


async def test_an_older_shape_is_lifted_step_by_step_when_it_is_read(
    log: EventLog, later_release: Callable[..., None]
) -> None:
    await log.append("a", BranchDeleted(branch_id="b"))
    later_release(renamed, explained)
    await log.append("a", Ended(name="c", why="old"))
    found = [recorded async for recorded in log.read()]
    assert [recorded.event for recorded in found] == [
        Ended(name="b", why="unknown"),
        Ended(name="c", why="old"),
    ]
    assert [recorded.schema_version for recorded in found] == [1, 3]
    assert found[0].data == b'{"branch_id":"b"}'
    assert (await log.verify()).ok


def test_each_step_is_taken_from_where_the_event_stands(
    later_release: Callable[..., None],
) -> None:
    later_release(renamed, explained)
    lifted = codec.decode("branch_deleted", 2, b'{"name":"b"}', position=1)
    assert lifted == Ended(name="b", why="unknown")


@pytest.mark.parametrize("data", [b'{"nothing": 1}', b'{"branch_id": 5}'])
def test_a_step_that_does_not_fit_names_the_position(
    later_release: Callable[..., None], data: bytes
) -> None:
    later_release(renamed, explained)
    with pytest.raises(errors.UndecodableEventError, match="position 9"):
        codec.decode("branch_deleted", 1, data, position=9)


def test_a_step_that_is_missing_names_the_position(later_release: Callable[..., None]) -> None:
    later_release(renamed)
    with pytest.raises(errors.UndecodableEventError, match="position 9"):
        codec.decode("branch_deleted", 1, b'{"branch_id":"b"}', position=9)


def test_every_older_version_has_a_step_to_the_next() -> None:
    expected = {
        (name, version)
        for name, kind in EVENT_TYPES.items()
        for version in range(1, kind.schema_version)
    }
    assert set(codec.UPCASTS) == expected


async def test_an_unknown_event_stops_reading_at_its_position(log: EventLog) -> None:
    await log.append("a", [SessionCleared(), BranchDeleted(branch_id="b")])
    kind = EVENT_TYPES.pop("branch_deleted")
    seen: list[Event | None] = []

    async def read() -> None:
        async for recorded in log.read():
            seen.append(recorded.event)  # noqa: PERF401 - it stays when the next one fails

    try:
        with pytest.raises(errors.UndecodableEventError, match="position 2"):
            await read()
        verified = await log.verify()
    finally:
        EVENT_TYPES["branch_deleted"] = kind
    assert seen == [SessionCleared()]
    assert [finding.position for finding in verified.findings] == [2]


@pytest.mark.parametrize(
    "event",
    [
        UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(input_tokens=2**63)]),
        UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(output_tokens=-1)]),
        UsageRecorded(run_id="r", turn=2**63, requests=[]),
        ItemPopped(item=ItemRef(-1, 0)),
    ],
)
def test_a_number_that_no_projection_could_keep_is_refused(event: Event) -> None:
    with pytest.raises(InvalidEventError):
        codec.encode(event)


def test_what_is_nested_too_deeply_to_be_read_again_is_refused() -> None:
    deep: Any = "\ud800"  # beyond msgspec, so the standard library has to read it
    for _ in range(sys.getrecursionlimit() - 120):
        deep = [deep]
    with pytest.raises(errors.UnserialisableError, match=r"^\$"):  # noqa: PT012
        for _ in range(120):  # at one of these depths it can just be written
            codec.encode(ItemsAdded(items=[deep]))
            deep = [deep]
