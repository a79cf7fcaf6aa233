"""The command line as a program of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress

COMMAND = [sys.executable, "-m", "agents_eventlog"]


def on_a_terminal(*arguments: str) -> str:
    """Run a command with stderr on a terminal, stdout elsewhere; return what the terminal got."""
    controller, side = pty.openpty()
    received = bytearray()

    def receive() -> None:
        with suppress(OSError):
            while data := os.read(controller, 65_536):
                received.extend(data)

    thread = threading.Thread(target=receive)
    thread.start()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    try:
        subprocess.run(
            [*COMMAND, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=side,
            env=environment,
            check=True,
        )
    finally:
        os.close(side)
        thread.join()
        os.close(controller)
    return received.decode()
