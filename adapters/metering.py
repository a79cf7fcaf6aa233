"""The part of a session object that meters: what its runs used, and what they cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

from agents.logger import log_model_action_error

from adapters import conversation, spent
from adapters import usage as run_usage
from adapters.working import Working
from eventlog.events import RequestUsage
from eventlog.transaction import Transaction
from projections import reading, spending


class MeteredUsage(Working):
    """The methods about usage."""

    _first_turn: int
    _logger: logging.Logger

    async def store_run_usage(self, result: Any) -> None:
        """
        Record what a run used, on the current branch's last turn; each request counts once.

        result: a ``RunResult``, or anything with ``.context_wrapper.usage``. Never raises an
        Exception; failures are logged.
        """
        try:
            self._check_not_closed()
            usage = result.context_wrapper.usage
            if usage is not None:
                requests = run_usage.requests_of(result)
                interrupted = bool(getattr(result, "interruptions", None))
                resumed = run_usage.was_resumed(result)
                await self._write(
                    lambda tx: self._record(
                        tx, usage, requests, interrupted=interrupted, resumed=resumed
                    )
                )
        except Exception as error:
            log_model_action_error(
                self._logger,
                "Failed to store session usage",
                error,
                diagnostic_extra=lambda: {"session_id": self.session_id},
            )

    def _record(
        self,
        tx: Transaction,
        usage: Any,
        requests: list[RequestUsage],
        *,
        interrupted: bool,
        resumed: bool | None,
    ) -> None:
        store, session_id = self.log.store, self._seat.session_id
        place = (store if store.is_memory else store.path, session_id)
        before = run_usage.run_of(usage, place)
        run = before or self._resumed_run(tx, requests, resumed) or run_usage.new_run()
        new = run_usage.not_recorded(requests, run.recorded)
        if new:
            conversation.record_usage(
                tx, self._seat, run_id=run.run_id, requests=new, interrupted=interrupted
            )
        tx.on_rollback(lambda: run_usage.remember(usage, place, before))
        run_usage.remember(usage, place, run._replace(recorded=tuple(requests)))

    def _resumed_run(
        self, tx: Transaction, requests: list[RequestUsage], resumed: bool | None
    ) -> run_usage.Run | None:
        """Return the waiting run that these requests continue, if they do."""
        if resumed is False:
            return None
        seat = self._seat
        turn = reading.place(tx, seat.session_id, seat.branch_id).turn
        for run in spending.waiting_runs(tx, seat.session_id):
            here = (run.branch_id, run.turn) == (seat.branch_id, turn)
            if (resumed or here) and run_usage.continues(requests, run.requests):
                return run_usage.Run(run.run_id, tuple(run.requests))
        return None

    async def get_session_usage(self, branch_id: str | None = None) -> dict[str, int] | None:
        """Return the tokens of all live turns, of one branch or (None) of all; None if there are none."""

        def unit(tx: Transaction) -> tuple[int, int, int, int, int] | None:
            if conversation.look(tx, self._seat).is_deleted:
                return None
            return spending.live_total(tx, self._seat.session_id, branch_id or None)

        total = await self._read(unit)
        names = ("requests", "input_tokens", "output_tokens", "total_tokens", "total_turns")
        return None if total is None else dict(zip(names, total, strict=True))

    async def get_turn_usage(
        self, user_turn_number: int | None = None, branch_id: str | None = None
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Return the tokens of one live turn ({} if there are none), or (None) a list of all turns'."""

        def unit(tx: Transaction) -> dict[int, spending.Tokens]:
            if conversation.look_at(tx, self._seat, branch_id).is_deleted:
                return {}
            branch = self._seat.branch_id if branch_id is None else branch_id
            return spending.by_turn(tx, self._seat.session_id, branch)

        turns = await self._read(unit)
        if user_turn_number is not None:
            used = turns.get(self._internal(user_turn_number))
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
        asked = spent.wanted(
            by, since=since, until=until, session_id=self._seat.session_id, live=live
        )
        answer = await self._read(lambda tx: spent.ask(tx, asked))
        for group in answer.get("groups", ()):
            if group.get("turn") is not None:
                group["turn"] = self._external(group["turn"])
        return answer

    def _internal(self, turn: int) -> int:
        return turn - self._first_turn + 1

    def _external(self, turn: int) -> int:
        return turn + self._first_turn - 1
