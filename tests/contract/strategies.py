"""What the state machine draws: items of every kind, names, and the turns and terms to ask for."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.contract.items import assistant, call, output, ran, user

TEXTS = st.sampled_from(
    ["", "cats", "CATS and dogs", "é", "É", "100%", "a_b", "\\u00e9", "line\nfeed", "x" * 130, "🍕"]
)
TERMS = ("cat", "", "é", "%", "_", "\\", "u00e9", "\n", "xx", "nowhere")
TOOL_TYPES = (
    "tool_call",
    "function_call",
    "computer_call",
    "file_search_call",
    "web_search_call",
    "code_interpreter_call",
    *("tool_search_call", "tool_search_output") * 2,
    "tool_search_call",
    "tool_search_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "local_shell_call",
    "image_generation_call",
    "computer_call_output",
    "function_call_output",
)
SAID = st.one_of(
    TEXTS.map(user),
    TEXTS.map(lambda text: user([{"type": "input_text", "text": text}])),
    TEXTS.map(
        lambda text: user(
            [{"type": "input_image", "image_url": "https://example.com/cats"}, {"text": text}]
        )
    ),
    st.just({"role": "user"}),
    st.just(user([])),
    st.just(user(["cats"])),
)
NAMES = st.sampled_from([None, "", "lookup", "search", "cats"])
CALLED = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(TOOL_TYPES),
    st.fixed_dictionaries(
        {}, optional={"name": NAMES, "namespace": NAMES, "server_label": NAMES, "call_id": NAMES}
    ),
)
ANSWERED = st.one_of(
    TEXTS.map(assistant),
    TEXTS.map(lambda text: {"role": "assistant", "content": text}),
    st.just(call()),
    st.just(output()),
    st.just({"type": "reasoning", "id": "rs_1", "summary": []}),
    st.just({"role": "system", "content": "cats"}),
    st.just({"role": "system", "type": "message", "content": "cats"}),
    st.just({"role": "developer", "content": []}),
    st.just({"type": "compaction", "encrypted_content": "x"}),
)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    ["cats", 5, 1.5, None, True, [], ["user"], {}, {"type": None}, {"type": 7}, {"content": "cats"}]
)
ITEMS = st.one_of(SAID, SAID, CALLED, CALLED, ANSWERED, ODD)
BATCHES = st.lists(ITEMS, min_size=1, max_size=5)
TURN = st.tuples(SAID, CALLED, st.one_of(ANSWERED, CALLED, ODD)).map(list)
BEGINNINGS = st.tuples(ITEMS, TURN, TURN, TURN).map(
    lambda parts: [parts[0], *parts[1], *parts[2], *parts[3]]
)

SESSIONS = st.sampled_from(["first", "first", "first", "second"])
BRANCH_NAMES = st.sampled_from(["draft", "Draft", " draft ", "é", *(f"b{n}" for n in range(4))])
ANY_NAMES = BRANCH_NAMES | st.sampled_from(["main", "Main", "", "  "])
NO_TURNS = st.sampled_from([-1, 99])
COUNTS = st.integers(0, 50)
RESULTS = st.builds(
    lambda requests, inputs, outputs, cached, reasoning: ran(
        requests, inputs, outputs, cached=cached, reasoning=reasoning
    ),
    st.integers(1, 3),
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
)
