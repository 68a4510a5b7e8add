"""The models that are known without anybody registering them: those of the price list, described by `models.yaml`, and patterns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast, get_args

import yaml
from genai_prices import Usage, calc_price

from config.prices import price_on, priced_models
from core.registry import Capability, Model, Provider, Tier

#: USD per million tokens of output up to which a model of no known family counts as cheap, and as balanced.
CHEAP_UP_TO = 3
BALANCED_UP_TO = 9
DAY_SECONDS = 86_400
EVERYTHING: frozenset[Capability] = frozenset(get_args(Capability))


@dataclass(frozen=True, slots=True)
class _Family:
    match: str
    capabilities: frozenset[Capability]
    tier: Tier | None = None
    context_tokens: int | None = None


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    shipped: dict[str, dict[str, Any]] = yaml.safe_load((files("config") / "models.yaml").read_text(encoding="utf-8"))
    return shipped


@lru_cache(maxsize=1)
def _families() -> dict[str, tuple[tuple[str, ...], tuple[_Family, ...]]]:
    """By kind: the patterns of models left out, and the families."""
    return {
        kind: (
            tuple(part.get("left_out", ())),
            tuple(
                _Family(**{**family, "capabilities": frozenset(family["capabilities"])}) for family in part["families"]
            ),
        )
        for kind, part in _shipped().items()
    }


@lru_cache(maxsize=10_000)
def _described(kind: str, name: str) -> tuple[frozenset[Capability], int | None, Tier]:
    _, families = _families().get(kind, ((), ()))
    family = next((f for f in families if fnmatchcase(name, f.match)), _Family("*", frozenset({"text"})))
    return family.capabilities, family.context_tokens or _context(kind, name), family.tier or _tier_by_price(kind, name)


@lru_cache(maxsize=10_000)
def _is_left_out(kind: str, name: str) -> bool:
    left_out, _ = _families().get(kind, ((), ()))
    return any(fnmatchcase(name, pattern) for pattern in left_out)


def _base(name: str) -> str:
    """The model that a fine-tuned one was made of, where its name says it, else itself.

    OpenAI writes `ft:gpt-4o-2024-08-06:org::id` (https://platform.openai.com/docs/guides/fine-tuning), Azure
    `gpt-4o-2024-08-06.ft-id`.
    """
    return name.split(":")[1] if name.startswith("ft:") else name.partition(".ft-")[0]


def model_of(provider: Provider, name: str, aliases: tuple[str, ...] = ()) -> Model:
    """What is known of a model by its name at a provider, also of one that no list has: then by its kind's last family."""
    capabilities, context_tokens, tier = _described(provider.kind, _base(name))
    return Model(provider.name, name, aliases, capabilities, context_tokens, tier)


def models_at(provider: Provider) -> list[Model]:
    """The models of the price list that the provider's kind answers with, by name; none that an account has tuned for itself."""
    return [
        model_of(provider, name)
        for name in sorted(priced_models(provider.kind))
        if name == _base(name) and not _is_left_out(provider.kind, name)
    ]


class Catalogue:
    """The models that can be asked for at some providers: those of the price list, and what the settings' patterns fit.

    `patterns` are by the providers' kinds, as the price list is.
    """

    def __init__(self, providers: Iterable[Provider], patterns: Mapping[str, Sequence[str]]) -> None:
        self._providers = {one.name: (one, tuple(patterns.get(one.kind, ()))) for one in providers}

    def model(self, provider: str, name: str, day: int) -> Model | None:
        """What is known of a model on a day (counted from 1970-01-01), None of one that may not be called.

        Of one that nothing but a pattern knows every capability is assumed.
        """
        at, patterns = self._providers.get(provider, (None, ()))
        if at is None or not name or _is_left_out(at.kind, base := _base(name)):
            return None
        if price_on(at.kind, name, day) is None and not any(fnmatchcase(name, pattern) for pattern in patterns):
            return None
        return model_of(at, name) if price_on(at.kind, base, day) else Model(provider, name, capabilities=EVERYTHING)

    def nearest(self, asked: str) -> list[str]:
        """Up to three known names that look like `asked`, as `provider/model`, the likeliest first."""
        names = [model.full_name for at, _ in self._providers.values() for model in models_at(at)]
        names += [f"{name}/{m}" for name, (_, patterns) in self._providers.items() for m in patterns if "*" not in m]
        names += [f"{name}/…" for name, (_, patterns) in self._providers.items() if "*" in patterns]
        return difflib.get_close_matches(asked, names, n=3, cutoff=0.5)


def cheap_model(kind: str) -> str | None:
    """A cheap model of a kind of provider, None where its models are not known here."""
    name: str | None = _shipped().get(kind, {}).get("cheap_model")
    return name


def _context(kind: str, name: str) -> int | None:
    try:
        window = calc_price(Usage(), name, provider_id=kind).model.context_window
    except LookupError:
        return None
    return cast(int | None, window)


def _tier_by_price(kind: str, name: str) -> Tier:
    price = price_on(kind, name, int(datetime.now(UTC).timestamp()) // DAY_SECONDS)
    usd = None if price is None else price.usd_per_mtok("output_text", 0)
    if usd is None:
        return "balanced"
    return "cheap" if usd <= CHEAP_UP_TO else "balanced" if usd <= BALANCED_UP_TO else "powerful"
