"""
``eventlog keys``: the key file of sealed logs, and keys that sign heads.

Document of ``--json`` of ``init``: ``keys`` (path, root_id: null without a root key, root_key: the new one,
or null if EVENTLOG_KEY has it or --no-root was passed). Of ``init-signing``: ``signing_key`` (path, name,
public_key).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.cipher import root
from agents_eventlog.eventlog.cipher.key_store import KeyFile
from agents_eventlog.eventlog.cipher.root import RootKey, generate_root_key
from agents_eventlog.eventlog.errors import ProofError
from agents_eventlog.eventlog.proofs.signing import SigningKey, generate_signing_key

if TYPE_CHECKING:
    from pathlib import Path


def init(path: Path, *, has_root: bool, as_json: bool) -> None:
    """Create a key file, and print a new root key for it once. Raises an EventLogError."""
    if path.exists():
        terminal.fail(terminal.ExitCode.USAGE, f"{path} exists: expected a new file")
    key, text = None, None
    if has_root:
        key = root.from_environment()
        if key is None:
            text = generate_root_key()
            key = RootKey(text)
    keys = KeyFile(path, key)
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
        notes.print("without a root key, the file itself is the secret", soft_wrap=True)


def init_signing(path: Path, name: str | None, *, as_json: bool) -> None:
    """Create a file with a signing key, and print its public key. Raises an EventLogError."""
    try:
        text = generate_signing_key(name)
    except ProofError as error:
        terminal.fail(terminal.ExitCode.USAGE, error)
    key = SigningKey(text)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        terminal.fail(terminal.ExitCode.USAGE, f"{path} exists: expected a new file")
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(f"{text}\n")
    if as_json:
        document = {"path": str(path), "name": key.name, "public_key": key.public_key}
        terminal.print_json({"kind": "signing_key", **document})
        return
    terminal.console().print(printable(key.public_key), soft_wrap=True)
    notes = terminal.console(stderr=True)
    notes.print(printable(f"created {path}: keep it apart from the log"), soft_wrap=True)
