"""
A log as a busy service leaves it after a year: many sessions, seeded, the same on every machine.

Sessions come in visits, several at a time. In a turn the user says something, an agent calls a tool and
answers (four items of about 300 bytes, two events), and its two model requests are recorded. Some
answers are taken back and given again, some visits try another branch, some sessions end cleared or
deleted. All are labelled; the number of turns is spread widely around its mean.

The events are appended through the log itself, in units of work of thousands, at the times when they
would have happened; the tables are then built by a replay, as for a log whose tables were lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from math import log as ln
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agents_eventlog.eventlog import (
    BranchCreated,
    BranchDeleted,
    BranchSwitched,
    EventLog,
    ItemPopped,
    ItemRef,
    ItemsAdded,
    MetadataSet,
    RequestUsage,
    SessionCleared,
    SessionDeleted,
    UsageRecorded,
    codec,
)
from agents_eventlog.eventlog.appender import append, append_all
from benchmarks.turns import adds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agents_eventlog.eventlog.events import JSON, Event
    from agents_eventlog.eventlog.storage.transaction import Transaction

UNIT_EVENTS = 20_000
DAY = 86_400_000_000
FIRST_DAY: Final = 1_735_689_600_000_000
"""2025-01-01 UTC, in microseconds since 1970."""

TEXTS = 1_000
TURNS_PER_VISIT = 8
LONG_TURNS, SHORT_TURNS = 1_000, 30
"""How many turns the first two sessions have, however large the log is."""

MODELS = (("model-large", 5e-6), ("model-small", 4e-7), ("model-local", None))
AGENTS = ("triage", "billing", "support")


@dataclass(frozen=True, kw_only=True)
class Population:
    """How many sessions there are, how many turns each has on average, over how many days."""

    sessions: int
    turns_per_session: float = 32.0
    days: int = 365
    seed: int = 1

    @property
    def file_name(self) -> str:
        """A name that tells this population from any other."""
        return f"sessions-{self.sessions}-turns-{self.turns_per_session:g}-seed-{self.seed}.db"


def session_id(number: int) -> str:
    """Return the id of a session; 0 is the long one, 1 the short one."""
    return f"session-{number:07d}"


def user_id(number: int) -> str:
    """Return whose session it is: every user has five."""
    return f"user-{number // 5:06d}"


def labels(number: int) -> dict[str, JSON]:
    """Return a session's metadata: a plan that many have, a ticket that nobody else has."""
    plan = "pro" if number % 10 == 0 else "free"
    return {"plan": plan, "customer": {"tier": number % 7, "ticket": ticket(number)}}


def ticket(number: int) -> str:
    """Return the text that stands in the labels and in the first item of one session only."""
    return f"ticket-{number:07d}"


def topic(number: int) -> str:
    """Return a text that stands in the user item of one turn in a thousand."""
    return f"question {number % TEXTS:07d}"


def made(folder: Path, population: Population) -> Path:
    """Return the file of a population, its log written unless it is there already; no tables yet."""
    path = folder / population.file_name
    if not path.exists():
        draft = path.with_suffix(".part")
        for suffix in ("", "-wal", "-shm"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)
        _write(draft, population)
        draft.rename(path)
    return path


def _write(path: Path, population: Population) -> None:
    log = EventLog.open_sync(path, durability="normal")
    writing = _Writing(population)
    log.store.write_sync(lambda tx: tx.execute("PRAGMA cache_size = -400000"))
    while log.store.write_sync(partial(writing.write_some, events=UNIT_EVENTS)):
        pass
    log.close()


class _Visit(NamedTuple):
    time: int
    number: int
    turns: int
    is_last: bool


@dataclass
class _Branch:
    """Where a branch stands: its last turn, its last item, and the last item before that turn."""

    branch_id: str = "main"
    turn: int = 0
    tail: ItemRef | None = None
    cut: ItemRef | None = None


@dataclass
class _Session:
    number: int
    main: _Branch = field(default_factory=_Branch)
    here: _Branch | None = None
    branches: int = 0
    guest: _Guest | None = None

    @property
    def branch(self) -> _Branch:
        """The branch that the visitor is on."""
        return self.here or self.main


@dataclass
class _Guest:
    """A visit that goes on: turns that are still to come, and when the next one is."""

    visit: _Visit
    session: _Session
    left: int
    time: int


class _Writing:
    """Writes a population, some events at a time."""

    def __init__(self, population: Population) -> None:
        self._random = random.Random(population.seed)
        self._sessions: dict[int, _Session] = {}
        self._texts = [_Texts(number) for number in range(TEXTS)]
        self._runs = 0
        visits = _visits(population, self._random)
        self._steps = self._play(visits)

    def write_some(self, tx: Transaction, events: int) -> bool:
        """Append so many events, about; return whether there are more to come."""
        end = tx.lane.position + events
        while tx.lane.position < end:
            guest = next(self._steps, None)
            if guest is None:
                return False
            self._take_turn(tx, guest)
        return True

    def _play(self, visits: list[_Visit]) -> Iterator[_Guest]:
        """Let everybody who is there take a turn whenever somebody comes, then until all have left."""
        guests: list[_Guest] = []
        for visit in visits:
            session = self._sessions.setdefault(visit.number, _Session(visit.number))
            if session.guest is not None:  # is still there
                session.guest.visit, session.guest.left = visit, session.guest.left + visit.turns
                continue
            session.guest = _Guest(visit, session, visit.turns, visit.time)
            guests.append(session.guest)
            yield from guests
            guests = [guest for guest in guests if guest.left]
        while guests:
            yield from guests
            guests = [guest for guest in guests if guest.left]

    def _take_turn(self, tx: Transaction, guest: _Guest) -> None:
        session, chance = guest.session, self._random.random
        name = session_id(session.number)
        tx.now = guest.time
        if session.main.turn == 0:
            tx.recording = {"actor": "web"}
            label = MetadataSet(user_id=user_id(session.number), metadata=labels(session.number))
            append(tx, name, label)
        if guest.left == guest.visit.turns and session.main.turn > 1 and chance() < 0.03:
            self._branch_off(tx, session)
        self._say(tx, session)
        if chance() < 0.05:
            self._say_again(tx, session)
        guest.left -= 1
        guest.time += int(60_000_000 * (0.5 + chance()))
        if not guest.left:
            self._leave(tx, guest)

    def _say(self, tx: Transaction, session: _Session) -> None:
        branch, texts = session.branch, self._texts[self._random.randrange(TEXTS)]
        question = texts.question if branch.turn else _first_question(session.number)
        self._runs += 1
        tx.recording = {"actor": "web", "trace_id": f"trace_{self._runs:032x}"}
        spent = UsageRecorded(
            run_id=f"run_{self._runs:09d}", turn=branch.turn + 1, requests=self._requests()
        )
        events = (question, texts.answer, (spent, codec.encode(spent)))
        name = session_id(session.number)
        recorded = append_all(tx, name, events, branch_id=branch.branch_id)
        branch.turn, branch.cut = branch.turn + 1, branch.tail
        branch.tail = ItemRef(recorded[1].position, 2)

    def _say_again(self, tx: Transaction, session: _Session) -> None:
        branch = session.branch
        texts = self._texts[self._random.randrange(TEXTS)]
        if branch.tail is None:
            return
        name, popped = session_id(session.number), ItemPopped(item=branch.tail)
        events = ((popped, codec.encode(popped)), texts.message)
        recorded = append_all(tx, name, events, branch_id=branch.branch_id)
        branch.tail = ItemRef(recorded[1].position, 0)

    def _branch_off(self, tx: Transaction, session: _Session) -> None:
        main = session.main
        session.branches += 1
        name = f"idea-{session.branches}"
        created = BranchCreated(
            branch_id=name, from_branch_id="main", last_item=main.cut, before_turn=main.turn
        )
        append(tx, session_id(session.number), created, branch_id="main")
        session.here = _Branch(name, main.turn - 1, main.cut, None)

    def _leave(self, tx: Transaction, guest: _Guest) -> None:
        name, session, chance = (
            session_id(guest.session.number),
            guest.session,
            self._random.random(),
        )
        session.guest = None
        tx.recording = {"actor": "web"}
        if session.here is not None:
            branch_id, session.here = session.here.branch_id, None
            switched = BranchSwitched(from_branch_id=branch_id, branch_id="main")
            append(tx, name, switched, branch_id="main")
            if chance < 0.2:
                append(tx, name, BranchDeleted(branch_id=branch_id), branch_id=branch_id)
        elif guest.visit.is_last and session.number > 1 and chance < 0.03:
            is_cleared = chance < 0.01
            append(tx, name, SessionCleared() if is_cleared else SessionDeleted(reason="asked"))
        if guest.visit.is_last:
            del self._sessions[session.number]

    def _requests(self) -> list[RequestUsage]:
        model, price = self._random.choices(MODELS, weights=(3, 6, 1))[0]
        agent = AGENTS[self._random.randrange(len(AGENTS))]
        read = self._random.randrange(500, 8_000)
        return [
            RequestUsage(
                input_tokens=read + more,
                output_tokens=60,
                total_tokens=read + more + 60,
                cached_input_tokens=read // 2,
                response_id=f"resp_{self._runs:09d}_{more}",
                model=model,
                agent=agent,
                cost_usd=None if price is None else round((read + more + 240) * price, 9),
                price_source=None if price is None else "benchmark",
            )
            for more in (0, 200)
        ]


class _Texts:
    """A turn's events with their data, encoded once: what is asked, the answer, another answer."""

    def __init__(self, number: int) -> None:
        question, answer = adds(number)
        self.question = _encoded(question)
        self.answer = _encoded(answer)
        self.message = _encoded(answer[-1:])


def _first_question(number: int) -> tuple[Event, bytes]:
    [item] = adds(number % TEXTS)[0]
    words: dict[str, Any] = dict(item)
    return _encoded([{**words, "content": f"{ticket(number)} {words['content'][15:]}"}])


def _encoded(items: list[Any]) -> tuple[Event, bytes]:
    event = ItemsAdded(items=items)
    return event, codec.encode(event)


def _visits(population: Population, chance: random.Random) -> list[_Visit]:
    """Return all visits in the order of their times."""
    middle = ln(population.turns_per_session) - 0.5  # of a log-normal spread with that mean
    visits = []
    for number in range(population.sessions):
        fixed = {0: LONG_TURNS, 1: SHORT_TURNS}.get(number)
        turns = max(1, round(chance.lognormvariate(middle, 1))) if fixed is None else fixed
        time = int(population.days * DAY * chance.random() ** 0.7)  # the service grows
        while turns > 0:
            some = min(turns, 1 + int(chance.expovariate(1 / TURNS_PER_VISIT)))
            turns -= some
            visits.append(_Visit(FIRST_DAY + time, number, some, turns == 0))
            time += 1 + int(chance.expovariate(1 / (2 * DAY)))
    visits.sort()
    return visits
