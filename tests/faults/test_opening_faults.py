"""
Each way to open a file with its 1st, 2nd, ... nth statement failing, until it succeeds.

An opening may make the log, adopt what the SDK left, and bring tables up to date, each in a transaction of
its own. So after a failure the file is not yet a log, or a whole one; nothing stays open; and the next
opening goes on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog.errors import BusyError
from agents_eventlog.eventlog.storage.sqlite import connections
from agents_eventlog.projections import projector
from tests.faults.failing import AFTER_THE_COMMIT, Kind, Statements, failing_statements, places
from tests.faults.openings import OPENINGS, put_copy, tables
from tests.faults.support import check_sound, open_files, seen

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", 0.05)
    return failing_statements(monkeypatch)


async def what_is_there(path: Path) -> dict[str, Any]:
    """Open a file without faults and return what it shows."""
    session = AdvancedSQLiteSession("s", path)
    try:
        return await seen(session)
    finally:
        session.close()


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", OPENINGS)
def test_an_opening_whose_nth_statement_fails_leaves_no_half_log_and_can_be_repeated(
    path: Path,
    statements: Statements,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
    name: str,
    each: bool,
) -> None:
    opening = OPENINGS[name]
    template = path.with_name("template.db")
    asyncio.run(opening.make(template))
    if opening.replays:
        monkeypatch.setattr(projector, "REPLAY_ON_OPEN_EVENTS", 2)
    put_copy(template, path)
    before = tables(path) if template.exists() else {}
    opening.open(path)
    whole, shows = tables(path), asyncio.run(what_is_there(path))
    for nth, failures in places(chance, each=each):
        for kind, mode in failures:
            put_copy(template, path)
            with statements.failing(nth, kind, mode):
                error = error_of(opening.open, path)
            if statements.hit is None:
                assert error is None
                assert nth > 3
                check_sound(path)
                return
            told = f"statement {nth}, {statements.hit}, {mode}: {kind.message}"
            if error is None:
                assert statements.hit in AFTER_THE_COMMIT or was_repeated(statements, kind), told
            else:
                assert type(error) is kind.promised, told
            assert open_files(path.parent) == [], told
            assert tables(path) in ({}, before, whole), told
            assert asyncio.run(what_is_there(path)) == shows, told
            if each:
                check_sound(path)


def error_of(opening: Callable[[Path], None], path: Path) -> Exception | None:
    """Open, and return what that raises."""
    try:
        opening(path)
    except Exception as error:
        return error
    return None


def was_repeated(statements: Statements, kind: Kind) -> bool:
    """Whether switching to a write-ahead log was busy: it tries again, and need not fail."""
    return kind.promised is BusyError and "journal_mode" in str(statements.hit)
