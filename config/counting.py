"""Count requests against limits, in the transaction that admits or settles them.

The cells of all counts that a batch touches are read and locked together, in one order, so that no two transactions wait for
each other, and decided on request by request: a limit is exact however many workers admit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection, Row, bindparam, case, select, update

from config.dialects import inserts, locking, upserts
from config.limit_models import COUNTERS, LIMIT_ALERTS
from core.accounts import PLATFORM
from core.degrading import Degraded, degraded, spared
from core.limits import (
    SHARES,
    Asking,
    Cell,
    Count,
    CountKey,
    Level,
    Limits,
    Meter,
    Place,
    Refusal,
    level,
    refusals,
    wanted,
)
from core.shares import news
from core.windows import Window
from schemas.events import NearLimit

#: A sliding count has one row more, its head, which whoever makes a cell of it changes: it says which one was made last. On PostgreSQL a
#: statement that waited for a lock finds rows as they are then, and none that was made meanwhile
#: (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED); by the head such a one is missed.
HEAD, HEAD_AT = "last of ", 1 << 62


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request holds in a cell of a count; `model` is the pattern of the calls that count there, None for all.

    `share` is how much of the limit was used or held when the request was admitted, itself included, in percent;
    that is not kept.
    """

    account: str
    subject: str
    begins: int
    meter: Meter
    held: int
    model: str | None
    share: int = 0

    @property
    def place(self) -> Place:
        """The cell."""
        return self.account, self.subject, self.begins


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for `now`, in the windows that it was `admitted_at` in.

    For a further call of it, on these meters only, beside what it `holds` already.
    """

    asking: Asking
    admitted_at: int
    now: int
    meters: Collection[Meter] | None = None
    holds: Mapping[Place, int] = field(default_factory=dict)

    def counts(self, limits: Limits) -> list[Count]:
        """The counts that it counts in."""
        found = limits.counts(self.asking, self.admitted_at)
        return [count for count in found if self.meters is None or count.limit.meter in self.meters]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call used, or its bound where nobody knows: nano-USD and tokens, against the charges of its request."""

    charges: Sequence[Charge]
    model: str
    nano: int
    tokens: int


def packed(charges: Sequence[Charge]) -> bytes | None:
    """Charges as the ledger keeps them with their request; None for none."""
    return orjson.dumps([[*c.place, c.meter, c.held, c.model] for c in charges]) if charges else None


def unpacked(kept: bytes | None) -> list[Charge]:
    """The charges that `packed` gave."""
    return [Charge(*each) for each in orjson.loads(kept)] if kept else []


def near(charges: Iterable[Charge]) -> list[NearLimit]:
    """The limits that were nearly used up when the request with these charges was admitted; the platform's concern no caller."""
    return [
        NearLimit(account=c.account, limit=c.subject, percent=c.share)
        for c in charges
        if c.share >= SHARES[0] and c.account != PLATFORM
    ]


def merged(charges: Sequence[Charge], more: Sequence[Charge]) -> list[Charge]:
    """What a request holds with what a further call holds."""
    held = {charge.place: charge for charge in charges}
    for each in more:
        before = held.get(each.place)
        held[each.place] = each if before is None else replace(before, held=before.held + each.held)
    return list(held.values())


def divided(charges: Sequence[Charge], nano: int, tokens: int) -> tuple[list[Charge], list[Charge]]:
    """What a request still holds when its calls have used so much in place of what it held, and what it gives back."""
    used = {"usd": nano, "tokens": tokens}
    back = [replace(charge, held=min(charge.held, used.get(charge.meter, 0))) for charge in charges]
    return [replace(charge, held=charge.held - less.held) for charge, less in zip(charges, back, strict=True)], back


def reserve(
    db: Connection, limits: Limits, asked: Sequence[Ask], admits: Callable[[int], bool] | None = None
) -> list[list[Charge] | Refusal | Degraded]:
    """Hold what requests may use, as far as every hard limit allows; the charges of each, or why it does not fit.

    A request that does not fit, or that has to do without some of its candidates, takes nothing; a further call does without no
    candidate. `admits` is asked about each request that fits, by its place; one that it turns down takes nothing either and has
    no charges.
    """
    counts = [each.counts(limits) for each in asked]
    touched = {count.place: count for found in counts for count in found}
    if not touched and admits is None:
        return [[] for _ in asked]
    cells = _locked(db, touched.values())
    results: list[list[Charge] | Refusal | Degraded] = []
    moves = _Moves()
    for place, (each, found) in enumerate(zip(asked, counts, strict=True)):
        asking, holds = each.asking, each.holds
        noes = refusals(found, cells, asking.amounts, each.now, holds)
        no = noes[0] if noes else None
        cheaper = degraded(asking, found, cells, no) if asking.dearer else None
        if why := cheaper or (spared(asking, noes) if each.meters is None else None) or no:
            results.append(why)
            continue
        if admits is not None and not admits(place):
            results.append([])
            continue
        charges = [_charge(count, wanted(count, asking.amounts, holds) or 0, cells[count.key]) for count in found]
        for charge in charges:
            # A request that was admitted counts as one, whatever comes of it.
            used, held = (charge.held, 0) if charge.meter == "requests" else (0, charge.held)
            moves.add(charge.place, used, held)
            cells[charge.place[:2]] = _added(cells[charge.place[:2]], charge.begins, used, held)
        results.append(charges)
    moves.make(db)
    refused = {no.count.place for no in results if isinstance(no, Refusal) and no.leaves_too_little}
    _tell(db, touched.values(), cells, max(each.now for each in asked), refused)
    return results


def unheld(db: Connection, limits: Limits, admitted: Sequence[tuple[Asking, int, int]]) -> list[list[Charge]]:
    """The charges of requests for which nothing was held, beyond a limit too: each admitted at its time, and how many it counts as."""
    counts = [limits.counts(asking, at) for asking, at, _ in admitted]
    _locked(db, {count.place: count for found in counts for count in found}.values())
    charges = [[Charge(*count.place, count.limit.meter, 0, count.limit.model) for count in found] for found in counts]
    moves = _Moves()
    for (_, _, requests), found in zip(admitted, charges, strict=True):
        for charge in found:
            moves.add(charge.place, requests if charge.meter == "requests" else 0, 0)
    moves.make(db)
    return charges


def settle(db: Connection, limits: Limits, spent: Iterable[Spent], back: Iterable[Charge], now: int) -> None:
    """Count what calls used, and give back what requests that go on hold no more."""
    moves = _Moves()
    for charge in back:
        moves.add(charge.place, 0, -charge.held)
    for call in spent:
        for charge in call.charges:
            if charge.meter in ("usd", "tokens") and (charge.model is None or fnmatchcase(call.model, charge.model)):
                moves.add(charge.place, call.nano if charge.meter == "usd" else call.tokens, 0)
    counted = {place: limits.count_at(*place) for place in moves.places()}
    counts = [count for count in counted.values() if count is not None]
    # What a limit counted that is there no more is locked in its turn too.
    cells = _cells(db, counts, heads=False, more=[place for place, count in counted.items() if count is None])
    moves.make(db)
    for count in counts:
        cells[count.key] = _added(cells[count.key], count.begins, *moves.of(count.place))
    _tell(db, counts, cells, now)


def release(db: Connection, charges: Iterable[Charge]) -> None:
    """Give back what is held."""
    moves = _Moves()
    for charge in charges:
        moves.add(charge.place, 0, -charge.held)
    moves.make(db)


def _in_order(place: Place) -> tuple[str, Place]:
    """What sorts places as their cells are locked: those of the calendar, then window by window."""
    return _sliding_over(place[1]), place


@lru_cache(maxsize=10_000)
def _sliding_over(subject: str) -> str:
    words = subject.split(" ", 4)
    return words[3] if words[2:3] == ["sliding"] else ""


class _Moves:
    """What is to be added to cells: used and reserved."""

    def __init__(self) -> None:
        self._by_place: dict[Place, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def add(self, place: Place, used: int, held: int) -> None:
        before = self._by_place[place]
        self._by_place[place] = before[0] + used, before[1] + held

    def of(self, place: Place) -> tuple[int, int]:
        """What is added to a cell."""
        return self._by_place[place]

    def places(self) -> list[Place]:
        return sorted(self._by_place, key=_in_order)

    def make(self, db: Connection) -> None:
        """Write them, in one order."""
        rows = [
            {"of": a, "on": s, "at": b, "more_used": used, "more_held": held}
            for a, s, b in self.places()
            for used, held in [self.of((a, s, b))]
            if used or held
        ]
        if rows:
            db.execute(_MOVE, rows)


def _charge(count: Count, held: int, cells: Sequence[Cell]) -> Charge:
    limit, before = count.limit, level(count, cells)
    share = Level(before.used, before.reserved + held).share(limit)
    return Charge(*count.place, limit.meter, held, limit.model, share)


def _added(cells: Sequence[Cell], begins: int, used: int, held: int) -> list[Cell]:
    return [replace(c, used=c.used + used, reserved=c.reserved + held) if c.begins == begins else c for c in cells]


def _locked(db: Connection, counts: Collection[Count]) -> dict[CountKey, Sequence[Cell]]:
    """The cells of counts, locked; that of the present is made where there is none yet."""
    found = _cells(db, counts)
    sliding = [count for count in counts if count.limit.sliding]
    missing = [c for c in counts if not _has(found[c.key], c.begins)] + [c for c in sliding if not found[_head(c)]]
    unseen = [
        c for c in sliding for last in found[_head(c)] if last.used >= c.since and not _has(found[c.key], last.used)
    ]
    if missing:
        _make(db, missing)
    if missing or unseen:
        # Another transaction may have made them meanwhile, and used them. A batch can ask for two windows of one count.
        again = {count.key for count in (*missing, *unseen)}
        found |= _cells(db, [count for count in counts if count.key in again])
    return found


def _has(cells: Iterable[Cell], begins: int) -> bool:
    return begins in [each.begins for each in cells]


def _head(count: Count) -> CountKey:
    """By what the row is found that says which cell of a sliding count was made last, in `used`."""
    return count.account, f"{HEAD}{count.limit.subject}"


def _make(db: Connection, missing: Iterable[Count]) -> None:
    """Make cells, in one order; of sliding counts after their heads, for which whoever makes another cell waits."""
    row = {"used": 0, "reserved": 0, "told": 0, "ends": None}
    ordered = sorted(missing, key=lambda c: _in_order(c.place))
    if heads := {
        (*_head(c), HEAD_AT): {**row, "account": c.account, "subject": _head(c)[1], "begins": HEAD_AT, "used": c.begins}
        for c in ordered if c.limit.sliding
    }:  # fmt: skip
        db.execute(_MAKE_HEAD[db.dialect.name], list(heads.values()))
    db.execute(_MAKE[db.dialect.name], [
        {**row, "account": c.account, "subject": c.limit.subject, "begins": c.begins, "ends": c.ends} for c in ordered
    ])  # fmt: skip


def _cells(
    db: Connection, counts: Collection[Count], heads: bool = True, more: Collection[Place] = ()
) -> dict[CountKey, Sequence[Cell]]:
    """The cells of counts as they are found, locked: those of the calendar, then window by window, each with its head if wanted.

    What stands at `more` places is locked with those of the calendar.
    """
    found: dict[CountKey, list[Cell]] = {count.key: [] for count in counts}
    sliding: dict[Window, list[Count]] = defaultdict(list)
    for count in counts:
        if count.limit.sliding and count.limit.window is not None:
            sliding[count.limit.window].append(count)
    calendar = [*more, *(count.place for count in counts if not count.limit.sliding)]
    rows: list[Row[Any]] = []
    if calendar:
        rows += db.execute(_AT[db.dialect.name], _values(calendar))
    for _, some in sorted(sliding.items()):
        since, last = min(count.since for count in some), max(2 * count.begins - count.since for count in some)
        found |= {_head(count): [] for count in some}
        places = [(*key, since) for count in some for key in (count.key, _head(count))]
        rows += db.execute(
            _BETWEEN[db.dialect.name], {**_values(places), "since": since, "last": HEAD_AT if heads else last}
        )
    for row in rows:
        key = row.account, row.subject
        if key in found:
            found[key].append(Cell(row.begins, row.used, row.reserved, row.told))
    return {**found}


def _values(places: Iterable[Place]) -> dict[str, list[str] | list[int]]:
    places = list(places)
    return {
        "accounts": sorted({account for account, _, _ in places}),
        "subjects": sorted({subject for _, subject, _ in places}),
        "begun": sorted({begins for _, _, begins in places}),
    }


def _tell(
    db: Connection, counts: Iterable[Count], cells: Mapping[CountKey, Sequence[Cell]], now: int,
    refused: Collection[Place] = (),
) -> None:  # fmt: skip
    """Note the shares of limits that were reached now; `refused` are the cells that had too little left for a request."""
    alerts, told = [], []
    for count in counts:
        found = news(count, cells[count.key], count.place in refused, now)
        if found is None:
            continue
        account, subject, begins = count.place
        told.append({"of": account, "on": subject, "at": begins, "told": found.told})
        alerts += [
            {"account": account, "subject": subject, "begins": found.begins, "share": share, "used": found.used, "most": count.limit.most, "raised_at": now, "ends": count.ends}
            for share in found.shares
        ]  # fmt: skip
    if alerts:
        db.execute(_RAISE[db.dialect.name], alerts)
        db.execute(_TOLD, told)


#: Built once: building a statement costs more than running it. They find all pairings of the values, and few of them are there.
_OF = (
    COUNTERS.c.account.in_(bindparam("accounts", expanding=True)),
    COUNTERS.c.subject.in_(bindparam("subjects", expanding=True)),
)
_KEY = COUNTERS.c.account, COUNTERS.c.subject, COUNTERS.c.begins
_AT = locking(select(COUNTERS).where(*_OF, COUNTERS.c.begins.in_(bindparam("begun", expanding=True))), *_KEY)
_BETWEEN = locking(
    select(COUNTERS).where(*_OF, COUNTERS.c.begins.between(bindparam("since"), bindparam("last"))), *_KEY
)
_PLACE = (
    COUNTERS.c.account == bindparam("of"), COUNTERS.c.subject == bindparam("on"), COUNTERS.c.begins == bindparam("at"),
)  # fmt: skip
_MOVE = (
    update(COUNTERS)
    .where(*_PLACE)
    .values(used=COUNTERS.c.used + bindparam("more_used"), reserved=COUNTERS.c.reserved + bindparam("more_held"))
)
_TOLD = update(COUNTERS).where(*_PLACE)
_MAKE_HEAD = upserts(
    COUNTERS, lambda new: {"used": case((new["used"] > COUNTERS.c.used, new["used"]), else_=COUNTERS.c.used)}
)
_MAKE = {name: insert.on_conflict_do_nothing() for name, insert in inserts(COUNTERS).items()}
_RAISE = {name: insert.on_conflict_do_nothing() for name, insert in inserts(LIMIT_ALERTS).items()}
