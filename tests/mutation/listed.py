"""What is listed by hand: the modules with their tests, and the mutants that may survive."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")

_MOVING = ("tests/adapters/cli/test_export.py", "tests/adapters/cli/test_import.py")
_BUILDERS = (
    *("tests/projections/test_branch_tree.py", "tests/projections/test_conversations.py"),
    "tests/properties/test_histories.py",
)
TESTS: dict[str, tuple[str, ...]] = {
    "eventlog/appending.py": ("tests/eventlog/test_log.py",),
    "eventlog/codec.py": ("tests/eventlog/test_codec.py",),
    "eventlog/jsonl/export.py": _MOVING,
    "eventlog/jsonl/import_.py": _MOVING,
    "eventlog/integrity.py": (
        "tests/eventlog/test_integrity.py",
        "tests/properties/test_digest.py",
    ),
    "eventlog/appender.py": (
        *("tests/eventlog/test_appender.py", "tests/eventlog/test_cursors.py"),
        *("tests/eventlog/test_damaged.py", "tests/eventlog/test_used_up.py"),
        "tests/pinned/test_appender_ends.py",
    ),
    "eventlog/jsonl/format.py": ("tests/eventlog/test_jsonl_format.py",),
    "eventlog/reader.py": (
        "tests/eventlog/test_reading.py",
        "tests/projections/test_query_plans.py",
    ),
    "eventlog/recorded_event.py": ("tests/eventlog/test_recorded_event.py",),
    "eventlog/storage/sqlite/schema.py": ("tests/eventlog/test_schema.py",),
    "eventlog/storage/writer.py": (
        *("tests/eventlog/test_store.py", "tests/eventlog/test_connections.py"),
        *("tests/faults/test_group_commit.py", "tests/faults/test_commit_failure.py"),
        "tests/faults/test_fork.py",
    ),
    "eventlog/storage/transaction.py": (
        *("tests/eventlog/test_transaction.py", "tests/pinned/test_transaction_rows.py"),
    ),
    "projections/conversations/builder.py": (
        *_BUILDERS,
        "tests/pinned/test_remembered_rows.py",
        *("tests/projections/test_erasing.py", "tests/projections/test_metadata_index.py"),
    ),
    "projections/conversations/as_of.py": ("tests/projections/test_as_of.py",),
    "projections/projector.py": (
        *("tests/projections/test_projector.py", "tests/pinned/test_remembered_rows.py"),
    ),
    "projections/replay.py": ("tests/projections/test_replay.py",),
    "projections/conversations/branch_tree.py": (
        *_BUILDERS,
        "tests/projections/test_damaged_tables.py",
    ),
    "eventlog/item_kind.py": ("tests/projections/test_item_kind.py",),
    "projections/usage/builder.py": (
        *("tests/projections/test_usage.py", "tests/projections/test_usage_rows.py"),
        *("tests/properties/test_spending.py", "tests/properties/test_histories.py"),
    ),
}
"""The modules, each with the tests that are asked; of these, each mutant's are those that reach it."""


def dotted(module: str) -> str:
    """Return the name by which a module of the checkout is imported."""
    return f"agents_eventlog.{module.removesuffix('.py').replace('/', '.')}"


class Change(NamedTuple):
    """What a mutant is known by: its function, and the lines before and after, wherever they stand."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.before}\n  + {self.after}"


class Listed(NamedTuple):
    """What ``survivors.toml`` says: which mutants may survive, and which changes change nothing."""

    survivors: set[Change]
    rewordings: list[tuple[str, str]]

    @classmethod
    def read(cls) -> Listed:
        """Read the file."""
        content = tomllib.loads(SURVIVORS.read_text())
        survivors = {
            Change(each["function"], each["before"], after)
            for each in content.get("survivor", ())
            for after in ([each["after"]] if isinstance(each["after"], str) else each["after"])
        }
        rewordings = [
            (each["before"], after)
            for each in content.get("everywhere", ())
            for after in each["after"]
        ]
        return cls(survivors, rewordings)

    def equivalent(self, change: Change) -> bool:
        """Whether a change need not be asked about, wherever it is made."""
        if change.before.casefold() == change.after.casefold():
            return True  # the case of a text, of which all is changed by another mutant
        return any(
            change.before.replace(before, after, 1) == change.after
            for before, after in self.rewordings
        )

    def of_module(self, module: str) -> set[Change]:
        """Return the listed survivors of a module."""
        return {each for each in self.survivors if each.function.startswith(f"{dotted(module)}.")}
