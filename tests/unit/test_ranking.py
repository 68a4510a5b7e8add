"""In which order models are tried, and how hard a request is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.asked import asked
from core.complexity import LANGUAGE_FACTORS, LONG, complexity, misfit, tier_for
from core.registry import TIERS, Route, Target
from core.routing import Conditions
from core.standing import Standing
from tests.examples import NOON, request
from tests.unit.routers import ask, conditions, model, names, router


def order_by(strategies: tuple[Any, ...], asked_for: dict[str, Any], around: Conditions, **tiers: Any) -> list[str]:
    """The order of three targets `a`, `b`, `c` by these strategies."""
    route = Route("r", tuple(Target(f"p/{name}") for name in "abc"), strategies=strategies)
    known = [model(name, tier=tiers.get(name, "balanced")) for name in "abc"]
    return names(router(*known, routes=(route,)).choose(ask(**asked_for), around))


def test_strategies_put_first_what_they_are_named_for() -> None:
    """Each strategy alone orders three models as its line of the table says."""
    tiers = {"a": "powerful", "b": "cheap", "c": "balanced"}
    assert order_by(("complexity",), {"characters": 100}, conditions(), **tiers) == ["b", "c", "a"]
    assert order_by(("complexity",), {"characters": 5_000}, conditions(), **tiers) == ["c", "a", "b"]
    assert order_by(("complexity",), {"characters": 9_000}, conditions(), **tiers) == ["a", "c", "b"]
    how = conditions(a=Standing("suspect"), c=Standing("healthy"))
    assert order_by(("health",), {}, how) == ["c", "b", "a"]
    cost = conditions({"a": None, "b": 2_000, "c": 1_000})
    assert order_by(("cost",), {}, cost) == ["c", "b", "a"]
    fast = conditions({"b": 3, "a": 9}, a=Standing(p50_ms=100), b=Standing(p50_ms=900))
    assert order_by(("latency",), {}, fast) == ["a", "b", "c"]
    assert order_by(("latency",), {"priority": "batch"}, fast) == ["c", "b", "a"]
    good = conditions(a=Standing(success_rate=0.5), b=Standing(success_rate=0.99))
    assert order_by(("success_rate",), {}, good) == ["b", "c", "a"]


def test_near_figures_tie_and_the_next_strategy_decides() -> None:
    """Two models a tenth apart in cost are equal there, so the faster one comes first."""
    around = conditions({"a": 105, "b": 100, "c": 1_000}, a=Standing(p50_ms=100), b=Standing(p50_ms=900))
    assert order_by(("cost", "latency"), {}, around) == ["a", "b", "c"]
    assert order_by(("latency", "cost"), {}, around) == ["a", "b", "c"]
    twice = replace(around, bound=lambda one: {"a": 200, "b": 100, "c": 1_000}[one.name])
    assert order_by(("cost", "latency"), {}, twice) == ["b", "a", "c"]


def test_the_last_resort_is_the_least_bad() -> None:
    """A resting model is tried before one with an open breaker before an unhealthy one; of equals, the first one back."""
    resting, sooner = Standing(resting_until=NOON + 9), Standing(resting_until=NOON + 5)
    opened, sick = Standing(breaker_open_until=NOON + 1), Standing("unhealthy")
    for how, chosen in (
        ({"a": sick, "b": opened, "c": resting}, "c"), ({"a": sick, "b": opened, "c": sick}, "b"),
        ({"a": resting, "b": sooner, "c": sick}, "b"), ({"a": opened, "b": Standing("suspect"), "c": resting}, "b"),
    ):  # fmt: skip
        assert order_by(("health",), {}, conditions(**how)) == [chosen]


@given(
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.sampled_from(["python", "javascript", "java", "rust", "cpp", None]),
)
def test_a_longer_request_is_never_less_complex(one: int, other: int, language: str | None) -> None:
    """The score is from 0 to 1 and rises with the length."""
    scores = [complexity(length, language=language, task="cv_draft", tools=True) for length in sorted((one, other))]
    assert 0 <= scores[0] <= scores[1] <= 1


@pytest.mark.parametrize(
    ("length", "language", "score", "tier"),
    [
        (3_749, "python", 0.29992, "cheap"), (3_750, "python", 0.3, "balanced"), (50_000, "Python", 0.8, "powerful"),
        (8_750, "python", 0.7, "balanced"), (8_751, "python", 0.70008, "powerful"),
        (7_000, "java", 0.7, "balanced"), (7_001, "java", 0.7001, "powerful"), (5_000, "javascript", 0.45, "balanced"),
        (10_000, "cpp", 1.0, "powerful"), (5_000, "rust", 0.55, "balanced"), (2_000, "german", 0.2, "cheap"),
    ],
)  # fmt: skip
def test_the_score_of_code_is_length_times_the_language(length: int, language: str, score: float, tier: str) -> None:
    """The published formula, at its edges; a language of people is plain text."""
    found = complexity(length, language=language)
    assert found == pytest.approx(score)
    assert tier_for(found) == tier


def test_no_length_of_code_falls_on_the_wrong_side_of_an_edge() -> None:
    """For every length and language the tier is the one of the score in whole numbers."""
    for language, factor in LANGUAGE_FACTORS.items():
        for length in range(LONG + 1):
            exact = length * round(factor * 10)
            tier = "cheap" if exact < 3 * LONG else "balanced" if exact <= 7 * LONG else "powerful"
            assert tier_for(complexity(length, language=language)) == tier, (language, length)


def test_the_nearest_tier_is_next_and_of_two_the_stronger() -> None:
    """A stand-in is as near as there is."""
    assert [sorted(TIERS, key=lambda tier: misfit(wanted, tier)) for wanted in TIERS] == [
        ["cheap", "balanced", "powerful"], ["balanced", "powerful", "cheap"], ["powerful", "balanced", "cheap"],
    ]  # fmt: skip


def test_what_a_request_needs_is_read_from_it() -> None:
    """Images, tools, schemas and streams ask for models that have them, and each adds to the estimate of tokens."""
    plain = asked(request("word " * 300), 100, NOON)
    assert (plain.needs, plain.max_output_tokens, plain.characters) == (frozenset({"text"}), 100, 1_500)
    assert 375 <= plain.input_tokens <= 600
    part = {**request()["messages"][0]["content"][0], "type": "image", "text": None, "data": b"x" * 10}
    rich = request(
        messages=[{"role": "user", "content": [part]}],
        tools=[{"name": "look", "description": None, "parameters": "{}"}],
        parameters={**request()["parameters"], "response_format": "{}", "reasoning_effort": "low"},
        stream=True,
        tags={"language": "rust"},
    )
    seen = asked(rich, 100, NOON)
    assert seen.needs == {"text", "image", "tools", "structured_output", "reasoning", "streaming"}
    assert seen.input_tokens > 1_600
    assert seen.language == "rust"
