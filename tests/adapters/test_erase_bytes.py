"""
After an erase no byte of what was erased is in the file, or in any file beside it.

Every text holds a marker of its own, over and over; after each erase all bytes are searched for the markers
of payloads that are gone. SQLite's own zeroing of what is deleted, which some builds do by default, is
off, so that the promise hangs on nothing else.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog, projections
from agents_eventlog.eventlog import ItemsAdded, MetadataSet
from agents_eventlog.eventlog.errors import ConversationError
from agents_eventlog.eventlog.storage.sqlite import connections
from tests.faults.support import check_sound

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

MARKER = re.compile(rb"<m\d{6}>")


@pytest.fixture(autouse=True)
def _nothing_zeroed(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = connections.connect_for_writing

    def connect_without(path: str, durability: str) -> sqlite3.Connection:
        connection = connect(path, durability)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    monkeypatch.setattr(connections, "connect_for_writing", connect_without)


class Talk:
    """Sessions of one file that say marked texts, at random."""

    def __init__(self, path: Path, chance: random.Random, *, longest: int) -> None:
        self.path = path
        self.chance = chance
        self.longest = longest
        self.markers = (f"<m{number:06d}>" for number in range(1, 1_000_000))

    def text(self) -> str:
        """Return a text of random length, 10 characters to the longest, short ones more often."""
        length = int(10 ** self.chance.uniform(1, self.longest))
        return next(self.markers) * (length // 9 + 1)

    def item(self) -> Any:
        return {"role": self.chance.choice(["user", "assistant"]), "content": self.text()}

    async def go_on(self, log: ConversationLog, steps: int) -> None:
        """Let sessions add, pop, branch, delete branches, and be labelled."""
        for _ in range(steps):
            session_id = f"s{self.chance.randrange(12)}"
            session: Any = AdvancedSQLiteSession(session_id, self.path, resume=True)
            with suppress(ConversationError):
                await self.act(session, log)

    async def act(self, session: Any, log: ConversationLog) -> None:
        match self.chance.randrange(10):
            case 0 | 1:
                await session.pop_item()
            case 2:
                await session.create_branch()
            case 3:
                left = session.current_branch
                await session.switch_to_branch("main")
                await session.delete_branch(left)
            case 4:
                said = {"note": self.text()}
                await log.append(session.session_id, MetadataSet(metadata=said))
            case _:
                await session.add_items([self.item() for _ in range(self.chance.randrange(1, 4))])

    async def erase(self, log: ConversationLog) -> None:
        """Erase something, of any kind."""
        rows = await log.query(
            lambda tx: tx.all("SELECT session_id FROM sessions WHERE deleted_at IS NULL")
        )
        if not rows:
            return
        chosen = self.chance.choice(rows)[0]
        match self.chance.randrange(3):
            case 0:
                found = await log.erase(session_id=chosen)
            case 1:
                await AdvancedSQLiteSession(chosen, self.path).delete_session()
                found = await log.erase(deleted=True)
            case _:
                found = await log.erase(popped=True)
        assert found.is_complete


def markers(texts: Iterator[bytes]) -> set[bytes]:
    return {marker for text in texts for marker in MARKER.findall(text)}


async def left(log: ConversationLog) -> set[bytes]:
    """Return the markers of the payloads that were not erased."""
    rows = await log.query(lambda tx: tx.all("SELECT CAST(data AS BLOB) FROM events"))
    return markers(data for (data,) in rows if data is not None)


@pytest.mark.parametrize("longest", [2, 5], ids=["many small", "up to 100 KB"])
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.proof)])
async def test_no_byte_of_what_was_erased_is_left(
    tmp_path: Path, chance: random.Random, longest: int, rounds: int
) -> None:
    path = tmp_path / "log.db"
    talk = Talk(path, chance, longest=longest)
    ever: set[bytes] = set()
    async with ConversationLog.open(path, durability="normal") as log:
        for _ in range(rounds):
            await talk.go_on(log, 60)
            ever |= await left(log)
            if chance.random() < 0.5:
                everything = projections.default().named([])
                await asyncio.to_thread(projections.replay, log, everything)
            await talk.erase(log)
            in_files = markers(file.read_bytes() for file in tmp_path.iterdir())
            assert in_files <= await left(log)
        assert ever - await left(log)  # something was erased
    check_sound(path)


async def test_the_search_finds_what_an_unfinished_erase_leaves(
    tmp_path: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents_eventlog.eventlog.storage.sqlite.store import Store

    path = tmp_path / "log.db"
    monkeypatch.setattr(Store, "rewrite", lambda _: True)
    async with ConversationLog.open(path, durability="normal") as log:
        await Talk(path, chance, longest=3).go_on(log, 60)
        for (session_id,) in await log.query(lambda tx: tx.all("SELECT session_id FROM sessions")):
            await log.erase(session_id=session_id)
        assert await left(log) == set()
        assert markers(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("is_kept", [True, False], ids=["up to date", "left behind"])
async def test_the_full_text_index_holds_nothing_of_it_either(
    tmp_path: Path, is_kept: bool
) -> None:
    path = tmp_path / "log.db"
    said = [ItemsAdded(items=[{"role": "user", "content": text}]) for text in ("xyzzy", "plugh")]
    with_index, without = projections.default(search=True), projections.default()
    async with ConversationLog.open(path, projections=with_index) as log:
        await log.append("s", said[0], branch_id="main")
        await log.append("t", said[1], branch_id="main")
    assert b"xyzzy" in path.read_bytes()
    async with ConversationLog.open(path, projections=with_index if is_kept else without) as log:
        await log.erase(session_id="s")
    for file in tmp_path.iterdir():
        assert not re.search(rb"xyz|yzz|zzy", file.read_bytes())
    async with ConversationLog.open(path, projections=projections.default(search=True)) as log:
        assert not await log.find_items("xyzzy")
        assert len(await log.find_items("plugh")) == 1


def test_a_replay_that_was_killed_leaves_nothing_either(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    asyncio.run(AdvancedSQLiteSession("s", path).add_items([{"role": "user", "content": "x"}]))
    leftover = tmp_path / "log.db-replay-abc-999999999"
    leftover.write_bytes(b"<m000001>")
    with closing(ConversationLog.open_sync(path, projections=projections.default())) as log:
        asyncio.run(log.erase(session_id="s"))
    assert not leftover.exists()
