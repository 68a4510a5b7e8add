"""Requests that their callers have given up, kept in the ledger, so that whoever works on one after a crash knows."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, update

from config.models import REQUESTS


def cancel(db: Connection, request_id: str, tenant: str | None, now: int) -> None:
    """Keep that an admitted request without an answer is given up at `now`, once; one of another tenant is left alone.

    It belongs into a transaction of its own: all workers hear of a cancellation at once, and with other rows locked they would
    wait for each other.
    """
    statement = _CANCEL if tenant is None else _CANCEL_OF
    db.execute(statement, {"of": request_id, "tenant": tenant, "at": now})


_CANCEL = (
    update(REQUESTS)
    .where(REQUESTS.c.request_id == bindparam("of"), REQUESTS.c.answer.is_(None), REQUESTS.c.cancelled_at.is_(None))
    .values(cancelled_at=bindparam("at"))
)
_CANCEL_OF = _CANCEL.where(REQUESTS.c.account == bindparam("tenant"))
