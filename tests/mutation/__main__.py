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
from collections import Counter

import pytest

from tests.mutation.asking import SURVIVED, TIMED_OUT, UNREACHED, Asking
from tests.mutation.listed import ROOT, TESTS, Listed
from tests.mutation.mutants import of_module

PROCESSES = 2
AGAIN = "--again"
OPTIONS = ("-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=0")


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
