"""What a provider call costs, exactly, in integers of nano-USD (1 USD = 1,000,000,000 nano-USD).

A class of tokens costs its count times the model's price for that class, rounded half to even to a whole nano-USD; the call
costs the sum of its classes. A class without a price of its own is charged as `FALLBACK` says, which is how the providers'
price pages read: thinking is billed as output, what is read from a cache or written to it without a price as plain input.
Audio and writes of an hour are dearer than what stands beside them, so without a price of their own they are unpriced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal, cast

from core.bounds import media_tokens, text_tokens
from core.errors import error
from schemas.events import Costs, CostStatus, Error, LlmRequest, Tokens

TokenClass = Literal[
    "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h",
    "input_audio", "output_text", "reasoning", "output_audio",
]  # fmt: skip
INPUT_CLASSES: tuple[TokenClass, ...] = (
    "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio",
)  # fmt: skip
OUTPUT_CLASSES: tuple[TokenClass, ...] = ("output_text", "reasoning", "output_audio")
TOKEN_CLASSES: tuple[TokenClass, ...] = (*INPUT_CLASSES, *OUTPUT_CLASSES)

FALLBACK: dict[TokenClass, TokenClass] = {
    "cache_read": "input_uncached",
    "cache_write_5m": "input_uncached",
    "reasoning": "output_text",
}

#: Nano-USD per token for one USD per million tokens.
NANO_PER_TOKEN = 1_000
NO_COST = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tier:
    """From more than `above` input tokens on, a million tokens cost `usd_per_mtok`."""

    above: int
    usd_per_mtok: Decimal


#: The prices of the classes that have any, each in rising order, the first above 0.
Tiers = Mapping[TokenClass, tuple[Tier, ...]]


def flat(input_usd_per_mtok: Decimal, output_usd_per_mtok: Decimal) -> Tiers:
    """One price for every class of input, and one for every class of output."""
    sides = (INPUT_CLASSES, input_usd_per_mtok), (OUTPUT_CLASSES, output_usd_per_mtok)
    return {name: (Tier(0, usd),) for names, usd in sides for name in names}


@dataclass(frozen=True, slots=True)
class Price:
    """A model's prices on a day, counted from 1970-01-01, and where they came from."""

    tiers: Tiers
    source: str
    day: int

    def usd_per_mtok(self, token_class: TokenClass, input_tokens: int) -> Decimal | None:
        """The price that applies to a class in a call with this many input tokens; None where there is none."""
        wanted: TokenClass | None = token_class
        while wanted is not None:
            if tiers := self.tiers.get(wanted):
                return next((t.usd_per_mtok for t in reversed(tiers) if input_tokens > t.above), tiers[0].usd_per_mtok)
            wanted = FALLBACK.get(wanted)
        return None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one call: by class, in total (None when not known), and how far it is known."""

    by_class: Costs
    total: int | None
    status: CostStatus


def _costs(amounts: Mapping[TokenClass, int | None]) -> Costs:
    return cast(Costs, {name: amounts.get(name) for name in TOKEN_CLASSES})


NOTHING_CHARGED = Cost(_costs({}), 0, "not_charged")
NOT_KNOWN = Cost(_costs({}), None, "unknown")


def cost_of(tokens: Tokens, price: Price | None) -> Cost:
    """What these tokens cost at this price; `unknown` where no class was reported, `unpriced` where a price is missing."""
    reported = {name: count for name in TOKEN_CLASSES if (count := tokens[name]) is not None}
    if not reported:
        return NOT_KNOWN
    if price is None:
        return Cost(_costs({}), None, "unpriced")
    input_tokens = sum(reported.get(name, 0) for name in INPUT_CLASSES)
    amounts: dict[TokenClass, int | None] = {}
    for name, count in reported.items():
        per_mtok = price.usd_per_mtok(name, input_tokens)
        if per_mtok is None and count:
            return Cost(_costs({}), None, "unpriced")
        amounts[name] = nano_usd(count, per_mtok or Decimal(0))
    return Cost(_costs(amounts), sum(amount or 0 for amount in amounts.values()), "priced")


def nano_usd(tokens: int, usd_per_mtok: Decimal) -> int:
    """Tokens at a price per million, in whole nano-USD, half to even."""
    return int((tokens * usd_per_mtok * NANO_PER_TOKEN).to_integral_value(ROUND_HALF_EVEN))


def upper_bound(
    request: LlmRequest,
    kind: str,
    model: str,
    max_output_tokens: int,
    price: Price | None,
    context_tokens: int | None = None,
    reread_tokens: int = 0,
) -> int | None:
    """The most that one call for this request can cost at a provider of this kind, in nano-USD; None without a price.

    The dearest input and output class of the model are taken. `reread_tokens` are those that a call to repair the answer
    reads beside the request: the answer, and what is wrong with it. ValueError where nothing bounds the request's media, which
    `unbounded_by` refuses.
    """
    if price is None:
        return None
    media = media_tokens(request, kind, model, context_tokens)
    if media is None:
        raise ValueError(f"No bound is known for the media of request {request['request_id']} at {kind}/{model}.")
    input_tokens = text_tokens(request) + media + reread_tokens
    # What has no price of its own costs what another class does.
    prices = {name: price.usd_per_mtok(name, input_tokens) or NO_COST for name in price.tiers}
    dearest_in = max((prices[name] for name in INPUT_CLASSES if name in prices), default=NO_COST)
    dearest_out = max((prices[name] for name in OUTPUT_CLASSES if name in prices), default=NO_COST)
    return nano_usd(input_tokens, dearest_in) + nano_usd(max_output_tokens, dearest_out)


def unbounded_by(
    request: LlmRequest,
    provider: str,
    kind: str,
    model: str,
    price: Price | None,
    context_tokens: int | None = None,
) -> Error | None:
    """Why nothing can be reserved for a request at a priced model, as its caller's error; None where something can.

    Without a price nothing is reserved, and nothing refused.
    """
    if price is None:
        return None
    media = {part["type"] for message in request["messages"] for part in message["content"]} & {
        "image",
        "audio",
        "file",
    }
    if media_tokens(request, kind, model, context_tokens) is None:
        what = f"The cost of content of type {' or '.join(sorted(media))} has no known bound with {provider}/{model}"
    elif "audio" in media and price.usd_per_mtok("input_audio", 0) is None:
        what = f"Content of type audio has no price with {provider}/{model}"
    else:
        return None
    return error("caller_unsupported_feature", f"{what}; leave it out or ask for another model.")


def total_cost(costs: list[tuple[int | None, CostStatus]]) -> tuple[int | None, CostStatus]:
    """The cost of a request from those of its calls: their sum, None as soon as one is not known."""
    if any(amount is None for amount, _ in costs):
        return None, "unknown" if any(status == "unknown" for _, status in costs) else "unpriced"
    priced = any(status == "priced" for _, status in costs)
    return sum(amount or 0 for amount, _ in costs), "priced" if priced else "not_charged"
