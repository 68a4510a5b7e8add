"""The providers' real SDKs at the simulator, with one interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, TypeVar, cast

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types

from tests.contract.simulator import Simulator

PROVIDERS = ("openai", "anthropic", "google")
MODEL = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5", "google": "gemini-2.5-flash"}
REFUSALS = (openai.APIStatusError, anthropic.APIStatusError, google_errors.APIError)
T = TypeVar("T")
every_provider = pytest.mark.parametrize("name", PROVIDERS)


class Sdks:
    """The three SDKs with one interface: ask for a text, with their own options."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    @cached_property
    def openai(self) -> openai.AsyncOpenAI:
        """OpenAI's own."""
        return openai.AsyncOpenAI(base_url=f"{self._url}/openai/v1", api_key=self._key, max_retries=0)

    @cached_property
    def anthropic(self) -> anthropic.AsyncAnthropic:
        """Anthropic's own."""
        return anthropic.AsyncAnthropic(base_url=f"{self._url}/anthropic", api_key=self._key, max_retries=0)

    @cached_property
    def google(self) -> genai.Client:
        """Google's own, which repeats broken requests unless it is told to make one attempt."""
        once = types.HttpRetryOptions(attempts=1)
        options = types.HttpOptions(base_url=f"{self._url}/google", retry_options=once)
        return genai.Client(api_key=self._key, vertexai=False, http_options=options)

    async def ask(self, name: str, text: str, model: str | None = None, most: int = 500) -> Any:
        """The provider's answer to one user message, as its SDK returns it."""
        model = model or MODEL[name]
        match name:
            case "openai":
                return await self.openai.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": text}], max_completion_tokens=most,
                    extra_headers={"X-Client-Request-Id": "attempt-1"},
                )  # fmt: skip
            case "anthropic":
                return await self.anthropic.messages.create(
                    model=model, messages=[{"role": "user", "content": text}], max_tokens=most,
                    extra_headers={"X-Client-Request-Id": "attempt-1"},
                )  # fmt: skip
            case _:
                sent = types.HttpOptions(headers={"X-Client-Request-Id": "attempt-1"})
                config = types.GenerateContentConfig(max_output_tokens=most, http_options=sent)
                return await self.google.aio.models.generate_content(model=model, contents=text, config=config)

    async def close(self) -> None:
        """Close all connections."""
        made = self.__dict__
        if "openai" in made:
            await self.openai.close()
        if "anthropic" in made:
            await self.anthropic.close()
        if "google" in made:
            await self.google.aio.aclose()
            self.google.close()


def run(simulator: Simulator, use: Callable[[Sdks], Awaitable[T]], key: str = "any-key") -> T:
    """What `use` returns, given SDKs that speak to the simulator."""

    async def main() -> T:
        sdks = Sdks(simulator.url, key)
        try:
            return await use(sdks)
        finally:
            await sdks.close()

    return asyncio.run(main())


def ask(simulator: Simulator, name: str, text: str, key: str = "any-key", **options: Any) -> Any:
    """One answer of one provider."""
    return run(simulator, lambda sdks: sdks.ask(name, text, **options), key)


def refusals(simulator: Simulator, name: str, *prompts: str, key: str = "any-key") -> list[Any]:
    """The errors that the provider's SDK raises, one for each prompt."""

    async def all_of(sdks: Sdks) -> list[Any]:
        raised = []
        for prompt in prompts:
            with pytest.raises(REFUSALS) as caught:
                await sdks.ask(name, prompt)
            raised.append(caught.value)
        return raised

    return run(simulator, all_of, key)


def status_of(error: Any) -> int:
    """The HTTP status of an SDK's error."""
    return int(error.code if isinstance(error, google_errors.APIError) else error.status_code)


def body_of(error: Any) -> dict[str, Any]:
    """The whole JSON of an SDK's error."""
    if isinstance(error, google_errors.APIError):
        return cast(dict[str, Any], error.details)
    return cast(dict[str, Any], error.response.json())


def directive(**keys: Any) -> str:
    """A prompt with these directive keys."""
    return f"Why is the sky blue? [[sim {json.dumps(keys)}]]"


def text_of(answer: Any) -> Any:
    """The text of an SDK's answer."""
    if isinstance(answer, types.GenerateContentResponse):
        return answer.text
    return answer.choices[0].message.content if hasattr(answer, "choices") else answer.content[0].text
