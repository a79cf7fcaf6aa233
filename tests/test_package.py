"""One top-level package: what a user installs, and what may be imported from it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("eventlog", "projections", "adapters")
FOREIGN = "raise ImportError('this is another distribution')\n"
SAMPLE = """
import asyncio, sys
from agents import Agent, Runner
from agents_eventlog import AdvancedSQLiteSession
from agents_eventlog.testing import ScriptedModel, reply

async def main():
    session = AdvancedSQLiteSession("user_123", "conversations.db")
    agent = Agent(name="Assistant", model=ScriptedModel([reply("Paris.")]))
    result = await Runner.run(agent, "Which city?", session=session)
    print(result.final_output, len(await session.get_items()))
    print(*sorted(n for n in sys.modules if n in ("eventlog", "projections", "adapters")))
    print(sys.modules["agents_eventlog"].__file__)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout, which a build would write into."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*PARTS, "src"):
        shutil.copytree(
            ROOT / name,
            checkout / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--quiet", "--wheel-dir", checkout / "dist", checkout], check=True, timeout=100
    )
    [built] = (checkout / "dist").glob("*.whl")
    return built


def test_the_wheel_installs_one_top_level_package_with_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "agents_eventlog"
    }
    sources = {
        f"agents_eventlog/{file.relative_to(ROOT)}"
        for part in PARTS
        for file in (ROOT / part).rglob("*.py")
    }
    assert sources <= set(names)
    assert "agents_eventlog/py.typed" in names
    view = ROOT / "adapters" / "view"
    pages = {file for folder in ("templates", "static") for file in (view / folder).iterdir()}
    assert {f"agents_eventlog/{file.relative_to(ROOT)}" for file in pages} <= set(names)


def test_the_first_sample_runs_beside_foreign_packages_and_project_folders_of_our_names(
    wheel: Path, tmp_path: Path
) -> None:
    site, project = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for place in (site, project):
        for part in PARTS:
            (place / part).mkdir(parents=True)
            (place / part / "__init__.py").write_text(FOREIGN)
    (project / "sample.py").write_text(SAMPLE)
    done = subprocess.run(
        [sys.executable, "sample.py"],
        cwd=project,
        env={"PYTHONPATH": str(site), "OPENAI_AGENTS_DISABLE_TRACING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Paris. 2",
        "",
        str(site / "agents_eventlog/__init__.py"),
    ]


def test_importing_the_package_imports_no_sdk() -> None:
    script = (
        "import sys, agents_eventlog, agents_eventlog.eventlog, agents_eventlog.projections\n"
        "print([name for name in ('agents', 'openai', 'pydantic', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_no_module_is_loaded_twice() -> None:
    script = (
        "import importlib, os, pkgutil, sys\n"
        "import agents_eventlog\n"
        "for found in pkgutil.walk_packages(agents_eventlog.__path__, 'agents_eventlog.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        f"ours = {str(ROOT)!r} + os.sep\n"
        "files = [os.path.realpath(m.__file__) for m in list(sys.modules.values())"
        " if getattr(m, '__file__', None)]\n"
        "files = [file for file in files if file.startswith(ours) and 'packages' not in file]\n"
        "print(len(files), len(set(files)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    loaded, different = map(int, done.stdout.split())
    assert loaded == different > 100


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_of_the_checkout_is_refused_under_its_own_name(part: str) -> None:
    with pytest.raises(ImportError, match=f"import agents_eventlog.{part}"):
        importlib.import_module(part)


def installed_by(target: str, tmp_path: Path) -> list[str]:
    """Return what `make` would give to pip for a target, in a checkout without an environment."""
    done = subprocess.run(
        ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.split()[-1] for line in done.stdout.splitlines() if " pip install " in line]


def test_the_demo_installs_no_linters_and_test_tools(tmp_path: Path) -> None:
    assert installed_by("demo", tmp_path) == ["."]
    assert installed_by("test", tmp_path) == [".", "'.[dev]'"]
