"""What answers cost in credits, and how credits are divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.accounts import path_of
from core.energy import MOVES, EnergyPrice, PriceList, Short, divided, taken, user_of

PIECES = st.lists(st.integers(0, 50), max_size=6).map(lambda left: [(f"g{n}", each) for n, each in enumerate(left)])


def costs(*prices: EnergyPrice, task: str | None = "draft_cv") -> tuple[int, ...]:
    return PriceList(0, prices).costs(task, ("openai/gpt-5", "google/flash"), ("powerful", "cheap"))


def test_the_narrowest_price_holds() -> None:
    """A task before a pattern of tasks before none, then a model before a pattern before a tier; without a price, nothing."""
    assert costs() == (0, 0)
    everything = EnergyPrice(None, None, None, 1)
    powerful = EnergyPrice(None, None, "powerful", 2)
    models = EnergyPrice(None, "openai/*", None, 3)
    model = EnergyPrice(None, "openai/gpt-5", None, 4)
    tasks = EnergyPrice("draft_*", None, None, 5)
    task = EnergyPrice("draft_cv", None, None, 6)
    free = EnergyPrice("draft_cv", None, "cheap", 0)
    known: list[EnergyPrice] = []
    for price, held in ((everything, (1, 1)), (powerful, (2, 1)), (models, (3, 1)), (model, (4, 1)), (tasks, (5, 5)),
                        (task, (6, 6)), (free, (6, 0))):  # fmt: skip
        known.insert(0, price)
        assert costs(*known) == costs(*reversed(known)) == held
    assert costs(*known, task=None) == (4, 1)


def test_a_user_pays_and_nobody_else_does() -> None:
    """Of the accounts of a request the user's is charged, also where names hold signs that paths are made of."""
    assert user_of(path_of("acme", "search", "ana", "k1")) == "/acme/user:ana"
    assert user_of(path_of("a/user:b", "user:x", None, None)) is None
    assert user_of(path_of("a", None, "key:b/c", None)) == "/a/user:key:b%2Fc"


def test_whoever_is_refused_hears_what_is_left() -> None:
    """The error names the account, what is left and the least that an answer costs; a request without a user is told so."""
    failure = Short("/acme/user:ana", 2, (5, 3)).error
    assert (failure["code"], failure["retryable"]) == ("policy_energy_exhausted", False)
    assert "at least 3 credits and account /acme/user:ana has 2 left" in failure["message"]
    assert Short("/acme/user:ana", 3, (5, 3)).too_dear == {0: "it costs 5 credits and /acme/user:ana has 3 left"}
    assert "names no user" in Short(None, 0, (1,)).error["message"]


@given(PIECES, st.integers(0, 400))
def test_credits_are_divided_without_a_rest(pieces: list[tuple[str, int]], credits: int) -> None:
    """What is consumed and what goes back are what there was, of every grant; no more is consumed than there was or asked for."""
    consumed, back = divided(pieces, credits)
    there = sum(amount for _, amount in pieces)
    assert sum(amount for _, amount in consumed) == min(credits, there)
    for grant, amount in pieces:
        assert sum(part for of, part in (*consumed, *back) if of == grant) == amount
    assert all(amount > 0 for _, amount in (*consumed, *back))
    if credits > there:
        with pytest.raises(ValueError, match="more were asked for"):
            taken(pieces, credits)


def test_every_movement_takes_what_it_gives() -> None:
    """No kind of movement ends where it begins, and credits only come from grants and go to what is consumed or expired."""
    assert all(loses != gains for loses, gains in MOVES.values())
    lost, gained = ({move[side] for move in MOVES.values()} for side in (0, 1))
    assert (lost - gained, gained - lost) == ({"issued"}, {"consumed", "expired"})
