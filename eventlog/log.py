"""The event log: append, read, verify."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar, cast

from agents_eventlog.eventlog import codec, sealing
from agents_eventlog.eventlog.appender import (
    PAGE_EVENTS,
    Appender,
    Projector,
    ends_at,
    last_assigned,
    ledger,
    metadata_json,
    read_linked_rows,
    read_rows_as_stored,
    session_version,
    stored_head,
)
from agents_eventlog.eventlog.appending import (
    AppendResult,
    ExpectedVersion,
    check_expected,
    check_names,
    encode_checked,
    first_result,
)
from agents_eventlog.eventlog.bootstrap import claim, is_copied, open_read_only
from agents_eventlog.eventlog.cipher.key_store import KeysOption, keys_of
from agents_eventlog.eventlog.cursor import Cursor
from agents_eventlog.eventlog.errors import (
    ClosedError,
    CorruptFileError,
    InvalidQueryError,
    KeysError,
)
from agents_eventlog.eventlog.events import Event
from agents_eventlog.eventlog.integrity import (
    Head,
    Verification,
    Verifier,
    is_in,
    missing_head,
)
from agents_eventlog.eventlog.proofs import proving
from agents_eventlog.eventlog.proofs.signing import SigningKey
from agents_eventlog.eventlog.reader import Query
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.engine import MEMORY, Durability, Store
from agents_eventlog.eventlog.storage.engines import engine_for
from agents_eventlog.eventlog.storage.transaction import Lane, Row, Transaction, Unit
from agents_eventlog.eventlog.subscription import follow, source

T = TypeVar("T")
L = TypeVar("L", bound="EventLog")


class _User:
    """What holds a shared store open: it lives as long as the log object that has it."""


class Backup(NamedTuple):
    """A verified copy of a log: its path, head, number of events, and size."""

    path: str
    head: Head
    events: int
    bytes: int


class EventLog:
    """
    An append-only log of events in one SQLite file.

    ``async with EventLog.open("conversations.db") as log`` or ``log = await EventLog.open(...)``.
    All objects of a process that open the same file share its connections. Safe to use from any number of
    tasks, event loops and threads. ``close()`` is optional.
    """

    def __init__(
        self, store: Store, path: str, *, read_only: bool, user: object | None = None
    ) -> None:
        self.store = store
        self._user = user
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
        keys: KeysOption = None,
    ) -> Opening[Self]:
        """
        Open the log at a path; ":memory:" is a log in memory that no other object shares.

        projections: the tables to keep up to date with each append, e.g. ``projections.default()``; None
            for no tables.
        durability: with "full", an append survives a power loss once it has returned; with "normal", which
            is faster, a power loss (not a crash of the process) may remove the last appends, each whole.
        create: whether a missing or empty file becomes a log; False raises NoLogError instead.
        read_only: never write to the file; writes raise ReadOnlyFileError.
        keys: what seals the contents, and opens them: the path of a key file, whose root key is in
            EVENTLOG_KEY, or a ``KeyFile``. A log that is not sealed yet is sealed from then on. None: the
            path in EVENTLOG_KEYS, if it is set. A sealed log that is opened without keys can be read except
            for its contents, and takes no new ones.

        Raises an OpenError that says what the file is, if it cannot be opened as a log, and a KeysError if
        the keys do not fit.
        """
        return Opening(
            lambda: cls.open_sync(
                path,
                projections=projections,
                durability=durability,
                create=create,
                read_only=read_only,
                keys=keys,
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
        keys: KeysOption = None,
        seal: bool = True,
        accept: Callable[[Transaction], bool] | None = None,
        on_create: Callable[[Transaction], None] | None = None,
    ) -> Self:
        """
        Do as ``open`` does, but block; for callers without a running event loop.

        seal: whether keys seal a log that is not sealed, or is created here.
        accept: called before a log is created in a file, to read the file's other tables; it raises the
            error that refuses the file. Without it, a file with other tables raises ForeignFileError.
            It returns whether the log's tables need names of their own beside those.
        on_create: called in the transaction that creates the log's tables.
        """
        if durability not in ("full", "normal"):
            raise ValueError(f"invalid durability: expected 'full' or 'normal', got {durability!r}")
        engine = engine_for(path)
        target = engine.resolve(path)
        found = keys_of(keys)
        if getattr(found, "path", None) == target:
            raise KeysError(f"{target} is the log itself: expected its keys in another place")
        if read_only:
            if target != MEMORY:
                engine.check_path(target, create=False)
            return cls(open_read_only(engine, target, found), target, read_only=True)

        # Creating the tables takes longer than all else that a log in memory does at first.
        is_plain = (target, create, found, accept, on_create) == (MEMORY, True, None, None, None)
        template = projections if is_plain else None

        def prepare(store: Store, is_new: bool) -> None:
            if is_new and not is_copied(store, template):
                sealed_with = found if seal else None
                claim(store, create=create, accept=accept, on_create=on_create, keys=sealed_with)
            if found is not None:
                sealing.attach(store, found, seal=seal)
            if projections is not None:
                projections.join(store)
            store.keep_template(template)

        user = _User()
        store = engine.acquire(target, user=user, durability=durability, prepare=prepare)
        return cls(store, target, read_only=False, user=user)

    def join(self, projections: Projector) -> None:
        """Keep more projections up to date. Blocks until they include all events; ignored if read-only."""
        if not self.read_only:
            projections.join(self.store)

    def close(self) -> None:
        """
        Wait for running operations and close. Idempotent; later calls raise ClosedError.

        The connections close with the last object of this process on the file.
        """
        if not self._closed:
            self._closed = True
            self.store.notifier.notify()  # subscriptions end
            if self.read_only:
                self.store.close()
            else:
                self.store.engine.release(self.store, self._user)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called on this object."""
        return self._closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} path={self.path!r}>"

    # -- writing ------------------------------------------------------------------------------

    async def append(
        self,
        session_id: str,
        events: Event | Sequence[Event],
        *,
        expected_version: ExpectedVersion = "any",
        branch_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> AppendResult:
        """
        Append events to a session, all or none; they are durable when this returns.

        expected_version: the version (number of events) that the session must have; or "any", "exists" (at
            least 1), or "new" (0).
        branch_id: the branch that the events belong to; None for events of the whole session.
        idempotency_key: makes a retry safe: repeating the call with the same key and events writes nothing
            and returns the first result.

        ``append`` does not check for deleted branches or sessions: adding items to a deleted branch
        restores it. Session objects do check.

        Raises WrongExpectedVersionError, IdempotencyConflictError, InvalidEventError,
        UnserialisableError, or a StoreError; then nothing was written.
        """
        batch = (events,) if isinstance(events, Event) else tuple(events)
        encoded = [(event, encode_checked(event)) for event in batch]
        codec.check_session_id(session_id)
        check_names(session_id=session_id, branch_id=branch_id, idempotency_key=idempotency_key)

        def unit(tx: Transaction) -> AppendResult:
            version = session_version(tx, session_id)
            if idempotency_key is not None:
                first = first_result(tx, session_id, idempotency_key, encoded, branch_id)
                if first is not None:
                    return first
            check_expected(session_id, expected_version, version)
            stored_key = idempotency_key
            if idempotency_key is not None:
                stored_key = sealing.idempotency_key(tx, session_id, idempotency_key)
            recording = dict(tx.recording)
            if idempotency_key is not None or len(encoded) > 1:
                recording["events_in_append"] = len(encoded)
            recorded = ledger(tx).append(
                tx,
                session_id,
                encoded,
                branch_id=branch_id,
                version=version,
                metadata=metadata_json(recording),
                idempotency_key=stored_key,
            )
            position = recorded[-1].position if recorded else tx.lane.position
            return AppendResult(version + len(recorded), position, len(recorded))

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
    ) -> AsyncIterator[RecordedEvent]:
        """
        Read events in the order of their positions, or backward.

        session_id: only events of this session.
        branch_id: only events that were recorded on this branch.
        types: only events of these classes, e.g. ``[ItemsAdded]``, or names, e.g. ``["items_added"]``.
        after, until: positions, ``after`` exclusive, ``until`` inclusive.
        since, before: times of recording, ``since`` inclusive, ``before`` exclusive; a time without
            a zone is UTC.
        backward: newest first.
        limit: maximum number of events; None for all.

        Reads in pages: memory use does not depend on the length of the log, and events appended meanwhile
        may be included. Raises InvalidQueryError (a ValueError).
        """
        query = Query(session_id, branch_id, types, after, until, since, before, backward=backward)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidQueryError(f"invalid limit: expected 0 or more, got {limit!r}")
        left = limit
        while left is None or left > 0:
            size = PAGE_EVENTS if left is None else min(PAGE_EVENTS, left)
            page = await self._read(partial(query.page, size=size))
            for recorded in page:
                yield recorded
            if not page:
                return
            query.seek(page[-1])
            left = None if left is None else left - len(page)

    def subscribe(
        self,
        session_id: str | None = None,
        *,
        branch_id: str | None = None,
        types: Sequence[str | type[Event]] | None = None,
        after: int | Head | Sequence[int] = 0,
        poll_seconds: float = 0.25,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """
        Read events as ``read`` does, then yield new ones as they are appended: in order, each once.

        after: where to start: 0 for the first event, ``await log.head()`` for the next one, or a position.
            To resume on PostgreSQL, give the last position seen for each ``position % 64``: its events
            become visible in the order of positions only within these lanes and within each session.
        poll_seconds: seconds between reads that look for the events of other processes. Events that this
            process appends arrive at once, unless this log is ``read_only``; on PostgreSQL, so do those of
            other processes.

        Ends when the log is closed. To stop early, break out of the loop (use ``contextlib.aclosing`` to
        release it immediately). After a StoreError, resume with ``after=`` the last position you saw.
        """
        if not poll_seconds > 0:
            raise ValueError(f"invalid poll_seconds: expected more than 0, got {poll_seconds!r}")
        self._check_open()
        return follow(
            self.query,
            lambda: self._closed,
            self.store.notifier,
            source(session_id, branch_id, types, Cursor.of(self.store.engine.lanes, after)),
            None if self.store.is_memory else poll_seconds,  # no other process reaches a memory
        )

    async def version(self, session_id: str) -> int:
        """Return a session's version, which is its number of events; 0 for an unknown session."""
        return await self._read(lambda tx: session_version(tx, session_id))

    async def head(self) -> Head:
        """
        Return the last event's position and digest.

        Save it elsewhere: ``verify(expect_head)`` then detects that the end of the log was cut off.
        """
        return await self._read(stored_head)

    async def verify(
        self,
        expect_head: Head | str | None = None,
        *,
        after: Head | str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Verification:
        """
        Recompute every event's digest, and check that each event is in its place and can be decoded.

        expect_head: a ``head()`` saved earlier, or its ``str``; the log must still contain it.
        after: a head that was verified before, or its ``str``: the log must still contain it, and only the
            events after it are read. The result's number of events is theirs.
        on_progress: called with the number of events read so far.

        Does not raise for a damaged file: unreadable parts are findings, too. Raises ValueError if a head
        is a str in another format.
        """
        expected = Head.parse(expect_head) if isinstance(expect_head, str) else expect_head
        begin = Head.parse(after) if isinstance(after, str) else after
        lanes = self.store.engine.lanes
        ends: list[Lane] = []
        known: list[Lane] = []
        if begin is not None and begin.position > 0:
            ends = await self._read(partial(ends_at, head=begin))
            known = [*ends, *await self._read(partial(ends_at, head=expected or begin))]
            if not is_in(begin, {end.position: end.digest for end in ends}):
                return Verification(begin, 0, (missing_head(begin),))
        verifier = Verifier(expected, lanes=lanes, after=ends, known=known)
        cursor = Cursor.of(lanes, [end.position for end in ends])
        while True:
            try:
                rows, given = await self._read(partial(_rows_and_end, cursor=cursor))
                cursor.advance([row[0] for row in rows])
            except CorruptFileError as error:
                verifier.stop(error)
                return verifier.finish(0)
            if not rows:
                if not self.store.is_memory:
                    verifier.doubt(
                        await asyncio.to_thread(self.store.engine.damages, self.path, "events")
                    )
                return verifier.finish(given)
            await asyncio.to_thread(verifier.read, rows)
            if on_progress is not None:
                on_progress(verifier.events)

    async def verify_session(self, session_id: str) -> Verification:
        """
        Verify one session's events, in time that does not depend on the length of the log.

        Also checks each event's link to the event before it in the log. Only ``verify`` detects changed
        events of other sessions, or that the end of the log was cut off. The result's head is that of the
        session's last event.
        """
        verifier = Verifier(lanes=self.store.engine.lanes)
        version = 0
        while True:
            try:
                rows = await self._read(
                    partial(read_linked_rows, session_id=session_id, version=version)
                )
            except CorruptFileError as error:
                verifier.stop(error)
                return verifier.finish(0)
            if not rows:
                return verifier.finish(0)
            await asyncio.to_thread(verifier.read_session, rows)
            version = rows[-1][2]

    # -- proofs -------------------------------------------------------------------------------

    async def sign(self, key: SigningKey, *, earlier: str | bytes | None = None) -> str:
        """
        Sign the head of the log; return the text of a C2SP checkpoint, to keep or publish elsewhere.

        key: the log's own, in a ``SigningKey``. It signs no other log.
        earlier: a head that the key signed before: sign only if the log still contains it, unchanged.

        Reads all digests: some seconds for a million events. Needs the package ``cryptography``. Raises
        ProofError if the log does not contain the earlier head.
        """
        return await proving.sign(self._read, self.store.engine.lanes, key, earlier)

    async def prove(
        self, session_id: str, *, signed: str | bytes | None = None, with_key: bool = False
    ) -> str:
        """
        Return a proof that a session's events are in the log, as JSON; ``check_proof`` checks it.

        signed: the text of a signed head, up to which to prove; None for the end of the log, which is
            to be signed before another event is appended.
        with_key: of a sealed log, add the session's keys, which open these contents and no others.

        The proof contains the session's events with their metadata, and nothing of other sessions. Raises
        SessionNotFoundError; ProofError for a head that the log does not contain, or that is older than
        the session; CorruptFileError for events that do not match their digests; and, for keys, what
        reading the contents raises.
        """
        return await proving.prove(
            self._read, self.store.engine.lanes, session_id, signed, with_key=with_key
        )

    async def prove_consistency(
        self, earlier: str | bytes, *, signed: str | bytes | None = None
    ) -> str:
        """
        Return a proof that the log only grew since an earlier signed head; ``check_consistency`` checks it.

        earlier: the text of the earlier head.
        signed: the text of the later one; None for the end of the log, as in ``prove``.

        Raises ProofError for a head that the log does not contain.
        """
        return await proving.prove_consistency(self._read, self.store.engine.lanes, earlier, signed)

    # -- backups ------------------------------------------------------------------------------

    async def backup(
        self, target: str | os.PathLike[str], *, expect_head: Head | str | None = None
    ) -> Backup:
        """
        Copy the log to a new file, and verify the copy. Other processes can keep writing.

        expect_head: a ``head()`` saved earlier, or its ``str``; the copy must contain it.

        The copy is the log at one moment, and gets its name once it is verified. To restore it, move the
        damaged file away, open the copy, and back it up to the log's path. Raises OpenError if the target
        exists, CorruptFileError if the copy does not verify, ValueError for a log in memory.
        """
        self._check_open()
        if self.store.is_memory:
            raise ValueError("cannot back up a log in memory: expected a log in a file")
        expected = Head.parse(expect_head) if isinstance(expect_head, str) else expect_head
        return await asyncio.to_thread(self._backup, self.store.engine.resolve(target), expected)

    def _backup(self, target: str, expected: Head | None) -> Backup:
        engine = self.store.engine
        with engine.copying(self.path, target) as part:
            with closing(EventLog.open_sync(part, read_only=True)) as copy:
                verified = asyncio.run(copy.verify(expected))
                size = copy.store.read_sync(engine.facts)["bytes"]
            problems = [finding.problem for finding in verified.findings] or engine.damages(part)
            if problems:
                raise CorruptFileError(
                    f"the copy of {self.path} does not verify: {problems[0]}", path=self.path
                )
        return Backup(target, verified.head, verified.events, cast("int", size))

    # -- units of work ------------------------------------------------------------------------

    async def write(self, unit: Unit[T]) -> T:
        """
        Call ``unit(tx)`` in a ``Transaction`` that writes, commit, and return its result.

        unit: a plain function, not a coroutine. It runs on the log's writing thread, and may run twice: if
            another unit in the same commit fails, each unit runs again alone. So it must not block or fork,
            and must undo effects outside the transaction with ``tx.on_rollback``. It must return data, not
            a cursor.

        If the unit raises, all its writes are rolled back; other units are not affected.
        """
        self._check_open()
        return await self.store.write(unit)

    async def query(self, unit: Unit[T]) -> T:
        """
        Call ``unit(tx)`` in a ``Transaction`` that only reads, and return its result.

        unit: a plain function, not a coroutine. It must not block or fork, and must return data, not a
            cursor. It may run twice: if the projections are behind the log, because another program
            appended without them, they catch up and the unit runs again. In a ``read_only`` log, that
            raises StaleProjectionError.
        """

        def fresh(tx: Transaction) -> T:
            kept = self.store.participant
            if isinstance(kept, Appender) and kept.projector is not None:
                kept.projector.require_fresh(tx)
            return unit(tx)

        return await self._read(fresh)

    async def _read(self, unit: Unit[T]) -> T:
        self._check_open()
        return await self.store.read(unit, scan=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed")


def _rows_and_end(tx: Transaction, cursor: Cursor) -> tuple[list[Row], int]:
    """Return the next events and the last position ever assigned, as of one moment."""
    return read_rows_as_stored(tx, cursor), last_assigned(tx)


class Opening(Generic[L]):
    """An opening under way: ``await`` it, or enter it with ``async with``."""

    _log: L

    def __init__(self, open_sync: Callable[[], L]) -> None:
        self._open_sync = open_sync

    def __await__(self) -> Generator[Any, None, L]:
        return asyncio.to_thread(self._open_sync).__await__()

    async def __aenter__(self) -> L:
        self._log = await self
        return self._log

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._log.close)
