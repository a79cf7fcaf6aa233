"""What a program may set for all logs of the process."""

from __future__ import annotations


class Settings:
    """
    Settings of the process; change an attribute before opening logs.

    busy_timeout_seconds: how long a statement waits for another process before it fails with BusyError.
    idle_files: maximum number of files that stay open when no log or session object uses them, for the
        next that does. The least recently opened is closed first, in the background.
    """

    __slots__ = ("busy_timeout_seconds", "idle_files")

    def __init__(self) -> None:
        self.busy_timeout_seconds = 5.0
        self.idle_files = 8


settings = Settings()
