"""Documents for programs: each on one line, in ASCII, as the command line and the page give them."""

from __future__ import annotations

import json
from typing import Any

from agents_eventlog.eventlog.events import JSON


def line(document: dict[str, JSON]) -> str:
    """Return a document on one line, with its line break."""
    text = json.dumps(document, default=_as_json).replace("\x7f", "\\u007f")
    return f"{text}\n"


def _as_json(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
