"""The limits that the traffic meets, some of which bite, and who is beyond one."""

from __future__ import annotations

from sqlalchemy import Connection, select

from config import limits
from config.limit_models import COUNTERS
from config.limits import Edit
from core.limits import NANO, Limit

#: This tenant may make so many requests a minute.
HURRIED, A_MINUTE = 2, 10
#: Windows of the calendar alone: a process whose clock is wrong counts in another one, and none of them may be beyond its limit.
LIMITS = (
    *(Limit("/", "usd", "month", 100 * NANO, model=f"{provider}/*") for provider in ("openai", "anthropic", "google")),
    Limit("/", "tokens", "day", 1_000_000, hard=False),
    Limit("/*", "concurrent", None, 100),
    Limit("/tenant-0", "concurrent", None, 2),
    Limit("/tenant-1", "usd", "day", NANO // 50),
    Limit(f"/tenant-{HURRIED}", "requests", "minute", A_MINUTE),
    Limit("/tenant-3", "tokens", "hour", 20_000),
)
#: Requests that say `wait` wait for room for so long.
WAIT_SECONDS = 15


def set_limits(db: Connection, now: int) -> None:
    """Let the limits hold."""
    limits.change(db, Edit(LIMITS), "chaos", now)


def overspent(db: Connection) -> set[str]:
    """The accounts that have used and hold more of a window than a hard limit allows."""
    known = limits.read(db)
    found = ((row, known.find(row.account, row.subject)) for row in db.execute(select(COUNTERS)))
    return {
        f"{row.account} {row.subject}"
        for row, limit in found
        if limit is not None and limit.hard and row.used + row.reserved > limit.most
    }


def still_held(db: Connection) -> list[str]:
    """What is held of limits."""
    rows = db.execute(select(COUNTERS).where(COUNTERS.c.reserved != 0))
    return [f"limit {row.account} {row.subject} ({row.reserved} held)" for row in rows]
