"""
Mutation testing: is a test there that notices when a line is changed?

    make mutants                                      all modules of TESTS, one after the other; an hour
    make mutants MODULE=eventlog/integrity.py         one of them; a minute or more
    make mutants MODULE=eventlog/codec.py:decode      the functions of it that the pattern finds
    make mutants MODULE='--again eventlog/codec.py'   also what is listed as a survivor

mutmut changes functions, one place at a time; the tests below are asked about each change (see asking.py).
What no test notices must stand in ``survivors.toml`` with the reason why it may; else the exit code is 1.
mutmut's own runner is not used: it starts pytest anew for each mutant, which takes a hundred times what
most of these tests take. What stands outside functions (SQL, for one) and decorated functions are not
changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutation.asking import SURVIVED, TIMED_OUT, UNREACHED, Asking
from tests.mutation.mutants import ROOT, Change, of_module

SURVIVORS = Path(__file__).with_name("survivors.toml")
PROCESSES = 2
AGAIN = "--again"
OPTIONS = ("-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=0")

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
    "eventlog/appender.py": ("tests/eventlog/test_appender.py",),
    "eventlog/jsonl/format.py": ("tests/eventlog/test_jsonl_format.py",),
    "eventlog/reader.py": (
        "tests/eventlog/test_reading.py",
        "tests/projections/test_query_plans.py",
    ),
    "eventlog/recorded_event.py": ("tests/eventlog/test_recorded_event.py",),
    "eventlog/storage/sqlite/schema.py": ("tests/eventlog/test_schema.py",),
    "eventlog/storage/sqlite/store.py": (
        *("tests/eventlog/test_store.py", "tests/eventlog/test_connections.py"),
        *("tests/faults/test_group_commit.py", "tests/faults/test_commit_failure.py"),
        "tests/faults/test_fork.py",
    ),
    "eventlog/storage/transaction.py": ("tests/eventlog/test_transaction.py",),
    "projections/conversations/builder.py": (
        *_BUILDERS,
        *("tests/projections/test_erasing.py", "tests/projections/test_metadata_index.py"),
    ),
    "projections/conversations/as_of.py": ("tests/projections/test_as_of.py",),
    "projections/projector.py": ("tests/projections/test_projector.py",),
    "projections/replay.py": ("tests/projections/test_replay.py",),
    "projections/conversations/branch_tree.py": (
        *_BUILDERS,
        "tests/projections/test_damaged_tables.py",
    ),
    "projections/conversations/item_kind.py": ("tests/projections/test_item_kind.py",),
    "projections/usage/builder.py": (
        *("tests/projections/test_usage.py", "tests/projections/test_usage_rows.py"),
        *("tests/properties/test_spending.py", "tests/properties/test_histories.py"),
    ),
}
"""The modules, each with the tests that are asked; of these, each mutant's are those that reach it."""


def main(arguments: list[str]) -> int:
    """Mutate modules; return 1 if something survived that is not accounted for."""
    modules = [each for each in arguments if each != AGAIN]
    if len(modules) == 1:
        return mutate(*modules[0].partition(":")[::2], again=AGAIN in arguments)
    options = [each for each in arguments if each == AGAIN]
    command = [sys.executable, "-m", "tests.mutation", *options]
    each_alone = [
        subprocess.run([*command, module], cwd=ROOT, check=False) for module in modules or TESTS
    ]
    return max(done.returncode for done in each_alone)


def mutate(module: str, functions: str, *, again: bool) -> int:
    """Mutate the functions of a module in whose names a pattern is found, in this process."""
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "quick"
    listed = Listed.read()
    found = [each for each in of_module(module) if re.search(functions, each.change.function)]
    mutants = [each for each in found if not listed.equivalent(each.change)]
    if not again:
        mutants = [each for each in mutants if each.change not in listed.survivors]
    asking = Asking(mutants, PROCESSES)
    pytest.main([*OPTIONS, *TESTS[module]], plugins=[asking])
    if asking.failed_unchanged or len(asking.ends) != len(mutants):
        print(f"{module}: not asked about, its tests fail unchanged: {asking.failed_unchanged}")
        return 1
    counts = Counter(end for _, end in asking.ends)
    counts["not asked about"] = len(found) - len(mutants)
    print(f"{module}: {len(found)} mutants, {', '.join(f'{counts[end]} {end}' for end in counts)}")
    left = {change for change, end in asking.ends if end in {SURVIVED, UNREACHED}}
    for change in sorted({change for change, end in asking.ends if end == TIMED_OUT}):
        print(f"TIMED OUT: {change}")
    for change in sorted(left - listed.survivors):
        print(f"SURVIVED: {change}")
    for change in sorted({change for change, _ in asking.ends} & listed.survivors - left):
        print(f"LISTED, BUT NOTICED: {change}")
    for change in sorted(listed.of_module(module) - {each.change for each in found}):
        if re.search(functions, change.function):
            print(f"LISTED, BUT NO MUTANT: {change}")
    return 1 if left - listed.survivors else 0


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
        dotted = module.removesuffix(".py").replace("/", ".")
        return {each for each in self.survivors if each.function.startswith(f"{dotted}.")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
