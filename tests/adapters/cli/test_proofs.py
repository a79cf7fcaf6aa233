"""``eventlog sign``, ``prove`` and ``check``: what they print, and what each kind of bad input gives."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.eventlog import ItemsAdded, KeyFile, SignedHead
from tests.adapters.looking import documents, one, run, support, tampered, user, write

if TYPE_CHECKING:
    from pathlib import Path

ID = "support-42"


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of two sessions, in the current folder, with a key to sign it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    support(tmp_path / "talk.db")
    write(tmp_path / "talk.db", [("other", "main", ItemsAdded(items=[user("a secret")]))])
    return tmp_path / "talk.db"


@pytest.fixture
def public_key(db: Path) -> str:
    return str(run("keys", "init-signing", "sign.key", "--name", "example.com/x").stdout.strip())


def saved(path: Path, name: str, *arguments: object) -> Path:
    """Run a command, and save what it prints beside the log."""
    result = run(*arguments)
    assert result.exit_code == ExitCode.CLEAN, result.stderr
    path.with_name(name).write_text(result.stdout, encoding="utf-8")
    return path.with_name(name)


def checked(proof: Path, head: Path, public_key: str, *more: object) -> Any:
    return run("check", proof, "--signed", head, "--public-key", public_key, *more)


def test_a_key_is_created_for_its_owner_alone_and_its_public_key_printed(db: Path) -> None:
    result = run("keys", "init-signing", "sign.key", "--json")
    document = one(result, "signing_key")
    assert document["name"].startswith("eventlog/")
    assert document["public_key"].startswith(f"{document['name']}+")
    file = db.with_name("sign.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("PRIVATE+KEY+")
    assert file.read_text().strip() not in result.stdout
    again = run("keys", "init-signing", "sign.key")
    assert (again.exit_code, "exists: expected a new file" in again.stderr) == (
        ExitCode.USAGE,
        True,
    )
    assert run("keys", "init-signing", "b.key", "--name", "a b").exit_code == ExitCode.USAGE


def test_a_session_is_signed_proven_and_shown_without_the_log(db: Path, public_key: str) -> None:
    head = saved(db, "head.note", "sign", db, "--key", "sign.key")
    proof = saved(db, "proof.json", "prove", db, "-s", "supp", "--signed", head)
    db.rename(db.with_name("elsewhere.db"))
    result = checked(proof, head, public_key)
    assert result.exit_code == ExitCode.CLEAN
    lines = result.stdout.splitlines()
    assert "main   added 4 items: user: 'hello'" in lines[0]
    assert lines[0].endswith("by alice")
    assert lines[-1] == (
        f"proven: these are the first 10 events of session {ID} in the log example.com/x of 11 events"
    )
    assert "secret" not in proof.read_text() + result.stdout
    shown = checked(proof, head, public_key, "--json")
    assert [event["version"] for event in documents(shown, "event")] == [*range(1, 11)]
    assert one(shown, "checked") == {
        "kind": "checked",
        "ok": True,
        "problem": None,
        "session_id": ID,
        "events": 10,
        "name": "example.com/x",
        "size": 11,
        "head": {
            "position": 11,
            "digest": SignedHead.parse(head.read_bytes()).head.digest.hex(),
        },
        "earlier": None,
    }


def test_the_document_of_a_signed_head_has_its_text_and_the_public_key(
    db: Path, public_key: str
) -> None:
    signed = one(run("sign", db, "--key", "sign.key", "--json"), "signed_head")
    assert SignedHead.parse(signed["note"], public_key).size == signed["size"] == 11
    assert signed["public_key"] == public_key
    assert signed["note"] == run("sign", db, "--key", "sign.key").stdout


def test_a_log_that_only_grew_is_shown_to_have_done_so(db: Path, public_key: str) -> None:
    old = saved(db, "old.note", "sign", db, "--key", "sign.key")
    write(db, [(ID, "main", ItemsAdded(items=[user("later")]))])
    new = saved(db, "new.note", "sign", db, "--key", "sign.key", "--earlier", old)
    proof = saved(db, "growth.json", "prove", db, "--earlier", old, "--signed", new)
    result = checked(proof, new, public_key, "--earlier", old)
    assert result.stdout == "proven: the log example.com/x only grew, from 11 events to 12\n"
    document = one(checked(proof, new, public_key, "--earlier", old, "--json"), "checked")
    assert (document["ok"], document["earlier"]["position"], document["size"]) == (True, 11, 12)
    for wrong in (
        checked(proof, new, public_key),
        checked(saved(db, "p.json", "prove", db, "-s", ID), new, public_key, "--earlier", old),
    ):
        assert wrong.exit_code == ExitCode.USAGE
        assert "--earlier, with an earlier head" in wrong.stderr
    swapped = run("prove", db, "--earlier", new, "--signed", old)
    assert swapped.exit_code == ExitCode.FINDINGS


def test_a_log_that_was_rewritten_is_neither_signed_nor_proven(db: Path, public_key: str) -> None:
    old = saved(db, "old.note", "sign", db, "--key", "sign.key")
    tampered(db, "DELETE FROM events WHERE position = 11")
    for arguments in (
        ["sign", db, "--key", "sign.key", "--earlier", old],
        ["prove", db, "--session", ID, "--signed", old],
        ["prove", db, "--earlier", old],
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (ExitCode.FINDINGS, "")
        assert "does not contain the signed head 11:" in result.stderr


def test_a_proof_that_does_not_hold_says_why_and_exits_with_1(db: Path, public_key: str) -> None:
    head = saved(db, "head.note", "sign", db, "--key", "sign.key")
    proof = saved(db, "proof.json", "prove", db, "--session", ID)
    whole = proof.read_text()
    for broken, why in (
        (whole[:-20], "not whole JSON"),
        (whole.replace("refund", "REFUND"), "does not match its digest"),
        (whole.replace('"leaf":0', '"leaf":9'), "in the proof twice|not under|not whole"),
        ("", "not whole JSON"),
    ):
        proof.write_text(broken)
        result = checked(proof, head, public_key)
        assert result.exit_code == ExitCode.FINDINGS
        assert re.search(why, result.stdout), result.stdout
        assert result.stdout.startswith("not proven: ")
        document = one(checked(proof, head, public_key, "--json"), "checked")
        assert (document["ok"], document["session_id"], document["head"]) == (False, None, None)


def test_other_inputs_are_refused_before_the_log_is_read(db: Path, public_key: str) -> None:
    db.with_name("bad").write_text("bad")
    for arguments, why in (
        (["sign", db, "--key", "bad"], "invalid signing key"),
        (["sign", db, "--key", "sign.key", "--earlier", "bad"], "invalid signed head"),
        (["prove", db], "expected either --session"),
        (["prove", db, "--session", ID, "--earlier", "bad"], "expected either --session"),
        (["prove", db, "--earlier", "bad", "--with-key"], "expected either --session"),
        (["prove", db, "--earlier", "bad"], "invalid signed head"),
        (["prove", db, "--session", ID, "--signed", "bad"], "invalid signed head"),
        (["prove", db, "--session", "nowhere"], "does not exist"),
        (["check", "bad", "--signed", "bad"], "expected both --signed and --public-key"),
        (["check", "bad", "--signed", "bad", "--public-key", "x"], "invalid public key"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (ExitCode.USAGE, ""), arguments
        assert why in result.stderr
    for arguments in (
        ["sign", db, "--key", "missing"],
        ["check", "missing", "--signed", "bad", "--public-key", public_key],
    ):
        result = run(*arguments)
        assert result.exit_code == ExitCode.CANNOT_OPEN
        assert "missing: No such file" in result.stderr


async def test_a_sealed_session_is_read_with_its_keys_alone(
    db: Path, public_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    sealed = db.with_name("sealed.db")
    session = AdvancedSQLiteSession("s", sealed, keys=KeyFile(db.with_name("keys.db"), ahead=2))
    await session.add_items([user("Where is my hat?")])
    session.close()

    def look() -> None:
        head = saved(sealed, "head.note", "sign", sealed, "--key", "sign.key")
        closed = saved(sealed, "closed.json", "prove", sealed, "-s", "s")
        assert "user: (sealed)" in checked(closed, head, public_key).stdout
        event = documents(checked(closed, head, public_key, "--json"), "event")[0]
        assert (event["state"], event["data"]) == ("sealed", None)
        without = run("prove", sealed, "-s", "s", "--with-key")
        assert (without.exit_code, without.stdout) == (ExitCode.CANNOT_OPEN, "")
        monkeypatch.setenv("EVENTLOG_KEYS", str(db.with_name("keys.db")))
        result = run("prove", sealed, "-s", "s", "--with-key")
        assert "open these contents in every copy of the log" in result.stderr
        opened = db.with_name("opened.json")
        opened.write_text(result.stdout)
        assert run("prove", sealed, "-s", "s", "--with-key", "--json").stderr == ""
        monkeypatch.delenv("EVENTLOG_KEYS")
        assert "user: 'Where is my hat?'" in checked(opened, head, public_key).stdout
        assert len(json.loads(opened.read_text())["keys"]) == 1

    await asyncio.to_thread(look)


def test_hostile_names_and_texts_in_a_proof_do_not_control_the_terminal(
    db: Path, public_key: str
) -> None:
    evil = "a\x1b[2J\u202e"
    write(db, [(evil, evil, ItemsAdded(items=[user(evil)]))])
    head = saved(db, "head.note", "sign", db, "--key", "sign.key")
    proof = saved(db, "proof.json", "prove", db, "--session", evil)
    for more in ([], ["--json"]):
        text = checked(proof, head, public_key, *more).stdout
        assert "\x1b" not in text
        assert "\u202e" not in text
