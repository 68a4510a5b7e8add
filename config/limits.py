"""The limits of accounts in the database: what holds now, and changes of it that act with the next admission.

Every transaction that admits reads the registry's version under a lock that a change waits for; so a change is seen by all
workers at once, and what it counts from the start is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from sqlalchemy import Connection, Engine, Row, delete, insert, select, tuple_, update

from config.counting import Charge, Place, packed, unpacked
from config.ledger_rows import attempts_of, month_of
from config.limit_models import COUNTERS, LIMITS, TIME_ZONES
from config.models import ACCOUNTS, REQUESTS
from config.registry_entries import RegistryInvalid
from config.registry_models import REGISTRY_VERSION
from config.registry_store import Changed, Difference, audited, take_version
from core.accounts import PLATFORM, account, tenant_of
from core.limits import Amounts, Asking, Limit, Limits

#: The subject whose past the ledger keeps for good, by calendar months.
MONEY_OF_A_MONTH = "usd per month"
_KNOWN: WeakKeyDictionary[Engine, Limits] = WeakKeyDictionary()
_VERSION = select(REGISTRY_VERSION.c.version).with_for_update(read=True)


def current(db: Connection) -> Limits:
    """The limits that hold now; none can change until the transaction ends."""
    version = int(db.execute(_VERSION).scalar() or 0)
    known = _KNOWN.get(db.engine)
    if known is None or known.version != version:
        known = _KNOWN[db.engine] = read(db, version)
    return known


def read(db: Connection, version: int = 0) -> Limits:
    """All limits and time zones that are stored."""
    limits = [
        Limit(
            row.account, row.meter, row.window or None, row.most, row.sliding, row.hard, row.task or None, row.model or None
        )
        for row in db.execute(select(LIMITS).order_by(*LIMITS.primary_key.columns))
    ]  # fmt: skip
    return Limits(version, limits, {row.tenant: row.time_zone for row in db.execute(select(TIME_ZONES))})


def packed_asking(asking: Asking) -> bytes:
    """What a request asked for as the ledger keeps it."""
    return orjson.dumps([asking.path, asking.task, asking.models, asking.amounts.nano, asking.amounts.tokens])


def unpacked_asking(kept: bytes) -> Asking:
    """What `packed_asking` gave."""
    path, task, models, nano, tokens = orjson.loads(kept)
    return Asking(tuple(path), task, tuple(models), Amounts(nano, tokens))


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of limits: what is set, in place of what stood for the same account and subject, what is removed, and the time
    zones of tenants, None for UTC."""

    put: Sequence[Limit] = ()
    remove: Sequence[Limit] = ()
    zones: Sequence[tuple[str, str | None]] = ()


def change(db: Connection, edit: Edit, by: str, now: int) -> Changed:
    """Change limits; what they count begins with what the ledger knows of the present windows. Audited as the registry is.

    One change at a time, and no admission meanwhile. `RegistryInvalid` for a time zone that nobody knows.
    """
    version = take_version(db)
    before = read(db)
    for tenant, zone in edit.zones:
        _put_zone(db, tenant, zone)
    for limit in (*edit.remove, *edit.put):
        db.execute(delete(LIMITS).where(*_is(limit)))
    if edit.put:
        db.execute(insert(LIMITS), [_row(limit) for limit in edit.put])
    after = read(db)
    found = _differences(before, after)
    if not found:
        return Changed(version, ())
    _recount(db, before, after, now)
    return audited(db, version, found, by, now)


def _put_zone(db: Connection, tenant: str, zone: str | None) -> None:
    db.execute(delete(TIME_ZONES).where(TIME_ZONES.c.tenant == tenant))
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise RegistryInvalid([f"{zone!r} is no time zone; give an IANA name such as Europe/Berlin."]) from None
        db.execute(insert(TIME_ZONES).values(tenant=tenant, time_zone=zone))


def _row(limit: Limit) -> dict[str, Any]:
    row = {name: value for name, value in asdict(limit).items() if name != "subject"}
    return row | {name: row[name] or "" for name in ("window", "task", "model")}


def _is(limit: Limit) -> list[Any]:
    row = _row(limit)
    return [column == row[column.name] for column in LIMITS.primary_key.columns]


def _differences(before: Limits, after: Limits) -> tuple[Difference, ...]:
    def plain(limits: Limits) -> dict[str, dict[str, Any]]:
        words = {
            f"limit {limit.account} {limit.subject}": {"meter": limit.meter, "most": limit.most, "hard": limit.hard}
            for limit in limits.limits
        }
        return words | {f"time zone of {tenant}": {"time_zone": zone} for tenant, zone in limits.zones.items()}

    old, new = plain(before), plain(after)
    return tuple(
        Difference(
            "add" if name not in old else "remove" if name not in new else "update", name, old.get(name), new.get(name)
        )
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    )


def _recount(db: Connection, before: Limits, after: Limits, now: int) -> None:
    """Count anew what counts now and did not before; whose amount alone was changed keeps its count."""
    moved = {tenant for tenant in {*before.zones, *after.zones} if before.zones.get(tenant) != after.zones.get(tenant)}

    def concerned(path: str, subject: str) -> bool:
        limit = after.find(path, subject)
        if limit is None or (old := before.find(path, subject)) is None:
            return limit is not None
        return tenant_of(path) in moved and old.window is not None and not old.sliding

    told: dict[Place, int] = {}
    for row in db.execute(select(COUNTERS)).all():
        if concerned(row.account, row.subject):
            place = row.account, row.subject, row.begins
            told[place] = row.told
            db.execute(delete(COUNTERS).where(tuple_(*COUNTERS.primary_key.columns) == tuple_(*place)))
    counted: dict[Place, dict[str, Any]] = {}
    for request, attempts in _kept(db):
        charges, asking = unpacked(request.charges), unpacked_asking(request.asking)
        kept = [charge for charge in charges if not concerned(charge.account, charge.subject)]
        for count in after.counts(asking, request.admitted_at):
            if not concerned(*count.key):
                continue
            limit, place = count.limit, (*count.key, count.begins)
            held = _held(request, attempts, asking, limit)
            if held:
                kept.append(Charge(*place, limit.meter, held, limit.model))
            cell = counted.setdefault(place, {
                "account": count.account, "subject": limit.subject, "begins": count.begins, "ends": count.ends,
                "used": 0, "reserved": 0, "told": told.get(place, 0),
            })  # fmt: skip
            cell["used"] += 1 if limit.meter == "requests" else _used(attempts, asking, limit)
            cell["reserved"] += 0 if limit.meter == "requests" else held
        if kept != charges:
            db.execute(update(REQUESTS).where(REQUESTS.c.request_id == request.request_id).values(charges=packed(kept)))
    for path, used in _months(db, now).items():
        monthly = after.find(path, MONEY_OF_A_MONTH)
        if monthly is None or not concerned(path, MONEY_OF_A_MONTH) or tenant_of(path) in after.zones:
            continue
        count = after.count(monthly, path, now)
        cell = counted.setdefault((*count.key, count.begins), {
            "account": path, "subject": MONEY_OF_A_MONTH, "begins": count.begins, "ends": count.ends, "reserved": 0,
            "told": told.get((*count.key, count.begins), 0),
        })  # fmt: skip
        cell["used"] = used
    if counted:
        db.execute(insert(COUNTERS), list(counted.values()))


def _months(db: Connection, now: int) -> dict[str, int]:
    """What tenants and the platform have used of their money in this calendar month (UTC), also in calls that are forgotten."""
    used: dict[str, int] = {PLATFORM: 0}
    for row in db.execute(select(ACCOUNTS).where(ACCOUNTS.c.window == month_of(now))):
        used[account(row.account)] = row.spent_nano + row.unknown_nano
        used[PLATFORM] += row.spent_nano + row.unknown_nano
    return used


def _kept(db: Connection) -> Iterator[tuple[Row[Any], list[Row[Any]]]]:
    """Every request that the ledger remembers as one that was admitted, with its calls."""
    rows = iter(db.execute(select(REQUESTS).where(REQUESTS.c.asking.is_not(None))).all())
    while chunk := list(islice(rows, 500)):
        attempts = attempts_of(db, [row.request_id for row in chunk])
        yield from ((row, attempts[row.request_id]) for row in chunk)


def _held(request: Row[Any], attempts: list[Row[Any]], asking: Asking, limit: Limit) -> int:
    """What an open request holds on a meter."""
    if request.expired_at is not None:
        return 0
    if limit.meter == "concurrent":
        return int(request.answer is None)
    if request.answer is not None and all(attempt.settled for attempt in attempts):
        return 0
    return {"usd": int(request.reserved_nano), "tokens": asking.amounts.tokens}.get(limit.meter, 1)


def _used(attempts: list[Row[Any]], asking: Asking, limit: Limit) -> int:
    """What the settled calls of a request used, or their bound where nobody knows."""
    used = 0
    for attempt in attempts:
        model = asking.models[min(attempt.candidate, len(asking.models) - 1)]
        if not attempt.settled or (limit.model is not None and not fnmatchcase(model, limit.model)):
            continue
        money = attempt.cost_nano if attempt.charged_nano is None else attempt.charged_nano
        amount = {"usd": money, "tokens": attempt.tokens}.get(limit.meter, 0)
        used += amount if amount is not None else asking.amounts.of(limit.meter) or 0
    return used
