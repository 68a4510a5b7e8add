"""What a call costs, worked out from the price list alone, so that it can check others."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, TieredPrices

from local.simulator.calls import Tokens

NANO_PER_MILLION_TOKENS = Decimal(1_000)  # USD per million tokens = 1,000 nano-USD per token

#: Where to look for the price of each class, first found first.
FALLBACKS: dict[str, tuple[str, ...]] = {
    "input_uncached": ("input_mtok",),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "output_text": ("output_mtok",),
    "reasoning": ("output_reasoning_mtok", "output_mtok"),
    "output_audio": ("output_audio_mtok", "output_mtok"),
}


def cost_nano_usd(provider: str, model: str, tokens: Tokens) -> int | None:
    """The cost at today's prices, each class rounded half to even; None for a model or a class without a price."""
    prices = _prices(provider, model, datetime.now(UTC).date())
    if prices is None:
        return None
    total, read = 0, tokens.input_total
    for name, count in zip(Tokens._fields, tokens, strict=True):
        if count == 0:
            continue
        if (price := prices[name]) is None:
            return None
        nano = _tier(price, read) * NANO_PER_MILLION_TOKENS * count
        total += int(nano.to_integral_value(ROUND_HALF_EVEN))
    return total


@lru_cache(maxsize=10_000)
def _prices(provider: str, model: str, day: date) -> dict[str, Decimal | TieredPrices | None] | None:
    try:
        found: ModelPrice = calc_price(
            Usage(input_tokens=1, output_tokens=1), model, provider_id=provider,
            genai_request_timestamp=datetime.now(UTC),
        ).model_price  # fmt: skip
    except LookupError:
        return None
    return {
        name: next((price for key in keys if (price := getattr(found, key)) is not None), None)
        for name, keys in FALLBACKS.items()
    }


def _tier(price: Decimal | TieredPrices, read: int) -> Decimal:
    """The price for a prompt of this length: crossing a threshold moves all tokens to its price."""
    if isinstance(price, Decimal):
        return price
    reached = [tier for tier in price.tiers if read > tier.start]
    return Decimal(max(reached, key=lambda tier: tier.start).price if reached else price.base)
