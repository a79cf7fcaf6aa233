"""A log of conversations: what is asked, and done, across all of its sessions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import projections as tables
from adapters import spent
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

    async def usage(
        self,
        by: Iterable[str] | str = (),
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        live: bool = False,
    ) -> dict[str, Any]:
        """
        Return what was spent, of all sessions, of a user's or of one.

        by: "session", "user", "model", "agent", "day", "run", "turn" or "branch", or several: under
            "groups" then stands a dict for each, with its keys (session_id, user_id, run_id, branch_id,
            the others as they are called; None where it is not known) and its sums.
        since, until: only what was used in this time (without a zone: UTC; a day alone counts whole).
        live: only what still stands, not what was popped, deleted or cleared.

        The sums: as in ``session.get_usage_stats``. Raises ValueError for a group that there is not.
        """
        asked = spent.wanted(
            by, since=since, until=until, user_id=user_id, session_id=session_id, live=live
        )
        return await self.query(lambda tx: spent.ask(tx, asked))
