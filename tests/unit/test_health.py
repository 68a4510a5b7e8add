"""Whether a provider is healthy: what takes it out, what brings it back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.health import NOT_CHECKED, Calls, Check, HealthRule, ProviderHealth, after, due, with_calls

NOW = 1_795_258_680_000_000
RULE = HealthRule()


def followed(marks: str, rule: HealthRule = RULE) -> list[ProviderHealth]:
    """The health after each check, `+` a good and `-` a failed one, a second apart."""
    health, seen = NOT_CHECKED, []
    for number, mark in enumerate(marks):
        error = None if mark == "+" else f"Failed {number}."
        health = after(health, Check(NOW + number, "good" if mark == "+" else "status", error), rule)
        seen.append(health)
    return seen


@pytest.mark.parametrize(
    ("marks", "states"),
    [
        ("+", "healthy"), ("-", "suspect"), ("--", "suspect"), ("---", "unhealthy"), ("+--+", "healthy"),
        ("--+--", "suspect"), ("---++", "unhealthy"), ("---+++", "healthy"), ("---++-++", "unhealthy"),
        ("---++-+++", "healthy"),
    ],
)  # fmt: skip
def test_three_failed_checks_take_it_out_and_three_good_ones_bring_it_back(marks: str, states: str) -> None:
    """Anything between leaves it where it is."""
    assert followed(marks)[-1].state == states


def test_the_time_of_a_change_is_that_of_the_check_that_made_it() -> None:
    """Later checks that change nothing leave it; the last error stays until it is over."""
    seen = followed("---+++")
    assert [health.changed_at - NOW for health in seen] == [0, 0, 2, 2, 2, 5]
    assert [health.last_error for health in seen] == [
        "Failed 0.",
        "Failed 1.",
        "Failed 2.",
        "Failed 2.",
        "Failed 2.",
        None,
    ]


@given(st.text("+-", max_size=40))
def test_it_changes_only_after_enough_checks_in_a_row(marks: str) -> None:
    """Becoming unhealthy needs three failed checks at the end, leaving it three good ones."""
    states = ["unknown", *(health.state for health in followed(marks))]
    for place, (before, now) in enumerate(pairwise(states)):
        upto = marks[: place + 1]
        if now == "unhealthy" and before != "unhealthy":
            assert upto.endswith("---")
        if before == "unhealthy" and now != "unhealthy":
            assert upto.endswith("+++") and now == "healthy"


def test_calls_that_fail_make_a_good_check_a_failed_one() -> None:
    """Half of at least ten calls; fewer calls, or fewer failures, or a failed check, leave the check as it is."""
    good = Check(NOW)
    found = with_calls(NOT_CHECKED, good, Calls(5, 5, NOW - 1), RULE)
    assert found == Check(NOW, "calls", "Of the last 10 calls 5 failed.")
    for calls in (Calls(4, 5, NOW - 1), Calls(6, 5, NOW - 1), Calls(), Calls(100, 0)):
        assert with_calls(NOT_CHECKED, good, calls, RULE) == good
    failed = Check(NOW, "status", "It answered 500.")
    assert with_calls(NOT_CHECKED, failed, Calls(100, 0), RULE) == failed


def test_calls_from_before_the_last_check_do_not_keep_a_provider_out() -> None:
    """A provider that gets no calls is judged by its checks, however badly the last ones ended."""
    health = followed("---")[-1]
    for bad_at, result in ((health.checked_at, "good"), (health.checked_at + 1, "calls")):
        assert with_calls(health, Check(NOW + 10), Calls(0, 50, bad_at), RULE).result == result


def test_what_is_not_well_is_looked_at_more_often() -> None:
    """A healthy provider after five minutes, a suspect or unhealthy one after one, a new one at once."""
    assert due(NOT_CHECKED, RULE, NOW)
    for marks, wait in (("+", RULE.every_us), ("-", RULE.again_us), ("---", RULE.again_us)):
        health = followed(marks)[-1]
        assert not due(health, RULE, health.checked_at + wait - 1)
        assert due(health, RULE, health.checked_at + wait)
