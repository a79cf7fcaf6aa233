"""What the log means now: tables that builders derive from its events, and can derive again."""

from projections.conversations import Conversations
from projections.projection import Projection
from projections.projector import Projections
from projections.replay import Difference, Progress, Replayed, replay
from projections.usage import Usage

__all__ = [
    "Conversations",
    "Difference",
    "Progress",
    "Projection",
    "Projections",
    "Replayed",
    "Usage",
    "default",
    "replay",
]


def default() -> Projections:
    """Return the projections that the session reads: conversations and usage."""
    return Projections(Conversations(), Usage())
