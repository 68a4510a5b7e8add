"""Calls of providers at the simulator, through the same code that a worker calls them with."""

from __future__ import annotations

import asyncio
import json
import traceback
from typing import Any, cast

import pytest

from agents.providers import provider
from agents.providers.base import Listener, Provider
from config.settings import ProviderSettings
from core.errors import CODES, ProviderError
from core.reply import Reply
from schemas.events import LlmCall
from tests.examples import call

PATHS = {"openai": "/openai/v1", "openai-compatible": "/openai/v1", "anthropic": "/anthropic", "google": "/google"}
MODELS = {
    "openai": "gpt-5-mini", "openai-compatible": "gpt-5-mini", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash",
}  # fmt: skip
KEY = "sk-contract-0123456789abcdef"
ATTEMPT = "4a1f0d5c-5d3c-5f3e-9f6e-2f6f3c1b7a10"
every_provider = pytest.mark.parametrize("name", PATHS)


def settings_of(name: str, base_url: str, key: str | None = KEY) -> ProviderSettings:
    """The settings of this provider at the simulator."""
    return ProviderSettings(name, key, base_url + PATHS[name], f"{name.upper()}_KEY_SETTING")


def llm_call(name: str, prompt: str = "Why is the sky blue?", directive: dict[str, Any] | None = None) -> LlmCall:
    """A call with one user message; the directive tells the simulator what to do with it."""
    asked = prompt if directive is None else f"{prompt} [[sim {json.dumps(directive)}]]"
    return call(prompt=asked, model=f"{name}/{MODELS[name]}") | {"max_output_tokens": 5_000}


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.given_up: list[Reply | None] = []

    def delta(self, text: str) -> None:
        """One more piece."""
        self.pieces.append(text)

    def gave_up(self, used: Reply | None) -> None:
        """The end of a cancelled call."""
        self.given_up.append(used)


def ask(
    settings: ProviderSettings, asked: LlmCall, timeout: float = 20, listener: Listener | None = None
) -> Reply | ProviderError:
    """What one call ends with; streamed to the listener, where there is one."""

    async def once(made: Provider) -> Reply | ProviderError:
        try:
            return await made.call(asked, ATTEMPT, timeout, None, listener)
        except ProviderError as failed:
            return failed

    return cast(Reply | ProviderError, run(settings, once))


def run(settings: ProviderSettings, use: Any) -> Any:
    """Run a coroutine function with a provider, which is closed after it."""

    async def main() -> Any:
        made = provider(settings)
        try:
            return await use(made)
        finally:
            await made.close()

    return asyncio.run(main())


def failed(result: Reply | ProviderError) -> ProviderError:
    """The failure, which the call must have ended with; its code is one of the closed list."""
    assert isinstance(result, ProviderError), result
    assert result.error["code"] in CODES
    return result


async def until(true: Any) -> None:
    """Wait until the condition holds, looking every 50 ms off the event loop."""
    for _ in range(1_200):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("The condition never held.")


def everything(failure: ProviderError) -> str:
    """All that a log could show of a failure."""
    return "".join(traceback.format_exception(failure)) + repr(failure) + repr(failure.args) + repr(failure.error)
