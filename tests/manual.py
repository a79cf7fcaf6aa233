"""The manual: README.md and the pages of docs/, and the code blocks in them."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Page:
    """One page: its name, its text, and its code blocks as (language, code)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        return BLOCK.findall(self.text)

    def code(self, language: str) -> list[str]:
        """Return the blocks in a language."""
        return [code for name, code in self.blocks if name == language]


def page(name: str) -> Page:
    """Return a page of docs/ by its name without the suffix."""
    return Page(ROOT / "docs" / f"{name}.md")


README = Page(ROOT / "README.md")
PAGES = [README, *map(Page, sorted((ROOT / "docs").rglob("*.md")))]
