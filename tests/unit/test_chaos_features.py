"""A run of chaos fails when the traffic asked for a feature that never happened, and only where it asked for it often."""

from __future__ import annotations

import pytest

from cli.chaos.energy import FED, POOR
from cli.chaos.features import LEAST, LEAST_OF, UNKNOWN_MODEL, USED, Asked, features_line
from cli.chaos.limits import A_MINUTE, HURRIED

ALWAYS = dict.fromkeys(USED, 1_000)


def named(asked: dict[str, int], found: dict[str, int]) -> list[str]:
    return [one.id for one in features_line(asked, found).differences]


def test_what_was_asked_for_and_used_holds_and_both_are_told() -> None:
    line = features_line({**ALWAYS, "hedges": 150}, {**ALWAYS, "hedges": 7})
    assert line.status == "holds"
    assert line.left.figures == line.right.figures == {"features": len(USED)}
    assert "hedges: 7 (150 asked for)" in line.notes


@pytest.mark.parametrize("feature", USED)
def test_a_feature_that_never_happened_is_named(feature: str) -> None:
    """Each of them on its own breaks the run, which names it and no other."""
    assert named(ALWAYS, {**ALWAYS, feature: 0}) == [feature]


def test_a_short_run_is_not_held_to_what_it_rarely_asks_for() -> None:
    """Where no feature was asked for often, nothing was compared."""
    rarely = dict.fromkeys(USED, LEAST - 1)
    assert features_line(rarely, {}).status == "not compared"
    for feature in USED:
        least = LEAST_OF.get(feature, LEAST)
        assert named({**rarely, feature: least - 1}, {}) == []
        assert named({**rarely, feature: least}, {}) == [feature]


def test_requests_count_for_the_features_that_they_have_to_meet() -> None:
    """What has to be met depends on the request's task and delay, its tenant's limits and energy, and the requests before it."""
    asked, quick, late = Asked(), {"latency_ms": 20.0}, {"latency_ms": 2_000.0, "status": 404}
    routed = {"model": None, "task": "routed", "stream": False, "prompt": "Question 1."}
    asked.add({**routed, "stream": True}, quick, 0, "ana")
    asked.add({**routed, "model": UNKNOWN_MODEL, "stream": True}, late, POOR, "ana")
    assert asked.times == {"streams": 1, "refusals of unknown models": 1}
    asked.times.clear()
    asked.add(routed, late, POOR, "ana")
    asked.add({**routed, "on_unknown_outcome": "fail"}, late, FED, "ana")
    asked.add(routed, quick, FED, None)
    assert asked.times == {"fallbacks": 2, "hedges": 1, "downgrades": 2, "refusals for energy": 1}
    asked.times.clear()
    for tenant in (0, 0, 1):
        asked.add({**routed, "task": "cached"}, {}, tenant, "ana")
    assert asked.times == {"cache hits": 1}
    for _ in range(3 * A_MINUTE):
        asked.add({"model": "echo/echo", "stream": False, "prompt": "Question 2."}, quick, HURRIED, "ana")
    assert A_MINUTE <= asked.times["refusals for a limit"] <= 2 * A_MINUTE
