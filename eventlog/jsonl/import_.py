"""Import histories, session by session, each completely or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from agents_eventlog.eventlog import sealing
from agents_eventlog.eventlog.appender import (
    StoredEvent,
    ledger,
    position_after,
    position_before,
    session_version,
)
from agents_eventlog.eventlog.cipher import identity
from agents_eventlog.eventlog.cipher.envelope import Place
from agents_eventlog.eventlog.errors import (
    AppendError,
    EventLogError,
    InvalidEventError,
    KeysError,
    SourceError,
    UndecodableEventError,
    UnserialisableError,
)
from agents_eventlog.eventlog.events import ITEM_EVENTS, ContentErased, ItemRedacted
from agents_eventlog.eventlog.jsonl import format as jsonl_format
from agents_eventlog.eventlog.jsonl.format import EventLine, LogLine
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.reader import event_counts
from agents_eventlog.eventlog.sealing import SealedAs
from agents_eventlog.eventlog.storage.transaction import Transaction

OnConflict: TypeAlias = Literal["refuse", "skip", "rename"]
ImportOutcome: TypeAlias = Literal["imported", "renamed", "skipped", "refused", "broken"]


class ImportResult(NamedTuple):
    """
    The outcome for one session.

    outcome: "imported"; "renamed", to ``imported_as``; "skipped" or "refused", because the id is in use; or
        "broken", for the reason in ``problem``. The last three write nothing.
    events: the number of imported events.
    """

    session_id: str
    outcome: ImportOutcome
    imported_as: str | None
    events: int
    problem: str | None = None


async def import_lines(
    log: EventLog,
    source: Iterable[bytes] | AsyncIterable[bytes],
    *,
    on_conflict: OnConflict = "refuse",
    dry_run: bool = False,
) -> AsyncGenerator[ImportResult, None]:
    """
    Import the output of ``export_lines``, and yield the outcome for each session.

    source: the lines, e.g. an open binary file.
    on_conflict: what to do with a session whose id is in use, or was: "refuse" it, which counts as a
        failure, "skip" it, or import it under another id ("rename").
    dry_run: check everything and yield the outcomes, but write nothing.

    Sealed lines are imported unopened, into an empty log, which becomes a copy of theirs, or a copy of it;
    open an empty one without keys. A session of theirs cannot be renamed.

    Each session is held in memory and written in one transaction. A session with an invalid line is
    "broken", and the import continues with the next one. Versions, order, metadata and contents are kept;
    positions and digests are new. Raises SourceError if the source has another format, and KeysError for
    sealed lines of another log.
    """
    if on_conflict not in ("refuse", "skip", "rename"):
        raise ValueError(
            f"invalid on_conflict: expected 'refuse', 'skip' or 'rename', got {on_conflict!r}"
        )
    taken: set[str] = set()  # by sessions of this source that a dry run did not write
    async for history in read_histories(source):
        if history.problem is not None:
            yield ImportResult(history.session_id, "broken", None, 0, history.problem)
        elif dry_run:
            yield await _foretell(log, history, on_conflict, taken)
        else:
            yield await _write(log, history, on_conflict)


@dataclass
class History:
    """A session being imported: its events in order, or its first problem."""

    session_id: str
    expected: int = 0
    sealed_as: SealedAs | None = None
    events: list[EventLine] = field(default_factory=list)
    problem: str | None = None

    def add(self, event: EventLine) -> None:
        """Take the next event."""
        if event.version != len(self.events) + 1:
            self.spoil(f"version {event.version} comes after version {len(self.events)}")
        if event.is_content and (event.sealed is None) is not (self.sealed_as is None):
            said = "is not sealed, though" if event.sealed is None else "is sealed, but not"
            self.spoil(f"version {event.version} {said} the export")
        if event.sealed is not None and not _fits(event, self.session_id):
            self.spoil(f"version {event.version} was sealed for another session, type or branch")
        if self.problem is None:
            self.events.append(event)

    def spoil(self, problem: str) -> None:
        """Record a problem, keeping the first, and discard the events."""
        self.problem = self.problem or problem
        self.events.clear()

    @property
    def is_complete(self) -> bool:
        """Whether all of its events have come."""
        return self.problem is None and len(self.events) == self.expected

    def finished(self) -> History:
        """Check what needs the whole session, and return it."""
        found = len(self.events)
        keys = [e.idempotency_key for e in self.events if e.idempotency_key is not None]
        if found != self.expected or not found:
            self.spoil(f"it has {found} of its {self.expected} events")
        elif len(set(keys)) != len(keys):
            self.spoil("an idempotency key occurs twice")
        elif (version := self._badly_kept()) is not None:
            self.spoil(
                f"the shape kept for version {version}, which was erased, does not match its type"
            )
        elif (version := self._badly_redacted()) is not None:
            self.spoil(f"version {version} does not have the items of the event that it redacts")
        return self

    def _badly_kept(self) -> int | None:
        """Return the version of an erased event whose kept structure does not match its type."""
        for erasure in self.events:
            if not isinstance(erasure.event, ContentErased):
                continue
            kept = zip(erasure.event.positions, erasure.event.structures, strict=False)
            for version, structure in kept:
                if not 1 <= version <= len(self.events):
                    continue
                erased = self.events[version - 1]
                if erased.event is None and not erased.fits(structure):
                    return version
        return None

    def _badly_redacted(self) -> int | None:
        """Return the version of a redaction that other items would take the place of."""
        for line in self.events:
            if not isinstance(line.event, ItemRedacted):
                continue
            version = line.event.item.position
            redacted = self.events[version - 1].event if 1 <= version <= len(self.events) else None
            if isinstance(redacted, ITEM_EVENTS) and len(redacted.items) != len(line.event.items):
                return line.version
        return None


async def read_histories(
    source: Iterable[bytes] | AsyncIterable[bytes],
) -> AsyncIterator[History]:
    """Read lines and yield each session. Raises SourceError if they are not an exported log."""
    reader = _Reader()
    async for line in _each(source):
        if (finished := reader.take(line)) is not None:
            yield finished
    if (finished := reader.finish()) is not None:
        yield finished


class _Reader:
    """Assembles lines into sessions."""

    def __init__(self) -> None:
        self._number = 0
        self._history: History | None = None
        self._sealed_as: SealedAs | None = None

    def take(self, line: bytes) -> History | None:
        """Take the next line; return the session that it completes, if any."""
        self._number += 1
        if self._number == 1:
            check_first_line(line)
        if not line.strip():
            return None
        try:
            said = jsonl_format.parse(line)
        except (AppendError, UndecodableEventError, UnserialisableError) as error:
            finished = self._end() if self._history and self._history.is_complete else None
            self._here().spoil(f"line {self._number} is invalid: {_why(error)}")
            return finished
        if isinstance(said, EventLine):
            self._here().add(said)
            return None
        finished = self._end()
        if isinstance(said, LogLine):
            self._sealed_as = said.sealed_as
        else:
            self._history = History(said.session_id, said.events, self._sealed_as)
        return finished

    def finish(self) -> History | None:
        """Return the last session, if there is one."""
        if self._number == 0:
            raise SourceError("the source is not an exported log: it is empty")
        return self._end()

    def _end(self) -> History | None:
        finished, self._history = self._history, None
        return None if finished is None else finished.finished()

    def _here(self) -> History:
        if self._history is None:
            self._history = History(f"(line {self._number})")
            self._history.spoil("its session line is missing")
        return self._history


def check_first_line(line: bytes) -> LogLine:
    """Return the first line of an exported log, parsed. Raises SourceError if it is another one."""
    try:
        said = jsonl_format.parse(line)
    except (AppendError, UndecodableEventError, UnserialisableError) as error:
        raise SourceError(f"the source is not an exported log: {_why(error)}") from error
    if not isinstance(said, LogLine):
        raise SourceError('the source is not an exported log: expected a first line of kind "log"')
    return said


def _fits(event: EventLine, session_id: str) -> bool:
    """Whether an envelope was sealed for these columns."""
    columns = (session_id, event.type, event.schema_version, event.branch_id)
    return (event.sealed or b"")[54:70] == identity.context(*columns)


def _why(error: EventLogError) -> str:
    if isinstance(error.__cause__, InvalidEventError):
        return str(error.__cause__)
    if isinstance(error, UndecodableEventError):
        return "its data does not fit its type, or the type is of a newer release"
    return str(error)


async def _each(source: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(source, AsyncIterable):
        async for line in source:
            yield line
    else:
        for line in source:
            yield line


async def _foretell(
    log: EventLog, history: History, on_conflict: OnConflict, taken: set[str]
) -> ImportResult:
    try:
        await asyncio.to_thread(lambda: [event.stored(lambda _: 0) for event in history.events])
    except (AppendError, UnserialisableError) as error:
        return ImportResult(history.session_id, "broken", None, 0, str(error))

    def unit(tx: Transaction) -> ImportResult:
        _check_keys(tx, history)
        return _placed(tx, history, on_conflict, taken)

    outcome = await log.query(unit)
    taken.add(outcome.imported_as or outcome.session_id)
    return outcome


async def _write(log: EventLog, history: History, on_conflict: OnConflict) -> ImportResult:
    def unit(tx: Transaction) -> ImportResult:
        last = len(history.events)
        _check_keys(tx, history)
        outcome = _placed(tx, history, on_conflict)
        if outcome.imported_as is not None:
            if history.sealed_as is not None:
                sealing.become(tx, history.sealed_as)
            positions = [position_before(tx, outcome.imported_as)]
            for _ in range(last):
                positions.append(position_after(tx, positions[-1]))

            def position_of(version: int, session_id: str | None = None) -> int:
                is_own = session_id is None and 1 <= version <= last
                return positions[version] if is_own else 0

            stored: list[StoredEvent] = []
            for line, position in zip(history.events, positions[1:], strict=True):
                kind, schema_version, branch, data, digest, metadata, key = line.stored(position_of)
                key = sealing.imported_key(tx, outcome.imported_as, key)
                if line.sealed is not None:
                    place = Place(outcome.imported_as, line.version, kind, position)
                    data = sealing.envelope_of(tx, line.sealed, place, position_of)
                stored.append((kind, schema_version, branch, data, digest, metadata, key))
            ledger(tx).put(tx, outcome.imported_as, 0, stored)
        return outcome

    try:
        return await log.write(unit)
    except (AppendError, UnserialisableError) as error:
        return ImportResult(history.session_id, "broken", None, 0, str(error))


def _check_keys(tx: Transaction, history: History) -> None:
    """Raise KeysError for a sealed session, unless its log's keys are those of this log."""
    theirs, ours = history.sealed_as, sealing.sealed_as(tx)
    if theirs is None or (ours is not None and ours.log_id == theirs.log_id):
        return
    if ours is not None or event_counts(tx)[0]:
        raise KeysError(
            "the export was sealed with the keys of another log: expected an empty log without keys, or a "
            "copy of that log"
        )


def _placed(
    tx: Transaction, history: History, on_conflict: OnConflict, taken: Collection[str] = ()
) -> ImportResult:
    """Do as ``place`` does; a sealed session is refused instead of renamed."""
    events = len(history.events)
    is_renamed = on_conflict == "rename" and history.sealed_as is not None
    if not is_renamed:
        return place(tx, history.session_id, events, on_conflict, taken)
    outcome = place(tx, history.session_id, events, "refuse", taken)
    if outcome.problem is None:
        return outcome
    return outcome._replace(problem=f"{outcome.problem}, and a sealed session cannot be renamed")


def place(
    tx: Transaction,
    session_id: str,
    events: int,
    on_conflict: OnConflict,
    taken: Collection[str] = (),
) -> ImportResult:
    """
    Decide, in a unit of work, whether a session is imported, and under which id.

    taken: further ids that are in use.
    """

    def is_free(session_id: str) -> bool:
        return session_id not in taken and session_version(tx, session_id) == 0

    if is_free(session_id):
        return ImportResult(session_id, "imported", session_id, events)
    if on_conflict == "rename":
        number, name = 1, f"{session_id}-imported"
        while not is_free(name):
            number += 1
            name = f"{session_id}-imported-{number}"
        return ImportResult(session_id, "renamed", name, events)
    outcome: ImportOutcome = "skipped" if on_conflict == "skip" else "refused"
    return ImportResult(session_id, outcome, None, 0, f"session {session_id!r} already exists")
