"""What the log means now: tables that builders derive from its events, and can derive again."""

from eventlog.ledger import read_head
from eventlog.transaction import Transaction
from projections.conversations import Conversations
from projections.projection import Projection
from projections.projector import Projections
from projections.replay import Difference, Progress, Replayed, replay
from projections.search import Search, built_to
from projections.usage import Usage

__all__ = [
    "Conversations",
    "Difference",
    "Progress",
    "Projection",
    "Projections",
    "Replayed",
    "Search",
    "Usage",
    "default",
    "kept",
    "replay",
]


def default(*, search: bool = False) -> Projections:
    """
    Return the projections that the session reads: conversations and usage.

    search: with the full-text index, too.
    """
    return Projections(Conversations(), Usage(), *((Search(),) if search else ()))


def kept(tx: Transaction) -> Projections:
    """Return the projections that a file keeps: the default ones, and the index if it is up to date."""
    return default(search=built_to(tx) == read_head(tx).position)
