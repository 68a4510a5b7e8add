"""What every provider behind HTTP answers, shown through its real SDK against the simulator as a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from agents.providers import anthropic as anthropic_api
from agents.providers import google as google_api
from agents.providers import openai as openai_api
from agents.providers import openai_compatible as compatible_api
from agents.structured import answer_problem, answer_text, checked, repair_request
from core.errors import ProviderError
from core.reply import NO_TOKENS, Reply
from tests.contract.calling import (
    ATTEMPT,
    ask,
    every_provider,
    llm_call,
    settings_of,
)
from tests.contract.simulator import Simulator

APIS = {"openai": openai_api, "openai-compatible": compatible_api, "anthropic": anthropic_api, "google": google_api}
PAYLOADS = sorted((Path(__file__).parent / "payloads").glob("*.json"))


@every_provider
def test_an_answer_arrives_with_its_usage(simulator: Simulator, name: str) -> None:
    """A plain call gives text, finish reason, names and the tokens that the simulator counted."""
    reply = ask(settings_of(name, simulator.url), llm_call(name))
    assert isinstance(reply, Reply)
    [seen] = simulator.calls()
    assert seen["outcome"] == "answered"
    assert [part["type"] for part in reply.output] == ["text"]
    assert len(reply.output[0]["text"] or "") > 20
    assert reply.finish_reason == "stop"
    assert reply.response_model
    assert reply.provider_response_id
    assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
    assert isinstance(orjson.loads(reply.provider_usage or ""), dict)


@every_provider
def test_the_attempt_id_is_sent_along(simulator: Simulator, name: str) -> None:
    """The provider's log and ours can be laid side by side."""
    ask(settings_of(name, simulator.url), llm_call(name))
    assert [seen["client_request_id"] for seen in simulator.calls()] == [ATTEMPT]


@every_provider
def test_the_answer_is_bounded(simulator: Simulator, name: str) -> None:
    """The bound that the reservation was priced with reaches the provider, under the name that it knows."""
    reply = ask(settings_of(name, simulator.url), llm_call(name) | {"max_output_tokens": 5})
    assert isinstance(reply, Reply)
    assert reply.finish_reason == "length"
    assert reply.tokens["output_text"] == 5


@every_provider
def test_an_answer_follows_its_schema(simulator: Simulator, name: str) -> None:
    """A JSON schema reaches the provider in the form that it knows."""
    asked = llm_call(name)
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    parameters = asked["request"]["parameters"]
    asked["request"]["parameters"] = {**parameters, "response_format": json.dumps(schema), "reasoning_effort": "low"}
    reply = ask(settings_of(name, simulator.url), asked)
    assert isinstance(reply, Reply)
    assert list(json.loads(reply.output[0]["text"] or "")) == ["city"]


@every_provider
def test_an_answer_off_its_schema_is_repaired(simulator: Simulator, name: str) -> None:
    """A wrong answer is told from a right one, and the provider answers rightly when it is shown what was wrong."""
    asked = llm_call(name, directive={"fault": "off_schema", "times": 1, "key": f"{name} off its schema"})
    schema = (
        '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
    )
    asked["request"]["parameters"] = {**asked["request"]["parameters"], "response_format": schema}
    wrong = ask(settings_of(name, simulator.url), asked)
    assert isinstance(wrong, Reply), wrong
    problem = answer_problem(asked["request"], wrong)
    assert problem is not None
    with pytest.raises(ProviderError) as mismatch:
        checked(asked, wrong)
    assert mismatch.value.reply is wrong
    right = ask(settings_of(name, simulator.url), repair_request(asked, answer_text(wrong), problem))
    assert isinstance(right, Reply), right
    assert checked(asked, right) is right
    assert [seen["outcome"] for seen in simulator.calls()] == ["answered", "answered"]


USAGE = {
    "openai": {"input": 100, "cached": 50, "cache_write_5m": 25, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8},
    "openai-compatible": {"input": 100, "cached": 50, "output": 40, "reasoning": 30},
    "anthropic": {"input": 100, "cached": 50, "cache_write_5m": 25, "cache_write_1h": 75, "output": 40},
    "google": {"input": 100, "cached": 50, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8},
}  # fmt: skip


@every_provider
@pytest.mark.parametrize("zero", [False, True])
def test_token_classes_are_told_apart(simulator: Simulator, name: str, zero: bool) -> None:
    """Every class that the provider reports is counted once, in its own class, zeros included."""
    usage = dict.fromkeys(USAGE[name], 0) if zero else USAGE[name]
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive={"usage": usage}))
    assert isinstance(reply, Reply)
    [seen] = simulator.calls()
    assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
    assert sum(seen["tokens"].values()) == sum(usage.values())


@every_provider
def test_usage_that_is_missing_is_unknown(simulator: Simulator, name: str) -> None:
    """An answer without usage is an answer, its tokens are unknown and not zero."""
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive={"missing_usage": True}))
    assert isinstance(reply, Reply)
    assert reply.tokens == NO_TOKENS
    assert reply.provider_usage is None


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_documented_payloads_are_counted(path: Path) -> None:
    """Answers as the providers document them give the tokens that their pages say, class by class."""
    payload = orjson.loads(path.read_bytes())
    assert payload["source"].startswith("https://")
    api = APIS[payload["provider"]]
    assert api.usage_of(payload["body"]) == payload["tokens"]
    reply = api.translate_response(payload["body"])
    assert reply.tokens == payload["tokens"]
    usage = payload["body"].get("usage", payload["body"].get("usageMetadata"))
    assert (None if reply.provider_usage is None else orjson.loads(reply.provider_usage)) == usage
