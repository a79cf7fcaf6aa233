"""Projections: tables that are computed from the events of a log, and can be rebuilt from them."""

from functools import cache

from agents_eventlog.eventlog.appender import complete_checkpoint
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.base import Projection
from agents_eventlog.projections.conversations.as_of import items_as_of
from agents_eventlog.projections.conversations.builder import Conversations
from agents_eventlog.projections.erasure.eraser import ErasureResult
from agents_eventlog.projections.projector import Projections
from agents_eventlog.projections.replay import (
    Difference,
    Progress,
    ReplayResult,
    replay,
)
from agents_eventlog.projections.search.index import Search, built_to
from agents_eventlog.projections.sessions.filters import SessionFilters
from agents_eventlog.projections.usage.builder import Usage
from agents_eventlog.projections.views.views import Views

__all__ = [
    "Conversations",
    "Difference",
    "ErasureResult",
    "Progress",
    "Projection",
    "Projections",
    "ReplayResult",
    "Search",
    "SessionFilters",
    "Usage",
    "Views",
    "default",
    "items_as_of",
    "kept",
    "replay",
]


@cache
def default(*, search: bool = False) -> Projections:
    """
    Return the projections that session objects and ``ConversationLog`` read: conversations and usage, with
    views on them.

    search: also the full-text index.
    """
    return Projections(Conversations(), Usage(), Views(), *((Search(),) if search else ()))


def kept(tx: Transaction) -> Projections:
    """Return the default projections, with the full-text index if the file has one that is up to date."""
    return default(search=built_to(tx) == complete_checkpoint(tx))


if __name__ != "agents_eventlog.projections":  # or every module here would be loaded a second time
    raise ImportError("import agents_eventlog.projections: this folder is a part of that package")
