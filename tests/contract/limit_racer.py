"""One of several processes that race for a budget: it takes requests through admission, call and settlement, and is killed on its way.

`python -m tests.contract.limit_racer URL SEED FIRST LAST` works on the requests of these numbers; run again after it was
killed, it goes on where it was, as a worker does whose records are delivered again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid

from sqlalchemy import Engine

from config import ledger, settling, upkeep
from config.database import open_database
from core.accounts import path_of
from core.attempts import Begin, Finished, GiveUp, Lost, OverLimit
from core.limits import Amounts, Asking, Refusal

CENT = 10_000_000
#: How often each kind of end is met, and how often the process dies at one of its points.
FAILS, UNKNOWN, DIES = 0.1, 0.02, 0.01


def request_id(number: int) -> str:
    """The id of the n-th request."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"race {number}"))


def asking_of(number: int) -> Asking:
    """What the n-th request asks for: a cent, by one of seven users."""
    return Asking(path_of("acme", None, f"user {number % 7}", None), None, ("openai/gpt-5",), Amounts(CENT, 100))


class Racer:
    """A worker with its own connection and its own luck."""

    def __init__(self, engine: Engine, luck: random.Random) -> None:
        self.engine = engine
        self.luck = luck
        self.owner = str(uuid.uuid4())

    def now(self) -> int:
        return time.time_ns() // 1_000

    def live(self) -> None:
        """State that it lives, for as long as it takes to notice that it does not."""
        with self.engine.begin() as db:
            upkeep.heartbeat(db, self.owner, self.now() + 300_000)

    def may_die(self) -> None:
        """A point at which a kill -9 may come."""
        if self.luck.random() < DIES:
            os.kill(os.getpid(), signal.SIGKILL)

    def through(self, number: int) -> bool:
        """Take a request as far as it goes; False while others hold what it needs."""
        one = request_id(number)
        refusal = self.admit(one, asking_of(number)).refusal
        if isinstance(refusal, Refusal):
            return refusal.used_up
        self.may_die()
        return self.called(one)

    def admit(self, one: str, asking: Asking) -> ledger.Admitted:
        """Ask the ledger to let it in."""
        with self.engine.begin() as db:
            entry = ledger.Admission(one, bytes(32), "acme", CENT, None, self.now(), b"", asking)
            return ledger.admit(db, [entry])[0]

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

    def settle(self) -> None:
        """Do the meter's part: settle every call that has ended."""
        with self.engine.begin() as db:
            open_calls = db.exec_driver_sql(
                "SELECT request_id, number, cost_nano FROM attempts WHERE NOT settled AND ended_at IS NOT NULL"
            ).all()
            settling.settle(db, [
                settling.Settlement(row[0], row[1], row[2], CENT, 100, "openai/gpt-5", self.now()) for row in open_calls
            ])  # fmt: skip


def main(url: str, seed: int, numbers: range) -> None:
    """Take all of them through, those that wait for room again and again."""
    racer = Racer(open_database(url), random.Random(seed))
    waiting = list(numbers)
    racer.luck.shuffle(waiting)
    while waiting:
        waiting = [number for number in waiting if not racer.through(number)]
        racer.settle()
    racer.settle()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))
