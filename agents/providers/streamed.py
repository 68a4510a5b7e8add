"""A streamed answer: read event by event, put together again, and a failure whenever it does not come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from agents.providers.base import Listener, fields
from agents.providers.failures import code_of, failure, said
from agents.providers.sse import Events
from config.settings import ProviderSettings
from core.errors import ProviderError

EVENT_STREAM = "text/event-stream"

#: What the error events of Anthropic and OpenAI are called
#: (https://docs.anthropic.com/en/api/errors, https://platform.openai.com/docs/guides/error-codes).
CODES = {
    "overloaded_error": "provider_unavailable",
    "api_error": "provider_unavailable",
    "server_error": "provider_unavailable",
    "timeout_error": "provider_timeout",
    "rate_limit_error": "provider_rate_limited",
    "rate_limit_exceeded": "provider_rate_limited",
    "invalid_request_error": "provider_invalid_request",
}


@dataclass(frozen=True, slots=True)
class Streamed:
    """An HTTP answer of any status whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    content: AsyncIterator[bytes]

    @property
    def is_events(self) -> bool:
        """Whether it is a stream; errors, and the answers of servers that do not stream, are whole documents."""
        return 200 <= self.status < 300 and EVENT_STREAM in self.headers.get("content-type", "").lower()


class Assembler(Protocol):
    """Puts the events of one API's stream together; pure, and made for one stream.

    `complete` when the mark that ends the stream has come, `counted` when the usage in `reported` is that of the whole call,
    `advanced` when the last event brought something of the answer, of its thinking or of its end: what only keeps a
    connection open does not.
    """

    complete: bool
    counted: bool
    advanced: bool

    def feed(self, data: str) -> str | None:
        """The text that an event adds to the answer, empty for another piece of it, None where it adds nothing.

        `StreamBroke` for an event that says an error; ValueError, LookupError, TypeError or AttributeError for one that is none.
        """
        ...

    def reported(self) -> dict[str, Any]:
        """What has been told of usage and identity so far, in the fields of the answer that is not streamed."""
        ...

    def body(self) -> dict[str, Any]:
        """The answer that the API gives when it does not stream; ValueError where a tool's arguments are not whole."""
        ...


@dataclass(frozen=True, slots=True)
class Streaming:
    """How an API streams: what the request's body says beside the rest, and what puts the answer together."""

    asked: Mapping[str, Any]
    assembler: Callable[[], Assembler]


class StreamBroke(Exception):
    """The stream says that it broke off; `event` is the error as the provider tells it."""

    def __init__(self, event: dict[str, Any]) -> None:
        super().__init__("The stream says an error.")
        self.event = event


def parsed(data: str) -> dict[str, Any]:
    """An event's data; ValueError where it is no JSON object, `StreamBroke` where it holds an error."""
    event = orjson.loads(data)
    if not isinstance(event, dict):
        raise ValueError("an event that is not a JSON object")
    if event.get("error"):
        raise StreamBroke(event)
    return event


async def follow(
    content: AsyncIterator[bytes],
    assembler: Assembler,
    listener: Listener,
    settings: ProviderSettings,
    limit: asyncio.Timeout,
) -> None:
    """Read a stream to its end; `ProviderError` when an event is malformed or an error, or when the end never comes.

    From the first piece of the answer on, `limit` allows `settings.stream_stall_seconds` without an event that advances it;
    before it, and in all, what it allowed to begin with.
    """
    clock, ends = asyncio.get_running_loop().time, limit.when()
    events, begun = Events(), False
    async for piece in content:
        advanced = False
        for data in _events_of(events, piece, settings):
            text = _fed(assembler, data, settings)
            advanced |= assembler.advanced
            if text is not None:
                begun = True
                listener.delta(text)
        if begun and advanced and ends is not None:
            limit.reschedule(min(ends, clock() + settings.stream_stall_seconds))
    if not assembler.complete:
        what = f"The stream of {settings.name} ended without the mark of its end"
        raise failure(settings, "provider_bad_answer", what, "maybe", status=200)


def _events_of(events: Events, piece: bytes, settings: ProviderSettings) -> list[str]:
    try:
        return events.feed(piece)
    except UnicodeDecodeError:
        raise _malformed(settings, "is not UTF-8") from None


def _fed(assembler: Assembler, data: str, settings: ProviderSettings) -> str | None:
    try:
        return assembler.feed(data)
    except StreamBroke as broke:
        what = f"The stream of {settings.name} broke off with an error"
        raise failure(settings, _code(broke.event), what, "maybe", said(broke.event), status=200) from None
    except (ValueError, LookupError, TypeError, AttributeError) as why:
        raise _malformed(settings, f"could not be read ({type(why).__name__})") from None


def _malformed(settings: ProviderSettings, what: str) -> ProviderError:
    what = f"An event in the stream of {settings.name} {what}"
    return failure(settings, "provider_bad_answer", what, "maybe", status=200)


def _code(event: dict[str, Any]) -> str:
    """The code of an error event: by its HTTP status where it tells one, as Gemini's do, else by its name."""
    told = fields(event["error"])
    status = told.get("code")
    if isinstance(status, int) and 400 <= status <= 599:
        return code_of(status, event)
    return next((CODES[name] for name in (status, told.get("type")) if name in CODES), "provider_bad_answer")
