"""The paths of a session answer for every version what the fold of its events up to then says."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hypothesis import given

from agents_eventlog.projections.conversations.paths import Paths
from agents_eventlog.projections.reference import State
from tests.properties.profiles import examples
from tests.properties.strategies import histories

if TYPE_CHECKING:
    from agents_eventlog.eventlog import RecordedEvent


@given(histories())
@examples(120)
def test_the_items_of_every_branch_at_every_version_are_those_of_the_fold(
    events: list[RecordedEvent],
) -> None:
    paths: dict[str, Paths] = defaultdict(Paths)
    state = State()
    then = []
    for recorded in events:
        paths[recorded.session_id].feed(recorded)
        state.apply(recorded)
        session = state.sessions.get(recorded.session_id)
        branches = {} if session is None else session.branches
        held = {
            name: (branch.is_live, [(item.ref, item.turn, item.kind) for item in branch.items])
            for name, branch in branches.items()
        }
        then.append((recorded.session_id, recorded.version, held))
    for session_id, version, held in then:
        path = paths[session_id]
        for name, (is_live, items) in held.items():
            assert path.exists(name, version) == is_live
            assert [(n.ref, n.turn, n.kind) for n in path.items(name, version)] == items


@given(histories())
@examples(120)
def test_an_item_is_on_a_branch_at_a_version_exactly_within_its_lifelines(
    events: list[RecordedEvent],
) -> None:
    paths: dict[str, Paths] = defaultdict(Paths)
    for recorded in events:
        paths[recorded.session_id].feed(recorded)
    for path in paths.values():
        for name in path.moves:
            lifelines = path.lifelines(name)
            lines = lifelines.lines
            for version in range(path.version + 1):
                on_branch = {
                    line.node
                    for line in lines
                    if line.since <= version and (line.until is None or version < line.until)
                }
                assert on_branch == set(path.path(path.tip(name, version)))
                so_far = [line for line in lines if line.since <= version]
                turns = {path.nodes[line.node].turn for line in so_far}
                assert lifelines.last_turn(version) == max(turns, default=0)
                by_turn = [lifelines.of_turn(turn, version) for turn in sorted(turns)]
                assert sorted(line for some in by_turn for line in some) == sorted(so_far)


@given(histories(nonsense=False))
@examples(60)
def test_what_two_branches_share_is_the_common_beginning_of_their_items(
    events: list[RecordedEvent],
) -> None:
    paths: dict[str, Paths] = defaultdict(Paths)
    for recorded in events:
        paths[recorded.session_id].feed(recorded)
    for path in paths.values():
        for one in path.moves:
            for other in path.moves:
                a, b = path.path(path.tip(one)), path.path(path.tip(other))
                count = 0
                while count < min(len(a), len(b)) and a[count] == b[count]:
                    count += 1
                assert path.path(path.shared(path.tip(one), path.tip(other))) == a[:count]
