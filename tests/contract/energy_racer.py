"""One of several processes that race for a user's credits; otherwise like `tests.contract.limit_racer`."""

from __future__ import annotations

import asyncio

from config.database import reading
from config.energy_audit import balances
from core.accounts import path_of
from core.energy import EnergyPrice, Short
from core.limits import Amounts, Asking
from tests.contract.limit_racer import CENT, Racer

MODELS = (("openai/gpt-5", "powerful"), ("google/gemini-2.5-flash", "cheap"))
PRICES = (EnergyPrice(None, None, "powerful", 3), EnergyPrice(None, None, "cheap", 1))
USER = path_of("acme", None, "ana", None)[-1]


class EnergyRacer(Racer):
    """A worker that asks for the strong model first, and for the cheaper one where credits do not reach."""

    used_up = False

    async def through(self, number: int) -> bool:
        for first in range(len(MODELS)):
            models, tiers = zip(*MODELS[first:], strict=True)
            asking = Asking(path_of("acme", None, "ana", None), None, models, Amounts(CENT, 100), tiers)
            admitted = await self.admit(number, asking, self.now())
            if admitted.refusal is None:
                return await self.go_on(number)
            assert isinstance(admitted.refusal, Short)
        return self.used_up

    async def keep_once(self, own: set[str]) -> None:
        await super().keep_once(own)
        with reading(self.engine) as db:
            [balance] = balances(db, USER, self.now())
        # Then nothing comes back any more either.
        self.used_up = balance.left + balance.reserved == 0


def main(url: str, seed: int, numbers: range) -> None:
    """Take the requests of these numbers through."""
    asyncio.run(EnergyRacer(url, seed).take(numbers, 50))
