"""Checks of the keys of a sealed log: what the log and its keys say of each other."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agents_eventlog.adapters.conversations import sdk_tables, summary, timestamps
from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.cipher import shredding
from agents_eventlog.eventlog.cipher.access import cipher_of
from agents_eventlog.eventlog.cipher.envelope import SEALED_TYPES, key_id
from agents_eventlog.eventlog.cipher.key_store import KeyStore
from agents_eventlog.eventlog.cipher.keys import Destroyed
from agents_eventlog.eventlog.errors import (
    KeysError,
    KeysMissingError,
    ShreddedError,
    UndecodableEventError,
)
from agents_eventlog.eventlog.storage.engine import Problem

if TYPE_CHECKING:
    from agents_eventlog.eventlog import EventLog, RecordedEvent
    from agents_eventlog.eventlog.cipher.cipher import Cipher
    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.storage.transaction import Transaction

FEW_KEYS = 100
"""With fewer unused keys, a copy of the key file is soon too old for the sessions that begin after it."""


class KeyFinding(NamedTuple):
    """A content that does not open: its session, the position of its event, and why."""

    session_id: str
    position: int
    problem: str

    def document(self) -> dict[str, JSON]:
        """Return its JSON document."""
        return {"kind": "finding", **self._asdict()}


class KeyCheck:
    """The numbers of contents that opened, that were shredded, and that are in plaintext."""

    def __init__(self) -> None:
        self.opened = self.shredded = self.plaintext = self.findings = 0

    def document(self) -> dict[str, JSON]:
        """Return the JSON document."""
        return {"kind": "keys_checked", **vars(self), "ok": not self.findings}


async def open_all(log: EventLog, check: KeyCheck) -> AsyncIterator[KeyFinding]:
    """
    Open each content of a sealed log, count them, and yield those that do not open.

    Raises KeysMissingError for a log that was opened without keys, or is not sealed.
    """
    cipher: Cipher | None = await log.query(cipher_of)
    if cipher is None:
        raise KeysMissingError(
            "expected a sealed log, and its keys in EVENTLOG_KEYS: there is nothing to open"
        )
    async for recorded in log.read(types=sorted(SEALED_TYPES)):
        problem = _count(check, recorded, cipher)
        if problem is not None:
            check.findings += 1
            yield KeyFinding(recorded.session_id, recorded.position, problem)


def _count(check: KeyCheck, recorded: RecordedEvent, cipher: Cipher) -> str | None:
    """Count a content; return why it does not open, if it should."""
    if recorded.is_erased:
        return None
    try:
        recorded.opened()
    except ShreddedError as error:
        if key_id(recorded.data or b"") in cipher.shredded:
            check.shredded += 1
            return None
        return f"{error}, but the log does not record that"
    except (KeysError, UndecodableEventError) as error:
        return str(error)
    if recorded.is_sealed:
        check.opened += 1
    else:
        check.plaintext += 1
    return None


def of_keys(tx: Transaction, path: str) -> Iterator[Problem]:
    """Check that the keys of a sealed log are there, and those destroyed that are to be."""
    if not tx.engine.is_sealed(tx):
        return
    db = shlex.quote(path)
    if due := sum(map(len, shredding.due(tx).values())):
        yield Problem(
            "keys",
            f"an erasure has yet to destroy {summary.counted(due, 'key')}, with which copies of the log "
            "can be read",
            "set EVENTLOG_KEYS and run the same `eventlog erase` again",
        )
    yield from _of_plaintext(tx, db)
    cipher = cipher_of(tx)
    if cipher is None:
        yield Problem(
            "keys",
            "the log was opened without keys, which are not checked",
            "set EVENTLOG_KEYS",
            True,
        )
        return
    yield from _of_sessions(tx, cipher, db)
    if isinstance(cipher.keys, KeyStore):
        yield from _of_file(cipher.keys, cipher.log_id, path)


def _of_plaintext(tx: Transaction, db: str) -> Iterator[Problem]:
    if plain := payloads.contents(tx).in_plaintext:
        yield Problem(
            "keys",
            f"{summary.counted(plain, 'event')} from before the log was sealed "
            f"{'has its' if plain == 1 else 'have their'} content in plaintext",
            f"to seal them, too: eventlog encrypt {db} NEW.db; then destroy this log and its backups",
            is_note=True,
        )
    if left := sdk_tables.messages(tx):
        yield Problem(
            "keys",
            f"the SDK's tables hold {summary.counted(left, 'message')} in plaintext",
            "drop the SDK's tables, which the log does not need",
            is_note=True,
        )


def _of_sessions(tx: Transaction, cipher: Cipher, db: str) -> Iterator[Problem]:
    """Compare what the log says of each key with what the store has."""
    used = payloads.used_keys(tx)
    found = cipher.keys.find([each.key_id for each in used])
    for each in used:
        key, is_recorded = found.get(each.key_id), each.key_id in cipher.shredded
        name, session = f"session {each.session_id!r}", shlex.quote(each.session_id)
        if key is None and not is_recorded:
            yield Problem(
                name,
                f"the key of {summary.counted(each.contents, 'content')} is not in {cipher.where}",
                "restore a newer copy of the key file",
            )
        elif isinstance(key, Destroyed) and not is_recorded:
            yield Problem(
                name,
                f"its key was destroyed at {timestamps.iso(key.destroyed_at)}, though the log records no "
                "erasure",
                "restore a copy of the key file from before; or record it: "
                f"eventlog erase {db} --session {session}",
            )
    if revived := len(shredding.revived(tx, cipher.keys)):
        yield Problem(
            "keys",
            f"{summary.counted(revived, 'destroyed key')} in {cipher.where} again, which is an older copy: "
            "copies of the log can be read with it",
            f"any erasure destroys them again: eventlog erase {db} --deleted --yes",
        )


def _of_file(keys: KeyStore, log_id: bytes, path: str) -> Iterator[Problem]:
    if any(epoch.root_id is None for epoch in keys.epochs()):
        yield Problem(
            "keys",
            f"{keys.path} has no root key: who has a copy of it can read the log",
            f"eventlog keys rotate {shlex.quote(keys.path)} --new-root",
            is_note=True,
        )
    if Path(keys.path).parent == Path(path).resolve().parent:
        yield Problem(
            "keys",
            f"{keys.path} is in the folder of the log, so one backup may hold both",
            "keep the key file in a folder of its own, with backups of its own",
            is_note=True,
        )
    for counts in keys.logs():
        if counts.log_id == log_id and counts.unused < FEW_KEYS:
            yield Problem(
                "keys",
                f"only {summary.counted(counts.unused, 'key')} made ahead: a copy of the key file is good "
                "for as many new sessions",
                "open the log with KeyFile's default for ahead=",
                is_note=True,
            )
