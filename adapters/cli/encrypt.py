"""
``eventlog encrypt``: copy a log with contents in plaintext into a sealed one.

Documents of ``--json``: ``encrypted`` (source, target, keys: paths, sessions, events, contents: the number
of sealed contents, source_head, target_head: null in a dry run, dry_run), or ``refused`` as of ``copy``.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from agents_eventlog import projections
from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.copy import head_as_json, print_refusal
from agents_eventlog.adapters.cli.export_import import bar
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.conversations.summary import counted
from agents_eventlog.eventlog import payloads
from agents_eventlog.eventlog.appender import stored_head
from agents_eventlog.eventlog.cipher.key_store import ENVIRONMENT, keys_of
from agents_eventlog.eventlog.cipher.keys import where
from agents_eventlog.eventlog.copying import CopyProgress, check_encryption, encrypt_log
from agents_eventlog.eventlog.errors import CopyError, NoLogError
from agents_eventlog.eventlog.log import EventLog
from agents_eventlog.eventlog.reader import event_counts
from agents_eventlog.eventlog.storage.engines import engine_for
from agents_eventlog.projections.erasure import eraser

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog.cipher.keys import Keys
    from agents_eventlog.eventlog.integrity import Head


class _Encrypted(NamedTuple):
    sessions: int
    events: int
    contents: int
    source: Head
    target: Head | None


def run(source: Path, target: Path, key_file: Path | None, *, dry_run: bool, as_json: bool) -> bool:
    """Copy a log into a sealed one, and build its projections; return False if that was refused."""
    engine = engine_for(target)
    if engine_for(source).resolve(source) == engine.resolve(target):
        terminal.fail(ExitCode.USAGE, f"{target} is the log itself")
    keys = keys_of(key_file)
    if keys is None:
        terminal.fail(ExitCode.USAGE, f"no keys: expected --keys, or a path in {ENVIRONMENT}")
    with terminal.opened(source, read_only=True, keys=keys) as log:
        try:
            if dry_run:
                found = _previewed(log, target, keys)
            else:
                found = _encrypted(log, target, keys, as_json=as_json)
        except CopyError as error:
            print_refusal(error, as_json=as_json)
            return False
        _print(found, log.path, engine.resolve(target), keys, as_json=as_json)
    return True


def _previewed(log: EventLog, target: Path, keys: Keys) -> _Encrypted:
    try:
        with terminal.opened(target, read_only=True, keys=keys) as present:
            asyncio.run(check_encryption(log, present))
    except NoLogError:
        asyncio.run(check_encryption(log, None))
    events, sessions, *_ = log.store.read_sync(event_counts)
    contents = sum(log.store.read_sync(payloads.contents))
    return _Encrypted(sessions, events, contents, log.store.read_sync(stored_head), None)


def _encrypted(log: EventLog, target: Path, keys: Keys, *, as_json: bool) -> _Encrypted:
    with terminal.explain_foreign_file(target):
        copy = EventLog.open_sync(target, keys=keys, seal=False)
    with closing(copy), bar("encrypting", shown=not as_json) as show:

        def on_progress(progress: CopyProgress) -> None:
            if show is not None:
                show(progress.events, progress.total)

        copied = asyncio.run(encrypt_log(log, copy, keys, on_progress=on_progress))
        copy.join(projections.default())
        eraser.finish(copy)
        contents = copy.store.read_sync(payloads.contents).sealed
    return _Encrypted(copied.sessions, copied.events, contents, copied.source, copied.target)


def _print(found: _Encrypted, source: str, target: str, keys: Keys, *, as_json: bool) -> None:
    is_dry_run = found.target is None
    if as_json:
        terminal.print_json(
            {
                "kind": "encrypted",
                "source": source,
                "target": target,
                "keys": where(keys),
                "sessions": found.sessions,
                "events": found.events,
                "contents": found.contents,
                "source_head": head_as_json(found.source),
                "target_head": None if found.target is None else head_as_json(found.target),
                "dry_run": is_dry_run,
            }
        )
        return
    out = terminal.console()
    verb = "would copy" if is_dry_run else "copied"
    held = f"{counted(found.sessions, 'session')}, {counted(found.events, 'event')}"
    line = f"{verb} {held} to {target}, with {counted(found.contents, 'content')} sealed by {where(keys)}"
    out.print(Text(printable(line)), soft_wrap=True)
    out.print(Text(f"source head   {found.source}"), soft_wrap=True)
    if found.target is None:
        return
    out.print(Text(f"target head   {found.target}"), soft_wrap=True)
    note = f"{source} and its backups still hold the plaintext"
    terminal.console(stderr=True).print(Text(printable(note)), soft_wrap=True)
