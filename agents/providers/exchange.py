"""One call over HTTP through a provider's SDK: bounded in time, and every way it can fail told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import aiohttp
import httpx2
import orjson

from agents.providers.base import Listener, is_empty, used_only
from agents.providers.failures import LONGEST_MESSAGE, failure, said, status_failure, without_secrets
from agents.providers.streamed import Assembler, Streamed, Streaming, follow
from config.settings import Key, ProviderSettings
from core.errors import ProviderError, error
from core.reply import Reply
from schemas.events import LlmCall, Tokens

#: More than any lane has under way; the lane's own semaphore is the bound, the pool must not be a second one.
CONNECTIONS = 100_000
IDLE_SECONDS = 15.0
CONNECT_SECONDS = 10.0

ATTEMPT_HEADER = "X-Client-Request-Id"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status, its body as bytes."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Sdk(Protocol):
    """A provider's official SDK with its retries off: one request in, one HTTP answer out."""

    async def send(self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float) -> Answer:
        """The answer, error answers included; what kept it from coming is raised as the SDK raises it."""
        ...

    def stream(
        self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float
    ) -> AbstractAsyncContextManager[Streamed]:
        """The same while it arrives; leaving the context closes its connection where it has not ended."""
        ...

    async def close(self) -> None:
        """Close the SDK's connections."""
        ...


@dataclass(frozen=True, slots=True)
class Api:
    """A provider's HTTP API: pure translations, the header that carries a key, and the SDK, which holds no key."""

    translate_request: Callable[[LlmCall], dict[str, Any]]
    translate_response: Callable[[dict[str, Any]], Reply]
    usage_of: Callable[[dict[str, Any]], Tokens]
    terms_of: Callable[[dict[str, Any]], str | None]
    streaming: Streaming
    key_header: Callable[[str], dict[str, str]]
    sdk: Callable[[ProviderSettings], Sdk]
    sdk_errors: tuple[type[Exception], ...]


class HttpProvider:
    """A provider behind an HTTP API; see `agents.providers.base.Provider`."""

    def __init__(self, settings: ProviderSettings, api: Api, *, key_needed: bool = True) -> None:
        self._settings = settings
        self._api = api
        self._key_needed = key_needed
        self._sdk = api.sdk(settings)
        self._errors: tuple[type[Exception], ...] = (
            *api.sdk_errors, aiohttp.ClientError, httpx2.InvalidURL, httpx2.TransportError, OSError, UnicodeDecodeError,
        )  # fmt: skip

    async def call(
        self, call: LlmCall, attempt_id: str, timeout: float, key: Key | None = None, listener: Listener | None = None
    ) -> Reply:
        """The provider's answer; `ProviderError` when there is none."""
        settings = self._settings.with_key(key)
        try:
            if listener is not None:
                reply = await self._stream(call, attempt_id, timeout, settings, listener)
            else:
                reply = await self._call(call, attempt_id, timeout, settings)
            if not is_empty(call, reply):
                return reply
            what = f"neither text nor a tool's call (finish reason {reply.finish_reason})"
            failed = self._bad_answer(200, what, replace(reply, output=()))
        except ProviderError as known:
            failed = known
        except self._errors as raised:
            failed = self._from_exception(raised, timeout)
        # A new exception, raised where none is being handled: no chain leads from it to an SDK's exception, whose request
        # holds the key.
        message = without_secrets(failed.error["message"], settings.api_key, LONGEST_MESSAGE)
        clean = failed.error | {"message": message}
        raise ProviderError(clean, failed.charged, failed.reply)  # type: ignore[arg-type]

    async def close(self) -> None:
        """Close the connections to the provider."""
        await self._sdk.close()

    async def _call(self, call: LlmCall, attempt_id: str, timeout: float, settings: ProviderSettings) -> Reply:
        body = self._api.translate_request(call)
        headers = self._headers(attempt_id, settings)
        async with asyncio.timeout(timeout):
            answer = await self._sdk.send(call["model"], body, headers, timeout)
        return self._read(answer, settings)

    async def _stream(
        self, call: LlmCall, attempt_id: str, timeout: float, settings: ProviderSettings, listener: Listener
    ) -> Reply:
        """As `_call`, streamed; a call that ends before its stream does keeps what was told of its usage."""
        streaming = self._api.streaming
        body = {**self._api.translate_request(call), **streaming.asked}
        headers, assembler = self._headers(attempt_id, settings), streaming.assembler()
        ends = asyncio.get_running_loop().time() + timeout
        limit = asyncio.timeout_at(ends)
        failed: ProviderError | None = None
        try:
            async with limit, self._sdk.stream(call["model"], body, headers, timeout) as answer:
                if not answer.is_events:
                    content = b"".join([piece async for piece in answer.content])
                    return _heard(self._read(Answer(answer.status, answer.headers, content), settings), listener)
                await follow(answer.content, assembler, listener, settings, limit)
        except ProviderError as known:
            failed = known
        except asyncio.CancelledError:
            listener.gave_up(self._told(assembler))
            raise
        except self._errors as raised:
            # What befalls the connection after the mark of the end does not make the answer less whole.
            if not assembler.complete:
                failed = self._broken(raised, timeout, limit.expired() and (limit.when() or ends) < ends)
        if failed is None:
            try:
                return replace(self._translated(200, assembler.body), counted=assembler.counted)
            except ProviderError as refused:
                failed = refused
        if failed.charged == "maybe":
            failed.reply = self._told(assembler) or failed.reply
        raise failed

    def _broken(self, raised: Exception, timeout: float, silent: bool) -> ProviderError:
        """The failure for what ended a stream before its time."""
        if not silent:
            return self._from_exception(raised, timeout)
        seconds = self._settings.stream_stall_seconds
        what = f"The stream of {self._settings.name} brought nothing for {seconds:g} seconds"
        return failure(self._settings, "provider_timeout", what, "maybe", status=200)

    def _told(self, assembler: Assembler) -> Reply | None:
        """What a stream that broke off has told of its usage."""
        told = assembler.reported()
        usage, model = told.get("usage", told.get("usageMetadata")), told.get("model", told.get("modelVersion"))
        response_id, terms = told.get("id", told.get("responseId")), self._api.terms_of(told)
        used = used_only(self._api.usage_of(told), usage, model, response_id, terms)
        return None if used is None else replace(used, counted=assembler.counted)

    def _headers(self, attempt_id: str, settings: ProviderSettings) -> dict[str, str]:
        """The headers of one call, its key among them; `ProviderError` for a key that is missing or cannot be sent."""
        key = settings.api_key
        if (self._key_needed or key) and (problem := key_problem(settings)) is not None:
            raise ProviderError(error("provider_auth", problem), "no")
        return {ATTEMPT_HEADER: attempt_id, **(self._api.key_header(key) if key else {})}

    def _read(self, answer: Answer, settings: ProviderSettings) -> Reply:
        if not 200 <= answer.status < 300:
            raise status_failure(settings, answer.status, answer.headers, _json_or_text(answer.content))
        try:
            body = orjson.loads(answer.content)
        except orjson.JSONDecodeError as why:
            raise self._bad_answer(answer.status, f"{len(answer.content)} bytes that are not JSON ({why})") from None
        if not isinstance(body, dict):
            raise self._bad_answer(answer.status, "JSON that is not an object")
        if body.get("error"):
            raise self._error_inside(settings, answer, body)
        return self._translated(answer.status, lambda: body)

    def _translated(self, status: int, body_of: Callable[[], dict[str, Any]]) -> Reply:
        body: dict[str, Any] = {}
        try:
            body = body_of()
            return self._api.translate_response(body)
        except (LookupError, TypeError, AttributeError, ValueError) as why:
            lacking = f"an answer without the expected fields ({type(why).__name__}: {why})"
            raise self._bad_answer(status, lacking, self._used(body)) from None

    def _bad_answer(self, status: int, what: str, reply: Reply | None = None) -> ProviderError:
        what = f"{self._settings.name} answered {status} with {what}"
        return failure(self._settings, "provider_bad_answer", what, "maybe", status=status, reply=reply)

    def _error_inside(self, settings: ProviderSettings, answer: Answer, body: dict[str, Any]) -> ProviderError:
        """The failure for an error object inside a success; it is charged only where something was generated as well."""
        used = self._used(body)
        generated = used is not None or any(body.get(name) for name in ("choices", "content", "candidates"))
        what = f"{settings.name} answered {answer.status} with an error inside"
        return failure(
            settings, "provider_bad_answer", what, "maybe" if generated else "no", said(body),
            status=answer.status, reply=used,
        )  # fmt: skip

    def _used(self, body: dict[str, Any]) -> Reply | None:
        usage = body.get("usage", body.get("usageMetadata"))
        return used_only(self._api.usage_of(body), usage, None, None, self._api.terms_of(body))

    def _from_exception(self, raised: Exception, timeout: float) -> ProviderError:
        settings = self._settings
        for link in _chain(raised):
            name = type(link).__name__
            if isinstance(link, NOT_OPENED):
                what = f"The connection to {settings.name} could not be opened ({name}); check its base URL and the network"
                return failure(settings, "provider_connection", what, "no")
            if isinstance(link, TimeoutError):
                what = f"{settings.name} did not answer within {timeout:g} seconds"
                return failure(settings, "provider_timeout", what, "maybe")
            if isinstance(link, UNREADABLE):
                what = f"The answer of {settings.name} was cut off or could not be read ({name})"
                return failure(settings, "provider_bad_answer", what, "maybe")
            if isinstance(link, aiohttp.ClientError | OSError):
                break
        what = f"The connection to {settings.name} was lost before its answer came ({name})"
        return failure(settings, "provider_connection", what, "maybe")


#: Nothing was sent, so nothing is charged; a time-out while connecting is one of these, not one of the answer.
NOT_OPENED = (
    aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, httpx2.InvalidURL,
    httpx2.UnsupportedProtocol,
)  # fmt: skip
UNREADABLE = (
    aiohttp.ClientPayloadError, aiohttp.ClientResponseError, httpx2.DecodingError, json.JSONDecodeError, UnicodeDecodeError,
)  # fmt: skip


def key_problem(settings: ProviderSettings) -> str | None:
    """Why no call can be made with this key, naming the provider and the setting, or None when one can."""
    key = settings.api_key
    if not key:
        return f"{settings.name} needs a key and {settings.key_setting} is not set; set it and restart the worker."
    if not (key.isascii() and key.isprintable() and " " not in key):
        return (
            f"The key of {settings.name} in {settings.key_setting} has spaces, line ends or other characters that no "
            "HTTP header carries; set it again."
        )
    return None


def _chain(raised: BaseException) -> Iterator[BaseException]:
    """An exception and those it came from, the outermost first; the SDKs wrap aiohttp's several times."""
    link: BaseException | None = raised
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _heard(reply: Reply, listener: Listener) -> Reply:
    """An answer that came as a whole although a stream was asked for, told as one piece."""
    for part in reply.output:
        listener.delta(part["text"] or "")
    return reply


def _json_or_text(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode("utf-8", "replace")
