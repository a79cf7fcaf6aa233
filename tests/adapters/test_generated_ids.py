"""Generated branch ids as session ids: which open a session, and which do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog import BranchCreated, ItemsAdded
from agents_eventlog.eventlog.errors import InvalidBranchError

if TYPE_CHECKING:
    from pathlib import Path

OPENABLE = "branch_from_turn_2_1732800000_6f1d09b2c44e7a35"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.db"


async def branched(path: Path, branch_id: str, *session_ids: str) -> None:
    created = BranchCreated(
        branch_id=branch_id, from_branch_id="main", last_item=None, generated=True
    )
    hello: Any = {"role": "user", "content": "hello"}
    async with ConversationLog.open(path) as log:
        for session_id in session_ids:
            await log.append(session_id, ItemsAdded(items=[hello]))
            await log.append(session_id, created)


@pytest.mark.parametrize(
    "guessable", ["branch_from_turn_2_1732800000", "branch_from_turn_2_1732800000_2"]
)
async def test_a_recorded_id_without_a_random_part_opens_nothing(
    path: Path, guessable: str
) -> None:
    await branched(path, guessable, "secret")
    stranger = AdvancedSQLiteSession(guessable, path)
    assert (stranger.session_id, stranger.current_branch) == (guessable, "main")
    owner = AdvancedSQLiteSession("secret", path, branch_id=guessable)
    assert owner.current_branch == guessable


async def test_an_id_that_several_sessions_have_opens_none_of_them(path: Path) -> None:
    await branched(path, OPENABLE, "bob", "alice")
    with pytest.raises(InvalidBranchError, match="expected one session, got 2"):
        AdvancedSQLiteSession(OPENABLE, path)
    alice = AdvancedSQLiteSession("alice", path, branch_id=OPENABLE)
    await alice.delete_branch(OPENABLE, force=True)
    bob = AdvancedSQLiteSession(OPENABLE, path)
    assert (bob.session_id, bob.current_branch) == ("bob", OPENABLE)
