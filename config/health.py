"""The health of providers as all workers share it: who checks, what the checks found, and how each worker's calls went.

Each operation takes a connection inside a transaction and may be repeated. Times are microseconds since 1970.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from config.credential_models import CREDENTIALS
from config.dialects import inserts, upserts
from config.health_models import LEASES, SIGNALS
from config.registry_models import HEALTH
from core.health import ProviderHealth
from core.signals import Signal, standings
from core.standing import Standing

LONGEST_ERROR = 1_024


def hold(db: Connection, name: str, owner: str, now: int, until: int) -> bool:
    """Take a duty, or keep it, until then; False while it is another worker's."""
    row = {"name": name, "owner": owner, "held_until": until}
    take = inserts(LEASES)[db.dialect.name].values(row)
    free = (LEASES.c.owner == owner) | (LEASES.c.held_until <= now)
    kept = take.on_conflict_do_update(index_elements=["name"], set_=row, where=free).returning(LEASES.c.owner)
    return db.execute(kept).scalar() is not None


def take_turn(
    db: Connection, name: str, owner: str, now: int, until: int, since: int
) -> tuple[dict[str, ProviderHealth], list[Signal]] | None:
    """Take or keep the duty of checking: the health of all and what was told since then; None while it is another worker's."""
    if not hold(db, name, owner, now, until):
        return None
    db.execute(delete(SIGNALS).where(SIGNALS.c.at < since))
    return health_of(db), signals_since(db, since)


def record_turn(
    db: Connection, name: str, owner: str, now: int, until: int, found: Mapping[str, ProviderHealth]
) -> bool:  # fmt: skip
    """Write down what the checks found; False, and nothing written, where another worker has the duty by now."""
    if not hold(db, name, owner, now, until):
        return False
    record(db, found)
    return True


def exchange(db: Connection, signals: Sequence[Signal], since: int) -> dict[str, Standing]:
    """Tell the other workers how this one's calls went, and hear how everything stands by what was told since then."""
    tell(db, signals)
    return standings_since(db, since)


def standings_since(db: Connection, since: int) -> dict[str, Standing]:
    """How everything stands by what the workers told since then."""
    return standings(health_of(db), signals_since(db, since), _credentials(db))


def let_go(db: Connection, name: str, owner: str) -> None:
    """Give a duty up, so that another worker takes it at once."""
    db.execute(delete(LEASES).where(LEASES.c.name == name, LEASES.c.owner == owner))


def health_of(db: Connection) -> dict[str, ProviderHealth]:
    """What the latest checks found, by provider."""
    rows = db.execute(select(HEALTH)).mappings()
    return {row["subject"]: ProviderHealth(**{name: row[name] for name in row if name != "subject"}) for row in rows}


def record(db: Connection, found: Mapping[str, ProviderHealth]) -> None:
    """Write down the health of providers."""
    rows = [
        {"subject": name, **asdict(health), "last_error": (health.last_error or "")[:LONGEST_ERROR] or None}
        for name, health in sorted(found.items())
    ]
    _put(db, HEALTH, rows)


def tell(db: Connection, signals: Sequence[Signal]) -> None:
    """Write down how a worker's calls went, in place of what it told before."""
    rows = [asdict(signal) for signal in signals]
    _put(db, SIGNALS, sorted(rows, key=lambda row: (row["provider"], row["model"], row["credential_id"], row["owner"])))


def signals_since(db: Connection, since: int) -> list[Signal]:
    """What all workers told from then on."""
    return [Signal(**row) for row in db.execute(select(SIGNALS).where(SIGNALS.c.at >= since)).mappings()]


def _credentials(db: Connection) -> dict[str, list[str]]:
    """The platform's credentials that calls are made with, by provider."""
    held: dict[str, list[str]] = defaultdict(list)
    own = CREDENTIALS.c.tenant.is_(None) & CREDENTIALS.c.enabled & CREDENTIALS.c.revoked_at.is_(None)
    query = select(CREDENTIALS.c.provider, CREDENTIALS.c.credential_id).where(own)
    for provider, credential_id in db.execute(query.order_by(CREDENTIALS.c.credential_id)):
        held[provider].append(credential_id)
    return held


def _put(db: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, each in place of the one with its key; in one order, so that two transactions cannot wait for each other."""
    if not rows:
        return
    db.execute(_PUT[table.name][db.dialect.name], rows)


_PUT = {table.name: upserts(table) for table in (HEALTH, SIGNALS)}
