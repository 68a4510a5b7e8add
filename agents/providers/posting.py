"""What the SDKs share that post one body and give a response of httpx2: whole answers and streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from agents.providers.exchange import Answer
from agents.providers.streamed import Streamed


class PostingSdk(ABC):
    """An `agents.providers.exchange.Sdk`; `_client` is the SDK's own client."""

    _client: Any

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
    async def _post(
        self, body: dict[str, Any], headers: dict[str, str], timeout: float, *, stream: bool
    ) -> httpx2.Response:
        """The response, error answers included."""
