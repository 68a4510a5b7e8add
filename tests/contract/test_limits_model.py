"""The ledger's limits against a simple reference that adds everything up anew: whatever happens in whatever order."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from config import ledger, limits, settling, upkeep
from config.database import create_tables, open_database, reading
from config.limit_audit import counted
from config.limit_models import COUNTERS
from core.accounts import path_of
from core.attempts import Begin, OverLimit
from core.limits import Amounts, Asking, CountKey, Limit, Limits

#: A quarter of an hour before clocks change in Berlin, in the night to 2026-10-25.
BEGIN = 1_792_885_500_000_000
SECOND, MINUTE = 1_000_000, 60_000_000
#: The accounts of everybody who asks, and the most of money and the tokens that a request asks for.
EVERYBODY = (*path_of("acme", None, "ana", None), "/acme/user:bo")
NANO, TOKENS = 100, 5
SUBJECTS = (
    Limit("/acme", "usd", "day", 0), Limit("/*/user:*", "usd", "hour", 0), Limit("/acme/user:ana", "usd", "hour", 0),
    Limit("/", "requests", "day", 0), Limit("/acme", "concurrent", None, 0), Limit("/acme", "usd", "minute", 0, sliding=True),
    Limit("/", "tokens", "minute", 0, sliding=True), Limit("/*/user:*", "tokens", "hour", 0),
    Limit("/acme", "tokens", "week", 0), Limit("/acme", "usd", "day", 0, model="openai/*"), Limit("/*", "usd", "day", 0),
)  # fmt: skip


@dataclass
class Call:
    """A provider call as the reference sees it; of one that is charged, what it cost and used, None where nobody knows."""

    number: int
    open: bool = True
    cost: int | None = None
    tokens: int | None = None
    charged: bool = True
    settled: bool = False

    @property
    def due(self) -> bool:
        """Whether it may still cost something that is not settled."""
        return not self.settled and (self.open or self.charged)


@dataclass
class Asked:
    """A request as the reference sees it; `held` is what it holds of money and tokens by account and subject."""

    request_id: str
    asking: Asking
    at: int
    reserved: int
    held: dict[CountKey, int]
    expires_at: int | None
    answered: bool = False
    expired: bool = False
    calls: list[Call] = field(default_factory=list)

    @property
    def nano(self) -> int:
        return self.asking.amounts.nano or 0

    @property
    def holds(self) -> bool:
        """Whether anything is held for it."""
        return not self.expired and not (self.answered and all(call.settled for call in self.calls))

    def cost(self, call: Call) -> int:
        return self.nano if call.cost is None else call.cost

    def tokens(self, call: Call) -> int:
        return TOKENS if call.tokens is None else call.tokens

    def of(self, limit: Limit, key: CountKey) -> tuple[int, int]:
        """What it has used and what it holds of a limit."""
        settled = [call for call in self.calls if call.settled]
        match limit.meter:
            case "requests":
                return 1, 0
            case "concurrent":
                return 0, int(not self.answered and not self.expired)
            case meter:
                used = sum(self.cost(call) if meter == "usd" else self.tokens(call) for call in settled)
                return used, self.held.get(key, 0) if self.holds else 0

    def may_use(self, limit: Limit) -> int:
        """What it holds of a limit that is new: what its calls under way can use, or its first one."""
        if not self.holds:
            return 0
        if limit.meter == "usd":
            return self.reserved
        charged = [call for call in self.calls if call.open or call.charged]
        return TOKENS * (sum(not call.settled for call in charged) if charged else 1)


def fullest(limit: Limit, points: list[tuple[int, int, int]], at: int, zone: str) -> int:
    """The most that times with something used and held come to in a window of the limit that has the time in it."""
    if limit.window is None:
        return sum(used + held for _, used, held in points)
    if limit.sliding:
        # Sixtieths of a minute are seconds.
        seconds = [(then // SECOND, used + held) for then, used, held in points]
        ends = range(at // SECOND, at // SECOND + 61)
        return max(sum(amount for second, amount in seconds if end - 60 <= second <= end) for end in ends)

    def window(then: int) -> Any:
        local = datetime.fromtimestamp(then // SECOND, ZoneInfo(zone))
        of_week = local.isocalendar()[:2]
        return {"hour": (local.date(), local.hour, local.utcoffset()), "day": local.date(), "week": of_week}[
            str(limit.window)
        ]

    return sum(used + held for then, used, held in points if window(then) == window(at))


class LimitsMachine(RuleBasedStateMachine):
    """Requests, limits and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = open_database(f"sqlite:///{self.folder.name}/ledger.db")
        create_tables(self.engine)
        self.now = BEGIN
        self.limits: dict[tuple[str, str], Limit] = {}
        self.zones: dict[str, str] = {}
        self.requests: list[Asked] = []

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()

    def in_force(self, path: tuple[str, ...]) -> dict[CountKey, Limit]:
        """The limits of these accounts by account and subject."""
        rules = Limits(0, tuple(self.limits.values()))
        return {(account, limit.subject): limit for account in path for limit in rules.of(account)}

    def zone(self, account: str) -> str:
        return "UTC" if account == "/" else self.zones.get("acme", "UTC")

    def level(self, key: CountKey, limit: Limit, at: int) -> int:
        """What is used and held of a limit in the fullest of its windows at a time, added up from all requests."""
        points = [(asked.at, *asked.of(limit, key)) for asked in self.requests if key[0] in asked.asking.path]
        return fullest(limit, points, at, self.zone(key[0]))

    def wants(
        self, path: tuple[str, ...], at: int, needed: dict[str, int], held: dict[CountKey, int]
    ) -> dict[CountKey, int] | None:
        """What has to be held beside what is held, by account and subject; None where a limit has no room for it."""
        limits = {key: limit for key, limit in self.in_force(path).items() if limit.meter in needed}
        more = {key: max(0, needed[limit.meter] - held.get(key, 0)) for key, limit in limits.items()}
        fits = all(self.level(key, limit, at) + more[key] <= limit.most for key, limit in limits.items() if limit.hard)
        return more if fits else None

    def begin_to_hold(self, before: dict[CountKey, Limit], moved: bool = False) -> None:
        """Hold of limits that are new, and of those whose windows have moved, what requests can use now."""
        for key, limit in self.in_force(EVERYBODY).items():
            if key not in before or (moved and key[0] != "/" and limit.window is not None and not limit.sliding):
                for asked in self.requests:
                    if key[0] in asked.asking.path:
                        asked.held[key] = asked.may_use(limit)

    def change(self, **edit: Any) -> None:
        with self.engine.begin() as db:
            limits.change(db, limits.Edit(**edit), "ana", self.now)

    @initialize(some=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=4), room=st.integers(1, 3))
    def begin_with(self, some: list[Limit], room: int) -> None:
        for of in some:
            self.put(of, room, 0, True)

    @rule(
        of=st.sampled_from(SUBJECTS), room=st.integers(0, 4), rest=st.integers(0, 3), hard=st.sampled_from([True, True, False]),
    )  # fmt: skip
    def put(self, of: Limit, room: int, rest: int, hard: bool) -> None:
        """A limit with room for so many requests and a little more."""
        most = room * {"usd": NANO, "tokens": TOKENS}.get(of.meter, 1) + rest
        limit = Limit(of.account, of.meter, of.window, most, of.sliding, hard, of.task, of.model)
        before = self.in_force(EVERYBODY)
        self.limits[limit.account, limit.subject] = limit
        self.change(put=[limit])
        self.begin_to_hold(before)

    @rule(of=st.sampled_from(SUBJECTS))
    def remove(self, of: Limit) -> None:
        self.limits.pop((of.account, of.subject), None)
        self.change(remove=[of])

    @rule(zone=st.sampled_from([None, "Europe/Berlin", "Asia/Kathmandu"]))
    def move_zone(self, zone: str | None) -> None:
        before, self.zones = self.zones, {} if zone is None else {"acme": zone}
        self.change(zones=[("acme", zone)])
        self.begin_to_hold(self.in_force(EVERYBODY), moved=before != self.zones)

    @rule(seconds=st.sampled_from([0, 1, 1, 30, 30, 60, 1_200, 36_000, 86_400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND + 1

    @rule(
        user=st.sampled_from(["ana", "ana", "bo", None]), nano=st.sampled_from([0, NANO, NANO, NANO // 2]), expires=st.booleans(),
        ago=st.sampled_from([0, 0, 1, 30, 59, 61]),
    )  # fmt: skip
    def admit(self, user: str | None, nano: int, expires: bool, ago: int) -> None:
        """A worker whose clock is behind asks for some seconds ago."""
        one, until, at = str(uuid.uuid4()), self.now + 30 * MINUTE if expires else None, self.now - ago * SECOND
        asking = Asking(path_of("acme", None, user, None), None, ("openai/gpt-5",), Amounts(nano, TOKENS))
        entry = ledger.Admission(one, bytes(32), "acme", nano, None, at, b"", asking, until)
        needed = {"usd": nano, "tokens": TOKENS, "requests": 1, "concurrent": 1}
        wants = self.wants(asking.path, at, needed, {})
        with self.engine.begin() as db:
            admitted = ledger.admit(db, [entry])[0]
        assert (admitted.kind == "new") == (wants is not None)
        if wants is not None:
            self.requests.append(Asked(one, asking, at, nano, wants, until))

    @rule(pick=st.integers(0, 50))
    def start(self, pick: int) -> None:
        waiting = [a for a in self.requests if not a.answered and not any(call.open for call in a.calls)]
        if not waiting:
            return
        asked = waiting[pick % len(waiting)]
        due = [call for call in asked.calls if call.due]
        further = bool(asked.expired or any(call.open or call.charged for call in asked.calls))
        needed = {"usd": asked.nano + sum(map(asked.cost, due)), "tokens": TOKENS * (1 + len(due))}
        held = {} if asked.expired else asked.held
        wants = self.wants(asked.asking.path, asked.at, needed | ({"concurrent": 1} if asked.expired else {}), held)
        fits = not further or wants is not None
        with self.engine.begin() as db:
            step = ledger.start(db, [ledger.Start(asked.request_id, "w", self.now, None, 99, True)])[0].step
        assert isinstance(step, Begin if fits else OverLimit)
        if fits:
            if further and wants is not None:
                asked.held = held | {key: held.get(key, 0) + more for key, more in wants.items()}
                if asked.expired and asked.expires_at is not None:
                    asked.expires_at += self.now - asked.at
                asked.reserved, asked.expired = max(asked.reserved, needed["usd"]), False
            asked.calls.append(Call(len(asked.calls) + 1))

    @rule(
        pick=st.integers(0, 50),
        cost=st.one_of(st.none(), st.integers(0, NANO)),
        tokens=st.one_of(st.none(), st.integers(0, TOKENS)),
        charged=st.sampled_from([True, True, False]),
        last=st.sampled_from([True, False, False]),
    )
    def end(self, pick: int, cost: int | None, tokens: int | None, charged: bool, last: bool) -> None:
        at_work = [a for a in self.requests if any(call.open for call in a.calls)]
        if not at_work:
            return
        asked = at_work[pick % len(at_work)]
        call = asked.calls[-1]
        call.open, call.charged, call.cost = False, charged, cost if charged else 0
        call.tokens = tokens if charged else 0
        status = "not_charged" if not charged else "unknown" if cost is None else "priced"
        ended = ledger.EndedAttempt(call.number, b"usage", call.cost, status)  # type: ignore[arg-type]
        with self.engine.begin() as db:
            ledger.end(db, [ledger.End(asked.request_id, "w", self.now, ended, b"answer" if last else None)])
        asked.answered = last

    @rule(pick=st.integers(0, 50), twice=st.booleans())
    def settle(self, pick: int, twice: bool) -> None:
        ended = [(a, call) for a in self.requests for call in a.calls if not call.open]
        if not ended:
            return
        asked, call = ended[pick % len(ended)]
        entry = settling.Settlement(
            asked.request_id, call.number, call.cost, asked.nano, call.tokens, "openai/gpt-5", self.now
        )
        with self.engine.begin() as db:
            found = settling.settle(db, [entry] * (2 if twice else 1))
        assert found == [not call.settled, False][: len(found)]
        if not call.settled and (not asked.answered or any(not one.settled for one in asked.calls if one is not call)):
            used = {"usd": asked.cost(call), "tokens": asked.tokens(call)}
            asked.reserved -= min(asked.reserved, used["usd"])
            asked.held = {key: held - min(held, used.get(key[1].split(" ")[0], 0)) for key, held in asked.held.items()}
        call.settled = True

    @rule()
    def expire(self) -> None:
        with self.engine.begin() as db:
            upkeep.expire(db, self.now)
        for asked in self.requests:
            overdue = not asked.expired and asked.expires_at is not None and asked.expires_at <= self.now
            if overdue and not asked.answered and all(call.settled for call in asked.calls):
                asked.expired, asked.reserved, asked.held = True, 0, {}

    @invariant()
    def what_stands_is_what_adds_up(self) -> None:
        """Every count of the present is what the reference adds up, and nothing counts that no limit is for."""
        with self.engine.connect() as db:
            stored = db.execute(select(COUNTERS)).all()
        for key, limit in self.in_force(EVERYBODY).items():
            cells = [(row.begins, row.used, row.reserved) for row in stored if (row.account, row.subject) == key]
            for at in (self.now, self.now - 30 * SECOND):
                assert fullest(limit, cells, at, self.zone(key[0])) == self.level(key, limit, at), key

    @invariant()
    def the_audit_agrees(self) -> None:
        """Every counter, also of the past, says what the ledger's calls and open requests add up to."""
        with reading(self.engine) as db:
            found = counted(db, self.now, 100)
        assert [(one.used, one.reserved) for one in found] == [
            (one.used_by_calls, one.held_by_requests) for one in found
        ]


TestLimits = LimitsMachine.TestCase
TestLimits.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
