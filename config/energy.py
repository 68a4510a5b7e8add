"""Energy in the ledger: grants, what requests reserve of them in the transaction that admits them, and what becomes of it.

A request reserves the price of its dearest candidate. The end of the request, in the same transaction that stores its answer,
consumes the price of the model that answered and refunds the rest. Grants are locked in one order and before any count of a
limit, so that no two transactions wait for each other.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from config.counting import Ask
from config.dialects import locking
from config.energy_models import ENERGY_ENTRIES, ENERGY_GRANTS
from config.models import REQUESTS
from core.energy import MOVES, Kind, Piece, PriceList, Short, divided, taken, user_of

#: Grants that one transaction expires.
MOST_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request reserves of its user's grants, and what an answer of each candidate costs, by its place."""

    account: str
    costs: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def packed(self) -> bytes:
        """The hold as the ledger keeps it with its request."""
        return orjson.dumps([self.account, self.costs, self.pieces])


def unpacked(kept: bytes) -> Hold:
    """The hold that `Hold.packed` gave."""
    account, costs, pieces = orjson.loads(kept)
    return Hold(account, tuple(costs), tuple((grant, amount) for grant, amount in pieces))


class Till:
    """What the users of a batch have left, locked until the end of the transaction; requests take from it one by one.

    `shorts` and `holds` are what came of each request that asked, by its id; `close` writes it down.
    """

    def __init__(self, db: Connection, asking: Mapping[str, tuple[str | None, tuple[int, ...]]], now: int) -> None:
        """`asking` is the account of each request, None without a user, and what an answer of its candidates costs."""
        self.shorts: dict[str, Short] = {}
        self.holds: dict[str, Hold] = {}
        self._db = db
        self._asking = asking
        self._now = now
        self._grants = _usable(db, {account for account, _ in asking.values() if account is not None}, now)
        self._moves = _Moves(now)

    def take(self, request_id: str) -> bool:
        """Reserve what the request can cost; whether its user has as much."""
        if request_id not in self._asking:
            return True
        account, costs = self._asking[request_id]
        grants = self._grants.get(account or "", {})
        left = sum(grants.values())
        if account is None or max(costs) > left:
            self.shorts[request_id] = Short(account, left, costs)
            return False
        pieces = taken(grants.items(), max(costs))
        for grant, credits in pieces:
            grants[grant] -= credits
        self._moves.add("reserve", account, pieces, request_id)
        self.holds[request_id] = Hold(account, costs, tuple(pieces))
        return True

    def held(self, request_id: str) -> bytes | None:
        """The packed hold of a request, None for one that costs nothing."""
        hold = self.holds.get(request_id)
        return None if hold is None else hold.packed()

    def close(self) -> None:
        """Write down what was taken."""
        self._moves.make(self._db)


def till(db: Connection, prices: PriceList, asked: Mapping[str, Ask]) -> Till | None:
    """The till for new requests by their ids; None where nothing of what they ask for costs energy."""
    if not prices.prices:
        return None
    costly = {}
    now = 0
    for request_id, ask in asked.items():
        costs = prices.costs(ask.asking.task, ask.asking.models, ask.asking.tiers)
        if any(costs):
            costly[request_id] = user_of(ask.asking.path), costs
            now = max(now, ask.now)
    return Till(db, costly, now) if costly else None


def till_again(db: Connection, requests: Iterable[Row[Any]], now: int) -> Till | None:
    """The till for those of these requests whose reservation has expired and that go on all the same; None where none had one."""
    holds = {request.request_id: unpacked(request.energy) for request in requests if request.energy is not None}
    costly = {one: (hold.account, hold.costs) for one, hold in holds.items() if not hold.pieces}
    return Till(db, costly, now) if costly else None


def settle(db: Connection, ended: Iterable[tuple[Row[Any], int | None, int]]) -> None:
    """Consume what answers cost and refund the rest: requests that end now, unanswered before, each with the place of the
    candidate that answered it, None for a failure, and the time. The prices stay with the request, as a proof of what it paid.
    """
    rows = [(request, place, now) for request, place, now in ended if request.energy is not None]
    if not rows:
        return
    moves, kept = _Moves(0), []
    for request, place, now in rows:
        hold = unpacked(request.energy)
        consumed, back = divided(hold.pieces, 0 if place is None else hold.costs[place])
        moves.add("consume", hold.account, consumed, request.request_id, now)
        moves.add("refund", hold.account, back, request.request_id, now)
        kept.append(_without_pieces(request.request_id, hold))
    moves.make(db)
    db.execute(_KEEP, kept)


def give_back(db: Connection, requests: Iterable[Row[Any]], now: int) -> None:
    """Refund what abandoned requests hold; what their answers cost stays known, in case one goes on."""
    rows = [request for request in requests if request.energy is not None]
    if not rows:
        return
    moves, kept = _Moves(now), []
    for request in rows:
        hold = unpacked(request.energy)
        moves.add("refund", hold.account, hold.pieces, request.request_id)
        kept.append(_without_pieces(request.request_id, hold))
    moves.make(db)
    db.execute(_KEEP, kept)


def grant(db: Connection, account: str, credits: int, by: str, now: int, expires_at: int | None = None) -> str:
    """Give a user credits, until `expires_at` if that is not None; the id of the grant. ValueError for none, or none of use."""
    if credits < 1:
        raise ValueError(f"{credits} credits cannot be granted; give 1 or more.")
    if expires_at is not None and expires_at <= now:
        raise ValueError("The grant would have expired already; give a time to come.")
    grant_id = str(uuid.uuid4())
    row = {
        "grant_id": grant_id, "account": account, "granted": credits, "left": 0, "granted_at": now,
        "granted_by": by[:256], "expires_at": expires_at,
    }  # fmt: skip
    db.execute(insert(ENERGY_GRANTS).values(row))
    moves = _Moves(now)
    moves.add("grant", account, [(grant_id, credits)])
    moves.make(db)
    return grant_id


def expire(db: Connection, now: int) -> int:
    """Take back what is left of grants whose time is over; how many credits."""
    rows = db.execute(_OVER[db.dialect.name], {"now": now}).all()
    moves = _Moves(now)
    for row in rows:
        moves.add("expire", row.account, [(row.grant_id, row.left)])
    moves.make(db)
    return sum(row.left for row in rows)


def _without_pieces(request_id: str, hold: Hold) -> dict[str, Any]:
    """A row that keeps what the request's answers cost, of which nothing is reserved any more."""
    return {"of": request_id, "energy": replace(hold, pieces=()).packed()}


class _Moves:
    """Movements of credits that are to be written: their entries, and what they leave of grants."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._entries: list[dict[str, Any]] = []
        self._left: Counter[tuple[str, str]] = Counter()

    def add(
        self, kind: Kind, account: str, pieces: Collection[Piece], request_id: str | None = None, now: int | None = None
    ) -> None:  # fmt: skip
        loses, gains = MOVES[kind]
        for grant_id, credits in pieces:
            entry = {
                "account": account, "grant_id": grant_id, "kind": kind, "request_id": request_id,
                "at": self._now if now is None else now,
            }  # fmt: skip
            self._entries += (
                {**entry, "book": loses, "credits": -credits},
                {**entry, "book": gains, "credits": credits},
            )
            self._left[account, grant_id] += credits * ((gains == "left") - (loses == "left"))

    def make(self, db: Connection) -> None:
        changed = [{"of": grant_id, "more": more} for (_, grant_id), more in sorted(self._left.items()) if more]
        if changed:
            db.execute(_CHANGE, changed)
        if self._entries:
            db.execute(_ENTER, self._entries)


def _usable(db: Connection, accounts: Collection[str], now: int) -> dict[str, dict[str, int]]:
    """What is left of the grants of these accounts, locked; of each account, the grant that expires first comes first."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    if accounts:
        rows: Sequence[Row[Any]] = db.execute(
            _USABLE[db.dialect.name], {"accounts": sorted(accounts), "now": now}
        ).all()
        for row in sorted(rows, key=lambda row: (row.expires_at is None, row.expires_at or 0, row.granted_at)):
            found[row.account][row.grant_id] = row.left
    return found


#: Built once: building a statement costs more than running it. Grants are locked in the order in which they are changed.
_KEY = ENERGY_GRANTS.c.account, ENERGY_GRANTS.c.grant_id
_LEFT = select(ENERGY_GRANTS).where(ENERGY_GRANTS.c.left > 0)
_USABLE = locking(
    _LEFT.where(
        ENERGY_GRANTS.c.account.in_(bindparam("accounts", expanding=True)),
        ENERGY_GRANTS.c.expires_at.is_(None) | (ENERGY_GRANTS.c.expires_at > bindparam("now")),
    ),
    *_KEY,
)
_OVER = locking(_LEFT.where(ENERGY_GRANTS.c.expires_at <= bindparam("now")).limit(MOST_AT_ONCE), *_KEY)
_CHANGE = (
    update(ENERGY_GRANTS)
    .where(ENERGY_GRANTS.c.grant_id == bindparam("of"))
    .values(left=ENERGY_GRANTS.c.left + bindparam("more"))
)
_ENTER = insert(ENERGY_ENTRIES)
_KEEP = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
