"""The prices of models by date, from the `genai-prices` package and the registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import cast

from genai_prices import Usage, __version__, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from core.pricing import Price, Tier, Tiers, TokenClass
from core.registry import Registry

SOURCE = f"genai-prices {__version__}"
OVERRIDE = "registry"
DEFAULT = "default price"
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


GEMINI_AUDIO: tuple[tuple[TokenClass, TokenClass], ...] = (
    ("input_audio", "input_uncached"),
    ("output_audio", "output_text"),
)


def _tiers(price: Decimal | TieredPrices) -> tuple[Tier, ...]:
    if isinstance(price, TieredPrices):
        return (Tier(0, price.base), *(Tier(t.start, t.price) for t in sorted(price.tiers, key=lambda t: t.start)))
    return (Tier(0, price),)


@dataclass(frozen=True, slots=True)
class Correction:
    """Prices that stand on the provider's page and not in the package, in force until a day (None: still).

    `models` is a pattern of names such as `openai/o3`, as asked for or as the package calls the model.
    """

    models: str
    prices: dict[TokenClass, tuple[Tier, ...]]
    until: date | None = None


def _flat(usd_per_mtok: str) -> tuple[Tier, ...]:
    return (Tier(0, Decimal(usd_per_mtok)),)


def _long(tokens: int, up_to: str, above: str) -> tuple[Tier, ...]:
    return (Tier(0, Decimal(up_to)), Tier(tokens, Decimal(above)))


#: Each is shown by a case in tests/golden, which names its source.
CORRECTIONS = (
    Correction("openai/gpt-4o-audio-preview", {"input_audio": _flat("40"), "output_audio": _flat("80")}),
    Correction("openai/gpt-4o-mini-audio-preview", {"input_audio": _flat("10"), "output_audio": _flat("20")}),
    Correction("openai/o3", {"cache_read": _flat("2.5")}, date(2025, 6, 10)),
    Correction(
        "anthropic/claude-sonnet-4-0",
        {
            "input_uncached": _long(200_000, "3", "6"), "cache_read": _long(200_000, "0.3", "0.6"),
            "cache_write_5m": _long(200_000, "3.75", "7.5"), "cache_write_1h": _long(200_000, "6", "12"),
            "output_text": _long(200_000, "15", "22.5"),
        },
    ),
    Correction("anthropic/claude-sonnet-5-5", {"cache_read": _flat("0.2")}, date(2026, 10, 7)),
    Correction(
        "google/gemini-1.5-flash-8b*",
        {
            "input_uncached": _long(128_000, "0.0375", "0.075"), "input_audio": _long(128_000, "0.0375", "0.075"),
            "cache_read": _long(128_000, "0.01", "0.02"), "output_text": _long(128_000, "0.15", "0.3"),
        },
    ),
)  # fmt: skip


def _corrected(names: tuple[str, str], day: date) -> dict[TokenClass, tuple[Tier, ...]]:
    """The corrections for a model on a day."""
    return {
        name: price
        for correction in CORRECTIONS
        if any(fnmatchcase(name, correction.models) for name in names)
        and (correction.until is None or day < correction.until)
        for name, price in correction.prices.items()
    }


@lru_cache(maxsize=10_000)
def price_on(provider: str, model: str, day: int) -> Price | None:
    """A model's price on a day (counted from 1970-01-01), or None when the package does not know the model."""
    noon = datetime.combine(EPOCH + timedelta(days=day), datetime.min.time(), UTC) + timedelta(hours=12)
    try:
        found = calc_price(Usage(), model, provider_id=provider, genai_request_timestamp=noon)
    except LookupError:
        return None
    prices = {name: getattr(found.model_price, key, None) for name, key in PRICE_KEYS.items()}
    tiers = {name: _tiers(price) for name, price in prices.items() if price is not None}
    if provider == "google":
        # Gemini's page names audio only where it has a price of its own: https://ai.google.dev/gemini-api/docs/pricing
        for audio, text in GEMINI_AUDIO:
            if text in tiers:
                tiers.setdefault(audio, tiers[text])
    corrections = _corrected((f"{provider}/{found.model.id}", f"{provider}/{model}"), noon.date())
    return Price(tiers | corrections, f"{SOURCE}, corrected" if corrections else SOURCE, day)


@lru_cache(maxsize=1)
def _priced_models() -> dict[str, list[str]]:
    return {provider.id: [model.id for model in provider.models] for provider in get_snapshot().providers}


def priced_models(kind: str) -> tuple[str, ...]:
    """The names of the models that the price list has for a kind of provider."""
    return tuple(_priced_models().get(kind, ()))


class Prices:
    """The prices of models as a registry has them: its overrides, else those of the price list for the provider's kind.

    What neither has is charged by `default`, where there is one.
    """

    def __init__(self, registry: Registry, default: Tiers | None = None) -> None:
        self._default = default
        self._kinds = {provider.name: provider.kind for provider in registry.providers.values()}
        self._overrides = {
            (model.provider, model.name): {
                cast(TokenClass, name): (Tier(0, usd),) for name, usd in model.price_override.items()
            }
            for model in registry.models
            if model.price_override is not None
        }

    def kind(self, provider: str) -> str:
        """The API that a provider speaks."""
        return self._kinds.get(provider, provider)

    def on(self, provider: str, model: str, day: int) -> Price | None:
        """A model's price on a day (counted from 1970-01-01), None where nobody knows it."""
        if (override := self._overrides.get((provider, model))) is not None:
            return Price(override, OVERRIDE, day)
        found = price_on(self.kind(provider), model, day)
        return Price(self._default, DEFAULT, day) if found is None and self._default is not None else found
