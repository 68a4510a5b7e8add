"""What the simulator refuses as the providers do: a prompt beyond the model's context, an answer that the request has begun."""

from __future__ import annotations

import pytest

from core.errors import ProviderError
from tests.contract.calling import ask, every_provider, llm_call, settings_of
from tests.contract.simulator import Simulator


@every_provider
def test_a_prompt_beyond_the_context_is_refused_for_nothing(simulator: Simulator, name: str) -> None:
    """The provider's own sentence with both counts comes back, and nothing was charged; a prompt that fits is answered."""
    found = ask(settings_of(name, simulator.url), llm_call(name, "Why is the sky blue?", {"context_tokens": 4}))
    assert isinstance(found, ProviderError)
    assert (found.error["code"], found.error["provider_status"]) == ("provider_context_too_long", 400)
    assert "5" in found.error["message"] and "4" in found.error["message"]
    (call,) = simulator.calls()
    assert (call["outcome"], call["cost_nano_usd"]) == ("error", 0)
    assert not isinstance(
        ask(settings_of(name, simulator.url), llm_call(name, "Why?", {"context_tokens": 4})), ProviderError
    )


@pytest.mark.parametrize(("model", "taken"), [("claude-sonnet-4-5", True), ("claude-next", False)])
def test_a_later_claude_goes_on_with_no_answer(simulator: Simulator, model: str, taken: bool) -> None:
    """A conversation whose last message is the assistant's is answered by the models that can, and refused by the others."""
    asked = llm_call("anthropic")
    first = asked["request"]["messages"][0]
    begun = {**asked["request"], "messages": [first, {**first, "role": "assistant"}]}
    found = ask(settings_of("anthropic", simulator.url), asked | {"request": begun, "model": model})  # type: ignore[arg-type, operator]
    assert isinstance(found, ProviderError) is not taken
    assert taken or "does not support assistant message prefill" in str(found)
