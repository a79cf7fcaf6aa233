"""``eventlog encrypt``: a log in plaintext becomes a sealed one, and ``copy`` keeps either as it is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import (
    AdvancedSQLiteSession,
    EventLog,
    KeyFile,
    RootKey,
    generate_root_key,
)
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import payloads
from tests.adapters.looking import documents, one, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Server

COMMANDS = (("sessions",), ("usage", "--by", "session"), ("export",))


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set a root key, and no key file."""
    text = generate_root_key()
    monkeypatch.setenv("EVENTLOG_KEY", text)
    monkeypatch.delenv("EVENTLOG_KEYS", raising=False)
    return text


def talk(path: Path, keys: KeyFile) -> None:
    async def add() -> None:
        session = AdvancedSQLiteSession("s", path, keys=keys)
        await session.add_items([{"role": "user", "content": "Hello"}])
        session.close()

    asyncio.run(add())


def printed(path: object) -> list[Any]:
    """Return what the commands print of a log, except idempotency keys."""
    found = []
    for name, *rest in COMMANDS:
        result = run(name, path, *rest, *(() if name == "export" else ("--json",)))
        assert result.exit_code == ExitCode.CLEAN, result.output
        for document in documents(result):
            document.pop("idempotency_key", None)
            found.append(document)
    return found


def test_a_sealed_copy_prints_what_its_source_prints(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, content = printed(full), full.read_bytes()
    keys, sealed = tmp_path / "keys.db", tmp_path / "sealed.db"
    document = one(run("encrypt", full, sealed, "--keys", keys, "--json"), "encrypted")
    file = one(run("doctor", full, "--json"), "file")
    assert document["source_head"] == file["head"]
    assert (document["events"], document["sessions"]) == (file["events"], file["sessions"])
    assert document["contents"] > 0
    assert (document["keys"], document["dry_run"]) == (str(keys), False)
    with closing(sqlite3.connect(sealed)) as connection:
        held = connection.execute(
            "SELECT COUNT(*), COUNT(data) FROM events WHERE type IN ('items_added', 'metadata_set')"
        ).fetchone()
    assert held[1] == 0 < held[0]
    assert full.read_bytes() == content
    monkeypatch.setenv("EVENTLOG_KEYS", str(keys))
    assert run("verify", sealed).exit_code == ExitCode.CLEAN
    assert run("replay", sealed, "--check").exit_code == ExitCode.CLEAN
    assert printed(sealed) == before


def test_a_dry_run_writes_nothing_and_counts_what_would_be_sealed(
    full: Path, tmp_path: Path
) -> None:
    keys, sealed = tmp_path / "keys.db", tmp_path / "sealed.db"
    words = ("encrypt", full, sealed, "--keys", keys)
    result = run(*words, "--dry-run")
    assert result.exit_code == ExitCode.CLEAN
    assert "would copy" in result.stdout
    previewed = one(run(*words, "--dry-run", "--json"), "encrypted")
    assert not keys.exists()
    assert not sealed.exists()
    done = one(run(*words, "--json"), "encrypted")
    assert previewed == {**done, "dry_run": True, "target_head": None}
    assert one(run(*words, "--dry-run", "--json"), "encrypted") == previewed


def test_a_sealed_log_on_a_server_is_made_and_copied_without_keys(
    full: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, url, back = tmp_path / "keys.db", server.url(), tmp_path / "back.db"
    monkeypatch.setenv("EVENTLOG_KEYS", str(keys))
    result = run("encrypt", full, url)
    assert result.exit_code == ExitCode.CLEAN
    assert f"{full} and its backups still hold the plaintext" in result.stderr
    monkeypatch.delenv("EVENTLOG_KEYS")
    assert run("copy", url, back).exit_code == ExitCode.CLEAN
    assert run("verify", back).exit_code == ExitCode.CLEAN
    monkeypatch.setenv("EVENTLOG_KEYS", str(keys))
    assert printed(back) == printed(url)


def test_copy_leaves_a_log_in_plaintext_though_there_are_keys(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLOG_KEYS", str(tmp_path / "keys.db"))
    copy = tmp_path / "copy.db"
    assert run("copy", full, copy).exit_code == ExitCode.CLEAN
    assert not (tmp_path / "keys.db").exists()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT COUNT(data) > 0 FROM events").fetchone() == (1,)


def test_a_sealed_copy_has_no_full_text_index(full: Path, tmp_path: Path) -> None:
    assert run("search", full, "refund", "--index").exit_code == ExitCode.CLEAN
    sealed = tmp_path / "sealed.db"
    assert run("encrypt", full, sealed, "--keys", tmp_path / "keys.db").exit_code == ExitCode.CLEAN
    tables = [row["table"] for row in documents(run("doctor", sealed, "--json"), "table")]
    assert "item_texts" not in tables


def test_what_cannot_be_sealed_is_refused_and_left_as_it_is(
    full: Path, tmp_path: Path, root: str
) -> None:
    keys, plain, sealed = tmp_path / "keys.db", tmp_path / "plain.db", tmp_path / "sealed.db"
    assert run("encrypt", full, sealed).exit_code == ExitCode.USAGE
    assert "expected --keys" in run("encrypt", full, sealed).stderr
    assert run("encrypt", full, full, "--keys", keys).exit_code == ExitCode.USAGE
    assert run("encrypt", tmp_path / "none.db", sealed, "--keys", keys).exit_code == (
        ExitCode.CANNOT_OPEN
    )
    assert not sealed.exists()
    assert run("copy", full, plain).exit_code == ExitCode.CLEAN
    for more in ((), ("--dry-run",)):
        result = run("encrypt", full, plain, "--keys", keys, *more, "--json")
        assert result.exit_code == ExitCode.FINDINGS
        assert "in plaintext" in one(result, "refused")["problem"]
    talk(sealed, KeyFile(keys, RootKey(root)))
    result = run("encrypt", sealed, tmp_path / "again.db", "--keys", keys, "--dry-run")
    assert result.exit_code == ExitCode.FINDINGS
    assert "copy it with `eventlog copy`" in result.stderr


# -- exports --------------------------------------------------------------------------------------


def test_a_sealed_export_moves_without_keys(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, lines = tmp_path / "sealed.db", tmp_path / "lines.jsonl"
    keys = KeyFile(tmp_path / "keys.db", RootKey(root))
    talk(sealed, keys)
    exported = one(run("export", sealed, "--sealed", "-o", lines, "--json"), "exported")
    assert (exported["sessions"], exported["events"]) == (1, 1)
    assert "Hello" not in lines.read_text()
    assert run("export", sealed, "--sealed").stdout == lines.read_text()
    result = run("export", sealed, "--sealed", "--format", "html")
    assert result.exit_code == ExitCode.USAGE
    assert run("export", sealed).exit_code == ExitCode.CANNOT_OPEN
    for name, keys_path in (("without.db", None), ("with.db", keys.path)):
        if keys_path is not None:
            monkeypatch.setenv("EVENTLOG_KEYS", keys_path)
        new = tmp_path / name
        assert run("import", new, lines, "--dry-run").exit_code == ExitCode.CLEAN
        assert not new.exists()
        assert run("import", new, lines).exit_code == ExitCode.CLEAN
        assert run("export", new, "--sealed").stdout == lines.read_text()
    for name in ("without.db", "with.db"):
        assert "Hello" in run("show", tmp_path / name, "s").stdout


def test_an_import_seals_a_new_log_and_none_that_exists(
    full: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, keys = tmp_path / "lines.jsonl", tmp_path / "keys.db"
    there = {"plain": tmp_path / "plain.db", "server": server.url()}
    for path in there.values():
        assert run("init", path).exit_code == ExitCode.CLEAN
    assert run("export", full, "-o", lines).exit_code == ExitCode.CLEAN
    monkeypatch.setenv("EVENTLOG_KEYS", str(keys))
    for path in (*there.values(), tmp_path / "new.db"):
        run("import", path, lines)
        log = EventLog.open_sync(path, read_only=True)
        counted = log.store.read_sync(payloads.contents)
        log.close()
        assert (counted.in_plaintext > 0, counted.sealed > 0) == (
            (False, True) if path == tmp_path / "new.db" else (True, False)
        )
