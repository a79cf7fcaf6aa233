"""Templates, and text of users, tools and models as safe HTML."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from agents_eventlog.adapters.conversations import (
    event_descriptions,
    json_lines,
    summary,
    timestamps,
)
from agents_eventlog.adapters.conversations.printable import printable
from agents_eventlog.adapters.view import svg
from agents_eventlog.eventlog.events import JSON

PACKAGE: Final = "agents_eventlog.adapters.view"
MARKDOWN_CHARACTERS: Final = 20_000
"""Longer texts are shown as written: formatting them would take seconds."""
LINK_SCHEMES: Final = ("http://", "https://", "mailto:")


def static_files() -> dict[str, tuple[bytes, str]]:
    """Return the static files by their names, each with its media type."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    return {
        file.name: (file.read_bytes(), kinds[file.name.rpartition(".")[2]])
        for file in files(PACKAGE).joinpath("static").iterdir()
        if file.name.rpartition(".")[2] in kinds
    }


STATIC: Final = static_files()
VERSION: Final = sha256(b"".join(content for content, _ in STATIC.values())).hexdigest()[:12]


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page made from a template."""
    return HTMLResponse(_environment.get_template(template).render(values), status)


def lines(documents: Iterable[dict[str, JSON]]) -> Response:
    """Return the documents that the command line prints with ``--json``, one a line."""
    return Response("".join(map(json_lines.line, documents)), media_type="application/x-ndjson")


def fragment(template: str, **values: Any) -> str:
    """Return a part of a page."""
    return _environment.get_template(template).render(values)


def url(path: str, **parameters: Any) -> str:
    """Return the address of a page; parameters that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def shown(text: object) -> str:
    """Return a text without characters that hide or reorder what is beside them."""
    return printable(str(text), lines=True)


def markdown(text: str) -> Markup:
    """Return a text of a conversation as HTML: no HTML of its own, no remote image, safe links."""
    safe = shown(text)
    if len(safe) > MARKDOWN_CHARACTERS:
        return Markup('<pre class="text">{}</pre>').format(safe)
    return rendered(parsed(safe))


def parsed(text: str) -> list[Token]:
    """Return the tokens of a text that was made safe by ``shown``."""
    return _markdown.parse(text)


def rendered(tokens: Sequence[Token]) -> Markup:
    """Return tokens of ``parsed`` as HTML."""
    html = _markdown.renderer.render(tokens, _markdown.options, {})
    return Markup(html)  # noqa: S704 - markdown-it escapes everything, html is off


def pretty(value: JSON) -> str:
    """Return a value as indented JSON."""
    try:
        return shown(json.dumps(value, ensure_ascii=False, indent=2))
    except RecursionError:
        return "nested too deeply to be shown"


def arguments(item: Mapping[str, Any]) -> str:
    """Return the arguments of a tool call, indented if they are JSON."""
    given = item.get("arguments")
    return indented(given) if isinstance(given, str) else pretty(given)


def indented(text: str) -> str:
    """Return a text, indented if it is JSON of a bounded length."""
    if len(text) <= MARKDOWN_CHARACTERS and text[:1] in ("{", "["):
        try:
            return pretty(json.loads(text))
        except (ValueError, RecursionError):
            pass
    return shown(text)


def told(account: str) -> str:
    """Return what an event did; the account of one item is beside it, and its number is not."""
    return "added 1 item" if account == "added" else shown(account)


def day(time: int) -> str:
    """Return the date of a time as people read it: Tue 3 Nov 2026."""
    at = datetime.fromisoformat(timestamps.day(time))
    return f"{at:%a} {at.day} {at:%b %Y}"


def usd(cost: float) -> str:
    """Return a cost with two significant digits below one USD."""
    if cost == 0 or cost >= 1:
        return f"${cost:,.2f}"
    digits = 1 - int(f"{cost:e}".partition("e")[2])
    return f"${cost:.{digits}f}"


def count(number: int) -> str:
    """Return a number with at most three digits and a unit: 950, 3.5k, 12M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            value = number / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return str(number)


def _image(
    renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    del renderer, options, env
    token = tokens[index]
    words = f"image not loaded: {token.attrGet('src')} {token.content}".rstrip()
    return f'<span class="note">({escape(words)})</span>'


def _link(
    renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    return renderer.renderToken(tokens, index, options, env)


def _is_safe(url: str) -> bool:
    return url.lower().startswith(LINK_SCHEMES)


def _markdown_renderer() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    made.validateLink = _is_safe  # type: ignore[method-assign]
    made.add_render_rule("image", _image)
    made.add_render_rule("link_open", _link)
    return made


_markdown = _markdown_renderer()
_environment = Environment(
    loader=PackageLoader(PACKAGE, "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    shown=shown,
    told=told,
    markdown=markdown,
    pretty=pretty,
    usd=usd,
    count=count,
    time=timestamps.as_text,
    clock=timestamps.clock,
    iso=timestamps.iso,
    day=day,
    quoted=shlex.quote,
)
_environment.globals.update(
    url=url,
    static=lambda name: f"/static/{VERSION}/{name}",
    counted=summary.counted,
    actor_of=lambda recorded: event_descriptions.bound(recorded, "actor"),
    kind_of=lambda name: svg.KINDS.get(name, "noted"),
    draw=svg.drawn_ticks,
    bar=svg.bar,
    sparkline=svg.sparkline,
)
