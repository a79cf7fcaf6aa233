"""What an event is in the table: stored once and for all, and readable by every later release."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from agents_eventlog.eventlog import (
    BranchDeleted,
    Event,
    EventLog,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    UsageCorrected,
    UsageCorrection,
    UsageRecorded,
    codec,
    errors,
)
from agents_eventlog.eventlog.errors import InvalidEventError
from agents_eventlog.eventlog.events import EVENT_TYPES
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
    with pytest.raises(errors.UndecodableEventError) as caught:
        codec.decode("items_added", 1, data, position=77)
    assert str(caught.value) == "event at position 77 cannot be decoded as 'items_added'"
    assert caught.value.position == 77


@pytest.mark.parametrize(
    ("name", "version"), [("items_added", 2), ("items_taken", 1), ("", 1), ("ItemsAdded", 1)]
)
def test_an_event_of_a_newer_release_is_named_by_its_position(name: str, version: int) -> None:
    unknown = f"is a {name!r} of schema version {version}, which this release does not know"
    for read in (codec.decode, codec.lifted):
        with pytest.raises(errors.UndecodableEventError) as caught:
            read(name, version, b"{}", position=77)
        assert str(caught.value) == f"event at position 77 {unknown}"
        assert caught.value.position == 77


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


def test_data_is_lifted_even_where_it_would_fit_the_present_shape(
    later_release: Callable[..., None],
) -> None:
    later_release(renamed, explained)
    data = b'{"name":"b","why":"somebody said so"}'
    assert codec.decode("branch_deleted", 2, data, position=1) == Ended(name="b", why="unknown")
    assert codec.decode("branch_deleted", 3, data, position=1) != Ended(name="b", why="unknown")


def test_data_can_be_lifted_without_being_decoded(later_release: Callable[..., None]) -> None:
    later_release(renamed, explained)
    lifted = b'{"name":"b","why":"unknown"}'
    assert codec.lifted("branch_deleted", 1, b'{"branch_id":"b"}', position=1) == lifted
    assert codec.lifted("branch_deleted", 2, b'{"name":"b"}', position=1) == lifted
    assert codec.lifted("branch_deleted", 3, b"as it is", position=1) == b"as it is"


@pytest.mark.parametrize("data", [b'{"nothing": 1}', b"{", b"\xff", b"[" * 100_000])
def test_data_that_cannot_be_lifted_is_named_by_its_position(
    later_release: Callable[..., None], data: bytes
) -> None:
    later_release(renamed, explained)
    with pytest.raises(errors.UndecodableEventError) as caught:
        codec.lifted("branch_deleted", 1, data, position=9)
    assert str(caught.value) == "event at position 9 cannot be decoded as 'branch_deleted'"
    assert caught.value.position == 9


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


def nested(depth: int) -> Any:
    """Return a value that msgspec refuses, in this many lists; the standard library has to read it."""
    value: Any = "\ud800"
    for _ in range(depth):
        value = [value]
    return value


def encoded(depth: int) -> bytes | None:
    """Return a nested item as data; None if it is refused."""
    try:
        return codec.encode(ItemsAdded(items=[nested(depth)]))
    except errors.UnserialisableError:
        return None


def test_what_is_nested_too_deeply_to_be_read_again_is_refused() -> None:
    accepted, refused = 1, 200_000  # how deep is too deep differs from one Python to another
    assert encoded(refused) is None
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        accepted, refused = (accepted, middle) if encoded(middle) is None else (middle, refused)
    for depth in range(accepted - 60, accepted + 60):  # some can just be written, but not read
        data = encoded(depth)
        assert data is None or codec.decode("items_added", 1, data, position=1)


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (MetadataSet(user_id="\ud800"), "user_id"),
        (UsageRecorded(run_id="\ud800", turn=1, requests=[]), "run_id"),
        (UsageRecorded(run_id="r", turn=1, requests=[RequestUsage(model="\ud800")]), "model"),
        (
            UsageCorrected(
                requests=[UsageCorrection(request=ItemRef(1, 0), price_source="\ud800")]
            ),
            "price_source",
        ),
    ],
)
def test_a_field_that_no_row_could_hold_is_refused_by_its_name(event: Event, field: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        codec.encode(event)
    assert str(caught.value) == f"invalid {field}: it contains an unpaired surrogate"


def test_a_field_of_the_wrong_type_is_refused_by_its_event() -> None:
    with pytest.raises(InvalidEventError) as caught:
        codec.encode(MetadataSet(user_id=["alice"]))  # type: ignore[arg-type]
    assert str(caught.value) == "invalid 'metadata_set' event: a field has the wrong type"


def test_what_is_no_text_is_refused_by_its_type() -> None:
    codec.check_text("session_id", "a name")
    with pytest.raises(InvalidEventError) as caught:
        codec.check_text("session_id", 7)
    assert str(caught.value) == "invalid session_id: expected a string, got int"


def test_text_inside_a_payload_is_as_json_has_it_unless_it_has_no_fast_form() -> None:
    assert codec.encode_text('say "hi"\n') == b'say \\"hi\\"\\n'
    assert codec.encode_text("grün") == "grün".encode()
    assert codec.encode_text("\ud800") == b""


def test_json_for_people_shows_every_letter_as_it_is() -> None:
    assert codec.readable({"said": "grün"}) == '{"said": "grün"}'


# -- what cannot be stored -----------------------------------------------------------------------


def test_the_place_of_what_is_no_json_is_told_so_many_levels_deep() -> None:
    deep: Any = object()
    for _ in range(codec.MAX_PLACE_LEVELS + 4):
        deep = [1, deep]
    with pytest.raises(errors.UnserialisableError) as caught:
        codec.encode_json(deep)
    assert caught.value.place == "$" + "[1]" * codec.MAX_PLACE_LEVELS
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(errors.UnserialisableError, match=r"^\$\[0\]\[0\]"):
        codec.encode_json(endless)


def test_the_request_that_cannot_be_stored_is_told_apart_from_those_that_can() -> None:
    requests = [RequestUsage(), RequestUsage(input_tokens_details={"odd": object()})]
    with pytest.raises(errors.UnserialisableError) as caught:
        codec.encode(UsageRecorded(run_id="r", turn=1, requests=requests))
    assert caught.value.place == "$.requests[1]"


def test_what_can_be_written_but_not_read_again_for_its_depth_is_refused() -> None:
    with pytest.raises(errors.UnserialisableError) as caught:
        codec._check_readable(ItemsAdded(items=[]), b'{"items":' + b"[" * 100_000)
    assert str(caught.value) == caught.value.place + " is nested too deeply"
    assert caught.value.place == "$"


# -- metadata and items --------------------------------------------------------------------------


def test_metadata_beyond_msgspec_is_read_by_the_standard_library() -> None:
    assert codec.decode_metadata('{"note":"\\ud800","score":Infinity}') == {
        "note": "\ud800",
        "score": float("inf"),
    }
    with pytest.raises(ValueError, match="Expecting"):
        codec.decode_metadata("{")


def test_metadata_is_what_was_bound() -> None:
    assert codec.decode_recording('{"actor":"alice","n":1}', position=5) == {
        "actor": "alice",
        "n": 1,
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_metadata_that_is_no_object_is_named_by_its_position(text: str) -> None:
    with pytest.raises(errors.UndecodableEventError) as caught:
        codec.decode_recording(text, position=5)
    assert str(caught.value) == "the metadata of the event at position 5 cannot be decoded"
    assert caught.value.position == 5


def test_the_items_of_an_older_release_are_lifted_among_those_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ItemsAdded, "schema_version", 2)
    monkeypatch.setitem(codec.UPCASTS, ("items_added", 1), lambda data: {"items": data["texts"]})
    new = (1, "items_added", 2, b'{"items":["new"]}')
    old = (4, "items_added", 1, b'{"texts":["old"]}')
    other = (5, "items_replaced", 1, b'{"items":["other"]}')
    assert codec.decode_items([new, old, other]) == [["new"], ["old"], ["other"]]
    with pytest.raises(errors.UndecodableEventError) as caught:
        codec.decode_items([new, (7, "items_added", 1, b'{"items":[]}')])
    assert caught.value.position == 7


def test_the_items_of_many_events_come_event_by_event() -> None:
    lines = [b'{"items":["a",{"b":1}]}', b'{"items":[]}', b'{"items":["c"]}']
    payloads = [(at, "items_added", 1, data) for at, data in zip((1, 4, 5), lines, strict=True)]
    expected = [["a", {"b": 1}], [], ["c"]]
    assert codec.decode_items(payloads) == expected
    assert codec.decode_lines_of_items(b"\n".join(lines), 3) == expected
    odd = b'{"items":["\\ud800"]}'
    assert codec.decode_items([*payloads, (6, "items_added", 1, odd)]) == [*expected, ["\ud800"]]
    assert codec.decode_lines_of_items(odd, 1) is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"{}", b"[]", b"5", b'{"items":5}', b'{"items":{}}', b"\xff"),
        *(b'{"items":[]}\n{"items":[]}', b'{"items":' + b"[" * 100_000),
    ],
)
def test_items_that_cannot_be_read_are_named_by_the_position_of_their_event(data: bytes) -> None:
    with pytest.raises(errors.UndecodableEventError) as caught:
        codec.decode_items([(1, "items_added", 1, b'{"items":[]}'), (7, "items_added", 1, data)])
    assert str(caught.value) == "the items of the event at position 7 cannot be decoded"
    assert caught.value.position == 7
    with pytest.raises(errors.UndecodableEventError, match="at position 7"):
        codec.contents([(7, "items_added", 1, data)], [(0, 0)])


@pytest.mark.parametrize(
    ("data", "contents"),
    [
        (b'{"items":[{"content":"a"},{"content":["b"]},{"role":"user"}]}', ["a", ["b"], ""]),
        (b'{"items":[{"content":"\\ud800"},{"content":null}]}', ["\ud800", None]),
        (b'{"items":[{"content":[1e999]}]}', [[float("inf")]]),
        (
            b'{"items":[5,{"content":"after what is not an object"}]}',
            ["after what is not an object"],
        ),
    ],
)
def test_the_contents_of_items_are_what_the_items_hold(data: bytes, contents: list[Any]) -> None:
    payloads = [(1, "items_added", 1, b'{"items":[]}'), (7, "items_added", 1, data)]
    first = len(codec.decode_items(payloads)[1]) - len(contents)
    places = [(1, first + index) for index in range(len(contents))]
    assert codec.contents(payloads, places) == contents
