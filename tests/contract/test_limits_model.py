"""The ledger's limits against a simple reference that adds everything up anew: whatever happens in whatever order."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import dataclass, field
from typing import Any

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
from core.limits import Amounts, Asking, Limit, Limits

#: A quarter of an hour before clocks change in Berlin, in the night to 2026-10-25.
BEGIN = 1_792_885_500_000_000
MINUTE = 60_000_000
SUBJECTS = (
    Limit("/acme", "usd", "day", 0), Limit("/*/user:*", "usd", "hour", 0), Limit("/acme/user:ana", "usd", "hour", 0),
    Limit("/", "requests", "day", 0), Limit("/acme", "concurrent", None, 0), Limit("/acme", "usd", "minute", 0, sliding=True),
    Limit("/acme", "tokens", "week", 0), Limit("/acme", "usd", "day", 0, model="openai/*"), Limit("/*", "usd", "day", 0),
)  # fmt: skip


@dataclass
class Call:
    """A provider call as the reference sees it."""

    number: int
    open: bool = True
    cost: int | None = None
    charged: bool = True
    settled: bool = False

    @property
    def due(self) -> bool:
        """Whether it may still cost something that is not settled."""
        return not self.settled and (self.open or self.charged)


@dataclass
class Asked:
    """A request as the reference sees it."""

    request_id: str
    asking: Asking
    at: int
    held: int
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

    def rules_now(self) -> Limits:
        return Limits(0, tuple(self.limits.values()), self.zones)

    def level(self, limit: Limit, account: str, at: int) -> tuple[int, int]:
        """Used and reserved of a limit for an account at a time, added up from all requests."""
        rules, used, reserved = self.rules_now(), 0, 0
        now = rules.count(limit, account, at)
        for asked in self.requests:
            if (
                account not in asked.asking.path
                or not now.since <= rules.count(limit, account, asked.at).begins <= now.begins
            ):
                continue
            settled = [call for call in asked.calls if call.settled]
            match limit.meter:
                case "requests":
                    used += 1
                case "concurrent":
                    reserved += not asked.answered and not asked.expired
                case "usd":
                    used += sum(asked.nano if call.cost is None else call.cost for call in settled)
                    reserved += asked.held if asked.holds else 0
                case "tokens":
                    used += sum(5 if call.charged else 0 for call in settled)
        return used, reserved

    def fits(self, asking: Asking, amounts: Amounts, at: int, meters: tuple[str, ...]) -> bool:
        counts = [c for c in self.rules_now().counts(asking, at) if c.limit.meter in meters and c.limit.hard]
        return all(
            sum(self.level(c.limit, c.account, at)) + (amounts.of(c.limit.meter) or 0) <= c.limit.most for c in counts
        )

    def change(self, **edit: Any) -> None:
        with self.engine.begin() as db:
            limits.change(db, limits.Edit(**edit), "ana", self.now)

    @initialize(some=st.lists(st.sampled_from(SUBJECTS), max_size=4))
    def begin_with(self, some: list[Limit]) -> None:
        for of in some:
            self.put(of, 500, True)

    @rule(of=st.sampled_from(SUBJECTS), most=st.integers(0, 1_000), hard=st.booleans())
    def put(self, of: Limit, most: int, hard: bool) -> None:
        # Tokens are counted and never in the way: what a further call holds of them depends on when a limit was set.
        hard = hard and of.meter != "tokens"
        limit = Limit(of.account, of.meter, of.window, most, of.sliding, hard, of.task, of.model)
        self.limits[limit.account, limit.subject] = limit
        self.change(put=[limit])

    @rule(of=st.sampled_from(SUBJECTS))
    def remove(self, of: Limit) -> None:
        self.limits.pop((of.account, of.subject), None)
        self.change(remove=[of])

    @rule(zone=st.sampled_from([None, "Europe/Berlin", "Asia/Kathmandu"]))
    def move_zone(self, zone: str | None) -> None:
        self.zones = {} if zone is None else {"acme": zone}
        self.change(zones=[("acme", zone)])

    @rule(minutes=st.sampled_from([0, 1, 20, 60, 600, 1_440]))
    def wait(self, minutes: int) -> None:
        self.now += minutes * MINUTE + 1

    @rule(user=st.sampled_from(["ana", "bo", None]), nano=st.integers(0, 200), expires=st.booleans())
    def admit(self, user: str | None, nano: int, expires: bool) -> None:
        one, until = str(uuid.uuid4()), self.now + 30 * MINUTE if expires else None
        asking = Asking(path_of("acme", None, user, None), None, ("openai/gpt-5",), Amounts(nano, 5))
        entry = ledger.Admission(one, bytes(32), "acme", nano, None, self.now, b"", asking, until)
        fits = self.fits(asking, asking.amounts, self.now, ("usd", "requests", "concurrent"))
        with self.engine.begin() as db:
            admitted = ledger.admit(db, [entry])[0]
        assert (admitted.kind == "new") == fits
        if fits:
            self.requests.append(Asked(one, asking, self.now, nano, until))

    @rule(pick=st.integers(0, 50))
    def start(self, pick: int) -> None:
        waiting = [a for a in self.requests if not a.answered and not any(call.open for call in a.calls)]
        if not waiting:
            return
        asked = waiting[pick % len(waiting)]
        need = asked.nano + sum(asked.nano if call.cost is None else call.cost for call in asked.calls if call.due)
        held = 0 if asked.expired else asked.held
        further = bool(asked.expired or any(call.open or call.charged for call in asked.calls))
        meters = ("usd", "concurrent") if asked.expired else ("usd",)
        more = max(0, need - held)
        fits = not further or self.fits(asked.asking, Amounts(more, 0), asked.at, meters)
        with self.engine.begin() as db:
            step = ledger.start(db, [ledger.Start(asked.request_id, "w", self.now, None, 99, True)])[0].step
        assert isinstance(step, Begin if fits else OverLimit)
        if fits:
            asked.held, asked.expired = held + more if further else asked.held, False
            asked.calls.append(Call(len(asked.calls) + 1))

    @rule(
        pick=st.integers(0, 50),
        cost=st.one_of(st.none(), st.integers(0, 200)),
        charged=st.booleans(),
        last=st.booleans(),
    )
    def end(self, pick: int, cost: int | None, charged: bool, last: bool) -> None:
        at_work = [a for a in self.requests if any(call.open for call in a.calls)]
        if not at_work:
            return
        asked = at_work[pick % len(at_work)]
        call = asked.calls[-1]
        call.open, call.charged, call.cost = False, charged, cost if charged else 0
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
            asked.request_id, call.number, call.cost, asked.nano, 5 if call.charged else 0, "openai/gpt-5", self.now
        )
        with self.engine.begin() as db:
            found = settling.settle(db, [entry] * (2 if twice else 1))
        assert found == [not call.settled, False][: len(found)]
        if not call.settled and (not asked.answered or any(not one.settled for one in asked.calls if one is not call)):
            asked.held -= min(asked.held, asked.nano if call.cost is None else call.cost)
        call.settled = True

    @rule()
    def expire(self) -> None:
        with self.engine.begin() as db:
            upkeep.expire(db, self.now)
        for asked in self.requests:
            overdue = asked.expires_at is not None and asked.expires_at <= self.now
            if overdue and not asked.answered and all(call.settled for call in asked.calls):
                asked.expired, asked.held, asked.expires_at = True, 0, None

    @invariant()
    def what_stands_is_what_adds_up(self) -> None:
        """Every count of the present is what the reference adds up, and nothing counts that no limit is for."""
        rules = self.rules_now()
        with self.engine.connect() as db:
            stored = db.execute(select(COUNTERS)).all()
        for account in path_of("acme", None, "ana", None) + path_of("acme", None, "bo", None)[2:]:
            for limit in rules.of(account):
                count = rules.count(limit, account, self.now)
                cells = [
                    row for row in stored
                    if (row.account, row.subject) == count.key and count.since <= row.begins <= count.begins
                ]  # fmt: skip
                used, reserved = self.level(limit, account, self.now)
                assert sum(row.used for row in cells) == used, count
                assert limit.meter == "tokens" or sum(row.reserved for row in cells) == reserved, count

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
