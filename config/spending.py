"""What tenants spend by day, looked up now and then in what the ledger has settled, and the days on which it is unusual.

Nothing is written when a call is settled: a day's spend is what all months of the tenant's account came to when they were looked at
last, less what they came to when the day before was. Days are those of the tenant's time zone. Each operation takes a
connection inside a transaction and may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from config.health import hold
from config.limit_models import TIME_ZONES
from config.models import ACCOUNTS, METADATA
from core.spending import WEEKS, Anomaly, Rule, Unusual, judge, weekdays_before

US = 1_000_000
#: Days are forgotten after this many.
KEEP_DAYS = 7 * WEEKS + 2

#: One row a tenant and day: what its account had come to before the day, and what was spent on it. A day that nothing was seen of the
#: day before is not `whole`. `raised_at` and what follows are set where the day is unusual, `published_at` once its alert is
#: with the broker.
SPEND_DAYS = Table(
    "spend_days",
    METADATA,
    Column("tenant", String(256), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("before_nano", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("whole", Boolean, nullable=False),
    Column("raised_at", BigInteger),
    Column("raised_nano", BigInteger),
    Column("known", Integer),
    Column("mean_nano", BigInteger),
    Column("greatest_nano", BigInteger),
    Column("published_at", BigInteger),
)

Rows = Mapping[tuple[str, date], Row[Any]]


def take_turn(db: Connection, name: str, owner: str, now: int, until: int, rule: Rule) -> list[Anomaly]:
    """Look at what was spent, and at what is unusual that no alert is published of; nothing while another worker has the duty."""
    if not hold(db, name, owner, now, until):
        return []
    look(db, now, rule)
    waiting = db.execute(_WAITING)
    return [
        Anomaly(row.tenant, row.day, Unusual(row.raised_nano, row.known, row.mean_nano, row.greatest_nano), row.raised_at)
        for row in waiting
    ]  # fmt: skip


def published(db: Connection, anomalies: Iterable[Anomaly], now: int) -> None:
    """State that their alerts are with the broker."""
    rows = [{"of": each.tenant, "on": each.day, "published_at": now} for each in anomalies]
    if rows:
        db.execute(_CHANGE, rows)


def look(db: Connection, now: int, rule: Rule) -> None:
    """Bring the present day of every tenant up to date, and note where it is unusual, once a day."""
    zones = {row.tenant: row.time_zone for row in db.execute(select(TIME_ZONES))}
    totals = {row.account: int(row.total) for row in db.execute(_TOTALS)}
    today = {tenant: _day(zones.get(tenant, "UTC"), now) for tenant in totals}
    rows = _rows(db, set(today.values()))
    new, changed = [], []
    for tenant, total in totals.items():
        day = today[tenant]
        row, yesterday = rows.get((tenant, day)), rows.get((tenant, day - timedelta(days=1)))
        if row is not None and row.before_nano + row.spent_nano == total:
            continue
        if row is not None:
            before, whole, told = row.before_nano, row.whole, row.raised_at is not None
        else:
            # What was spent while nobody looked is of no known day.
            before = total if yesterday is None else yesterday.before_nano + yesterday.spent_nano
            whole, told = yesterday is not None, False
            new.append({"tenant": tenant, "day": day, "before_nano": before, "spent_nano": 0, "whole": whole})
        found = _judged(total - before, rows, tenant, day, rule) if whole and not told else None
        changed.append((tenant, day, total - before, found))
    if new:
        db.execute(_ADD, new)
        over = SPEND_DAYS.c.day < min(today.values()) - timedelta(days=KEEP_DAYS)
        db.execute(
            delete(SPEND_DAYS).where(over, SPEND_DAYS.c.raised_at.is_(None) | SPEND_DAYS.c.published_at.is_not(None))
        )
    if changed:
        db.execute(_CHANGE, [{"of": tenant, "on": day, "spent_nano": spent} for tenant, day, spent, _ in changed])
    raised = [
        {
            "of": tenant, "on": day, "raised_at": now, "raised_nano": found.spent, "known": found.known,
            "mean_nano": found.mean, "greatest_nano": found.greatest,
        }
        for tenant, day, _, found in changed
        if found is not None
    ]  # fmt: skip
    if raised:
        db.execute(_CHANGE, raised)


def _judged(spent: int, rows: Rows, tenant: str, day: date, rule: Rule) -> Unusual | None:
    """What is unusual about a tenant's day, by those of its last same weekdays that were seen whole."""
    before = [rows.get((tenant, each)) for each in weekdays_before(day)]
    return judge(spent, [row.spent_nano for row in before if row is not None and row.whole], rule)


def _rows(db: Connection, today: Iterable[date]) -> Rows:
    """The rows of these days, of the days before, and of their last same weekdays."""
    days = {each for day in today for each in (day, day - timedelta(days=1), *weekdays_before(day))}
    return {(row.tenant, row.day): row for row in db.execute(_OF, {"days": sorted(days)})}


def _day(zone: str, now: int) -> date:
    return datetime.fromtimestamp(now // US, ZoneInfo(zone)).date()


#: Built once: building a statement costs more than running it.
_TOTALS = select(ACCOUNTS.c.account, func.sum(ACCOUNTS.c.spent_nano + ACCOUNTS.c.unknown_nano).label("total")).group_by(
    ACCOUNTS.c.account
)
_OF = select(SPEND_DAYS).where(SPEND_DAYS.c.day.in_(bindparam("days", expanding=True)))
_ADD = insert(SPEND_DAYS)
_CHANGE = update(SPEND_DAYS).where(SPEND_DAYS.c.tenant == bindparam("of"), SPEND_DAYS.c.day == bindparam("on"))
_WAITING = (
    select(SPEND_DAYS)
    .where(SPEND_DAYS.c.raised_at.is_not(None), SPEND_DAYS.c.published_at.is_(None))
    .order_by(SPEND_DAYS.c.raised_at, SPEND_DAYS.c.tenant, SPEND_DAYS.c.day)
)
