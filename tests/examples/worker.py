"""The chat service with a model that answers slowly: started by ``test_workers``."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from agents import Agent

from agents_eventlog.testing import ScriptedModel, reply, tokens
from examples.chat_service import create_app

if TYPE_CHECKING:
    from fastapi import FastAPI


async def _answer(_items: Any) -> Any:
    await asyncio.sleep(1)
    return reply(str(os.getpid()), usage=tokens(10, 2))


def make() -> FastAPI:
    """Return the application on the file that the environment names."""
    return create_app(
        os.environ["CHATS_DB"], Agent(name="Assistant", model=ScriptedModel(fallback=_answer))
    )
