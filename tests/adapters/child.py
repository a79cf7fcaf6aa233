"""Python in a process of its own, as somebody who may not write everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

PROLOGUE = """
import asyncio, json, os, resource, sys
from pathlib import Path
from agents_eventlog import AdvancedSQLiteSession
import agents_eventlog.adapters.openai_agents.advanced_sqlite, encodings.idna
import agents_eventlog.eventlog.storage.sqlite.thread
from agents_eventlog.eventlog import EventLog, errors

arguments = json.loads(sys.argv[1])
path = arguments.pop("path")

def told(function):
    try:
        value = function()
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"error": type(error).__name__, "kinds": kinds, "message": str(error)}
    return {"value": value}

def add(session, *texts):
    asyncio.run(session.add_items([{"role": "user", "content": text} for text in texts]))

def contents(session):
    return [item["content"] for item in asyncio.run(session.get_items())]
"""

NOBODY = """
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


def run(
    body: str,
    path: Path,
    *,
    as_nobody: bool = False,
    before: tuple[str, ...] = (),
    **arguments: Any,
) -> Any:
    """
    Run a script and return what it prints as JSON.

    as_nobody: without the rights of root, once everything is imported.
    before: a command to run the interpreter under.
    """
    script = PROLOGUE + (NOBODY if as_nobody else "") + textwrap.dedent(body)
    told = json.dumps({"path": str(path), **arguments})
    done = subprocess.run(
        [*before, sys.executable, "-W", "error", "-c", script, told],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
