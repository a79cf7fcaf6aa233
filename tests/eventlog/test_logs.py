"""Logging: quiet where nobody asked, and never a word of what was said."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agents_eventlog import projections
from agents_eventlog.eventlog import EventLog, ItemsAdded, _logging
from agents_eventlog.projections import replay

ROOT = Path(__file__).parents[2]
TALK = """
import asyncio, sys
from agents_eventlog import AdvancedSQLiteSession

async def main():
    session = AdvancedSQLiteSession("s", sys.argv[1])
    await session.add_items([{"role": "user", "content": "hello"}])
    await session.create_branch_from_turn(1, "b")
    await session.switch_to_branch("main")
    await session.delete_branch("b")
    from agents_eventlog.projections import default, replay
    await asyncio.to_thread(replay, session.log, default().named([]))

asyncio.run(main())
"""


def test_a_program_that_configured_nothing_sees_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TALK, str(tmp_path / "log.db")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_warning_is_seen_on_stderr_by_a_program_that_configured_nothing() -> None:
    script = (
        "from agents_eventlog.eventlog import _logging\n"
        "_logging.get_logger('x').warning('odd', session_id='s')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "odd session_id='s'\n")


def test_what_is_below_the_logger_s_level_is_not_even_put_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError

    caplog.set_level(logging.WARNING)
    _logging.get_logger("quiet").info("event", value=Loud())
    assert caplog.records == []


def test_an_error_s_traceback_goes_with_it(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise LookupError("no")
    except LookupError:
        _logging.get_logger("loud").exception("failed", position=3)
    (record,) = caplog.records
    assert record.getMessage() == "failed position=3"
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


def test_a_replay_tells_ids_and_counts_and_nothing_that_was_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kept_up = projections.default()
    with closing(EventLog.open_sync(tmp_path / "log.db", projections=kept_up)) as log:
        from agents_eventlog.eventlog import append

        log.store.write_sync(
            lambda tx: append(tx, "s", ItemsAdded(items=[{"role": "user", "content": "secret"}]))
        )
        replay(log, kept_up.named([]))
    texts = [record.getMessage() for record in caplog.records]
    assert [text for text in texts if text.startswith("replay.finished")]
    assert not [text for text in texts if "secret" in text]


def test_importing_configures_nothing() -> None:
    script = (
        "import logging, sys, structlog\n"
        "import agents_eventlog.adapters\n"
        "assert not structlog.is_configured()\n"
        "assert logging.getLogger().handlers == []\n"
        "assert logging.getLogger('eventlog').handlers == []\n"
        "assert logging.getLogger('eventlog').level == logging.NOTSET\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
