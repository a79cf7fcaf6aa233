"""
A chat service on FastAPI: many users, many workers, one file.

    pip install 'agents-eventlog[examples]'
    OPENAI_API_KEY=... uvicorn --factory examples.chat_service:create_app --workers 2

Each request makes a session object of its own, for the user who sends it. A chat of another user is 404,
like one that does not exist. A second message while the first is being answered is 409. An answer that is
retried, or a question that is edited, starts a branch: both versions stay, and the user can go back.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from agents import Agent, Runner
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog.errors import (
    BranchNotFoundError,
    SessionBusyError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionOwnerError,
    TurnNotFoundError,
)

api = APIRouter()


class Title(BaseModel):
    """The title of a chat; null for the first message."""

    title: str | None = Field(default=None, max_length=200)


class Message(BaseModel):
    """A message of the user."""

    text: str = Field(min_length=1, max_length=20_000)


class Version(BaseModel):
    """A branch of a chat, as ``read_versions`` returns it."""

    branch_id: str


# -- who asks, and for what ------------------------------------------------------------------------


def current_user(x_user: Annotated[str, Header(min_length=1)]) -> str:
    """Return the id of the user who sends the request. Your authentication goes here."""
    return x_user


def log_of(request: Request) -> ConversationLog:
    """Return the log, which is not restricted to a user."""
    log: ConversationLog = request.app.state.log
    return log


User = Annotated[str, Depends(current_user)]
Log = Annotated[ConversationLog, Depends(log_of)]


async def existing_chat(chat_id: str, user_id: User, log: Log) -> AdvancedSQLiteSession:
    """Return the session of a chat on its last branch. Raises SessionOwnerError for another user's."""
    session = AdvancedSQLiteSession(chat_id, log.path, user_id=user_id, resume=True)
    if await session.state() != "active":  # a write would create an unknown session
        raise SessionNotFoundError(chat_id)
    return session


Chat = Annotated[AdvancedSQLiteSession, Depends(existing_chat)]


# -- chats -----------------------------------------------------------------------------------------


@api.post("/chats", status_code=201)
async def create_chat(body: Title, user_id: User, log: Log) -> dict[str, str]:
    """Create an empty chat."""
    session = AdvancedSQLiteSession(secrets.token_urlsafe(16), log.path, user_id=user_id)
    await session.set_title(body.title)
    return {"chat_id": session.session_id}


@api.get("/chats")
async def list_chats(user_id: User, log: Log, after: str | None = None) -> list[dict[str, Any]]:
    """List the user's chats, most recently used first; ``after`` is the cursor of the last one."""
    rows = await log.sessions(user_id=user_id, limit=50, after=after)
    return [
        {
            "chat_id": row["session_id"],
            "title": row["title"],
            "updated_at": row["updated_at"],
            "turns": row["turn_count"],
            "cursor": row["cursor"],
        }
        for row in rows
    ]


@api.get("/chats/{chat_id}")
async def read_chat(session: Chat) -> dict[str, Any]:
    """Return the items of a chat."""
    return {"items": await session.get_items()}


@api.put("/chats/{chat_id}/title", status_code=204)
async def rename_chat(body: Title, session: Chat) -> None:
    """Set or remove the title of a chat."""
    await session.set_title(body.title)


@api.delete("/chats/{chat_id}", status_code=204)
async def delete_chat(session: Chat) -> None:
    """Delete a chat. Its content stays in the log until it is erased."""
    await session.delete_session()


# -- turns -----------------------------------------------------------------------------------------


def agent_of(request: Request) -> Agent[Any]:
    """Return the agent that answers."""
    agent: Agent[Any] = request.app.state.agent
    return agent


Answering = Annotated[Agent[Any], Depends(agent_of)]


@api.post("/chats/{chat_id}/messages")
async def send(body: Message, session: Chat, agent: Answering) -> dict[str, str]:
    """Answer a message."""
    async with session.exclusive(wait_seconds=0):
        result = await Runner.run(agent, body.text, session=session)
    return {"answer": str(result.final_output)}


@api.post("/chats/{chat_id}/turns/{turn}/retry")
async def retry(turn: int, session: Chat, agent: Answering) -> dict[str, str]:
    """Answer a turn again, on a new branch."""
    async with session.exclusive(wait_seconds=0):
        result = await Runner.run(agent, await session.retry(turn), session=session)
    return {"answer": str(result.final_output)}


@api.put("/chats/{chat_id}/turns/{turn}")
async def edit(turn: int, body: Message, session: Chat, agent: Answering) -> dict[str, str]:
    """Answer a turn with another text, on a new branch."""
    async with session.exclusive(wait_seconds=0):
        result = await Runner.run(agent, await session.edit(turn, body.text), session=session)
    return {"answer": str(result.final_output)}


@api.get("/chats/{chat_id}/turns/{turn}/versions")
async def read_versions(turn: int, session: Chat) -> list[dict[str, Any]]:
    """Return the versions of a turn, for a control such as "2 of 3"."""
    return [
        {"number": each["number"], "branch_id": each["branch_id"], "is_current": each["is_current"]}
        for each in await session.siblings(turn)
    ]


@api.put("/chats/{chat_id}/version", status_code=204)
async def show_version(body: Version, session: Chat) -> None:
    """Continue on another branch."""
    async with session.exclusive(wait_seconds=0):
        await session.switch_to_branch(body.branch_id)


@api.post("/chats/{chat_id}/undo")
async def undo(session: Chat) -> dict[str, Any]:
    """Remove the last turn, and return its items."""
    async with session.exclusive(wait_seconds=0):
        return {"items": await session.undo_turn()}


@api.post("/chats/{chat_id}/redo")
async def redo(session: Chat) -> dict[str, Any]:
    """Add the last undone turn again, and return its items."""
    async with session.exclusive(wait_seconds=0):
        return {"items": await session.redo()}


# -- my data ---------------------------------------------------------------------------------------


@api.get("/me/data")
async def export_my_data(user_id: User, log: Log) -> StreamingResponse:
    """Return all chats of the user, deleted ones included, as JSON lines."""
    lines = (f"{line}\n" async for line in log.export_user(user_id))
    return StreamingResponse(lines, media_type="application/jsonl")


@api.delete("/me/data")
async def erase_my_data(user_id: User, log: Log) -> dict[str, Any]:
    """Erase all chats of the user; no byte of their content stays in the file."""
    erasure = await log.erase(user_id=user_id, reason="the user asked for it")
    return {"chats": erasure.sessions, "is_complete": erasure.is_complete}


# -- the application -------------------------------------------------------------------------------


async def not_found(_request: Request, _error: Exception) -> JSONResponse:
    """Answer alike for unknown, deleted and other users' chats, so that an id cannot be tried out."""
    return JSONResponse({"detail": "chat not found"}, status_code=404)


async def no_such_version(_request: Request, _error: Exception) -> JSONResponse:
    """Answer for a turn or branch that the chat does not have."""
    return JSONResponse({"detail": "turn or version not found"}, status_code=404)


async def busy(_request: Request, _error: Exception) -> JSONResponse:
    """Answer a message that came while another one was being answered."""
    return JSONResponse({"detail": "the last message is being answered"}, status_code=409)


def create_app(path: str = "chats.db", agent: Agent[Any] | None = None) -> FastAPI:
    """Return the application on a log file."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ConversationLog.open(path) as log:
            app.state.log = log
            yield

    app = FastAPI(title="Chats", lifespan=lifespan)
    app.state.agent = agent or Agent(name="Assistant", instructions="Answer briefly.")
    app.include_router(api)
    for missing in (SessionOwnerError, SessionNotFoundError, SessionDeletedError):
        app.add_exception_handler(missing, not_found)
    for missing in (TurnNotFoundError, BranchNotFoundError):
        app.add_exception_handler(missing, no_such_version)
    app.add_exception_handler(SessionBusyError, busy)
    return app
