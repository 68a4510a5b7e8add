"""Unusual spend: what a tenant has spent today against its last four same weekdays.

Spend repeats by the week, so each day is held against its own weekday, as seasonal naive and mean forecasts do
(https://otexts.com/fpp3/simple-methods.html). Today so far is unusual when it is

    more than `factor` times the mean of those days, more than the greatest of them, and at least the floor.

The greatest keeps a job of every fourth week from being told of each time, the floor keeps small sums from it. Money in nano-USD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

WEEKS = 4
#: With fewer of the last same weekdays known, nothing is unusual.
LEAST_KNOWN = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """How many times the mean is too much, and from how much money on."""

    factor: Decimal
    floor_nano: int


@dataclass(frozen=True, slots=True)
class Unusual:
    """Spend of a day beyond the rule, and what its last same weekdays came to: how many are known, their mean, the greatest."""

    spent: int
    known: int
    mean: int
    greatest: int


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Unusual spend of a tenant on a day of its time zone, seen when it was raised (microseconds since 1970)."""

    tenant: str
    day: date
    unusual: Unusual
    raised_at: int


def weekdays_before(day: date) -> list[date]:
    """The last four same weekdays, the latest first."""
    return [day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]


def judge(spent: int, weekdays: Sequence[int], rule: Rule) -> Unusual | None:
    """What is unusual about a day's spend, given that of its last same weekdays as far as it is known; None where nothing is."""
    if len(weekdays) < LEAST_KNOWN or spent < rule.floor_nano or spent <= max(weekdays):
        return None
    total = sum(weekdays)
    if spent * len(weekdays) <= total * rule.factor:
        return None
    return Unusual(spent, len(weekdays), total // len(weekdays), max(weekdays))
