"""
The SDK's ``AdvancedSQLiteSession`` on an event log.

``from agents_eventlog import AdvancedSQLiteSession`` replaces
``from agents.extensions.memory import AdvancedSQLiteSession``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agents.memory.session_settings import SessionSettings

from agents_eventlog.adapters.conversations.budgets import Budgets
from agents_eventlog.adapters.conversations.concurrent_runs import OnConcurrentRun
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.conversations.pricing import Prices
from agents_eventlog.adapters.conversations.sdk_tables import TablePair
from agents_eventlog.adapters.openai_agents.migration import migrate
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog.cipher.key_store import KeysOption
from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.engine import Durability
from agents_eventlog.projections.conversations.builder import MAIN


class AdvancedSQLiteSession(EventLogSession):
    """
    The SDK's ``AdvancedSQLiteSession`` on an event log, with the same methods.

    session_id: an int is converted to a str. An auto-generated branch id is accepted, too: it opens that
        branch's session on that branch, so keep it as secret as the session's id.
    db_path: the log's file. Sessions on one file share its connections. ":memory:" is a log in memory that
        no other object shares.
    create_tables: whether a missing or empty file becomes a log; False raises NoLogError instead.
    durability: with "full", a write survives a power loss once its call has returned; with "normal", which
        is faster, a power loss may remove the last writes.
    keys: what seals the contents, and opens them: the path of a key file, whose root key is in
        EVENTLOG_KEY, or a ``KeyFile``. None: the path in EVENTLOG_KEYS, if it is set.
    search: maintain a full-text index for ``find_items``; the first session opened with it builds it.
    sessions_table, messages_table: the names of the SDK's tables, if the file has them. The first session
        on the file imports their contents into the log; the tables do not change.

    The other parameters are those of ``EventLogSession``. Raises an OpenError if the file cannot be opened
    as a log, and WrongTablesError (a ValueError) if it was first opened with other table names.
    """

    log: ConversationLog

    def __init__(
        self,
        session_id: str | int,
        db_path: str | os.PathLike[str] = ":memory:",
        create_tables: bool = True,
        *,
        logger: logging.Logger | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        branch_id: str = MAIN,
        resume: bool = False,
        user_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        expires_after: timedelta | None = None,
        max_age: timedelta | None = None,
        first_turn_number: int = 1,
        auto_usage: bool = True,
        prices: Prices = None,
        budgets: Budgets = (),
        on_concurrent_run: OnConcurrentRun = "interleave",
        durability: Durability = "full",
        keys: KeysOption = None,
        search: bool = False,
        sessions_table: str = "agent_sessions",
        messages_table: str = "agent_messages",
    ) -> None:
        log = migrate.open_log(
            db_path,
            tables=TablePair(sessions_table, messages_table),
            create=create_tables,
            durability=durability,
            search=search,
            keys=keys,
        )
        try:
            super().__init__(
                str(session_id) if isinstance(session_id, int) else session_id,
                log,
                logger=logger,
                session_settings=session_settings,
                branch_id=branch_id,
                resume=resume,
                user_id=user_id,
                metadata=metadata,
                expires_after=expires_after,
                max_age=max_age,
                first_turn_number=first_turn_number,
                auto_usage=auto_usage,
                prices=prices,
                budgets=budgets,
                on_concurrent_run=on_concurrent_run,
            )
        except BaseException:
            log.close()
            raise
        self.db_path = db_path
        self.sessions_table = sessions_table
        self.messages_table = messages_table

    def close(self) -> None:
        """
        Wait for running operations and close. Idempotent; later calls raise ClosedError (a RuntimeError).

        The connections close with the last session and log object on the file.
        """
        super().close()
        self.log.close()
