"""
Which of a module's mutants do tests notice? A plugin of pytest that asks, instead of running the tests.

The tests are collected once, and run once as everything is: that tells which functions each reaches and
what it takes. Then each mutant is put in, in a process forked off, and the tests that reach its function
are run until one fails: those first that noticed a mutant of it before, then the quickest. Tests that
start other programs do not notice what is changed here.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.mutation.listed import Change
from tests.mutation.mutants import Mutant

BUDGET_SECONDS = 4
"""A mutant is asked about by tests that take so much CPU time, all in all; slower ones are left out."""

WALL_FACTOR, WALL_SECONDS = 10, 300
"""A mutant that takes so many times what the unchanged tests took, and so much more, has timed out."""

CPU_SECONDS = 30
"""Of CPU time, so much more than its share by the factor."""

IDLE_SECONDS = 15
"""A mutant that did nothing for so long waits for what never comes: it has timed out."""

KILLED, SURVIVED, UNREACHED, TIMED_OUT = "killed", "survived", "unreached", "timed out"

_HIGHEST_EXIT_CODE = 200


@dataclass
class _Reach:
    """A test, and what running it unchanged told."""

    item: pytest.Item
    seconds: float = 0.0
    wall_seconds: float = 0.0
    codes: set[CodeType] = field(default_factory=set)


class Asking:
    """The plugin: ``ends`` tells for each change what became of it."""

    def __init__(self, mutants: Sequence[Mutant], processes: int) -> None:
        self.ends: list[tuple[Change, str]] = []
        self.failed_unchanged: list[str] = []
        self._mutants = mutants
        self._processes = processes
        self._codes = {mutant.original.__code__ for mutant in mutants}
        self._failed = False
        self._kills: dict[CodeType, Counter[int]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests as they are, then ask about each mutant."""
        if not self._mutants:
            return True
        reached = list(self._run_unchanged(session.items))
        print(f"{len(reached)} tests, {sum(each.seconds for each in reached):.1f} s")
        if not self.failed_unchanged:
            gc.collect()
            gc.freeze()  # or each process copies what it merely looks at
            self._ask_all(reached)
        return True

    def _run_unchanged(self, items: Sequence[pytest.Item]) -> Iterator[_Reach]:
        for item, following in zip(items, (*items[1:], None), strict=True):
            self._failed = False
            each = _Reach(item)
            began, wall = _cpu_seconds(), time.monotonic()
            with _calls(self._codes, each.codes):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            each.seconds, each.wall_seconds = _cpu_seconds() - began, time.monotonic() - wall
            if self._failed:
                self.failed_unchanged.append(item.nodeid)
            yield each

    def _ask_all(self, reached: Sequence[_Reach]) -> None:
        waiting = list(reversed(self._mutants))
        running: dict[int, tuple[Mutant, list[_Reach], float]] = {}
        while waiting or running:
            while waiting and len(running) < self._processes:
                mutant = waiting.pop()
                tests = self._tests(mutant.original.__code__, reached)
                if not tests:
                    self._note(mutant, UNREACHED)
                    continue
                wall = sum(each.wall_seconds for each in tests)
                running[_ask(mutant, tests, self)] = (
                    mutant,
                    tests,
                    time.monotonic() + WALL_FACTOR * wall + WALL_SECONDS,
                )
            self._wait(running, reached)

    def _tests(self, code: CodeType, reached: Sequence[_Reach]) -> list[_Reach]:
        """Return the tests to ask about a function, in order, within the budget."""
        kills = self._kills[code]
        asked = [(index, each) for index, each in enumerate(reached) if code in each.codes]
        asked.sort(key=lambda pair: (-kills[pair[0]], pair[1].seconds))
        spent, tests = 0.0, []
        for _, each in asked:
            spent += each.seconds
            if spent > BUDGET_SECONDS and tests:
                break
            tests.append(each)
        return tests

    def _wait(
        self, running: dict[int, tuple[Mutant, list[_Reach], float]], reached: Sequence[_Reach]
    ) -> None:
        """Wait until a process is done, or has had its time."""
        while running:
            for pid, (mutant, tests, deadline) in list(running.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done and time.monotonic() < deadline:
                    continue
                del running[pid]
                if not done:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    self._note(mutant, TIMED_OUT)
                elif os.WIFSIGNALED(status):
                    limited = os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}
                    self._note(mutant, TIMED_OUT if limited else KILLED)
                elif (code := os.waitstatus_to_exitcode(status)) == 0:
                    self._note(mutant, SURVIVED)
                else:
                    index = reached.index(tests[min(code - 1, len(tests) - 1)])
                    self._kills[mutant.original.__code__][index] += 1
                    self._note(mutant, KILLED)
                return
            time.sleep(0.005)

    def _note(self, mutant: Mutant, end: str) -> None:
        self.ends.append((mutant.change, end))
        print(f"{len(self.ends)}/{len(self._mutants)} {end}: {mutant.change}", flush=True)

    def noticed_by(self, tests: Iterable[_Reach]) -> int:
        """Return which test fails, counted from 1; 0 if none does."""
        tests = list(tests)
        for number, (each, following) in enumerate(zip(tests, (*tests[1:], None), strict=True)):
            self._failed = False
            each.item.ihook.pytest_runtest_protocol(
                item=each.item, nextitem=following.item if following else None
            )
            if self._failed:
                return min(number + 1, _HIGHEST_EXIT_CODE)
        return 0


def _ask(mutant: Mutant, tests: list[_Reach], asking: Asking) -> int:
    """Start a process that asks the tests about a mutant; return its id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    noticed = 1
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        limit = int(WALL_FACTOR * sum(each.seconds for each in tests) + CPU_SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        threading.Thread(target=_end_when_idle, daemon=True).start()
        mutant.put_in()
        noticed = asking.noticed_by(tests)
    finally:
        os._exit(noticed)


def _end_when_idle() -> None:
    spent = -1.0
    while (now := _cpu_seconds()) - spent > IDLE_SECONDS / 1_000:
        spent = now
        time.sleep(IDLE_SECONDS)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _calls(codes: set[CodeType], called: set[CodeType]) -> Iterator[None]:
    """Note which of these functions are called meanwhile, on whatever thread, or in a fork."""
    places = {code: place for place, code in enumerate(codes)}
    shared = mmap.mmap(-1, len(places))

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (place := places.get(frame.f_code)) is not None:
            shared[place] = 1

    threading.setprofile(note)  # threads that are started from now on
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        called.update(code for code, place in places.items() if shared[place])


def _cpu_seconds() -> float:
    return sum(os.times()[:4])
