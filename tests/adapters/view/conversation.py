"""A conversation for the pages: hostile text, a tool, a picture, an item taken off, and a branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents_eventlog import AdvancedSQLiteSession, recording

if TYPE_CHECKING:
    from pathlib import Path

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = (
    "Hi <script>alert(1)</script> ![picture](http://evil.test/x.png) [link](javascript:alert(1)) "
    "<img src=x onerror=alert(1)> \u202eright to left\x1b[31m"
)
HOSTILE_TEXTS = [
    HOSTILE,
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 1</script>",
    "</pre></details></main><script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "' onmouseover='window.hit = 1' '",
    "[a](javascript:window.hit=1) [b](data:text/html,x) [c](vbscript:x) <javascript:window.hit=1>",
    "![a](javascript:window.hit=1) ![b](https://evil.test/x.png) <http://evil.test/>",
    "<svg onload=window.hit=1><script>window.hit=1</script></svg>",
    "<iframe src=javascript:window.hit=1></iframe><base href=http://evil.test/>",
    "<meta http-equiv=refresh content='0;url=http://evil.test/'>",
    "<style>body{display:none}</style><link rel=stylesheet href=http://evil.test/>",
    "\u202eright to left\u2066 and \u200f hidden \x1b[31m \x00 NUL \x07",
    "{{ 7 * 7 }} {% raw %} ${7*7} <%= 7 %>",
    "half a pair \ud83d, a whole one \U0001f600",
    "x" * 1_000_000,
    "> " * 5_000 + "deep",
    "- " * 5_000 + "deep",
    "[" * 20_000,
    "`" * 5_000 + "*" * 5_000 + "_" * 5_000,
    "a" + "\u0301" * 5_000,
    "[x]: javascript:window.hit=1\n\n[x]",
]
ID = "support/4711"
EVERY_PAGE = [
    "/",
    f"/session?id={ID}&branch=main",
    f"/session?id={ID}&branch=draft",
    f"/session?id={ID}&v=3",
    f"/session/timeline?id={ID}",
    f"/session/spend?id={ID}",
    f"/session/compare?id={ID}&a=main&b=draft",
    f"/session/export?id={ID}",
    f"/session/window?id={ID}&around=1",
    f"/session/outline?id={ID}",
    f"/session/ticks?id={ID}",
    "/spend",
    "/events?census=1",
    "/event?position=2",
    "/event?position=5",
    "/search?q=script",
    "/health?prove=1&examine=1&tools=1",
]


async def talk(path: Path | str) -> None:
    """Write a conversation with hostile text, a tool, a picture, an item taken off, and a branch."""
    async with AdvancedSQLiteSession(ID, path, user_id="anna") as session:
        with recording(actor="web"):
            await session.add_items([{"role": "user", "content": HOSTILE}])
            await session.add_items(
                [
                    {
                        "type": "function_call",
                        "name": "courier",
                        "call_id": "c",
                        "arguments": '{"zip": "10115"}',
                    },
                    {"type": "function_call_output", "call_id": "c", "output": "two days"},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "Sorry!"}]},
                ]
            )
            await session.add_items(
                [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]
            )
        with recording(actor="boss"):
            await session.pop_item()
        await session.add_items([{"role": "user", "content": "second question"}])
        await session.create_branch_from_turn(2, "draft")
        await session.add_items([{"role": "user", "content": "another second question"}])
        await session.switch_to_branch("main")
