"""Plain English wherever people read: docstrings, comments, errors, help and the manual."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    file for part in ("eventlog", "projections", "adapters") for file in (ROOT / part).rglob("*.py")
)
MANUALS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

# What is not to be written, and what is: the glossary's word, or the plain construction.
BANNED = {
    r"\b(tell|tells|told|telling)\b": "show, report, say which; or name the return value",
    r"(?<!there )\b(is|are|was|were|be) no (?!(longer|more|later|earlier|fewer|less|greater)\b)\w+": (
        "negate the verb: is not a ..."
    ),
    r"\b(is|are|was|were) (?-i:none)\b": "is missing, does not exist; negate the verb",
    r"\bas it (is|was)\b|\bas they (are|were)\b(?! (\w+ed|at)\b)": "unchanged",
    r"\bso (many|much)\b": "limit: maximum number of ...; or the number",
    r"\b(stand|stands|stood|standing)\b": "is, is stored, is in",
    r"\b(is|are|was|were) asked\b|\basked of\b": "the caller passes, the query selects",
    r"\b(whoever|whosever|whatever|nobody|somebody)\b": "name the actor",
    r"\b(go|goes|went|going|gone) on\b": "continue, resume",
    r"\bof (which|what)\b": "a sentence of its own",
    r"\bma(k|d)e?s? up\b|\bmade-up\b": "auto-generated",
    r"\b(bring|brings|brought)\b": "move, import, include, upgrade",
    r"\blets? go\b|\blook(s|ed)? after\b|\bg(i|a)ven? back\b|\bgives back\b": "release, maintain, return",
    r"\badopt(s|ed|ing|ion|ions)?\b|\btak(e|es|en) over\b|\btook over\b": "migrate",
    r"\blabel(s|led|ling)?\b": "metadata, user id",
    r"\b(spend|spent|spending|the bill)\b": "usage (tokens), cost (USD)",
    r"\btak(e|es|en|ing) off\b|\btook off\b": "remove, pop",
    r"\bsought\b|\bfind it again\b|\bin either case\b": "search, match, case-insensitive",
    r"\bgo on behind\b|\bbehind (it|this|that)\b": "after",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): better for pattern, better in BANNED.items()}


def texts_of_code(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string and comment that is prose: more than one word."""
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if " " in node.value.strip() and not _is_sql(node.value):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def texts_of_manual(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what is prose: not code blocks, nor code spans."""
    text = re.sub(
        r"^```.*?^```$", _blank, file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    yield from enumerate(text.splitlines(), 1)


def _blank(block: re.Match[str]) -> str:
    return "\n" * block[0].count("\n")


def _is_sql(text: str) -> bool:
    return (
        re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|AND|FROM|JOIN|ALTER)\b", text)
        is not None
    )


def _problems(texts: Iterator[tuple[int, str]]) -> list[str]:
    found = []
    for line, text in texts:
        prose = re.sub(r"``[^`]*``|`[^`\n]*`", "", text)
        for pattern, better in PATTERNS.items():
            for match in pattern.finditer(prose):
                where = line + prose[: match.start()].count("\n")
                found.append(f"line {where}: {match[0]!r}: {better}")
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_reads_as_plain_english(file: Path) -> None:
    assert not _problems(texts_of_code(file))


@pytest.mark.parametrize("file", MANUALS, ids=lambda file: str(file.relative_to(ROOT)))
def test_manuals_read_as_plain_english(file: Path) -> None:
    assert _problems(texts_of_manual(file)) == []


@pytest.mark.parametrize(
    "text",
    ["what is told", "'x' is no time", "at most so many", "it stands in the log", "spend"],
)
def test_the_list_finds_what_it_bans(text: str) -> None:
    assert _problems(iter([(1, text)]))
