"""Show the parameters of a docstring as a list: its lines that begin with names and a colon."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARAMETERS = re.compile(r"(\w+(?:, \w+)*): (?=\S)")


class Parameters(griffe.Extension):
    """Rewrites each docstring as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring with a list of its parameters."""
    lines: list[str] = []
    in_list = False
    for line in text.splitlines():
        if found := PARAMETERS.match(line):
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            lines += [] if in_list else [""]
            lines.append(f"- {names}: {line[found.end() :]}")
            in_list = True
        else:
            if in_list and line[:1].strip():  # a sentence after the list
                lines.append("")
                in_list = False
            lines.append(line)
    return "\n".join(lines)
