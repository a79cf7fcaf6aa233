"""Search for tool calls without an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agents_eventlog.projections.conversations import queries as conversation_queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents_eventlog.eventlog.storage.transaction import Transaction

OUTPUTS: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
}
"""The types of calls that the program answers, with the types of their outputs."""


class Unanswered(NamedTuple):
    """A branch with tool calls that have no output; each call in the form ``name (call id)``."""

    session_id: str
    branch_id: str
    calls: list[str]


class ToolCalls:
    """Collector of tool calls and outputs among a log's items; it does not keep the items."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[str, str, str]] = {}

    def note(self, position: int, items: Sequence[object]) -> None:
        """Collect the calls and outputs among an event's items."""
        for index, item in enumerate(items):
            if (found := _paired(item)) is not None:
                self._found[position, index] = found

    def unanswered(self, tx: Transaction) -> Iterator[Unanswered]:
        """Yield the live branches that have calls without outputs."""
        for branch in conversation_queries.live_branches(tx) if self._found else ():
            refs = conversation_queries.refs(tx, branch.pointer)
            keys = ((ref.position, ref.index) for ref in refs)
            here = [self._found[key] for key in keys if key in self._found]
            given = {(kind, call_id) for kind, call_id, _ in here}
            missing = [
                f"{name} ({call_id})"
                for kind, call_id, name in here
                if kind in OUTPUTS and (OUTPUTS[kind], call_id) not in given
            ]
            if missing:
                yield Unanswered(branch.session_id, branch.branch_id, missing)


def call_id_of(item: Mapping[str, Any]) -> str | None:
    """Return the id that connects a call with its output; some outputs have it as ``id``."""
    call_id = item.get("call_id")
    if call_id is None and item.get("type") in OUTPUTS.values():
        call_id = item.get("id")
    return call_id if isinstance(call_id, str) else None


def _paired(item: object) -> tuple[str, str, str] | None:
    """Return the type, the call id and the tool name of a call or an output; None for other items."""
    if not isinstance(item, Mapping):
        return None
    kind, call_id = item.get("type"), call_id_of(item)
    if not isinstance(kind, str) or call_id is None:
        return None
    if kind in OUTPUTS or kind in OUTPUTS.values():
        name = item.get("name")
        return kind, call_id, name if isinstance(name, str) else kind
    return None
