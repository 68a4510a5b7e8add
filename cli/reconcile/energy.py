"""The ledger of energy beside itself: its entries sum to zero, and only open requests hold any of it."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from config.energy_audit import books
from core.reconcile import Book, Line, compare


def energy_lines(db: Connection) -> Iterator[Line]:
    """The lines of energy, all of one moment; none where no user was ever granted any."""
    found = books(db)
    if not found.sums and not found.left:
        return
    issued, gone = Book("grants", ["credits"]), Book("left, reserved, consumed and expired", ["credits"])
    reserved, held = Book("entries", ["credits"]), Book("open requests", ["credits"])
    for account, sums in sorted(found.sums.items()):
        issued.add(account, (-sums["issued"],))
        gone.add(account, (sum(credits for book, credits in sums.items() if book != "issued"),))
        reserved.add(account, (sums["reserved"],))
        held.add(account, (0,))
    for account, credits in found.held.items():
        held.add(account, (credits,))
    left, entered = Book("grants", ["credits"]), Book("entries", ["credits"])
    for grant, credits in found.left.items():
        left.add(f"grant {grant}", (credits,))
    for grant, credits in found.entered.items():
        entered.add(f"grant {grant}", (credits,))
    yield compare("energy sums to zero", issued, gone)
    yield compare("reserved energy = held for open requests", reserved, held)
    yield compare("energy left of grants = their entries", left, entered)
