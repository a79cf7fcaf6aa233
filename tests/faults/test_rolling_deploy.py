"""Two releases on one log at the same time, the newer one with other tables: neither stops the other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog.eventlog import EventLog

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

RELEASES = """
import asyncio, sys
from agents_eventlog import projections
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.openai_agents.session import EventLogSession
from agents_eventlog.eventlog import ItemsAdded
from agents_eventlog.projections import Conversations, Projection, Projections

where, release, command, name, *sessions = sys.argv[1:]

class Tally(Projection):
    name = "tally"
    version = 1
    schema = ("CREATE TABLE tally (session_id TEXT PRIMARY KEY, adds INTEGER NOT NULL)",)
    handles = (ItemsAdded,)
    insert = "INSERT INTO tally (session_id, adds) VALUES (?, 1)"

    def apply(self, tx, events):
        for recorded in events:
            tx.execute(
                self.insert + " ON CONFLICT (session_id) DO UPDATE SET adds = tally.adds + 1",
                (recorded.session_id,),
            )

if release == "newer":
    Tally.version = 2
    Tally.schema = (
        "CREATE TABLE tally (session_id TEXT PRIMARY KEY, adds INTEGER NOT NULL, kind TEXT NOT NULL)",
        "CREATE INDEX tally_by_kind ON tally (kind)",
    )
    Tally.insert = "INSERT INTO tally (session_id, kind, adds) VALUES (?, 'chat', 1)"
    Conversations.version += 1
    Conversations.schema = tuple(
        statement.replace("(", "(release INTEGER NOT NULL DEFAULT 2, ", 1)
        if "CREATE TABLE items" in statement else statement
        for statement in Conversations.schema
    )

async def talk(log, session_id):
    session = EventLogSession(session_id, log)
    for number in range(15):
        content = f"{name} {number}"
        await session.add_items([{"role": "user", "content": content}])
        print("added", session_id, content, sep="\\t", flush=True)
        if session_id == name:
            assert (await session.get_items())[-1]["content"] == content
        elif number % 5 == 4:
            popped = await session.pop_item()
            print("popped", session_id, popped["content"], sep="\\t", flush=True)

async def main():
    async with ConversationLog.open(where, projections=Projections(Tally())) as log:
        if command == "talk":
            await asyncio.gather(*(talk(log, session_id) for session_id in [*sessions, name]))
            return
        if command == "replay":
            await asyncio.to_thread(projections.replay, log, [*projections.default().named([]), Tally()])
        assert (await log.verify()).ok
        for session_id in sessions:
            for item in await EventLogSession(session_id, log).get_items():
                print("kept", session_id, item["content"], sep="\\t")
        adds = await log.query(lambda tx: tx.all("SELECT SUM(adds) FROM tally"))
        print("adds", int(adds[0][0]), sep="\\t")
        kept = [*projections.default().named([]), Tally()]
        results = await asyncio.to_thread(
            projections.replay, log, kept, check=True, on_difference=lambda it: print("differs", it)
        )
        assert len(results) > 5
        print("tables", *sorted(await log.query(lambda tx: tx.engine.table_names(tx))), sep="\\t")

asyncio.run(main())
"""
SESSIONS = ("one", "two")


def started(where: object, release: str, command: str, name: str = "") -> Any:
    arguments = [str(where), release, command, name, *SESSIONS]
    return subprocess.Popen(
        [sys.executable, "-c", RELEASES, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: Any) -> list[list[str]]:
    """Return what a program printed, once it has ended well."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return [line.split("\t") for line in out.splitlines()]


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where the log is: a file, or the URL of a schema."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("server").url()
        return url
    return str(tmp_path / "log.db")


@pytest.mark.parametrize("first", ["older", "newer"])
async def test_two_releases_with_different_tables_append_at_the_same_time_and_agree(
    where: str, first: str
) -> None:
    """Each reads its own writes, no item is lost or popped twice, and both replay to the same rows."""
    second = {"older": "newer", "newer": "older"}[first]
    talks = [started(where, first, "talk", "a")]
    while not (await asyncio.to_thread(talks[0].stdout.readline)).startswith("popped"):
        assert talks[0].poll() is None, talks[0].stderr.read()
    talks.append(started(where, second, "talk", "b"))
    for talk in talks:
        said(talk)
    log = EventLog.open_sync(where, read_only=True)
    added: dict[str, list[str]] = {}
    popped = 0
    async for recorded in log.read():
        if recorded.type == "items_added":
            contents = added.setdefault(recorded.session_id, [])
            contents.append(recorded.event.items[0]["content"])
        popped += recorded.type == "item_popped"
    log.close()
    for session_id in SESSIONS:
        for name in "ab":
            own = [content for content in added[session_id] if content.startswith(name)]
            assert own == [f"{name} {n}" for n in range(15)]
        assert len(added[session_id]) == 2 * 15
    assert popped == 2 * 2 * 3

    checks = {release: started(where, release, "check") for release in ("older", "newer")}
    found = {release: said(check) for release, check in checks.items()}
    kept = {
        release: [line for line in lines if line[0] in ("kept", "adds", "differs")]
        for release, lines in found.items()
    }
    assert kept["older"] == kept["newer"]
    assert [line for line in kept["older"] if line[0] == "differs"] == []
    assert ["adds", str(2 * 3 * 15)] in kept["older"]
    assert len([line for line in kept["older"] if line[0] == "kept"]) == 2 * 2 * 12
    assert "tally__v1" in found["newer"][-1]

    replayed = said(started(where, "newer", "replay"))
    assert [line for line in replayed if line[0] in ("kept", "adds", "differs")] == kept["newer"]
    assert not [name for name in replayed[-1] if "__v" in name]
