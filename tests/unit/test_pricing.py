"""Costs are exact: every class at its price, rounded half to even, unknown never taken for zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from config.known_models import model_of
from config.prices import DEFAULT, OVERRIDE, Prices, price_on
from config.settings import SettingsError, settings_in
from core.pricing import (
    INPUT_CLASSES,
    OUTPUT_CLASSES,
    TOKEN_CLASSES,
    Price,
    Tier,
    cost_of,
    flat,
    nano_usd,
    total_cost,
    upper_bound,
)
from core.registry import Provider, Registry
from core.reply import NO_TOKENS
from tests.examples import request

DAY = (date(2026, 11, 1) - date(1970, 1, 1)).days


def price(**usd: str) -> Price:
    return Price({name: (Tier(0, Decimal(value)),) for name, value in usd.items()}, "test", DAY)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tokens", "usd_per_mtok", "nano"),
    [
        (1, "0.25", 250),
        (3, "0.0375", 112),
        (1, "0.0005", 0),
        (3, "0.0005", 2),
        (1_000_000, "15", 15_000_000_000),
        (0, "9", 0),
    ],
)
def test_a_class_costs_its_tokens_times_the_price_half_to_even(tokens: int, usd_per_mtok: str, nano: int) -> None:
    """Half a nano-dollar goes to the even neighbour, as Decimal and banks round."""
    assert nano_usd(tokens, Decimal(usd_per_mtok)) == nano


def test_classes_without_a_price_fall_back_as_documented() -> None:
    """Thinking is billed as output, cached input as input, when the model has no price for them."""
    cost = cost_of(
        {**NO_TOKENS, "cache_read": 10, "cache_write_5m": 10, "reasoning": 10},  # type: ignore[typeddict-item]
        price(input_uncached="1", output_text="4"),
    )
    assert (cost.by_class["cache_read"], cost.by_class["cache_write_5m"]) == (10_000, 10_000)
    assert (cost.by_class["reasoning"], cost.total) == (40_000, 60_000)


@pytest.mark.parametrize("dear", ["input_audio", "output_audio", "cache_write_1h"])
def test_what_is_dearer_than_its_neighbours_is_unpriced_without_a_price(dear: str) -> None:
    """Audio and hour-long cache writes are never charged as text or five minutes; none of them costs nothing."""
    found = price(input_uncached="1", output_text="4", cache_write_5m="2")
    some, none = ({**NO_TOKENS, "input_uncached": 10, dear: count} for count in (10, 0))
    assert (cost_of(some, found).total, cost_of(some, found).status) == (None, "unpriced")  # type: ignore[arg-type]
    assert cost_of(none, found).total == 10_000  # type: ignore[arg-type]


def test_zero_is_a_price_and_missing_is_not_zero() -> None:
    """Zero tokens and a zero price cost zero; no usage, or no price, costs an unknown amount, which is null."""
    zero = cost_of({**NO_TOKENS, "input_uncached": 0, "output_text": 7}, price(input_uncached="1", output_text="0"))  # type: ignore[typeddict-item]
    assert (zero.total, zero.status) == (0, "priced")
    assert zero.by_class["cache_read"] is None
    assert (cost_of(NO_TOKENS, price(input_uncached="1")).total, cost_of(NO_TOKENS, None).status) == (None, "unknown")
    unpriced = cost_of({**NO_TOKENS, "output_text": 7}, None)  # type: ignore[typeddict-item]
    assert (unpriced.total, unpriced.status) == (None, "unpriced")


def test_a_long_input_is_charged_at_the_higher_tier() -> None:
    """Gemini 2.5 Pro costs 1.25 and 10 USD a million tokens up to 200,000 input tokens, 2.50 and 15 above.

    Source: https://ai.google.dev/gemini-api/docs/pricing
    """
    gemini = price_on("google", "gemini-2.5-pro", DAY)
    short = cost_of({**NO_TOKENS, "input_uncached": 200_000, "output_text": 100}, gemini)  # type: ignore[typeddict-item]
    long = cost_of({**NO_TOKENS, "input_uncached": 150_000, "cache_read": 50_001, "output_text": 100}, gemini)  # type: ignore[typeddict-item]
    assert short.total == 200_000 * 1250 + 100 * 10_000
    assert long.total == 150_000 * 2500 + 50_001 * 250 + 100 * 15_000


def test_a_price_says_where_and_when_it_comes_from() -> None:
    """A fact can state the source and the day of its price."""
    found = price_on("openai", "gpt-5-mini", DAY)
    assert found is not None
    assert found.source.startswith("genai-prices ")
    assert found.day == DAY
    assert price_on("openai", "no-such-model", DAY) is None


def test_the_reservation_is_never_below_the_cost() -> None:
    """However the tokens fall into classes, a call within its limits costs at most what was reserved for it."""
    asked = request(prompt="Warum ist der Himmel blau? 🌤")
    text = len("Warum ist der Himmel blau? 🌤".encode())
    for provider, model in (("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")):
        found = price_on(provider, model, DAY)
        bound = upper_bound(asked, provider, model, 500, found)
        assert bound is not None
        for name in TOKEN_CLASSES:
            most = text if "input" in name or "cache" in name else 500
            cost = cost_of({**NO_TOKENS, name: most}, found)  # type: ignore[typeddict-item]
            assert (cost.total or 0) <= bound
            assert cost.status == "priced" or name in ("input_audio", "output_audio", "cache_write_1h")


def test_a_requests_cost_is_known_only_when_all_its_calls_are() -> None:
    """One call of unknown cost makes the request's cost null, and says so."""
    assert total_cost([(0, "not_charged"), (70, "priced")]) == (70, "priced")
    assert total_cost([(None, "unknown"), (70, "priced")]) == (None, "unknown")
    assert total_cost([(None, "unpriced")]) == (None, "unpriced")
    assert total_cost([]) == (0, "not_charged")


PROVIDER = Provider("openai", "openai")
INPUT, OUTPUT = "MILLSTREAM_DEFAULT_INPUT_USD_PER_MTOK", "MILLSTREAM_DEFAULT_OUTPUT_USD_PER_MTOK"


def test_the_default_price_is_for_what_has_no_other() -> None:
    """It stands behind the registry's prices and the price list, says that it is one, and is not there unless it is set."""
    default = settings_in({INPUT: "5", OUTPUT: "20.5"}).default_price
    assert default == flat(Decimal(5), Decimal("20.5"))
    free = replace(model_of(PROVIDER, "free"), price_override={"input_uncached": Decimal(0)})
    registry = Registry({"openai": PROVIDER}, (free,))
    prices = Prices(registry, default)
    sources = [
        found.source for name in ("free", "gpt-5-mini", "gpt-unpriced") if (found := prices.on("openai", name, DAY))
    ]
    assert sources == [OVERRIDE, price_on("openai", "gpt-5-mini", DAY).source, DEFAULT]  # type: ignore[union-attr]
    assert settings_in({}).default_price is None
    assert Prices(registry).on("openai", "gpt-unpriced", DAY) is None


@pytest.mark.parametrize("half", [{INPUT: "5"}, {OUTPUT: "5"}, {INPUT: "0", OUTPUT: "5"}, {INPUT: "5", OUTPUT: "-1"}])
def test_half_a_default_price_or_none_at_all_is_refused(half: dict[str, str]) -> None:
    """One side alone would charge nothing for the other, and so would zero: a model that is free has a price of its own."""
    with pytest.raises(SettingsError, match="MILLSTREAM_DEFAULT"):
        settings_in(half)


@pytest.mark.parametrize("read", INPUT_CLASSES)
@pytest.mark.parametrize("written", OUTPUT_CLASSES)
def test_at_one_price_a_side_no_class_costs_more_than_is_held(read: str, written: str) -> None:
    """Whatever classes a provider counts a request's tokens in, all have the price, and cost at most what was held for them."""
    asked = request("word " * 40)
    found = Price(flat(Decimal(5), Decimal(20)), DEFAULT, DAY)
    bound = upper_bound(asked, "openai", "gpt-unpriced", 50, found)
    assert bound is not None
    cost = cost_of({**NO_TOKENS, read: 200, written: 50}, found)  # type: ignore[typeddict-item]
    assert (cost.status, cost.total) == ("priced", 200 * 5_000 + 50 * 20_000)
    assert cost.total is not None and cost.total < bound
