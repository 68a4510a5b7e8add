"""What the operations of the ledger share: its rows, locked in one order, and the moves of money between and in accounts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, bindparam, select, update

from config import counting, gate
from config.dialects import upserts
from config.models import ACCOUNTS, ATTEMPTS, REQUESTS
from core.limits import Meter


class Entry(Protocol):
    """An entry of a batch that is about one request."""

    @property
    def request_id(self) -> str:
        """The request's id."""


E = TypeVar("E", bound=Entry)
R = TypeVar("R")

#: The condition of a statement that changes one call: `of` is its request's id, `nr` its number.
THIS_ATTEMPT = (ATTEMPTS.c.request_id == bindparam("of"), ATTEMPTS.c.number == bindparam("nr"))


def month_of(now: int) -> str:
    """The calendar month (UTC) of a time, such as 2026-11."""
    return datetime.fromtimestamp(now // 1_000_000, UTC).strftime("%Y-%m")


def requests_of(db: Connection, ids: Iterable[str]) -> Sequence[Row[Any]]:
    """The rows of these requests, locked in one order, so that two transactions cannot wait for each other.

    What binds requests does not change from then on until the end of the transaction (`config.gate`).
    """
    return db.execute(_REQUESTS_OF[db.dialect.name], {"ids": sorted(set(ids))}).all()


def attempts_of(db: Connection, ids: Iterable[str]) -> dict[str, list[Row[Any]]]:
    """The calls of these requests in their order, by request."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in db.execute(_ATTEMPTS_OF, {"ids": list(ids)}):
        found[row.request_id].append(row)
    return found


def in_turn(operation: Callable[[Connection, Sequence[E]], list[R]], db: Connection, entries: Sequence[E]) -> list[R]:
    """The operation's results; entries of one request are dealt with one after another, each with what the one before it left."""
    if len({entry.request_id for entry in entries}) == len(entries):
        return operation(db, entries)
    results: dict[int, R] = {}
    left = list(enumerate(entries))
    while left:
        first = {entry.request_id: (place, entry) for place, entry in reversed(left)}
        batch = sorted(first.values(), key=itemgetter(0))
        results |= zip((place for place, _ in batch), operation(db, [entry for _, entry in batch]), strict=True)
        left = [(place, entry) for place, entry in left if place not in results]
    return [results[place] for place in range(len(entries))]


def charges_of(requests: Iterable[Row[Any]], meters: Collection[Meter]) -> list[counting.Charge]:
    """What these requests hold of limits on these meters."""
    return [charge for row in requests for charge in counting.unpacked(row.charges) if charge.meter in meters]


def free(db: Connection, requests: Sequence[Row[Any]]) -> Counter[tuple[str, str]]:
    """Keep with these requests that nothing is held for them any more; how much money was, by account."""
    freed: Counter[tuple[str, str]] = Counter()
    if requests:
        db.execute(_FREE, {"ids": [row.request_id for row in requests]})
    for row in requests:
        freed[row.account, row.window] += row.reserved_nano
    return freed


def move(db: Connection, moves: dict[tuple[str, str], tuple[int, int, int]]) -> None:
    """Add (spent, reserved, unknown) to accounts, in one order, so that two transactions cannot wait for each other."""
    rows = [
        {"account": account, "window": window, "spent_nano": s, "reserved_nano": r, "unknown_nano": u}
        for (account, window), (s, r, u) in sorted(moves.items())
    ]
    if rows:
        db.execute(_MOVE[db.dialect.name], rows)


#: Built once: building a statement costs more than running it.
_REQUESTS_OF = {
    name: select(REQUESTS)
    .where(REQUESTS.c.request_id.in_(bindparam("ids", expanding=True)), *entered)
    .order_by(REQUESTS.c.request_id)
    .with_for_update()
    for name, entered in gate.ENTERED.items()
}
_ATTEMPTS_OF = (
    select(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(bindparam("ids", expanding=True))).order_by(ATTEMPTS.c.number)
)
_FREE = (
    update(REQUESTS)
    .where(REQUESTS.c.request_id.in_(bindparam("ids", expanding=True)))
    .values(reserved_nano=0, charges=None)
)
_AMOUNTS = ("spent_nano", "reserved_nano", "unknown_nano")
_MOVE = upserts(ACCOUNTS, lambda new: {amount: ACCOUNTS.c[amount] + new[amount] for amount in _AMOUNTS})
