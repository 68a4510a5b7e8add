"""What the counters of limits say, beside what the ledger's requests and calls add up to. Nothing here changes or locks a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Row, select

from config.counting import unpacked
from config.ledger_rows import month_of
from config.limit_models import COUNTERS
from config.limits import read
from config.models import ADJUSTMENTS
from config.recounting import MONEY_OF_A_MONTH, admitted
from config.registry_store import version_of
from core.accounts import tenant_of
from core.limits import Asking, Count, Limit, Limits, Place


@dataclass(frozen=True, slots=True)
class Counted:
    """A cell of a count: what its counter says, and what the calls and the open requests of the ledger add up to.

    `limit` is the one that counts there. A counter that does not exist says None. `adjusted` says that a price adjustment was
    made in its month, which a counter has in it where its limit was set later.
    """

    account: str
    limit: Limit
    begins: int
    used: int | None
    reserved: int | None
    used_by_calls: int
    held_by_requests: int
    adjusted: bool


def counted(db: Connection, now: int, keep_days: int) -> list[Counted]:
    """Every cell that a present limit counts in, of those that are not forgotten after `keep_days`; `now` in microseconds.

    What was admitted in a window that began before the ledger's memory may be missing in its sums. A window that was over
    before its limit was set has no counter and is left out.
    """
    limits = read(db, version_of(db))
    rows = {(row.account, row.subject, row.begins): row for row in db.execute(select(COUNTERS))}
    adjusted = {(row.account, row.window) for row in db.execute(_ADJUSTED)}
    adjusted |= {(None, month) for _, month in adjusted}
    used, held = Counter[Place](), Counter[Place]()
    places = {place: limit for place in rows if (limit := limits.find(*place[:2])) is not None}
    for request, asking, calls in admitted(db):
        for count in _kept(limits, asking, request.admitted_at, now - keep_days * 86_400_000_000):
            place = (*count.key, count.begins)
            if place not in rows and count.ends is not None and count.ends <= now:
                continue
            places[place] = count.limit
            used[place] += _used(count.limit, asking, calls)
        through = request.answered and all(call.settled for call in calls)
        for charge in unpacked(request.charges):
            if not (request.answered if charge.meter == "concurrent" else through):
                held[charge.place] += charge.held
    return [
        Counted(
            place[0], limit, place[2], rows[place].used if place in rows else None, rows[place].reserved if place in rows else None,
            used[place], held[place] if limit.meter != "requests" else 0,
            place[1] == MONEY_OF_A_MONTH and (tenant_of(place[0]), month_of(place[2])) in adjusted,
        )
        for place, limit in sorted(places.items(), key=lambda each: each[0])
    ]  # fmt: skip


def _kept(limits: Limits, asking: Asking, at: int, since: int) -> Iterator[Count]:
    return (count for count in limits.counts(asking, at) if count.ends is None or count.ends >= since)


def _used(limit: Limit, asking: Asking, calls: Sequence[Row[Any]]) -> int:
    """What the settled calls of a request count on a limit, their bound where nobody knows."""
    if limit.meter in ("requests", "concurrent"):
        return int(limit.meter == "requests")
    settled = (
        call
        for call in calls
        if call.settled
        and (
            limit.model is None or fnmatchcase(asking.models[min(call.candidate, len(asking.models) - 1)], limit.model)
        )
    )
    if limit.meter == "tokens":
        return sum(asking.amounts.tokens if call.tokens is None else call.tokens for call in settled)
    # A call that was settled before limits were counted has its cost alone.
    return sum((call.cost_nano or 0) if call.charged_nano is None else call.charged_nano for call in settled)


_ADJUSTED = select(ADJUSTMENTS.c.account, ADJUSTMENTS.c.window).distinct()
