"""What a notebook shows of a session and a log: a table that is escaped and needs no read."""

from __future__ import annotations

from contextlib import closing
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog.storage.store import BaseStore
from tests.adapters.any_log import where
from tests.contract.items import turns

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["where"]

HOSTILE = "<img src=x onerror='alert(1)'>\u202e&"
TAGS = {"table", "caption", "tr", "th", "td", "code"}


class Shown(HTMLParser):
    """The tags of a text, which have no attributes, and the words between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert attrs == []
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


async def test_a_session_shows_its_id_branch_user_and_log(where: Path | str) -> None:
    with closing(AdvancedSQLiteSession("talk", where, user_id="ann")) as session:
        await session.add_items(turns("a", "b"))
        await session.create_branch_from_turn(2, "draft")
        shown = Shown(session._repr_html_())
        assert shown.tags == TAGS
        assert shown.words == [
            *("AdvancedSQLiteSession", "session", "talk", "branch", "draft"),
            *("user", "ann", "log", session.log.path),
            *("read", "await session.get_conversation_turns()"),
        ]


async def test_a_log_shows_its_path_and_state(where: Path | str) -> None:
    async with ConversationLog.open(where) as log:
        assert Shown(log._repr_html_()).words == [
            *("ConversationLog", "log", log.path, "state", "open"),
            *("read", "await log.sessions()"),
        ]
    assert "closed" in log._repr_html_()
    async with ConversationLog.open(where, read_only=True) as log:
        assert "read-only" in log._repr_html_()


async def test_no_text_of_a_session_becomes_markup(tmp_path: Path) -> None:
    folder = tmp_path / "<b>&"
    folder.mkdir()
    with closing(AdvancedSQLiteSession(HOSTILE, folder / "log.db", user_id=HOSTILE)) as session:
        shown = Shown(session._repr_html_())
        assert shown.tags == TAGS
        assert "\u202e" not in session._repr_html_()
        assert Shown(session.log._repr_html_()).tags == TAGS


async def test_a_view_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(AdvancedSQLiteSession("talk", tmp_path / "talk.db")) as session:
        for name in ("read_sync", "write_sync", "submit_read", "submit_write"):
            monkeypatch.delattr(BaseStore, name)
        assert "talk" in session._repr_html_()
        assert "talk.db" in session.log._repr_html_()
