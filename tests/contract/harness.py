"""
Make the same calls on the SDK's session and on ours, and insist on the same answers.

`Pair` has every method of a session. A call on it is made on both sides; the common result is
returned, the common error raised, and anything else is a `DisagreementError`. Three things cannot be
equal and are named instead: an instant (checked for its form and for being now), a generated
branch id (it carries seconds; it becomes a `Generated` that stands for both sides' ids), and an
order that the SDK leaves open.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agents.extensions.memory import AdvancedSQLiteSession as SDKSession

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path

SIDES = ("sdk", "ours")
INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
GENERATED_ID = re.compile(r"branch_from_turn_(-?\d+)_\d{9,}(_\d+|_[0-9a-f]{16})?")
A_MOMENT = timedelta(minutes=2)


class DisagreementError(AssertionError):
    """The two sides answered the same call differently."""


def our_class() -> Any:
    """Return our session's class, imported when a test first needs it."""
    return importlib.import_module("agents_eventlog").AdvancedSQLiteSession


@dataclass(frozen=True)
class Generated:
    """A branch whose id was made up, by a different name on each side."""

    sdk: str
    ours: str


@dataclass(frozen=True)
class Returned:
    """A call that came back with a value."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A call that came back with an error."""

    error: Exception


@dataclass
class World:
    """
    Two files that are kept in the same state, one for each side.

    url: the log that our side keeps its sessions in instead of a file.
    """

    folder: Path
    second: Callable[[], Any] = our_class
    url: str | None = None
    generated: dict[tuple[str, str], list[Generated]] = field(default_factory=dict)
    opened: list[Any] = field(default_factory=list)

    def path(self, side: str) -> Path | str:
        """Return the file that a side keeps its sessions in, or the URL of our side's log."""
        return self.url if self.url and side == "ours" else self.folder / f"{side}.db"

    def session_class(self, side: str) -> Any:
        """Return a side's class; what it makes is closed with the world."""
        kind = SDKSession if side == "sdk" else self.second()

        def made(*args: Any, **keywords: Any) -> Any:
            self.opened.append(kind(*args, **keywords))
            return self.opened[-1]

        return made

    def open(
        self, session_id: str = "conversation", *, memory: bool = False, **keywords: Any
    ) -> Pair:
        """Open a session on both sides, by keywords that both classes understand."""
        keywords.setdefault("create_tables", True)
        sessions = []
        for side in SIDES:
            path = ":memory:" if memory else self.path(side)
            made = self.session_class(side)
            sessions.append(made(session_id=session_id, db_path=path, **keywords))
        return Pair(self, session_id, *sessions)

    def close(self) -> None:
        """Close every session that was opened here, so that the files can go."""
        for session in self.opened:
            with suppress(RuntimeError):
                session.close()


class Pair:
    """One session on each side. Whatever is called here is called on both."""

    def __init__(self, world: World, session_id: str, sdk: Any, ours: Any) -> None:
        self.world = world
        self.session_id = session_id
        self.sdk = sdk
        self.ours = ours

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return a function that calls a method on both sides and compares the answers."""

        async def both(*args: Any, **keywords: Any) -> Any:
            return await self.call(method, *args, **keywords)

        return both

    async def call(self, method: str, *args: Any, **keywords: Any) -> Any:
        """Call a method on both sides; return or raise what both return or raise."""
        answers = [
            await answer_of(getattr(self, side), method, *self._told(side, args, keywords))
            for side in SIDES
        ]
        shown = f"{method}({', '.join(map(repr, args))}{keywords or ''})"
        return self._common(shown, method, *answers)

    async def current(self) -> Any:
        """Return the branch that both instances stand on, once a read has made sure of it."""
        await self.get_items(1)
        sdk, ours = (getattr(self, side)._current_branch_id for side in SIDES)
        return self._common("_current_branch_id", "", Returned(sdk), Returned(ours))

    async def new_branch(self, turn: int) -> Generated:
        """Branch from a turn under a generated id, which must have the documented form."""
        ids = []
        for side in SIDES:
            branch_id = await getattr(self, side).create_branch_from_turn(turn)
            match = GENERATED_ID.fullmatch(branch_id)
            if match is None or int(match[1]) != turn:
                raise DisagreementError(
                    f"{side} made up the branch id {branch_id!r} for turn {turn}"
                )
            ids.append(branch_id)
        return self.adopt(Generated(*ids))

    def adopt(self, branch: Generated) -> Generated:
        """Remember that two ids, one of each side, name the same branch of this session."""
        for side in SIDES:
            known = self.world.generated.setdefault((self.session_id, side), [])
            known.append(branch)
        return branch

    def again(self, **keywords: Any) -> Pair:
        """Open the same session once more, as another instance on the same files."""
        return self.world.open(self.session_id, **keywords)

    def close(self) -> None:
        """Close both instances."""
        for side in SIDES:
            getattr(self, side).close()

    def _told(self, side: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        def told(value: Any) -> Any:
            if isinstance(value, Generated):
                return getattr(value, side)
            return copy.deepcopy(value) if isinstance(value, dict | list) else value

        return tuple(map(told, args)), {name: told(value) for name, value in keywords.items()}

    def _common(
        self, shown: str, method: str, sdk: Returned | Raised, ours: Returned | Raised
    ) -> Any:
        if isinstance(sdk, Raised) and isinstance(ours, Raised):
            texts = [
                self._named(side, str(a.error)) for side, a in zip(SIDES, (sdk, ours), strict=True)
            ]
            if not isinstance(ours.error, type(sdk.error)) or texts[0] != texts[1]:
                raise DisagreementError(f"{shown}:\n  sdk  {sdk.error!r}\n  ours {ours.error!r}")
            raise sdk.error
        if isinstance(sdk, Raised) or isinstance(ours, Raised):
            raise DisagreementError(f"{shown}:\n  sdk  {sdk}\n  ours {ours}")
        values = [
            settled(method, self._named(side, normal(method, answer.value)))
            for side, answer in zip(SIDES, (sdk, ours), strict=True)
        ]
        if not same(*values):
            raise DisagreementError(f"{shown}:\n  sdk  {values[0]!r}\n  ours {values[1]!r}")
        return values[0]

    def _named(self, side: str, value: Any) -> Any:
        known = self.world.generated.get((self.session_id, side), [])
        return renamed(value, [(getattr(branch, side), branch) for branch in known])


async def answer_of(
    session: Any, method: str, args: Iterable[Any], keywords: dict[str, Any]
) -> Returned | Raised:
    """Call a method and catch what comes out of it, a value or an error."""
    try:
        return Returned(await getattr(session, method)(*args, **keywords))
    except asyncio.CancelledError:
        raise
    except Exception as error:  # whatever it is, it is compared
        return Raised(error)


def renamed(value: Any, names: list[tuple[str, Generated]]) -> Any:
    """Put the pair's name for a generated branch wherever one side's own name stands."""
    if isinstance(value, str):
        for own, branch in sorted(names, key=lambda name: -len(name[0])):
            if value == own:
                return branch
            if f"'{own}'" in value:
                return value.replace(f"'{own}'", f"'<{branch.sdk}>'")
        return value
    if isinstance(value, list | tuple):
        return type(value)(renamed(element, names) for element in value)
    if isinstance(value, dict):
        return {key: renamed(element, names) for key, element in value.items()}
    return value


def normal(method: str, value: Any) -> Any:
    """Name the instants in an answer, once they are seen to be of the right form and now."""
    instants = {"list_branches": "created_at", "get_conversation_turns": "timestamp"}
    instants["find_turns_by_content"] = "timestamp"
    key = instants.get(method)
    if key is None or not isinstance(value, list):
        return value
    return [{**row, key: "<now>"} if is_now(row.get(key)) else row for row in value]


def is_now(instant: Any) -> bool:
    """Tell whether a value is an instant as the SDK writes it: UTC, whole seconds, just past."""
    if not isinstance(instant, str) or INSTANT.fullmatch(instant) is None:
        return False
    then = datetime.strptime(instant, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return abs(datetime.now(tz=UTC) - then) < A_MOMENT


def settled(method: str, value: Any) -> Any:
    """Put what the SDK returns in an order of its own into an order that can be compared."""
    if method == "list_branches":
        return sorted(value, key=lambda branch: str(branch["branch_id"]))
    if method == "get_tool_usage":
        turns = [turn for _, _, turn in value]
        if turns != sorted(turns):
            raise DisagreementError(f"tool usage is not in the order of turns: {value!r}")
        return sorted(value, key=lambda row: (row[2], str(row[0])))
    return value


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same types all the way down (NaN is NaN)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)


async def picture(pair: Pair, *, terms: Iterable[str] = ()) -> dict[str, Any]:
    """Ask a session everything that can be asked, and return what both sides answer."""
    branches = await pair.list_branches()
    seen: dict[str, Any] = {
        "items": await pair.get_items(),
        "current": await pair.current(),
        "branches": branches,
        "usage": await pair.get_session_usage(),
        "turns": await pair.get_conversation_turns(),
    }
    for limit in (-1, 0, 1, 2, 5):
        await pair.get_items(limit)
    for term in terms:
        seen[f"find {term!r}"] = await pair.find_turns_by_content(term)
    for branch in branches:
        name = branch["branch_id"]
        seen[f"branch {name!r}"] = [
            await pair.get_items(branch_id=name),
            await pair.get_items(3, name),
            await pair.get_conversation_turns(name),
            await pair.get_conversation_by_turns(name),
            await pair.get_tool_usage(name),
            await pair.get_turn_usage(branch_id=name),
            await pair.get_session_usage(name),
        ]
    return seen
