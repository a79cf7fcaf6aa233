"""
``eventlog keys``: the key file of sealed logs.

Document of ``--json`` of ``init``: ``keys`` (path, root_id: null without a root key, root_key: the new one,
or null if EVENTLOG_KEY has it or --no-root was passed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.eventlog.cipher import root
from agents_eventlog.eventlog.cipher.key_store import key_store
from agents_eventlog.eventlog.cipher.root import RootKey, generate_root_key

if TYPE_CHECKING:
    from pathlib import Path


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
        notes.print("without a root key, what was created is the secret itself", soft_wrap=True)
