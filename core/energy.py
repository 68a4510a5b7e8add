"""Energy: what requests cost in credits, and the credits of users, moved in double entries.

Credits are whole numbers. Every movement takes from one book what it gives to another, so all entries sum to zero at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

from core.errors import error
from core.registry import Tier
from schemas.events import Error

Kind = Literal["grant", "reserve", "consume", "refund", "expire"]
Book = Literal["issued", "left", "reserved", "consumed", "expired"]
#: From which book to which one a kind of movement goes.
MOVES: dict[Kind, tuple[Book, Book]] = {
    "grant": ("issued", "left"),
    "reserve": ("left", "reserved"),
    "consume": ("reserved", "consumed"),
    "refund": ("reserved", "left"),
    "expire": ("left", "expired"),
}
#: Credits of one grant, by the grant's id.
Piece = tuple[str, int]


@dataclass(frozen=True, slots=True)
class EnergyPrice:
    """What an answered request costs where its task and the model that answers fit; None fits all.

    `task` and `model` (as `provider/model`) may hold `*` for any characters; a `tier` stands in place of a model.
    """

    task: str | None
    model: str | None
    tier: Tier | None
    credits: int

    def fits(self, task: str | None, model: str, tier: str) -> bool:
        """Whether it is the price, where no narrower one is."""
        return (
            (self.task is None or fnmatchcase(task or "", self.task))
            and (self.model is None or fnmatchcase(model, self.model))
            and (self.tier is None or tier == self.tier)
        )

    @property
    def narrowness(self) -> tuple[int, ...]:
        """Of several prices that fit, the greatest of these holds: the task counts first, and a name before a pattern."""
        task, model = self.task or "", self.model or ""
        by_model = (3 if "*" not in model else 2) if model else int(self.tier is not None)
        return (2 if "*" not in task else 1) if task else 0, len(task), by_model, len(model)

    @property
    def scope(self) -> str:
        """What it is the price of, in words that no other price has."""
        named = (("task", self.task), ("model", self.model), ("tier", self.tier))
        return " ".join(f"{word} {value}" for word, value in named if value is not None) or "everything"


@dataclass(frozen=True)
class PriceList:
    """All prices of a deployment, as of a version of its registry; `narrow_first` in the order in which they are looked at."""

    version: int = 0
    prices: Sequence[EnergyPrice] = ()
    narrow_first: list[EnergyPrice] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.prices, key=lambda price: (price.narrowness, price.scope), reverse=True)
        object.__setattr__(self, "narrow_first", ordered)

    def costs(self, task: str | None, models: Sequence[str], tiers: Sequence[str]) -> tuple[int, ...]:
        """What an answer of each of these models costs; nothing where there is no price."""
        return tuple(
            next((price.credits for price in self.narrow_first if price.fits(task, model, tier)), 0)
            for model, tier in zip(models, tiers, strict=False)
        )


@dataclass(frozen=True, slots=True)
class Short:
    """Why a request is not admitted as it is planned: a candidate costs more than its user has left.

    `account` is None for a request that names no user; `costs` are by the place of the candidate.
    """

    account: str | None
    left: int
    costs: tuple[int, ...]

    @property
    def too_dear(self) -> dict[int, str]:
        """Why each candidate that cannot be paid for is dropped, by its place."""
        whose = "the request names no user" if self.account is None else f"{self.account} has {self.left:,} left"
        return {
            place: f"it costs {credits_shown(cost)} and {whose}"
            for place, cost in enumerate(self.costs)
            if cost > self.left
        }

    @property
    def error(self) -> Error:
        """What the caller is told where no candidate is left."""
        least = credits_shown(min(self.costs))
        if self.account is None:
            said = f"An answer costs at least {least} of a user's energy, and the request names no user; name one."
        else:
            said = (
                f"An answer costs at least {least} and account {self.account} has {self.left:,} left; grant it more, or ask "
                "for a task or model that costs less."
            )
        return error("policy_energy_exhausted", said)


def credits_shown(credits: int) -> str:
    """Credits for people: `1 credit`, `1,000 credits`."""
    return f"{credits:,} credit{'' if credits == 1 else 's'}"


@lru_cache(maxsize=10_000)
def user_of(path: tuple[str, ...]) -> str | None:
    """The user's account among those that a request is charged to, which is the one that has energy."""
    return next((each for each in path if each[1:].partition("/")[2].startswith("user:")), None)


def taken(left: Iterable[Piece], credits: int) -> list[Piece]:
    """So many credits out of what is left of grants, the first of them first; there have to be as many."""
    pieces: list[Piece] = []
    for grant, there in left:
        if credits <= 0:
            break
        if there > 0:
            pieces.append((grant, min(there, credits)))
            credits -= there
    if credits > 0:
        raise ValueError(f"{credits_shown(credits)} more were asked for than are left.")
    return pieces


def divided(pieces: Sequence[Piece], credits: int) -> tuple[list[Piece], list[Piece]]:
    """What is consumed of reserved pieces when so many credits are, never more than there are, and what goes back."""
    consumed = taken(pieces, min(credits, sum(amount for _, amount in pieces)))
    used = dict(consumed)
    back = [(grant, amount - used.get(grant, 0)) for grant, amount in pieces]
    return consumed, [piece for piece in back if piece[1]]
