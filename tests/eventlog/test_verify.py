"""Verification as a call: beside writers, and on a file that cannot be read to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents_eventlog.eventlog import EventLog, ItemsAdded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def added(text: str) -> ItemsAdded:
    return ItemsAdded(items=[{"role": "user", "content": text}])


async def test_an_event_that_is_appended_meanwhile_is_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EventLog.open(tmp_path / "talk.db") as log:
        await log.append("s", added("first"))
        query, answers = log._read, []

        async def slow_query(unit: Any) -> Any:
            """Let a writer in between the end of the events and whatever is asked next."""
            answer = await query(unit)
            answers.append(answer)
            if len(answers) == 2:
                await log.append("s", added("second"))
            return answer

        monkeypatch.setattr(log, "_read", slow_query)
        verified = await log.verify()
        assert len(answers) >= 2
        assert verified.findings == ()


async def test_what_stands_before_a_damaged_page_is_still_verified(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    async with EventLog.open(path, durability="normal") as log:
        await log.append("s", [added("x" * 3_000)] * 2_400)  # pages are of 1,000 events at most
    content = bytearray(path.read_bytes())
    page = len(content) * 3 // 4 // 4096 * 4096
    content[page : page + 3 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(bytes(content))
    async with EventLog.open(path, read_only=True) as log:
        found = [await log.verify(), await log.verify_session("s")]
    for verified in found:
        assert 0 < verified.events < 2_400
        (finding,) = verified.findings
        assert finding.position == verified.events + 1
        assert "cannot be read from here on" in finding.problem
