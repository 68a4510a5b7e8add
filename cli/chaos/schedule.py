"""Which fault strikes what, when and for how long: a pure function of the seed, the time and the faults to choose from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: A target is left alone for so many seconds after a fault, so that it can begin to recover.
REST_SECONDS = 4.0
#: Gaps between the beginnings of two faults, as shares of the mean gap.
GAP = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault to choose from: its name, what it can strike, and the bounds of its length in seconds."""

    name: str
    targets: tuple[str, ...]
    shortest: float
    longest: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of the schedule; `at` and `seconds` are seconds, `at` from the start of the traffic."""

    at: float
    fault: str
    target: str
    seconds: float


def plan(seed: int, seconds: float, kinds: Sequence[Kind], every: float) -> list[Planned]:
    """Faults that begin within `seconds`, one about `every` seconds, in the order of time.

    All kinds are dealt in turn, each turn in another order, so that every kind appears before one appears again; where the time is
    too short for all of them, they stand closer together. No two faults strike one target at once.
    """
    if not kinds or seconds <= 0:
        return []
    rng = random.Random(seed)
    kinds = sorted(kinds, key=lambda kind: kind.name)
    mean = min(every, seconds / (len(kinds) * GAP[1]))
    free_at: dict[str, float] = {}
    deck: list[Kind] = []
    planned: list[Planned] = []
    at = rng.uniform(*GAP) * mean
    while at < seconds:
        deck = deck or rng.sample(kinds, len(kinds))
        kind = deck.pop()
        lasts = round(rng.uniform(kind.shortest, kind.longest), 2)
        idle = [target for target in kind.targets if free_at.get(target, 0.0) <= at]
        target = rng.choice(idle) if idle else min(kind.targets, key=lambda name: free_at[name])
        begins = max(at, free_at.get(target, 0.0))
        planned.append(Planned(round(begins, 2), kind.name, target, lasts))
        free_at[target] = round(begins, 2) + lasts + REST_SECONDS
        at += rng.uniform(*GAP) * mean
    return sorted(planned, key=lambda fault: (fault.at, fault.fault, fault.target))
