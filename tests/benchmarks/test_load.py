"""A service under load holds no more than at its beginning; and the judge would notice if it did."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from benchmarks import leaks
from benchmarks.service import Plan, Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

SHORT = Plan(sessions=9, intervals=8, requests=90, guest_requests=0)
"""So many requests, however long they take: half of them count. The long run has guests, too."""


def grown(path: Path, open_session: Callable[..., Any] = AdvancedSQLiteSession) -> set[str]:
    """Run the short plan and return what grew; the file must be what was written."""
    service = Service(path, SHORT, open_session)
    samples = [interval.sample for interval in service.run()]
    assert samples[-1].requests == SHORT.intervals * (SHORT.requests or 0)
    assert service.problems() == []
    return {growth.name for growth in leaks.judge(samples) if growth.is_leak}


def test_what_a_service_holds_stays_as_it_is_however_many_requests_it_serves(
    tmp_path: Path,
) -> None:
    assert grown(tmp_path / "talk.db") == set()


def test_sessions_that_are_kept_would_be_noticed(tmp_path: Path) -> None:
    kept = []

    def keep(*args: Any, **keywords: Any) -> AdvancedSQLiteSession:
        kept.append(AdvancedSQLiteSession(*args, **keywords))
        return kept[-1]

    assert "objects" in grown(tmp_path / "talk.db", keep)


def test_files_and_threads_that_are_kept_would_be_noticed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = threading.Event()
    kept = []

    def held(requests: int) -> leaks.Sample:
        kept.append((file.open(encoding="utf-8"), threading.Thread(target=done.wait)))
        kept[-1][1].start()
        return leaks.sample(requests, tmp_path / "talk.db")

    growths = leaks.judge([held(requests) for requests in range(0, 100, 10)])
    done.set()
    for opened, thread in kept:
        opened.close()
        thread.join()
    assert {growth.name for growth in growths if growth.is_leak} >= {"files", "threads"}


def test_a_request_that_fails_ends_the_service_with_its_error(tmp_path: Path) -> None:
    def refuse(*_args: Any, **_keywords: Any) -> Any:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(Service(tmp_path / "talk.db", SHORT, refuse).run())
