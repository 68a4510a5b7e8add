"""One of several processes that race for the room in limits: it takes requests through admission, call and settlement, and is
killed on its way.

`python -m tests.contract.limit_racer URL SEED FIRST LAST METER` works on the requests of these numbers; run again after it was
killed, it goes on where it was, as a worker does whose records are delivered again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from config import ledger, settling, upkeep
from config.database import open_database
from config.limit_models import COUNTERS
from config.models import REQUESTS
from core.accounts import path_of
from core.attempts import Begin, Finished, GiveUp, Lost, OverLimit
from core.limits import Amounts, Asking, Limit, Meter, Refusal
from core.windows import Window
from tests.contract.racing import RACERS

CENT = 10_000_000
USERS = 7
#: What a request asks for in tokens, and what a call of it uses that answers.
BOUND, USED = 100, 50
#: How often each kind of end is met, and how often a call is settled before its request's next one begins.
FAILS, UNKNOWN, SETTLED_FIRST = 0.1, 0.2, 0.5
#: The points at which a process may be killed that its first life passes at most.
FIRST_LIFE = 20
#: After so many requests a process settles what has ended.
AT_ONCE = 20
#: When requests are admitted, in microseconds: every second one in the first minute, the others in the next one of the same hour.
BEGINS, MINUTE = 1_795_258_680_000_000, 60_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """What is raced for: so much of a meter for the platform and for the tenant, in each window, and so much for each user.

    `dies` is how often a process is killed at one of its points.
    """

    meter: Meter
    window: Window | None
    most: int
    window_of_users: Window | None
    most_of_users: int
    dies: float = 0.01

    @property
    def limits(self) -> list[Limit]:
        """As limits, on three levels."""
        shared = [Limit(account, self.meter, self.window, self.most) for account in ("/", "/acme")]
        users = (f"/acme/user:user {number}" for number in range(USERS))
        return shared + [Limit(user, self.meter, self.window_of_users, self.most_of_users) for user in users]


ROOMS: dict[str, Room] = {
    "usd": Room("usd", "day", 100 * CENT, "day", 20 * CENT),
    "requests": Room("requests", "minute", 50, "hour", 20),
    "tokens": Room("tokens", "minute", 40 * BOUND, "hour", 15 * BOUND),
    "concurrent": Room("concurrent", None, 3, None, 1, dies=0.001),
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

    def __init__(self, engine: Engine, seed: int, dies: float = 0.01) -> None:
        self.engine = engine
        self.luck = random.Random(seed)
        self.dies = dies
        #: The first life of each process ends for certain, whichever of them gets far.
        self.points_left = FIRST_LIFE if seed < RACERS else None
        self.owner = str(uuid.uuid4())

    def now(self) -> int:
        return time.time_ns() // 1_000

    def live(self) -> None:
        """State that it lives, for as long as it takes to notice that it does not."""
        with self.engine.begin() as db:
            upkeep.heartbeat(db, self.owner, self.now() + 300_000)

    def may_die(self) -> None:
        """A point at which a kill -9 may come."""
        if self.points_left is not None:
            self.points_left -= 1
        if self.points_left == 0 or self.luck.random() < self.dies:
            os.kill(os.getpid(), signal.SIGKILL)

    def through(self, number: int) -> bool:
        """Take a request as far as it goes; False while others hold what it needs."""
        one = request_id(number)
        refusal = self.admit(one, asking_of(number), admitted_at(number)).refusal
        if isinstance(refusal, Refusal):
            return refusal.used_up
        self.may_die()
        return self.called(one)

    def admit(self, one: str, asking: Asking, at: int) -> ledger.Admitted:
        """Ask the ledger to let it in; AssertionError where it is refused and there is room."""
        with self.engine.begin() as db:
            entry = ledger.Admission(one, bytes(32), "acme", CENT, None, at, b"", asking)
            admitted = ledger.admit(db, [entry])[0]
            if isinstance(admitted.refusal, Refusal):
                assert_full(db, admitted.refusal)
            return admitted

    def called(self, one: str) -> bool:
        """Call until the request has its answer."""
        while True:
            self.live()
            with self.engine.begin() as db:
                step = ledger.start(db, [ledger.Start(one, self.owner, self.now(), None, 3, True)])[0].step
            self.may_die()
            match step:
                case Begin(call, _):
                    self.end(one, call, *self.outcome(call))
                    if self.luck.random() < SETTLED_FIRST:
                        self.settle()
                case Lost(opened):
                    self.end(one, opened.number, None, None, lost=True)
                case OverLimit() | GiveUp():
                    self.end(one, None, 0, b"failed")
                case Finished():
                    return True
                case _:
                    time.sleep(0.05)

    def outcome(self, call: int) -> tuple[int | None, bytes | None]:
        """What a call costs, None where nobody knows, and the answer where it is the last one."""
        chance = self.luck.random()
        if chance < FAILS:
            return 0, b"failed" if call == 3 else None
        if chance < FAILS + UNKNOWN:
            return None, b"failed" if call == 3 else None
        return CENT, b"answered"

    def end(self, one: str, call: int | None, cost: int | None, answer: bytes | None, lost: bool = False) -> None:
        status = "unknown" if cost is None else "priced" if cost else "not_charged"
        attempt = None if call is None else ledger.EndedAttempt(call, b"usage", cost, status)  # type: ignore[arg-type]
        with self.engine.begin() as db:
            completed = answer == b"answered"
            ledger.end(db, [ledger.End(one, self.owner, self.now(), attempt, answer, lost, completed=completed)])
        self.may_die()

    def left_open(self) -> set[str]:
        """The requests that have no answer yet: whoever was killed goes on with its own, for others wait for what they hold."""
        with self.engine.connect() as db:
            return set(db.execute(select(REQUESTS.c.request_id).where(REQUESTS.c.answer.is_(None))).scalars())

    def settle(self) -> None:
        """Do the meter's part: settle every call that has ended."""
        with self.engine.begin() as db:
            open_calls = db.exec_driver_sql(
                "SELECT request_id, number, cost_nano FROM attempts WHERE NOT settled AND ended_at IS NOT NULL"
            ).all()
            settling.settle(db, [
                settling.Settlement(row[0], row[1], row[2], CENT, tokens_of(row[2]), "openai/gpt-5", self.now())
                for row in open_calls
            ])  # fmt: skip


def tokens_of(cost: int | None) -> int | None:
    """The tokens of a call that came to this: those of an answer, none for a failure, None where nobody knows."""
    return None if cost is None else USED if cost else 0


def assert_full(db: Connection, refusal: Refusal) -> None:
    """AssertionError where a request was refused while there was room: the refusing transaction still has the count locked."""
    key = COUNTERS.c.account, COUNTERS.c.subject, COUNTERS.c.begins
    count, limit = refusal.count, refusal.count.limit
    values = count.account, limit.subject, count.begins
    row = db.execute(select(COUNTERS).where(*(name == value for name, value in zip(key, values, strict=True)))).one()
    asked = {"usd": CENT, "tokens": BOUND}.get(limit.meter, 1)
    assert row.used + row.reserved + asked > limit.most, (refusal, row)


def main(url: str, seed: int, numbers: range, room: Room) -> None:
    """Take all of them through, those that wait for room again and again."""
    racer = Racer(open_database(url), seed, room.dies)
    waiting = list(numbers)
    racer.luck.shuffle(waiting)
    left_open = racer.left_open()
    waiting.sort(key=lambda number: request_id(number) not in left_open)
    while waiting:
        some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        waiting += [number for number in some if not racer.through(number)]
        racer.settle()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])), ROOMS[sys.argv[5]])
