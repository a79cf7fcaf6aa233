"""How values travel: integers as 64 bits, and texts with NUL characters, which PostgreSQL cannot store."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.adapt import Loader
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper, TextLoader

ESCAPE: Final = "\ue000"
"""A character of the private use area; it begins an escape, and is itself escaped."""


class _TextDumper(StrDumper):
    """Escapes NUL characters."""

    def dump(self, obj: str) -> Any:
        if "\0" in obj or ESCAPE in obj:
            obj = obj.replace(ESCAPE, f"{ESCAPE}1").replace("\0", f"{ESCAPE}0")
        return super().dump(obj)


class _TextLoader(TextLoader):
    """Restores NUL characters."""

    def load(self, data: Any) -> str | bytes:
        text = super().load(data)
        if isinstance(text, str) and ESCAPE in text:
            text = text.replace(f"{ESCAPE}0", "\0").replace(f"{ESCAPE}1", ESCAPE)
        return text


class _BoolDumper(Int8Dumper):
    """Stores a bool as the integer that it is."""

    def dump(self, obj: Any) -> Any:
        return super().dump(int(obj))


class _SumLoader(Loader):
    """Loads the sum of integers, which is ``numeric``, as an integer."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return float(text) if "." in text else int(text)


def register(connection: psycopg.Connection[Any]) -> None:
    """Make a connection store and return values as the shared code expects them."""
    connection.adapters.register_dumper(int, Int8Dumper)  # else the type depends on the value
    connection.adapters.register_dumper(bool, _BoolDumper)
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_loader("text", _TextLoader)
    connection.adapters.register_loader("numeric", _SumLoader)
