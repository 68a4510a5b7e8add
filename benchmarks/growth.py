"""Whether a series of samples grows: the rule of the soak, pure.

The first third of the samples is warm-up and does not count. Each half of the rest is cut into eight parts, and through the lowest
samples of the parts goes a line, its slope the median of the slopes between all pairs
(https://en.wikipedia.org/wiki/Theil%E2%80%93Sen_estimator): neither a spike nor what a collector frees again bends it. A series
grows when both lines rise by more than the limit. What leaks rises in both halves; a step or a cache that fills rises in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

PARTS = 8
#: Fewer samples than this in a half say nothing.
FEWEST = 4


@dataclass(frozen=True)
class Limit:
    """By how much a line may rise in each half: `least` in the unit of the samples, or a share of their median if that is more."""

    least: float
    share: float

    def of(self, level: float) -> float:
        """The limit for samples of this level."""
        return max(self.least, self.share * level)


MEMORY = Limit(4 * 2**20, 0.03)
DESCRIPTORS = Limit(3, 0.03)
P50 = Limit(20, 0.5)
P99 = Limit(100, 1.0)


@dataclass(frozen=True)
class Growth:
    """What the rule says of a series: the rise of the line in each half, and the limit, all in the unit of the samples."""

    first: float
    second: float
    limit: float

    @property
    def grows(self) -> bool:
        """Whether it rises by more than the limit in both halves."""
        return min(self.first, self.second) > self.limit


def growth(samples: Sequence[tuple[float, float]], limit: Limit) -> Growth:
    """The growth of samples (time, value) in the order of time; ValueError when they are too few to say."""
    judged = samples[len(samples) // 3 :]
    middle = len(judged) // 2
    if middle < FEWEST:
        raise ValueError(f"{len(samples)} samples are too few to see growth in; {3 * FEWEST} are enough.")
    return Growth(
        rise(lowest(judged[:middle])), rise(lowest(judged[middle:])), limit.of(median(value for _, value in judged))
    )


def lowest(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lowest sample of each part; every sample where there are no more than parts."""
    parts = min(PARTS, len(samples))
    cuts = [len(samples) * number // parts for number in range(parts + 1)]
    return [min(samples[a:b], key=lambda sample: sample[1]) for a, b in pairwise(cuts)]


def rise(samples: Sequence[tuple[float, float]]) -> float:
    """By how much the line through the samples rises from the first to the last."""
    slopes = [
        (later - earlier) / (end - begin)
        for index, (begin, earlier) in enumerate(samples)
        for end, later in samples[index + 1 :]
        if end > begin
    ]
    return median(slopes) * (samples[-1][0] - samples[0][0])
