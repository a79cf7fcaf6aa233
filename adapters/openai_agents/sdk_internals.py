"""
All private names of the Agents SDK that the adapter uses, with a fallback for each.

A name is looked up when it is first needed. If the installed SDK lacks it, the fallback is used, and one
warning is logged in the process. docs/sdk-versions.md lists the names that each version lacks.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from agents import RunConfig
from agents.items import TResponseInputItem
from agents.memory import session_settings
from agents.memory.session_settings import SessionSettings

_MARKS = "_eventlog_runs"
_log = logging.getLogger("eventlog.session")


class CompactionSnapshot(NamedTuple):
    """Replacement for the SDK's class of this name, for versions that lack it and never request it."""

    items: list[TResponseInputItem]
    complete: bool
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]


class RunnerState(NamedTuple):
    """The configuration and the agent of the Runner at one moment; None if unknown."""

    config: RunConfig | None = None
    agent: Any = None


@cache
def lookup(module: str, name: str, lost: str) -> Any:
    """Return a private object of the SDK; if it is missing, warn once of the lost feature, return None."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:
        warn_once(f"{module}.{name}", lost)
        return None
    return found


@cache
def warn_once(name: str, lost: str) -> None:
    """Warn once that the SDK lacks a name, and which feature is lost."""
    _log.warning("The installed openai-agents has no %s: %s", name, lost)


# -- the current run -------------------------------------------------------------------------


def runner_state() -> RunnerState:
    """
    Return the configuration and the agent of the innermost run on the call stack.

    The SDK does not pass them to a session. They exist only as local variables of the functions that run
    agents, which call the session.
    """
    functions = _runner_functions()
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - see above
    while frame is not None:
        if frame.f_code in functions:
            config = frame.f_locals.get("run_config")
            return RunnerState(
                config if isinstance(config, RunConfig) else None,
                frame.f_locals.get("current_agent"),
            )
        frame = frame.f_back
    return RunnerState()


@cache
def _runner_functions() -> frozenset[CodeType]:
    """Return the code objects of the functions that run an agent and have the expected local variables."""
    found = []
    for module, names in (
        ("agents.run", ("AgentRunner._run_impl", "AgentRunner.run")),  # "run" itself in 0.18
        ("agents.run_internal.run_loop", ("start_streaming",)),
    ):
        codes = [_code(module, name) for name in names]
        usable = [
            code
            for code in codes
            if code and {"run_config", "current_agent"} <= {*code.co_varnames, *code.co_cellvars}
        ]
        if not usable:
            lost = "its requests are recorded without a model, and are not priced"
            warn_once(f"{module}.{names[0]}", lost)
        found += usable
    return frozenset(found)


def _code(module: str, name: str) -> CodeType | None:
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        code = inspect.unwrap(found).__code__
    except Exception:
        return None
    return code if isinstance(code, CodeType) else None


def agent_named(name: str) -> Any:
    """Return the agent with this name in the current run; None if it is unknown or ambiguous."""
    current = lookup(
        "agents.run_internal.agent_tool_configuration",
        "_current_run",
        "a request that hands over to another agent may be recorded without its model",
    )
    if current is None:
        agent = runner_state().agent
        return agent if getattr(agent, "name", None) == name else None
    taking_part = getattr(current.get(), "resolutions", None) or {}
    agents = [each.agent for each in list(taking_part.values()) if each.agent.name == name]
    return agents[0] if len(agents) == 1 else None


def check_run_context() -> None:
    """Warn if the Runner does not pass its run context to a session."""
    lookup(
        "agents.memory.session",
        "_call_session_method",
        "usage is not recorded automatically: use UsageHooks or store_run_usage",
    )


# -- the state of a run -----------------------------------------------------------------------


def has_approvals(wrapper: Any) -> bool | None:
    """Whether a run has approvals, as a resumed run does; None if unknown."""
    approvals = getattr(wrapper, "_approvals", None)
    return bool(approvals) if isinstance(approvals, dict) else None


def attached(usage: Any) -> dict[Any, Any]:
    """
    Return the adapter's values that are attached to a usage object; its copies share them.

    The SDK copies a run's ``Usage`` with all attributes when it resumes the run in the same process. No
    public object of the run lives as long. An object without a ``__dict__`` gets a new dict each time.
    """
    try:
        values: dict[Any, Any] = usage.__dict__.setdefault(_MARKS, {})
    except AttributeError:
        return {}
    return values


# -- settings, logging, compaction ------------------------------------------------------------


def settings_of(value: SessionSettings | dict[str, Any] | None) -> SessionSettings:
    """Convert session settings to the SDK's class. Raises the SDK's error for invalid settings."""
    if value is None:
        return SessionSettings()
    coerce = getattr(session_settings, "coerce_session_settings", None)  # not in 0.18
    if coerce is not None:
        settings: SessionSettings = coerce(value)
        return settings
    return SessionSettings(**value) if isinstance(value, dict) else value


def may_log_model_data() -> bool:
    """Whether the SDK's settings allow logging texts of a conversation; False if unknown."""
    return _may_log("DONT_LOG_MODEL_DATA")


def _may_log(flag: str) -> bool:
    debug = lookup("agents", "_debug", "errors and branches are logged without any text")
    return not getattr(debug, flag, True)


def log_error(
    logger: logging.Logger,
    message: str,
    error: Exception,
    *,
    has_tool_data: bool = False,
    **details: str,
) -> None:
    """
    Log an error as the SDK does: with text and traceback only if model data may be logged.

    has_tool_data: also require that tool data may be logged.
    details: identifiers to log with the text.
    """
    if may_log_model_data() and (not has_tool_data or _may_log("DONT_LOG_TOOL_DATA")):
        logger.error(
            "%s: %s",
            message,
            error,
            exc_info=(type(error), error, error.__traceback__),
            extra={"openai_agents_diagnostic_context": details} if details else None,
            stacklevel=2,
        )
    else:
        logger.error("%s", message, stacklevel=2)


def compaction_snapshot(
    items: list[Any],
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]],
    *,
    complete: bool,
) -> Any:
    """Return a snapshot for the SDK's compaction."""
    kind = lookup(
        "agents.memory.session",
        "_CompactionSnapshot",
        "compaction snapshots are instances of the adapter's own class",
    )
    kind = CompactionSnapshot if kind is None else kind
    return kind(items=items, complete=complete, replace_suffix=replace_suffix)
