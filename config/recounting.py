"""Count anew what counts from a change of limits on and did not before: new limits, and windows that a time zone has moved.

What is counted are the requests that the ledger remembers. What a counter has beyond these was used by requests that are
forgotten, and goes on counting in the present window where they can have fallen into it: rather too much than too little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from config.asking import unpacked_asking
from config.counting import Charge, packed, unpacked
from config.ledger_rows import month_of
from config.limit_models import COUNTERS
from config.models import ACCOUNTS, ATTEMPTS, REQUESTS
from core.accounts import PLATFORM, account, tenant_of
from core.limits import Asking, Count, CountKey, Limit, Limits, Place
from core.windows import calendar, oldest_cell

#: The subject whose past the ledger keeps for good, by calendar months.
MONEY_OF_A_MONTH = "usd per month"
AT_ONCE = 500
#: Clocks of hosts differ by less.
SKEW_US = 600_000_000


def recount(db: Connection, before: Limits, after: Limits, now: int) -> None:
    """Count anew what counts now and did not before; whose amount alone was changed keeps its count, and nothing is read for it."""
    anew = _Anew(before, after)
    if not anew.limits:
        return
    # A request that is open may make a further call, which counts in the window of its admission.
    oldest = min(now, db.execute(_OLDEST_OPEN).scalar() or now) - SKEW_US
    cells = _Cells(after, oldest)
    subjects = {limit.subject for limit in anew.limits}
    rows = db.execute(select(COUNTERS).where(COUNTERS.c.subject.in_(subjects)))
    counters = [row for row in rows if anew(row.account, row.subject)]
    earlier = _Earlier(counters, cells, db.execute(_OLDEST_DONE).scalar() or now)
    charged = []
    since = min([_since(anew.limits, after, oldest), *earlier.begins])
    for request, asking, calls in admitted(db, since, anew.tenants):
        charges = unpacked(request.charges)
        kept = [charge for charge in charges if not anew(charge.account, charge.subject)]
        for count in after.counts(asking, request.admitted_at):
            if not anew(*count.key):
                continue
            limit = count.limit
            used = 1 if limit.meter == "requests" else _used(calls, asking, limit)
            earlier.remember(count.key, request.admitted_at, used)
            cell = cells.at(count)
            if cell is None:
                continue
            held = _held(request, calls, asking, limit)
            if held is not None:
                kept.append(Charge(*count.key, count.begins, limit.meter, held, limit.model))
            cell["used"] += used
            cell["reserved"] += 0 if limit.meter == "requests" else held or 0
        if kept != charges:
            charged.append({"of": request.request_id, "charges": packed(kept)})
    earlier.carry_over(now)
    if MONEY_OF_A_MONTH in subjects:
        _count_months(db, anew, cells, now)
    told = {(row.account, row.subject, row.begins): row.told for row in counters}
    if charged:
        db.execute(_CHARGED, charged)
    if told:
        db.execute(_GONE, [{"of": path, "on": subject, "at": begins} for path, subject, begins in told])
    if cells.rows:
        db.execute(insert(COUNTERS), [row | {"told": told.get(place, 0)} for place, row in cells.rows.items()])


class _Anew:
    """Tells what is counted anew; `limits` are those that do, alone or for some of the accounts that they fit."""

    def __init__(self, before: Limits, after: Limits) -> None:
        zones = {*before.zones, *after.zones}
        self._moved = {tenant for tenant in zones if before.zones.get(tenant) != after.zones.get(tenant)}
        self._before, self._after = before, after
        self._known: dict[CountKey, bool] = {}
        self._stood = {(limit.account, limit.subject) for limit in before.limits}
        self.limits = [
            limit
            for limit in after.limits
            if not self._had(limit) or (_follows_a_zone(limit) and self._moves(limit.account))
        ]

    @property
    def tenants(self) -> set[str]:
        """The tenants whose requests can be concerned; empty for all."""
        named: set[str | None] = set()
        for limit in self.limits:
            named |= self._moved if self._had(limit) else {tenant_of(limit.account)}
        return set() if None in named else {tenant for tenant in named if tenant is not None}

    def __call__(self, path: str, subject: str) -> bool:
        """Whether the count of an account is."""
        found = self._known.get((path, subject))
        if found is None:
            found = self._known[path, subject] = self._find(path, subject)
        return found

    def _find(self, path: str, subject: str) -> bool:
        limit = self._after.find(path, subject)
        if limit is None or self._before.find(path, subject) is None:
            return limit is not None
        return _follows_a_zone(limit) and self._moves(path)

    def _had(self, limit: Limit) -> bool:
        return (limit.account, limit.subject) in self._stood

    def _moves(self, path: str) -> bool:
        """Whether another time zone holds for an account, or for one that a pattern fits."""
        tenant = tenant_of(path)
        return tenant in self._moved if tenant is not None else bool(self._moved) and path != PLATFORM


class _Cells:
    """The cells that are counted anew, those of the windows since that of `oldest`, by their places."""

    def __init__(self, limits: Limits, oldest: int) -> None:
        self.limits = limits
        self.rows: dict[Place, dict[str, Any]] = {}
        self._oldest = oldest
        self._since: dict[CountKey, int] = {}

    def since(self, limit: Limit, path: str) -> int:
        """Where the first cell of a count begins that is counted."""
        key = path, limit.subject
        if key not in self._since:
            self._since[key] = self.limits.count(limit, path, self._oldest).since
        return self._since[key]

    def at(self, count: Count) -> dict[str, Any] | None:
        """The cell of a count, None where that is over."""
        if count.begins < self.since(count.limit, count.account):
            return None
        return self.rows.setdefault((*count.key, count.begins), {
            "account": count.account, "subject": count.limit.subject, "begins": count.begins, "ends": count.ends,
            "used": 0, "reserved": 0,
        })  # fmt: skip


class _Earlier:
    """The counters of calendar windows that may have more in them than the requests that the ledger remembers.

    It remembers all that were done since `memory`; those that it has forgotten were admitted before.
    """

    def __init__(self, counters: Sequence[Row[Any]], cells: _Cells, memory: int) -> None:
        self._cells, self._memory = cells, memory
        self._counters: dict[CountKey, list[Row[Any]]] = defaultdict(list)
        self._remembered: dict[Place, int] = defaultdict(int)
        for row in counters:
            limit = cells.limits.find(row.account, row.subject)
            if (
                limit is not None
                and _follows_a_zone(limit)
                and cells.since(limit, row.account) < row.ends
                and row.begins < memory
            ):
                self._counters[row.account, row.subject].append(row)

    @property
    def begins(self) -> list[int]:
        """Where they begin."""
        return [row.begins for rows in self._counters.values() for row in rows]

    def remember(self, key: CountKey, admitted_at: int, used: int) -> None:
        """A request of a count that is not forgotten, and what it used."""
        for row in self._counters.get(key, ()):
            if row.begins <= admitted_at < row.ends:
                self._remembered[*key, row.begins] += used

    def carry_over(self, now: int) -> None:
        """Count in the windows of the present what forgotten requests used that can have fallen into them."""
        for (path, subject), rows in self._counters.items():
            limit = self._cells.limits.find(path, subject)
            assert limit is not None, "only counters of limits are among them"
            present = self._cells.at(self._cells.limits.count(limit, path, now))
            assert present is not None, "the present window is not over"
            for row in rows:
                if present["begins"] < min(row.ends, self._memory) and present["ends"] > row.begins:
                    present["used"] += max(0, row.used - self._remembered[path, subject, row.begins])


def _follows_a_zone(limit: Limit) -> bool:
    return limit.window is not None and not limit.sliding


def admitted(
    db: Connection, since: int | None = None, tenants: Collection[str] = ()
) -> Iterator[tuple[Row[Any], Asking, list[Row[Any]]]]:  # fmt: skip
    """Every request that the ledger remembers as one that was admitted, with what it asked for and its calls.

    With `since` (microseconds) those that are open and those that were admitted from then on, and perhaps some more; with
    `tenants` only theirs.
    """
    query = _REQUESTS if since is None else _REQUESTS.where(_OPEN | (REQUESTS.c.done_at >= since - SKEW_US))
    if tenants:
        query = query.where(REQUESTS.c.account.in_(tenants))
    for rows in db.execute(query).partitions(AT_ONCE):
        calls: dict[str, list[Any]] = defaultdict(list)
        for call in db.execute(_CALLS, {"ids": [row.request_id for row in rows]}):
            calls[call.request_id].append(call)
        yield from ((row, unpacked_asking(row.asking), calls[row.request_id]) for row in rows)


def _since(limits: Collection[Limit], after: Limits, at: int) -> int:
    """Where the earliest window or cell begins that counts at a time, of any account."""
    zones = {"UTC", *after.zones.values()}
    begins = [at]
    for limit in limits:
        if limit.window is not None:
            begins += (
                [oldest_cell(limit.window, at)]
                if limit.sliding
                else [calendar(limit.window, zone, at).begins for zone in zones]
            )
    return min(begins)


def _count_months(db: Connection, anew: _Anew, cells: _Cells, now: int) -> None:
    """Count what tenants and the platform have used of their money in this calendar month (UTC), also in calls that are forgotten."""
    used: dict[str, int] = {PLATFORM: 0}
    for row in db.execute(select(ACCOUNTS).where(ACCOUNTS.c.window == month_of(now))):
        used[account(row.account)] = row.spent_nano + row.unknown_nano
        used[PLATFORM] += row.spent_nano + row.unknown_nano
    for path, nano in used.items():
        monthly = cells.limits.find(path, MONEY_OF_A_MONTH)
        if monthly is None or not anew(path, MONEY_OF_A_MONTH) or tenant_of(path) in cells.limits.zones:
            continue
        cell = cells.at(cells.limits.count(monthly, path, now))
        assert cell is not None, "the present month is not over"
        cell["used"] = nano


def _held(request: Row[Any], calls: Sequence[Row[Any]], asking: Asking, limit: Limit) -> int | None:
    """What a request holds on a meter that its calls still count on; None where none does any more."""
    if request.expired_at is not None:
        return None
    if limit.meter == "concurrent":
        return None if request.answered else 1
    if request.answered and all(call.settled for call in calls):
        return None
    if limit.meter == "tokens":
        charged = [call for call in calls if call.cost_status != "not_charged"]
        return asking.amounts.tokens * (sum(not call.settled for call in charged) if charged else 1)
    return int(request.reserved_nano) if limit.meter == "usd" else 1


def _used(calls: Sequence[Row[Any]], asking: Asking, limit: Limit) -> int:
    """What the settled calls of a request used, or their bound where nobody knows."""
    used = 0
    for call in calls:
        model = asking.models[min(call.candidate, len(asking.models) - 1)]
        if not call.settled or (limit.model is not None and not fnmatchcase(model, limit.model)):
            continue
        money = call.cost_nano if call.charged_nano is None else call.charged_nano
        amount = {"usd": money, "tokens": call.tokens}.get(limit.meter, 0)
        used += amount if amount is not None else asking.amounts.of(limit.meter) or 0
    return used


#: `done_at` is null as long as there is no answer, and has an index.
_OPEN = REQUESTS.c.done_at.is_(None)
_OLDEST_OPEN = select(func.min(REQUESTS.c.admitted_at)).where(_OPEN)
#: One for which money is held is kept for its settlement, however old.
_OLDEST_DONE = select(func.min(REQUESTS.c.done_at)).where(REQUESTS.c.reserved_nano == 0)
_REQUESTS = select(
    REQUESTS.c.request_id, REQUESTS.c.admitted_at, REQUESTS.c.reserved_nano, REQUESTS.c.asking, REQUESTS.c.charges,
    REQUESTS.c.expired_at, REQUESTS.c.done_at.is_not(None).label("answered"),
).where(REQUESTS.c.asking.is_not(None)).execution_options(yield_per=AT_ONCE)  # fmt: skip
_CALLS = select(
    ATTEMPTS.c.request_id, ATTEMPTS.c.settled, ATTEMPTS.c.candidate, ATTEMPTS.c.tokens, ATTEMPTS.c.cost_nano,
    ATTEMPTS.c.charged_nano, ATTEMPTS.c.cost_status,
).where(ATTEMPTS.c.request_id.in_(bindparam("ids", expanding=True)))  # fmt: skip
_CHARGED = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_GONE = delete(COUNTERS).where(
    COUNTERS.c.account == bindparam("of"), COUNTERS.c.subject == bindparam("on"), COUNTERS.c.begins == bindparam("at")
)
