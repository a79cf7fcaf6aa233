"""
Logging: structlog's events, sent through the standard library.

An unconfigured structlog prints to stdout. This one never does: a program that does not configure
logging sees only warnings and errors. Nothing is configured globally.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from agents_eventlog.eventlog.events import JSON

if TYPE_CHECKING:
    import structlog


def _render(
    _logger: logging.Logger, _method: str, event: structlog.typing.EventDict
) -> tuple[tuple[str], dict[str, JSON]]:
    exc_info = event.pop("exc_info", None)
    message = str(event.pop("event"))
    facts = " ".join(f"{key}={value!r}" for key, value in event.items())
    text = f"{message} {facts}" if facts else message
    return (text,), {"exc_info": exc_info} if exc_info else {}


def get_logger(logger: str | logging.Logger) -> structlog.stdlib.BoundLogger:
    """Return a structlog logger in front of a logger of the standard library."""
    target = logging.getLogger(logger) if isinstance(logger, str) else logger
    return cast("structlog.stdlib.BoundLogger", _Lazy(target))


def _ignore(*_: object, **__: object) -> None:
    """Discard an event below the logger's level."""


class _Lazy:
    """A logger that imports structlog at its first event, because the import is slow."""

    def __init__(self, target: logging.Logger) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        level = getattr(logging, name.upper(), None)
        if isinstance(level, int) and not self._target.isEnabledFor(level):
            return _ignore
        import structlog

        made = structlog.wrap_logger(
            self._target,
            processors=[structlog.stdlib.filter_by_level, _render],
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=False,
        )
        return getattr(made, name)
