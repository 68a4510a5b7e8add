"""What keeps the ledger in order: which workers live, so that nobody takes over their calls, and what may be forgotten."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, exists, or_, select, update

from config import counting, energy
from config.dialects import upserts
from config.holding import MONEY_AND_TOKENS, PLACES
from config.ledger_rows import attempts_of, charges_of, free, move, requests_of
from config.limit_models import COUNTERS, LIMIT_ALERTS
from config.models import ATTEMPTS, REQUESTS, WORKERS
from core.attempts import attempt_id
from schemas.events import AttemptReason

DAY_US = 86_400_000_000
#: Requests that one transaction expires, and calls that it finds abandoned.
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
    """Forget requests answered, or given up as abandoned, more than `keep_days` ago with nothing left to settle; how many rows went."""
    before = now - keep_days * DAY_US
    given_up = REQUESTS.c.done_at.is_(None) & (REQUESTS.c.expired_at < before)
    old = select(REQUESTS.c.request_id).where((REQUESTS.c.done_at < before) | given_up, REQUESTS.c.reserved_nano == 0)
    db.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(old)))
    gone = db.execute(delete(REQUESTS).where(REQUESTS.c.request_id.in_(old))).rowcount
    db.execute(delete(WORKERS).where(WORKERS.c.alive_until < now - DAY_US))
    db.execute(delete(COUNTERS).where(COUNTERS.c.ends < before))
    db.execute(delete(LIMIT_ALERTS).where(LIMIT_ALERTS.c.published_at < before))
    return gone


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A call that is not settled, of an overdue request that nobody works on: `usage` is its packed event, None while it is open.

    `asking` and `plan` are its request's, as they are kept.
    """

    request_id: str
    number: int
    reason: AttemptReason
    candidate: int
    started_at: int
    usage: bytes | None
    admitted_at: int
    asking: bytes
    plan: bytes

    @property
    def attempt_id(self) -> str:
        """The call's own id."""
        return attempt_id(self.request_id, self.number)


def abandoned(db: Connection, now: int) -> list[Abandoned]:
    """The calls of overdue requests whose end keeps what is held for these: workers that live have none of them open.

    One that has ended waits for the settlement of its usage event, which may not be published.
    """
    return [Abandoned(*row) for row in db.execute(_ABANDONED, {"now": now})]


def expire(db: Connection, now: int) -> int:
    """Give back what is held for requests that nobody has worked on by the time they should have ended; how many there were.

    Calls whose cost is not settled stay counted. A request that goes on after all is reserved for again, for as long again.
    """
    ids = db.execute(_SETTLED, {"now": now}).scalars().all()
    # Looked at again under their locks: one of them may have gone on meanwhile.
    found = [row for row in requests_of(db, ids) if row.answer is None and row.expired_at is None]
    calls = attempts_of(db, ids)
    rows = [row for row in found if all(call.settled for call in calls[row.request_id])]
    energy.give_back(db, rows, now)
    counting.release(db, charges_of(rows, (*MONEY_AND_TOKENS, *PLACES)))
    freed = free(db, rows)
    move(db, {account: (0, -amount, 0) for account, amount in freed.items()})
    if rows:
        db.execute(_EXPIRED, [{"of": row.request_id, "expired_at": now} for row in rows])
    return len(rows)


_OVERDUE = (REQUESTS.c.expires_at <= bindparam("now")) & REQUESTS.c.done_at.is_(None) & REQUESTS.c.expired_at.is_(None)
_UNSETTLED = (ATTEMPTS.c.request_id == REQUESTS.c.request_id) & ~ATTEMPTS.c.settled
_SETTLED = select(REQUESTS.c.request_id).where(_OVERDUE, ~exists().where(_UNSETTLED)).limit(MOST_AT_ONCE)
_ALIVE = exists().where(WORKERS.c.owner == ATTEMPTS.c.owner, WORKERS.c.alive_until > bindparam("now"))
_ABANDONED = (
    select(
        ATTEMPTS.c.request_id, ATTEMPTS.c.number, ATTEMPTS.c.reason, ATTEMPTS.c.candidate, ATTEMPTS.c.started_at,
        ATTEMPTS.c.usage, REQUESTS.c.admitted_at, REQUESTS.c.asking, REQUESTS.c.plan,
    )
    .join(REQUESTS, _UNSETTLED)
    .where(_OVERDUE, REQUESTS.c.asking.is_not(None), REQUESTS.c.plan.is_not(None))
    .where(or_(ATTEMPTS.c.ended_at.is_not(None), ~_ALIVE))
    .order_by(ATTEMPTS.c.request_id, ATTEMPTS.c.number)
    .limit(MOST_AT_ONCE)
)  # fmt: skip
_EXPIRED = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_HEARTBEAT = upserts(WORKERS)
