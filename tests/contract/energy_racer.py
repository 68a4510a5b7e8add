"""One of several processes that race for a user's credits; otherwise like `tests.contract.limit_racer`.

`python -m tests.contract.energy_racer URL SEED FIRST LAST` works on the requests of these numbers; run again after it was
killed, it goes on where it was.
"""

from __future__ import annotations

import sys
import time

from config.database import open_database, reading
from config.energy_audit import balances
from core.accounts import path_of
from core.energy import EnergyPrice, Short
from core.limits import Amounts, Asking
from tests.contract.limit_racer import CENT, Racer, request_id

MODELS = (("openai/gpt-5", "powerful"), ("google/gemini-2.5-flash", "cheap"))
PRICES = (EnergyPrice(None, None, "powerful", 3), EnergyPrice(None, None, "cheap", 1))
USER = path_of("acme", None, "ana", None)[-1]


class EnergyRacer(Racer):
    """A worker that asks for the strong model first, and for the cheaper one where credits do not reach."""

    def through(self, number: int) -> bool:
        one = request_id(number)
        for first in range(len(MODELS)):
            models, tiers = zip(*MODELS[first:], strict=True)
            asking = Asking(path_of("acme", None, "ana", None), None, models, Amounts(CENT, 100), tiers)
            refusal = self.admit(one, asking, self.now()).refusal
            if refusal is None:
                self.may_die()
                return self.called(one)
            assert isinstance(refusal, Short)
        return self.used_up()

    def used_up(self) -> bool:
        """Whether nothing comes back any more either."""
        with reading(self.engine) as db:
            [balance] = balances(db, USER, self.now())
        time.sleep(0.005)
        return balance.left + balance.reserved == 0


def main(url: str, seed: int, numbers: range) -> None:
    """Take all of them through, those that wait for credits again and again."""
    racer = EnergyRacer(open_database(url), seed)
    waiting = list(numbers)
    racer.luck.shuffle(waiting)
    while waiting:
        waiting = [number for number in waiting if not racer.through(number)]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))
