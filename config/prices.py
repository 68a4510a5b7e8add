"""The prices of models by date, and which models are known, from the `genai-prices` package and the settings."""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache

from genai_prices import Usage, __version__, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from core.pricing import Price, Tier, TokenClass

SOURCE = f"genai-prices {__version__}"
EPOCH = date(1970, 1, 1)

#: The package's name of the price of each of our token classes.
PRICE_KEYS: dict[TokenClass, str] = {
    "input_uncached": "input_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "output_text": "output_mtok",
    "output_audio": "output_audio_mtok",
}


def _tiers(price: Decimal | TieredPrices) -> tuple[Tier, ...]:
    if isinstance(price, TieredPrices):
        return (Tier(0, price.base), *(Tier(t.start, t.price) for t in sorted(price.tiers, key=lambda t: t.start)))
    return (Tier(0, price),)


@lru_cache(maxsize=10_000)
def price_on(provider: str, model: str, day: int) -> Price | None:
    """A model's price on a day (counted from 1970-01-01), or None when the package does not know the model."""
    noon = datetime.combine(EPOCH + timedelta(days=day), datetime.min.time(), UTC) + timedelta(hours=12)
    try:
        found = calc_price(Usage(), model, provider_id=provider, genai_request_timestamp=noon)
    except LookupError:
        return None
    prices = {name: getattr(found.model_price, key, None) for name, key in PRICE_KEYS.items()}
    return Price({name: _tiers(price) for name, price in prices.items() if price is not None}, SOURCE, day)


@lru_cache(maxsize=1)
def _priced_models() -> dict[str, list[str]]:
    return {provider.id: [model.id for model in provider.models] for provider in get_snapshot().providers}


class Catalogue:
    """The models that can be asked for: every priced model of the providers served, and the patterns of the settings."""

    def __init__(self, providers: tuple[str, ...], patterns: dict[str, list[str]]) -> None:
        self._providers = providers
        self._patterns = patterns

    def knows(self, provider: str, model: str, day: int) -> bool:
        """Whether a call for the model may be made."""
        if provider not in self._providers or not model:
            return False
        if any(fnmatchcase(model, pattern) for pattern in self._patterns.get(provider, ())):
            return True
        return price_on(provider, model, day) is not None

    def nearest(self, asked: str) -> list[str]:
        """Up to three known names that look like `asked`, as `provider/model`, the likeliest first."""
        names = [f"{p}/{m}" for p in self._providers for m in _priced_models().get(p, ())]
        names += [f"{p}/{m}" for p in self._providers for m in self._patterns.get(p, ()) if "*" not in m]
        names += [f"{p}/…" for p in self._providers if "*" in self._patterns.get(p, ())]
        return difflib.get_close_matches(asked, names, n=3, cutoff=0.5)
