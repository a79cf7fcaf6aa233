"""
Runs that use one branch at the same time.

A run reads the branch, calls a model, and adds what it answered. Each call is atomic, a run is not: another
run can add its items in between. So a run remembers the end of the branch as it last read or wrote it; if
the branch ends differently when the run writes again, another run has changed it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from agents_eventlog.adapters.conversations import commands
from agents_eventlog.adapters.conversations.commands import SessionContext
from agents_eventlog.eventlog.errors import ConcurrentRunError
from agents_eventlog.eventlog.events import ItemRef
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import branch_tree
from agents_eventlog.projections.conversations.queries import Place

OnConcurrentRun: TypeAlias = Literal["interleave", "reject", "branch"]
"""What a run does if another run changed its branch: add its items after, raise, or branch off."""


class Tip(NamedTuple):
    """The end of a branch."""

    branch_id: str
    cleared_version: int
    length: int
    last: ItemRef | None


@dataclass(eq=False)
class RunPlace:
    """
    Where a run is in a session. Only units of work change it; a rollback restores the former values.

    context: its own, once it has branched off; otherwise it uses the session object's.
    tip: the end of the branch after the run's last call; None before the first.
    turn: the turn that the run answers; None if unknown.
    is_interleaved: whether its items came after those of another run.
    task: the task that started it.
    """

    context: SessionContext | None = None
    tip: Tip | None = None
    turn: int | None = None
    is_interleaved: bool = False
    task: weakref.ref[asyncio.Task[object]] | None = None

    def is_under_way(self) -> bool:
        """Whether another task than the current one may still execute the run."""
        task = None if self.task is None else self.task()
        return task is not None and not task.done() and task is not asyncio.current_task()

    def turn_on(self, branch_id: str) -> int | None:
        """Return the turn that the run answers, if it does so on this branch."""
        return self.turn if self.tip is not None and self.tip.branch_id == branch_id else None

    def set(self, tx: Transaction, tip: Tip | None, turn: int | None) -> None:
        """Set the tip and the turn; a rollback restores the former ones."""
        before = self.tip, self.turn

        def back() -> None:
            self.tip, self.turn = before

        tx.on_rollback(back)
        self.tip, self.turn = tip, turn


MOST_SESSIONS: Final = 8
"""Of how many sessions a task remembers its last run: a run may use several, a worker serves any number."""

_current: ContextVar[Mapping[Hashable, RunPlace]] = ContextVar(
    "_current", default=MappingProxyType({})
)
"""By session, the last run that the current task, or the one that started it, has begun."""


def check_policy(policy: str) -> None:
    """Raise ValueError for an unknown policy."""
    if policy not in get_args(OnConcurrentRun):
        raise ValueError(
            f"invalid on_concurrent_run: expected one of {get_args(OnConcurrentRun)}, got {policy!r}"
        )


def current(session: Hashable) -> RunPlace | None:
    """Return the place of the current task's run in a session; None without one."""
    return _current.get().get(session)


def start(session: Hashable, place: RunPlace) -> None:
    """Make a run the current task's run in a session. If the run before it branched off, it stays there."""
    before = current(session)
    if before is place:
        return
    if before is not None and place.context is None:
        place.context = before.context
    task = asyncio.current_task()
    place.task = None if task is None else weakref.ref(task)
    others = [each for each in _current.get().items() if each[0] != session]
    _current.set(dict([*others[1 - MOST_SESSIONS :], (session, place)]))


def tip_of(context: SessionContext, here: Place, tx: Transaction) -> Tip:
    """Return the end of the current branch."""
    last = branch_tree.newest(tx, here.pointer)
    return Tip(
        context.branch_id,
        here.cleared_version,
        here.pointer.length,
        None if last is None else last.ref,
    )


def has_read(tx: Transaction, context: SessionContext, place: RunPlace) -> None:
    """Remember the end of the branch that a run has just read."""
    context = place.context or context
    place.tip = tip_of(context, commands.look(tx, context), tx)


class RunCall:
    """
    A writing call of a session object: what it does before and after its own unit of work.

    shared: the context of the session object.
    place: the run that makes the call, or in whose task it is made; None without one.
    is_of_run: whether the run itself makes the call. Other calls change the branch for the run's own task,
        for example those of its tools; the policy does not apply to them.
    is_alone: whether no other run of the session object is under way, so that the object can follow this
        one to its own branch.
    """

    def __init__(
        self,
        shared: SessionContext,
        place: RunPlace | None,
        policy: OnConcurrentRun,
        *,
        is_of_run: bool,
        is_alone: bool = True,
    ) -> None:
        self._shared = shared
        self.place = place
        self._policy = policy
        self._is_of_run = is_of_run
        self._is_alone = is_alone
        self._turn = 0
        self._follows = False
        self.is_interleaved = False
        """Whether this is the run's first call after another run's items."""

    @property
    def context(self) -> SessionContext:
        """The context of the call."""
        own = None if self.place is None else self.place.context
        return self._shared if own is None else own

    def enter(self, tx: Transaction) -> None:
        """
        Compare the branch with what the run last read or wrote.

        Raises ConcurrentRunError if another run changed it, and the policy or the change requires that.
        """
        place = self.place
        if place is None:
            return
        here = commands.look(tx, self.context)
        self._turn = here.turn
        tip = tip_of(self.context, here, tx)
        known = place.tip
        self._follows = known is None or known == tip or known.branch_id != tip.branch_id
        if known is None or self._follows or here.is_deleted or not self._is_of_run:
            return
        self._follows = True
        if self._policy == "reject":
            raise ConcurrentRunError(self._shared.session_id, self.context.branch_id)
        if self._policy == "branch":
            self._branch_off(tx, place, known)
        else:
            self.is_interleaved, place.is_interleaved = not place.is_interleaved, True

    def _branch_off(self, tx: Transaction, place: RunPlace, tip: Tip) -> None:
        """Continue on a branch of the run's own, from the end that it knows."""
        context = self.context
        here = commands.writable(tx, context)
        pointer = branch_tree.at_length(tx, here.pointer, tip.length)
        last = branch_tree.newest(tx, pointer)
        if here.cleared_version != tip.cleared_version or tip.last != (
            None if last is None else last.ref
        ):
            # What the run has read was removed: no branch can hold it.
            raise ConcurrentRunError(context.session_id, context.branch_id)
        own = SessionContext(context.session_id, context.branch_id)
        own.cleared_version, own.lease = context.cleared_version, context.lease
        turn = branch_tree.turn_at(tx, pointer)
        commands.branch_off(tx, own, pointer, None, None, turn)
        before = place.context
        tx.on_rollback(lambda: setattr(place, "context", before))
        place.context, self._turn = own, turn
        if self._is_alone:
            self._shared.move(tx, own.branch_id, own.cleared_version)

    def leave(self, tx: Transaction) -> None:
        """Remember the end of the branch, and the turn that the run answers."""
        place = self.place
        if place is None or not self._follows:
            return
        here = commands.look(tx, self.context)
        is_own = place.turn is not None and self._turn >= here.turn >= place.turn
        place.set(tx, tip_of(self.context, here, tx), place.turn if is_own else here.turn)
