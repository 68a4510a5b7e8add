"""Which shares of a limit its account is to hear of: each once a window, or once a day (UTC) where a limit has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.limits import SHARES, Cell, Count, most_taken, near

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class News:
    """Shares that an account has not heard of, how much it has used by then, when the window begins, and what its cell keeps of it."""

    shares: tuple[int, ...]
    used: int
    begins: int
    told: int


def news(count: Count, cells: Iterable[Cell], refused: bool, now: int) -> News | None:
    """What there is to tell of a count; None for nothing. What is held counts where a limit has no window, and only there.

    `refused` says that what is left was too little for a request. That is told as 100 %, which then is not told when it is used.
    A cell keeps the greatest share that it was told at, with 1 added where that was told of a refusal, and the day before it.
    """
    limit, used = count.limit, most_taken(count, cells)
    share = used * 100 // limit.most if limit.most else 0
    if share < SHARES[0] and not refused:
        return None
    day = now // DAY_US if limit.window is None else 0
    told = {each.begins: each.told % 1_000 for each in near(count, cells) if each.told // 1_000 == day}
    greatest = max((mark // 10 * 10 for mark in told.values()), default=0)
    short = any(mark % 10 for mark in told.values())
    reached = [each for each in SHARES if greatest < each <= share and not (each == 100 and short)]
    refusal = refused and not short and max(greatest, share) < 100
    shares = (*reached, 100) if refusal else tuple(reached)
    if not shares:
        return None
    own, own_short = divmod(told.get(count.begins, 0), 10)
    mark = max(own * 10, *reached, 0) + (own_short or int(refusal))
    return News(shares, used, day * DAY_US if limit.window is None else count.begins, day * 1_000 + mark)
