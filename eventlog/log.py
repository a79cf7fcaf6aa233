"""The event log: append, read, verify."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from eventlog import codec, integrity, schema, shared, sqlite
from eventlog.errors import (
    ClosedError,
    ForeignFileError,
    IdempotencyConflictError,
    InvalidEventError,
    NoLogError,
    WrongExpectedVersionError,
)
from eventlog.events import JSON, Event
from eventlog.integrity import EVENT_COLUMNS, Head, Verified, Verifier
from eventlog.store import Durability, Row, Store, Transaction, Unit

T = TypeVar("T")
ExpectedVersion: TypeAlias = int | Literal["any", "new", "exists"]

PAGE_EVENTS = 1_000
PAGE_BYTES = 8 * 1024 * 1024
"""Reading goes in pages of at most so many events and about so many bytes, to keep memory flat."""

EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""What ``occurred_at`` can be, in microseconds since 1970 UTC: the years 1 to 9999."""

INSERT_EVENT = """
    INSERT INTO events (
        position, session_id, version, type, schema_version, branch_id, data,
        data_digest, metadata, idempotency_key, recorded_at, digest
    ) VALUES (?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?)
"""
LAST_DIGEST = "SELECT position, digest FROM events ORDER BY position DESC LIMIT 1"
LAST_POSITION = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
SESSION_VERSION = "SELECT MAX(version) FROM events WHERE session_id = ?"


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
        """Who and why: what was bound by ``recording`` when it was appended."""
        return {} if self.metadata_json is None else codec.decode_metadata(self.metadata_json)

    @property
    def occurred_at(self) -> int:
        """When it happened, in microseconds since 1970 UTC: when it was recorded, unless imported."""
        if self.metadata_json is None or '"occurred_at"' not in self.metadata_json:
            return self.recorded_at
        occurred_at = self.metadata.get("occurred_at")
        if type(occurred_at) is int and EARLIEST <= occurred_at <= LATEST:
            return occurred_at
        return self.recorded_at

    def __repr__(self) -> str:
        return (
            f"Recorded(position={self.position}, session_id={self.session_id!r}, "
            f"version={self.version}, type={self.type!r}, branch_id={self.branch_id!r})"
        )


class Appended(NamedTuple):
    """What an append did: the last version and position given, and how many events there were."""

    version: int
    position: int
    events: int


class Projector(Protocol):
    """What keeps projections up to date inside the log's transactions (see ``projections``)."""

    def join(self, store: Store) -> Projector:
        """Bring this projector's tables up to date and return the one that the store shall use."""

    def begin(self, tx: Transaction, head: Head) -> None:
        """Refuse newer tables, catch up with what others appended."""

    def project(self, tx: Transaction, events: Sequence[Recorded]) -> None:
        """Apply events that were just appended."""

    def before_commit(self, tx: Transaction, head: Head) -> None:
        """Write the checkpoints."""

    def require_fresh(self, tx: Transaction) -> None:
        """Raise StaleProjections when a reader would see less than the log holds."""


class StaleProjections(Exception):  # noqa: N818 - a signal between layers, never seen outside
    """Somebody who does not know the projections appended; a writer has to catch up first."""


class Ledger:
    """The log's part in each writing transaction: it knows the head, and carries it forward."""

    def __init__(self) -> None:
        self.projector: Projector | None = None

    def begin(self, tx: Transaction) -> None:
        """Load the head of the log."""
        tx.state = tx.cache.get("head") or read_head(tx)
        if self.projector is not None:
            self.projector.begin(tx, tx.state)

    def before_commit(self, tx: Transaction) -> None:
        """Write the checkpoints."""
        if self.projector is not None:
            self.projector.before_commit(tx, tx.state)

    def append(
        self,
        tx: Transaction,
        session_id: str,
        events: Iterable[tuple[Event, bytes]],
        *,
        branch_id: str | None,
        version: int,
        metadata: str | None,
        idempotency_key: str | None = None,
    ) -> list[Recorded]:
        """Append encoded events after ``version``, link them, and project them."""
        recorded = []
        head: Head = tx.state
        for event, data in events:
            version += 1
            position = head.position + 1
            payload_digest = integrity.data_digest(data)
            name = event.type_name()
            columns = (position, session_id, version, name, event.schema_version, branch_id)
            rest = (payload_digest, metadata, idempotency_key, tx.now)
            digest = integrity.link(head.digest, *columns, *rest)
            row = (*columns, data, *rest, digest)
            tx.defer(INSERT_EVENT, row)
            head = Head(position, digest)
            recorded.append(Recorded(row))
            idempotency_key = None  # it stands with the first event only
        tx.state = tx.cache["head"] = head
        tx.cache["version", session_id] = version
        if self.projector is not None:
            self.projector.project(tx, recorded)
        return recorded


def append(
    tx: Transaction, session_id: str, event: Event, *, branch_id: str | None = None
) -> Recorded:
    """Append one event in a unit of work. What the unit then reads from projections includes it."""
    return append_all(tx, session_id, ((event, codec.encode(event)),), branch_id=branch_id)[0]


def append_all(
    tx: Transaction,
    session_id: str,
    events: Iterable[tuple[Event, bytes]],
    *,
    branch_id: str | None = None,
    occurred_at: int | None = None,
) -> list[Recorded]:
    """Append events with their encoded data, in a unit of work."""
    recording = tx.recording
    if occurred_at is not None:
        recording = {**recording, "occurred_at": occurred_at}
    return _ledger(tx).append(
        tx,
        session_id,
        events,
        branch_id=branch_id,
        version=session_version(tx, session_id),
        metadata=_metadata_json(recording),
    )


def session_version(tx: Transaction, session_id: str) -> int:
    """Return a session's version in a unit of work; 0 when it does not exist."""
    version: int | None = tx.cache.get(("version", session_id))
    if version is None:
        row = tx.one(SESSION_VERSION, (session_id,))
        version = 0 if row is None or row[0] is None else int(row[0])
    return version


def read_head(tx: Transaction) -> Head:
    """Return the head in a unit of work. Positions are never given twice, even if the tail was cut."""
    last = tx.one(LAST_DIGEST)
    given = tx.one(LAST_POSITION)
    if last is None:
        return Head(0 if given is None else given[0], integrity.FIRST)
    return Head(last[0] if given is None else max(last[0], given[0]), last[1])


def read_events(
    tx: Transaction, after: int, *, limit: int = PAGE_EVENTS, until: int | None = None
) -> list[Recorded]:
    """Return the next page of events after a position, in a unit of work."""
    sql = f"SELECT {EVENT_COLUMNS} FROM events WHERE position > ?"
    parameters: tuple[Any, ...] = (after,)
    if until is not None:
        sql, parameters = f"{sql} AND position <= ?", (after, until)
    cursor = tx.execute(f"{sql} ORDER BY position LIMIT ?", (*parameters, limit))
    return [Recorded(row) for row in _up_to_page_bytes(cursor)]


def _up_to_page_bytes(rows: Iterable[Row]) -> Iterable[Row]:
    size = 0
    for row in rows:
        yield row
        size += len(row[6] or b"")
        if size > PAGE_BYTES:
            return


def _ledger(tx: Transaction) -> Ledger:
    ledger: Ledger = tx.participant  # type: ignore[assignment]
    return ledger


def _metadata_json(recording: Any) -> str | None:
    return codec.encode_json(dict(recording)).decode() if recording else None


class EventLog:
    """
    A log of events in one SQLite file, shared by everybody in this process who opens it.

    ``async with EventLog.open("conversations.db") as log`` or ``log = await EventLog.open(...)``.
    Safe to use from any number of tasks, event loops and threads. Need not be closed.
    """

    def __init__(self, store: Store, path: str, *, read_only: bool) -> None:
        self.store = store
        self.path = path
        self.read_only = read_only
        self._closed = False

    # -- opening and closing ------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Projector | None = None,
        durability: Durability = "full",
        create: bool = True,
        read_only: bool = False,
    ) -> Opening:
        """
        Open the log at a path (":memory:" for one that is this object's alone).

        projections: what to keep up to date with each append, e.g. ``projections.default()``.
        durability: "full" survives power loss; "normal" may then lose the last commits, never
            a part of one, and nothing when only the process dies.
        create: whether a missing or empty file becomes a log; if not, it is a NoLogError.
        read_only: open without writing, not even to the file's header.

        Raises an OpenError that says what the file is instead.
        """
        return Opening(
            lambda: cls.open_sync(
                path,
                projections=projections,
                durability=durability,
                create=create,
                read_only=read_only,
            )
        )

    @classmethod
    def open_sync(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Projector | None = None,
        durability: Durability = "full",
        create: bool = True,
        read_only: bool = False,
        accept: Callable[[Transaction], object] | None = None,
        on_create: Callable[[Transaction], None] | None = None,
    ) -> EventLog:
        """
        Do as ``open`` does, for callers without a running event loop. Blocks.

        accept: looks at a file that holds no log yet and raises what refuses it, before anything
            is written; with it, a file may hold tables of others.
        on_create: runs in the transaction that makes the log's tables.
        """
        if durability not in ("full", "normal"):
            raise ValueError(f"durability is 'full' or 'normal', not {durability!r}")
        target = shared.resolve(path)
        if target != ":memory:":
            sqlite.check_path(target, create=create and not read_only)
        if read_only:
            return cls(_open_read_only(target), target, read_only=True)

        def prepare(store: Store, is_new: bool) -> None:  # noqa: FBT001
            if is_new:
                _claim(store, create=create, accept=accept, on_create=on_create)
            ledger = _ledger_of(store)
            if projections is not None:
                ledger.projector = projections.join(store)

        log = cls.__new__(cls)
        store = shared.acquire(target, user=log, durability=durability, prepare=prepare)
        log.__init__(store, target, read_only=False)  # type: ignore[misc]
        return log

    def join(self, projections: Projector) -> None:
        """Keep these projections up to date, too. Blocks while they catch up."""
        if not self.read_only:
            ledger = _ledger_of(self.store)
            ledger.projector = projections.join(self.store)

    def close(self) -> None:
        """Finish what was asked and close; the file's last user closes its store. Idempotent."""
        if not self._closed:
            self._closed = True
            if self.read_only:
                self.store.close()
            else:
                shared.release(self.store, self)

    async def __aenter__(self) -> EventLog:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    # -- writing ------------------------------------------------------------------------------

    async def append(
        self,
        session_id: str,
        events: Event | Sequence[Event],
        *,
        expected_version: ExpectedVersion = "any",
        branch_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Appended:
        """
        Append events to a session, all or none; they are durable when this returns.

        expected_version: the version that the session must be at; "any", "exists" (at least 1),
            or "new" (the same as 0).
        idempotency_key: makes the append repeatable: with the same key and the same events nothing
            happens and the first result is returned.

        Raises WrongExpectedVersionError, IdempotencyConflictError, InvalidEventError,
        UnserialisableError, or a StoreError; nothing was written then.
        """
        batch = (events,) if isinstance(events, Event) else tuple(events)
        encoded = [(event, _encode_checked(event)) for event in batch]
        _check_names(session_id=session_id, branch_id=branch_id, idempotency_key=idempotency_key)

        def unit(tx: Transaction) -> Appended:
            version = session_version(tx, session_id)
            if idempotency_key is not None:
                first = _first_result(tx, session_id, idempotency_key, encoded)
                if first is not None:
                    return first
            _check_expected(session_id, expected_version, version)
            recording = dict(tx.recording)
            if idempotency_key is not None:
                recording["events_in_append"] = len(encoded)
            recorded = _ledger(tx).append(
                tx,
                session_id,
                encoded,
                branch_id=branch_id,
                version=version,
                metadata=_metadata_json(recording),
                idempotency_key=idempotency_key,
            )
            position = recorded[-1].position if recorded else tx.state.position
            return Appended(version + len(recorded), position, len(recorded))

        return await self.write(unit)

    # -- reading ------------------------------------------------------------------------------

    async def read(
        self,
        session_id: str | None = None,
        *,
        branch_id: str | None = None,
        types: Sequence[str | type[Event]] | None = None,
        after: int = 0,
        until: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        backward: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Recorded]:
        """
        Read events in the order of their positions, or backward.

        session_id, branch_id, types: only these. ``branch_id`` is the branch that an event happened on.
        after, until: positions, ``after`` exclusive, ``until`` inclusive.
        since, before: times of recording, ``since`` inclusive, ``before`` exclusive; a time without
            a zone is UTC.

        Memory stays flat; other programs may append meanwhile.
        """
        query = _Query(session_id, branch_id, types, after, until, since, before, backward=backward)
        left = limit
        while left is None or left > 0:
            size = PAGE_EVENTS if left is None else min(PAGE_EVENTS, left)
            page = await self.query(lambda tx, size=size: query.page(tx, size))  # type: ignore[misc]
            for recorded in page:
                yield recorded
            if not page:
                return
            query.seek(page[-1].position)
            left = None if left is None else left - len(page)

    async def version(self, session_id: str) -> int:
        """Return a session's version: how many events it has; 0 when it does not exist."""
        return await self.query(lambda tx: session_version(tx, session_id))

    async def head(self) -> Head:
        """Return the last event's position and digest. Keep it elsewhere to find a cut tail."""
        return await self.query(
            lambda tx: Head(*(tx.one(LAST_DIGEST) or (0, integrity.FIRST))),
        )

    async def verify(self, expect_head: Head | None = None) -> Verified:
        """
        Recompute every digest from what is read back, and check positions, versions, decodability.

        expect_head: a head that was kept elsewhere; the log must contain it.
        """
        verifier = Verifier(expect_head)
        while True:
            after = verifier.head.position

            def page(tx: Transaction, after: int = after) -> list[Row]:
                sql = f"SELECT {EVENT_COLUMNS} FROM events WHERE position > ? ORDER BY position"
                return list(_up_to_page_bytes(tx.execute(f"{sql} LIMIT ?", (after, PAGE_EVENTS))))

            rows = await self.query(page)
            if not rows:
                break
            await asyncio.to_thread(verifier.read, rows)
        given = await self.query(lambda tx: tx.one(LAST_POSITION))
        return verifier.finish(0 if given is None else given[0])

    # -- units of work ------------------------------------------------------------------------

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit of work: a plain function of an open transaction that may append."""
        self._check_open()
        return await self.store.write(unit)

    async def query(self, unit: Unit[T]) -> T:
        """Run a plain function of an open reading transaction."""
        self._check_open()
        return await self.store.read(unit)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed")


class Opening:
    """An opening under way: ``await`` it, or enter it with ``async with``."""

    def __init__(self, open_sync: Callable[[], EventLog]) -> None:
        self._open_sync = open_sync
        self._log: EventLog | None = None

    def __await__(self) -> Generator[Any, None, EventLog]:
        return asyncio.to_thread(self._open_sync).__await__()

    async def __aenter__(self) -> EventLog:
        self._log = await self
        return self._log

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._log is not None:
            await asyncio.to_thread(self._log.close)


class _Query:
    """A question to the events table that is answered page by page."""

    def __init__(
        self,
        session_id: str | None,
        branch_id: str | None,
        types: Sequence[str | type[Event]] | None,
        after: int,
        until: int | None,
        since: datetime | None,
        before: datetime | None,
        *,
        backward: bool,
    ) -> None:
        conditions: list[tuple[str, Any]] = [("position > ?", after)]
        if session_id is not None:
            conditions.append(("session_id = ?", session_id))
        if branch_id is not None:
            conditions.append(("branch_id = ?", branch_id))
        if until is not None:
            conditions.append(("position <= ?", until))
        if since is not None:
            conditions.append(("recorded_at >= ?", microseconds(since)))
        if before is not None:
            conditions.append(("recorded_at < ?", microseconds(before)))
        if types is not None:
            names = [kind if isinstance(kind, str) else kind.type_name() for kind in types]
            marks = ", ".join("?" * len(names))
            conditions.extend([(f"type IN ({marks})", None)])
            self._type_names = names
        else:
            self._type_names = []
        self._conditions = conditions
        self._backward = backward
        # A session's events are found by its own index, in the same order.
        self._order = "version" if session_id is not None else "position"

    def seek(self, position: int) -> None:
        """Go on behind this position."""
        if self._backward:
            self._conditions = [c for c in self._conditions if c[0] != "position < ?"]
            self._conditions.append(("position < ?", position))
        else:
            self._conditions[0] = ("position > ?", position)

    def page(self, tx: Transaction, size: int) -> list[Recorded]:
        """Return the next events, at most ``size``; an empty list at the end."""
        where = " AND ".join(condition for condition, _ in self._conditions)
        parameters: list[Any] = []
        for condition, value in self._conditions:
            parameters.extend(self._type_names if "IN" in condition else [value])
        direction = "DESC" if self._backward else "ASC"
        sql = f"SELECT {EVENT_COLUMNS} FROM events WHERE {where} ORDER BY {self._order} {direction}"
        rows = tx.execute(f"{sql} LIMIT ?", (*parameters, size))
        return [Recorded(row) for row in _up_to_page_bytes(rows)]


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970 UTC; a time without a zone is UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _encode_checked(event: Any) -> bytes:
    if not isinstance(event, Event) or type(event) is Event:
        raise InvalidEventError(f"{type(event).__name__} is no event of the vocabulary")
    return codec.encode(event)


def _check_names(**names: str | None) -> None:
    for what, name in names.items():
        if name is not None or what == "session_id":
            codec.check_text(what, name)


def _check_expected(session_id: str, expected: ExpectedVersion, actual: int) -> None:
    if expected == "any" or (expected == "exists" and actual > 0):
        return
    if expected == actual or (expected == "new" and actual == 0):
        return
    if not isinstance(expected, int) and expected not in ("new", "exists"):
        raise InvalidEventError(
            f"expected_version is a version, 'any', 'new' or 'exists', not {expected!r}"
        )
    raise WrongExpectedVersionError(session_id=session_id, expected=expected, actual=actual)


def _first_result(
    tx: Transaction, session_id: str, key: str, events: Sequence[tuple[Event, bytes]]
) -> Appended | None:
    """Return what the first append with this key returned; None when there was none."""
    first = tx.one(
        "SELECT version, metadata FROM events WHERE session_id = ? AND idempotency_key = ?",
        (session_id, key),
    )
    if first is None:
        return None
    version, metadata = first
    count = msgspec.json.decode(metadata)["events_in_append"]
    rows = tx.all(
        "SELECT type, data_digest, position FROM events "
        "WHERE session_id = ? AND version >= ? AND version < ? ORDER BY version",
        (session_id, version, version + count),
    )
    before = [(kind, digest) for kind, digest, _ in rows]
    if before != [(event.type_name(), integrity.data_digest(data)) for event, data in events]:
        raise IdempotencyConflictError(session_id=session_id, idempotency_key=key)
    return Appended(version + count - 1, rows[-1][2], count)


# -- opening a file ---------------------------------------------------------------------------


def _open_read_only(path: str) -> Store:
    return shared.private(
        Store(path, read_only=True),
        lambda store: store.read_sync(lambda tx: schema.require_log(tx.connection, path)),
    )


def _claim(
    store: Store,
    *,
    create: bool,
    accept: Callable[[Transaction], object] | None,
    on_create: Callable[[Transaction], None] | None,
) -> None:
    """Make sure that the file holds a log: look, and only then write."""

    def look(tx: Transaction) -> bool:
        if schema.identify(tx.connection, store.path):
            return True
        names = schema.table_names(tx.connection)
        if names and accept is None:
            raise ForeignFileError(f"{store.path} holds tables of another program", path=store.path)
        if clash := [name for name in sorted(names) if name.lower() in schema.TABLES]:
            raise ForeignFileError(
                f"{store.path} has a table {clash[0]!r} already, a name that the log needs",
                path=store.path,
            )
        if accept is not None:
            accept(tx)
        return False

    def make(tx: Transaction) -> None:
        if not look(tx):  # another process may have been first
            schema.create(tx)
            tx.participant, tx.state = Ledger(), read_head(tx)
            if on_create is not None:
                on_create(tx)

    is_log = _exists(store.path) and store.read_sync(look)
    if not is_log and not create:
        raise NoLogError(f"there is no event log in {store.path}", path=store.path)
    if not is_log:
        store.prepare_file()
        store.write_sync(make)
    store.participant = Ledger()
    store.write_sync(lambda tx: None)  # noqa: ARG005 - can it be written at all?


def _exists(path: str) -> bool:
    return os.path.exists(path) and os.path.getsize(path) > 0


def _ledger_of(store: Store) -> Ledger:
    ledger: Ledger = store.participant  # type: ignore[assignment]
    return ledger
