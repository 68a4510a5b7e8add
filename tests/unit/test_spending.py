"""Which spend of a day is unusual, as a plain decision."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.alerts import spend_anomaly
from core.spending import LEAST_KNOWN, WEEKS, Anomaly, Rule, Unusual, judge, weekdays_before

USD = 1_000_000_000
RULE = Rule(Decimal(3), 10 * USD)
MONEY = st.integers(0, 10**15)


@given(
    MONEY, st.lists(MONEY, max_size=WEEKS), st.decimals(1, 20, places=2), MONEY,
)  # fmt: skip
def test_unusual_is_what_the_formula_says(spent: int, weekdays: list[int], factor: Decimal, floor: int) -> None:
    """Beyond the factor times the mean, the greatest and the floor, by exact fractions, and never on too little history."""
    found = judge(spent, weekdays, Rule(factor, floor))
    enough = len(weekdays) >= LEAST_KNOWN
    beyond = enough and spent > Fraction(factor) * Fraction(sum(weekdays), len(weekdays)) and spent > max(weekdays)
    assert (found is not None) == (beyond and spent >= floor)
    if found is not None:
        assert (found.spent, found.known, found.greatest) == (spent, len(weekdays), max(weekdays))


@given(MONEY, MONEY, st.lists(MONEY, max_size=WEEKS))
def test_more_spend_is_never_less_unusual(spent: int, more: int, weekdays: list[int]) -> None:
    """What is unusual stays so when the day goes on."""
    assert judge(spent, weekdays, RULE) is None or judge(spent + more, weekdays, RULE) is not None


@pytest.mark.parametrize(
    ("spent", "weekdays", "unusual"),
    [
        (30, [10, 10, 10, 10], False),
        (31, [10, 10, 10, 10], True),
        (31, [10], False),
        (31, [10, 10], True),
        (9, [0, 0, 0, 0], False),
        (10, [0, 0, 0, 0], True),
        (100, [0, 0, 0, 100], False),
        (101, [0, 0, 0, 100], True),
    ],
)
def test_the_mean_the_greatest_and_the_floor_each_count(spent: int, weekdays: list[int], unusual: bool) -> None:
    """Three times the mean is not enough and a nano-USD more is; a peak once a month is told of when it is exceeded."""
    assert (judge(spent * USD, [each * USD for each in weekdays], RULE) is not None) is unusual


def test_a_day_is_held_against_its_own_weekday() -> None:
    """The last four same weekdays, across months and years."""
    days = weekdays_before(date(2027, 1, 5))
    assert days == [date(2026, 12, 29), date(2026, 12, 22), date(2026, 12, 15), date(2026, 12, 8)]
    assert {day.weekday() for day in days} == {date(2027, 1, 5).weekday()}


def test_an_alert_is_the_same_whoever_publishes_it_and_one_a_day() -> None:
    """Its id follows from the tenant and the day, its sentence has the figures, its subject is the tenant's account."""
    unusual = Unusual(31 * USD, 4, 8 * USD, 9 * USD)
    one, later, next_day = (
        spend_anomaly(Anomaly("a/b", day, unusual, at))
        for day, at in ((date(2026, 11, 22), 1), (date(2026, 11, 22), 2), (date(2026, 11, 23), 1))
    )
    assert (one["kind"], one["severity"], one["subject"], one["tenant"]) == (
        "spend_anomaly",
        "warning",
        "/a%2Fb",
        "a/b",
    )
    assert one["alert_id"] == later["alert_id"] != next_day["alert_id"]
    assert one["message"].startswith(
        "Tenant a/b has spent 31 USD so far on 2026-11-22; the last 4 same weekdays that are known came to 8 USD on average and 9 USD"
    )
    assert one["details"] == {
        "day": "2026-11-22", "spent": str(31 * USD), "weekdays": "4", "mean": str(8 * USD), "greatest": str(9 * USD),
    }  # fmt: skip
