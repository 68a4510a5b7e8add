"""Carry requests over from the spare ledger, which admitted them unchecked, into the ledger, where they count from then on.

A request is carried once it has its answer, or is given up, and every call of it is settled. Each step may be repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, or_, select

from config import counting, gate, ledger, limits
from config.asking import unpacked_asking
from config.dialects import inserts
from config.ledger_rows import attempts_of, move, requests_of
from config.models import ATTEMPTS, REQUESTS

#: Requests that one transaction carries.
MOST_AT_ONCE = 100
#: What a request holds in the ledger that admitted it, and not in the one that it is carried into.
_HELD = {"reserved_nano": 0, "charges": None, "energy": None, "expires_at": None}


@dataclass(frozen=True, slots=True)
class Carried:
    """A request that is over, and its calls, all settled."""

    request: Row[Any]
    attempts: Sequence[Row[Any]]


def through(db: Connection) -> list[Carried]:
    """Requests of the spare ledger that are through, so many at a time."""
    attempts = attempts_of(db, found) if (found := db.execute(_THROUGH).scalars().all()) else {}
    rows = db.execute(select(REQUESTS).where(REQUESTS.c.request_id.in_(found))).all() if found else []
    return [Carried(row, attempts.get(row.request_id, [])) for row in rows]


def adopt(db: Connection, carried: Sequence[Carried], now: int) -> None:
    """Take requests into the ledger: what their calls cost is spent, and counts against every limit that is about them, also beyond it.

    A request that the ledger knows, since it was sent again while that was away, keeps what stands of it and gets the further
    calls.
    """
    if not carried:
        return
    gate.enter(db)
    rows = [dict(one.request._mapping) | _HELD for one in carried]
    new = set(db.execute(_ADOPT_REQUESTS[db.dialect.name].values(rows)).scalars())
    calls = [dict(call._mapping) for one in carried for call in one.attempts]
    begun = set(map(tuple, db.execute(_ADOPT_ATTEMPTS[db.dialect.name].values(calls)).all())) if calls else set()
    fresh = {
        one.request.request_id: [call for call in one.attempts if (call.request_id, call.number) in begun]
        for one in carried
    }
    moves: dict[tuple[str, str], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for one in carried:
        account = one.request.account, one.request.window
        for call in fresh[one.request.request_id]:
            spent, held, unknown = moves[account]
            cost, bound = call.cost_nano, call.charged_nano or 0
            moves[account] = (spent, held, unknown + bound) if cost is None else (spent + cost, held, unknown)
    _count(db, [one.request for one in carried], new, fresh, now)
    move(db, moves)


def answer(db: Connection, carried: Sequence[Carried], now: int) -> None:
    """End those that the ledger had admitted and no more, with the answer that was given."""
    stands = {row.request_id: row.body_hash for row in requests_of(db, [one.request.request_id for one in carried])}
    same = (one.request for one in carried if stands.get(one.request.request_id) == one.request.body_hash)
    ledger.end(db, [ledger.End(row.request_id, "", now, None, row.answer, completed=False) for row in same])


def leave(db: Connection, carried: Sequence[Carried]) -> None:
    """Forget in the spare ledger what was carried."""
    ids = [one.request.request_id for one in carried]
    db.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(ids)))
    db.execute(delete(REQUESTS).where(REQUESTS.c.request_id.in_(ids)))


def _count(
    db: Connection, requests: Sequence[Row[Any]], new: set[str], fresh: Mapping[str, Sequence[Row[Any]]], now: int
) -> None:
    """Count requests that are new, and calls, against the limits that are about them."""
    asked = [(row, unpacked_asking(row.asking)) for row in requests if row.asking is not None]
    holding = limits.current(db)
    charges = counting.unheld(
        db, holding, [(asking, row.admitted_at, int(row.request_id in new)) for row, asking in asked]
    )
    spent = [
        counting.Spent(
            charged, asking.models[call.candidate], call.charged_nano or 0,
            asking.amounts.tokens if call.tokens is None else call.tokens,
        )
        for (row, asking), charged in zip(asked, charges, strict=True)
        for call in fresh[row.request_id]
    ]  # fmt: skip
    counting.settle(db, holding, spent, (), now)


_OPEN = select(ATTEMPTS.c.request_id).where(~ATTEMPTS.c.settled)
_THROUGH = (
    select(REQUESTS.c.request_id)
    .where(or_(REQUESTS.c.answer.is_not(None), REQUESTS.c.expired_at.is_not(None)), REQUESTS.c.request_id.not_in(_OPEN))
    .limit(MOST_AT_ONCE)
)
_ADOPT_REQUESTS = {
    name: insert.on_conflict_do_nothing().returning(REQUESTS.c.request_id) for name, insert in inserts(REQUESTS).items()
}
_ADOPT_ATTEMPTS = {
    name: insert.on_conflict_do_nothing().returning(ATTEMPTS.c.request_id, ATTEMPTS.c.number)
    for name, insert in inserts(ATTEMPTS).items()
}
