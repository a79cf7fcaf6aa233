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
        "how a session is made",
        "every argument by keyword",
        "the id, the path and `create_tables` also by place",
        "`AdvancedSQLiteSession(id, path)` reads as `SQLiteSession(id, path)` does",
    ),
    Difference(
        "tables in a new file",
        "`create_tables=False` unless told otherwise, so that a new file is a `ValueError`",
        "`create_tables=True` unless told otherwise",
        "the default should work",
    ),
    Difference(
        "a generated branch id given as a session id",
        "a new, empty session of that name",
        "that session, on that branch",
        "what `create_branch_from_turn` returns can be handed on and opened",
    ),
    Difference(
        "the form of a generated branch id",
        "`branch_from_turn_2_1732800000`, with `_2` after it when that is taken",
        "the same with 64 random bits after it: `branch_from_turn_2_1732800000_6f1d09b2c44e7a35`",
        "the id opens the session, and so nobody may guess it; one without them opens nothing",
    ),
    Difference(
        "a branch without items",
        "is not listed, cannot be deleted, and cannot be gone back to",
        "is a branch like any other",
        "a branch from the first turn, or one that was popped empty, is not lost",
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
        "turn 0 is the very beginning, and starting over is a branch too",
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
        "when the turn was said",
        "a branch shares its turns, and they were not said again",
    ),
    Difference(
        "writing to a branch that another instance deleted",
        "brings the branch back, holding only what is written now",
        "`BranchNotFoundError` (a `ValueError`), and nothing is written",
        "deleted stays deleted, and nothing lands where nobody looks for it",
    ),
    Difference(
        "clearing, switching and branching among other calls at once",
        "overtake the adds that wait before them",
        "take their turn, in the order of the calls",
        "what was called first has happened first",
    ),
    Difference(
        "the usage of two runs in one turn",
        "the second replaces the first",
        "they add up, and a result stored twice counts once",
        "what was spent was spent",
    ),
    Difference(
        "details of usage that only some providers send",
        "left out, or the whole block is lost if a detail is an object itself",
        "kept",
        "what was measured is not thrown away",
    ),
    Difference(
        "searching turns whose content is null, a number, or parts that are no objects",
        "`TypeError` if the stored text holds the term anywhere, or the turn is not found",
        "what is text in it is found, the rest says nothing",
        "one odd turn does not make all others unfindable",
    ),
    Difference(
        "searching for a very long text",
        "`sqlite3.OperationalError` from about 50,000 bytes on",
        "an answer",
        "a search has an answer, if an empty one",
    ),
    Difference(
        "the name of who wrote a message",
        "shown as a tool's name",
        "not shown as a tool's name",
        "a message calls no tool",
    ),
    Difference(
        "an MCP call that was asked approval for",
        "counted twice: its request for approval, and the call",
        "counted once, as its request: a call that names one is not, whether or not that is on the branch",
        "one use of a tool is one use",
    ),
    Difference(
        "an item whose type is a list or an object",
        "`TypeError`",
        "kept like any other item",
        "whatever JSON can say comes back as it was",
    ),
    Difference(
        "compacting a branch",
        "clears the session: all branches and all usage are gone, and `main` is current",
        "replaces the items of the current branch, and nothing else",
        "a summary of one branch is no reason to lose the others",
    ),
    Difference(
        "a file with the history of a plain `SQLiteSession`",
        "the history is invisible, and the first `pop_item` deletes it",
        "the history is there, as turns on `main`",
        "history is never hidden, and never lost",
    ),
    Difference(
        "the run context",
        "the methods of the session protocol take none",
        "they take `wrapper`, so that the Runner hands over its context",
        "what is recorded can name the run that it belongs to",
    ),
    Difference(
        "the usage of a run that nobody stored",
        "is not known",
        "is recorded by itself, unless `auto_usage=False`",
        "what was spent is known also where a program forgot to ask, or failed",
    ),
    Difference(
        "an item that is not JSON",
        "`TypeError` that names a type; `ValueError` or `RecursionError` for what contains itself, "
        "is nested too deeply, or is a number of more than 4,300 digits",
        "`TypeError` that also names the place in the item",
        "the culprit is found in a long batch",
    ),
    Difference(
        "items in a generator",
        "`TypeError`",
        "added like a list",
        "a list would hold the same",
    ),
    Difference(
        "a limit that is no whole number",
        "`sqlite3.IntegrityError`",
        "`TypeError`",
        "what is wrong is the argument, not the file",
    ),
    Difference(
        "a session id that is a number",
        "`session_id` stays the number, and the rows hold it as text",
        "`session_id` is the text",
        '42 and "42" are one session on both sides',
    ),
    Difference(
        "the classes",
        "a `SQLiteSession`, and so a `SessionABC`",
        "neither, but a `Session`, as the SDK asks of sessions of others",
        "it shares no code with them",
    ),
    Difference(
        "one item, or a text, in place of a list of items",
        "each key, or each letter, becomes an item",
        "`InvalidEventError` (a `ValueError`), and nothing is written",
        "brackets that were forgotten do not corrupt a history",
    ),
    Difference(
        "what was spent on what is gone",
        "forgotten with the popped turn, the deleted branch or the cleared session",
        "forgotten there too, but `get_usage_stats` shows all that was ever spent",
        "a bill is not paid by deleting a branch",
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
