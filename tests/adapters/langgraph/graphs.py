"""A graph without a network: a model that looks up what it is asked for, with a tool that asks first."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}


def model(state: MessagesState) -> dict[str, Any]:
    """Call the tool with the question, then give its answer."""
    last = state["messages"][-1]
    number = len(state["messages"])
    told: dict[str, Any] = {
        "usage_metadata": USAGE,
        "response_metadata": {"model_name": "gpt-4.1"},
        "id": f"answer-{number}",
    }
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(f"It is {last.content}.", **told)]}
    call = {"name": "look_up", "args": {"name": last.content}, "id": f"call_{number}"}
    return {"messages": [AIMessage("", tool_calls=[call], **told)]}


def look_up(state: MessagesState) -> dict[str, Any]:
    """Look up a name, if that is approved."""
    (call,) = state["messages"][-1].tool_calls  # type: ignore[union-attr]
    if call["args"]["name"] == "Eve":
        interrupt("May I look up Eve?")
    message = ToolMessage("room 4", tool_call_id=call["id"], name="look_up", id=f"{call['id']}-out")
    return {"messages": [message]}


def graph(checkpointer: Any) -> Any:
    """The graph."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("look_up", look_up)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: "look_up" if state["messages"][-1].tool_calls else "__end__"
    )
    builder.add_edge("look_up", "model")
    return builder.compile(checkpointer=checkpointer)


def ask(name: str) -> dict[str, Any]:
    """The input for a question."""
    return {"messages": [HumanMessage(name, id=f"question-{name}")]}
