"""What another price changes about a call that was made: a signed adjustment beside the fact, never another fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from core.facts import NO_PRICE
from core.ids import derived
from core.pricing import TOKEN_CLASSES, Price, cost_of
from core.reply import NO_TOKENS
from schemas.events import Costs, LlmUsage


@dataclass(frozen=True, slots=True)
class Charged:
    """A call's usage event, and what it is charged by now: its own cost and all adjustments of it.

    `cost` is None while nobody knows it; `adjustments` counts those made so far.
    """

    usage: LlmUsage
    costs: Costs
    cost: int | None
    adjustments: int


def can_be_repriced(charged: Charged, price: Price | None, given: bool) -> bool:
    """Whether a price says what the call costs: its tokens are known and charged for, on the terms that the price is for.

    A call on other terms (a batch tier, say) has a price only where one is `given` for it.
    """
    usage = charged.usage
    if price is None or usage["cost_status"] not in ("priced", "unpriced"):
        return False
    if (usage["price_source"] or "").startswith(NO_PRICE) and not given:
        return False
    return cost_of(usage["tokens"], price).total is not None


def adjustment(charged: Charged, price: Price) -> LlmUsage | None:
    """The event that brings a call's cost to this price; None where it stands there.

    Its id is that of the call's n-th adjustment, so that of two made at once only one counts. It keeps the call's times and
    dimensions, so that it is summed where the call is.
    """
    usage = charged.usage
    new = cost_of(usage["tokens"], price)
    old_costs, new_costs = cast(dict[str, int | None], charged.costs), cast(dict[str, int | None], new.by_class)
    differences = {
        name: None
        if old_costs[name] is None and new_costs[name] is None
        else (new_costs[name] or 0) - (old_costs[name] or 0)
        for name in TOKEN_CLASSES
    }
    if charged.cost is not None and charged.cost == new.total and not any(differences.values()):
        return None
    freed = usage["reserved_nano_usd"] if charged.cost is None else None
    event: dict[str, Any] = {
        **usage,
        "attempt_id": derived(usage["attempt_id"], f"adjustment:{charged.adjustments + 1}"),
        "adjusts": usage["attempt_id"],
        "tokens": NO_TOKENS,
        "costs": differences,
        "cost_nano_usd": (new.total or 0) - (charged.cost or 0),
        "cost_status": "priced",
        "reserved_nano_usd": -freed if freed else None,
        "price_source": price.source,
        "price_date": price.day,
        "provider_usage": None,
        "received_chars": None,
        "first_token_us": None,
        "provider_us": None,
        "total_us": None,
        "first_token_at": None,
    }
    return cast(LlmUsage, event)
