"""
The same tests on another engine: ``pytest --engine=postgres tests/adapters tests/properties``.

Each path of a log file then means a schema of its own on a PostgreSQL server. What differs is in one table,
``DIFFERS``, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from agents_eventlog.eventlog.storage import engines
from agents_eventlog.eventlog.storage.engine import MEMORY
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog.eventlog import Transaction
    from agents_eventlog.eventlog.storage.engine import Problem
    from tests.postgres import Server

SUITES: Final = (
    "tests/properties/",
    "tests/adapters/",
    *(
        f"tests/adapters/test_{name}.py"
        for name in (
            *("call_order", "concurrent_runs", "find_items", "generated_ids", "metadata"),
            *("owners", "run_tracker", "runner_budgets", "sessions", "turns", "usage_questions"),
        )
    ),
)
"""What runs on both engines; the tests of the contract choose the engine themselves."""

NOT_DURABLE: Final = "fsync is off: a crash can damage the log"
"""What ``doctor`` rightly finds about the server of the tests."""

POSITIONS: Final = "names positions, which on PostgreSQL depend on the lane"
BYTES: Final = "changes the bytes of an SQLite file"
DIFFERS: Final = {
    "tests/adapters/test_find_items.py::test_a_row_tells_what_was_found_and_where": POSITIONS,
    "tests/adapters/test_runner_budgets.py::test_a_run_that_another_process_continues": (
        "gives another process the path of the file"
    ),
    "tests/adapters/test_sessions.py::test_session_and_log_show_what_they_are": (
        "shows the path of the file"
    ),
    "tests/adapters/test_sessions.py::test_text_that_few_say_is_found_through_the_full_text_index": (
        "names the statement of SQLite's full-text index"
    ),
    "tests/adapters/test_turns.py::test_a_transcript_says_of_each_item": POSITIONS,
    "tests/adapters/test_turns.py::test_a_transcript_keeps_the_place_of_erased_content": BYTES,
    "tests/properties/test_erasing.py::test_an_erased_history_gives_the_same_tables": POSITIONS,
    "tests/properties/test_finding.py::test_every_way_finds_the_same": POSITIONS,
    "tests/properties/test_replay.py::test_readers_give_the_items_that_the_fold": POSITIONS,
}
"""What runs on SQLite alone, by the beginnings of its name, with the reason."""


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suites that run on both engines, and skip in them what differs."""
    others = [item for item in items if not item.nodeid.startswith(SUITES)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item.nodeid.startswith(SUITES)]
    for item in items:
        for beginning, why in DIFFERS.items():
            if item.nodeid.startswith(beginning):
                item.add_marker(pytest.mark.skip(reason=f"SQLite only: {why}"))


def redirect(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Let the paths of log files mean schemas on a server, until the end of a test."""
    from agents_eventlog.eventlog.storage.postgres.engine import POSTGRES_ENGINE, PostgresEngine

    class OnServer(PostgresEngine):
        """Resolves the path of a file to a schema of the server."""

        def resolve(self, path: str | os.PathLike[str]) -> str:
            given = os.fspath(path)
            if not given.startswith(engines.POSTGRES):
                given = url_of(given)
            return super().resolve(given)

        def problems(self, tx: Transaction) -> Iterator[Problem]:
            return (each for each in super().problems(tx) if each.problem != NOT_DURABLE)

    def url_of(path: str | os.PathLike[str]) -> str:
        name = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()[:32]
        return server.url(f"log_{name}")

    monkeypatch.setattr(sys.modules[__name__], "_url_of", url_of)
    on_server = OnServer()
    own = engines.engine_for

    def engine_for(path: str | os.PathLike[str]) -> Any:
        engine = own(path)
        is_file = engine is not POSTGRES_ENGINE and os.fspath(path) != MEMORY
        return on_server if is_file else engine

    for module in list(sys.modules.values()):
        if getattr(module, "engine_for", None) is own:
            monkeypatch.setattr(module, "engine_for", engine_for)


_url_of: Callable[[str | os.PathLike[str]], str] | None = None


def change(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Change a log behind the library's back; statements may have parameters, ``?``."""
    if _url_of is not None:
        with postgres.raw(_url_of(path)) as connection:
            for sql, parameters in map(_with_parameters, statements):
                on_events = " ON events" if sql.startswith("DROP TRIGGER") else ""
                connection.execute(sql.replace("?", "%s") + on_events, parameters or None)
        return
    with closing(sqlite3.connect(path)) as connection:
        for sql, parameters in map(_with_parameters, statements):
            connection.execute(sql, parameters)
        connection.commit()


def _with_parameters(
    statement: str | tuple[str, tuple[Any, ...]],
) -> tuple[str, tuple[Any, ...]]:
    return (statement, ()) if isinstance(statement, str) else statement


def dump(path: Path) -> list[str]:
    """Return all rows of a log, as text."""
    if _url_of is None:
        with closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())
    with postgres.raw(_url_of(path)) as connection:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
        return [
            f"{name} {row}"
            for (name,) in connection.execute(names).fetchall()
            for row in connection.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
        ]


def stored(path: Path) -> bytes:
    """Return all that a log contains: the bytes of its file, or the rows of its schema."""
    return path.read_bytes() if _url_of is None else "\n".join(dump(path)).encode()
