"""A log of conversations: what is asked, and done, across all of its sessions."""

from __future__ import annotations

import os

import projections as tables
from eventlog.ledger import Projector
from eventlog.log import EventLog, Opening
from eventlog.store import Durability


class ConversationLog(EventLog):
    """
    An ``EventLog`` whose sessions, spend and contents can be asked for, and managed, all at once.

    ``async with ConversationLog.open("conversations.db") as log``; of a session object, ``session.log``.
    """

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Projector | None = None,
        durability: Durability = "full",
        create: bool = True,
        read_only: bool = False,
    ) -> Opening[ConversationLog]:
        """Open the log at a path as ``EventLog.open`` does, with the default projections."""
        return super().open(
            path,
            projections=tables.default() if projections is None else projections,
            durability=durability,
            create=create,
            read_only=read_only,
        )
