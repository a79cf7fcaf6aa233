"""
Each operation with its 1st, 2nd, ... nth statement failing, COMMIT included, until it succeeds.

After each failure the error is the promised one, not a row has changed, and the same object goes on.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import operations
from tests.faults.failing import AFTER_THE_COMMIT, Statements, failing_statements, places
from tests.faults.files import rows
from tests.faults.operations import (
    OPERATIONS,
    READS,
    TELLS_OTHERWISE,
    WRITES,
    Stage,
    enter,
    enter_again,
    make_template,
)
from tests.faults.support import batch, check_log

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("template") / "template.db"
    asyncio.run(make_template(made))
    return made


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return failing_statements(monkeypatch)


@pytest.fixture
def stage(template: Path, path: Path, statements: Statements) -> Stage:
    return enter(template, path)


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_an_operation_whose_nth_statement_fails_leaves_nothing_and_can_be_repeated(
    stage: Stage, statements: Statements, chance: random.Random, name: str, each: bool
) -> None:
    before, branch = rows(stage.path), stage.session.current_branch
    for nth, failures in places(chance, each=each):
        for kind, mode in failures:
            with statements.failing(nth, kind, mode):
                answer, error = await outcome_of(OPERATIONS[name](stage))
            if statements.hit is None:
                break
            told = f"statement {nth}, {statements.hit}, {mode}: {kind.message}"
            if error is None:
                assert name in TELLS_OTHERWISE or statements.hit in AFTER_THE_COMMIT, told
            else:
                assert type(error) is kind.promised, told
            assert rows(stage.path) == before, told
            assert stage.session.current_branch == branch, told
        if statements.hit is None:
            break
    assert error is None
    assert nth > 2  # BEGIN, and at least one more
    assert (rows(stage.path) == before) == (name in READS)
    if name in READS:  # nothing that a failure left in memory is in the answer
        stage.session.close()
        stage = enter_again(stage.path, stage.lines)
        assert repr(await OPERATIONS[name](stage)) == repr(answer)
    if name != "session.delete_session":
        await stage.session.add_items(batch("next"))
    check_log(stage.log)


async def outcome_of(call: Awaitable[Any]) -> tuple[Any, Exception | None]:
    """Return what a call returns, and what it raises."""
    try:
        return await call, None
    except Exception as error:
        return None, error


def test_the_table_of_operations_is_complete() -> None:
    listed = {name.split(" ", maxsplit=1)[0] for name in OPERATIONS} | set(operations.ELSEWHERE)
    public = operations.public_names()
    assert public - listed == set(), "each needs its line in tests/faults/operations.py"
    assert {name for name in listed if "._" not in name and "." in name} - public == set()
    assert not WRITES.keys() & READS.keys()
