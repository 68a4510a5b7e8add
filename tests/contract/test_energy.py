"""Energy in the ledger, the same on SQLite and on PostgreSQL: exact under a race with kills, and its entries sum to zero."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select

from cli.reconcile.energy import energy_lines, paid_lines
from cli.reconcile.topics import Answer, Asked, Told
from config import energy, energy_prices, ledger, limits, settling, upkeep
from config.database import reading
from config.energy_audit import Balance, balances, history
from config.energy_models import ENERGY_ENTRIES
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from config.registry_models import REGISTRY_AUDIT
from core.accounts import account, path_of
from core.attempts import Begin, OverLimit
from core.energy import EnergyPrice, Short
from core.limits import Amounts, Asking, Limit, Refusal
from tests.contract.energy_racer import PRICES, USER
from tests.contract.racing import race

NOW = 1_795_258_680_000_000
REQUESTS_OF_A_RACE = 1_000
GRANTED = 100


class Bank:
    """The ledger with prices, one transaction an operation; a model costs 3 credits, its fallback 1."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.price(*PRICES)

    def price(self, *prices: EnergyPrice, remove: Sequence[EnergyPrice] = ()) -> None:
        with self.engine.begin() as db:
            energy_prices.change(db, prices, remove, "ana", NOW)

    def limit(self, *wanted: Limit) -> None:
        with self.engine.begin() as db:
            limits.change(db, limits.Edit(wanted), "ana", NOW)

    def grant(self, credits: int, user: str = "ana", expires_at: int | None = None) -> str:
        with self.engine.begin() as db:
            return energy.grant(db, account("acme", "user", user), credits, "op", NOW, expires_at)

    def entry(self, user: str | None = "ana", task: str | None = None, now: int = NOW, cheap: bool = False) -> Any:
        models, tiers = ("openai/gpt-5", "google/flash"), ("powerful", "cheap")
        asking = Asking(
            path_of("acme", None, user, None), task, models[cheap:], Amounts(100, 10), tiers[cheap:]  # type: ignore[arg-type]
        )  # fmt: skip
        return ledger.Admission(str(uuid.uuid4()), bytes(32), "acme", 100, None, now, b"", asking, NOW + 10)

    def admit(self, *entries: Any) -> list[ledger.Admitted]:
        with self.engine.begin() as db:
            return ledger.admit(db, entries)

    def ask(self, user: str | None = "ana", **how: Any) -> tuple[str, ledger.Admitted]:
        entry = self.entry(user, **how)
        return entry.request_id, self.admit(entry)[0]

    def start(self, one: str, candidate: int = 0) -> Any:
        with self.engine.begin() as db:
            return ledger.start(db, [ledger.Start(one, "w", NOW + 20, None, 9, True, candidate)])[0].step

    def end(self, one: str, number: int | None, answer: bytes | None = b"answer", **how: Any) -> str:
        attempt = None if number is None else ledger.EndedAttempt(number, b"usage", 60, "priced")
        with self.engine.begin() as db:
            return ledger.end(db, [ledger.End(one, "w", NOW + 30, attempt, answer, **how)])[0]

    def settle(self, one: str, number: int) -> None:
        with self.engine.begin() as db:
            settling.settle(db, [settling.Settlement(one, number, 60, 100, 7, "openai/gpt-5", NOW)])

    def expire(self, now: int) -> None:
        for expire in (upkeep.expire, energy.expire):
            with self.engine.begin() as db:
                expire(db, now)

    def balance(self, user: str = "ana", now: int = NOW) -> Balance:
        with reading(self.engine) as db:
            return balances(db, account("acme", "user", user), now)[0]

    def stands(self, user: str = "ana") -> tuple[int, int, int, int]:
        """Left, reserved, consumed and expired."""
        balance = self.balance(user)
        return balance.left, balance.reserved, balance.consumed, balance.expired

    def sound(self) -> None:
        """Every line of the proof holds."""
        with reading(self.engine) as db:
            lines = list(energy_lines(db))
            assert db.execute(select(func.sum(ENERGY_ENTRIES.c.credits))).scalar() in (None, 0)
        assert len(lines) == 3
        assert [(line.name, line.differences) for line in lines if line.status != "holds"] == []


@pytest.fixture
def bank(engine: Engine) -> Bank:
    return Bank(engine)


def test_the_model_that_answered_is_paid_and_the_rest_goes_back(bank: Bank) -> None:
    """The dearest candidate is reserved, the price of the one that answered consumed, once however often the end is told."""
    bank.grant(10)
    one, _ = bank.ask()
    assert bank.stands() == (7, 3, 0, 0)
    bank.start(one)
    assert bank.end(one, 1, None, move_to=1) == "recorded"
    assert bank.stands() == (7, 3, 0, 0)
    bank.start(one, candidate=1)
    assert bank.end(one, 2) == "recorded"
    assert bank.stands() == (9, 0, 1, 0)
    assert bank.end(one, 2) == "refused"
    assert bank.stands() == (9, 0, 1, 0)
    with reading(bank.engine) as db:
        moves = [(each.kind, each.credits, each.left) for each in history(db, USER)]
    assert moves == [("grant", 10, 10), ("reserve", 3, 7), ("consume", 1, 7), ("refund", 2, 9)]
    bank.sound()


def test_the_proof_names_a_request_that_paid_another_price(bank: Bank) -> None:
    """What was consumed agrees with the model that the answer names, at the price of the admission, until either is changed."""
    bank.grant(10)
    strong, _ = bank.ask()
    failed, _ = bank.ask()
    bank.price(EnergyPrice(None, None, "powerful", 9))
    for one in (strong, failed):
        bank.start(one)
        bank.end(one, 1, completed=one == strong)

    def differing(**models: str | None) -> list[str]:
        told = Told()
        for one, model in ((strong, models["strong"]), (failed, models["failed"])):
            told.due[one] = Asked("", NOW, None)
            told.answers[one] = {"event": Answer(None, 1, None, None, NOW, model)}
        with reading(bank.engine) as db:
            [line] = paid_lines(told, db)
        assert line.left.figures == {"credits": 3}
        return [found.id for found in line.differences]

    assert differing(strong="openai/gpt-5", failed=None) == []
    assert differing(strong="google/flash", failed=None) == [f"request {strong} of {USER}"]
    assert differing(strong=None, failed=None) == [f"request {strong} of {USER}"]
    assert differing(strong="openai/gpt-5", failed="openai/gpt-5") == [f"request {failed} of {USER}"]


def test_a_request_that_fails_costs_nothing(bank: Bank) -> None:
    """Whether its last call failed or none was made, everything that it had reserved is refunded."""
    bank.grant(10)
    called, _ = bank.ask()
    bank.start(called)
    uncalled, _ = bank.ask()
    assert bank.stands() == (4, 6, 0, 0)
    assert bank.end(called, 1, completed=False) == "recorded"
    assert bank.end(uncalled, None, completed=False) == "recorded"
    assert bank.stands() == (10, 0, 0, 0)
    bank.sound()


def test_a_refused_request_takes_neither_energy_nor_of_a_limit(bank: Bank) -> None:
    """Short of credits it counts against no limit, over a limit it reserves no credit, and others of its batch have both."""
    bank.grant(4)
    bank.limit(Limit("/acme", "requests", "day", 2), Limit("/acme/user:bo", "requests", "day", 0))
    bank.grant(3, user="bo")
    over, good, short, cheap = bank.admit(
        bank.entry("bo"), bank.entry(), bank.entry(), bank.entry(cheap=True)
    )  # fmt: skip
    assert isinstance(over.refusal, Refusal)
    assert isinstance(short.refusal, Short)
    assert (short.refusal.left, short.refusal.costs) == (1, (3, 1))
    assert (good.kind, cheap.kind) == ("new", "new")
    assert (bank.stands(), bank.stands("bo")) == ((0, 4, 0, 0), (3, 0, 0, 0))
    with reading(bank.engine) as db:
        assert db.execute(select(COUNTERS.c.used).where(COUNTERS.c.account == "/acme")).scalar() == 2
    bank.sound()


def test_a_request_over_a_limit_leaves_its_credits_to_the_next_of_its_batch(bank: Bank) -> None:
    """Decided one after another, a batch refuses nobody who has enough."""
    bank.grant(3)
    bank.limit(Limit("/acme", "requests", "day", 0, task="draft"))
    over, good = bank.admit(bank.entry(task="draft"), bank.entry())
    assert isinstance(over.refusal, Refusal)
    assert good.kind == "new"


def test_a_request_id_reserves_once(bank: Bank) -> None:
    """Delivered again, in one batch or another, it holds what it held."""
    bank.grant(10)
    entry = bank.entry()
    assert [each.kind for each in bank.admit(entry, entry)] == ["new", "same"]
    assert [each.kind for each in bank.admit(entry)] == ["same"]
    assert bank.stands() == (7, 3, 0, 0)


def test_only_what_has_a_price_costs_energy(bank: Bank) -> None:
    """Without a price nothing is asked of a user, who may have none; a new price holds for the next request and is audited."""
    bank.price(remove=PRICES)
    assert [bank.ask("nobody")[1].kind, bank.ask(None)[1].kind] == ["new", "new"]
    bank.price(EnergyPrice("draft", None, None, 2))
    refusal = bank.ask("nobody", task="draft")[1].refusal
    assert isinstance(refusal, Short)
    assert refusal.error["code"] == "policy_energy_exhausted"
    assert isinstance(bank.ask(None, task="draft")[1].refusal, Short)
    assert bank.ask("nobody", task="other")[1].kind == "new"
    with reading(bank.engine) as db:
        audited = db.execute(select(REGISTRY_AUDIT.c.action, REGISTRY_AUDIT.c.subject)).all()
        assert db.execute(select(func.count()).select_from(ENERGY_ENTRIES)).scalar() == 0
    assert [tuple(each) for each in audited[-3:]] == [
        ("remove", "energy price tier cheap"), ("remove", "energy price tier powerful"), ("add", "energy price task draft"),
    ]  # fmt: skip


def test_without_a_price_no_statement_is_about_energy(bank: Bank) -> None:
    """A deployment that does not use it pays no query for it, once a process has seen that there is no price."""
    bank.price(remove=PRICES)
    bank.ask()
    statements: list[str] = []
    event.listen(bank.engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    one, _ = bank.ask()
    bank.start(one)
    assert bank.end(one, 1) == "recorded"
    assert any("INSERT INTO requests" in each for each in statements)
    assert [each for each in statements if "energy_" in each] == []


def test_a_price_that_changes_does_not_change_what_was_reserved(bank: Bank) -> None:
    """A request is paid at the price at which it was admitted."""
    bank.grant(10)
    one, _ = bank.ask()
    bank.price(EnergyPrice(None, None, "powerful", 9))
    bank.start(one)
    bank.end(one, 1)
    assert bank.stands() == (7, 0, 3, 0)


def test_what_is_left_of_a_grant_at_its_expiry_goes_back(bank: Bank) -> None:
    """The grant that ends first is used first; what comes back to one that has ended, ends too."""
    bank.grant(10)
    bank.grant(5, expires_at=NOW + 1_000)
    used, _ = bank.ask()
    bank.start(used)
    bank.end(used, 1)
    held, _ = bank.ask(cheap=True)
    bank.start(held)
    assert bank.stands() == (11, 1, 3, 0)
    assert bank.balance(now=NOW + 1_000).left == 10
    bank.expire(NOW + 999)
    assert bank.stands() == (11, 1, 3, 0)
    bank.expire(NOW + 1_000)
    bank.expire(NOW + 1_000)
    assert bank.stands() == (10, 1, 3, 1)
    bank.end(held, 1, completed=False)
    assert bank.balance(now=NOW + 1_001).left == 10
    bank.expire(NOW + 1_001)
    assert bank.stands() == (10, 0, 3, 2)
    bank.sound()


def test_what_an_abandoned_request_holds_comes_back(bank: Bank) -> None:
    """It is refunded once; going on after all, the request reserves again, or is told that its user has no longer enough."""
    bank.grant(4)
    one, _ = bank.ask()
    bank.expire(NOW + 10)
    bank.expire(NOW + 11)
    assert bank.stands() == (4, 0, 0, 0)
    other, _ = bank.ask(now=NOW + 12)
    step = bank.start(one)
    assert isinstance(step, OverLimit)
    assert step.error["code"] == "policy_energy_exhausted"
    bank.end(other, None, completed=False)
    assert isinstance(bank.start(one), Begin)
    assert bank.stands() == (1, 3, 0, 0)
    bank.end(one, 1)
    assert bank.stands() == (1, 0, 3, 0)
    bank.sound()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["grant", "ask", "ask", "ask cheap", "start", "answer", "answer", "fail", "go on", "settle", "expire"]),
        st.integers(0, 8),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_entries_sum_to_zero_after_any_sequence(bank: Bank, operations: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order, no credit appears, vanishes or is used twice, and no user has fewer than none."""
    user, clock = str(uuid.uuid4()), NOW
    asked: list[str] = []
    granted = consumed = 0
    for what, number in operations:
        one = asked[number % len(asked)] if asked else None
        clock += 1
        if what == "grant":
            bank.grant(number + 1, user, clock + 10 if number % 2 else None)
            granted += number + 1
        elif what.startswith("ask"):
            request, admitted = bank.ask(user, cheap=what == "ask cheap", now=clock)
            asked += [request] if admitted.kind == "new" else []
        elif what == "expire":
            bank.expire(clock + number)
        elif one is not None and what == "start":
            bank.start(one, candidate=0)
        elif one is not None:
            before = bank.balance(user).consumed
            with reading(bank.engine) as db:
                calls = db.execute(select(ATTEMPTS).where(ATTEMPTS.c.request_id == one)).all()
                request = db.execute(select(REQUESTS).where(REQUESTS.c.request_id == one)).one()
            if what == "settle":
                for call in calls:
                    bank.settle(one, call.number)
                continue
            opened = next((call.number for call in calls if call.ended_at is None), None)
            answer = None if what == "go on" else b"answer"
            came_to = bank.end(one, opened, answer, completed=what == "answer")
            after = bank.balance(user).consumed
            paid = what == "answer" and came_to == "recorded" and opened is not None
            assert after - before == (energy.unpacked(request.energy).costs[0] if paid else 0)
            consumed += after - before
    if granted:
        balance = bank.balance(user)
        assert (balance.granted, balance.consumed) == (granted, consumed)
        assert balance.left + balance.reserved + balance.consumed + balance.expired == granted
        assert min(balance.left, balance.reserved) >= 0
        bank.sound()


def test_no_race_uses_a_credit_twice_and_none_leaves_a_rest(bank: Bank) -> None:
    """A thousand requests in shared transactions of four processes, failures, time-outs, abandoned requests and kill -9 over a hundred
    credits: exactly they are consumed.

    A reader sees never more than they reserved or consumed; at the end nothing is reserved, and every completed answer was paid.
    """
    for credits in (GRANTED - 30, 30):
        bank.grant(credits, expires_at=None if credits == 30 else time.time_ns() // 1_000 + 3_600_000_000)
    stop, seen = threading.Event(), list[Balance]()

    def watch() -> None:
        while not stop.is_set():
            seen.append(bank.balance())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    kills = race(bank.engine, "tests.contract.energy_racer", REQUESTS_OF_A_RACE)
    stop.set()
    watcher.join()
    assert kills > 0
    assert len(seen) > 20
    assert {each.left + each.reserved + each.consumed for each in seen} == {GRANTED}
    assert min(each.left for each in seen) == 0
    assert bank.stands() == (0, 0, GRANTED, 0)
    with bank.engine.connect() as db:
        answered = db.execute(select(func.count()).where(REQUESTS.c.answer == b"answered")).scalar_one()
        paid = db.execute(
            select(func.count(ENERGY_ENTRIES.c.request_id.distinct())).where(ENERGY_ENTRIES.c.kind == "consume")
        ).scalar_one()
        holds = db.execute(select(REQUESTS.c.energy).where(REQUESTS.c.energy.is_not(None))).scalars()
        assert [hold for hold in map(energy.unpacked, holds) if hold.pieces] == []
    assert answered == paid
    bank.sound()
