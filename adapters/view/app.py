"""The pages of ``eventlog view``: every page is a URL, every state is in it, and it only reads."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents_eventlog.adapters.conversations import event_descriptions, timestamps
from agents_eventlog.adapters.conversations.comparison import (
    BranchComparison,
    TurnSide,
    compare_branches,
)
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.conversations.window import Window, window
from agents_eventlog.adapters.view import cards, rendering
from agents_eventlog.adapters.view.rendering import page, url
from agents_eventlog.adapters.view.security import Guard
from agents_eventlog.eventlog import item_kind, payloads, reader
from agents_eventlog.eventlog.errors import EventLogError, SessionNotFoundError
from agents_eventlog.eventlog.events import JSON, ItemRef
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import builder as conversations
from agents_eventlog.projections.conversations.builder import MAIN
from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.usage.queries import BY

SESSIONS: Final = 50
EVENTS: Final = 50
HITS: Final = 30
KEPT_SESSIONS: Final = 8
"""Number of sessions whose paths stay in memory; they hold no content."""

Endpoint = Callable[[Request], Awaitable[Response]]


class View:
    """The pages over one log, which was opened read-only."""

    def __init__(self, log: ConversationLog) -> None:
        self.log = log
        self._paths: OrderedDict[str, Paths] = OrderedDict()

    def routes(self) -> list[Route]:
        """Return the pages."""
        pages: dict[str, Endpoint] = {
            "/": self.sessions,
            "/session": self.session,
            "/session/compare": self.compare,
            "/event": self.event,
            "/events": self.events,
            "/spend": self.spend,
            "/search": self.search,
            "/health": self.health,
            "/item": self.item,
            "/item/part": self.part,
        }
        return [
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in pages.items()),
            Route("/static/{version}/{name}", static, methods=["GET"]),
        ]

    # -- pages ----------------------------------------------------------------------------------

    async def sessions(self, request: Request) -> Response:
        """Show the list of sessions."""
        asked = request.query_params
        text, user = asked.get("q") or None, asked.get("user") or None
        rows = await self.log.sessions(
            limit=SESSIONS + 1,
            after=asked.get("after") or None,
            deleted=asked.get("deleted") == "1",
            text=text,
            user_id=user,
        )
        more = rows[SESSIONS - 1]["cursor"] if len(rows) > SESSIONS else None
        total = (await self.log.usage())["total_cost"]
        return page(
            "sessions.html",
            title="Sessions",
            section="sessions",
            rows=rows[:SESSIONS],
            more=None if more is None else self._again(request, after=more),
            q=text or "",
            user=user or "",
            deleted=asked.get("deleted") == "1",
            is_first="after" not in asked,
            total=total,
            path=self.log.path,
        )

    async def session(self, request: Request) -> Response:
        """Show a conversation; the branch that one looks at is the straight line."""
        session_id = _required(request, "id")
        version, around = _number(request, "v"), _number(request, "around")
        chosen = request.query_params.get("branch")

        def unit(tx: Transaction) -> tuple[Paths, str, Window]:
            paths = self._paths_of(tx, session_id)
            if not paths.version:
                raise SessionNotFoundError(session_id)
            if version is not None and version > paths.version:
                raise HTTPException(404, f"the session has no version {version}")
            stored = conversations.session(tx, session_id)
            branch = chosen or (MAIN if stored is None else stored.branch_id)
            if branch not in paths.moves and branch != MAIN:
                raise HTTPException(404, f"the session has no branch {branch!r}")
            return (
                paths,
                branch,
                window(tx, paths, session_id, branch, version=version, around=around),
            )

        paths, branch, shown = await self.log.query(unit)
        is_past = shown.version < paths.version
        turns = [
            (
                turn,
                [
                    (item, cards.card(item.item, item.ref, item.node.kind, withheld=item.withheld))
                    for item in turn.items
                ],
                [(name, paths.exists(name, shown.version)) for name in turn.forks],
            )
            for turn in shown.turns
        ]
        step = paths.changes[shown.version - 1] if shown.version else None

        def here(**changes: Any) -> str:
            asked = {"branch": branch, "v": version, "around": None, **changes}
            return url("/session", id=session_id, **asked)

        return page(
            "session.html",
            title=session_id,
            section="sessions",
            session_id=session_id,
            branch=branch,
            branches=[(name, paths.exists(name, shown.version)) for name in paths.moves],
            live=[name for name in paths.moves if paths.exists(name)],
            window=shown,
            turns=turns,
            last_forks=[(name, paths.exists(name, shown.version)) for name in shown.forks],
            is_past=is_past,
            last_version=paths.version,
            step=step,
            here=here,
        )

    async def compare(self, request: Request) -> Response:
        """Show two branches, turn beside turn, from where they part."""
        session_id, a, b = (_required(request, name) for name in ("id", "a", "b"))

        def unit(tx: Transaction) -> tuple[BranchComparison, list[str]]:
            paths = self._paths_of(tx, session_id)
            if not paths.version:
                raise SessionNotFoundError(session_id)
            names = [name for name in paths.moves if paths.exists(name)]
            return compare_branches(tx, session_id, a, b), names

        found, names = await self.log.query(unit)
        return page(
            "compare.html",
            title=f"{a} and {b}",
            section="sessions",
            session_id=session_id,
            found=found,
            names=names,
            turns=[
                (turn["turn"], [(side, _cards(side)) for side in (turn["a"], turn["b"])])
                for turn in found["turns"]
            ],
        )

    async def event(self, request: Request) -> Response:
        """Show one event, with all its columns."""
        position = _number(request, "position")

        def unit(tx: Transaction) -> RecordedEvent:
            found = reader.event_at(tx, position or 0)
            if found is None:
                raise HTTPException(404, f"the log has no event at position {position}")
            return found

        recorded = await self.log.query(unit)
        data: JSON = None if recorded.withheld else json.loads(recorded.opened() or b"null")
        return page(
            "event.html",
            title=f"Event {position}",
            section="events",
            recorded=recorded,
            description=event_descriptions.describe_event(recorded, {}, {}).account,
            data=data,
        )

    async def events(self, request: Request) -> Response:
        """Show the whole log, newest first."""
        before = _number(request, "before")
        kind = request.query_params.get("type") or None
        session_id = request.query_params.get("id") or None
        rows = [
            (recorded, event_descriptions.describe_event(recorded, {}, {}))
            async for recorded in self.log.read(
                session_id,
                types=None if kind is None else [kind],
                until=None if before is None else before - 1,
                backward=True,
                limit=EVENTS,
            )
        ]
        earlier = self._again(request, before=rows[-1][0].position) if len(rows) == EVENTS else None
        return page(
            "events.html",
            title="Events",
            section="events",
            rows=rows,
            earlier=earlier,
            session_id=session_id,
            kind=kind or "",
        )

    async def spend(self, request: Request) -> Response:
        """Show usage and cost in groups, of all sessions or of one."""
        asked = request.query_params
        session_id, user_id = asked.get("id") or None, asked.get("user") or None
        chosen = asked.get("by") or ("turn" if session_id else "day")
        since, until = asked.get("since") or None, asked.get("until") or None
        start, end = timestamps.typed_period(since, until)
        answer = await self.log.usage(
            chosen.split(","),
            since=_time(start),
            until=_time(end),
            user_id=user_id,
            session_id=session_id,
            live=asked.get("live") == "1",
        )
        groups = answer.pop("groups")
        keys = [BY[name] for name in chosen.split(",")]
        return page(
            "spend.html",
            title="Spend",
            section="spend",
            by=chosen,
            names=["day", "month", "model", "agent", "user", "session", "branch", "turn", "run"],
            keys=keys,
            groups=groups,
            total=answer,
            most=max((group["total_tokens"] for group in groups), default=0) or 1,
            session_id=session_id or "",
            user=user_id or "",
            live=asked.get("live") == "1",
            since=since or "",
            until=until or "",
        )

    async def search(self, request: Request) -> Response:
        """Show the items that contain a text."""
        text = request.query_params.get("q", "").strip()
        after = request.query_params.get("after") or None
        session_id = request.query_params.get("id") or None
        found = None
        if text:
            found = await self.log.find_items(text, limit=HITS, after=after, session_id=session_id)
        return page(
            "search.html",
            title="Search",
            section="search",
            q=text,
            session_id=session_id,
            hits=found or [],
            more=None
            if found is None or found.cursor is None
            else self._again(request, after=found.cursor),
        )

    async def health(self, request: Request) -> Response:
        """Show the head of the log, and prove the whole log if asked."""
        verified = await self.log.verify() if request.query_params.get("prove") == "1" else None
        return page(
            "health.html",
            title="Health",
            section="health",
            head=await self.log.head(),
            verified=verified,
            path=self.log.path,
        )

    # -- data -----------------------------------------------------------------------------------

    async def item(self, request: Request) -> Response:
        """Return one item as JSON, whole."""
        item = await self._item(request)
        return Response(json.dumps(item, ensure_ascii=True), media_type="application/json")

    async def part(self, request: Request) -> Response:
        """Return a picture of an item."""
        found = cards.image(await self._item(request), _number(request, "part") or 0)
        if found is None:
            raise HTTPException(404, "this part is not a picture")
        return Response(found[0], media_type=found[1])

    async def _item(self, request: Request) -> JSON:
        ref = ItemRef(_number(request, "position") or 0, _number(request, "index") or 0)

        def unit(tx: Transaction) -> JSON:
            row = payloads.at(tx, ref.position)
            if row is None or row[-1] is None:
                raise HTTPException(404, "the log has no such item, or its content was erased")
            items = json.loads(row[-1]).get("items", [])
            if not ref.index < len(items):
                raise HTTPException(404, "the log has no such item")
            return items[ref.index]

        return await self.log.query(unit)

    def _paths_of(self, tx: Transaction, session_id: str) -> Paths:
        paths = self._paths.pop(session_id, None) or Paths()
        paths.catch_up(tx, session_id)
        self._paths[session_id] = paths
        while len(self._paths) > KEPT_SESSIONS:
            self._paths.popitem(last=False)
        return paths

    @staticmethod
    def _again(request: Request, **changes: Any) -> str:
        return url(request.url.path, **{**request.query_params, **changes})


def create_app(
    log: ConversationLog, *, hosts: Collection[str], key: str | None, cookie: str
) -> Starlette:
    """
    Return the pages over a log as an ASGI application.

    hosts, key, cookie: see ``security.Guard``.
    """
    guard = Middleware(Guard, hosts=hosts, key=key, cookie=cookie)
    handlers: dict[Any, Any] = {
        HTTPException: _failed,
        EventLogError: _refused,
        ValueError: _refused,  # of a filter: a time, for example
    }
    return Starlette(routes=View(log).routes(), middleware=[guard], exception_handlers=handlers)


async def static(request: Request) -> Response:
    """Return a style sheet, a script or an icon; its address changes with its content."""
    found = rendering.STATIC.get(request.path_params["name"])
    if found is None or request.path_params["version"] != rendering.VERSION:
        raise HTTPException(404, "no such file")
    content, kind = found
    return Response(
        content, media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )


async def _failed(request: Request, error: HTTPException) -> Response:
    del request
    return page(
        "error.html", error.status_code, title="Not found", section="", message=error.detail
    )


async def _refused(request: Request, error: EventLogError | ValueError) -> Response:
    del request
    status = 404 if isinstance(error, SessionNotFoundError) else 400
    return page("error.html", status, title="Not shown", section="", message=str(error))


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise HTTPException(400, f"the address lacks {name}=")
    return value


def _cards(side: TurnSide | None) -> list[cards.Card]:
    return [
        cards.card(
            row["item"],
            ItemRef(row["position"], row["index"]),
            item_kind.classify(row["item"]),
            withheld=row["withheld"],
        )
        for row in ([] if side is None else side["items"])
    ]


def _time(micros: int | None) -> datetime | None:
    return (
        None if micros is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    )


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise HTTPException(400, f"invalid {name}: expected a number")
    return int(text)
