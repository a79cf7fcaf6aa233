"""The commands of the command line, by name."""

from __future__ import annotations

from typing import Any

import typer.main

from agents_eventlog.adapters.cli import main as cli_main


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(cli_main.app)
    return dict(group.commands)
