"""What a notebook such as Jupyter shows of an object: a small table, made without a read."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from agents_eventlog.adapters.conversations.printable import printable


def html_table(title: str, rows: Mapping[str, str | None], hint: str) -> str:
    """
    Return an HTML table of names and values, all escaped.

    rows: a value of None is left out.
    hint: a line of code that reads more.
    """
    cells = "".join(
        f"<tr><th>{_escaped(name)}</th><td>{_escaped(value)}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return (
        f"<table><caption>{_escaped(title)}</caption>{cells}"
        f"<tr><th>read</th><td><code>{_escaped(hint)}</code></td></tr></table>"
    )


def _escaped(text: str) -> str:
    return escape(printable(text))
