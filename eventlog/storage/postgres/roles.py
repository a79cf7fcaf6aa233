"""
Rights: the owner of the tables, and a role for applications that can append and read.

That role cannot change or delete events, nor change the schema. Locking a row requires the right to update
one of its columns, so ``lanes`` and ``session_locks`` have a column for that, which nothing reads.
"""

from __future__ import annotations

from typing import Final

from agents_eventlog.eventlog.storage.postgres import schema
from agents_eventlog.eventlog.storage.transaction import Transaction

RIGHTS: Final = {
    "events": ("SELECT", "INSERT"),
    "checkpoints": ("SELECT", "INSERT", "UPDATE"),
    "log_properties": ("SELECT",),
    "lanes": ("SELECT", "UPDATE"),
    "session_locks": ("SELECT", "INSERT", "UPDATE"),
}
"""What an application needs of the log's own tables."""

OF_PROJECTIONS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
OF_VIEWS: Final = ("SELECT",)

LOCKED_BY_ROW: Final = frozenset({"lanes", "session_locks"})

EXISTS: Final = "SELECT 1 FROM pg_roles WHERE rolname = ?"
CURRENT: Final = "SELECT CAST(current_user AS TEXT), CAST(current_schema() AS TEXT)"
CAN_CONNECT: Final = """
    SELECT CAST(current_database() AS TEXT), has_database_privilege(?, current_database(), 'CONNECT')
"""
HAS_RIGHT: Final = """
    SELECT CASE WHEN ? = 'UPDATE'
        THEN has_any_column_privilege(to_regclass(?), 'UPDATE')
        ELSE has_table_privilege(to_regclass(?), ?)
    END
"""


def grant(tx: Transaction, role: str) -> None:
    """
    Give a role, which is created if it does not exist, the rights of an application, and no others.

    Tables that the owner creates later get them, too. Raises ValueError for the owner's own role.
    """
    owner, schema_name = tx.all(CURRENT)[0]
    if role == owner:
        raise ValueError(f"invalid role: {role!r} owns the log, expected another role")
    name = _quoted(role)
    if tx.one(EXISTS, (role,)) is None:
        tx.execute(f"CREATE ROLE {name} LOGIN")
    database, can_connect = tx.all(CAN_CONNECT, (role,))[0]
    if not can_connect:
        tx.execute(f"GRANT CONNECT ON DATABASE {_quoted(database)} TO {name}")
    within = f"IN SCHEMA {_quoted(schema_name)}"
    tx.execute(f"GRANT USAGE ON SCHEMA {_quoted(schema_name)} TO {name}")
    tx.execute(f"REVOKE ALL ON ALL TABLES {within} FROM {name}")
    for table, rights in rights_of_tables(tx).items():
        columns = " (locked)" if table in LOCKED_BY_ROW else ""
        listed = ", ".join(f"{right}{columns if right == 'UPDATE' else ''}" for right in rights)
        tx.execute(f"GRANT {listed} ON {_quoted(table)} TO {name}")
    listed = ", ".join(OF_PROJECTIONS)
    tx.execute(f"ALTER DEFAULT PRIVILEGES {within} GRANT {listed} ON TABLES TO {name}")


def rights_of_tables(tx: Transaction) -> dict[str, tuple[str, ...]]:
    """Return what an application needs, for each table and view of the schema."""
    kinds: dict[str, str] = dict(tx.all(schema.KINDS))
    others = {
        name: OF_VIEWS if kind == "v" else OF_PROJECTIONS
        for name, kind in sorted(kinds.items())
        if name not in RIGHTS
    }
    return {**RIGHTS, **others}


def missing(tx: Transaction) -> dict[str, list[str]]:
    """Return the rights that the current role lacks to work with the log, by table."""
    found: dict[str, list[str]] = {}
    for table, rights in rights_of_tables(tx).items():
        for right in rights:
            if tx.one(HAS_RIGHT, (right, table, table, right)) != (True,):
                found.setdefault(table, []).append(right)
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
