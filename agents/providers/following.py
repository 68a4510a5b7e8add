"""A provider whose settings may change while it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agents.providers import provider
from agents.providers.base import Listener, Provider
from config.settings import Key, ProviderSettings
from core.reply import Reply
from schemas.events import LlmCall


@dataclass(slots=True)
class _Client:
    """A provider as it was reached at some time, and how many calls are under way there."""

    settings: ProviderSettings
    provider: Provider
    calls: int = 0


class Following:
    """A provider that is called by its settings as they are now; see `agents.providers.base.Provider`.

    After a change the next call makes new connections; those of before are closed when the last call on them has ended.
    """

    def __init__(self, settings: Callable[[], ProviderSettings]) -> None:
        """Errors as for `agents.providers.provider`."""
        self._settings = settings
        self._client = _client(settings())
        self._closing: set[asyncio.Task[None]] = set()

    async def call(
        self, call: LlmCall, attempt_id: str, timeout: float, key: Key | None = None, listener: Listener | None = None
    ) -> Reply:
        """The provider's answer; `ProviderError` when there is none."""
        if (settings := self._settings()) != self._client.settings:
            before, self._client = self._client, _client(settings)
            self._close_if_done(before)
        client = self._client
        client.calls += 1
        try:
            return await client.provider.call(call, attempt_id, timeout, key, listener)
        finally:
            client.calls -= 1
            self._close_if_done(client)

    async def close(self) -> None:
        """Close the connections to the provider; no call may follow."""
        await self._client.provider.close()
        await asyncio.gather(*self._closing)

    def _close_if_done(self, client: _Client) -> None:
        if client is not self._client and not client.calls:
            task = asyncio.create_task(client.provider.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _client(settings: ProviderSettings) -> _Client:
    return _Client(settings, provider(settings))
