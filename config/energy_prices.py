"""The price list of energy in the database: what holds now, and changes of it that act with the next admission."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, delete, insert, select

from config.energy_models import ENERGY_PRICES
from config.registry_store import Changed, Difference, audited, take_version
from core.energy import EnergyPrice, PriceList

_KNOWN: WeakKeyDictionary[Engine, PriceList] = WeakKeyDictionary()


def current(db: Connection, version: int) -> PriceList:
    """The prices that hold at this version of the registry, which the transaction has locked; read once a version."""
    known = _KNOWN.get(db.engine)
    if known is None or known.version != version:
        known = _KNOWN[db.engine] = read(db, version)
    return known


def read(db: Connection, version: int = 0) -> PriceList:
    """All prices that are stored."""
    rows = db.execute(select(ENERGY_PRICES).order_by(*ENERGY_PRICES.primary_key.columns))
    return PriceList(
        version, [EnergyPrice(row.task or None, row.model or None, row.tier or None, row.credits) for row in rows]
    )


def change(
    db: Connection, put: Sequence[EnergyPrice], remove: Sequence[EnergyPrice], by: str, now: int
) -> Changed:  # fmt: skip
    """Set prices, in place of those for the same task, model and tier, and remove others; audited as the registry is.

    No request is admitted meanwhile; one that was admitted before costs what was reserved for it.
    """
    version = take_version(db)
    before = read(db)
    for price in (*remove, *put):
        db.execute(
            delete(ENERGY_PRICES).where(*(ENERGY_PRICES.c[name] == value for name, value in _key(price).items()))
        )
    if put:
        db.execute(insert(ENERGY_PRICES), [_key(price) | {"credits": price.credits} for price in put])
    found = _differences(before, read(db))
    return audited(db, version, found, by, now) if found else Changed(version, ())


def _key(price: EnergyPrice) -> dict[str, Any]:
    return {"task": price.task or "", "model": price.model or "", "tier": price.tier or ""}


def _differences(before: PriceList, after: PriceList) -> tuple[Difference, ...]:
    old, new = ({f"energy price {p.scope}": {"credits": p.credits} for p in one.prices} for one in (before, after))
    return tuple(
        Difference(
            "add" if name not in old else "remove" if name not in new else "update", name, old.get(name), new.get(name)
        )
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    )
