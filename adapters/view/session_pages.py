"""The pages of one session: the conversation at any version, its timeline, and parts that scripts fetch."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from agents_eventlog.adapters.conversations import (
    audit_trail,
    branches,
    comparison,
    comparison_at,
    conversation,
    forking,
    item_places,
    outline,
    timestamps,
)
from agents_eventlog.adapters.conversations.audit_trail import Entry, Filters
from agents_eventlog.adapters.conversations.comparison import (
    BranchComparison,
    ComparedTurn,
    TurnSide,
)
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.conversations.outline import Leaving, OutlineTurn
from agents_eventlog.adapters.conversations.sessions import SessionRow
from agents_eventlog.adapters.conversations.window import (
    ShownTurn,
    Window,
    newest_window,
    window,
)
from agents_eventlog.adapters.view import asked, cards, svg
from agents_eventlog.adapters.view.asked import wants_json
from agents_eventlog.adapters.view.export import export_html
from agents_eventlog.adapters.view.known_paths import KnownPaths
from agents_eventlog.adapters.view.live import Live
from agents_eventlog.adapters.view.log_pages import Proof
from agents_eventlog.adapters.view.rendering import lines, page, url
from agents_eventlog.adapters.view.word_marks import WordMarks
from agents_eventlog.eventlog import export_lines, item_kind, reader
from agents_eventlog.eventlog.appender import session_version
from agents_eventlog.eventlog.errors import SessionNotFoundError
from agents_eventlog.eventlog.events import EVENT_TYPES, ItemRef
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import as_of as past
from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.usage.queries import TurnRequest

TIMELINE_EVENTS: Final = 50
LONG_EVENTS: Final = 2_000
"""From this number of events on, the first view of a session does not wait for its paths."""
OUTLINE_TURNS: Final = 60
"""How many turns an outline has beside those at which a branch leaves; scripts fetch the others."""
FETCHED_TURNS: Final = 200
CHIPS: Final = 3
"""How many branches that leave at one place are shown before the others are folded."""
COLOURS: Final = 7

ComparedView: TypeAlias = tuple[int, list[tuple[TurnSide | None, list[cards.Row]]]]
"""A turn of two branches as the page shows it: its number, and what each side used and its items."""


class Margin(NamedTuple):
    """What a turn used, for the margin beside it; also the versions after which each part is true."""

    cached: int
    fresh: int
    output: int
    total: int
    cost: float
    unpriced: int
    models: list[str]


class TurnView(NamedTuple):
    """A turn as its template gets it."""

    turn: ShownTurn
    groups: list[cards.Group]
    margin: Margin | None
    actors: str
    is_new_day: bool


class OutlineRow(NamedTuple):
    """
    A row of the outline: a "turn", a branch ("chip"), a "gap" of turns (``first`` to ``last``) to fetch, or
    more branches ("folded").
    """

    kind: str
    turn: OutlineTurn | None = None
    leaving: Leaving | None = None
    first: int = 0
    last: int = 0
    colour: int = 0
    folded: tuple[OutlineRow, ...] = ()


class Look(NamedTuple):
    """What a page of a session at a version is made of."""

    branch_id: str
    version: int
    last_version: int
    shown: Window
    outline: list[OutlineRow] | None
    ticks: list[svg.Tick] | None
    colours: dict[str, int]
    live: list[str]
    step: Entry | None
    links: forking.ForkLinks | None = None


class SessionPages:
    """The pages of single sessions over one log, which was opened read-only."""

    def __init__(
        self,
        log: ConversationLog,
        live: Live,
        known: KnownPaths,
        proof: Callable[[], Proof | None],
    ) -> None:
        self.log = log
        self._proof = proof
        self._live = live
        self._known = known

    # -- the conversation -----------------------------------------------------------------------

    async def session(self, request: Request) -> Response:
        """Show a conversation; the branch that one looks at is the straight line."""
        session_id = asked.required(request, "id")
        if (moment := asked.text(request, "as_of")) is not None:
            return await self._at_time(request, session_id, moment)
        if wants_json(request):
            return await self._documents(request, session_id)
        look = await self.log.query(partial(self._look, request=request, session_id=session_id))
        row = await self._row(session_id)
        return page("session.html", **self._values(request, session_id, look, row))

    async def _row(self, session_id: str) -> SessionRow | None:
        for deleted in (False, True):
            for row in await self.log.sessions(session_id=session_id, deleted=deleted):
                return row
        return None

    async def _at_time(self, request: Request, session_id: str, moment: str) -> Response:
        time = asked.moment(timestamps.instant(moment, end_of_day=True))
        version = await self.log.query(lambda tx: past.version_at(tx, session_id, time or 0))
        return RedirectResponse(asked.again(request, as_of=None, v=version), 303)

    async def _documents(self, request: Request, session_id: str) -> Response:
        branch_id, version = asked.text(request, "branch"), asked.number(request, "v")
        turns = asked.flag(request, "turns")

        def unit(tx: Transaction) -> list[Any]:
            if not session_version(tx, session_id):
                raise SessionNotFoundError(session_id)
            found = conversation.conversation(tx, session_id, branch_id, version)
            outlined = conversation.turns_of(tx, found) if turns else None
            return list(conversation.documents(found, turns=outlined))

        return lines(await self.log.query(unit))

    def _look(self, tx: Transaction, request: Request, session_id: str) -> Look:
        version, around = asked.number(request, "v"), asked.number(request, "around")
        total = session_version(tx, session_id)
        is_quick = (
            total > LONG_EVENTS
            and version is None
            and asked.item(request, "item") is None
            and not asked.flag(request, "whole")
            and not self._known.has(session_id)
        )
        paths = Paths() if is_quick else self._known.read(tx, session_id)
        total = total if is_quick else paths.version
        if not total:
            raise SessionNotFoundError(session_id)
        if version is not None and version > total:
            raise HTTPException(404, f"the session has no version {version}")
        chosen = asked.text(request, "branch")
        if is_quick:
            branch_id = chosen or outline.current_branch(tx, session_id)
            shown = newest_window(tx, session_id, branch_id, total, around=around)
            return Look(branch_id, total, total, shown, None, None, {branch_id: 0}, [], None)
        branch_id = outline.check_branch(tx, paths, session_id, chosen)
        item = asked.item(request, "item")
        place: dict[str, Any] = {"version": version, "around": around, "item": item}
        shown = window(tx, paths, session_id, branch_id, **place)
        return Look(
            branch_id,
            shown.version,
            total,
            shown,
            self._outline(tx, paths, shown),
            svg.ticks(paths.changes, {branch_id}),
            _colours(paths),
            [name for name in paths.moves if paths.exists(name)],
            _step(tx, paths, session_id, shown.version),
            forking.links(tx, paths, shown.version),
        )

    def _values(
        self, request: Request, session_id: str, look: Look, row: SessionRow | None
    ) -> dict[str, Any]:
        def here(**changes: Any) -> str:
            v = look.version if look.version < look.last_version else None
            wanted = {"branch": look.branch_id, "v": v, **changes}
            return url("/session", id=session_id, **wanted)

        views = turn_views(look.shown)
        return {
            "title": session_id if row is None or row["title"] is None else row["title"],
            "section": "sessions",
            "tab": "conversation",
            "session_id": session_id,
            "row": row,
            "proof": self._proof(),
            "look": look,
            "branch": look.branch_id,
            "window": look.shown,
            "turns": views,
            "most": max((view.margin.total for view in views if view.margin), default=0),
            "is_past": look.version < look.last_version,
            "is_sealed": any(
                item.withheld == "sealed" for turn in look.shown.turns for item in turn.items
            ),
            "sentence": None if look.step is None else sentence(look.step),
            "here": here,
            "fetched": partial(_fetched, session_id, look),
        }

    # -- parts that scripts fetch ---------------------------------------------------------------

    async def window(self, request: Request) -> Response:
        """Return the turns before or after others, to be put beside them."""
        session_id = asked.required(request, "id")
        names = ("v", "around", "before", "after")
        version, around, before, after = (asked.number(request, name) for name in names)

        def unit(tx: Transaction) -> Look:
            paths = self._existing(tx, session_id)
            branch_id = outline.check_branch(tx, paths, session_id, asked.text(request, "branch"))
            place: dict[str, Any] = {"around": around, "before": before, "after": after}
            shown = window(
                tx, paths, session_id, branch_id, version=_checked(paths, version), **place
            )
            total = paths.version
            colours = _colours(paths)
            return Look(branch_id, shown.version, total, shown, None, None, colours, [], None)

        look = await self.log.query(unit)
        answer = page("turns_part.html", **self._values(request, session_id, look, None))
        answer.headers["X-Window"] = f"{look.shown.first},{look.shown.last}"
        return answer

    async def outline(self, request: Request) -> Response:
        """Return the outline of a branch, or some turns of it; as documents, the branches."""
        session_id = asked.required(request, "id")
        if wants_json(request):
            found = await self.log.query(partial(_branches, session_id=session_id))
            return lines(each.document(session_id) for each in found)
        first, last = asked.number(request, "from"), asked.number(request, "to")
        version = asked.number(request, "v")

        def unit(tx: Transaction) -> Look:
            paths = self._existing(tx, session_id)
            branch_id = outline.check_branch(tx, paths, session_id, asked.text(request, "branch"))
            shown_version = _checked(paths, version)
            end = paths.lifelines(branch_id).last_turn(shown_version)
            shown = Window(session_id, branch_id, shown_version, [], 0, end, [])
            if first is None:
                rows = self._outline(tx, paths, shown)
            else:
                stop = min(end if last is None else last, first + FETCHED_TURNS - 1)
                rows = _some_turns(tx, paths, shown, first, stop)
                if last is not None and stop < min(last, end):
                    rows.append(OutlineRow("gap", first=stop + 1, last=min(last, end)))
            names = [name for name in paths.moves if paths.exists(name)]
            total, colours = paths.version, _colours(paths)
            return Look(branch_id, shown_version, total, shown, rows, None, colours, names, None)

        look = await self.log.query(unit)
        return page("outline_part.html", **self._values(request, session_id, look, None))

    async def ticks(self, request: Request) -> Response:
        """Return the ticks of the time bar as a drawing."""
        session_id = asked.required(request, "id")
        branch = asked.text(request, "branch")

        def unit(tx: Transaction) -> list[svg.Tick]:
            paths = self._existing(tx, session_id)
            return svg.ticks(paths.changes, {outline.check_branch(tx, paths, session_id, branch)})

        return HTMLResponse(svg.drawn_ticks(await self.log.query(unit)))

    async def at(self, request: Request) -> Response:
        """Return what a version is: its time, actor and account, and the sizes of a branch then."""
        session_id = asked.required(request, "id")
        version = asked.number(request, "v")

        def unit(tx: Transaction) -> dict[str, Any]:
            paths = self._existing(tx, session_id)
            branch_id = outline.check_branch(tx, paths, session_id, asked.text(request, "branch"))
            chosen = _checked(paths, version)
            tip = paths.nodes[paths.tip(branch_id, chosen)]
            step = _step(tx, paths, session_id, chosen)
            return {
                "version": chosen,
                "last_version": paths.version,
                "branch_id": branch_id,
                "items": tip.depth,
                "turns": tip.turn,
                "sentence": sentence(step),
                "event": None if step is None else audit_trail.row_of(step),
            }

        return JSONResponse(await self.log.query(unit))

    async def live(self, request: Request) -> Response:
        """Stream the session's new versions, as server-sent events."""
        session_id = asked.required(request, "id")
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isdigit() and last.isascii() and len(last) < 19 else None
        if after is None:
            after = asked.number(request, "after") or 0
        events = self._live.stream(session_id, after)
        return StreamingResponse(events, media_type="text/event-stream")

    # -- other pages ----------------------------------------------------------------------------

    async def timeline(self, request: Request) -> Response:
        """Show what happened, the newest first."""
        session_id = asked.required(request, "id")
        before = asked.number(request, "before")
        kind = asked.text(request, "type")
        actor, branch_id = asked.text(request, "actor"), asked.text(request, "branch")
        types = [] if kind is None else reader.type_names([kind])
        limit = None if wants_json(request) else TIMELINE_EVENTS
        filters = Filters(session_id, branch_id, types=types, actor=actor, limit=limit)

        def unit(tx: Transaction) -> tuple[list[Entry], list[str], int]:
            paths = self._existing(tx, session_id)
            found = audit_trail.newest(tx, paths, filters, before=before)
            return found, list(paths.moves), paths.version

        entries, names, total = await self.log.query(unit)
        if wants_json(request):
            return lines(audit_trail.document(entry) for entry in reversed(entries))
        more = entries[-1].recorded.version if len(entries) == TIMELINE_EVENTS else None
        row = await self._row(session_id)
        return page(
            "timeline.html",
            title=session_id if row is None or row["title"] is None else row["title"],
            section="sessions",
            tab="timeline",
            session_id=session_id,
            row=row,
            days=_days(audit_trail.steps(entries)),
            types=list(EVENT_TYPES),
            names=names,
            kind=kind or "",
            actor=actor or "",
            branch=branch_id or "",
            total=total,
            is_newest=before is None,
            newest=asked.again(request, before=None),
            earlier=None if more is None or more == 1 else asked.again(request, before=more),
        )

    async def compare(self, request: Request) -> Response:
        """Show two branches, turn beside turn, from where they part."""
        session_id, a = asked.required(request, "id"), asked.required(request, "a")
        chosen = asked.text(request, "b")

        marks = WordMarks()

        def unit(tx: Transaction) -> tuple[BranchComparison | None, list[ComparedView], list[str]]:
            paths = self._existing(tx, session_id)
            names = [name for name in paths.moves if paths.exists(name)]
            b = chosen or next((name for name in names if name != a), None)
            if b is None:
                return None, [], names
            found = comparison_at.compare(tx, session_id, a, b, paths)
            return found, [_compared(paths, turn, marks) for turn in found["turns"]], names

        found, turns, names = await self.log.query(unit)
        if wants_json(request):
            return lines([] if found is None else comparison.documents(session_id, found))
        row = await self._row(session_id)
        return page(
            "compare.html",
            title=a if found is None else f"{found['a']} and {found['b']}",
            section="sessions",
            tab="compare",
            session_id=session_id,
            row=row,
            a=a,
            found=found,
            names=names,
            turns=turns,
            is_marked=marks.is_used,
        )

    async def export(self, request: Request) -> Response:
        """Show how to take the conversation elsewhere, or return it as a file."""
        session_id = asked.required(request, "id")
        await self.log.query(partial(self._existing, session_id=session_id))
        form = asked.text(request, "form")
        if form == "html":
            return _file(export_html(self.log, [session_id]), "text/html", "conversation.html")
        if form == "jsonl":
            kind = "application/x-ndjson"
            return _file(export_lines(self.log, [session_id]), kind, "conversation.jsonl")
        row = await self._row(session_id)
        return page(
            "export.html",
            title=session_id if row is None or row["title"] is None else row["title"],
            section="sessions",
            tab="export",
            session_id=session_id,
            row=row,
            path=self.log.path,
        )

    async def place(self, request: Request) -> Response:
        """Lead to an item: the branch and the turn where it is, or where it was."""
        names = ("position", "index")
        ref = ItemRef(*(asked.needed_number(request, name) for name in names))

        def unit(tx: Transaction) -> item_places.ItemPlaces:
            recorded = reader.event_at(tx, ref.position)
            if recorded is None:
                raise HTTPException(404, f"the log has no event at position {ref.position}")
            paths = self._known.read(tx, recorded.session_id)
            return item_places.places_in(paths, recorded.session_id, ref)

        found = await self.log.query(unit)
        address = url(
            "/session",
            id=found["session_id"],
            branch=found["last_branch_id"],
            around=found["turn"],
            item=f"{ref.position}.{ref.index}",
        )
        return RedirectResponse(f"{address}#e{ref.position}.{ref.index}", 303)

    # -- parts ----------------------------------------------------------------------------------

    def _existing(self, tx: Transaction, session_id: str) -> Paths:
        """Return the paths of a session. Raises SessionNotFoundError."""
        if not session_version(tx, session_id):
            raise SessionNotFoundError(session_id)
        return self._known.read(tx, session_id)

    def _outline(self, tx: Transaction, paths: Paths, shown: Window) -> list[OutlineRow]:
        """Return the outline: the turns around the window, all branches, and gaps between."""
        branch_id, version = shown.branch_id, shown.version
        last = paths.lifelines(branch_id).last_turn(version)
        around = shown.first if shown.turns else last
        first = max(0, min(around - OUTLINE_TURNS // 4, last - OUTLINE_TURNS))
        leaving = outline.leaving(paths, branch_id, version)
        wanted = set(range(first, min(last, first + OUTLINE_TURNS) + 1))
        wanted |= {each.turn - 1 for each in leaving if each.depth == 0}
        wanted |= {last}
        turns = outline.rows(tx, paths, shown.session_id, branch_id, version, sorted(wanted))
        colours = _colours(paths)
        chips = _chips(leaving, last, colours)
        rows: list[OutlineRow] = list(chips.pop(1, ()))
        before = 0
        for turn in turns:
            if turn["turn"] > before + 1:
                rows.append(OutlineRow("gap", first=before + 1, last=turn["turn"] - 1))
            before = turn["turn"]
            rows.append(_turn_row(paths, turn, colours))
            rows += chips.pop(before + 1, ())
        for rest in chips.values():
            rows += rest
        return rows


def turn_views(shown: Window) -> list[TurnView]:
    """Return the turns of a window as their template gets them."""
    found, day = [], None
    for turn in shown.turns:
        today = timestamps.day(turn.items[0].origin.occurred_at) if turn.items else day
        found.append(
            TurnView(
                turn,
                cards.groups(turn.items),
                _margin(turn.requests),
                _actors(turn),
                is_new_day=today != day,
            )
        )
        day = today
    return found


def sentence(step: Entry | None) -> str:
    """Return what happened at a version in one line."""
    if step is None:
        return "before the first event"
    actor = audit_trail.row_of(step)["actor"]
    account = step.described.account
    items = step.described.items
    if account == "added" and items:
        account = f"added {items[0].account}"
    return f"{actor} {account}" if actor else account


def _margin(requests: Sequence[TurnRequest]) -> Margin | None:
    if not requests:
        return None
    models = Counter(request.model for request in requests if request.model)
    cached = sum(request.cached_input_tokens for request in requests)
    return Margin(
        cached=cached,
        fresh=max(0, sum(request.input_tokens for request in requests) - cached),
        output=sum(request.output_tokens for request in requests),
        total=sum(request.total_tokens for request in requests),
        cost=sum(request.cost_usd or 0 for request in requests),
        unpriced=sum(request.requests for request in requests if request.cost_usd is None),
        models=[name if count == 1 else f"{name} ×{count}" for name, count in models.items()],  # noqa: RUF001
    )


def _actors(turn: ShownTurn) -> str:
    found = (item.origin for item in turn.items if item.removal is None)
    names = [
        " · ".join(filter(None, (origin.actor, origin.trace_id)))
        for origin in found
        if origin.actor or origin.trace_id
    ]
    return ", ".join(list(dict.fromkeys(names))[:3])


def _chips(
    leaving: Iterable[Leaving], last_turn: int, colours: dict[str, int]
) -> dict[int, list[OutlineRow]]:
    """Return the rows of branches, by the turn of the shown branch before which they leave."""
    found: dict[int, list[OutlineRow]] = {}
    place = 0
    for each in leaving:
        place = min(each.turn, last_turn + 1) if each.depth == 0 else place
        row = OutlineRow("chip", leaving=each, colour=colours.get(each.branch_id, 0))
        found.setdefault(place, []).append(row)
    return {place: _folded(rows) for place, rows in found.items()}


def _folded(rows: list[OutlineRow]) -> list[OutlineRow]:
    """Return the rows of branches at one place, those after the first ones as one."""
    if len(rows) <= CHIPS + 1:
        return rows
    return [*rows[:CHIPS], OutlineRow("folded", folded=tuple(rows[CHIPS:]))]


def _some_turns(
    tx: Transaction, paths: Paths, shown: Window, first: int, last: int
) -> list[OutlineRow]:
    numbers = range(first, last + 1)
    found = outline.rows(tx, paths, shown.session_id, shown.branch_id, shown.version, numbers)
    colours = _colours(paths)
    return [_turn_row(paths, turn, colours) for turn in found]


def _turn_row(paths: Paths, turn: OutlineTurn, colours: dict[str, int]) -> OutlineRow:
    """Return the row of a turn, in the colour of the branch that it was said on."""
    colour = 0
    if turn["position"] is not None:
        node = paths.number(ItemRef(turn["position"], turn["index"] or 0))
        if node is not None:
            colour = colours.get(paths.nodes[node].branch_id, 0)
    return OutlineRow("turn", turn=turn, colour=colour)


def _colours(paths: Paths) -> dict[str, int]:
    """Return the number of the colour of each branch."""
    return {name: number % COLOURS for number, name in enumerate(paths.moves)}


def _checked(paths: Paths, version: int | None) -> int:
    if version is None:
        return paths.version
    if version > paths.version:
        raise HTTPException(404, f"the session has no version {version}")
    return version


def _step(tx: Transaction, paths: Paths, session_id: str, version: int) -> Entry | None:
    """Return the event of a version; None for version 0."""
    if not version:
        return None
    filters = Filters(session_id, limit=1)
    found = audit_trail.newest(tx, paths, filters, before=version + 1)
    return found[0] if found else None


def _days(
    steps: Iterable[audit_trail.TimelineStep],
) -> list[tuple[int, list[audit_trail.TimelineStep]]]:
    """Return the rows of a timeline by day, each with a time of that day."""
    found: list[tuple[int, list[audit_trail.TimelineStep]]] = []
    for step in steps:
        time = step.newest.recorded.happened_at
        if found and timestamps.day(found[-1][0]) == timestamps.day(time):
            found[-1][1].append(step)
        else:
            found.append((time, [step]))
    return found


def _compared(paths: Paths, turn: ComparedTurn, marks: WordMarks) -> ComparedView:
    a, b = turn["a"], turn["b"]
    rows = marks.turn(_side(paths, a), _side(paths, b))
    return turn["turn"], [(a, rows[0]), (b, rows[1])]


def _side(paths: Paths, side: TurnSide | None) -> list[cards.Row]:
    shown = []
    for row in [] if side is None else side["items"]:
        node = paths.number(ItemRef(row["position"], row["index"]))
        kind = None if node is None else paths.nodes[node].kind
        shown.append(comparison.shown_item(row, kind or item_kind.classify(row["item"])))
    return [row for group in cards.groups(shown) for row in group.rows]


def _branches(tx: Transaction, session_id: str) -> list[branches.Branch]:
    if not session_version(tx, session_id):
        raise SessionNotFoundError(session_id)
    return branches.branches(tx, session_id)


def _fetched(session_id: str, look: Look, path: str, **more: Any) -> str:
    """Return the address of a part of the page for scripts."""
    v = look.version if look.version < look.last_version else None
    return url(path, id=session_id, branch=look.branch_id, v=v, **more)


def _file(texts: AsyncIterator[str], kind: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(texts, media_type=kind, headers=headers)
