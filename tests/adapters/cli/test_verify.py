"""``eventlog verify``: what was changed is named, by position, and nothing makes it stumble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import EventLog, ItemsAdded
from tests.adapters.looking import change, documents, one, run, tampered, user, write

if TYPE_CHECKING:
    from pathlib import Path

OTHER_DATA = '{"items":[{"role":"user","content":"never said"}]}'


def last_position(path: Path) -> int:
    return int(one(run("verify", path, "--json", "--head"), "verified")["head"]["position"])


def first_bad(path: Path, *options: str) -> int | None:
    """Return the first bad position, told alike to programs and to people."""
    result = run("verify", path, "--json", *options)
    verified = one(result, "verified")
    position: int | None = verified["first_bad_position"]
    text = run("verify", path, *options)
    assert result.exit_code == text.exit_code == (0 if verified["ok"] else 1)
    if position is None:
        assert "as recorded" in text.stdout
    else:
        assert f"the first bad event is {position}" in text.stdout
    return position


def test_a_sound_log_is_clean_table_by_table_and_tells_its_head(db: Path) -> None:
    result = run("verify", db)
    assert (result.exit_code, result.stderr) == (ExitCode.CLEAN, "")
    for table in ("sessions", "branches", "segments", "items", "usage"):
        line = next(line for line in result.stdout.splitlines() if line.startswith(table))
        assert line.endswith("same")
    assert run("verify", db, "--head").stdout.strip() in result.stdout


def test_a_changed_event_is_named_by_its_position(db: Path) -> None:
    tampered(db, ("UPDATE events SET data = ? WHERE position = 4", (OTHER_DATA,)))
    assert first_bad(db) == 4


def test_a_deleted_event_is_named_where_it_is_missing(db: Path) -> None:
    tampered(db, "DELETE FROM events WHERE position = 4")
    assert first_bad(db) == 5
    assert "events 4 to 4 are missing" in run("verify", db).stdout


def test_a_tail_cut_without_trace_is_found_by_a_head_kept_elsewhere(db: Path) -> None:
    head = run("verify", db, "--head").stdout.strip()
    end = last_position(db)
    change(
        db,
        "DELETE FROM checkpoints",
        *(f"DROP TABLE {name}" for name in ("sessions", "branches", "segments", "items", "usage")),
    )
    tampered(
        db,
        f"DELETE FROM events WHERE position > {end - 2}",
        f"UPDATE sqlite_sequence SET seq = {end - 2} WHERE name = 'events'",
    )
    assert first_bad(db) is None  # the limit of a chain: nothing in the file tells
    assert first_bad(db, "--expect-head", head) == end


def test_an_earlier_head_is_in_a_log_that_went_on(db: Path) -> None:
    head = run("verify", db, "--head").stdout.strip()
    write(db, [("other", "main", ItemsAdded(items=[user("more")]))])
    assert run("verify", db, "--head").stdout.strip() != head
    assert run("verify", db, "--expect-head", head).exit_code == ExitCode.CLEAN


@pytest.mark.parametrize("head", ["", "3:abcd"])
def test_what_is_no_head_exits_with_2(db: Path, head: str) -> None:
    result = run("verify", db, "--expect-head", head)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")


def test_the_head_alone_is_one_line_to_be_kept(db: Path) -> None:
    result = run("verify", db, "--head")
    position, _, digest = result.stdout.rstrip("\n").partition(":")
    assert (int(position), len(bytes.fromhex(digest))) == (last_position(db), 32)


def test_no_head_is_printed_to_be_kept_of_a_log_that_is_not_as_recorded(db: Path) -> None:
    tampered(db, ("UPDATE events SET data = ? WHERE position = 4", (OTHER_DATA,)))
    head = one(run("verify", db, "--head", "--json"), "verified")["head"]
    result = run("verify", db, "--head")
    assert result.exit_code == ExitCode.FINDINGS
    assert head["digest"] not in result.stdout
    assert "event 4" in result.stdout


@pytest.mark.parametrize(
    "column", ["session_id", "type", "branch_id", "data", "metadata", "idempotency_key"]
)
def test_text_that_is_not_utf_8_is_a_finding(db: Path, column: str) -> None:
    tampered(db, f"UPDATE events SET {column} = CAST(x'ff00fe' AS TEXT) WHERE position = 4")
    assert first_bad(db) == 4
    assert run("verify", db).stderr == ""


def test_a_damaged_page_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "big.db"
    write(path, [("s", "main", ItemsAdded(items=[user("x" * 3_000)]))] * 200)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 3 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(bytes(content))
    result = run("verify", path)
    assert result.exit_code == ExitCode.FINDINGS
    assert "cannot be read from here on" in result.stdout
    assert result.stderr == ""


def test_rows_of_a_table_that_were_changed_are_named(db: Path) -> None:
    change(db, "UPDATE sessions SET turn_count = 7", "DELETE FROM usage")
    result = run("verify", db)
    assert result.exit_code == ExitCode.FINDINGS
    assert "sessions support-42: turn_count 7 -> " in result.stdout
    assert "log" in result.stdout.splitlines()[0]
    document = documents(run("verify", db, "--json"), "difference")
    assert [each["table"] for each in document] == ["sessions"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE checkpoints SET position = 3 WHERE projection = 'usage'", "up to event 3, not"),
        ("UPDATE checkpoints SET version = 9 WHERE projection = 'usage'", "version 9"),
        ("DELETE FROM checkpoints WHERE projection = 'usage'", "has tables, but no checkpoint"),
    ],
)
def test_a_projection_that_is_not_up_to_date_is_a_finding(
    db: Path, statement: str, problem: str
) -> None:
    change(db, statement)
    result = run("verify", db, "--json")
    assert result.exit_code == ExitCode.FINDINGS
    finding = one(result, "finding")
    assert (finding["where"], finding["position"]) == ("projection", None)
    assert problem in finding["problem"]
    assert run("verify", db).exit_code == ExitCode.FINDINGS
    assert run("verify", db, "--head").exit_code == ExitCode.CLEAN


def test_a_log_that_never_had_projections_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "bare.db"
    EventLog.open_sync(path).close()
    result = run("verify", path)
    assert result.exit_code == ExitCode.CLEAN
    assert "0 events" in result.stdout


def test_many_findings_are_cut_for_people_and_whole_for_programs(db: Path) -> None:
    write(db, [("s", "main", ItemsAdded(items=[user("x")]))] * 40)
    tampered(db, "UPDATE events SET recorded_at = 1")
    assert "more: --json prints all" in run("verify", db).stdout
    count = last_position(db)
    assert len(documents(run("verify", db, "--json"), "finding")) == count
