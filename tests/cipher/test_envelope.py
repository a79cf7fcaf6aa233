"""Envelopes: their form byte by byte, what their outlines hold, and that every change of one is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.eventlog import (
    ItemRef,
    ItemsAdded,
    ItemsReplaced,
    ItemsWithheld,
    MetadataSet,
    TurnRedone,
    codec,
    item_kind,
)
from agents_eventlog.eventlog.cipher import aead, envelope, identity
from agents_eventlog.eventlog.cipher.cipher import Cipher, OpenKey
from agents_eventlog.eventlog.cipher.envelope import Envelope, Place
from agents_eventlog.eventlog.cipher.keys import Destroyed, Key, LogKeys
from agents_eventlog.eventlog.errors import (
    KeyNotFoundError,
    KeysMissingError,
    ShreddedError,
    TamperedPayloadError,
    UndecodableEventError,
    WrongKeyError,
)
from agents_eventlog.eventlog.events import EVENT_TYPES, ITEM_EVENTS
from tests.eventlog.goldens import EVENTS
from tests.properties.strategies import ITEMS

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SAID = st.lists(ITEMS | st.dictionaries(st.text(), VALUES, max_size=3), max_size=4)

SECRET = bytes(range(32))
NONCE = bytes(range(0xA0, 0xAC))
DATA = b'{"items":[{"role":"user","content":"Where is my parcel?"}]}'
GOLDEN = bytes.fromhex(
    "0100718466670e71f8846dd6c505d9cf03da944e74411ec1043f8d63959fd24f631f"
    "a0a1a2a3a4a5a6a7a8a9aaab000000000000000777f00039"
    "a560404debbc1aa7413495ee0000001b7b226974656d73223a5b7b22726f6c65223a2275736572227d5d7d"
    "9aed42844e1e48c2827af24f8e571136b023522c1261f1a0e2074e7c293a9ecc6c9a50011dc31e4ca2aa69"
    "5e1f804177a62268e2f0dd27ec163b2ec25a02e8637e9ee9b42acf7b3c810bd0"
)
CONTEXT = identity.context("support-42", "items_added", 1, "main")
PLACE = Place("support-42", 7, "items_added", 12, CONTEXT)


class OneKey:
    """A store with one key, or what is left of it."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def find(self, key_ids: Any) -> Any:
        return {} if self.kept is None else dict.fromkeys(key_ids, self.kept)

    def generation(self) -> int:
        return 0


def cipher(kept: Any = Key(identity.key_id(SECRET), SECRET)) -> Cipher:  # noqa: B008 - a tuple
    store: Any = OneKey(kept)
    return Cipher(store, b"log", LogKeys(1, bytes(32)))


def enveloped(stored: bytes = GOLDEN, place: Place = PLACE, opener: Any = None) -> Envelope:
    outline = envelope.placed(envelope.raw_outline(stored), lambda version: version + 100)
    return Envelope(stored, place, outline, opener or cipher())


def sealed(event: Any, place: Place = PLACE) -> Envelope:
    data = codec.encode(event)
    kind, schema_version = event.type_name(), event.schema_version
    context = identity.context(place.session_id, kind, schema_version, "main")
    place = place._replace(type=kind, context=context)
    made = cipher()
    key = made.key(identity.key_id(SECRET), place.session_id, 0)
    outline = envelope.outline(
        kind, schema_version, data, token=made.token, version_of=lambda position: position - 100
    )
    content = envelope.content(kind, data)
    return enveloped(made.seal(key, place.version, context, content, outline), place)


# -- golden -----------------------------------------------------------------------------------


def test_the_identities_of_the_golden_vector() -> None:
    assert identity.key_id(SECRET).hex() == (
        "718466670e71f8846dd6c505d9cf03da944e74411ec1043f8d63959fd24f631f"
    )
    assert identity.cipher_key(SECRET, "support-42").hex() == (
        "6a5527f4efd8a7ed33367d5799e47567f91ecca41032ba8fbd22e21788544a16"
    )
    assert CONTEXT.hex() == "77f00039a560404debbc1aa7413495ee"


def test_the_golden_envelope_is_sealed_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "nonce", lambda: NONCE)
    key = OpenKey(
        identity.key_id(SECRET), aead.cipher(identity.cipher_key(SECRET, "support-42")), 0
    )
    outline = item_kind.outline_json(0, "items_added", 1, DATA)
    assert cipher().seal(key, 7, CONTEXT, DATA, outline) == GOLDEN


def test_the_golden_envelope_opens() -> None:
    assert enveloped().opened() == DATA
    assert enveloped().outline == b'{"items":[{"role":"user"}]}'
    assert envelope.key_id(GOLDEN) == identity.key_id(SECRET)


def test_tokens_are_golden_and_differ_by_what_they_are_of() -> None:
    assert identity.token(bytes(32), "user", "alice") == "sealed:NCGwxowlXVrctNNlJCL_Lg"
    tokens = {
        identity.token(key, kind, *parts)
        for key in (bytes(32), SECRET)
        for kind, parts in (
            ("user", ("alice",)),
            ("label", ("alice",)),
            ("idempotency", ("s", "alice")),
            ("idempotency", ("t", "alice")),
        )
    }
    assert len(tokens) == 8


# -- outlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type_name())
def test_every_event_with_content_is_sealed_and_opens_as_itself(event: Any) -> None:
    if event.type_name() not in envelope.SEALED_TYPES:
        assert not hasattr(event, "items") or isinstance(event, ItemsWithheld)
        return
    there = sealed(event)
    kind = (event.type_name(), event.schema_version)
    assert codec.decode(*kind, there.opened(), position=1) == event
    read = codec.decode(event.type_name(), event.schema_version, there.outline, position=1)
    assert type(read) is type(event)


def test_an_event_that_has_items_is_sealed_unless_they_are_placeholders() -> None:
    having = {name for name, kind in EVENT_TYPES.items() if "items" in kind.__struct_fields__}
    assert having > {kind.type_name() for kind in ITEM_EVENTS}
    placeholders = {ItemsWithheld.type_name()}
    assert (having - placeholders) | {"metadata_set"} == envelope.SEALED_TYPES


def test_an_outline_refers_to_the_version_of_an_item() -> None:
    there = sealed(ItemsReplaced(first_item=ItemRef(105, 2), items=[{"role": "user"}]))
    assert json.loads(envelope.raw_outline(there))["first_item"] == [5, 2]
    assert json.loads(there.outline)["first_item"] == [105, 2]
    assert json.loads(there.opened())["first_item"] == [105, 2]


def test_an_outline_keeps_the_numbers_of_a_turn() -> None:
    event = TurnRedone(turn=3, undone_version=7, items=[{"role": "user", "content": "secret"}])
    assert json.loads(sealed(event).outline) == {
        "turn": 3,
        "undone_version": 7,
        "items": [{"role": "user"}],
    }


@pytest.mark.parametrize("content", [float("nan"), "\ud800", 2**80, "x" * 70_000])
@pytest.mark.parametrize(
    "event",
    [
        lambda items: ItemsAdded(items=items),
        lambda items: ItemsReplaced(first_item=None, items=items),
        lambda items: TurnRedone(turn=1, undone_version=2, items=items),
    ],
    ids=["added", "replaced", "redone"],
)
def test_content_that_only_the_standard_library_writes_is_sealed_too(
    event: Any, content: Any
) -> None:
    made = event([{"role": "user", "content": content}])
    assert sealed(made).opened() == codec.encode(made)


def test_the_outline_of_metadata_has_tokens() -> None:
    event = MetadataSet(user_id="alice", metadata={"plan": "gold", "of": {"a": 1}}, salt="salt")
    outline = json.loads(sealed(event).outline)
    assert outline["user_id"].startswith("sealed:")
    assert [value.startswith("sealed:") for value in outline["metadata"]] == [True, True]
    assert set(outline) == {"user_id", "metadata"}


@pytest.mark.parametrize(
    ("event", "outline"),
    [
        (MetadataSet(user_id=""), {"user_id": ""}),
        (MetadataSet(metadata={}), {"metadata": {}}),
        (MetadataSet(), {}),
    ],
)
def test_the_outline_of_metadata_says_what_was_removed(event: Any, outline: Any) -> None:
    assert json.loads(sealed(event).outline) == outline


def test_metadata_that_is_too_deep_for_the_index_is_not_taken_for_none() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    outline = json.loads(sealed(MetadataSet(metadata={"a": deep})).outline)
    assert outline == {"metadata": {envelope.DEEP: None}}


@given(SAID)
def test_an_outline_holds_nothing_that_was_said(items: list[Any]) -> None:
    there = sealed(ItemsAdded(items=items))
    kinds = [item_kind.classify(item) for item in items]
    assert json.loads(there.outline) == {"items": [item_kind.smallest(kind) for kind in kinds]}
    assert there.opened() == codec.encode(ItemsAdded(items=items))


# -- changes ----------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed() -> None:
    key = Key(identity.key_id(SECRET), SECRET)
    for bit in range(8 * len(GOLDEN)):
        changed = bytearray(GOLDEN)
        changed[bit // 8] ^= 1 << bit % 8
        is_of_key = envelope.key_id(bytes(changed)) == key.key_id
        with pytest.raises((UndecodableEventError, KeyNotFoundError)):
            enveloped(bytes(changed), opener=cipher(key if is_of_key else None)).opened()


@pytest.mark.parametrize("length", [0, 1, 73, 74, 101, len(GOLDEN) - 1])
def test_an_envelope_that_was_cut_is_noticed(length: int) -> None:
    there = GOLDEN[:length]
    with pytest.raises(TamperedPayloadError):
        Envelope(there, PLACE, b"{}", cipher()).opened()
    with pytest.raises(TamperedPayloadError):
        cipher().unseal(there, "support-42", 7, 12)


@pytest.mark.parametrize(
    "place",
    [
        PLACE._replace(version=8),
        PLACE._replace(session_id="support-43", context=None),
        PLACE._replace(context=identity.context("support-42", "items_replaced", 1, "main")),
        PLACE._replace(context=identity.context("support-42", "items_added", 2, "main")),
        PLACE._replace(context=identity.context("support-42", "items_added", 1, "draft")),
    ],
    ids=["version", "session", "type", "schema version", "branch"],
)
def test_an_envelope_in_another_place_does_not_open(place: Place) -> None:
    with pytest.raises(TamperedPayloadError, match="position 12"):
        enveloped(place=place).opened()


@pytest.mark.parametrize(("at", "value"), [(0, 2), (1, 1), (1, 128)])
def test_an_envelope_of_a_newer_release_is_not_called_tampered(at: int, value: int) -> None:
    newer = bytearray(GOLDEN)
    newer[at] = value
    assert envelope.is_sealed(bytes(newer))
    with pytest.raises(UndecodableEventError, match="newer release") as caught:
        enveloped(bytes(newer)).opened()
    assert not isinstance(caught.value, TamperedPayloadError)


def test_json_is_not_taken_for_an_envelope() -> None:
    assert not any(map(envelope.is_sealed, [None, b"", b"{}", b" {}", b"[1]", b"NaN", b"\0"]))


# -- keys -------------------------------------------------------------------------------------


def test_without_keys_an_envelope_says_so() -> None:
    there = Envelope(GOLDEN, PLACE, b"{}", None)
    with pytest.raises(KeysMissingError, match="EVENTLOG_KEYS"):
        there.opened()


def test_an_unknown_a_destroyed_and_another_key_are_three_errors() -> None:
    with pytest.raises(KeyNotFoundError, match="position 12"):
        enveloped(opener=cipher(None)).opened()
    with pytest.raises(ShreddedError, match="position 12") as caught:
        enveloped(opener=cipher(Destroyed(99))).opened()
    assert caught.value.destroyed_at == 99
    with pytest.raises(WrongKeyError):
        enveloped(opener=cipher(Key(identity.key_id(SECRET), bytes(32)))).opened()


def test_a_nonce_is_never_used_twice_though_the_kernel_repeats_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(1_000_000_000, 10_000_000_000, 1_000))
    monkeypatch.setattr(aead.os, "urandom", lambda count: b"\x07" * count)
    monkeypatch.setattr(aead.time, "time_ns", lambda: next(now))
    assert len({aead.nonce() for _ in range(10_000)}) == 10_000


@given(st.binary(max_size=200))
def test_bytes_that_are_no_envelope_are_an_error_and_no_content(noise: bytes) -> None:
    with pytest.raises((UndecodableEventError, KeyNotFoundError)):
        enveloped(b"\x01" + noise, opener=cipher(None)).opened()
