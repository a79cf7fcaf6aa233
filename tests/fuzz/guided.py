"""
Fuzzing guided by coverage.

    python -m tests.fuzz.guided TARGET [CORPUS] [-seed=N] [-max_total_time=SECONDS]

It needs atheris (the extra "proof"). An input that breaks a promise is left as ``crash-...``: put it into
``corpus/TARGET`` beside this file, where it is tried ever after.
"""

from __future__ import annotations

import sys

import atheris

PARSERS = [
    "agents_eventlog.eventlog.codec",
    "agents_eventlog.eventlog.jsonl.import_",
    "agents_eventlog.eventlog.jsonl.format",
    "agents_eventlog.eventlog.item_kind",
]

with atheris.instrument_imports(include=PARSERS):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz a target until the time is over, or something breaks."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
