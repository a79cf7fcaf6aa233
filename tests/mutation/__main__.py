"""
Mutation testing: is a test there that notices when a line is changed?

    make mutants                                  all modules of TESTS, one after the other; hours
    make mutants MODULE=eventlog/integrity.py     one of them; minutes

mutmut changes a copy of the project, one place at a time, and runs the tests that reach that place. What no
test notices must stand in ``survivors.toml`` with the reason why it may; else the exit code is 1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
COPIED = ("eventlog", "projections", "adapters", "tests", "README.md")

_MOVING = ("tests/adapters/commands/test_export.py", "tests/adapters/commands/test_import.py")
_BUILDERS = ("tests/projections", "tests/properties/test_histories.py")
TESTS: dict[str, tuple[str, ...]] = {
    "eventlog/appending.py": ("tests/eventlog/test_log.py", "tests/eventlog/test_errors.py"),
    "eventlog/codec.py": ("tests/eventlog/test_codec.py", "tests/fuzz/test_targets.py"),
    "eventlog/exporting.py": _MOVING,
    "eventlog/importing.py": _MOVING,
    "eventlog/integrity.py": (
        *("tests/eventlog/test_verify.py", "tests/eventlog/test_sqlite.py"),
        *("tests/properties/test_digest.py", "tests/adapters/commands/test_verify.py"),
        "tests/faults/test_tampering.py",
    ),
    "eventlog/ledger.py": ("tests/eventlog",),
    "eventlog/lines.py": (*_MOVING, "tests/fuzz/test_targets.py"),
    "eventlog/query.py": ("tests/eventlog/test_reading.py",),
    "eventlog/recorded.py": ("tests/eventlog", *_MOVING),
    "eventlog/schema.py": ("tests/eventlog/test_schema.py", "tests/faults/test_append_only.py"),
    "eventlog/store.py": ("tests/eventlog", "tests/faults"),
    "eventlog/transaction.py": ("tests/eventlog", "tests/faults/test_group_commit.py"),
    "projections/conversations.py": _BUILDERS,
    "projections/past.py": ("tests/projections/test_past.py",),
    "projections/projector.py": ("tests/projections/test_projector.py",),
    "projections/replay.py": (
        "tests/projections/test_replay.py",
        "tests/properties/test_replay.py",
    ),
    "projections/segments.py": (*_BUILDERS, "tests/properties/test_branches.py"),
    "projections/shape.py": ("tests/projections/test_shape.py", "tests/fuzz/test_targets.py"),
    "projections/usage.py": (*_BUILDERS, "tests/properties/test_spending.py"),
}
"""The modules, each with the tests that are asked; of these, each mutant's are those that reach it."""

SURVIVED, NO_TEST = 0, 33
TIMEOUTS = {24, 36, 152, 255}
DIFFS = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name) for name in sys.argv[1:]}))
"""


class Mutant(NamedTuple):
    """A change that no test noticed: in which function, and the lines before and after it."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.before}\n  + {self.after}"


def main(modules: list[str]) -> int:
    """Mutate modules; return 1 if something survived that is not accounted for."""
    listed = tomllib.loads(SURVIVORS.read_text())["survivor"]
    known = {Mutant(each["function"], each["before"], each["after"]) for each in listed}
    new = 0
    for module in modules or TESTS:
        counts, survivors = mutate(module, TESTS[module])
        new += sum(each not in known for each in survivors)
        print(f"{module}: " + ", ".join(f"{counts[what]} {what}" for what in sorted(counts)))
        for each in survivors:
            print(f"{'accounted for' if each in known else 'SURVIVED'}: {each}", flush=True)
    return 1 if new else 0


def mutate(module: str, tests: tuple[str, ...]) -> tuple[Counter[str], list[Mutant]]:
    """Return how many mutants came to which end, and those that survived."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for each in COPIED:
            copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
            copy(ROOT / each, folder / each)
        config = (ROOT / "pyproject.toml").read_text() + _config(module, tests)
        (folder / "pyproject.toml").write_text(config)
        log = ROOT / "mutants.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
            subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False)
        meta = folder / "mutants" / f"{module}.meta"
        if not meta.exists():
            sys.exit(f"mutmut could not mutate {module}: see {log}")
        ends: dict[str, Any] = json.loads(meta.read_text())["exit_code_by_key"]
        if ends and set(ends.values()) == {None}:
            sys.exit(f"the tests of {module} fail unchanged: see {log}")
        names = [name for name, code in ends.items() if code in {SURVIVED, NO_TEST}]
        found = subprocess.run(
            [sys.executable, "-c", DIFFS, *names], cwd=folder, stdout=subprocess.PIPE, check=True
        )
        diffs: dict[str, str] = json.loads(found.stdout)
    return Counter(map(_end, ends.values())), [_mutant(name, diffs[name]) for name in names]


def _config(module: str, tests: tuple[str, ...]) -> str:
    return f"""
[tool.mutmut]
source_paths = ["eventlog", "projections"]
only_mutate = [{json.dumps(module)}]
also_copy = {json.dumps(COPIED)}
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
pytest_add_cli_args_test_selection = {json.dumps(tests)}
"""


def _end(code: int | None) -> str:
    if code in {SURVIVED, NO_TEST}:
        return "survived"
    return "not run" if code is None else "timed out" if code in TIMEOUTS else "killed"


def _mutant(name: str, diff: str) -> Mutant:
    """Return a mutant by what is changed, which other changes of the module leave as it is."""
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    readable = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return Mutant(f"{module}.{readable}", before, after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
