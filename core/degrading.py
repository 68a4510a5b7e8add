"""Degrade instead of refusing: while a limit of its accounts is nearly used up, a request goes without its dearer candidates, and
without those that a full limit of their models alone covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from core.accounts import PLATFORM
from core.limits import Asking, Cell, Count, CountKey, Refusal, covers, level


@dataclass(frozen=True, slots=True)
class Degraded:
    """Why a request is not admitted as it is planned: so many percent of a limit are used or held, or it does not fit into the rest.

    `dearer` are the places of the candidates that it does without, from `degrade_from` percent on by its route; None where it
    does not fit.
    """

    account: str
    subject: str
    percent: int
    degrade_from: int | None
    dearer: tuple[int, ...]

    @property
    def too_dear(self) -> dict[int, str]:
        """Why each candidate is dropped that the route does without, by its place."""
        used = f"{self.percent} % of {self.subject} of {self.account} are used or held"
        why = f"{used}, and the route degrades from {self.degrade_from} % on"
        if self.degrade_from is None:
            why = f"{used}, and what the request may take does not fit into the rest"
        return dict.fromkeys(self.dearer, why)


def degraded(
    asking: Asking, counts: Iterable[Count], cells: Mapping[CountKey, Sequence[Cell]], no: Refusal | None
) -> Degraded | None:
    """Why a request does without its dearer candidates, by what is used and held before it; None where it need not.

    `no` is why it does not fit as it is planned. A limit of the platform degrades nobody, nor does one that no dearer
    candidate counts against. Of several limits, the fullest is named.
    """
    if no is not None and not _saves(asking, no):
        return None
    dearer = [asking.models[place] for place in asking.dearer]
    shares = (
        (level(count, cells.get(count.key, ())).share(count.limit), count)
        for count in counts
        if count.account != PLATFORM and covers(count.limit, dearer)
    )
    percent, fullest = max(shares, key=itemgetter(0), default=(0, None))
    if fullest is not None and percent >= asking.degrade_from:
        return Degraded(*fullest.key, percent, asking.degrade_from, asking.dearer)
    return None if no is None else _unfit(no, asking.dearer)


def spared(asking: Asking, noes: Iterable[Refusal]) -> Degraded | None:
    """Why a request that does not fit does without some of its candidates; None where none is left, or it fits no better.

    `noes` are the limits in its way. Of those that cover some of its candidates alone the first one counts; it may ask again.
    """
    for no in noes:
        covered = tuple(place for place, model in enumerate(asking.models) if covers(no.count.limit, [model]))
        if no.asked is not None and len(covered) < len(asking.models):
            return _unfit(no, covered)
    return None


def _unfit(no: Refusal, places: tuple[int, ...]) -> Degraded:
    return Degraded(*no.count.key, no.level.share(no.count.limit), None, places)


def _saves(asking: Asking, no: Refusal) -> bool:
    """Whether a request that does not fit may do so without its dearer candidates."""
    if no.asked is None or no.count.account == PLATFORM:
        return False
    kept = [model for place, model in enumerate(asking.models) if place not in asking.dearer]
    limit = no.count.limit
    return limit.meter == "usd" or not covers(limit, kept)
