"""What is reserved for a call is never less than it can cost, with images, audio, files and tools in it too."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.prices import price_on
from core.bounds import TOKENS_PER_MESSAGE, media_tokens, text_tokens
from core.features import unsupported_by
from core.pricing import Price, Tier, cost_of, unbounded_by, upper_bound
from core.reply import text_part
from local.simulator.answers import answer
from local.simulator.directives import ORDINARY
from schemas.events import Message
from tests.examples import request
from tests.media import TOOL_TURNS, URL, WEATHER, medium, part, turn
from tests.unit.test_provider_content import APIS, asked, conversations, read_by_simulator

DAY = (date(2026, 11, 1) - date(1970, 1, 1)).days
MODELS = {"openai": ("gpt-5-mini", "gpt-4o-audio-preview"), "anthropic": ("claude-sonnet-4-5",), "google": ("gemini-2.5-flash", "gemini-3-pro-preview")}  # fmt: skip
FLAT = Price({"input_uncached": (Tier(0, Decimal(1)),), "output_text": (Tier(0, Decimal(4)),)}, "test", DAY)


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"messages": [turn("user", *parts)]}


@settings(max_examples=60, deadline=None)
@given(conversations(), st.sampled_from(sorted(MODELS)), st.booleans())
def test_what_a_provider_counts_never_exceeds_the_bound(messages: list[Message], kind: str, offered: bool) -> None:
    """For any conversation that a provider takes, the tokens that the simulator counts cost at most what was reserved."""
    for model in MODELS[kind]:
        made = asked(kind, messages, model, tools=[WEATHER] if offered else [])
        price = price_on(kind, model, DAY)
        if unsupported_by(made["request"], kind, kind, model) or unbounded_by(
            made["request"], kind, kind, model, price
        ):
            continue
        bound = upper_bound(made["request"], kind, model, made["max_output_tokens"], price)
        prompt = read_by_simulator(kind, model, APIS[kind].translate_request(made))
        tokens = answer(prompt, ORDINARY, 7).tokens._asdict()
        cost = cost_of(tokens, price)  # type: ignore[arg-type]
        assert cost.total is not None
        assert bound is not None
        assert cost.total <= bound


@pytest.mark.parametrize(
    ("kind", "model", "parts", "tokens"),
    [
        ("anthropic", "claude-sonnet-4-5", [medium("image/png"), medium("image/gif", url=URL)], 2 * 4_784),
        ("openai", "gpt-4o-mini", [medium("image/png")], 48_169), ("openai", "gpt-4o", [medium("image/png")], 3_779),
        ("openai", "ft:gpt-4o-mini:acme", [medium("image/png")], 48_169), ("openai", "gpt-5-mini", [medium("image/png")], 24_600),
        ("google", "gemini-2.5-flash", [medium("image/png")], 2_322),
        ("google", "gemini-2.5-flash", [part("audio", media_type="audio/mpeg", data=bytes(60_000))], 61 * 32),
        ("google", "gemini-2.5-flash", [medium("audio/wav", url=URL)], 34_200 * 32),
        ("openai", "gpt-audio", [part("audio", media_type="audio/wav", data=bytes(60_000))], 61 * 10),
        ("anthropic", "claude-sonnet-4-5", [medium("application/pdf")], 1_000_000),
        ("anthropic", "claude-sonnet-4-5", [medium("application/pdf"), medium("image/png")], 1_000_000),
        ("google", "gemini-2.5-flash", [text_part("hello")], 0),
    ],
)  # fmt: skip
def test_media_are_bounded_by_what_the_provider_documents(kind: str, model: str, parts: list[Any], tokens: int) -> None:
    """An image by its largest size, audio by its longest duration, a file by what the provider reads at all."""
    assert media_tokens(request(**with_parts(*parts)), kind, model) == tokens


def test_a_models_context_bounds_what_nothing_else_does() -> None:
    """Where the registry knows how much a model reads, a file of a known provider and any medium of another has that bound."""
    asked_for = request(**with_parts(medium("application/pdf"), medium("image/png")))
    assert media_tokens(asked_for, "anthropic", "claude-haiku-4-5", 200_000) == 200_000
    assert media_tokens(asked_for, "openai-compatible", "llava", 8_000) == 8_000
    assert media_tokens(asked_for, "openai-compatible", "llava") is None


def test_tools_schemas_results_and_options_are_counted_by_their_bytes() -> None:
    """Whatever text of the request reaches the model is in the bound, in UTF-8."""
    plain = text_tokens(request(prompt="x"))
    more = request(
        prompt="x", tools=[{**WEATHER, "description": "Wetter für Zürich"}], provider_options={"system": '"größer"'}
    )
    added = len(f'{WEATHER["name"]}{WEATHER["parameters"]}Wetter für Zürich"größer"'.encode())
    assert text_tokens(more) >= plain + added + TOKENS_PER_MESSAGE
    said = "".join(f"{p['text']}{p['tool_name']}{p['tool_arguments']}" for m in TOOL_TURNS for p in m["content"])
    assert text_tokens(request(messages=TOOL_TURNS)) >= len(said.replace("None", "").encode())


def test_what_has_no_bound_is_refused_where_it_has_a_price() -> None:
    """Nothing is called whose cost could exceed its reservation; without a price there is none to exceed."""
    picture, sound = request(**with_parts(medium("image/png"))), request(**with_parts(medium("audio/wav")))
    assert unbounded_by(picture, "our-own", "openai-compatible", "llava", None) is None
    assert upper_bound(picture, "openai-compatible", "llava", 100, None) is None
    found = unbounded_by(picture, "our-own", "openai-compatible", "llava", FLAT)
    assert found is not None
    assert found["code"] == "caller_unsupported_feature"
    assert all(word in found["message"] for word in ("image", "our-own/llava", "no known bound"))
    with pytest.raises(ValueError, match="No bound"):
        upper_bound(picture, "openai-compatible", "llava", 100, FLAT)
    unpriced = unbounded_by(sound, "openai", "openai", "gpt-5-mini", FLAT)
    assert unpriced is not None
    assert "audio has no price" in unpriced["message"]
    assert unbounded_by(request(), "our-own", "openai-compatible", "llava", FLAT) is None
