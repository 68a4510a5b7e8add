"""The shares of limits that accounts have reached and that no alert is published of yet.

Each operation takes a connection inside a transaction and may be repeated. Times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select, update

from config.health import hold
from config.limit_models import LIMIT_ALERTS
from core.limits import Reached

#: Alerts that one turn publishes.
MOST_AT_ONCE = 200


def take_turn(db: Connection, name: str, owner: str, now: int, until: int) -> list[Reached]:
    """What waits to be published, the oldest first; nothing while another worker has the duty of this name."""
    found = [Reached(*row) for row in db.execute(_WAITING)]
    return found if found and hold(db, name, owner, now, until) else []


def published(db: Connection, reached: Iterable[Reached], now: int) -> None:
    """State that their alerts are with the broker."""
    rows = [
        {"of": each.account, "on": each.subject, "at": each.begins, "percent": each.share, "now": now}
        for each in reached
    ]
    if rows:
        db.execute(_PUBLISHED, rows)


_C = LIMIT_ALERTS.c
_WAITING = (
    select(_C.account, _C.subject, _C.begins, _C.share, _C.used, _C.most, _C.raised_at, _C.ends)
    .where(_C.published_at.is_(None))
    .order_by(_C.raised_at, _C.account, _C.subject, _C.begins, _C.share)
    .limit(MOST_AT_ONCE)
)
_PUBLISHED = (
    update(LIMIT_ALERTS)
    .where(
        _C.account == bindparam("of"),
        _C.subject == bindparam("on"),
        _C.begins == bindparam("at"),
        _C.share == bindparam("percent"),
    )
    .values(published_at=bindparam("now"))
)
