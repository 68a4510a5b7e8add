"""What the ledger of energy says to whoever looks at it or checks it. Nothing here changes or locks a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from sqlalchemy import Connection, func, select

from config.asking import unpacked_asking
from config.energy import unpacked
from config.energy_models import ENERGY_ENTRIES, ENERGY_GRANTS
from config.models import REQUESTS


@dataclass(frozen=True, slots=True)
class Balance:
    """A user's credits: granted in all, what is left, reserved for open requests, consumed, expired; when the next grant ends.

    What is left of a grant whose time is over counts as expired, whether or not it was taken back yet.
    """

    account: str
    granted: int
    left: int
    reserved: int
    consumed: int
    expired: int
    next_expiry: int | None


@dataclass(frozen=True, slots=True)
class Movement:
    """One movement of a user's credits; `left` is what the user had after it."""

    at: int
    kind: str
    credits: int
    request_id: str | None
    left: int


@dataclass(frozen=True, slots=True)
class Paid:
    """What a request has consumed of its user's credits, and what an answer costs it, by `provider/model`."""

    account: str
    consumed: int
    prices: dict[str, int]


@dataclass(frozen=True, slots=True)
class Books:
    """All of the ledger of energy: its entries' sums by account and book, what is left by grant, in two ways, and what
    requests hold without having an answer, by account.
    """

    sums: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    left: dict[str, int] = field(default_factory=dict)
    entered: dict[str, int] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)


def balances(db: Connection, prefix: str, now: int) -> list[Balance]:
    """The users with energy whose account begins with `prefix`, in their order."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    under = ENERGY_ENTRIES.c.account.startswith(prefix, autoescape=True)
    for account, book, credits in db.execute(_SUMS.where(under)):
        sums[account][book] = int(credits)
    ends: dict[str, int] = {}
    over: Counter[str] = Counter()
    grants = select(ENERGY_GRANTS).where(ENERGY_GRANTS.c.left > 0, ENERGY_GRANTS.c.expires_at.is_not(None))
    for row in db.execute(grants.where(ENERGY_GRANTS.c.account.startswith(prefix, autoescape=True))):
        if row.expires_at <= now:
            over[row.account] += row.left
        else:
            ends[row.account] = min(row.expires_at, ends.get(row.account, row.expires_at))
    return [
        Balance(
            account, -books["issued"], books["left"] - over[account], books["reserved"], books["consumed"],
            books["expired"] + over[account], ends.get(account),
        )
        for account, books in sorted(sums.items())
    ]  # fmt: skip


def history(db: Connection, account: str) -> Iterator[Movement]:
    """Every movement of a user's credits, the oldest first; a movement of several grants is one."""
    rows = db.execute(
        select(ENERGY_ENTRIES).where(ENERGY_ENTRIES.c.account == account).order_by(ENERGY_ENTRIES.c.number)
    )
    left = 0
    for (at, kind, request_id), entries in groupby(rows, lambda row: (row.at, row.kind, row.request_id)):
        credits = 0
        for entry in entries:
            credits += max(0, entry.credits)
            left += entry.credits if entry.book == "left" else 0
        yield Movement(at, kind, credits, request_id, left)


def books(db: Connection) -> Books:
    """Everything, of one moment."""
    found = Books()
    for account, book, credits in db.execute(_SUMS):
        found.sums[account][book] = int(credits)
    found.left.update((row.grant_id, row.left) for row in db.execute(select(ENERGY_GRANTS)))
    entered = (
        select(ENERGY_ENTRIES.c.grant_id, func.sum(ENERGY_ENTRIES.c.credits))
        .where(ENERGY_ENTRIES.c.book == "left")
        .group_by(ENERGY_ENTRIES.c.grant_id)
    )
    found.entered.update((grant, int(credits)) for grant, credits in db.execute(entered))
    open_holds = select(REQUESTS.c.energy).where(REQUESTS.c.energy.is_not(None), REQUESTS.c.answer.is_(None))
    for hold in map(unpacked, db.execute(open_holds).scalars()):
        found.held[hold.account] += sum(credits for _, credits in hold.pieces)
    return found


def paid(db: Connection) -> tuple[dict[str, Paid], int]:
    """The requests with energy by their ids, as far as the ledger still has their prices; how many others have consumed any."""
    consumed = {row.request_id: int(row.credits) for row in db.execute(_CONSUMED)}
    found = {}
    for row in db.execute(_PRICED):
        hold = unpacked(row.energy)
        prices = dict(zip(unpacked_asking(row.asking).models, hold.costs, strict=True))
        found[row.request_id] = Paid(hold.account, consumed.pop(row.request_id, 0), prices)
    return found, len(consumed)


_CONSUMED = (
    select(ENERGY_ENTRIES.c.request_id, func.sum(ENERGY_ENTRIES.c.credits).label("credits"))
    .where(ENERGY_ENTRIES.c.book == "consumed")
    .group_by(ENERGY_ENTRIES.c.request_id)
)
_PRICED = select(REQUESTS.c.request_id, REQUESTS.c.asking, REQUESTS.c.energy).where(REQUESTS.c.energy.is_not(None))
_SUMS = select(
    ENERGY_ENTRIES.c.account, ENERGY_ENTRIES.c.book, func.sum(ENERGY_ENTRIES.c.credits).label("credits")
).group_by(ENERGY_ENTRIES.c.account, ENERGY_ENTRIES.c.book)
