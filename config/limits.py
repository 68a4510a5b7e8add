"""The limits of accounts in the database: what holds now, and changes of it that act with the next admission.

A change waits for the transactions that work on requests, and they for it (`config.gate`); so it is seen by all workers at
once, and what it counts from the start is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, Engine, delete, insert, select

from config.limit_models import LIMITS, TIME_ZONES
from config.recounting import recount
from config.registry_entries import RegistryInvalid
from config.registry_models import REGISTRY_VERSION
from config.registry_store import Changed, Difference, audited, take_version
from core.limits import Limit, Limits

_KNOWN: WeakKeyDictionary[Engine, Limits] = WeakKeyDictionary()
#: Built once: building a statement costs more than running it.
_VERSION = select(REGISTRY_VERSION.c.version)


def current(db: Connection) -> Limits:
    """The limits that hold now; none can change until the end of a transaction that works on requests."""
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


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of limits: what is set, in place of what stood for the same account and subject, what is removed, and the time
    zones of tenants, None for UTC. `fresh` says that no request was ever charged to their accounts: there is nothing to count.
    """

    put: Sequence[Limit] = ()
    remove: Sequence[Limit] = ()
    zones: Sequence[tuple[str, str | None]] = ()
    fresh: bool = False


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
    if not edit.fresh:
        recount(db, before, after, now)
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
