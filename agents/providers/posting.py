"""What the SDKs share that post one body and give a response of httpx2: whole answers and streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import orjson

from agents.providers.exchange import ATTEMPT_HEADER, CONNECT_SECONDS, CONNECTIONS, IDLE_SECONDS, Answer
from agents.providers.streamed import Streamed

LIMITS = httpx2.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_SECONDS)


class AsBuilt(httpx2.AsyncClient):
    """Mixed into an SDK's own client: what the SDK has built of a post goes out as it is.

    httpx2 would parse the address again and put the headers together three more times, a tenth of a call's CPU. Cookies that a
    provider sets are not sent back.
    """

    _address = ""
    _target = httpx2.URL()
    _own: Sequence[tuple[str, str]] = ()

    def build_request(self, method: str, url: httpx2.URL | str, **built: Any) -> httpx2.Request:
        """The request with this address, body and headers, and the client's own headers where the SDK sets none."""
        content, headers, timeout = (built.pop(name, None) for name in ("content", "headers", "timeout"))
        if not isinstance(content, bytes) or any(built.values()):
            return super().build_request(method, url, content=content, headers=headers, timeout=timeout, **built)
        if self._address != url:
            self._target, self._address = httpx2.URL(url), str(url)
            self._own = [("host", self._target.netloc.decode("ascii")), *self.headers.multi_items()]
        headers = [*(headers.items() if isinstance(headers, Mapping) else headers)]
        named = {name.lower() for name, _ in headers}
        own = (each for each in self._own if each[0] not in named)
        sent = [*own, *headers, ("Content-Length", str(len(content)))]
        request = httpx2.Request(
            method, self._target, headers=sent, stream=httpx2.ByteStream(content),
            extensions={"timeout": httpx2.Timeout(timeout).as_dict()},
        )  # fmt: skip
        request.read()
        return request


class PostingSdk(ABC):
    """An `agents.providers.exchange.Sdk` that hands the bytes of one path of an API through the SDK's own client."""

    def __init__(self, client: Any, path: str, refused: Any, stream: Any) -> None:
        """`refused` is what the SDK raises for an answer that is an error, `stream` its class of a streamed answer."""
        self._client = client
        self._url = str(client.base_url).rstrip("/") + path
        self._refused = refused
        self._stream_class = stream

    async def send(self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float) -> Answer:
        """Post the body and read the whole answer."""
        response = await self._post(body, headers, timeout, stream=False)
        return Answer(response.status_code, response.headers, response.content)

    @asynccontextmanager
    async def stream(
        self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float
    ) -> AsyncIterator[Streamed]:
        """The same, read while it comes."""
        response = await self._post(body, headers, timeout, stream=True)
        try:
            yield Streamed(response.status_code, response.headers, response.aiter_bytes())
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @abstractmethod
    def _headers(self, headers: dict[str, str]) -> dict[str, Any]:
        """The headers of a call, with what the SDK would send of its own left out."""

    async def _post(
        self, body: dict[str, Any], headers: dict[str, str], timeout: float, *, stream: bool
    ) -> httpx2.Response:
        """The response, error answers included."""
        bounds = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
        try:
            return cast(
                httpx2.Response,
                await self._client.post(
                    self._url,
                    content=orjson.dumps(body),
                    cast_to=httpx2.Response,
                    options={
                        "headers": self._headers(headers),
                        "timeout": bounds,
                        "idempotency_key": headers[ATTEMPT_HEADER],
                    },
                    stream=stream,
                    stream_cls=self._stream_class,
                ),
            )
        except self._refused as refused:
            return cast(httpx2.Response, refused.response)
