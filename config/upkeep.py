"""What keeps the ledger in order: which workers live, so that nobody takes over their calls, and what may be forgotten."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select

from config.dialects import upserts
from config.models import ATTEMPTS, REQUESTS, WORKERS

DAY_US = 86_400_000_000


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
    return gone


_HEARTBEAT = upserts(WORKERS)
