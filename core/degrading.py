"""Degrade instead of refusing: while a limit of its accounts is nearly used up, a request goes without its dearer candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from core.accounts import PLATFORM
from core.limits import Asking, Cell, Count, CountKey, Refusal, covers, level


@dataclass(frozen=True, slots=True)
class Degraded:
    """Why a request is not admitted as it is planned: so many percent of a limit are used or held, or it does not fit into the rest.

    `dearer` are the places of the candidates that its route does without from `degrade_from` percent on.
    """

    account: str
    subject: str
    percent: int
    degrade_from: int
    dearer: tuple[int, ...]

    @property
    def too_dear(self) -> dict[int, str]:
        """Why each candidate is dropped that the route does without, by its place."""
        used = f"{self.percent} % of {self.subject} of {self.account} are used or held"
        why = f"{used}, and the route degrades from {self.degrade_from} % on"
        if self.percent < self.degrade_from:
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
    if fullest is None or percent < asking.degrade_from:
        if no is None:
            return None
        percent, fullest = no.level.share(no.count.limit), no.count
    return Degraded(fullest.account, fullest.limit.subject, percent, asking.degrade_from, asking.dearer)


def _saves(asking: Asking, no: Refusal) -> bool:
    """Whether a request that does not fit may do so without its dearer candidates."""
    if no.asked is None or no.count.account == PLATFORM:
        return False
    kept = [model for place, model in enumerate(asking.models) if place not in asking.dearer]
    limit = no.count.limit
    return limit.meter == "usd" or not covers(limit, kept)
