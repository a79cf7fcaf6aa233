"""
``eventlog keys``: the key file of sealed logs.

Documents of ``--json``, one per line: of ``init`` ``keys`` (path, root_id: null without a root key,
root_key: the new one, or null if EVENTLOG_KEY has it or --no-root was passed); of ``list`` ``epoch``
(epoch, root_id, created_at, keys), ``log`` (log_id, sealed_from, unused, used, destroyed) and, for a log,
``session`` (session_id, key_id, contents, state: "present", "destroyed" or "missing", destroyed_at); of
``rotate`` ``rotated`` (path, root_id, root_key: null without --new-root, keys, dry_run), printed before
the keys are wrapped anew; of ``check`` ``finding`` (session_id, position, problem) and ``keys_checked``
(opened, shredded, plaintext, findings, ok).
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations import key_checks, summary, timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.cipher import root
from agents_eventlog.eventlog.cipher.key_store import KeyDatabase, KeyStore, key_store
from agents_eventlog.eventlog.cipher.root import RootKey, generate_root_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agents_eventlog.adapters.conversations.log import ConversationLog
    from agents_eventlog.eventlog.cipher.keys import UsedKeys


def init(path: Path, *, has_root: bool, as_json: bool) -> None:
    """Create a key file, and print a new root key for it once. Raises an EventLogError."""
    if key_store(path, None).exists():
        terminal.fail(terminal.ExitCode.USAGE, f"{path} exists: expected a new file or schema")
    key, text = None, None
    if has_root:
        key = root.from_environment()
        if key is None:
            text = generate_root_key()
            key = RootKey(text)
    keys = key_store(path, key)
    keys.create()
    keys.close()
    if as_json:
        root_id = None if key is None else key.id
        terminal.print_json(
            {"kind": "keys", "path": keys.path, "root_id": root_id, "root_key": text}
        )
        return
    out = terminal.console()
    if text is not None:
        out.print(f"{root.ENVIRONMENT}={text}", soft_wrap=True)
    notes = terminal.console(stderr=True)
    notes.print(printable(f"created {keys.path}"), soft_wrap=True)
    if text is not None:
        notes.print(
            "keep the root key apart from the file: it is not printed again", soft_wrap=True
        )
    elif key is None:
        what = "schema" if isinstance(keys, KeyDatabase) else "file"
        notes.print(f"without a root key, the {what} itself is the secret", soft_wrap=True)


def list_keys(path: Path, db: Path | None, *, as_json: bool) -> None:
    """Print what a key file has, and which keys the sessions of a log use. Raises an EventLogError."""
    keys = key_store(path, None)
    epochs, logs = keys.epochs(), keys.logs()
    sessions = [] if db is None else _of_sessions(keys, db)
    keys.close()
    if as_json:
        for epoch in epochs:
            created_at = timestamps.iso(epoch.created_at)
            terminal.print_json({"kind": "epoch", **epoch._asdict(), "created_at": created_at})
        for counts in logs:
            terminal.print_json({"kind": "log", **counts._asdict(), "log_id": counts.log_id.hex()})
        for session in sessions:
            terminal.print_json({"kind": "session", **session})
        return
    out = terminal.console()
    table = _table("epoch", "root key", "created", "keys")
    for epoch in epochs:
        at = timestamps.iso(epoch.created_at)
        table.add_row(str(epoch.epoch), epoch.root_id or "none", at, f"{epoch.keys:,}")
    out.print(table)
    table = _table("log", "sealed from", "unused", "used", "destroyed")
    for counts in logs:
        numbers = (f"{number:,}" for number in counts[1:])
        table.add_row(counts.log_id.hex()[:16], *numbers)
    out.print(table)
    if db is not None:
        table = _table("session", "key", "contents", "state")
        for session in sessions:
            state = session["state"] + (f" {at}" if (at := session["destroyed_at"]) else "")
            name = printable(session["session_id"])
            table.add_row(Text(name), session["key_id"][:16], f"{session['contents']:,}", state)
        out.print(table)


def _of_sessions(keys: KeyStore, db: Path) -> list[dict[str, Any]]:
    with terminal.opened(db, read_only=True) as log:
        used = log.store.read_sync(payloads.used_keys)
    states = keys.destroyed_at([each.key_id for each in used])
    return [_session(each, states) for each in used]


def _session(used: UsedKeys, states: Mapping[bytes, int | None]) -> dict[str, Any]:
    at = states.get(used.key_id)
    state = "missing" if used.key_id not in states else "present" if at is None else "destroyed"
    return {
        "session_id": used.session_id,
        "key_id": used.key_id.hex(),
        "contents": used.contents,
        "state": state,
        "destroyed_at": None if at is None else timestamps.iso(at),
    }


def rotate(path: Path, *, new_root: bool, yes: bool, as_json: bool) -> None:
    """Wrap all keys anew; a new root key is printed before that. Raises an EventLogError."""
    keys = key_store(path, root.from_environment())
    count = sum(epoch.keys for epoch in keys.epochs())
    text = generate_root_key() if new_root and yes else None
    new = None if text is None else RootKey(text)
    out, notes = terminal.console(), terminal.console(stderr=True)
    if as_json:
        root_id = keys.epochs()[-1].root_id if new is None else new.id
        facts = {"path": keys.path, "root_id": root_id, "root_key": text, "keys": count}
        terminal.print_json({"kind": "rotated", **facts, "dry_run": not yes})
    elif text is not None:
        out.print(f"{root.ENVIRONMENT}={text}", soft_wrap=True)
    sys.stdout.flush()  # the new key must be printed before it wraps anything
    if yes:
        keys.rotate(new)
    keys.close()
    if as_json:
        return
    verb = "wrapped" if yes else "would wrap"
    notes.print(
        printable(f"{verb} {summary.counted(count, 'key')} anew in {keys.path}"), soft_wrap=True
    )
    if not yes:
        notes.print("nothing was changed: pass --yes to rotate", soft_wrap=True)
    elif text is not None:
        notes.print(
            "older copies of the file open with the old root key only: destroy it to end them",
            soft_wrap=True,
        )


def check(path: Path, *, as_json: bool) -> bool:
    """Open all contents of a log; return whether there are no findings. Raises an EventLogError."""
    with terminal.conversations(path, read_only=True) as log:
        return asyncio.run(_check(log, as_json=as_json))


async def _check(log: ConversationLog, *, as_json: bool) -> bool:
    counts = key_checks.KeyCheck()
    out = terminal.console()
    async for finding in key_checks.open_all(log, counts):
        if as_json:
            terminal.print_json(finding.document())
        else:
            line = f"session {finding.session_id!r}: {finding.problem}"
            out.print(Text(printable(line), style="bold red"), soft_wrap=True)
    if as_json:
        terminal.print_json(counts.document())
        return not counts.findings
    found = [f"{summary.counted(counts.opened, 'content')} opened"]
    found += [f"{counts.shredded:,} shredded"] * bool(counts.shredded)
    found += [f"{counts.plaintext:,} in plaintext"] * bool(counts.plaintext)
    found += [summary.counted(counts.findings, "problem") + " found"] * bool(counts.findings)
    out.print(Text(", ".join(found)), soft_wrap=True)
    return not counts.findings


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left", overflow="fold")
    return table
