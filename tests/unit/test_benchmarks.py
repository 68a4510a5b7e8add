"""The arithmetic of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.figures import arrivals, percentiles, spread, usd_per_million


def test_arrivals_are_evenly_spaced_from_the_start() -> None:
    """An open-loop schedule is fixed beforehand: rate times duration moments, the first at once."""
    assert list(arrivals(4, 1.5)) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_arrivals_are_never_fewer_than_two() -> None:
    """A rate too low for the duration still gives the two values that a percentile needs."""
    assert list(arrivals(0.5, 1)) == [0.0, 2.0]


def test_percentiles_interpolate_between_the_values() -> None:
    """Of the numbers 0 to 100, each percentile is its own number, in whatever order they come."""
    assert percentiles([*range(100, -1, -1)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([1.0, 2.0])["p50"] == 1.5


def test_spread_is_the_median_and_the_ends() -> None:
    """One outlier among three rounds moves an end and not the median."""
    assert spread([3.0, 100.0, 2.0]) == {"median": 3.0, "least": 2.0, "most": 100.0}


def test_a_millisecond_a_request_is_a_core_for_a_thousand_seconds() -> None:
    """A million requests of 3.6 ms keep a core busy for an hour."""
    assert usd_per_million(3.6, usd_per_core_hour=0.05) == pytest.approx(0.05)
