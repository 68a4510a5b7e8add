"""The ledger of energy beside itself and beside the answers: its entries sum to zero, only open requests hold any of it, and
what was consumed is what completed answers cost.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from cli.reconcile.ledger import ledger_key
from cli.reconcile.topics import Told
from config.energy_audit import books, paid
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


def paid_lines(told: Told, db: Connection) -> Iterator[Line]:
    """Request by request, what its entries consumed and what the model that completed its answer costs; none without any energy."""
    known, forgotten = paid(db)
    if not known and not forgotten:
        return
    consumed, cost = Book("entries", ["credits"]), Book("completed answers", ["credits"])
    for request_id, answers in told.answers.items():
        request = known.get(ledger_key(request_id)) if request_id in told.due else None
        if request is None:
            continue
        models = {answer.model for answer in answers.values() if answer.model is not None}
        price = sum(request.prices.get(model, 0) for model in models)
        if request.consumed or price:
            label = f"request {request_id} of {request.account}"
            consumed.add(label, (request.consumed,))
            cost.add(label, (price,))
    notes = [f"{forgotten:,} requests whose prices the ledger does not have any more"] if forgotten else []
    yield compare("consumed energy = completed answers at their prices", consumed, cost, notes)
