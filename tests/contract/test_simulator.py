"""The provider simulator, as a process of its own, behind the providers' real SDKs and behind a plain socket."""

from __future__ import annotations

import json
from typing import Any, cast

from google.genai import types

from tests.contract.sdks import (
    Sdks,
    ask,
    directive,
    every_provider,
    run,
    text_of,
)
from tests.contract.simulator import Simulator

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer", "minimum": 5}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
EXPECTED = {"city": "lorem", "degrees": 5}
#: Anthropic's API takes no bounds of numbers.
UNBOUNDED = {**SCHEMA, "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}


@every_provider
def test_an_answer_is_the_same_for_the_same_prompt(simulator: Simulator, name: str) -> None:
    """The same prompt gives the same text and other prompts another, while every answer has an id of its own."""

    async def thrice(sdks: Sdks) -> list[Any]:
        return [await sdks.ask(name, prompt) for prompt in ("one prompt", "one prompt", "another prompt")]

    first, again, other = run(simulator, thrice)
    assert text_of(first) == text_of(again) != text_of(other)
    assert (first.response_id if name == "google" else first.id) != (
        again.response_id if name == "google" else again.id
    )
    assert [call["outcome"] for call in simulator.calls()] == ["answered"] * 3


@every_provider
def test_directives_are_no_part_of_the_prompt(simulator: Simulator, name: str) -> None:
    """A directive changes neither the answer to a prompt nor its tokens, and an exact text is answered exactly."""

    async def both(sdks: Sdks) -> list[Any]:
        prompts = ("Why is the sky blue?", directive(latency_ms=1), directive(text="[[Rayleigh]] \u2603"))
        return [await sdks.ask(name, prompt) for prompt in prompts]

    plain, directed, exact = run(simulator, both)
    assert text_of(plain) == text_of(directed)
    assert text_of(exact) == "[[Rayleigh]] \u2603"
    first, second, third = (call["tokens"] for call in simulator.calls())
    assert first == second
    assert (first["input_uncached"], third["output_text"]) == (5, 4)


def test_openai_usage_includes_what_it_details(simulator: Simulator) -> None:
    """OpenAI's prompt tokens include cached, written and audio ones, its completion tokens reasoning and audio."""
    usage = {
        "input": 100,
        "cached": 50,
        "cache_write_5m": 25,
        "input_audio": 12,
        "output": 40,
        "reasoning": 30,
        "output_audio": 8,
    }
    used = ask(simulator, "openai", directive(usage=usage)).usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (187, 78, 265)
    read, made = used.prompt_tokens_details, used.completion_tokens_details
    assert (read.cached_tokens, read.audio_tokens, read.cache_write_tokens) == (50, 12, 25)
    assert (made.reasoning_tokens, made.audio_tokens) == (30, 8)
    assert sum(simulator.ledger()["overall"]["tokens"].values()) == 265


def test_anthropic_usage_excludes_the_cache(simulator: Simulator) -> None:
    """Anthropic's input tokens are those neither read from nor written to the cache; output includes thinking."""
    usage = {"input": 100, "cached": 50, "cache_write_5m": 25, "cache_write_1h": 75, "output": 40, "reasoning": 30}
    used = ask(simulator, "anthropic", directive(usage=usage)).usage
    assert (used.input_tokens, used.output_tokens, used.cache_read_input_tokens) == (100, 70, 50)
    assert (used.cache_creation_input_tokens, used.output_tokens_details.thinking_tokens) == (100, 30)
    assert used.cache_creation.ephemeral_5m_input_tokens == 25
    assert used.cache_creation.ephemeral_1h_input_tokens == 75


def test_gemini_usage_excludes_thoughts(simulator: Simulator) -> None:
    """Gemini's prompt includes cache and audio, told apart by modality; its candidates exclude thoughts."""
    usage = {"input": 100, "cached": 50, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8}
    used = ask(simulator, "google", directive(usage=usage)).usage_metadata
    assert (used.prompt_token_count, used.cached_content_token_count, used.total_token_count) == (162, 50, 240)
    assert (used.candidates_token_count, used.thoughts_token_count) == (48, 30)
    modalities = {detail.modality.value: detail.token_count for detail in used.prompt_tokens_details}
    assert modalities == {"TEXT": 150, "AUDIO": 12}


@every_provider
def test_the_bound_on_the_answer_holds(simulator: Simulator, name: str) -> None:
    """No answer has more tokens than asked for, and one that was cut says so."""
    answer = ask(simulator, name, "Tell me everything.", most=7)
    finish = {
        "openai": lambda: answer.choices[0].finish_reason,
        "anthropic": lambda: answer.stop_reason,
        "google": lambda: answer.candidates[0].finish_reason.value,
    }[name]()
    assert finish == {"openai": "length", "anthropic": "max_tokens", "google": "MAX_TOKENS"}[name]
    assert len(text_of(answer)) == 28
    assert simulator.calls()[0]["tokens"]["output_text"] == 7


def test_tools_are_called_until_they_have_a_result(simulator: Simulator) -> None:
    """A model that is offered a tool calls it with arguments of its schema, and answers once it has the result."""
    tool = {"name": "weather", "description": "The weather."}
    asked: dict[str, Any] = {"role": "user", "content": "The weather?"}

    async def all_three(sdks: Sdks) -> None:
        functions: Any = [{"type": "function", "function": tool | {"parameters": SCHEMA}}]
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=cast(Any, [asked]), tools=functions
        )
        message = chat.choices[0].message
        [call] = cast(Any, message.tool_calls)
        assert (chat.choices[0].finish_reason, call.function.name, message.content) == ("tool_calls", "weather", None)
        assert json.loads(call.function.arguments) == EXPECTED
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=cast(Any, [asked, message.to_dict(), result]), tools=functions
        )
        assert chat.choices[0].finish_reason == "stop"

        response = await sdks.openai.responses.create(
            model="gpt-5-mini",
            input="The weather?",
            tools=cast(Any, [tool | {"type": "function", "parameters": SCHEMA}]),
        )
        assert json.loads(cast(Any, response.output[0]).arguments) == EXPECTED

        claude = await sdks.anthropic.messages.create(
            model="claude-haiku-4-5", max_tokens=99, messages=cast(Any, [asked]),
            tools=cast(Any, [tool | {"input_schema": SCHEMA}]),
        )  # fmt: skip
        assert (claude.stop_reason, cast(Any, claude.content[0]).input) == ("tool_use", EXPECTED)

        declared = types.FunctionDeclaration(**cast(Any, tool), parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        gemini = await sdks.google.aio.models.generate_content(model="gemini-2.5-flash", contents="?", config=config)
        [function] = cast(Any, gemini.function_calls)
        assert (function.name, function.args) == ("weather", EXPECTED)

    run(simulator, all_three)


def test_structured_answers_follow_their_schema(simulator: Simulator) -> None:
    """A JSON schema is answered with JSON that it allows, in every API's own way of asking."""
    shape = {"name": "answer", "schema": SCHEMA, "strict": True}

    async def all_four(sdks: Sdks) -> list[str]:
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "?"}],
            response_format=cast(Any, {"type": "json_schema", "json_schema": shape}),
        )  # fmt: skip
        response = await sdks.openai.responses.create(
            model="gpt-5-mini", input="?", text=cast(Any, {"format": {"type": "json_schema", **shape}})
        )
        claude = await sdks.anthropic.messages.create(
            model="claude-haiku-4-5", max_tokens=99, messages=[{"role": "user", "content": "?"}],
            output_config=cast(Any, {"format": {"type": "json_schema", "schema": UNBOUNDED}}),
        )  # fmt: skip
        config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=SCHEMA)
        gemini = await sdks.google.aio.models.generate_content(model="gemini-2.5-flash", contents="?", config=config)
        return [text_of(chat), response.output_text, text_of(claude), text_of(gemini)]

    answers = [json.loads(text) for text in run(simulator, all_four)]
    assert answers == [EXPECTED, EXPECTED, {**EXPECTED, "degrees": 1}, EXPECTED]


def test_the_models_are_listed(simulator: Simulator) -> None:
    """Each SDK reads the provider's list of models, which is no call in the account."""

    async def names(sdks: Sdks) -> list[set[str]]:
        return [
            {model.id async for model in sdks.openai.models.list()},
            {model.id async for model in sdks.anthropic.models.list()},
            {str(model.name) async for model in await sdks.google.aio.models.list()},
        ]

    listed = run(simulator, names)
    assert "gpt-5-mini" in listed[0]
    assert "claude-haiku-4-5-20251001" in listed[1]
    assert "models/gemini-2.5-flash" in listed[2]
    assert simulator.calls() == []
