"""
The same tests on another engine: ``pytest --engine=postgres tests/adapters tests/properties``.

Each path of a log file then means a schema of its own on a PostgreSQL server. What differs is in one table,
``DIFFERS``, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from agents_eventlog.eventlog.storage import engines
from agents_eventlog.eventlog.storage.engine import MEMORY

if TYPE_CHECKING:
    from tests.postgres import Server

SUITES: Final = (
    "tests/properties/",
    *(
        f"tests/adapters/test_{name}.py"
        for name in (
            *("call_order", "concurrent_runs", "find_items", "generated_ids", "metadata"),
            *("owners", "run_tracker", "runner_budgets", "sessions", "turns", "usage_questions"),
        )
    ),
)
"""What runs on both engines; the tests of the contract choose the engine themselves."""

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
                name = hashlib.sha256(str(Path(given).absolute()).encode()).hexdigest()[:32]
                given = server.url(f"log_{name}")
            return super().resolve(given)

    on_server = OnServer()
    own = engines.engine_for

    def engine_for(path: str | os.PathLike[str]) -> Any:
        engine = own(path)
        is_file = engine is not POSTGRES_ENGINE and os.fspath(path) != MEMORY
        return on_server if is_file else engine

    for module in list(sys.modules.values()):
        if getattr(module, "engine_for", None) is own:
            monkeypatch.setattr(module, "engine_for", engine_for)
