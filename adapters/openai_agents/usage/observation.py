"""
Observation of a run's usage object: each request gets its origin at the moment when the SDK counts it.

The SDK calls ``Usage.add`` once for each response, in the function that called the model. That function's
local variables are the only place where response, agent, model and settings are together.
"""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from agents import Usage

from agents_eventlog.adapters.openai_agents import request_origin, sdk_internals
from agents_eventlog.adapters.openai_agents.usage.runs import TrackedRun

OnRequest: TypeAlias = Callable[[Any, TrackedRun], None]
"""Called with the usage object and its run after each request."""

# A run and the agents that it uses as tools share one usage object, but may use different sessions. Each
# runs in a task of its own: the context variable holds the session that the task's Runner uses. Hooks run
# in tasks of their own, whose variables the Runner does not see: for them there is the last one.
_in_this_task: ContextVar[tuple[weakref.ref[TrackedRun], weakref.WeakMethod[OnRequest]] | None] = (
    ContextVar("eventlog_usage", default=None)
)
_last: weakref.WeakKeyDictionary[TrackedRun, weakref.WeakMethod[OnRequest]] = (
    weakref.WeakKeyDictionary()
)


class ObservedUsage(Usage):
    """The SDK's ``Usage`` of a tracked run. Copies stay observed."""

    def add(self, other: Usage) -> None:
        """Add a request's usage as the SDK does, then note its origin and record it."""
        before = len(self.request_usage_entries)
        super().add(other)
        run = runs_of(self)
        new = range(before, len(self.request_usage_entries))
        origin = request_origin.counted_in(sys._getframe(1))  # noqa: SLF001 - see above
        for index in new:  # failed attempts are listed before the one that succeeded
            is_answer = index == new[-1]
            run.origins[index] = origin if is_answer else origin._replace(response_id=None)
        here = _in_this_task.get()
        method = here[1] if here is not None and here[0]() is run else _last.get(run)
        on_request = None if method is None else method()
        if on_request is not None:
            on_request(self, run)

    def __eq__(self, other: object) -> bool:
        """Compare as the SDK's class does: by the fields."""
        return isinstance(other, Usage) and all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in dataclasses.fields(Usage)
        )

    __hash__ = None  # type: ignore[assignment]


def runs_of(usage: Any) -> TrackedRun:
    """Return the run of a usage object; its copies begin with the same state."""
    run: TrackedRun = sdk_internals.attached(usage).setdefault("run", TrackedRun())
    return run


def observe(usage: Any, on_request: OnRequest, *, is_nested: bool, in_task: bool) -> TrackedRun:
    """
    Call a method after each further request of a usage object, and return its run.

    on_request: a bound method; it is called as long as its object exists.
    is_nested: whether a tool of the run calls; requests outside of the tool keep their method.
    in_task: whether the Runner itself calls, in the task that makes the requests.
    """
    run = runs_of(usage)
    if type(usage) is Usage:  # other classes have their own ``add``: their origins stay unknown
        usage.__class__ = ObservedUsage
    method = weakref.WeakMethod(on_request)
    if in_task:
        _in_this_task.set((weakref.ref(run), method))
    if not is_nested or run not in _last:
        _last[run] = method
    return run
