"""
``eventlog sign``, ``prove`` and ``check``: signed heads, and proofs of a session's events.

Documents of ``--json``. ``keys init-signing``: ``signing_key`` (path, name, public_key). ``sign``:
``signed_head`` (name, size, root, head: position, digest, public_key, note: the signed text). ``prove``:
the proof, one document (``eventlog.proofs.document``), as without ``--json``. ``check``: ``event`` for each
event of the session, as ``eventlog audit`` prints them, and at the end ``checked`` (ok, problem,
session_id, events, name, size, head, earlier: null unless the proof is of consistency). If the proof does
not hold, ``problem`` says why, and the others are null.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from rich.text import Text

from agents_eventlog.adapters.cli import audit, terminal
from agents_eventlog.adapters.cli.terminal import ExitCode
from agents_eventlog.adapters.conversations import audit_trail, event_descriptions, timestamps
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.conversations.summary import counted
from agents_eventlog.eventlog.errors import ProofError
from agents_eventlog.eventlog.proofs import checking, document
from agents_eventlog.eventlog.proofs.checkpoint import SignedHead
from agents_eventlog.eventlog.proofs.document import ConsistencyProof
from agents_eventlog.eventlog.proofs.signing import (
    PublicKey,
    SigningKey,
    generate_signing_key,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agents_eventlog.eventlog.events import JSON
    from agents_eventlog.eventlog.integrity import Head
    from agents_eventlog.eventlog.proofs.checking import Consistency, ProvenSession


def init_signing(path: Path, name: str | None, *, as_json: bool) -> None:
    """Create a file with a signing key, and print its public key. Raises an EventLogError."""
    try:
        text = generate_signing_key(name)
    except ProofError as error:
        terminal.fail(ExitCode.USAGE, error)
    key = SigningKey(text)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        terminal.fail(ExitCode.USAGE, f"{path} exists: expected a new file")
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(f"{text}\n")
    if as_json:
        document = {"path": str(path), "name": key.name, "public_key": key.public_key}
        terminal.print_json({"kind": "signing_key", **document})
        return
    terminal.console().print(printable(key.public_key), soft_wrap=True)
    notes = terminal.console(stderr=True)
    notes.print(printable(f"created {path}: keep it apart from the log"), soft_wrap=True)


def sign(db: Path, key_file: Path, *, earlier: Path | None, as_json: bool) -> None:
    """Print the signed head of a log. Raises an EventLogError."""
    try:
        key = SigningKey(_read(key_file).decode(errors="replace"))
        before = None if earlier is None else _read(earlier)
        if before is not None:
            SignedHead.parse(before, key.public_key)
    except ProofError as error:
        terminal.fail(ExitCode.USAGE, error)
    with terminal.opened(db, read_only=True) as log:
        try:
            note = asyncio.run(log.sign(key, earlier=before))
        except ProofError as error:
            terminal.fail(ExitCode.FINDINGS, error)
    if not as_json:
        sys.stdout.write(note)
        return
    signed = SignedHead.parse(note)
    terminal.print_json(
        {
            "kind": "signed_head",
            "name": signed.name,
            "size": signed.size,
            "root": base64.b64encode(signed.root).decode(),
            "head": _head(signed.head),
            "public_key": key.public_key,
            "note": note,
        }
    )


def prove(
    db: Path,
    *,
    session_id: str | None,
    earlier: Path | None,
    signed: Path | None,
    with_key: bool,
    as_json: bool,
) -> None:
    """Print a proof of a session, or of consistency with an earlier head. Raises an EventLogError."""
    if (session_id is None) == (earlier is None) or (with_key and session_id is None):
        terminal.fail(
            ExitCode.USAGE, "expected either --session, also with --with-key, or --earlier"
        )
    try:
        before = None if earlier is None else _parsed(earlier)
        head = None if signed is None else _parsed(signed)
    except ProofError as error:
        terminal.fail(ExitCode.USAGE, error)
    with terminal.opened(db, read_only=True) as log:
        session_id = terminal.session_of(log, session_id)
        try:
            if before is not None:
                proof = asyncio.run(log.prove_consistency(before, signed=head))
            else:
                proof = asyncio.run(log.prove(str(session_id), signed=head, with_key=with_key))
        except ProofError as error:
            terminal.fail(ExitCode.FINDINGS, error)
    sys.stdout.write(f"{proof}\n")
    if with_key and not as_json:
        notes = terminal.console(stderr=True)
        notes.print(
            "the proof contains the session's keys: they open these contents in every copy of the log",
            soft_wrap=True,
        )


def check(
    proof_file: Path, *, signed: Path, earlier: Path | None, public_key: str, as_json: bool
) -> bool:
    """Check a proof, and print what it proves; return whether it holds."""
    try:
        PublicKey(public_key)
    except ProofError as error:
        terminal.fail(ExitCode.USAGE, error)
    proof, head = _read(proof_file), _read(signed)
    before = None if earlier is None else _read(earlier)
    try:
        is_of_growth = isinstance(document.parse(proof), ConsistencyProof)
        if is_of_growth != (before is not None):
            _refuse_heads(is_of_growth=is_of_growth)
        if before is not None:
            grown = checking.check_consistency(proof, before, head, public_key=public_key)
            _print_growth(grown, as_json=as_json)
        else:
            proven = checking.check_proof(proof, head, public_key=public_key)
            _print_session(proven, as_json=as_json)
    except ProofError as error:
        if as_json:
            terminal.print_json(_checked(None, problem=str(error)))
        else:
            line = Text(f"not proven: {printable(str(error))}", style="bold red")
            terminal.console().print(line, soft_wrap=True)
        return False
    return True


def _refuse_heads(*, is_of_growth: bool) -> NoReturn:
    expected = "expected" if is_of_growth else "does not expect"
    kind = "consistency" if is_of_growth else "a session"
    terminal.fail(ExitCode.USAGE, f"a proof of {kind} {expected} --earlier, with an earlier head")


def _read(path: Path) -> bytes:
    """Return the content of a proof, a signed head or a key."""
    return path.read_bytes()


def _parsed(path: Path) -> bytes:
    """Return the text of a signed head. Raises ProofError."""
    note = _read(path)
    SignedHead.parse(note)
    return note


def _head(head: Head) -> dict[str, JSON]:
    return {"position": head.position, "digest": head.digest.hex()}


def _checked(
    signed: SignedHead | None,
    *,
    proven: ProvenSession | None = None,
    earlier: SignedHead | None = None,
    problem: str | None = None,
) -> dict[str, JSON]:
    return {
        "kind": "checked",
        "ok": problem is None,
        "problem": problem,
        "session_id": None if proven is None else proven.session_id,
        "events": None if proven is None else len(proven.events),
        "name": None if signed is None else signed.name,
        "size": None if signed is None else signed.size,
        "head": None if signed is None else _head(signed.head),
        "earlier": None if earlier is None else _head(earlier.head),
    }


def _print_growth(grown: Consistency, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(_checked(grown.signed, earlier=grown.earlier))
        return
    line = (
        f"proven: the log {grown.signed.name} only grew, from {counted(grown.earlier.size, 'event')} "
        f"to {grown.signed.size:,}"
    )
    terminal.console().print(Text(printable(line), style="green"), soft_wrap=True)


def _print_session(proven: ProvenSession, *, as_json: bool) -> None:
    if as_json:
        for recorded in proven.events:
            terminal.print_json(audit_trail.document(audit_trail.entry(recorded, None)))
        terminal.print_json(_checked(proven.signed, proven=proven))
        return
    out = terminal.console()
    width = len(str(len(proven.events)))
    branches = [printable(recorded.branch_id or "") for recorded in proven.events]
    widest = max(map(len, branches))
    for recorded, branch in zip(proven.events, branches, strict=True):
        row = Text().append(f"{recorded.version:>{width}}  ", style="dim")
        row.append(f"{timestamps.iso(recorded.recorded_at)}  ")
        row.append(f"{branch:<{widest}}  ", style="cyan")
        words = audit.line(event_descriptions.describe_event(recorded, None))
        words.append_text(audit.bound(recorded, with_trace=False))
        out.print(terminal.folded(out, row, words), soft_wrap=True)
    line = (
        f"proven: these are the first {counted(len(proven.events), 'event')} of session "
        f"{proven.session_id} in the log {proven.signed.name} of {counted(proven.signed.size, 'event')}"
    )
    out.print(Text(printable(line), style="green"), soft_wrap=True)
