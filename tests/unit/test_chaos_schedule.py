"""The schedule of faults: a pure function of seed, time and faults."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.chaos.schedule import GAP, REST_SECONDS, Kind, Planned, plan

KINDS = [
    Kind("kill", ("a", "b", "c"), 0, 0),
    Kind("freeze", ("a", "b"), 1, 5),
    Kind("restart", ("kafka",), 0.5, 3),
    Kind("lock", ("ledger",), 1, 8),
]
seeds = st.integers(min_value=0, max_value=10**9)


@given(seeds)
def test_a_seed_always_gives_the_same_schedule(seed: int) -> None:
    """Whatever order the faults were named in."""
    assert plan(seed, 60, KINDS, 2) == plan(seed, 60, KINDS[::-1], 2)


def test_another_seed_gives_another_schedule() -> None:
    assert len({tuple(plan(seed, 60, KINDS, 2)) for seed in range(50)}) == 50


@given(seeds, st.floats(min_value=5, max_value=300), st.floats(min_value=0.2, max_value=60))
def test_every_kind_appears_on_its_own_targets_within_its_bounds(seed: int, seconds: float, every: float) -> None:
    schedule = plan(seed, seconds, KINDS, every)
    kinds = {kind.name: kind for kind in KINDS}
    assert {one.fault for one in schedule} == set(kinds)
    for one in schedule:
        kind = kinds[one.fault]
        assert one.target in kind.targets
        assert kind.shortest <= one.seconds <= kind.longest


@given(seeds)
def test_kinds_are_dealt_in_turn(seed: int) -> None:
    counts: dict[str, int] = defaultdict(int)
    for one in plan(seed, 120, KINDS, 2):
        counts[one.fault] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


@given(seeds, st.floats(min_value=0.2, max_value=5))
def test_a_target_suffers_one_fault_at_a_time_and_rests(seed: int, every: float) -> None:
    by_target: dict[str, list[Planned]] = defaultdict(list)
    for one in plan(seed, 60, KINDS, every):
        by_target[one.target].append(one)
    for faults in by_target.values():
        for earlier, later in itertools.pairwise(faults):
            assert later.at >= earlier.at + earlier.seconds + REST_SECONDS - 0.011


@given(seeds)
def test_faults_begin_about_as_often_as_asked(seed: int) -> None:
    one_target = [Kind("kill", tuple("abcdefghijklmnop"), 0, 0)]
    times = [one.at for one in plan(seed, 100, one_target, 2)]
    assert times[0] <= GAP[1] * 2
    assert times[-1] < 100 + 0.011
    for earlier, later in itertools.pairwise(times):
        assert GAP[0] * 2 - 0.011 <= later - earlier <= GAP[1] * 2 + 0.011


@pytest.mark.parametrize(("seconds", "kinds"), [(0, KINDS), (60, [])])
def test_no_time_or_no_kinds_is_no_schedule(seconds: float, kinds: list[Kind]) -> None:
    assert plan(1, seconds, kinds, 2) == []
