"""What the verifier says of each kind of damage, row by row, and how a head is written down."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from agents_eventlog.eventlog import ItemsAdded, SessionCleared, codec
from agents_eventlog.eventlog.integrity import (
    FIRST,
    Finding,
    Head,
    Verifier,
    data_digest,
    link,
)
from tests.history import START

NOT_RECORDED = "payload does not match its recorded digest"
BROKEN = "the chain is broken: the event, or its position, was changed"


class Columns(NamedTuple):
    """An event's row."""

    position: Any
    session_id: Any
    version: Any
    type: Any
    schema_version: Any
    branch_id: Any
    data: Any
    data_digest: Any
    metadata: Any
    idempotency_key: Any
    recorded_at: Any
    digest: Any


def chained(previous: Columns | None, **columns: Any) -> Columns:
    """Return the row of an event that was appended after another one."""
    data = codec.encode(ItemsAdded(items=[{"role": "user", "content": "hello"}]))
    row = Columns(
        position=previous.position + 1 if previous else 1,
        session_id="s",
        version=previous.version + 1 if previous else 1,
        type="items_added",
        schema_version=1,
        branch_id="main",
        data=data,
        data_digest=data_digest(data),
        metadata='{"actor":"alice"}',
        idempotency_key="key",
        recorded_at=START,
        digest=None,
    )._replace(**columns)
    linked = [value for name, value in row._asdict().items() if name not in {"data", "digest"}]
    return row._replace(digest=link(previous.digest if previous else FIRST, *linked))


ONE = chained(None)
TWO = chained(ONE)
THREE = chained(TWO)


def verified(*rows: Columns, expect: Head | None = None, given: int = 0) -> tuple[Finding, ...]:
    verifier = Verifier(expect)
    verifier.read(rows)
    return verifier.finish(given).findings


def test_a_log_as_it_was_written_has_its_events_its_head_and_no_findings() -> None:
    verifier = Verifier()
    verifier.read([ONE])
    verifier.read([TWO, THREE])
    found = verifier.finish(3)
    assert found == (Head(3, THREE.digest), 3, ())
    assert found.ok


def test_each_session_has_versions_of_its_own() -> None:
    assert (
        verified(
            ONE,
            chained(ONE, session_id="t", version=1),
        )
        == ()
    )


def test_a_version_that_does_not_follow_is_a_finding_once() -> None:
    skipping = chained(ONE, version=5)
    assert verified(ONE, skipping, chained(skipping)) == (
        (2, "session 's' jumps to version 5 (expected 2)"),
    )


def test_events_that_are_missing_are_named_from_the_first_to_the_last() -> None:
    later = chained(THREE, version=2)
    assert verified(ONE, later)[0] == (4, "events 2 to 3 are missing")


def test_the_row_after_a_missing_one_does_not_link_to_what_is_left() -> None:
    assert verified(ONE, THREE) == (
        (3, "events 2 to 2 are missing"),
        (3, "session 's' jumps to version 3 (expected 2)"),
        (3, BROKEN),
    )


def test_changed_data_is_a_finding_and_erased_data_is_none() -> None:
    assert verified(ONE._replace(data=b"{}")) == ((1, NOT_RECORDED),)
    assert verified(ONE._replace(data=None)) == ()


def test_a_changed_column_breaks_the_chain_at_its_event_only() -> None:
    assert verified(ONE._replace(recorded_at=0), TWO) == ((1, BROKEN),)


def test_data_of_another_type_or_of_a_newer_release_cannot_be_decoded() -> None:
    data = codec.encode(SessionCleared())
    other = chained(None, data=data, data_digest=data_digest(data))
    assert verified(other) == ((1, "data cannot be decoded as 'items_added' of schema version 1"),)
    assert verified(chained(None, schema_version=99)) == (
        (1, "data cannot be decoded as 'items_added' of schema version 99"),
    )


@pytest.mark.parametrize("metadata", ["", "{", "5", "[]"])
def test_metadata_that_is_no_object_is_a_finding(metadata: str) -> None:
    assert verified(chained(None, metadata=metadata)) == ((1, "metadata cannot be decoded"),)


def test_an_event_needs_no_metadata_no_branch_and_no_key() -> None:
    assert verified(chained(None, metadata=None, branch_id=None, idempotency_key=None)) == ()


def test_columns_that_cannot_be_read_are_all_named() -> None:
    strange = ONE._replace(session_id=b"\xff", metadata=b"\xff")
    assert verified(strange) == (
        (1, "session_id and metadata cannot be read: not UTF-8, or of the wrong type"),
    )


@pytest.mark.parametrize("column", Columns._fields[1:])
def test_a_value_of_the_wrong_type_is_named_in_any_column(column: str) -> None:
    wrong = verified(ONE._replace(**{column: 0.5}))
    assert wrong == ((1, f"{column} cannot be read: not UTF-8, or of the wrong type"),)


def test_after_a_digest_that_cannot_be_read_the_next_event_is_not_linked() -> None:
    findings = verified(ONE._replace(digest="text"), TWO)
    assert findings == (
        (1, "digest cannot be read: not UTF-8, or of the wrong type"),
        (2, BROKEN),
    )


def test_after_a_version_that_cannot_be_read_the_one_before_counts() -> None:
    findings = verified(ONE, TWO._replace(version="2"), THREE)
    assert findings[-1] == (3, "session 's' jumps to version 3 (expected 2)")


def test_events_that_were_given_a_position_and_are_not_there_are_missing_at_the_end() -> None:
    assert verified(ONE, TWO, given=2) == ()
    assert verified(ONE, TWO, given=5) == ((3, "events 3 to 5 are missing at the end"),)


def test_a_head_kept_elsewhere_is_found_at_the_end_and_on_the_way_there() -> None:
    for kept in (Head(0, FIRST), Head(1, ONE.digest), Head(2, TWO.digest)):
        assert verified(ONE, TWO, expect=kept) == ()
    assert verified(expect=Head(0, FIRST)) == ()


@pytest.mark.parametrize("kept", [Head(3, THREE.digest), Head(1, TWO.digest)])
def test_a_head_that_is_not_in_the_log_is_a_finding_at_its_position(kept: Head) -> None:
    problem = "the event that was expected here, by its digest, is not in the log"
    assert verified(ONE, TWO, expect=kept) == ((kept.position, problem),)


def test_a_session_is_verified_by_the_digests_before_its_events() -> None:
    other = chained(ONE, session_id="t", version=1)
    last = chained(other, version=2)
    verifier = Verifier()
    verifier.read_session([(*ONE, None), (*last, other.digest)])
    assert verifier.finish(0) == (Head(3, last.digest), 2, ())
    verifier = Verifier()
    verifier.read_session([(*ONE, other.digest), (*last, ONE.digest)])
    assert verifier.findings == [(1, BROKEN), (3, BROKEN)]


def test_a_file_that_cannot_be_read_on_is_a_finding_at_the_next_event() -> None:
    verifier = Verifier()
    verifier.read([ONE])
    verifier.stop("disk I/O error")
    assert verifier.findings == [(2, "the file cannot be read from here on: disk I/O error")]


def test_a_damaged_index_is_a_finding_of_the_table_as_a_whole() -> None:
    verifier = Verifier()
    verifier.doubt(["row 3 missing from index events_by_key"])
    damaged = (None, "the table is damaged: row 3 missing from index events_by_key")
    assert verifier.finish(0).findings == (damaged,)


@pytest.mark.parametrize("head", [Head(0, FIRST), Head(1, ONE.digest), Head(2**40, TWO.digest)])
def test_a_head_that_was_written_down_is_read_again(head: Head) -> None:
    assert str(head) == f"{head.position}:{head.digest.hex()}"
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize(
    "text", ["x", "1", "5:zz", f":{'0' * 64}", f"-1:{'0' * 64}", f"1:{'0' * 62}", f"1:{'0' * 66}"]
)
def test_what_is_no_head_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=f"^invalid head: expected POSITION:DIGEST, got '{text}'$"):
        Head.parse(text)
