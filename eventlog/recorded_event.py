"""An event as the log stores it."""

from __future__ import annotations

from functools import cached_property

from agents_eventlog.eventlog import codec
from agents_eventlog.eventlog.cipher.envelope import Envelope, Withheld
from agents_eventlog.eventlog.errors import KeysMissingError, ShreddedError
from agents_eventlog.eventlog.events import JSON, Event
from agents_eventlog.eventlog.storage.transaction import Row

EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""What ``occurred_at`` can be, in microseconds since 1970 UTC: the years 1 to 9999."""


class RecordedEvent:
    """
    An event as the log stores it: ``event`` with its place, time, metadata and digest.

    position: its place in the log. version: its place in its session, from 1.
    recorded_at: when it was appended, in microseconds since 1970 UTC.
    branch_id: the branch that it was recorded on; None for events of the whole session.
    data, metadata_json: the stored JSON; ``event`` and ``metadata`` decode it at first access. ``data`` is
        None if the content was erased, and an ``Envelope`` if it is sealed.
    structure: the number and types of the items of an erased event, if known; otherwise None.
    """

    __slots__ = (
        "__dict__",
        "branch_id",
        "data",
        "data_digest",
        "digest",
        "idempotency_key",
        "is_outline",
        "metadata_json",
        "position",
        "recorded_at",
        "schema_version",
        "session_id",
        "structure",
        "type",
        "version",
    )

    position: int
    session_id: str
    version: int
    type: str
    schema_version: int
    branch_id: str | None
    data: bytes | None
    data_digest: bytes
    metadata_json: str | None
    idempotency_key: str | None
    recorded_at: int
    digest: bytes
    structure: bytes | None
    is_outline: bool

    def __init__(self, row: Row) -> None:
        (
            self.position,
            self.session_id,
            self.version,
            self.type,
            self.schema_version,
            self.branch_id,
            self.data,
            self.data_digest,
            self.metadata_json,
            self.idempotency_key,
            self.recorded_at,
            self.digest,
        ) = row
        self.structure = None
        self.is_outline = False

    @cached_property
    def event(self) -> Event | None:
        """
        The event; None once its content was erased.

        Raises UndecodableEventError; for sealed content a KeysError, ShreddedError or TamperedPayloadError.
        """
        data = self.opened()
        if data is None:
            return None
        return codec.decode(self.type, self.schema_version, data, position=self.position)

    def opened(self) -> bytes | None:
        """Return the stored JSON, opened if it is sealed, as ``event`` does; None if it was erased."""
        return self.data.opened() if isinstance(self.data, Envelope) else self.data

    @cached_property
    def withheld(self) -> Withheld | None:
        """Why the content cannot be read; None if it can, as far as keys go."""
        if self.data is None:
            return "erased"
        try:
            self.opened()
        except KeysMissingError:
            return "sealed"
        except ShreddedError:
            return "shredded"
        return None

    @property
    def is_sealed(self) -> bool:
        """Whether the content is sealed, in this object or in the event that it outlines."""
        return self.is_outline or isinstance(self.data, Envelope)

    @property
    def is_erased(self) -> bool:
        """Whether the content was erased."""
        return self.data is None or self.structure is not None

    def outlined(self) -> RecordedEvent:
        """
        Return the event as projections get it: an erased one with its structure in place of its data, and a
        sealed one with its outline, which has no content.

        An erased event without a structure is returned unchanged; its ``event`` is None.
        """
        data, is_sealed = self.data, isinstance(self.data, Envelope)
        kept = data.outline if isinstance(data, Envelope) else self.structure
        if kept is None or (data is not None and not is_sealed):
            return self
        columns = (self.position, self.session_id, self.version, self.type, self.schema_version)
        rest = (self.data_digest, self.metadata_json, self.idempotency_key, self.recorded_at)
        outlined = RecordedEvent((*columns, self.branch_id, kept, *rest, self.digest))
        outlined.structure, outlined.is_outline = self.structure, is_sealed
        return outlined

    @cached_property
    def metadata(self) -> dict[str, JSON]:
        """Who and why: what was bound by ``recording``. Raises UndecodableEventError."""
        if self.metadata_json is None:
            return {}
        return codec.decode_recording(self.metadata_json, position=self.position)

    @property
    def occurred_at(self) -> int:
        """When it happened, in microseconds since 1970 UTC: ``recorded_at``, unless it was imported."""
        if self.metadata_json is None:
            return self.recorded_at
        return occurred_at(self.recorded_at, self.metadata_json, self.position)

    @property
    def happened_at(self) -> int:
        """``occurred_at``; ``recorded_at`` if the metadata cannot be read."""
        try:
            return self.occurred_at
        except (ValueError, RecursionError):
            return self.recorded_at

    def __repr__(self) -> str:
        return (
            f"RecordedEvent(position={self.position}, session_id={self.session_id!r}, "
            f"version={self.version}, type={self.type!r}, branch_id={self.branch_id!r})"
        )


def occurred_at(recorded_at: int, metadata_json: str | None, position: int) -> int:
    """Return when an event happened, from its columns. Raises UndecodableEventError."""
    if metadata_json is None or '"occurred_at"' not in metadata_json:
        return recorded_at
    told = codec.decode_recording(metadata_json, position=position).get("occurred_at")
    return told if type(told) is int and EARLIEST <= told <= LATEST else recorded_at
