"""
Everything that can go wrong, as one tree.

    EventLogError
    ├── OpenError (OSError)                 the file cannot be opened as a log
    │   ├── NotADatabaseError               it is a folder, or not an SQLite database
    │   ├── ForeignFileError                it is another program's database
    │   ├── NoLogError (ValueError)         it contains no log, and creating one was not allowed
    │   ├── WrongTablesError (ValueError)   it was first opened with other table names
    │   ├── NewerFileError                  a newer release wrote it
    │   └── ReadOnlyFileError               it, or its folder, cannot be written
    ├── StoreError                          the database could not do its work; nothing was written
    │   ├── BusyError (TimeoutError)        another process locked the file for too long
    │   ├── DiskFullError (OSError)         the disk is full
    │   ├── DiskError (OSError)             the disk, or the file on it, failed
    │   ├── UnknownOutcomeError             the server was lost in a commit; it may have taken effect
    │   └── CorruptFileError                the file is damaged
    ├── ClosedError (RuntimeError)          the log or session is closed
    ├── AppendError (ValueError)            the append was refused; nothing was written
    │   ├── WrongExpectedVersionError       someone else appended first
    │   ├── IdempotencyConflictError        the key was used before, for other events
    │   └── InvalidEventError               an event, or an id passed with it, is invalid
    ├── UnserialisableError (TypeError)     a value cannot be stored as JSON
    ├── UndecodableEventError (ValueError)  a stored event cannot be read
    │   ├── ShreddedError                   the key of its content was destroyed
    │   └── TamperedPayloadError            its content is not what was sealed in this place
    ├── KeysError                           the keys cannot be used; nothing was written
    │   ├── KeysMissingError (LookupError)  the log is sealed, and no keys were given
    │   ├── KeyNotFoundError (LookupError)  the key file has no such key
    │   └── WrongKeyError (ValueError)      the root key, or a key in the file, is another one
    ├── ProofError (ValueError)             a proof, signed head or signing key does not hold
    ├── SourceError (ValueError)            the source of an import has an unknown format
    ├── CopyError (ValueError)              the target of a copy has other events than the source
    ├── InvalidQueryError (ValueError)      a filter, group, order, limit or cursor is invalid
    ├── ProjectionError                     a projection cannot be used with this log
    │   ├── StaleProjectionError            it is behind the log, which is open read-only
    │   │   └── NewerProjectionError        a newer program built it
    │   └── UnknownProjectionError (ValueError)
    ├── BudgetExceededError                 a budget is used up; the model was not called
    └── ConversationError (ValueError)      the operation does not fit the conversation
        ├── BranchNotFoundError
        ├── BranchExistsError
        ├── InvalidBranchError              blank or ambiguous, main, or the current branch
        ├── TurnNotFoundError
        ├── VersionNotFoundError            the session never had this version
        ├── ItemNotFoundError               the session, or the log, has no such item
        ├── ItemRedactedError               it was redacted before
        ├── ItemErasedError                 its content was erased before
        ├── SessionNotFoundError
        ├── SessionExistsError              a fork needs a new session id
        ├── SessionDeletedError
        ├── SessionOwnerError (PermissionError)   it belongs to another user
        ├── SessionBusyError                another caller of exclusive() holds it
        ├── ConcurrentRunError              another run changed the branch
        └── SessionErasedError              it cannot be restored

Every error has its facts as attributes, says in one sentence what is wrong and what was expected, contains
no conversation text, and can be pickled.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any


class EventLogError(Exception):
    """
    The root of all errors of this package.

    A subclass declares its facts as annotated attributes; its constructor requires those without a default.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        declared = {
            name for kind in type(self).__mro__ for name in vars(kind).get("__annotations__", ())
        }
        missing = {name for name in declared - facts.keys() if not hasattr(type(self), name)}
        if missing or facts.keys() - declared:
            raise TypeError(
                f"{type(self).__name__}: expected {sorted(declared)}, got {sorted(facts)}"
            )
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    kind: type[EventLogError], args: tuple[Any, ...], facts: dict[str, Any]
) -> EventLogError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class OpenError(EventLogError, OSError):
    """The file cannot be opened as a log. The message says why; nothing was changed."""

    path: str

    def __str__(self) -> str:
        return str(self.args[0])


class NotADatabaseError(OpenError):
    """The path is a folder, or a file that is not an SQLite database. Check the path."""


class ForeignFileError(OpenError):
    """The file belongs to another program. Give the log a file of its own."""


class NoLogError(OpenError, ValueError):
    """The path contains no event log, and creating one was not allowed. Check the path, or allow it."""


class WrongTablesError(OpenError, ValueError):
    """The file was first opened with other table names (``claimed``). Use these, or another file."""

    claimed: tuple[str, str] | None = None
    asked: tuple[str, str] | None = None


class NewerFileError(OpenError):
    """A newer release wrote this file. Upgrade ``agents-eventlog``."""

    found: int
    known: int


class ReadOnlyFileError(OpenError):
    """The file or its folder cannot be written. Change its permissions, or open it read-only."""


class StoreError(EventLogError):
    """SQLite could not do the operation. Nothing was written."""

    path: str | None = None
    """The log's file, where the error knows it."""


class BusyError(StoreError, TimeoutError):
    """Another process locked the file for longer than the busy timeout (see ``configure``). Try again."""

    def __str__(self) -> str:
        return str(self.args[0])


class DiskFullError(StoreError, OSError):
    """The disk is full. Free some space, then repeat the operation."""

    def __str__(self) -> str:
        return str(self.args[0])


class DiskError(StoreError, OSError):
    """The disk or the file failed. The message quotes SQLite; the system log may have more."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownOutcomeError(StoreError):
    """
    The connection to the server was lost in a commit, and the outcome could not be found out in time.

    The only StoreError after which something may have been written. Read the session, or append again
    with the same idempotency key.
    """


class CorruptFileError(StoreError):
    """The file is damaged. Restore a backup; ``verify`` reports the damaged events."""


class ClosedError(EventLogError, RuntimeError):
    """The log or session was closed before this call. Open another."""


class AppendError(EventLogError, ValueError):
    """The append was refused. Nothing was written."""


class WrongExpectedVersionError(AppendError):
    """Someone else appended first. Read the session's new events, then decide whether to append again."""

    session_id: str
    expected: int | str
    actual: int

    def __init__(self, *, session_id: str, expected: int | str, actual: int) -> None:
        super().__init__(
            f"session {session_id!r} is at version {actual}, not {expected}",
            session_id=session_id,
            expected=expected,
            actual=actual,
        )


class IdempotencyConflictError(AppendError):
    """The key was used before in this session, for other events. Use a new key for each append."""

    session_id: str
    idempotency_key: str

    def __init__(self, *, session_id: str, idempotency_key: str) -> None:
        super().__init__(
            f"idempotency key {idempotency_key!r} of session {session_id!r} "
            "was used before, for other events",
            session_id=session_id,
            idempotency_key=idempotency_key,
        )


class InvalidEventError(AppendError):
    """An event, a session id or a branch id is invalid. The message says which and why."""


class UnserialisableError(EventLogError, TypeError):
    """A value cannot be stored as JSON. ``place`` is its path in the payload; nothing was written."""

    place: str


class UndecodableEventError(EventLogError, ValueError):
    """The stored event at ``position`` cannot be read, or its content was erased. Reading stops there."""

    position: int


class ShreddedError(UndecodableEventError):
    """
    The key of the content was destroyed, so that it cannot be read in any copy of the log.

    destroyed_at: when, in microseconds since 1970 UTC.
    actor, reason: who did it and why, as the log recorded it; None if this copy of the log does not know.
    """

    destroyed_at: int
    actor: str | None = None
    reason: str | None = None


class TamperedPayloadError(UndecodableEventError):
    """
    The content was altered, moved here from another place, or put here in plaintext.

    Raised in a sealed log. Restore a backup; ``verify`` lists what is not in its place.
    """


class KeysError(EventLogError):
    """The keys of a sealed log cannot be used. The message says why; nothing was written."""


class KeysMissingError(KeysError, LookupError):
    """The log is sealed, and was opened without keys. Open it with ``keys=``, or set EVENTLOG_KEYS."""


class KeyNotFoundError(KeysError, LookupError):
    """
    The key file does not exist or has no such key.

    It is that of another log, or a copy from before the session began.
    """


class WrongKeyError(KeysError, ValueError):
    """The root key is mistyped or another one, or the file has another key under a key's id."""


class ProofError(EventLogError, ValueError):
    """
    A proof does not show what it should, or a proof, signed head or signing key is invalid.

    The message says which and why. Nothing follows from a proof that does not hold.
    """


class SourceError(EventLogError, ValueError):
    """The source of an import has an unknown format, or that of a newer release. Nothing was written."""

    path: str | None = None
    """The source's file, if it is one."""


class CopyError(EventLogError, ValueError):
    """
    The target of a copy has other events than the source. Copy into an empty log.

    sessions: those that differ, if known.
    """

    path: str
    sessions: tuple[str, ...] = ()


class InvalidQueryError(EventLogError, ValueError):
    """A filter, group, order, limit, cursor or text is invalid. The message says which and why."""


class ProjectionError(EventLogError):
    """A projection cannot be used with this log. The message says why."""

    projection: str | None = None


class StaleProjectionError(ProjectionError):
    """
    A projection is behind the log: a program that does not maintain it has appended.

    Raised only where the projection cannot catch up, for example in a read-only log. Open the log for
    writing, or run ``eventlog replay``.
    """

    projection: str

    def __init__(self, *, projection: str) -> None:
        super().__init__(
            f"projection {projection!r} is not up to date: open the log for writing, "
            "or run 'eventlog replay'",
            projection=projection,
        )


class NewerProjectionError(StaleProjectionError):
    """
    A newer program built this projection, and the tables of this program's version are not up to date.

    Raised only in a read-only log: a program that may write keeps tables of its own version beside the
    newer ones. Use the newer program, or open the log for writing.
    """

    found: int
    known: int

    def __init__(self, *, projection: str, found: int, known: int, is_built_in: bool) -> None:
        upgrade = (
            "upgrade agents-eventlog" if is_built_in else "use the newer version of your projection"
        )
        ProjectionError.__init__(
            self,
            f"projection {projection!r} is at version {found}, this program knows {known}: "
            f"{upgrade}, or open the log for writing",
            projection=projection,
            found=found,
            known=known,
        )


class UnknownProjectionError(ProjectionError, ValueError):
    """The projection is unknown. The message lists the known names."""


class BudgetExceededError(EventLogError):
    """A budget is used up; the next model request was not made. Wait, or set a higher limit."""

    budget: Any
    keys: dict[str, str | None]
    cost_usd: float
    tokens: int

    def __init__(
        self, *, budget: Any, keys: dict[str, str | None], cost_usd: float, tokens: int
    ) -> None:
        scope = ", ".join(f"{name} {value!r}" for name, value in keys.items())
        super().__init__(
            f"budget is used up: expected less than {budget}, "
            f"got {cost_usd:.6g} USD, {tokens:,} tokens{scope and f' ({scope})'}",
            budget=budget,
            keys=keys,
            cost_usd=cost_usd,
            tokens=tokens,
        )


class ConversationError(EventLogError, ValueError):
    """The operation does not fit the conversation, e.g. its branch does not exist. Nothing was written."""


class BranchNotFoundError(ConversationError):
    """The session has no such branch, or it was deleted. Switch to one that exists."""

    branch_id: str

    def __init__(self, branch_id: str) -> None:
        super().__init__(f"Branch '{branch_id}' does not exist", branch_id=branch_id)


class BranchExistsError(ConversationError):
    """The id was used before in this session. Ids are never used twice; choose another."""

    branch_id: str

    def __init__(self, branch_id: str) -> None:
        super().__init__(
            f"Branch ID '{branch_id}' has already been used. Choose a new branch ID.",
            branch_id=branch_id,
        )


class InvalidBranchError(ConversationError):
    """The branch id is blank or belongs to several sessions, or the branch cannot be deleted."""


class TurnNotFoundError(ConversationError):
    """The branch has no such turn. ``get_conversation_turns()`` lists its turns."""

    turn: Any
    branch_id: str

    def __init__(self, turn: Any, branch_id: str) -> None:
        super().__init__(
            f"Turn {turn} does not contain a user message in branch '{branch_id}'",
            turn=turn,
            branch_id=branch_id,
        )


class VersionNotFoundError(ConversationError):
    """The session never had this version. ``log.version(session_id)`` returns its latest."""

    session_id: str
    version: int
    actual: int

    def __init__(self, *, session_id: str, version: int, actual: int) -> None:
        super().__init__(
            f"session {session_id!r} has no version {version} (latest: {actual})",
            session_id=session_id,
            version=version,
            actual=actual,
        )


class ItemNotFoundError(ConversationError):
    """The log, or the session (``session_id``), never had this item. ``get_transcript`` lists items."""

    position: int
    index: int
    session_id: str | None

    def __init__(self, *, position: int, index: int, session_id: str | None = None) -> None:
        where = "the log" if session_id is None else f"session {session_id!r}"
        super().__init__(
            f"{where} has no item {index} at position {position}",
            position=position,
            index=index,
            session_id=session_id,
        )


class ItemRedactedError(ConversationError):
    """The item was redacted before, by the event at ``redaction_position``. Nothing is left to do."""

    position: int
    index: int
    redaction_position: int

    def __init__(self, *, position: int, index: int, redaction_position: int) -> None:
        super().__init__(
            f"item {index} at position {position} was redacted before, "
            f"by the event at position {redaction_position}",
            position=position,
            index=index,
            redaction_position=redaction_position,
        )


class ItemErasedError(ConversationError):
    """The item's content was erased before. Nothing is left to do."""

    position: int
    index: int

    def __init__(self, *, position: int, index: int) -> None:
        super().__init__(
            f"the content of item {index} at position {position} was erased before",
            position=position,
            index=index,
        )


class SessionNotFoundError(ConversationError):
    """The session does not exist. ``list_sessions()`` lists the existing ones."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} does not exist", session_id=session_id)


class SessionExistsError(ConversationError):
    """The session exists, or existed. A fork needs an id that was never used."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} exists, or existed: expected a new id", session_id=session_id
        )


class SessionDeletedError(ConversationError):
    """The session was deleted, and its id stays reserved. Restore it, or use another id."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} was deleted: restore it unless it was erased, or use another id",
            session_id=session_id,
        )


class SessionOwnerError(ConversationError, PermissionError):
    """The session is not this user's. Nothing was read or written; in a web service, answer 404."""

    session_id: str
    user_id: str

    # ValueError comes before OSError here, and its __new__ cannot make an OSError.
    __new__ = PermissionError.__new__  # type: ignore[assignment]

    def __init__(self, session_id: str, user_id: str) -> None:
        super().__init__(
            f"session {session_id!r} does not belong to user {user_id!r}",
            session_id=session_id,
            user_id=user_id,
        )

    def __str__(self) -> str:
        return str(self.args[0])


class SessionBusyError(ConversationError):
    """Another caller of ``exclusive`` holds the session. Try again later; in a web service, answer 409."""

    session_id: str
    holder: str | None
    since: datetime | None

    def __init__(self, *, session_id: str, holder: str | None, since: datetime | None) -> None:
        held = (
            "this holder's lease has expired"
            if holder is None or since is None
            else f"{holder} has held it since {since.isoformat(timespec='seconds')}"
        )
        super().__init__(
            f"session {session_id!r} is busy: {held}",
            session_id=session_id,
            holder=holder,
            since=since,
        )


class ConcurrentRunError(ConversationError):
    """Another run changed the branch since this run read it. Nothing was written; run again."""

    session_id: str
    branch_id: str

    def __init__(self, session_id: str, branch_id: str) -> None:
        super().__init__(
            f"another run changed branch {branch_id!r} of session {session_id!r} during this run",
            session_id=session_id,
            branch_id=branch_id,
        )


class SessionErasedError(ConversationError):
    """The session was erased and cannot be restored. Use another id."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} was erased and cannot be restored", session_id=session_id
        )
