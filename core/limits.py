"""What accounts may use: limits, which of them a request counts against, and whether it still fits.

Money is in nano-USD, times in microseconds since 1970. A request holds its upper bound from its admission on; what it really
used takes the bound's place, in the window of its admission.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from operator import attrgetter
from types import MappingProxyType
from typing import Literal

from core.accounts import ANY, patterns_of, tenant_of
from core.errors import error
from core.registry import Tier
from core.windows import CELLS, LENGTHS, US, Window, calendar, cell, oldest_cell
from schemas.events import Error

Meter = Literal["requests", "tokens", "usd", "concurrent"]
#: An account and what is limited of it.
CountKey = tuple[str, str]
#: An account, what is limited of it, and where a cell of its count begins.
Place = tuple[str, str, int]
NOTHING: Mapping[Place, int] = MappingProxyType({})
NANO = 1_000_000_000
#: When to ask again where only calls under way stand in the way.
SOON_MS = 1_000
#: Shares of a limit at which its account hears of it.
SHARES = (80, 90, 100)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much of a meter for an account, in each of its windows.

    `account` may be a pattern; then each account that it fits has its own count. A `sliding` window is the time just past,
    the others are calendar windows in the account's time zone; `concurrent` has none. `task` and `model` narrow it to
    requests for that task and calls of models that fit (`*` stands for any characters). A soft limit only alerts.
    """

    account: str
    meter: Meter
    window: Window | None
    most: int
    sliding: bool = False
    hard: bool = True
    task: str | None = None
    model: str | None = None
    #: What it limits, without the account: the same words stand for the same count.
    subject: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        length = [] if self.window is None else [f"per {'sliding ' if self.sliding else ''}{self.window}"]
        scope = [f"{name} {value}" for name, value in (("task", self.task), ("model", self.model)) if value is not None]
        object.__setattr__(self, "subject", " ".join([self.meter, *length, *scope]))


@dataclass(frozen=True, slots=True)
class Amounts:
    """The most that a request can use: nano-USD, None where a model that may answer it has no price, and tokens."""

    nano: int | None
    tokens: int

    def of(self, meter: Meter) -> int | None:
        """What counts on a meter."""
        return self.nano if meter == "usd" else self.tokens if meter == "tokens" else 1


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that asks to be admitted: the accounts it is charged to, and what tells which limits are about it.

    `models` are its candidates in their order, `tiers` theirs. `dearer` are the places of those that its route does without from
    `degrade_from` percent of a limit on. Tiers and these are not kept.
    """

    path: tuple[str, ...]
    task: str | None
    models: tuple[str, ...]
    amounts: Amounts
    tiers: tuple[Tier, ...] = ()
    degrade_from: int = 100
    dearer: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """What a limit counts for one account at one time: the cell at `begins` takes more, in a window that begins at `since`.

    A calendar window has one cell; `since` and `begins` are equal. A cell of a sliding one is in the windows that end later too. `ends` is when what is used now stops counting, at the
    latest; None where it counts until it is given back.
    """

    limit: Limit
    account: str
    since: int
    begins: int
    ends: int | None

    @property
    def key(self) -> CountKey:
        """What tells this count from others, at all times."""
        return self.account, self.limit.subject

    @property
    def place(self) -> Place:
        """The cell that takes more."""
        return self.account, self.limit.subject, self.begins


@dataclass(frozen=True, slots=True)
class Cell:
    """What is used and held in one cell of a count; `told` is what its account has heard of, see `core.shares`."""

    begins: int
    used: int
    reserved: int
    told: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """How full a count is."""

    used: int
    reserved: int

    @property
    def taken(self) -> int:
        """What is used or held."""
        return self.used + self.reserved

    def share(self, limit: Limit) -> int:
        """Percent of the limit that is used or held, rounded down."""
        return self.taken * 100 // limit.most if limit.most else 100 if self.taken else 0


EMPTY = Level(0, 0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request does not fit: the count that it would exceed, how full that is, and when to ask again (None: never)."""

    count: Count
    level: Level
    asked: int | None
    retry_after_ms: int | None

    @property
    def used_up(self) -> bool:
        """Whether the request would not fit either if nothing was held."""
        return self.asked is not None and self.level.used + self.asked > self.count.limit.most

    @property
    def leaves_too_little(self) -> bool:
        """Whether a request that the limit has room for does not fit because of what was used."""
        return self.used_up and (self.asked or 0) <= self.count.limit.most

    @property
    def error(self) -> Error:
        """What its caller is told."""
        limit = self.count.limit
        code = {"usd": "policy_budget_exceeded", "concurrent": "policy_rate_limited"}.get(limit.meter)
        code = code or ("policy_rate_limited" if limit.window in ("minute", "hour") else "policy_quota_exceeded")
        whose = f"Account {self.count.account} has a limit of {shown(limit)}"
        if self.asked is None:
            return error(
                "policy_unpriced_model",
                f"{whose}, and a model that may answer the request has no price; give it one or name another.",
            )
        left = max(0, limit.most - self.level.taken)
        said = f"{whose}; {amount_shown(limit.meter, left)} of it are left and the request may take {amount_shown(limit.meter, self.asked)}"
        if self.retry_after_ms is None:
            return error(code, f"{said}, more than the whole limit; ask for less or raise the limit.")
        again = f"; send it again under a new id in {self.retry_after_ms / 1_000:,.0f} s, or raise the limit."
        return error(code, said + again, retry_after_ms=self.retry_after_ms)


@dataclass(frozen=True, slots=True)
class UnknownAccount:
    """Why a request is refused where only accounts are served that a limit names: the first one on its path that none does."""

    account: str

    @property
    def error(self) -> Error:
        """What its caller is told."""
        said = f"No limit names the account {self.account}, and this deployment serves no others; check the name or set a limit for it."
        return error("policy_unknown_account", said)


@dataclass(frozen=True, slots=True)
class Reached:
    """A share (percent) of a limit that an account has reached: what was used of how much, seen when.

    The window `begins` then; at `ends` what is used stops counting, at the latest; None where it is given back.
    """

    account: str
    subject: str
    begins: int
    share: int
    used: int
    most: int
    raised_at: int
    ends: int | None


def amount_shown(meter: Meter, amount: int) -> str:
    """An amount of a meter for people: `0.25 USD`, `1,000 tokens`."""
    if meter == "usd":
        return f"{amount / NANO:,.9f}".rstrip("0").rstrip(".") + " USD"
    return f"{amount:,} {'concurrent requests' if meter == 'concurrent' else meter}"


def shown(limit: Limit) -> str:
    """A limit for people: `500 USD per month`."""
    return amount_shown(limit.meter, limit.most) + limit.subject.removeprefix(limit.meter)


@dataclass(frozen=True)
class Limits:
    """All limits of a deployment, found by account; the time zones of tenants by name, UTC where none stands."""

    version: int = 0
    limits: Sequence[Limit] = ()
    zones: Mapping[str, str] = field(default_factory=dict)
    _by_account: dict[str, list[Limit]] = field(init=False, repr=False, compare=False)
    #: Tenants that limits name, and what begins the accounts of users where limits name some of the tenant.
    _named: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = defaultdict(list)
        for limit in self.limits:
            found[limit.account].append(limit)
        object.__setattr__(self, "_by_account", dict(found))
        parts = [path.split("/")[1:] for path in found]
        tenants = {f"/{tenant}" for tenant, *_ in parts}
        users = {f"/{tenant}/user:" for tenant, *below in parts if below and below[0].startswith("user:")}
        object.__setattr__(self, "_named", frozenset(tenants | users))

    def of(self, account: str) -> list[Limit]:
        """The limits of one account; of several patterns with the same subject, the most special one holds."""
        chosen: dict[str, Limit] = {}
        for pattern in patterns_of(account):
            for limit in self._by_account.get(pattern, ()):
                chosen.setdefault(limit.subject, limit)
        return list(chosen.values())

    def find(self, account: str, subject: str) -> Limit | None:
        """The limit of an account on this subject; None where there is none any more."""
        return next((limit for limit in self.of(account) if limit.subject == subject), None)

    def unknown(self, path: Sequence[str]) -> str | None:
        """The first account on a request's path that is not known; None where all are.

        A tenant is known when a limit stands for it or for anything below it by name; a user, where limits stand for users of
        its tenant, when one stands for it or for every user of the tenant. The platform, projects and keys are always known.
        """
        tenant = path[1]
        # A limit of every tenant names none, nor one that is called so.
        if tenant not in self._named or tenant == f"/{ANY}":
            return tenant
        users = f"{tenant}/user:"
        if users not in self._named or f"{users}{ANY}" in self._by_account:
            return None
        return next((each for each in path if each.startswith(users) and each not in self._by_account), None)

    def count(self, limit: Limit, account: str, now: int) -> Count:
        """Where a limit counts for an account now."""
        if limit.window is None:
            return Count(limit, account, 0, 0, None)
        if limit.sliding:
            begins = cell(limit.window, now)
            ends = begins + LENGTHS[limit.window] * US
            return Count(limit, account, oldest_cell(limit.window, now), begins, ends)
        span = calendar(limit.window, self.zones.get(tenant_of(account) or "", "UTC"), now)
        return Count(limit, account, span.begins, span.begins, span.ends)

    def count_at(self, account: str, subject: str, begins: int) -> Count | None:
        """The count that a cell belongs to; None where no limit counts there any more."""
        limit = self.find(account, subject)
        count = None if limit is None else self.count(limit, account, begins)
        return count if count is not None and count.begins == begins else None

    def counts(self, asking: Asking, now: int) -> list[Count]:
        """Everything that a request counts against now, the platform's first."""
        if not self._by_account:
            return []
        return [
            self.count(limit, account, now)
            for account in asking.path
            for limit in self.of(account)
            if concerns(limit, asking)
        ]


def concerns(limit: Limit, asking: Asking) -> bool:
    """Whether a limit of an account on its path is about a request."""
    return (limit.task is None or fnmatchcase(asking.task or "", limit.task)) and covers(limit, asking.models)


def covers(limit: Limit, models: Iterable[str]) -> bool:
    """Whether calls of one of these models count against a limit."""
    return limit.model is None or any(fnmatchcase(model, limit.model) for model in models)


def near(count: Count, cells: Iterable[Cell]) -> list[Cell]:
    """Those of a count's cells that are in one window with the cell that takes more, in their order."""
    span = count.begins - count.since
    return sorted((each for each in cells if abs(each.begins - count.begins) <= span), key=attrgetter("begins"))


def _windows(count: Count, cells: Iterable[Cell]) -> Iterator[Level]:
    """How full the windows are that the cell that takes more is in, also those that end later; parts of some come as well."""
    counted = near(count, cells)
    if not counted or counted[-1].begins <= count.begins:
        yield Level(sum(each.used for each in counted), sum(each.reserved for each in counted))
        return
    used, reserved, inside = 0, 0, deque[Cell]()
    for each in counted:
        inside.append(each)
        used, reserved = used + each.used, reserved + each.reserved
        while inside[0].begins < each.begins - (count.begins - count.since):
            out = inside.popleft()
            used, reserved = used - out.used, reserved - out.reserved
        yield Level(used, reserved)


def level(count: Count, cells: Iterable[Cell]) -> Level:
    """How full a count is: the fullest window that has in it what is charged now, whatever came first."""
    if not count.limit.sliding:
        return next((Level(each.used, each.reserved) for each in cells if each.begins == count.begins), EMPTY)
    return max(_windows(count, cells), key=attrgetter("taken"))


def most_taken(count: Count, cells: Iterable[Cell]) -> int:
    """The most that is used in a window that has in it what is charged now; what is held, where a limit has no window."""
    if count.limit.sliding:
        return max(each.used for each in _windows(count, cells))
    full = level(count, cells)
    return full.taken if count.limit.window is None else full.used


def wanted(count: Count, amounts: Amounts, holds: Mapping[Place, int]) -> int | None:
    """What a request that may use these amounts wants of a count beside what it holds there; None where nobody knows."""
    most = amounts.of(count.limit.meter)
    return most if most is None or not holds else max(0, most - holds.get(count.place, 0))


def refusals(
    counts: Iterable[Count], cells: Mapping[CountKey, Sequence[Cell]], amounts: Amounts, now: int,
    holds: Mapping[Place, int] = NOTHING,
) -> list[Refusal]:  # fmt: skip
    """Why a request does not fit into what it counts against, beside what it holds there: a reason for each limit in the way.

    The one that is there longest comes first.
    """
    found: list[Refusal] = []
    for count in counts:
        if not count.limit.hard:
            continue
        here, more = cells.get(count.key, ()), wanted(count, amounts, holds)
        full = level(count, here)
        if more is None:
            found.append(Refusal(count, full, None, None))
        elif full.taken + more > count.limit.most:
            found.append(Refusal(count, full, more, _again_in_ms(count, here, full, more, now)))
    # Sorting keeps the order of those that are there as long.
    return sorted(found, key=lambda each: float("-inf") if each.retry_after_ms is None else -each.retry_after_ms)


def _again_in_ms(count: Count, cells: Sequence[Cell], full: Level, wanted: int, now: int) -> int | None:
    """When there is room again at the earliest; None where there never is."""
    most = count.limit.most
    if wanted > most:
        return None
    if full.used + wanted <= most:
        return SOON_MS
    if count.ends is None:
        return SOON_MS
    if not count.limit.sliding or count.limit.window is None:
        return _ms_until(count.ends, now)
    counted = sorted((each for each in cells if count.since <= each.begins), key=attrgetter("begins"))
    left = sum(each.used for each in counted)
    length = LENGTHS[count.limit.window] * US
    for each in counted:
        left -= each.used
        if left + wanted <= most:
            # A cell is out once the window begins at its end.
            return _ms_until(each.begins + length // CELLS + length, now)
    return None


def _ms_until(then: int, now: int) -> int:
    """In how many milliseconds, soon where that was before now: a call of a request is counted in the window of its admission."""
    return -(-(then - now) // 1_000) if then > now else SOON_MS
