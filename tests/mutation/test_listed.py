"""The lists of mutation testing are about the code that there is."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from tests.mutation.listed import ROOT, TESTS, Listed, dotted


def source(function: str) -> str:
    """Return a function's source on one line; an empty one if there is no such function."""
    for module in TESTS:
        name = dotted(module)
        if function.startswith(f"{name}."):
            found: Any = importlib.import_module(name)
            for part in function.removeprefix(f"{name}.").split("."):
                found = getattr(found, part, None)
            return " ".join(inspect.getsource(found).split()) if found else ""
    return ""


def test_a_listed_survivor_quotes_a_line_of_its_function() -> None:
    stale = [
        change
        for change in Listed.read().survivors
        if " ".join(change.before.split()) not in source(change.function)
    ]
    assert stale == []


def test_the_listed_modules_and_tests_exist() -> None:
    files = [*TESTS, *(test for tests in TESTS.values() for test in tests)]
    assert [file for file in files if not (ROOT / file).is_file()] == []
