"""``eventlog copy``: between engines, while the source is in use, and again after it was killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import ConversationLog
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemsAdded
from tests.adapters.cli.processes import COMMAND, on_a_terminal
from tests.adapters.looking import documents, one, run, user

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

WRITER = """
import asyncio, sys
from agents_eventlog.eventlog import EventLog, ItemsAdded
async def write():
    async with EventLog.open(sys.argv[1], durability="normal") as log:
        for number in range(int(sys.argv[2])):
            event = ItemsAdded(items=[{"role": "user", "content": f"{number}"}])
            await log.append(f"s{number % 7}", event, branch_id="main")
            print(flush=True)
asyncio.run(write())
"""


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def append(path: object, session_id: str, count: int = 1) -> None:
    async def write() -> None:
        async with EventLog.open(str(path)) as log:
            events = [ItemsAdded(items=[user(f"{number}")]) for number in range(count)]
            await log.append(session_id, events, branch_id="main")

    asyncio.run(write())


def test_a_log_moves_to_a_server_and_back(full: Path, server: Server, tmp_path: Path) -> None:
    url, back = server.url(), tmp_path / "back.db"
    copied = one(run("copy", full, url, "--json"), "copied")
    head = one(run("doctor", full, "--json"), "file")
    assert copied["source_head"] == head["head"]
    assert (copied["events"], copied["sessions"]) == (head["events"], head["sessions"])
    assert copied["copied"] == head["events"]
    assert copied["target_head"] == one(run("doctor", url, "--json"), "file")["head"]
    assert run("verify", url).exit_code == ExitCode.CLEAN
    said = run("copy", url, back)
    assert said.exit_code == ExitCode.CLEAN
    assert f"copied {head['events']} events to {back}" in said.stdout
    assert run("verify", back).exit_code == ExitCode.CLEAN
    for command in (("sessions",), ("usage", "--by", "session"), ("export",)):
        assert (
            run(*command[:1], back, *command[1:]).stdout
            == run(*command[:1], full, *command[1:]).stdout
        )


def test_a_target_with_other_events_is_refused_and_names_its_sessions(
    full: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    assert run("copy", full, copy).exit_code == ExitCode.CLEAN
    append(copy, "mine")
    refused = run("copy", full, copy)
    assert refused.exit_code == ExitCode.FINDINGS
    assert "refused: " in refused.stderr
    assert "'mine'" in refused.stderr
    refused = run("copy", full, copy, "--json")
    assert refused.exit_code == ExitCode.FINDINGS
    assert one(refused, "refused")["sessions"] == ["mine"]


def test_a_log_is_not_copied_to_itself_nor_into_another_programs_database(
    full: Path, tmp_path: Path
) -> None:
    assert run("copy", full, full).exit_code == ExitCode.USAGE
    other = tmp_path / "other.txt"
    other.write_text("a text that is long enough to be more than a header " * 20)
    assert run("copy", full, other).exit_code == ExitCode.CANNOT_OPEN
    assert run("copy", tmp_path / "missing.db", tmp_path / "new.db").exit_code == (
        ExitCode.CANNOT_OPEN
    )
    assert not (tmp_path / "new.db").exists()


def test_a_copy_has_the_full_text_index_of_its_source(tmp_path: Path, server: Server) -> None:
    path, url = tmp_path / "log.db", server.url()
    append(path, "s")
    assert run("search", path, "0", "--index").exit_code == ExitCode.CLEAN
    assert run("copy", path, url).exit_code == ExitCode.CLEAN
    tables = [row["table"] for row in documents(run("doctor", url, "--json"), "table")]
    assert "item_texts" in tables


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT for a process here")
def test_a_copy_follows_a_log_in_use_until_it_is_interrupted(
    tmp_path: Path, server: Server
) -> None:
    path, url = tmp_path / "log.db", server.url()
    append(path, "s")
    copying = started("copy", path, url, "--follow", "--json")
    try:
        deadline = time.monotonic() + 60
        for count in (1, 2, 3):  # each is seen in the target while the copy runs
            append(path, "live")
            while version(url, "live") < count:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        copying.send_signal(signal.SIGINT)
        output, _ = copying.communicate(timeout=60)
    finally:
        copying.kill()
    assert copying.returncode == ExitCode.CLEAN
    assert '"events": 4' in output
    assert run("verify", url).exit_code == ExitCode.CLEAN


def version(url: str, session_id: str) -> int:
    async def read() -> int:
        try:
            async with EventLog.open(url, read_only=True) as log:
                return await log.version(session_id)
        except OSError:
            return 0

    return asyncio.run(read())


def test_a_copy_that_is_killed_at_any_moment_continues(
    tmp_path: Path, server: Server, chance: random.Random
) -> None:
    path, url = tmp_path / "log.db", server.url()
    append(path, "s", 2_500)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "1000"], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(3):
            copying = started("copy", path, url)
            time.sleep(chance.uniform(0.5, 2.5))
            copying.kill()
            copying.communicate()
        writer.stdout.read()
    copied = one(run("copy", path, url, "--json"), "copied")
    assert copied["events"] == 3_500
    assert run("verify", url).exit_code == ExitCode.CLEAN

    async def items() -> list[int]:
        async with ConversationLog.open(url) as log:
            return [row["item_count"] for row in await log.sessions()]

    assert sum(asyncio.run(items())) == 3_500


def test_a_copy_shows_its_progress_on_a_terminal(full: Path, tmp_path: Path) -> None:
    assert "copying" in on_a_terminal("copy", str(full), str(tmp_path / "copy.db"))
