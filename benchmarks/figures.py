"""The arithmetic of the benchmarks: when to send, and what many measurements come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median, quantiles

#: What a core costs for an hour: about a virtual CPU of a general-purpose machine on demand at a large cloud.
USD_PER_CORE_HOUR = 0.05


def arrivals(per_second: float, seconds: float) -> Iterator[float]:
    """The seconds after the start at which requests are due at a constant rate; at least two.

    They depend on nothing that comes back, so a latency counted from them holds the time that a request could not be
    sent as well: https://www.scylladb.com/2021/04/22/on-coordinated-omission/.
    """
    return (number / per_second for number in range(max(2, int(per_second * seconds))))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, the 95th and the 99th percentile of at least two values, interpolated."""
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of a measurement's rounds, and their least and most."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def usd_per_million(cpu_ms_per_request: float, usd_per_core_hour: float = USD_PER_CORE_HOUR) -> float:
    """What the CPU time of a million requests costs, on cores that do nothing else and are never idle."""
    core_hours = cpu_ms_per_request * 1_000_000 / 1_000 / 3_600
    return core_hours * usd_per_core_hour
