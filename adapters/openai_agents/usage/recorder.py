"""
The part of a session object that meters: what its runs used, and what they cost.

The Runner hands its run context to each call. What the run has used until then is recorded in the
transaction of the call, if it writes; reading writes nothing. Requests that answered in vain, because a
tool raised or a guardrail tripped, are recorded with the object's next call, when it is closed, or, of an
object that was thrown away, before the next write of any session in the process.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from agents import RunConfig
from agents.logger import log_model_action_error
from agents.tool_context import ToolContext

from agents_eventlog.adapters.conversations import commands, pricing
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.openai_agents import request_origin
from agents_eventlog.adapters.openai_agents.request_origin import Answerer
from agents_eventlog.adapters.openai_agents.unit_runner import Working
from agents_eventlog.adapters.openai_agents.usage import runs, snapshot
from agents_eventlog.adapters.openai_agents.usage.runs import Mark
from agents_eventlog.adapters.openai_agents.usage.snapshot import Seen
from agents_eventlog.eventlog.events import RequestUsage
from agents_eventlog.eventlog.storage.transaction import Transaction, Unit
from agents_eventlog.projections.usage import queries as usage_queries

T = TypeVar("T")

MOST_NOTED: Final = 16
"""How many runs one session object keeps in view that are over."""

_thrown_away: SimpleQueue[tuple[int, MeteredUsage]] = SimpleQueue()
_in_view: WeakKeyDictionary[MeteredUsage, int] = WeakKeyDictionary()


@dataclass
class _Noted:
    """A run that the Runner feeds: its usage object, and how far that was recorded."""

    usage: Any
    mark: Mark
    size: tuple[Any, int]
    approved: bool | None = None
    is_late: bool = False
    task: weakref.ref[asyncio.Task[Any]] | None = None

    def is_under_way(self) -> bool:
        """Whether another task is in the middle of this run: it brings what it used itself."""
        task = None if self.task is None else self.task()
        return task is not None and not task.done() and task is not _current_task()


class MeteredUsage(Working):
    """The methods about usage."""

    _first_turn: int
    _logger: logging.Logger
    _auto_usage: bool
    _prices: Prices
    _noted: OrderedDict[int, _Noted]

    # -- recorded by itself ---------------------------------------------------------------------

    def _note(self, wrapper: Any, *, always: bool = False) -> _Noted | None:
        """Keep the run of a run context in view, if there is one and usage is recorded by itself."""
        if wrapper is None:
            return None
        try:
            usage = wrapper.usage
            noted = self._noted.get(id(usage))
            if noted is None:
                noted = self._noted_first(wrapper, usage, in_view=self._auto_usage or always)
            noted.approved = snapshot.was_resumed(wrapper)
            if not always and (task := _current_task()) is not None:
                noted.task = weakref.ref(task)
        except Exception as error:
            self._failed(error)
            return None
        return noted

    def _noted_first(self, wrapper: Any, usage: Any, *, in_view: bool) -> _Noted:
        mark = runs.mark_of(usage, runs.log_name(self.log.store))
        mark.setting = request_origin.setting_here() or mark.setting
        count = len(snapshot.seen(usage).entries)
        noted = _Noted(usage, mark, (0, 0), is_late=count > 0)
        if in_view:
            mark.begin(self.session_id, count, is_nested=isinstance(wrapper, ToolContext))
            _forget_recorded(self._noted)
            self._noted[id(usage)] = noted
            _recorded_at_exit()
            _in_view[self] = os.getpid()
            if self._prices is None:
                pricing.prepare()
        return noted

    async def _write(
        self, unit: Unit[T], run: _Noted | None = None, items: Sequence[Any] = ()
    ) -> T:
        """Run a unit of work; what runs have used until now is recorded in the same transaction."""
        _record_what_was_thrown_away()
        if not self._noted:
            return await super()._write(unit)
        before, after = self._recordings(run, items)
        if run is not None:
            run.is_late = False

        def with_usage(tx: Transaction) -> T:
            for recording in before:
                recording(tx)
            result = unit(tx)
            for recording in after:
                recording(tx)
            return result

        return await super()._write(with_usage if before or after else unit)

    def _recordings(
        self, run: _Noted | None, items: Sequence[Any]
    ) -> tuple[list[Unit[None]], list[Unit[None]]]:
        """
        Return what records the runs in view that have gone on: before the unit of work, and after it.

        A request belongs to the turn that it answered: the one before a run's next input. Only a run
        that is seen for the first time, and has used something, brings its turn along.
        """
        before: list[Unit[None]] = []
        after: list[Unit[None]] = []
        for noted in list(self._noted.values()):
            if snapshot.size(noted.usage) != noted.size and not noted.is_under_way():
                try:
                    recording = self._recording(noted, items if noted is run else ())
                except Exception as error:
                    self._failed(error)
                    continue
                (after if noted is run and noted.is_late else before).append(recording)
        return before, after

    def _recording(self, noted: _Noted, items: Sequence[Any]) -> Unit[None]:
        """Read now what a run has used; return what records it."""
        mark, size = noted.mark, snapshot.size(noted.usage)
        seen = snapshot.seen(noted.usage, mark.known(self._seat.session_id))
        answers = dict(mark.told)
        if seen.requests and _answer_one(noted, seen, items):
            # Their request came first, those of agents that were used as tools later.
            answers.setdefault(min(seen.requests), request_origin.present(mark.setting))
        seen = seen._replace(requests=self._filled(seen.requests, answers))
        interrupted = snapshot.waits(items)

        def recording(tx: Transaction) -> None:
            recorded = noted.size
            tx.on_rollback(lambda: setattr(noted, "size", recorded))
            noted.size = size
            runs.record(
                tx, self._seat, mark, seen, interrupted=interrupted, approved=noted.approved
            )

        return recording

    def _filled(
        self, requests: Mapping[int, RequestUsage], answers: Mapping[int, Answerer]
    ) -> dict[int, RequestUsage]:
        """Return requests with who answered them and what they cost, where that is known."""
        now = self.log.store.clock()
        return {
            index: self._priced(_answered(request, answers.get(index)), now)
            for index, request in requests.items()
        }

    def _priced(self, request: RequestUsage, at: int) -> RequestUsage:
        try:
            return pricing.priced(request, at, self._prices)
        except Exception as error:  # the application's prices
            self._failed(error, "Failed to price a request")
            return request

    def _record_what_is_left(self) -> None:
        """Record what runs in view have used and no call has recorded. Blocks; never raises."""
        try:
            if left := self._left():
                self.log.store.write_sync(lambda tx: [recording(tx) for recording in left])
        except Exception as error:
            self._failed(error)

    def _left(self) -> list[Unit[None]]:
        """Return what records the runs in view, of which none goes on any more."""
        for noted in self._noted.values():
            noted.task = None
        return self._recordings(None, ())[0]

    def _submit_what_is_left(self) -> None:
        if left := self._left():
            self.log.store.submit_write(lambda tx: [recording(tx) for recording in left], Future())

    def __del__(self) -> None:
        """Keep what was not recorded, when an object is thrown away that served a single request."""
        noted = getattr(self, "_noted", None)
        if not noted or self._closed:
            return
        if any(snapshot.size(each.usage) != each.size for each in noted.values()):
            # Nothing else is safe wherever garbage may be collected.
            _thrown_away.put((os.getpid(), self))

    async def _record_response(
        self, context: Any, agent: Any, response: Any, run_config: RunConfig | None
    ) -> None:
        """Record the request that a model has just answered, and who it was. Never raises."""
        try:
            noted = self._note(context, always=True)
            if noted is None:
                return
            mark = noted.mark
            setting = mark.setting or request_origin.PLAIN
            if run_config is not None:
                setting = request_origin.setting_of(run_config)
            numbers = snapshot.entry_numbers(response.usage)
            entries = snapshot.seen(noted.usage, ()).entries
            open_ = [
                i for i, entry in enumerate(entries) if entry == numbers and i not in mark.told
            ]
            if open_:
                name = getattr(agent, "name", None)
                model = request_origin.model_of(agent, setting)
                mark.told[open_[-1]] = Answerer(name, model, getattr(response, "response_id", None))
            await self._write(_nothing)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception, what: str = "Failed to store session usage") -> None:
        log_model_action_error(
            self._logger,
            what,
            error,
            diagnostic_extra=lambda: {"session_id": self.session_id},
        )

    # -- from a result --------------------------------------------------------------------------

    async def store_run_usage(self, result: Any, *, run_config: RunConfig | None = None) -> None:
        """
        Record what a run used, on the current branch's last turn; each request counts once.

        Of requests that were recorded by themselves, what only the result knows is added.

        result: a ``RunResult``, or anything with ``.context_wrapper.usage``. Never raises an
            Exception; failures are logged.
        run_config: the run's, if it named a model and usage is not recorded by itself.
        """
        try:
            self._check_not_closed()
            usage = result.context_wrapper.usage
            if usage is not None:
                await self._store(result, usage, run_config)
        except Exception as error:
            self._failed(error)

    async def _store(self, result: Any, usage: Any, run_config: RunConfig | None) -> None:
        _record_what_was_thrown_away()
        mark = runs.mark_of(usage, runs.log_name(self.log.store))
        seen = snapshot.seen(usage)
        setting = mark.setting or (None if mark.begins else request_origin.PLAIN)
        if run_config is not None:
            setting = request_origin.setting_of(run_config)
        told = request_origin.told_by(result, seen.entries, setting)
        answers = {**dict(enumerate(told)), **mark.told}
        known = mark.known(self._seat.session_id)
        new = {index: each for index, each in seen.requests.items() if index not in known}
        seen = seen._replace(requests=self._filled(new, answers))
        interrupted = bool(getattr(result, "interruptions", None))
        approved = snapshot.was_resumed(result.context_wrapper)
        await super()._write(
            lambda tx: runs.record(
                tx,
                self._seat,
                mark,
                seen,
                interrupted=interrupted,
                approved=approved,
                even_nothing=True,
            )
        )
        late = {index: each for index, each in answers.items() if index in known}
        if late and (better := self._learnt(mark, late)):
            await super()._write(
                lambda tx: runs.correct(tx, self._seat, mark, better, "the result tells more")
            )

    def _learnt(self, mark: Mark, answers: Mapping[int, Answerer]) -> dict[int, RequestUsage]:
        """Return the recorded requests of which the answers tell more than is recorded."""
        better = {}
        taken = {} if mark.run is None else mark.run.taken
        for (session_id, index), known in taken.items():
            if session_id == self._seat.session_id:
                request = _answered(known.request, answers.get(index))
                if request != known.request:
                    if request.cost_usd is None:
                        request = self._priced(request, known.at)
                    better[index] = request
        return better

    # -- asked for ------------------------------------------------------------------------------

    async def get_session_usage(self, branch_id: str | None = None) -> dict[str, int] | None:
        """Return the tokens of all live turns, of one branch or (None) of all; None if there are none."""

        def unit(tx: Transaction) -> tuple[int, int, int, int, int] | None:
            if commands.look(tx, self._seat).is_deleted:
                return None
            return usage_queries.live_total(tx, self._seat.session_id, branch_id or None)

        total = await self._read(unit)
        names = ("requests", "input_tokens", "output_tokens", "total_tokens", "total_turns")
        return None if total is None else dict(zip(names, total, strict=True))

    async def get_turn_usage(
        self, user_turn_number: int | None = None, branch_id: str | None = None
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Return the tokens of one live turn ({} if there are none), or (None) a list of all turns'."""

        def unit(tx: Transaction) -> dict[int, usage_queries.Tokens]:
            if commands.look_at(tx, self._seat, branch_id).is_deleted:
                return {}
            branch = self._seat.branch_id if branch_id is None else branch_id
            return usage_queries.by_turn(tx, self._seat.session_id, branch)

        turns = await self._read(unit)
        if user_turn_number is not None:
            number = commands.turn_number(user_turn_number)
            used = None if number is None else turns.get(self._internal(number))
            return {} if used is None else used._asdict()
        return [
            {"user_turn_number": self._external(turn), **used._asdict()}
            for turn, used in turns.items()
        ]

    async def get_usage_stats(
        self,
        by: Iterable[str] | str = (),
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        live: bool = False,
    ) -> dict[str, Any]:
        """
        Return all that the session ever used, whatever was popped, deleted or cleared since.

        by: "run", "turn", "branch", "model", "agent" or "day", or several: under "groups" then stands
            a dict for each, with its keys (run_id, branch_id, the others as they are called) and sums.
        since, until: only what was used in this time (without a zone: UTC; a day alone counts whole).
        live: only what still stands.

        ``total_cost`` is in USD, the sum of what is priced; ``unpriced_requests`` counts the rest.
        """
        asked = usage_calls.wanted(
            by, since=since, until=until, session_id=self._seat.session_id, live=live
        )
        answer = await self._read(lambda tx: usage_calls.ask(tx, asked))
        for group in answer.get("groups", ()):
            if group.get("turn") is not None:
                group["turn"] = self._external(group["turn"])
        return answer

    def _internal(self, turn: int) -> int:
        return turn - self._first_turn + 1

    def _external(self, turn: int) -> int:
        return turn + self._first_turn - 1


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # no event loop runs here


def _record_what_was_thrown_away() -> None:
    """Queue what objects that are gone have left, before anything that is called from now on."""
    while not _thrown_away.empty():
        with suppress(Empty):
            pid, session = _thrown_away.get_nowait()
            _submit_what_is_left(session, pid)


def _submit_what_is_left(session: MeteredUsage, pid: int) -> None:
    if pid == os.getpid() and not session._closed:  # noqa: SLF001 - a fork's parent records what is its own
        with suppress(Exception):  # their log was closed; nobody is left to be told
            session._submit_what_is_left()  # noqa: SLF001


@cache
def _recorded_at_exit() -> None:
    """Queue, when the program ends, what is left then; the stores, hooked earlier, write it after that."""
    atexit.register(_record_what_is_in_view)


def _record_what_is_in_view() -> None:
    _record_what_was_thrown_away()
    for session, pid in list(_in_view.items()):
        _submit_what_is_left(session, pid)


def _forget_recorded(noted: OrderedDict[int, _Noted]) -> None:
    """Let go of the oldest runs that are over and recorded, if there is no room for another one."""
    surplus = len(noted) - MOST_NOTED
    if surplus >= 0:
        over = [
            key
            for key, each in noted.items()
            if snapshot.size(each.usage) == each.size and not each.is_under_way()
        ]
        for key in over[: surplus + 1]:
            del noted[key]


def _nothing(_: Transaction) -> None:
    """Do nothing: what is recorded with it is all there is to do."""


def _answer_one(noted: _Noted, seen: Seen, items: Sequence[Any]) -> bool:
    """Whether the agent at work got these items for a request of its own, one of those that are new."""
    if any(snapshot.is_answer(item) for item in items):
        return True
    is_certain = len(seen.requests) == 1 and not noted.approved
    return bool(items) and snapshot.are_opaque(items) and is_certain


def _answered(request: RequestUsage, answer: Answerer | None) -> RequestUsage:
    """Return a request with who answered it; what is known of that already stays."""
    learnt = {
        name: value.encode(errors="replace").decode()
        for name, value in ({} if answer is None else answer._asdict()).items()
        if isinstance(value, str) and getattr(request, name) is None
    }
    return msgspec.structs.replace(request, **learnt) if learnt else request
