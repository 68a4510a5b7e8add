"""Requests that wait for room in a limit, on a real ledger: their order, who is not held up, and when waiting ends."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, select

from agents.waiting import Waiting
from config import ledger, limits
from config.limit_models import COUNTERS
from config.models import REQUESTS
from config.transactions import Transactions
from core.accounts import path_of
from core.degrading import Degraded
from core.energy import Short
from core.limits import Amounts, Asking, Limit, Refusal, UnknownAccount

CENT = 10_000_000
GPT, GEMINI = "openai/gpt-5", "google/gemini"


def now_us() -> int:
    return time.time_ns() // 1_000


class Queue:
    """Requests that wait, as one admit process has them."""

    def __init__(self, engine: Engine, most: int) -> None:
        self.engine = engine
        self.transactions = Transactions(engine, most=200, linger=0.001)
        self.waiting = Waiting(self.transactions, now_us, most)
        self.through: list[str] = []

    def limit(self, *put: Limit, remove: tuple[Limit, ...] = ()) -> None:
        with self.engine.begin() as db:
            limits.change(db, limits.Edit(put, remove), "test", now_us())

    def ask(
        self, name: str, seconds: float | None = 60.0, tenant: str = "acme", model: str = GPT, tokens: int = 10,
        known: bool = False, degrades: bool = False, either: bool = False,
    ) -> asyncio.Task[ledger.Admitted]:  # fmt: skip
        """A request that asks, and waits for so long at most; its name is in `through` once it is admitted.

        One that degrades does without GPT from 80 % of a limit on, one with either model where there is no room for GPT; its name is
        then in small letters.
        """
        path = path_of(tenant, None, "ana", None)
        asking = Asking(path, None, (model,), Amounts(CENT, tokens))
        if degrades:
            asking = replace(asking, models=(GPT, GEMINI), degrade_from=80, dearer=(0,))
        if either:
            asking = replace(asking, models=(GPT, GEMINI))
        entry = ledger.Admission(
            id_of(name), bytes(32), tenant, CENT, None, now_us(), b"", asking, known=path if known else ()
        )
        until = None if seconds is None else now_us() + int(seconds * 1_000_000)

        def cheaper(asked: ledger.Admission, why: Short | Degraded) -> ledger.Admission:
            assert list(why.too_dear) == [0]
            return replace(asked, plan=b"cheap", asking=replace(asking, models=(GEMINI,), dearer=()))

        async def work() -> ledger.Admitted:
            admitted = await self.waiting.admit(entry, until, cheaper)
            if admitted.kind == "new":
                self.through.append(name.lower() if admitted.plan == b"cheap" else name)
            return admitted

        return asyncio.create_task(work())

    async def end(self, name: str) -> None:
        """The end of an admitted request, which gives its place back."""
        entry = ledger.End(id_of(name), "w", now_us(), None, b"answer")
        assert await self.transactions.run(ledger.end, entry) == "recorded"

    async def see(self, *names: str) -> None:
        """Return when these are through, and nobody else."""
        ends = time.monotonic() + 20
        while self.through != list(names) and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        assert self.through == list(names)

    def counts(self) -> dict[str, tuple[int, int]]:
        with self.engine.connect() as db:
            return {row.subject: (row.used, row.reserved) for row in db.execute(select(COUNTERS))}


def id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


@pytest.fixture
def queue(engine: Engine) -> Callable[..., None]:
    """Runs a story of requests against a ledger with some limits."""

    def run(story: Callable[[Queue], Awaitable[Any]], *put: Limit, most: int = 100) -> None:
        async def whole() -> None:
            made = Queue(engine, most)
            made.limit(*put)
            try:
                await asyncio.wait_for(story(made), 60)
            finally:
                await made.transactions.close()

        asyncio.run(whole())

    return run


ONE_AT_A_TIME = Limit("/acme", "concurrent", None, 1)


def test_they_are_admitted_in_the_order_in_which_they_came(queue: Any) -> None:
    """Each end of a request lets the next one in, and none that comes later goes before it."""

    async def story(q: Queue) -> None:
        names = ("a", "b", "c", "d")
        for name in names:
            q.ask(name)
            await asyncio.sleep(0.05)
        for number, name in enumerate(names, 1):
            await q.see(*names[:number])
            await asyncio.sleep(0.3)
            assert (q.through, q.waiting.length) == (list(names[:number]), len(names) - number)
            await q.end(name)
        assert q.counts() == {"concurrent": (0, 0)}

    queue(story, ONE_AT_A_TIME)


def test_a_line_holds_up_nobody_whom_its_limit_is_not_about(queue: Any) -> None:
    """Other accounts, and models of the same account that the limit does not count, are admitted while others wait."""

    async def story(q: Queue) -> None:
        q.ask("a", model=GPT)
        await q.see("a")
        q.ask("b", model=GPT)
        await asyncio.sleep(0.1)
        await q.ask("c", model=GEMINI)
        await q.ask("d", tenant="globex")
        await q.see("a", "c", "d")
        await q.end("a")
        await q.see("a", "c", "d", "b")

    queue(story, Limit("/acme", "concurrent", None, 1, model="openai/*"))


def test_whoever_degrades_keeps_its_turn(queue: Any) -> None:
    """First in the line, it takes the place that is free with its cheaper model, before those behind it; alone, it gets the better one."""

    async def story(q: Queue) -> None:
        for name in "ABCDE":
            await q.ask(name)
        q.ask("F", degrades=True)
        await asyncio.sleep(0.3)
        q.ask("G")
        await asyncio.sleep(0.3)
        await q.end("A")
        await q.see(*"ABCDEf")
        await q.end("B")
        await q.see(*"ABCDEfG")
        for name in "CDEFG":
            await q.end(name)
        await q.ask("H", degrades=True)
        await q.see(*"ABCDEfGH")

    queue(story, Limit("/acme", "concurrent", None, 5))


def test_whoever_waited_gets_the_better_model_where_there_is_room_by_then(queue: Any) -> None:
    """While neither model fits beside what is held both are asked for again and again, the better one first."""

    async def story(q: Queue) -> None:
        await q.ask("A")
        q.ask("B", degrades=True)
        await asyncio.sleep(0.5)
        assert q.through == ["A"]
        await q.end("A")
        await q.see("A", "B")

    queue(story, Limit("/acme", "usd", "hour", 2 * CENT - 1))


def test_whoever_fits_stands_behind_whoever_does_not_yet(queue: Any) -> None:
    """A small request does not take the room that a larger one before it waits for, unless it says that it does not wait."""

    async def story(q: Queue) -> None:
        await q.ask("a", tokens=60)
        q.ask("large", tokens=50)
        await asyncio.sleep(0.1)
        q.ask("small", tokens=10)
        await asyncio.sleep(0.5)
        assert q.through == ["a"]
        assert (await q.ask("hasty", seconds=None, tokens=10)).kind == "new"
        await q.end("a")
        await q.end("hasty")
        await q.see("a", "hasty", "large", "small")

    queue(story, Limit("/acme", "tokens", "day", 100))


def test_waiting_ends_with_its_time_and_takes_nothing(queue: Any) -> None:
    """First in line or not, the answer is the limit's refusal, with when to ask again; the ledger does not know the request."""

    async def story(q: Queue) -> None:
        await q.ask("a")
        first, second = q.ask("b", seconds=0.5), q.ask("c", seconds=0.3)
        for admitted in (await first, await second):
            assert isinstance(admitted.refusal, Refusal)
            assert admitted.refusal.error["code"] == "policy_rate_limited"
            assert admitted.refusal.retry_after_ms
        assert q.through == ["a"]
        assert q.counts() == {"concurrent": (0, 1)}
        await q.end("a")
        await q.ask("d")
        assert q.through == ["a", "d"]

    queue(story, ONE_AT_A_TIME)


def test_nobody_waits_in_vain(queue: Any) -> None:
    """A used up budget, and a limit that resets after the request's time, refuse at once, also one that says `wait`."""

    async def story(q: Queue) -> None:
        await q.ask("a", tenant="acme")
        await q.end("a")
        with q.engine.begin() as db:
            db.execute(COUNTERS.update().values(used=CENT, reserved=0))
        broke = await q.ask("b", seconds=3_600, tenant="acme")
        assert broke.refusal is not None and broke.refusal.error["code"] == "policy_budget_exceeded"
        await q.ask("c", tenant="globex")
        late = await q.ask("d", seconds=1_800, tenant="globex")
        assert late.refusal is not None and late.refusal.error["code"] == "policy_rate_limited"

    # A sliding hour is not over within the half hour for which the request waits.
    queue(story, Limit("/acme", "usd", "month", CENT), Limit("/globex", "requests", "hour", 1, sliding=True))


def test_so_many_wait_and_no_more(queue: Any) -> None:
    """Past the bound, and past half of it in one line, a request is refused at once; a line's end makes room again."""

    async def story(q: Queue) -> None:
        await q.ask("a")
        await q.ask("x", tenant="globex")
        waiting = [q.ask("b"), q.ask("c"), q.ask("y", tenant="globex"), q.ask("z", tenant="globex")]
        await asyncio.sleep(0.2)
        await q.ask("i", tenant="initech")
        for refused in (await q.ask("d"), await q.ask("e", tenant="globex"), await q.ask("j", tenant="initech")):
            assert refused.refusal is not None and refused.refusal.error["retry_after_ms"]
        await q.end("i")
        assert (await q.ask("k", tenant="initech")).kind == "new"
        q.through.remove("i")
        q.through.remove("k")
        await q.end("a")
        await q.see("a", "x", "b")
        q.ask("f")
        await q.end("b")
        await q.see("a", "x", "b", "c")
        await q.end("c")
        await q.see("a", "x", "b", "c", "f")
        for task in waiting:
            task.cancel()

    queue(story, Limit("/*", "concurrent", None, 1), most=4)


def test_a_raised_limit_lets_them_in_at_once(queue: Any) -> None:
    """Whoever waits for a limit that is raised, or removed, need not wait for its window to end."""

    async def story(q: Queue) -> None:
        await q.ask("a")
        q.ask("b", seconds=7_200)
        q.ask("c", seconds=7_200)
        await asyncio.sleep(0.2)
        q.limit(Limit("/acme", "requests", "hour", 2))
        await q.see("a", "b")
        q.limit(remove=(Limit("/acme", "requests", "hour", 2),))
        await q.see("a", "b", "c")

    queue(story, Limit("/acme", "requests", "hour", 1))


def test_who_can_do_without_a_model_waits_for_none_and_goes_before_nobody(queue: Any) -> None:
    """It goes on at once with the other model, and leaves the room for the first one to those that wait for it."""

    async def story(q: Queue) -> None:
        await q.ask("a")
        q.ask("b")
        await asyncio.sleep(0.1)
        await q.ask("C", either=True)
        assert q.through == ["a", "c"]
        await q.end("a")
        await q.see("a", "c", "b")
        await q.end("b")
        await q.ask("D", either=True)
        assert q.through[-1] == "D"

    queue(story, Limit("/acme", "concurrent", None, 1, model="openai/*"))


def test_a_request_that_is_delivered_again_waits_behind_nobody(queue: Any) -> None:
    """What the ledger has admitted goes on, though others wait for the limit that it counts against."""

    async def story(q: Queue) -> None:
        await q.ask("a")
        q.ask("b")
        await asyncio.sleep(0.1)
        assert (await q.ask("a")).kind == "same"
        assert q.through == ["a"]

    queue(story, ONE_AT_A_TIME)


def test_accounts_that_no_limit_names_are_refused_where_they_have_to_be_known(queue: Any) -> None:
    """The refusal names the account, and takes nothing; a limit that names it acts with the next request."""

    async def story(q: Queue) -> None:
        stranger = (await q.ask("a", tenant="globex", known=True)).refusal
        assert stranger == UnknownAccount("/globex")
        user = (await q.ask("b", known=True)).refusal
        assert user is not None and user.error["code"] == "policy_unknown_account"
        assert "/acme/user:ana" in user.error["message"]
        with q.engine.connect() as db:
            assert db.execute(select(REQUESTS)).all() == []
        q.limit(Limit("/acme/user:ana", "usd", "day", 0, hard=False))
        q.limit(Limit("/globex", "usd", "day", 0, hard=False))
        await q.ask("a", tenant="globex", known=True)
        await q.ask("b", known=True)
        await q.see("a", "b")

    queue(story, Limit("/*", "requests", "day", 9), Limit("/acme/user:bo", "usd", "day", CENT))
