"""How much of their limits accounts have used and hold now. Nothing here changes or locks a row."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from config.limit_models import COUNTERS
from config.limits import read
from config.registry_store import version_of
from core.accounts import PLATFORM, is_pattern
from core.limits import Cell, CountKey, Level, Limit, level


@dataclass(frozen=True, slots=True)
class Use:
    """A limit as it is for one account: `level` is None for a pattern, whose accounts have their own.

    `ends` is when what is used now counts no more, at the latest; None where it counts until it is given back.
    """

    account: str
    limit: Limit
    level: Level | None
    ends: int | None

    @property
    def left(self) -> int | None:
        """What neither is used nor held."""
        return None if self.level is None else max(0, self.limit.most - self.level.used - self.level.reserved)


def uses(db: Connection, now: int, account: str = PLATFORM) -> list[Use]:
    """The limits of an account and of all below it, those of patterns for each account that was counted; `now` in microseconds."""
    limits = read(db, version_of(db))
    query = select(COUNTERS)
    if account != PLATFORM:
        below = COUNTERS.c.account.startswith(f"{account}/", autoescape=True)
        query = query.where(or_(COUNTERS.c.account == account, below))
    cells: dict[CountKey, list[Cell]] = defaultdict(list)
    for row in db.execute(query):
        cells[row.account, row.subject].append(Cell(row.begins, row.used, row.reserved, row.told))
    found = {(limit.account, limit.subject): limit for limit in limits.limits if _within(limit.account, account)}
    found |= {(account, limit.subject): limit for limit in limits.of(account)}
    found |= {key: limit for key in cells if (limit := limits.find(*key)) is not None}
    made = []
    for (path, subject), limit in sorted(found.items(), key=lambda each: each[0]):
        if is_pattern(path):
            made.append(Use(path, limit, None, None))
            continue
        count = limits.count(limit, path, now)
        made.append(Use(path, limit, level(count, cells[path, subject]), count.ends))
    return made


@dataclass(frozen=True, slots=True)
class Money:
    """What an account has used and holds of a limit of money, in nano-USD; the account `other` stands for all further ones."""

    account: str
    subject: str
    used: int
    reserved: int


def money(db: Connection, now: int, most: int) -> list[Money]:
    """The accounts with the most money used and held of limits whose window is not over, and what all others come to."""
    used, reserved = func.sum(COUNTERS.c.used), func.sum(COUNTERS.c.reserved)
    live = COUNTERS.c.subject.startswith("usd ") & (COUNTERS.c.ends > now)
    key = COUNTERS.c.account, COUNTERS.c.subject
    ordered = select(*key, used, reserved).where(live).group_by(*key).order_by((used + reserved).desc(), *key)
    found = [Money(account, subject, int(u), int(r)) for account, subject, u, r in db.execute(ordered.limit(most))]
    if len(found) == most:
        all_used, all_reserved = db.execute(select(used, reserved).where(live)).one()
        rest = int(all_used) - sum(m.used for m in found), int(all_reserved) - sum(m.reserved for m in found)
        found.append(Money("other", "", *rest))
    return found


def _within(path: str, account: str) -> bool:
    return account == PLATFORM or path == account or path.startswith(f"{account}/")
