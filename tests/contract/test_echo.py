"""The provider that needs no network."""

from __future__ import annotations

import pytest

from config.settings import ProviderSettings
from core.reply import Reply
from schemas.events import LlmCall
from tests.contract.calling import (
    ask,
    failed,
)
from tests.examples import call

ECHO = ProviderSettings("echo", None, None, "")


def echo_call(model: str, prompt: str = "one two three") -> LlmCall:
    """A call of the echo."""
    return call(prompt=prompt, model=f"echo/{model}")


@pytest.mark.parametrize("model", ["echo", "slow-20ms"])
def test_the_echo_answers_with_what_was_said(model: str) -> None:
    """The answer is the prompt, its words are its tokens."""
    reply = ask(ECHO, echo_call(model))
    assert isinstance(reply, Reply)
    assert reply.output[0]["text"] == "one two three"
    assert (reply.tokens["input_uncached"], reply.tokens["output_text"], reply.tokens["cache_read"]) == (3, 3, None)


def test_the_echo_keeps_to_the_bound() -> None:
    """An answer of more words than asked for is cut."""
    reply = ask(ECHO, echo_call("echo") | {"max_output_tokens": 2})
    assert isinstance(reply, Reply)
    assert (reply.output[0]["text"], reply.finish_reason) == ("one two", "length")


@pytest.mark.parametrize(
    ("model", "code", "charged"),
    [
        ("fail-503", "provider_unavailable", "no"), ("fail-429", "provider_rate_limited", "no"),
        ("fail-401", "provider_auth", "no"), ("timeout", "provider_timeout", "maybe"),
        ("slow-60000ms", "provider_timeout", "maybe"), ("disconnect", "provider_connection", "maybe"),
        ("garbage", "provider_bad_answer", "maybe"), ("refuse", "provider_content_refused", "maybe"),
    ],
)  # fmt: skip
def test_the_echo_fails_as_its_model_says(model: str, code: str, charged: str) -> None:
    """Each failure a provider can have is there without a network."""
    failure = failed(ask(ECHO, echo_call(model), 0.05))
    assert (failure.error["code"], failure.charged) == (code, charged)
