"""What answers cost the users of the traffic in credits, who is granted some, and whether a credit was ever used twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from cli.chaos.callers import TENANTS, USER
from config import energy, energy_prices
from config.database import open_database
from config.energy_audit import books
from config.settings import Settings
from core.accounts import account
from core.energy import EnergyPrice

#: A routed request is reserved the dearest of its three models; google costs everybody something.
PRICES = (
    EnergyPrice("routed", None, None, 5),
    EnergyPrice("routed", "google/*", None, 1),
    EnergyPrice(None, "google/*", None, 2),
)
#: The user whom requests name that are signed with a tenant's key.
OTHER_USER = "bo"
#: Most users never run out; those of one tenant do, and those of another live from hand to mouth: less than the dearest model.
PLENTY, FEW, ALLOWANCE = 1_000_000, 4, 3
POOR, FED = TENANTS - 2, TENANTS - 1
#: An allowance comes so often; every second one lasts so long.
EVERY_SECONDS, LASTS_SECONDS = 2.0, 5.0


def set_prices(db: Connection, now: int) -> None:
    """Let answers cost, and grant everybody what they begin with; `now` in microseconds since 1970."""
    energy_prices.change(db, PRICES, (), "chaos", now)
    for tenant in range(FED):
        for who in _users(tenant):
            energy.grant(db, who, FEW if tenant == POOR else PLENTY, "chaos", now)


@contextmanager
def allowances(settings: Settings) -> Iterator[None]:
    """Grant a little to the users that live of it, again and again; while the database is away they get nothing."""
    stop = threading.Event()
    engine = open_database(settings.database_url)

    def grant() -> None:
        lasting = False
        while not stop.wait(EVERY_SECONDS):
            lasting, now = not lasting, time.time_ns() // 1_000
            ends = None if lasting else now + int(LASTS_SECONDS * 1_000_000)
            with suppress(SQLAlchemyError), engine.begin() as db:
                for who in _users(FED):
                    energy.grant(db, who, ALLOWANCE, "chaos", now, ends)

    thread = threading.Thread(target=grant, name="allowances", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        engine.dispose()


def overdrawn(db: Connection) -> set[str]:
    """The users who have used or hold more than they were granted, or whose entries do not sum to zero."""
    return {
        f"{who} energy ({', '.join(f'{credits:,} {book}' for book, credits in sorted(sums.items()))})"
        for who, sums in books(db).sums.items()
        if sum(sums.values()) or min(credits for book, credits in sums.items() if book != "issued") < 0
    }


def still_reserved(db: Connection) -> list[str]:
    """What is reserved of users' credits."""
    sums = books(db).sums
    return [f"energy of {who} ({own['reserved']:,} reserved)" for who, own in sums.items() if own["reserved"]]


def _users(tenant: int) -> list[str]:
    return [account(f"tenant-{tenant}", "user", name) for name in (USER, OTHER_USER)]
