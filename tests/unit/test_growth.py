"""The soak's rule: what leaks is seen, what only looks like it is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.growth import DESCRIPTORS, MEMORY, Limit, growth, rise

MIB = 2**20


def series(value: list[float]) -> list[tuple[float, float]]:
    """Samples every two seconds."""
    return [(2.0 * index, each) for index, each in enumerate(value)]


def noisy(values: list[float], noise: float, seed: int = 1) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    return series([value + rng.uniform(-noise, noise) for value in values])


def test_a_steady_leak_grows() -> None:
    """20 MiB over ten minutes on a process of 120 MiB, under noise of 3 MiB, is a leak."""
    leak = [(120 + 20 * n / 300) * MIB for n in range(300)]
    assert growth(noisy(leak, 3 * MIB), MEMORY).grows


def test_a_descriptor_kept_now_and_then_grows() -> None:
    """One descriptor a minute over half an hour is a leak; the same number up and down is none."""
    assert growth(series([60 + n // 30 for n in range(900)]), DESCRIPTORS).grows
    assert not growth(series([60 + n % 9 for n in range(900)]), DESCRIPTORS).grows


@pytest.mark.parametrize(
    "shape",
    [
        [120.0] * 300,
        [60 + 60 * min(1.0, n / 90) for n in range(300)],  # fills up during the warm-up
        [120.0] * 160 + [180.0] * 140,  # one step
        [120.0] * 220 + [180.0] * 80,
        [120.0 + (400 if n % 50 == 7 else 0) for n in range(300)],  # spikes
        [120 + 30 * (n % 10) / 10 for n in range(300)],  # a collector's saw
        [180 - 60 * n / 300 for n in range(300)],  # shrinks
        [120 + 2 * n / 300 for n in range(300)],  # less than the limit
    ],
)
def test_what_only_looks_like_a_leak_does_not_grow(shape: list[float]) -> None:
    """Level, warm-up, a step, spikes, a saw, shrinking and a crawl below the limit."""
    assert not growth(noisy([value * MIB for value in shape], MIB / 4), MEMORY).grows


def test_the_limit_is_a_share_of_large_processes() -> None:
    """A process of 1 GiB may move by 3 % in each half, one of 50 MiB by 4 MiB."""
    assert (MEMORY.of(1_024 * MIB), MEMORY.of(50 * MIB)) == (pytest.approx(0.03 * 1_024 * MIB), 4 * MIB)


@given(
    st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.lists(st.floats(0.1, 60), min_size=3, max_size=40),
)  # fmt: skip
def test_a_straight_line_rises_by_what_it_rises(start: float, slope: float, gaps: list[float]) -> None:
    """Whatever the gaps between the samples, the fitted rise is slope times duration."""
    at, samples = 0.0, [(0.0, start)]
    for gap in gaps:
        at += gap
        samples.append((at, start + slope * at))
    assert rise(samples) == pytest.approx(slope * at, rel=1e-3, abs=1e-3)


def test_too_few_samples_are_refused() -> None:
    """Nothing is called flat that was hardly looked at."""
    with pytest.raises(ValueError, match="10 samples are too few"):
        growth(series([1.0] * 10), Limit(1, 0))
