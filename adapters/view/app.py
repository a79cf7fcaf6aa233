"""The pages of ``eventlog view``: every page is a URL, every state is in it, and it only reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.view import rendering
from agents_eventlog.adapters.view.known_paths import KnownPaths
from agents_eventlog.adapters.view.live import Live
from agents_eventlog.adapters.view.log_pages import LogPages
from agents_eventlog.adapters.view.rendering import page
from agents_eventlog.adapters.view.security import Guard
from agents_eventlog.adapters.view.session_pages import SessionPages
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    EventLogError,
    ItemNotFoundError,
    SessionNotFoundError,
    StaleProjectionError,
    VersionNotFoundError,
)

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

NOT_FOUND: Final = (
    SessionNotFoundError,
    BranchNotFoundError,
    VersionNotFoundError,
    ItemNotFoundError,
)
FOREVER: Final = "public, max-age=31536000, immutable"


def create_app(
    log: ConversationLog, *, hosts: Collection[str], key: str | None, cookie: str
) -> Starlette:
    """
    Return the pages over a log, which was opened read-only, as an ASGI application.

    hosts, key, cookie: see ``security.Guard``.
    """
    known, live = KnownPaths(), Live(log)
    whole = LogPages(log, known)
    single = SessionPages(log, live, known, lambda: whole.proof)
    pages: dict[str, Endpoint] = {
        "/": whole.sessions,
        "/sessions/totals": whole.totals,
        "/session": single.session,
        "/session/at": single.at,
        "/session/compare": single.compare,
        "/session/export": single.export,
        "/session/live": single.live,
        "/session/outline": single.outline,
        "/session/spend": whole.session_spend,
        "/session/ticks": single.ticks,
        "/session/timeline": single.timeline,
        "/session/window": single.window,
        "/event": whole.event,
        "/events": whole.events,
        "/spend": whole.spend,
        "/search": whole.search,
        "/health": whole.health,
        "/health/verify": whole.verify,
        "/item": whole.item,
        "/item/part": whole.part,
        "/item/place": single.place,
    }
    handlers: dict[Any, Any] = {
        HTTPException: _failed,
        EventLogError: _refused,
        ValueError: _refused,  # of a filter: a time, for example
    }
    app = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in pages.items()),
            Route("/static/{version}/{name}", static, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, hosts=hosts, key=key, cookie=cookie)],
        exception_handlers=handlers,
    )
    app.state.live = live
    return app


async def static(request: Request) -> Response:
    """Return a style sheet, a script or an icon; its address changes with its content."""
    found = rendering.STATIC.get(request.path_params["name"])
    if found is None or request.path_params["version"] != rendering.VERSION:
        raise HTTPException(404, "no such file")
    content, kind = found
    return Response(content, media_type=kind, headers={"Cache-Control": FOREVER})


async def _failed(request: Request, error: HTTPException) -> Response:
    del request
    title = "Not found" if error.status_code == 404 else "Not shown"
    return page("error.html", error.status_code, title=title, section="", message=error.detail)


async def _refused(request: Request, error: EventLogError | ValueError) -> Response:
    del request
    status = 404 if isinstance(error, NOT_FOUND) else 400
    message = str(error)
    if isinstance(error, StaleProjectionError):
        status, message = 503, f"{message}. Run `eventlog replay` on the log, then load the page."
    title = "Not found" if status == 404 else "Not shown"
    return page("error.html", status, title=title, section="", message=message)
