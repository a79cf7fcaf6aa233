"""The conversation that the manual looks into: who asked, what was answered, what was taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agents.usage import Usage

from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.eventlog import recording

if TYPE_CHECKING:
    from pathlib import Path


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def assistant(text: str) -> Any:
    return {"role": "assistant", "content": text}


def used(requests: int, read: int, written: int) -> Any:
    usage = Usage(
        requests=requests, input_tokens=read, output_tokens=written, total_tokens=read + written
    )
    return SimpleNamespace(context_wrapper=SimpleNamespace(usage=usage))


async def write(path: Path) -> None:
    """Write it into a new file."""
    session = AdvancedSQLiteSession("support-42", path)
    call = {"type": "function_call", "call_id": "c1", "name": "track"}
    with recording(actor="web", trace_id="t-81f3"):
        await session.add_items([user("Where is my parcel?")])
        await session.add_items(
            [
                {**call, "arguments": '{"order": 1042}'},
                {
                    "type": "function_call_output",
                    "call_id": "c1",
                    "output": "in Hamburg since Monday",
                },
                assistant("It has been in Hamburg since Monday."),
            ]
        )
        await session.store_run_usage(used(2, 1_100, 104))
        await session.add_items(
            [user("I want my money back."), assistant("Refunds are not possible.")]
        )
    with recording(actor="anna@support"):
        await session.pop_item()
        await session.create_branch_from_turn(2, "kinder")
        await session.add_items(
            [user("Can I get a refund?"), assistant("Of course: it is on its way.")]
        )
        await session.create_branch("draft")
        await session.add_items([assistant("Also, here is a voucher.")])
        await session.switch_to_branch("kinder")
        await session.delete_branch("draft")
    session.close()
