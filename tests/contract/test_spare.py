"""The spare ledger: who admits a request while the ledger is away, and how the ledger takes over what was admitted there."""

from __future__ import annotations

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from agents.ledgers import Ledgers
from config import audit, ledger, limit_audit, limits, settling, spare
from config.database import open_database, reading
from config.limit_models import COUNTERS
from config.settings import SettingsError, settings_in
from config.transactions import Transactions
from core.accounts import path_of
from core.attempts import FIRST_UNCHECKED, Begin
from core.limits import Amounts, Asking, Limit, Window
from tests.examples import NOON

#: Nothing listens on port 1.
UNREACHABLE = "postgresql+psycopg://nobody@127.0.0.1:1/none"
PATIENCE = 0.3
#: Longer than a database that is there takes to answer on a busy machine.
PATIENT = 5.0
MODEL = "openai/gpt-5-mini"
ASKING = Asking(path_of("acme", None, "ana", None), None, (MODEL,), Amounts(1_000, 200))
DAY: Window = "day"


@pytest.fixture
def aside(on_sqlite: Engine) -> Engine:
    """The spare ledger's database."""
    return on_sqlite


def now_us() -> int:
    return time.time_ns() // 1_000


def run(engine: Engine, operation: Any, *entries: Any) -> list[Any]:
    with engine.begin() as db:
        return list(operation(db, entries))


def admission(request_id: str, body: bytes = b"body", asking: Asking | None = ASKING) -> ledger.Admission:
    return ledger.Admission(request_id, body.ljust(32), "acme", 1_000, None, NOON, b"plan", asking)


def answered(engine: Engine, request_id: str, *costs: int | None, first: int = FIRST_UNCHECKED) -> None:
    """Admit a request, make a call for each cost and settle it, the last of which answers it; None is a cost that nobody knows."""
    assert run(engine, ledger.admit, admission(request_id))[0].kind in ("new", "same")
    for place, cost in enumerate(costs):
        start = ledger.Start(request_id, "w1", NOON, None, 5, True, first=first)
        step = run(engine, ledger.start, start)[0].step
        assert isinstance(step, Begin) and step.number == first + place
        status = "priced" if cost is not None else "unknown"
        attempt = ledger.EndedAttempt(step.number, b"usage", cost, status)
        answer = b"answer of the spare" if place == len(costs) - 1 else None
        assert run(engine, ledger.end, ledger.End(request_id, "w1", NOON, attempt, answer)) == ["recorded"]
        tokens = None if cost is None else 50
        settlement = settling.Settlement(request_id, step.number, cost, 1_000, tokens, MODEL, NOON)
        assert run(engine, settling.settle, settlement) == [True]


def carry(aside: Engine, engine: Engine) -> int:
    """Carry over what is through; how many requests."""
    with aside.begin() as db:
        found = spare.through(db)
    with engine.begin() as db:
        spare.adopt(db, found, NOON)
    with engine.begin() as db:
        spare.answer(db, found, NOON)
    with aside.begin() as db:
        spare.leave(db, found)
    return len(found)


def account(engine: Engine) -> tuple[int, int, int]:
    """Spent, reserved and unknown of the tenant."""
    with reading(engine) as db:
        [balance] = (one for one in audit.balances(db) if one.account == "acme")
    return balance.spent_nano, balance.reserved_nano, balance.unknown_nano


def counts(engine: Engine) -> dict[str, tuple[int | None, int | None]]:
    """What is used and held of each limit; asserts that it is what requests and calls add up to."""
    with reading(engine) as db:
        found = limit_audit.counted(db, NOON, 8)
    assert [(one.used, one.reserved) for one in found] == [(one.used_by_calls, one.held_by_requests) for one in found]
    return {one.limit.subject: (one.used, one.reserved) for one in found}


def limited(engine: Engine, most: int = 1) -> None:
    """Give the tenant limits that what was admitted unchecked goes beyond."""
    wanted = [Limit("/acme", meter, DAY, most) for meter in ("requests", "tokens", "usd")]
    with engine.begin() as db:
        limits.change(db, limits.Edit(wanted), "test", NOON)


def test_what_was_admitted_unchecked_counts_in_the_ledger_once(engine: Engine, aside: Engine) -> None:
    """Costs, bounds of unknown costs, tokens and requests are in the ledger after it, beyond its limits too, and after a second time."""
    limited(engine)
    answered(aside, str(uuid.uuid4()), 70, 30)
    answered(aside, str(uuid.uuid4()), None)
    with aside.begin() as db:
        found = spare.through(db)
    for _ in range(2):
        with engine.begin() as db:
            spare.adopt(db, found, NOON)
    assert account(engine) == (100, 0, 1_000)
    assert counts(engine) == {"requests per day": (2, 0), "tokens per day": (300, 0), "usd per day": (1_100, 0)}
    assert carry(aside, engine) == 2
    assert carry(aside, engine) == 0


def test_a_request_that_was_carried_over_has_its_answer(engine: Engine, aside: Engine) -> None:
    """Sent again it gets the same answer, with another body none, and its settlement that comes again changes nothing."""
    one = str(uuid.uuid4())
    answered(aside, one, 70)
    assert carry(aside, engine) == 1
    same, other = run(engine, ledger.admit, admission(one), admission(one, b"other"))
    assert (same.kind, same.answer, other.kind) == ("same", b"answer of the spare", "other")
    assert run(engine, settling.settle, settling.Settlement(one, FIRST_UNCHECKED, 70, 1_000)) == [False]
    assert run(aside, ledger.known, one) == [False]


def test_what_is_not_through_stays_where_it_is(engine: Engine, aside: Engine) -> None:
    """A request without its answer, or with a call that is not settled, is not carried."""
    waiting, unsettled = str(uuid.uuid4()), str(uuid.uuid4())
    run(aside, ledger.admit, admission(waiting), admission(unsettled))
    run(aside, ledger.start, ledger.Start(unsettled, "w1", NOON, None, 3, True, first=FIRST_UNCHECKED))
    attempt = ledger.EndedAttempt(FIRST_UNCHECKED, b"usage", 70, "priced")
    run(aside, ledger.end, ledger.End(unsettled, "w1", NOON, attempt, b"answer"))
    assert carry(aside, engine) == 0
    run(aside, settling.settle, settling.Settlement(unsettled, FIRST_UNCHECKED, 70, 1_000))
    assert carry(aside, engine) == 1
    assert run(aside, ledger.known, waiting, unsettled) == [True, False]


def test_a_request_that_both_admitted_counts_with_all_its_calls(engine: Engine, aside: Engine) -> None:
    """One sent before and again while the ledger is away: calls of both are charged, and what it held is given back."""
    limited(engine, 10_000)
    called, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    answered(engine, called, 20, first=1)
    run(engine, ledger.admit, admission(waiting))
    for one in (called, waiting):
        answered(aside, one, 70)
    assert carry(aside, engine) == 2
    assert account(engine) == (160, 0, 0)
    assert counts(engine) == {"requests per day": (2, 0), "tokens per day": (150, 0), "usd per day": (160, 0)}
    first, second = run(engine, ledger.admit, admission(called), admission(waiting))
    assert (first.answer, second.answer) == (b"answer of the spare", b"answer of the spare")


class Desk:
    """A ledger and a spare one, and by which of them a request was admitted."""

    def __init__(self, main: Engine, aside: Engine, patience: float = PATIENCE) -> None:
        self.main, self.aside = (Transactions(engine, 10, 0.001) for engine in (main, aside))
        self.ledgers = Ledgers(self.main, self.aside, patience)

    async def admit(self, request_id: str, made_at: int, seconds: float = 60.0) -> bool:
        """Whether it was admitted unchecked; TimeoutError where it waits."""

        async def at(unchecked: bool) -> bool:
            await self.ledgers.of(unchecked=unchecked).run(ledger.admit, admission(request_id))
            return unchecked

        async with asyncio.timeout(seconds):
            return await self.ledgers.admit(request_id, made_at, at)

    async def close(self) -> None:
        await self.main.close()
        await self.aside.close()


def test_the_spare_ledger_admits_what_comes_while_the_ledger_is_away(aside: Engine) -> None:
    """Requests made since the ledger was last heard of are admitted unchecked; one made before waits, and is in neither."""

    async def story() -> tuple[list[bool], bool]:
        desk = Desk(open_database(UNREACHABLE), aside)
        before, earlier = now_us() - 1_000_000, str(uuid.uuid4())
        taken = list(await asyncio.gather(*(desk.admit(str(uuid.uuid4()), now_us() + n) for n in range(5))))
        with pytest.raises(TimeoutError):
            await desk.admit(earlier, before, 4 * PATIENCE)
        known = await desk.aside.run(ledger.known, earlier)
        await desk.close()
        return taken, known

    taken, known = asyncio.run(story())
    assert taken == [True] * 5
    assert not known


def test_a_request_goes_where_it_is_known(engine: Engine, aside: Engine) -> None:
    """While both answer, a request that the spare ledger knows stays there, and any other is the ledger's."""

    async def story() -> list[bool]:
        desk = Desk(engine, aside, PATIENT)
        one, other = str(uuid.uuid4()), str(uuid.uuid4())
        await desk.aside.run(ledger.admit, admission(one))
        found = [await desk.admit(each, now_us()) for each in (one, other)]
        await desk.close()
        return found

    assert asyncio.run(story()) == [True, False]


def test_a_spare_ledger_that_is_away_holds_up_nothing_new(engine: Engine) -> None:
    """What was made since it was last heard of is the ledger's; what was made before waits, for the spare one may have it."""

    async def story() -> bool:
        before = now_us() - 1_000_000
        desk = Desk(engine, open_database(UNREACHABLE), PATIENT)
        found = await desk.admit(str(uuid.uuid4()), now_us() + 1)
        with pytest.raises(TimeoutError):
            await desk.admit(str(uuid.uuid4()), before, 2 * PATIENT)
        await desk.close()
        return found

    assert asyncio.run(story()) is False


@pytest.mark.parametrize("empty", ["postgres"], indirect=True)
def test_what_is_carried_over_waits_for_a_change_of_limits(engine: Engine, aside: Engine) -> None:
    """A limit that is set meanwhile counts it, once: it comes after the change as a whole."""
    answered(aside, str(uuid.uuid4()), 70)
    with ThreadPoolExecutor(1) as thread, engine.begin() as db:
        limits.change(db, limits.Edit([Limit("/acme", "usd", DAY, 1_000)]), "ana", NOON)
        carried = thread.submit(carry, aside, engine)
        while not carried.done() and not db.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar():
            time.sleep(0.01)
        assert not carried.done()
    assert carried.result() == 1
    with reading(engine) as db:
        assert [(row.used, row.reserved) for row in db.execute(select(COUNTERS))] == [(70, 0)]


def test_a_spare_ledger_is_another_database() -> None:
    """The ledger's own address is refused: it would be away when it is needed."""
    with pytest.raises(SettingsError, match="MILLSTREAM_SPARE_DATABASE_URL is the ledger's own database"):
        settings_in({"MILLSTREAM_DATABASE_URL": "sqlite:///a.db", "MILLSTREAM_SPARE_DATABASE_URL": "sqlite:///a.db"})
