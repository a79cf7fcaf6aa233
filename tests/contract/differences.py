"""
Where our session answers otherwise than the SDK's, and why.

Everything that is not in this table answers alike, and the contract tests hold it to that. Each row
has a test that shows both sides; `shows` marks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Test = TypeVar("Test", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Difference:
    """One point in which the two classes differ on purpose."""

    name: str
    sdk: str
    ours: str
    reason: str


DIFFERENCES = (
    Difference(
        "how a session is created",
        "every argument by keyword",
        "the id, the path and `create_tables` also by position",
        "`AdvancedSQLiteSession(id, path)` reads as `SQLiteSession(id, path)` does",
    ),
    Difference(
        "tables in a new file",
        "`create_tables=False` by default, so that a new file is a `ValueError`",
        "`create_tables=True` by default",
        "the default should work",
    ),
    Difference(
        "an empty session id",
        "a session like any other",
        "`InvalidEventError` (a `ValueError`)",
        "an id that a caller forgot to fill in does not join the chats of all users",
    ),
    Difference(
        "a generated branch id given as a session id",
        "a new, empty session of that name",
        "that session, on that branch",
        "callers can pass on and open the result of `create_branch_from_turn`",
    ),
    Difference(
        "the form of a generated branch id",
        "`branch_from_turn_2_1732800000`, with `_2` after it when that is taken",
        "the same with 64 random bits after it: `branch_from_turn_2_1732800000_6f1d09b2c44e7a35`",
        "the id opens the session, so it must not be guessable; an id without random bits opens nothing",
    ),
    Difference(
        "a branch without items",
        "is not listed, cannot be deleted, and cannot be switched to",
        "is a branch like any other",
        "branches from the first turn and branches with all items popped are not lost",
    ),
    Difference(
        "`main` without items",
        "cannot be switched to, which also keeps the current branch from being deleted",
        "can always be switched to",
        "`main` is where every session begins",
    ),
    Difference(
        "a branch from turn 0",
        "`ValueError`",
        "an empty branch",
        "turn 0 is the beginning, and starting over is also a branch",
    ),
    Difference(
        "order of `list_branches`",
        "by the second of creation, then by name",
        "in the order of creation",
        "branches made within a second keep their order",
    ),
    Difference(
        "times on a branch",
        "when the branch was made",
        "when the turn was recorded",
        "a branch shares its turns, which keep their times",
    ),
    Difference(
        "writing to a branch that another instance deleted",
        "restores the branch, with only the new items",
        "`BranchNotFoundError` (a `ValueError`), and nothing is written",
        "a deleted branch stays deleted, and no items are lost on it",
    ),
    Difference(
        "clearing, switching and branching among other calls at once",
        "overtake waiting adds",
        "run in the order of the calls",
        "effects follow the order of the calls",
    ),
    Difference(
        "the usage of two runs in one turn",
        "the second replaces the first",
        "they add up, and a result stored twice counts once",
        "every request costs",
    ),
    Difference(
        "the first call of an object, after another one cleared the session",
        "`store_run_usage` records the usage on no turn",
        "`store_run_usage` records it on the newest turn",
        "making an object reads nothing, so it sees a session first in its first call",
    ),
    Difference(
        "usage details that only some providers send",
        "left out, or the whole block is lost if a detail is an object itself",
        "kept",
        "no measured usage is discarded",
    ),
    Difference(
        "searching turns whose content is null, a number, or parts other than objects",
        "`TypeError` if the stored text holds the term anywhere, or the turn is not found",
        "text is found, other content is ignored",
        "one unusual turn does not hide all others",
    ),
    Difference(
        "searching for a very long text",
        "`sqlite3.OperationalError` from about 50,000 bytes on",
        "an answer",
        "every search returns a result, even an empty one",
    ),
    Difference(
        "the author name of a message",
        "shown as a tool's name",
        "not shown as a tool's name",
        "a message does not call a tool",
    ),
    Difference(
        "an MCP call with an approval request",
        "counted twice: the approval request and the call",
        "counted once, as the approval request, even if that is not on the branch",
        "one tool call counts once",
    ),
    Difference(
        "an item whose type is a list or an object",
        "`TypeError`",
        "kept like any other item",
        "every JSON value is returned unchanged",
    ),
    Difference(
        "compacting a branch",
        "clears the session: deletes all branches and usage, and switches to `main`",
        "replaces the items of the current branch, and nothing else",
        "a summary of one branch does not replace the others",
    ),
    Difference(
        "a file with the history of a plain `SQLiteSession`",
        "the history is invisible, and the first `pop_item` deletes it",
        "the history is migrated, as turns on `main`",
        "history is never hidden or lost",
    ),
    Difference(
        "the run context",
        "the methods of the session protocol do not accept it",
        "they accept `wrapper`, so that the Runner passes its context",
        "events can name their run",
    ),
    Difference(
        "the usage of a run that was not stored",
        "is not known",
        "is recorded automatically, unless `auto_usage=False`",
        "usage is complete even if a program fails or does not store it",
    ),
    Difference(
        "an item that is not JSON",
        "`TypeError` that names a type; `ValueError` or `RecursionError` for an item that contains itself, "
        "is nested too deeply, or is a number of more than 4,300 digits",
        "`TypeError` that also names the path in the item",
        "the invalid value is easy to find in a long batch",
    ),
    Difference(
        "items in a generator",
        "`TypeError`",
        "added like a list",
        "a list would contain the same items",
    ),
    Difference(
        "a limit that is not an integer",
        "`sqlite3.IntegrityError`",
        "`TypeError`",
        "the argument is wrong, not the file",
    ),
    Difference(
        "a session id that is a number",
        "`session_id` stays the number, and the rows contain it as text",
        "`session_id` is the text",
        '42 and "42" are one session in both classes',
    ),
    Difference(
        "the classes",
        "a `SQLiteSession`, and so a `SessionABC`",
        "neither, but a `Session`, the SDK's protocol for other session classes",
        "the implementations share no code",
    ),
    Difference(
        "one item, or a string, instead of a list of items",
        "each key, or each character, becomes an item",
        "`InvalidEventError` (a `ValueError`), and nothing is written",
        "missing brackets do not corrupt a history",
    ),
    Difference(
        "the usage of removed items",
        "deleted with the popped turn, the deleted branch or the cleared session",
        "deleted there too, but `get_usage_stats` returns all recorded usage",
        "deleting a branch does not reduce its cost",
    ),
)

SHOWN: dict[str, str] = {}


def shows(name: str) -> Callable[[Test], Test]:
    """Mark a test as the one that shows both sides of a difference."""
    if name not in {difference.name for difference in DIFFERENCES}:
        raise LookupError(f"no difference is called {name!r}")

    def mark(test: Test) -> Test:
        SHOWN[name] = test.__name__
        return test

    return mark
