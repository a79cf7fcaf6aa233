"""
Only SQLite opens the files of a database.

If Python opens such a file and closes it, POSIX drops the locks that SQLite holds on it in this process.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("eventlog", "projections", "adapters")

OPENING = {
    "open",
    "fdopen",
    "mkstemp",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
    "copy2",
    "copyfile",
    "copytree",
}
"""Names of functions that open files."""

NOT_OF_FILES = {"EventLog", "ConversationLog", "super()"}
"""Whose functions of these names open through SQLite, or nothing."""

ALLOWED = {
    ("adapters/cli/export_import.py", "output.open"): "a device or pipe",
    ("adapters/cli/export_import.py", "os.fdopen"): "a new file",
    ("adapters/cli/export_import.py", "tempfile.mkstemp"): "a new file",
    ("adapters/cli/proofs.py", "os.open"): "a new file",
    ("adapters/cli/proofs.py", "os.fdopen"): "a new file",
    ("adapters/cli/proofs.py", "path.read_bytes"): "a proof, signed head or key",
    ("adapters/cli/terminal.py", "os.open"): "the null device",
    ("adapters/cli/view.py", "webbrowser.open"): "a browser",
    ("adapters/view/rendering.py", "file.read_bytes"): "the page's own files",
    (
        "adapters/openai_agents/migration/import_file.py",
        "Path(path).open",
    ): "SQLite has said that it is no database",
    (
        "adapters/openai_agents/migration/import_file.py",
        "Path(target).open",
    ): "SQLite has said that it is no database",
    ("eventlog/storage/sqlite/backup.py", "os.open"): "a folder",
    (
        "eventlog/storage/sqlite/scratch.py",
        "tempfile.mkstemp",
    ): "a new file, before SQLite opens it",
}


def _opened(source: str) -> set[str]:
    """Return the calls in a module that may open a file other than through SQLite."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = getattr(called, "attr", None) or getattr(called, "id", None)
        owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
        if owner == "shutil" or (name in OPENING and owner not in NOT_OF_FILES):
            found.add(ast.unparse(called))
    return found


def test_no_module_opens_a_file_but_where_it_is_known_to_be_no_database() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), call)
        for path in modules
        for call in _opened(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED.keys()
