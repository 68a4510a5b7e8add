"""What keeps the ledger in order: which workers live, so that nobody takes over their calls, and what may be forgotten."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, delete, select, update

from config import energy
from config.dialects import upserts
from config.ledger_rows import attempts_of, free, move, requests_of
from config.limit_models import COUNTERS, LIMIT_ALERTS
from config.models import ATTEMPTS, REQUESTS, WORKERS

DAY_US = 86_400_000_000
#: Requests that one transaction expires.
MOST_AT_ONCE = 1_000


def heartbeat(db: Connection, owner: str, alive_until: int) -> None:
    """State that a worker lives at least until then."""
    db.execute(_HEARTBEAT[db.dialect.name], {"owner": owner, "alive_until": alive_until})


def living(db: Connection, owners: Collection[str], now: int) -> set[str]:
    """Those of these workers that live at `now`, by what they last stated."""
    query = select(WORKERS.c.owner).where(WORKERS.c.owner.in_(list(owners)), WORKERS.c.alive_until > now)
    return set(db.execute(query).scalars())


def leave(db: Connection, owner: str) -> None:
    """State that a worker is gone: whatever it left open may be taken over at once."""
    db.execute(delete(WORKERS).where(WORKERS.c.owner == owner))


def purge(db: Connection, now: int, keep_days: int) -> int:
    """Forget requests answered more than `keep_days` ago with nothing left to settle; how many rows went."""
    old = select(REQUESTS.c.request_id).where(
        REQUESTS.c.done_at < now - keep_days * DAY_US, REQUESTS.c.reserved_nano == 0
    )
    db.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(old)))
    gone = db.execute(delete(REQUESTS).where(REQUESTS.c.request_id.in_(old))).rowcount
    db.execute(delete(WORKERS).where(WORKERS.c.alive_until < now - DAY_US))
    db.execute(delete(COUNTERS).where(COUNTERS.c.ends < now - keep_days * DAY_US))
    db.execute(delete(LIMIT_ALERTS).where(LIMIT_ALERTS.c.published_at < now - keep_days * DAY_US))
    return gone


def expire(db: Connection, now: int) -> int:
    """Give back what is held for requests that nobody has worked on by the time they should have ended; how many there were.

    Calls whose cost is not settled stay counted. A request that goes on after all is reserved for again. What is left of
    users' energy whose time is over goes as well.
    """
    unsettled = select(ATTEMPTS.c.request_id).where(~ATTEMPTS.c.settled)
    overdue = (REQUESTS.c.expires_at <= now) & REQUESTS.c.answer.is_(None) & REQUESTS.c.request_id.not_in(unsettled)
    ids = db.execute(select(REQUESTS.c.request_id).where(overdue).limit(MOST_AT_ONCE)).scalars().all()
    # Looked at again under their locks: one of them may have gone on meanwhile.
    found = [row for row in requests_of(db, ids) if row.answer is None and row.expires_at is not None]
    calls = attempts_of(db, ids)
    rows = [row for row in found if all(call.settled for call in calls[row.request_id])]
    energy.give_back(db, rows, now)
    energy.expire(db, now)
    freed = free(db, rows, ("usd", "tokens", "concurrent"))
    move(db, {account: (0, -amount, 0) for account, amount in freed.items()})
    if rows:
        db.execute(_EXPIRED, [{"of": row.request_id, "expires_at": None, "expired_at": now} for row in rows])
    return len(rows)


_EXPIRED = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_HEARTBEAT = upserts(WORKERS)
