"""One of several processes that race for the room in limits: it takes requests through admission, call and settlement, many at
once in transactions that they share, as a worker does, and is killed on its way.

`main` works on the requests of these numbers; run again after it was killed, it goes on where it was, as a worker does whose
records are delivered again.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import traceback
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from config import ledger, settling, upkeep
from config.database import open_database
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from config.transactions import Transactions
from core.accounts import path_of
from core.attempts import Begin, Finished, GiveUp, Lost, OverLimit
from core.limits import Amounts, Asking, Limit, Meter, Refusal
from core.windows import Window
from tests.contract.racing import RACERS

CENT = 10_000_000
USERS = 7
#: What a request asks for in tokens, and what a call of it uses that answers.
BOUND, USED = 100, 50
#: How often each kind of end is met: a failure, an outcome that nobody knows, a worker that is not heard of again. And how often
#: a call is settled before its request's next one begins.
FAILS, UNKNOWN, TIMES_OUT, SETTLED_FIRST = 0.1, 0.1, 0.1, 0.5
#: Every tenth request nobody works on once it was let in; on the one after it somebody does after what is held for it has expired.
TENTH = 10
#: In microseconds: until when what is held for requests that nobody works on is held, and for the others; how long a worker counts as alive.
SOON, IN_TIME, LEASE = 200_000, 600_000_000, 200_000
#: The points at which a process may be killed that its first life passes at most.
FIRST_LIFE = 20
#: The most entries of a transaction, and for how many seconds it waits for more, as workers have them.
MOST, LINGER = 200, 0.005
#: In seconds: how often a process settles what has ended and expires what nobody works on, and when it asks again.
KEEPS, AGAIN = 0.2, 0.05
#: When requests are admitted, in microseconds: every second one in the first minute, the others in the next one of the same hour.
BEGINS, MINUTE = 1_795_258_680_000_000, 60_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """What is raced for: so much of a meter for the platform and for the tenant, in each window, and so much for each user.

    `dies` is how often a process is killed at one of its points, `at_once` how many requests it has under way. Where `known`, a call
    that was cut off is known to have cost nothing; elsewhere its bound stays counted.
    """

    meter: Meter
    window: Window | None
    most: int
    window_of_users: Window | None
    most_of_users: int
    dies: float = 0.01
    at_once: int = 50
    known: bool = False

    @property
    def limits(self) -> list[Limit]:
        """As limits, on three levels."""
        shared = [Limit(account, self.meter, self.window, self.most) for account in ("/", "/acme")]
        users = (f"/acme/user:user {number}" for number in range(USERS))
        return shared + [Limit(user, self.meter, self.window_of_users, self.most_of_users) for user in users]


ROOMS: dict[str, Room] = {
    "usd": Room("usd", "day", 100 * CENT, "day", 20 * CENT),
    "usd, outcomes known": Room("usd", "day", 100 * CENT, "day", 20 * CENT, known=True),
    "requests": Room("requests", "minute", 50, "hour", 20),
    "tokens": Room("tokens", "minute", 40 * BOUND, "hour", 15 * BOUND),
    "concurrent": Room("concurrent", None, 12, None, 2, dies=0.001, at_once=10),
}


def request_id(number: int) -> str:
    """The id of the n-th request."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"race {number}"))


def asking_of(number: int) -> Asking:
    """What the n-th request asks for: a cent and some tokens, by one of seven users."""
    path = path_of("acme", None, f"user {number % USERS}", None)
    return Asking(path, None, ("openai/gpt-5",), Amounts(CENT, BOUND))


def admitted_at(number: int) -> int:
    """When the n-th request asks, in microseconds since 1970."""
    return BEGINS + number % 2 * MINUTE + number


class Racer:
    """A worker with its own connection and its own luck."""

    def __init__(self, url: str, seed: int, dies: float = 0.01, known: bool = False) -> None:
        self.engine = open_database(url)
        #: As the workers of three stages have them.
        self.admits, self.calls, self.settles = (Transactions(self.engine, MOST, LINGER) for _ in range(3))
        self.luck = random.Random(seed)
        self.dies = dies
        self.known = known
        #: The first life of each process ends for certain, whichever of them gets far.
        self.points_left = FIRST_LIFE if seed < RACERS else None
        self.owner = str(uuid.uuid4())

    def now(self) -> int:
        return time.time_ns() // 1_000

    async def take(self, numbers: Iterable[int], at_once: int) -> None:
        """Take all of them through, so many at once; those that wait for room ask again and again."""
        own = {request_id(number): number for number in numbers}
        with self.engine.connect() as db:
            left_open = set(db.execute(select(REQUESTS.c.request_id).where(REQUESTS.c.answer.is_(None))).scalars())
        order = list(own)
        self.luck.shuffle(order)
        # Whoever was killed goes on with what it had begun: others wait for what that holds.
        order.sort(key=lambda one: one not in left_open)
        gate = asyncio.Semaphore(at_once)
        keeping = asyncio.create_task(self.keep(set(own)))

        async def through(one: str) -> None:
            ended = False
            while not ended:
                async with gate:
                    ended = await self.through(own[one])
                    if not ended:
                        await asyncio.sleep(AGAIN)

        async with asyncio.TaskGroup() as group:
            for one in order:
                group.create_task(through(one))
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await self.keep_once(set(own))
        for each in (self.admits, self.calls, self.settles):
            await each.close()

    async def keep(self, own: set[str]) -> None:
        """Do what the worker, the meter and the upkeep do beside requests."""
        while True:
            with suppress(OperationalError):
                await self.keep_once(own)
            await asyncio.sleep(KEEPS)

    async def keep_once(self, own: set[str]) -> None:
        """Live on, settle every call that has ended, and expire what nobody works on."""
        await self.calls.call(upkeep.heartbeat, self.owner, self.now() + LEASE)
        await self.admits.call(upkeep.expire, self.now())
        found = await self.settles.call(lambda db: db.execute(_UNSETTLED).all())
        await asyncio.gather(*(self.settle(*row) for row in found if row[0] in own))

    def may_die(self) -> None:
        """A point at which a kill -9 may come."""
        if self.points_left is not None:
            self.points_left -= 1
        if self.points_left == 0 or self.luck.random() < self.dies:
            os.kill(os.getpid(), signal.SIGKILL)

    async def through(self, number: int) -> bool:
        """Take a request as far as it goes; False while others hold what it needs."""
        admitted = await self.admit(number, asking_of(number), admitted_at(number))
        if isinstance(admitted.refusal, Refusal):
            return admitted.refusal.used_up
        return await self.go_on(number)

    async def admit(self, number: int, asking: Asking, at: int) -> ledger.Admitted:
        """Ask the ledger to let it in; the process ends where it is refused and there is room."""
        expires_at = self.now() + (SOON if number % TENTH < 2 else IN_TIME)
        entry = ledger.Admission(request_id(number), bytes(32), "acme", CENT, None, at, b"", asking, expires_at)
        return await self.admits.run(admit_justly, entry)

    async def go_on(self, number: int) -> bool:
        """Take a request further that was let in: at once, late or never."""
        self.may_die()
        if number % TENTH < 2:
            await asyncio.sleep(2 * SOON / 1_000_000)
        return number % TENTH == 0 or await self.called(request_id(number))

    async def called(self, one: str) -> bool:
        """Call until the request has its answer."""
        while True:
            owner = await self.vanishing() if self.luck.random() < TIMES_OUT else self.owner
            entry = ledger.Start(one, owner, self.now(), None, 3, True)
            step = (await self.calls.run(ledger.start, entry)).step
            self.may_die()
            match step:
                case Begin(call, _) if owner == self.owner:
                    cost, answer = self.outcome(call)
                    await self.end(one, call, cost, answer)
                    if self.luck.random() < SETTLED_FIRST:
                        await self.settle(one, call, cost)
                case Begin(call, _):
                    await self.left_alone(one, call, owner)
                case Lost(opened):
                    await self.end(one, opened.number, 0 if self.known else None, None, lost=True)
                case OverLimit() | GiveUp():
                    await self.end(one, None, 0, b"failed")
                case Finished():
                    return True
                case _:
                    await asyncio.sleep(AGAIN)

    async def vanishing(self) -> str:
        """A worker that is heard of once and never again."""
        owner = str(uuid.uuid4())
        beat = upkeep.heartbeat
        await self.calls.run(lambda db, at: [beat(db, owner, each) for each in at], self.now() + LEASE)
        return owner

    async def left_alone(self, one: str, call: int, owner: str) -> None:
        """Leave a call open until its worker's lease has run out and another one finds it; what the first says then is not heard."""
        step = None
        while not isinstance(step, Lost):
            await asyncio.sleep(AGAIN)
            entry = ledger.Start(one, self.owner, self.now(), None, 3, True)
            step = (await self.calls.run(ledger.start, entry)).step
        await self.end(one, call, 0 if self.known else None, None, lost=True)
        assert await self.end(one, call, CENT, b"answered", owner=owner) == "refused"

    def outcome(self, call: int) -> tuple[int | None, bytes | None]:
        """What a call costs, None where nobody knows, and the answer where it is the last one."""
        chance = self.luck.random()
        if chance < FAILS:
            return 0, b"failed" if call == 3 else None
        if chance < FAILS + UNKNOWN:
            return 0 if self.known else None, b"failed" if call == 3 else None
        return CENT, b"answered"

    async def end(
        self, one: str, call: int | None, cost: int | None, answer: bytes | None, lost: bool = False, owner: str = ""
    ) -> str:
        status = "unknown" if cost is None else "priced" if cost else "not_charged"
        attempt = None if call is None else ledger.EndedAttempt(call, b"usage", cost, status)  # type: ignore[arg-type]
        completed = answer == b"answered"
        entry = ledger.End(one, owner or self.owner, self.now(), attempt, answer, lost, completed=completed)
        came_to = await self.calls.run(ledger.end, entry)
        self.may_die()
        return came_to

    async def settle(self, one: str, call: int, cost: int | None) -> None:
        """Do the meter's part."""
        entry = settling.Settlement(one, call, cost, CENT, tokens_of(cost), "openai/gpt-5", self.now())
        await self.settles.run(settling.settle, entry)


_UNSETTLED = select(ATTEMPTS.c.request_id, ATTEMPTS.c.number, ATTEMPTS.c.cost_nano).where(
    ~ATTEMPTS.c.settled, ATTEMPTS.c.ended_at.is_not(None)
)


def admit_justly(db: Connection, entries: Sequence[ledger.Admission]) -> list[ledger.Admitted]:
    """`ledger.admit`; the process ends where a request of the batch is refused and there is room.

    It ends at once, for a batch that fails is tried again entry by entry, which could then hold.
    """
    found = ledger.admit(db, entries)
    try:
        for refusal in (admitted.refusal for admitted in found):
            if isinstance(refusal, Refusal):
                assert_full(db, refusal)
    except AssertionError:
        traceback.print_exc()
        os._exit(1)
    return found


def tokens_of(cost: int | None) -> int | None:
    """The tokens of a call that came to this: those of an answer, none for a failure, None where nobody knows."""
    return None if cost is None else USED if cost else 0


def assert_full(db: Connection, refusal: Refusal) -> None:
    """AssertionError where a request was refused while there was room: the refusing transaction still has the count locked.

    Requests of the same batch that came after it can have added to what it found.
    """
    key = COUNTERS.c.account, COUNTERS.c.subject, COUNTERS.c.begins
    count, limit, seen = refusal.count, refusal.count.limit, refusal.level
    values = count.account, limit.subject, count.begins
    row = db.execute(select(COUNTERS).where(*(name == value for name, value in zip(key, values, strict=True)))).one()
    asked = {"usd": CENT, "tokens": BOUND}.get(limit.meter, 1)
    assert row.used + row.reserved >= seen.used + seen.reserved > limit.most - asked, (refusal, row)


def main(url: str, seed: int, numbers: range, meter: str) -> None:
    """Take the requests of these numbers through."""
    room = ROOMS[meter]
    asyncio.run(Racer(url, seed, room.dies, room.known).take(numbers, room.at_once))
