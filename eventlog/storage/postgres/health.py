"""What ``eventlog doctor`` reports about a log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.engine import Problem, TableSize
from agents_eventlog.eventlog.storage.postgres.schema import TRIGGERS, version
from agents_eventlog.eventlog.storage.transaction import Transaction

ENABLED_TRIGGERS: Final = """
    SELECT CAST(tgname AS TEXT) FROM pg_trigger
    WHERE tgrelid = to_regclass('events') AND tgenabled IN ('O', 'A')
"""
DEAD_TUPLES: Final = """
    SELECT CAST(relname AS TEXT), n_dead_tup, n_live_tup FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND n_dead_tup > 10000 AND n_dead_tup > n_live_tup
    ORDER BY 1
"""
SIZES: Final = """
    SELECT CAST(relname AS TEXT), pg_total_relation_size(oid) FROM pg_class
    WHERE relnamespace = to_regnamespace(current_schema()) AND relkind = 'r'
    ORDER BY 2 DESC, 1
"""


def problems(tx: Transaction) -> Iterator[Problem]:
    """Yield what needs attention in the schema and in the server's settings."""
    enabled = {name for (name,) in tx.all(ENABLED_TRIGGERS)}
    for name in TRIGGERS:
        if name not in enabled:
            yield Problem(
                "schema",
                f"the trigger {name!r} is missing or disabled: events can be altered",
                "run `eventlog verify` with a head kept elsewhere, then create the trigger again",
            )
    if _setting(tx, "server_encoding") != "UTF8":
        yield Problem(
            "database",
            f"its encoding is {_setting(tx, 'server_encoding')}: some texts cannot be stored",
            "copy the log into a database with the encoding UTF8",
        )
    if _setting(tx, "fsync") == "off":
        yield Problem(
            "server", "fsync is off: a crash can damage the log", "set fsync = on and restart it"
        )
    for name, dead, live in tx.all(DEAD_TUPLES):
        yield Problem(
            "vacuum",
            f"{name} has {dead:,} dead rows beside {live:,} others",
            "check that autovacuum runs, or run VACUUM",
            is_note=True,
        )


def _setting(tx: Transaction, name: str) -> str:
    row = tx.one("SELECT current_setting(?)", (name,))
    return "" if row is None else str(row[0])


def facts(tx: Transaction) -> dict[str, JSON]:
    """Return what the storage is and how large."""
    return {
        "bytes": sum(size.bytes for size in table_sizes(tx)),
        "schema_version": version(tx),
        "postgres_version": _setting(tx, "server_version"),
        "synchronous_commit": _setting(tx, "synchronous_commit"),
    }


def table_sizes(tx: Transaction) -> list[TableSize]:
    """Return the size of each table with its indexes, the largest first."""
    return [TableSize(name, size, is_estimate=False) for name, size in tx.all(SIZES)]
