"""Usage as the providers document it, through our code, against costs worked out by hand from the published prices."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from math import prod
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.providers import anthropic, google, openai
from config.prices import SOURCE, price_on
from core.facts import NO_PRICE, Attempt, usage
from core.pricing import TOKEN_CLASSES
from core.reply import Reply
from tests.examples import call

APIS = {"openai": openai, "anthropic": anthropic, "google": google}
CASES = {
    path.stem: orjson.loads(path.read_bytes()) for path in sorted((Path(__file__).parent / "cases").glob("*.json"))
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_a_documented_usage_costs_what_the_price_page_says(case: dict[str, Any]) -> None:
    """Tokens by class, cost by class, total and status are those of the case, to the nano-dollar."""
    api, day = APIS[case["provider"]], (date.fromisoformat(case["date"]) - date(1970, 1, 1)).days
    price, body = price_on(case["provider"], case["model"], day), case["body"]
    reply = Reply((), "stop", None, None, api.usage_of(body), None, api.terms_of(body))
    fact = usage(call(), Attempt("", 1, "first", 0), reply, 0, price)
    assert fact["tokens"] == case["tokens"]
    assert (fact["costs"], fact["cost_nano_usd"]) == (case["costs"], case["cost_nano_usd"])
    assert fact["cost_status"] == case["cost_status"]
    if case["cost_status"] == "unpriced" and price is not None:
        assert (fact["price_source"] or "").startswith(NO_PRICE)
        assert fact["price_date"] is None
    elif case["cost_status"] == "priced":
        assert fact["price_source"] == (f"{SOURCE}, corrected" if corrected(case) else SOURCE)


def corrected(case: dict[str, Any]) -> bool:
    """Whether the package has no right price for the model on that day."""
    return "package_disagrees" in case or case["model"].startswith("claude-sonnet-4-2025")


@every_case
def test_the_working_of_a_case_adds_up(case: dict[str, Any]) -> None:
    """The arithmetic of a case is right in itself: tokens times USD a million times 1,000, rounded half to even, and summed."""
    assert all(source.startswith("https://") for source in case["source"])
    for name in TOKEN_CLASSES:
        line = case["working"].get(name)
        assert (line is None) == (case["costs"][name] is None)
        if line is None:
            continue
        factors, result = (side.strip() for side in line.split("=", 1))
        exact, _, rounded = result.partition(" ~ ")
        tokens, *others = (Decimal(factor) for factor in factors.split(" * "))
        assert tokens == case["tokens"][name]
        assert prod(others, start=tokens) == Decimal(exact)
        whole = Decimal(exact).to_integral_value(ROUND_HALF_EVEN)
        assert whole == Decimal(rounded or exact) == case["costs"][name]
    if case["cost_status"] == "priced":
        assert sum(cost or 0 for cost in case["costs"].values()) == case["cost_nano_usd"]


def test_the_cases_cover_what_providers_bill() -> None:
    """At least 60 cases, of every provider, class and status."""
    assert len(CASES) >= 60
    assert {case["provider"] for case in CASES.values()} == set(APIS)
    assert {case["cost_status"] for case in CASES.values()} == {"priced", "unpriced", "unknown"}
    for name in TOKEN_CLASSES:
        assert any(case["costs"][name] for case in CASES.values())
