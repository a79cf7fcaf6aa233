"""What ``eventlog doctor`` reports about a log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agents_eventlog.eventlog.events import JSON
from agents_eventlog.eventlog.storage.engine import Problem, TableSize
from agents_eventlog.eventlog.storage.postgres import roles
from agents_eventlog.eventlog.storage.postgres.schema import TRIGGERS, version
from agents_eventlog.eventlog.storage.transaction import Transaction

MAX_BEHIND_BYTES: Final = 16 * 1024 * 1024
"""How far a replica may be behind before that is noted: one segment of the write-ahead log."""

ENABLED_TRIGGERS: Final = """
    SELECT CAST(tgname AS TEXT) FROM pg_trigger
    WHERE tgrelid = to_regclass('events') AND tgenabled IN ('O', 'A')
"""
WRONG_COLLATIONS: Final = """
    SELECT DISTINCT CAST(i.relname AS TEXT), CAST(c.collname AS TEXT)
    FROM pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL unnest(CAST(x.indcollation AS oid[])) AS used (id)
    JOIN pg_collation AS c ON c.oid = used.id
    WHERE i.relnamespace = to_regnamespace(current_schema()) AND c.collname NOT IN ('C', 'POSIX')
    ORDER BY 1
"""
REPLICAS: Final = """
    SELECT application_name, COALESCE(sync_state, ''), COALESCE(CAST(pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn
    ) AS BIGINT), 0)
    FROM pg_stat_replication WHERE state IS NOT NULL ORDER BY 1
"""
DEAD_TUPLES: Final = """
    SELECT CAST(relname AS TEXT), n_dead_tup, n_live_tup FROM pg_stat_user_tables
    WHERE schemaname = current_schema() AND n_dead_tup > 10000 AND n_dead_tup > n_live_tup
    ORDER BY 1
"""
CAN_APPEND: Final = """
    SELECT has_table_privilege(to_regclass('events'), 'INSERT') AND NOT pg_is_in_recovery()
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
    lacking = roles.missing(tx)
    if lacking:
        named = "; ".join(f"{', '.join(rights)} on {table}" for table, rights in lacking.items())
        yield Problem(
            "rights",
            f"the role {_role(tx)!r} lacks {named}",
            f"run `eventlog init DB --role {_role(tx)}` as the owner of the log",
        )
    for index, collation in tx.all(WRONG_COLLATIONS):
        yield Problem(
            "schema",
            f"the index {index!r} sorts texts as {collation!r}: pages of sessions can skip some",
            'create its column again with COLLATE "C"',
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
    if _setting(tx, "synchronous_commit") in ("off", "local"):
        yield Problem(
            "server",
            f"synchronous_commit is {_setting(tx, 'synchronous_commit')} by default: other programs "
            "can lose commits in a crash",
            'nothing, if all of them open the log with durability="full", which sets it to on',
            is_note=True,
        )
    yield from _replication(tx)
    for name, dead, live in tx.all(DEAD_TUPLES):
        yield Problem(
            "vacuum",
            f"{name} has {dead:,} dead rows beside {live:,} others",
            "check that autovacuum runs, or run VACUUM",
            is_note=True,
        )


def _replication(tx: Transaction) -> Iterator[Problem]:
    replicas = tx.all(REPLICAS)
    for name, _, behind in replicas:
        if behind > MAX_BEHIND_BYTES:
            yield Problem(
                "replication",
                f"the replica {name!r} is {behind:,} bytes behind",
                "check its connection and load; it reads old data, and a failover to it loses commits",
                is_note=True,
            )
    if replicas and not any(state in ("sync", "quorum") for _, state, _ in replicas):
        yield Problem(
            "replication",
            "no replica confirms commits: a failover can lose acknowledged events",
            "set synchronous_standby_names, if acknowledged events must survive a failover",
            is_note=True,
        )


def _role(tx: Transaction) -> str:
    row = tx.one("SELECT CAST(current_user AS TEXT)")
    return "" if row is None else str(row[0])


def _setting(tx: Transaction, name: str) -> str:
    row = tx.one("SELECT current_setting(?)", (name,))
    return "" if row is None else str(row[0])


def is_writable(tx: Transaction) -> bool:
    """Whether the role may append, and the server is not a replica."""
    return tx.one(CAN_APPEND) == (True,)


def facts(tx: Transaction) -> dict[str, JSON]:
    """Return what the storage is and how large."""
    return {
        "bytes": sum(size.bytes for size in table_sizes(tx)),
        "schema_version": version(tx),
        "postgres_version": _setting(tx, "server_version"),
        "synchronous_commit": _setting(tx, "synchronous_commit"),
        "role": _role(tx),
    }


def table_sizes(tx: Transaction) -> list[TableSize]:
    """Return the size of each table with its indexes, the largest first."""
    return [TableSize(name, size, is_estimate=False) for name, size in tx.all(SIZES)]
