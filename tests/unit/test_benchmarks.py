"""The arithmetic of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.figures import arrivals, percentiles, spread, usd_per_million
from benchmarks.peers.report import aims, summary
from benchmarks.storage import each


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


def _point(system: str, number: int, cpu: float) -> dict[str, object]:
    return {
        "system": system, "round": number, "load": "50 at once", "load_average": 1.0, "answers": 1_000, "seconds": 2.0,
        "took_ms": {"p50": 60.0, "p95": 70.0, "p99": 80.0}, "gateway_cpu": {"a": cpu, "b": cpu},
        "servers_cpu": {"kafka": cpu}, "simulator_cpu": 0.1, "others_cpu": 0.0, "gateway_memory": 2**20,
        "servers_memory": {"kafka": 2**20},
    }  # fmt: skip


def test_a_summary_counts_the_gateway_alone_and_with_its_servers() -> None:
    """Processes add up, servers stand apart, latency is what is over the simulator's, and rounds become a median."""
    (found,) = summary([_point("millstream", 1, 1.0), _point("millstream", 2, 3.0)], simulator_ms=50)
    assert found["cpu_ms"] == {"median": 4.0, "least": 2.0, "most": 6.0}
    assert found["whole_cpu_ms"]["median"] == 6.0
    assert found["added_p95_ms"]["median"] == 20.0
    assert found["per_second"]["median"] == 500


def test_an_aim_is_judged_only_against_what_ran() -> None:
    """Half the CPU of LiteLLM misses the aim of a quarter, and no word is said of the SDK that was left out."""
    found = aims(summary([_point("millstream", 1, 1.0), _point("litellm", 1, 2.0)], simulator_ms=50))
    assert [(one["found"], one["met"]) for one in found] == [(2.0, False), (2.0, False)]


def test_bytes_each_are_what_was_added() -> None:
    """What a place held before does not count, and a place that did not grow is left out."""
    assert each({"ledger": 100, "usage": 5}, {"ledger": 1_100, "usage": 5, "bodies": 50}, 10) == {
        "bodies": 5.0,
        "ledger": 100.0,
    }
