"""A provider that needs no network and no key; the model's name picks what it does.

| model | what it does |
|---|---|
| `echo` (or any other name) | answers with the text of the last message |
| `slow-200ms` | the same after 200 ms; any number of milliseconds |
| `fail-503` | answers with that HTTP status; any status from 400 to 599 |
| `timeout` | does not answer until the call's time is up |
| `disconnect` | loses the connection before the answer |
| `garbage` | answers with something that cannot be read |
| `refuse` | refuses to answer because of the content |

A token is a word between white space. An answer of more than `max_output_tokens` words is cut, with finish reason `length`.
"""

from __future__ import annotations

import asyncio
import re

from agents.providers.base import Listener, usage_json
from agents.providers.failures import failure, status_failure
from agents.providers.parts import refuse_unsupported
from config.settings import Key, ProviderSettings
from core.reply import NO_TOKENS, Reply, text_part
from schemas.events import LlmCall

SLOW = re.compile(r"slow-(\d{1,9})ms")
WORD = re.compile(r"\s*\S+|\s+")
FAIL = re.compile(r"fail-([45]\d\d)")


def reply_to(call: LlmCall) -> Reply:
    """The last message's text as the answer; `ProviderError` for tools, content that is no text, and parameters that change nothing here."""
    refuse_unsupported(call, "echo")
    said = [" ".join(part["text"] or "" for part in message["content"]) for message in call["request"]["messages"]]
    answer = said[-1]
    words = answer.split()
    cut = len(words) > call["max_output_tokens"]
    if cut:
        words = words[: call["max_output_tokens"]]
        answer = " ".join(words)
    usage = {"input_words": sum(len(text.split()) for text in said), "output_words": len(words)}
    return Reply(
        output=(text_part(answer),),
        finish_reason="length" if cut else "stop",
        response_model=call["model"],
        provider_response_id=f"echo-{call['request']['request_id']}",
        tokens={**NO_TOKENS, "input_uncached": usage["input_words"], "output_text": usage["output_words"]},
        provider_usage=usage_json(usage),
    )


class Echo:
    """See the table above; a `agents.providers.base.Provider`."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings

    async def call(
        self, call: LlmCall, attempt_id: str, timeout: float, key: Key | None = None, listener: Listener | None = None
    ) -> Reply:
        """What the model's name asks for; a stream has a piece for each word."""
        model = call["model"]
        settings = self._settings.with_key(key)
        if slow := SLOW.fullmatch(model):
            await self._wait(int(slow[1]) / 1_000, timeout)
        elif fail := FAIL.fullmatch(model):
            raise status_failure(settings, int(fail[1]), {}, f"as asked for by the model {model}")
        elif model == "timeout":
            await self._wait(timeout + 1, timeout)
        elif model == "disconnect":
            raise failure(settings, "provider_connection", "The connection was lost before the answer came", "maybe")
        elif model == "garbage":
            raise failure(settings, "provider_bad_answer", "The answer could not be read", "maybe", status=200)
        elif model == "refuse":
            raise failure(
                settings, "provider_content_refused", "The model refused to answer", "maybe", reply=reply_to(call)
            )
        reply = reply_to(call)
        if listener is not None:
            for word in WORD.findall(reply.output[0]["text"] or ""):
                listener.delta(word)
        return reply

    async def _wait(self, seconds: float, timeout: float) -> None:
        await asyncio.sleep(min(seconds, timeout))
        if seconds > timeout:
            text = f"{self._settings.name} did not answer within {timeout:g} seconds"
            raise failure(self._settings, "provider_timeout", text, "maybe")

    async def close(self) -> None:
        """Nothing to close."""


def provider(settings: ProviderSettings) -> Echo:
    """The echo; it has no settings."""
    return Echo(settings)
