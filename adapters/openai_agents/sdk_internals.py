"""
All private names of the Agents SDK that the adapter uses, with a fallback for each.

A name is looked up when it is first needed. If the installed SDK lacks it, the fallback is used, and one
warning is logged in the process. docs/sdk-versions.md lists the names that each version lacks.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from agents.items import TResponseInputItem
from agents.memory import session_settings
from agents.memory.session_settings import SessionSettings
from agents.tracing import get_current_trace

_MARKS = "_eventlog_runs"
OPENAI = "api.openai.com"
_log = logging.getLogger("eventlog.session")


class CompactionSnapshot(NamedTuple):
    """Replacement for the SDK's class of this name, for versions that lack it and never request it."""

    items: list[TResponseInputItem]
    complete: bool
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]


class Request(NamedTuple):
    """The objects of a request that the SDK has just made; None if unknown."""

    agent: Any = None
    model: Any = None
    settings: Any = None
    response: Any = None
    terminal: Any = None


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


# -- requests --------------------------------------------------------------------------------


@cache
def requesting() -> frozenset[CodeType]:
    """Return the code of the functions that call a model and count its usage; warn of missing ones."""
    lost = "its requests are recorded without agent and model, and are not priced"
    found = set()
    for name in ("get_new_response", "run_single_turn_streamed"):
        function = lookup("agents.run_internal.run_loop", name, lost)
        code = getattr(inspect.unwrap(function), "__code__", None) if function else None
        if code and {"public_agent", "model"} <= {*code.co_varnames, *code.co_cellvars}:
            found.add(code)
        elif function is not None:
            warn_once(f"local variables public_agent and model of {name}", lost)
    return frozenset(found)


def request_in(frame: FrameType) -> Request | None:
    """
    Return the request that a function of the SDK has made; None for other functions.

    The SDK does not pass on the response, the agent, the model and its settings together. They exist only
    as local variables of the function that counts the usage.
    """
    if frame.f_code not in requesting():
        return None
    found = frame.f_locals
    return Request(
        found.get("public_agent"),
        found.get("model"),
        found.get("model_settings"),
        found.get("new_response") or found.get("final_response"),
        found.get("terminal_response"),  # only when streamed
    )


def endpoint_of(model: Any) -> str | None:
    """Return the base URL of a model's client, without credentials; None for OpenAI's, or if unknown."""
    url = getattr(model, "base_url", None) or getattr(
        getattr(model, "_client", None), "base_url", None
    )
    if url is None:
        return None
    parts = urlsplit(str(url))
    if not parts.hostname or parts.hostname == OPENAI:
        return None
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))


def check_run_context() -> None:
    """Warn if the Runner does not pass its run context to a session, or hides its requests."""
    requesting()
    lookup(
        "agents.memory.session",
        "_call_session_method",
        "usage is not recorded automatically: use UsageHooks or store_run_usage",
    )


def trace_id() -> str | None:
    """
    Return the id of the current trace; None without one.

    ``get_current_trace`` creates the SDK's trace provider with its HTTP client, which takes 0.1 s of
    processor time. Without a provider there is no trace.
    """
    setup = lookup("agents.tracing", "setup", "the first call of a process takes 0.1 s longer")
    if getattr(setup, "GLOBAL_TRACE_PROVIDER", "unknown") is None:
        return None
    trace = get_current_trace()
    return None if trace is None or trace.trace_id == "no-op" else trace.trace_id


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
    error: BaseException,
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
