"""The part of a session object that finds items: its own, and those of the file's other sessions."""

from __future__ import annotations

from typing import Unpack

from agents_eventlog.adapters.conversations import item_search
from agents_eventlog.adapters.conversations.item_search import ItemFilters, SearchResults
from agents_eventlog.adapters.openai_agents.unit_runner import Working


class Searchable(Working):
    """The method that finds items."""

    _first_turn: int

    async def find_items(
        self,
        text: str | None = None,
        *,
        limit: int | None = 50,
        after: str | None = None,
        **which: Unpack[ItemFilters],
    ) -> SearchResults:
        """
        Return live items by what they say and what they are: of this session, on any of its branches.

        text: stands in the item's texts (a message, a call's arguments, an output, a reasoning summary),
            literally, in either case of letters.
        limit: maximum number of items. after: a ``cursor``, to resume behind it.
        which: type, tool_name, role, branch_id, since, until; session_id or user_id for those sessions
            instead of this one; see ``ItemFilters``.

        The newest come first. ``row["snippet"][slice(*row["hit"])]`` is what was found. The result also
        has the next page's cursor and how the items were found, see ``SearchResults``. Raises
        InvalidQueryError (a ValueError).
        """
        if which.get("session_id") is None and which.get("user_id") is None:
            which["session_id"] = self.session_id
        return await item_search.find_items(
            self._read, text, limit=limit, after=after, first_turn=self._first_turn, **which
        )
