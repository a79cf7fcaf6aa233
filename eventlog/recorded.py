"""An event as it stands in the log."""

from __future__ import annotations

from functools import cached_property

from eventlog import codec
from eventlog.events import JSON, Event
from eventlog.transaction import Row

EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""What ``occurred_at`` can be, in microseconds since 1970 UTC: the years 1 to 9999."""


class Recorded:
    """An event as it stands in the log. ``event`` and ``metadata`` are decoded when asked for."""

    __slots__ = (
        "__dict__",
        "branch_id",
        "data",
        "data_digest",
        "digest",
        "idempotency_key",
        "metadata_json",
        "position",
        "recorded_at",
        "schema_version",
        "session_id",
        "type",
        "version",
    )

    def __init__(self, row: Row) -> None:
        self.position: int = row[0]
        self.session_id: str = row[1]
        self.version: int = row[2]
        self.type: str = row[3]
        self.schema_version: int = row[4]
        self.branch_id: str | None = row[5]
        self.data: bytes | None = row[6]
        self.data_digest: bytes = row[7]
        self.metadata_json: str | None = row[8]
        self.idempotency_key: str | None = row[9]
        self.recorded_at: int = row[10]
        self.digest: bytes = row[11]

    @cached_property
    def event(self) -> Event | None:
        """The event; None once its content was erased. Raises UndecodableEventError."""
        if self.data is None:
            return None
        return codec.decode(self.type, self.schema_version, self.data, position=self.position)

    @cached_property
    def metadata(self) -> dict[str, JSON]:
        """Who and why: what was bound by ``recording``. Raises UndecodableEventError."""
        if self.metadata_json is None:
            return {}
        return codec.decode_recording(self.metadata_json, position=self.position)

    @property
    def occurred_at(self) -> int:
        """When it happened, in microseconds since 1970 UTC: when it was recorded, unless imported."""
        return occurred_at(self.recorded_at, self.metadata_json, self.position)

    def __repr__(self) -> str:
        return (
            f"Recorded(position={self.position}, session_id={self.session_id!r}, "
            f"version={self.version}, type={self.type!r}, branch_id={self.branch_id!r})"
        )


def occurred_at(recorded_at: int, metadata_json: str | None, position: int) -> int:
    """Return when an event happened, from its columns. Raises UndecodableEventError."""
    if metadata_json is None or '"occurred_at"' not in metadata_json:
        return recorded_at
    told = codec.decode_recording(metadata_json, position=position).get("occurred_at")
    return told if type(told) is int and EARLIEST <= told <= LATEST else recorded_at
