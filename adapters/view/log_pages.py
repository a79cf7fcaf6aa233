"""The pages of the whole log: its sessions, events, usage, search and health, and single items."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agents_eventlog.adapters.conversations import (
    audit_trail,
    event_descriptions,
    item_search,
    json_lines,
    timestamps,
    verification,
)
from agents_eventlog.adapters.conversations import sessions as session_calls
from agents_eventlog.adapters.conversations import usage as usage_calls
from agents_eventlog.adapters.conversations.diagnosis import Diagnosis, diagnose
from agents_eventlog.adapters.conversations.log import ConversationLog
from agents_eventlog.adapters.conversations.sessions import SessionRow
from agents_eventlog.adapters.view import asked, cards
from agents_eventlog.adapters.view.asked import wants_json
from agents_eventlog.adapters.view.known_paths import KnownPaths
from agents_eventlog.adapters.view.rendering import lines, page
from agents_eventlog.eventlog import Verification, codec, item_kind, reader
from agents_eventlog.eventlog.events import EVENT_TYPES, JSON, ItemRedacted, ItemRef
from agents_eventlog.eventlog.recorded_event import RecordedEvent
from agents_eventlog.eventlog.redacted_items import RedactedItems
from agents_eventlog.eventlog.storage.transaction import Transaction
from agents_eventlog.projections.conversations import redactions
from agents_eventlog.projections.conversations.paths import ADDING
from agents_eventlog.projections.usage import queries as usage_queries
from agents_eventlog.projections.usage.queries import BY

SESSIONS: Final = 50
EVENTS: Final = 50
HITS: Final = 30
SPARKS: Final = 40
"""Maximum number of bars in a sparkline; more turns share them."""
TYPED: Final = ("q", "user", "metadata", "updated_after", "updated_before", "min_items")
HOLDING: Final = ADDING | {ItemRedacted.type_name()}
"""The types of events that hold items."""
GROUPS: Final = ("day", "month", "model", "agent", "user", "session", "branch", "turn", "run")


class Proof(NamedTuple):
    """The last verification of the whole log by this process, and how many events it covers."""

    verified: Verification
    events: int


class LogPages:
    """The pages over one log, which was opened read-only."""

    def __init__(self, log: ConversationLog, known: KnownPaths) -> None:
        self.log = log
        self.proof: Proof | None = None
        self._known = known
        self._proving = asyncio.Lock()

    # -- sessions -------------------------------------------------------------------------------

    async def sessions(self, request: Request) -> Response:
        """Show the list of sessions."""
        after, before = asked.text(request, "after"), asked.text(request, "before")
        order = asked.text(request, "order_by") or "updated_at"
        rows = await self.log.sessions(
            limit=SESSIONS + 1,
            after=before or after,
            order_by=order,  # type: ignore[arg-type]  # checked there
            reverse=before is not None,
            deleted=asked.flag(request, "deleted"),
            text=asked.text(request, "q"),
            user_id=asked.text(request, "user"),
            metadata=_metadata(asked.text(request, "metadata")),
            updated_after=_time(asked.text(request, "updated_after")),
            updated_before=_time(asked.text(request, "updated_before"), end_of_day=True),
            min_items=asked.number(request, "min_items"),
        )
        has_more = len(rows) > SESSIONS
        rows = rows[:SESSIONS] if before is None else rows[:SESSIONS][::-1]
        if wants_json(request):
            return lines(map(session_calls.document, rows))
        is_first = after is None and (before is None or not has_more)
        is_last = not has_more and before is None
        sparks = await self.log.query(partial(_sparks, rows=rows))
        fields = {name: request.query_params.get(name, "") for name in TYPED}
        return page(
            "sessions.html",
            title="Sessions",
            section="sessions",
            rows=rows,
            sparks=sparks,
            fields=fields,
            order=order,
            deleted=asked.flag(request, "deleted"),
            is_filtered=any(fields.values()) or asked.flag(request, "deleted"),
            is_first=is_first,
            first=asked.again(request, after=None, before=None),
            earlier=None
            if is_first or not rows
            else asked.again(request, after=None, before=rows[0]["cursor"]),
            later=None
            if is_last or not rows
            else asked.again(request, before=None, after=rows[-1]["cursor"]),
            path=self.log.path,
        )

    async def totals(self, request: Request) -> Response:
        """Return the sums of all sessions, which take time to add up, to be put above their list."""
        del request
        answer = await self.log.usage(("day", "model"))
        days: Counter[str] = Counter()
        models: Counter[str | None] = Counter()
        for group in answer["groups"]:
            days[str(group["day"])] += group["total_tokens"]
            models[group["model"]] += group["total_cost"]  # type: ignore[assignment]
        return page(
            "totals_part.html",
            total=answer,
            days=[days[day] for day in sorted(days)][-SPARKS:],
            models=models.most_common(),
        )

    # -- events ---------------------------------------------------------------------------------

    async def event(self, request: Request) -> Response:
        """Show one event, with all its columns, and what became of its items."""
        position = asked.needed_number(request, "position")

        def unit(tx: Transaction) -> tuple[audit_trail.Entry, bytes | None]:
            recorded = reader.event_at(tx, position)
            if recorded is None:
                raise HTTPException(404, f"the log has no event at position {position}")
            paths = self._known.read(tx, recorded.session_id)
            redacted = RedactedItems.of_session(tx, recorded.session_id)
            popped = audit_trail.popped_item(tx, recorded, redacted)
            found = audit_trail.entry(redacted.covered(recorded), paths, popped)
            return found, _digest_before(tx, recorded)

        entry, previous = await self.log.query(unit)
        recorded = entry.recorded
        if wants_json(request):
            return lines([audit_trail.document(entry)])
        return page(
            "event.html",
            title=f"Event {position}",
            section="events",
            recorded=recorded,
            described=entry.described,
            rows=_event_rows(recorded),
            previous=previous,
            data=None if recorded.withheld else json.loads(recorded.opened() or b"null"),
            metadata=event_descriptions.bound(recorded, "actor"),
        )

    async def events(self, request: Request) -> Response:
        """Show the whole log, newest first."""
        before = asked.number(request, "before")
        kind, session_id = asked.text(request, "type"), asked.text(request, "id")
        found = [
            recorded
            async for recorded in self.log.read(
                session_id,
                types=None if kind is None else [kind],
                until=None if before is None else max(0, before - 1),
                backward=True,
                limit=EVENTS,
            )
        ]
        covered = await self.log.query(lambda tx: [redactions.covered(tx, each) for each in found])
        entries = [audit_trail.entry(recorded, None) for recorded in covered]
        if wants_json(request):
            return lines(map(audit_trail.document, reversed(entries)))
        counted = await self.log.census() if asked.flag(request, "census") else None
        return page(
            "events.html",
            title="Events",
            section="events",
            entries=entries,
            census=counted,
            counts=asked.again(request, census=1),
            is_newest=before is None,
            newest=asked.again(request, before=None),
            earlier=asked.again(request, before=found[-1].position)
            if len(found) == EVENTS
            else None,
            session_id=session_id or "",
            kind=kind or "",
            types=list(EVENT_TYPES),
        )

    # -- usage ----------------------------------------------------------------------------------

    async def spend(self, request: Request) -> Response:
        """Show usage and cost in groups, of all sessions or of one."""
        session_id, user_id = asked.text(request, "id"), asked.text(request, "user")
        chosen = asked.text(request, "by") or ("turn" if session_id else "day")
        since, until = asked.text(request, "since"), asked.text(request, "until")
        start, end = timestamps.typed_period(since, until)
        answer = await self.log.usage(
            chosen.split(","),
            since=asked.moment(start),
            until=asked.moment(end),
            user_id=user_id,
            session_id=session_id,
            live=asked.flag(request, "live"),
        )
        if wants_json(request):
            return lines(usage_calls.documents(answer))
        groups = answer["groups"]
        row = None if session_id is None else await self._row(session_id)
        return page(
            "spend.html",
            title="Usage and cost" if row is None or row["title"] is None else row["title"],
            section="spend" if session_id is None else "sessions",
            tab="spend",
            action=request.url.path,
            by=chosen,
            names=GROUPS,
            keys=[BY[name] for name in chosen.split(",")],
            groups=groups,
            total=answer,
            most=max((group["total_tokens"] for group in groups), default=0) or 1,
            session_id=session_id or "",
            row=row,
            user=user_id or "",
            live=asked.flag(request, "live"),
            since=since or "",
            until=until or "",
        )

    async def session_spend(self, request: Request) -> Response:
        """Show the usage of one session."""
        asked.required(request, "id")
        return await self.spend(request)

    async def _row(self, session_id: str) -> SessionRow | None:
        for deleted in (False, True):
            for row in await self.log.sessions(session_id=session_id, deleted=deleted):
                return row
        return None

    # -- search ---------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """Show the items that contain a text."""
        text, after = asked.text(request, "q"), asked.text(request, "after")
        names = {"role": "role", "tool": "tool_name", "type": "type", "user": "user_id"}
        which: dict[str, Any] = {key: asked.text(request, name) for name, key in names.items()}
        which["session_id"] = asked.text(request, "id")
        which["since"] = _time(asked.text(request, "since"))
        which["until"] = _time(asked.text(request, "until"), end_of_day=True)
        removed = asked.flag(request, "removed")
        found = None
        if text is not None or any(which.values()):
            found = await self.log.find_items(
                text, limit=HITS, after=after, include_removed=removed, **which
            )
        if wants_json(request):
            return lines([] if found is None else item_search.documents(found))
        return page(
            "search.html",
            title="Search",
            section="search",
            fields={
                name: request.query_params.get(name, "")
                for name in ("q", "id", "role", "tool", "user", "since", "until")
            },
            removed=removed,
            found=found,
            more=None
            if found is None or found.cursor is None
            else asked.again(request, after=found.cursor),
        )

    # -- health ---------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Show the head of the log; prove and examine the log if wanted."""
        if asked.flag(request, "prove"):
            async with self._proving:
                await self._prove()
        proof = self.proof
        if wants_json(request):
            if asked.flag(request, "prove") and proof is not None:
                return lines(_proof_documents(proof))
            return lines((await asyncio.to_thread(diagnose, self.log)).documents())
        diagnosis: Diagnosis | None = None
        if asked.flag(request, "examine"):
            diagnosis = await asyncio.to_thread(diagnose, self.log)
        return page(
            "health.html",
            title="Health",
            section="health",
            head=await self.log.head(),
            proof=proof,
            diagnosis=diagnosis,
            tools=await self.log.tools() if asked.flag(request, "tools") else None,
            path=self.log.path,
        )

    async def verify(self, request: Request) -> Response:
        """Prove the log, with progress: documents with the number of events read, then the result."""
        del request
        return StreamingResponse(self._verifying(), media_type="application/x-ndjson")

    async def _verifying(self) -> AsyncIterator[str]:
        """Yield the progress. Ends when the browser leaves; one proof runs at a time."""
        async with self._proving:
            head = await self.log.head()
            yield json_lines.line({"kind": "proving", "events": 0, "head": head.position})
            seen: asyncio.Queue[int | None] = asyncio.Queue()
            task = asyncio.create_task(self._prove(seen))
            try:
                while (count := await seen.get()) is not None:
                    yield json_lines.line(
                        {"kind": "proving", "events": count, "head": head.position}
                    )
                await task
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if self.proof is not None:
            for document in _proof_documents(self.proof):
                yield json_lines.line(document)

    async def _prove(self, seen: asyncio.Queue[int | None] | None = None) -> None:
        """Verify what was appended since the last proof, or the whole log."""
        known = self.proof if self.proof is not None and self.proof.verified.ok else None
        before = 0 if known is None else known.events
        try:
            verified = await self.log.verify(
                after=None if known is None else known.verified.head,
                on_progress=None if seen is None else lambda n: seen.put_nowait(before + n),
            )
            self.proof = Proof(verified, before + verified.events)
        finally:
            if seen is not None:
                seen.put_nowait(None)

    # -- items ----------------------------------------------------------------------------------

    async def item(self, request: Request) -> Response:
        """Return one item as JSON, whole."""
        item = await self._item(request)
        return Response(json.dumps(item, ensure_ascii=True), media_type="application/json")

    async def part(self, request: Request) -> Response:
        """Return a picture of an item."""
        found = cards.image(await self._item(request), asked.number(request, "part") or 0)
        if found is None:
            raise HTTPException(404, "this part is not a picture")
        return Response(found[0], media_type=found[1])

    async def _item(self, request: Request) -> JSON:
        names = ("position", "index")
        ref = ItemRef(*(asked.needed_number(request, name) for name in names))

        def unit(tx: Transaction) -> JSON:
            row = redactions.at(tx, ref.position)
            if row is None or row[-1] is None:
                raise HTTPException(404, "the log has no such item, or its content was erased")
            if row[1] not in HOLDING or ref.index >= len(item_kind.classify_items(*row)):
                raise HTTPException(404, "the log has no such item")
            return codec.decode_items([row])[0][ref.index]

        return await self.log.query(unit)


def _sparks(tx: Transaction, rows: Sequence[SessionRow]) -> dict[str, list[int]]:
    """Return the tokens of each session by turn, for its sparkline."""
    found = usage_queries.tokens_by_turn(tx, [row["session_id"] for row in rows])
    return {session_id: _binned(tokens) for session_id, tokens in found.items()}


def _binned(values: Sequence[int]) -> list[int]:
    """Return at most ``SPARKS`` numbers, each the highest of some neighbours."""
    size = -(-len(values) // SPARKS) or 1
    return [max(values[start : start + size]) for start in range(0, len(values), size)]


def _metadata(given: str | None) -> dict[str, JSON] | None:
    """Return a filter for metadata, given as a JSON object or as ``key=value``."""
    if given is None:
        return None
    name, equals, value = given.partition("=")
    if equals and not given.startswith("{"):
        return {name.strip(): value.strip()}
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "invalid metadata: expected key=value or a JSON object")
    return found


def _time(given: str | None, *, end_of_day: bool = False) -> Any:
    if given is None:
        return None
    return asked.moment(timestamps.instant(given, end_of_day=end_of_day))


def _digest_before(tx: Transaction, recorded: RecordedEvent) -> bytes | None:
    if tx.engine.lanes > 1:
        return None  # the one before it in its lane is not at the position before
    before = reader.event_at(tx, recorded.position - 1)
    return None if before is None else before.digest


def _event_rows(recorded: RecordedEvent) -> list[tuple[str, str]]:
    """Return the columns of an event with their names."""
    return [
        ("session", recorded.session_id),
        ("version", str(recorded.version)),
        ("type", f"{recorded.type}, schema version {recorded.schema_version}"),
        ("branch", recorded.branch_id or ""),
        ("happened", timestamps.iso(recorded.happened_at)),
        ("recorded", timestamps.iso(recorded.recorded_at)),
        ("metadata", recorded.metadata_json or ""),
        ("idempotency key", recorded.idempotency_key or ""),
        ("digest of the data", recorded.data_digest.hex()),
        ("digest", recorded.digest.hex()),
    ]


def _proof_documents(proof: Proof) -> list[dict[str, JSON]]:
    found = [verification.finding("log", *finding) for finding in proof.verified.findings]
    result = verification.result(proof.verified, ok=proof.verified.ok)
    return [*found, {**result, "events": proof.events}]
