"""The digest of an event is what the documented recipe gives, so that anybody can check a log."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from agents_eventlog.eventlog import integrity
from tests.properties.profiles import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(0, 2**63 - 1)


@given(
    previous=st.binary(min_size=32, max_size=32),
    position=NUMBERS,
    session_id=TEXT,
    version=NUMBERS,
    kind=TEXT,
    schema_version=NUMBERS,
    branch_id=st.none() | TEXT,
    data=st.binary(max_size=40),
    metadata=st.none() | TEXT,
    key=st.none() | TEXT,
    recorded_at=st.integers(-(2**63), 2**63 - 1),
)
@examples(150)
def test_a_digest_is_what_the_recipe_gives(
    previous: bytes,
    position: int,
    session_id: str,
    version: int,
    kind: str,
    schema_version: int,
    branch_id: str | None,
    data: bytes,
    metadata: str | None,
    key: str | None,
    recorded_at: int,
) -> None:
    data_digest = integrity.data_digest(data)
    assert data_digest == hashlib.sha256(data).digest()
    columns = [
        position,
        session_id,
        version,
        kind,
        schema_version,
        branch_id,
        data_digest.hex(),
        metadata,
        key,
        recorded_at,
    ]
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    expected = hashlib.sha256(previous + text.encode()).digest()
    linked = integrity.link(
        previous,
        position,
        session_id,
        version,
        kind,
        schema_version,
        branch_id,
        data_digest,
        metadata,
        key,
        recorded_at,
    )
    assert linked == expected
