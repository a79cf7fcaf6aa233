"""Each target, fuzzed for a while with coverage as the guide."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 120


@pytest.mark.proof
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris comes with the extra 'proof'"
)
@pytest.mark.parametrize("target", TARGETS)
def test_a_guided_search_finds_nothing(target: str, tmp_path: Path, seed: int) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    whole = seeds(target)
    for number, content in enumerate([b"\n".join(whole)] if target == "log_lines" else whole):
        (corpus / str(number)).write_bytes(content)
    command = [sys.executable, "-m", "tests.fuzz.guided", target, str(corpus)]
    options = [f"-seed={seed or 1}", f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5_000:]
