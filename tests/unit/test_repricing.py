"""Adjustments: signed differences to another price, made once, and only where the price says what the call costs."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any, cast

import pytest

from cli.errors import CommandError
from cli.reprice import price_given
from core.facts import NO_PRICE
from core.pricing import TOKEN_CLASSES, Price, Tier, TokenClass
from core.repricing import Charged, adjustment, can_be_repriced
from schemas.codec import Codec
from tests.stack.sink_world import usage


def price(**usd_per_mtok: str) -> Price:
    """A flat price of today."""
    tiers = {cast(TokenClass, name): (Tier(0, Decimal(usd)),) for name, usd in usd_per_mtok.items()}
    return Price(tiers, "given", 20_800)


def charged(cost: int | None = 2_000, adjustments: int = 0, **changes: Any) -> Charged:
    """A call of 1,000 input tokens, with this cost all on its input."""
    tokens = dict.fromkeys(TOKEN_CLASSES) | {"input_uncached": 1_000}
    costs = dict.fromkeys(TOKEN_CLASSES) | {"input_uncached": cost}
    status = "unpriced" if cost is None else "priced"
    fact = usage(random.Random(1), tokens=tokens, costs=costs, cost_nano_usd=cost, **{"cost_status": status, **changes})
    return Charged(cast(Any, fact), cast(Any, costs), cost, adjustments)


@pytest.mark.parametrize(("usd", "difference"), [("0.003", 1_000), ("0.001", -1_000), ("0", -2_000)])
def test_the_difference_is_signed(usd: str, difference: int) -> None:
    """Dearer adds, cheaper takes away, free takes all; the event has no tokens, its call's dimensions, and can be encoded."""
    before = charged()
    event = adjustment(before, price(input_uncached=usd))
    assert event is not None
    assert (event["cost_nano_usd"], event["costs"]["input_uncached"], event["costs"]["output_text"]) == (
        difference, difference, None,
    )  # fmt: skip
    assert set(event["tokens"].values()) == {None}
    assert (event["adjusts"], event["created_at"]) == (before.usage["attempt_id"], before.usage["created_at"])
    assert (event["price_source"], event["price_date"], event["reserved_nano_usd"]) == ("given", 20_800, None)
    assert Codec().decode("LlmUsage", Codec().encode("LlmUsage", event)) == event


def test_the_same_price_changes_nothing() -> None:
    """A call that stands at the price gets no event; the next adjustment has another id, the same one has the same."""
    assert adjustment(charged(), price(input_uncached="0.002")) is None
    events = [adjustment(charged(adjustments=n), price(input_uncached="0.003")) for n in (0, 0, 1)]
    ids = [event["attempt_id"] for event in events if event is not None]
    assert ids[0] == ids[1] != ids[2]


def test_an_unpriced_call_gets_its_full_cost_and_frees_its_bound() -> None:
    """Where nothing was charged yet the difference is the cost, zero included."""
    event = adjustment(charged(None), price(input_uncached="0.002"))
    assert event is not None and (event["cost_nano_usd"], event["reserved_nano_usd"]) == (2_000, -10)
    free = adjustment(charged(None), price(input_uncached="0"))
    assert free is not None and free["cost_nano_usd"] == 0


def test_what_a_price_cannot_say_is_left() -> None:
    """Unknown tokens, calls that were free, terms without a list price, and classes without a price stay as they are."""
    assert can_be_repriced(charged(), price(input_uncached="1"), False)
    assert not can_be_repriced(charged(), None, False)
    assert not can_be_repriced(charged(), price(output_text="1"), False)
    assert not can_be_repriced(charged(cost_status="unknown"), price(input_uncached="1"), False)
    assert not can_be_repriced(charged(0, cost_status="not_charged"), price(input_uncached="1"), False)
    on_terms = charged(None, price_source=f"{NO_PRICE}batch")
    assert not can_be_repriced(on_terms, price(input_uncached="1"), False)
    assert can_be_repriced(on_terms, price(input_uncached="1"), True)


def test_a_price_is_given_by_class() -> None:
    """Short names stand for classes; anything else is refused with the classes there are."""
    given = price_given("input=0.25, output=2.0", 20_800)
    assert given.tiers == {"input_uncached": (Tier(0, Decimal("0.25")),), "output_text": (Tier(0, Decimal("2.0")),)}
    for wrong in ("input", "input=-1", "words=1", "input=1e9", ""):
        with pytest.raises(CommandError, match="Classes: "):
            price_given(wrong, 20_800)
