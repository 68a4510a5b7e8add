"""What the ledger says to whoever checks or watches it. Nothing here changes or locks a row; money is in nano-USD."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, bindparam, func, select

from config.models import ACCOUNTS, ADJUSTMENTS, ATTEMPTS, REQUESTS, WORKERS


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole ledger, in nano-USD, and counts of what is still open."""

    spent_nano: int
    reserved_nano: int
    unknown_nano: int
    requests: int
    unanswered: int
    unsettled: int


def totals(db: Connection) -> Totals:
    """What the ledger holds in all."""
    money = db.execute(
        select(
            *(func.coalesce(func.sum(ACCOUNTS.c[name]), 0) for name in ("spent_nano", "reserved_nano", "unknown_nano"))
        )
    ).one()
    requests = db.execute(select(func.count(), func.count(REQUESTS.c.answer))).one()
    unsettled = db.execute(select(func.count()).select_from(ATTEMPTS).where(ATTEMPTS.c.settled.is_(False))).scalar_one()
    return Totals(int(money[0]), int(money[1]), int(money[2]), requests[0], requests[0] - requests[1], unsettled)


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An ended call: its cost in nano-USD, and, once it is settled, what counts of it against limits.

    `tokens` is None where nobody knows them, `charged_nano` where it was settled before that was kept.
    """

    number: int
    settled: bool
    cost_nano: int | None
    tokens: int | None
    charged_nano: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """What the ledger holds of one request; `attempts` are its ended calls."""

    request_id: str
    account: str
    window: str
    answered: bool
    attempts: tuple[HeldAttempt, ...]


def held(db: Connection, ids: Iterable[str]) -> Iterator[Held]:
    """What the ledger holds of these requests; one that it does not know, or has forgotten, is left out. Locks nothing."""
    wanted = iter(ids)
    while chunk := list(islice(wanted, 500)):
        attempts: dict[str, list[HeldAttempt]] = defaultdict(list)
        for row in db.execute(_ENDED_OF, {"ids": chunk}):
            attempts[row.request_id].append(
                HeldAttempt(row.number, row.settled, row.cost_nano, row.tokens, row.charged_nano)
            )
        for row in db.execute(_HELD, {"ids": chunk}):
            yield Held(row.request_id, row.account, row.window, row.answered, tuple(attempts[row.request_id]))


def adjusted(db: Connection, ids: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Those of these price adjustments that have moved money, and by how much."""
    wanted = iter(ids)
    while chunk := list(islice(wanted, 500)):
        for row in db.execute(_ADJUSTED, {"ids": chunk}):
            yield row.adjustment_id, row.difference_nano


@dataclass(frozen=True, slots=True)
class Balance:
    """An account in a month: what stands in its row, and what its requests, calls and adjustments add up to (nano-USD).

    `unknown_calls` counts settled calls whose cost is not known, `adjustments` price adjustments.
    """

    account: str
    window: str
    spent_nano: int
    reserved_nano: int
    unknown_nano: int
    settled_nano: int
    held_nano: int
    unknown_calls: int
    adjustments: int


def balances(db: Connection) -> list[Balance]:
    """Every account beside the sums of what it is made of; requests that the ledger has forgotten are not among these."""
    rows = {
        (row.account, row.window): (row.spent_nano, row.reserved_nano, row.unknown_nano)
        for row in db.execute(select(ACCOUNTS))
    }
    sums = settled, held, unknown, adjustments = tuple(Counter[tuple[str, str]]() for _ in range(4))
    own = (REQUESTS.c.account, REQUESTS.c.window)
    for row in db.execute(select(*own, func.sum(REQUESTS.c.reserved_nano).label("nano")).group_by(*own)):
        held[row.account, row.window] = int(row.nano)
    calls = REQUESTS.join(ATTEMPTS, ATTEMPTS.c.request_id == REQUESTS.c.request_id)
    without_cost = func.count() - func.count(ATTEMPTS.c.cost_nano)
    costs = select(*own, func.sum(ATTEMPTS.c.cost_nano).label("nano"), without_cost.label("unknown"))
    for row in db.execute(costs.select_from(calls).where(ATTEMPTS.c.settled).group_by(*own)):
        settled[row.account, row.window], unknown[row.account, row.window] = int(row.nano or 0), row.unknown
    window = (ADJUSTMENTS.c.account, ADJUSTMENTS.c.window)
    moved = select(*window, func.sum(ADJUSTMENTS.c.difference_nano).label("nano"), func.count().label("adjustments"))
    for row in db.execute(moved.group_by(*window)):
        settled[row.account, row.window] += int(row.nano)
        adjustments[row.account, row.window] = row.adjustments
    return [
        Balance(account, month, *rows.get((account, month), (0, 0, 0)), *(of[account, month] for of in sums))
        for account, month in sorted({*rows, *settled, *held})
    ]


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    """A provider call as the ledger keeps it: `usage` is its packed usage event, None while the call is open.

    `alive` says whether the worker that began it has been heard of of late.
    """

    number: int
    reason: str
    candidate: int
    owner: str
    alive: bool
    started_at: int
    ended_at: int | None
    lost: bool
    settled: bool
    usage: bytes | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A request as the ledger keeps it; `plan` and `answer` are packed, None where there is none."""

    account: str
    window: str
    reserved_nano: int
    admitted_at: int
    done_at: int | None
    candidate: int
    plan: bytes | None
    answer: bytes | None
    attempts: tuple[KeptAttempt, ...]


def kept(db: Connection, request_id: str, now: int) -> Kept | None:
    """All that the ledger keeps of a request at `now` (microseconds since 1970); None where it does not know it."""
    row = db.execute(select(REQUESTS).where(REQUESTS.c.request_id == request_id)).one_or_none()
    if row is None:
        return None
    attempts = select(ATTEMPTS, WORKERS.c.alive_until).outerjoin(WORKERS, WORKERS.c.owner == ATTEMPTS.c.owner)
    found = db.execute(attempts.where(ATTEMPTS.c.request_id == request_id).order_by(ATTEMPTS.c.number))
    return Kept(
        row.account, row.window, row.reserved_nano, row.admitted_at, row.done_at, row.candidate, row.plan, row.answer,
        tuple(
            KeptAttempt(
                a.number, a.reason, a.candidate, a.owner, (a.alive_until or 0) > now, a.started_at, a.ended_at, a.lost,
                a.settled, a.usage,
            )
            for a in found
        ),
    )  # fmt: skip


_ENDED_OF = select(
    ATTEMPTS.c.request_id, ATTEMPTS.c.number, ATTEMPTS.c.settled, ATTEMPTS.c.cost_nano, ATTEMPTS.c.tokens,
    ATTEMPTS.c.charged_nano,
).where(ATTEMPTS.c.request_id.in_(bindparam("ids", expanding=True)), ATTEMPTS.c.ended_at.is_not(None))  # fmt: skip
_HELD = select(
    REQUESTS.c.request_id, REQUESTS.c.account, REQUESTS.c.window, REQUESTS.c.answer.is_not(None).label("answered")
).where(REQUESTS.c.request_id.in_(bindparam("ids", expanding=True)))
_ADJUSTED = select(ADJUSTMENTS.c.adjustment_id, ADJUSTMENTS.c.difference_nano).where(
    ADJUSTMENTS.c.adjustment_id.in_(bindparam("ids", expanding=True))
)
