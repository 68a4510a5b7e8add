"""Check the health of the providers, in one worker at a time, and say when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from agents.model_list import CHECK_SECONDS, check_models, checkable
from agents.outgoing import Clock, Encoder
from agents.signals import FRESH_US
from config import health
from config.secrets import CredentialError
from config.transactions import Transactions
from core.alerts import health_changed
from core.health import NOT_CHECKED, OF_THE_KEY, Check, HealthRule, ProviderHealth, after, due, with_calls
from core.outcome import Outgoing
from core.registry import Provider, Registry
from core.signals import calls_of

LOG = logging.getLogger(__name__)
LEASE = "health"
#: At most so many seconds apart a worker looks whether it is the one that checks, and whether a check is due.
LOOK_SECONDS = 5.0
#: Longer than a round of checks takes, so that a provider that hangs costs no turn.
LEASE_US = 3 * int(CHECK_SECONDS * 1_000_000)

#: Opens one of the platform's keys, which may ask a service; None without one, `CredentialError` where it cannot be opened.
OpenKey = Callable[[], str | None]
#: The platform's keys of a provider, one that gives None where it has none.
KeysOf = Callable[[Provider], Sequence[OpenKey]]


class Checker:
    """Checks every enabled provider when it is due, while this worker holds the lease; `owner` is its id in the ledger.

    `publish` puts alerts on the broker, `checked` hears of each check: the provider and the result.
    """

    def __init__(
        self, registry: Callable[[], Registry], keys_of: KeysOf, transactions: Transactions, encoder: Encoder,
        publish: Callable[[tuple[Outgoing, ...]], Awaitable[None]], clock: Clock, owner: str, rule: HealthRule,
        checked: Callable[[str, str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._keys_of = keys_of
        self._transactions = transactions
        self._encoder = encoder
        self._publish = publish
        self._clock = clock
        self._owner = owner
        self._rule = rule
        self._checked = checked

    async def run(self) -> None:
        """Go on until cancelled; then another worker may take over at once."""
        pause = min(LOOK_SECONDS, self._rule.again_us / 1_000_000)
        try:
            while True:
                try:
                    await self.look()
                except Exception as why:
                    # Its type only: a database's text can hold its address.
                    LOG.warning("Providers could not be checked (%s); trying again.", type(why).__name__)
                await asyncio.sleep(pause)
        finally:
            await self._transactions.call(health.let_go, LEASE, self._owner)

    async def look(self) -> bool:
        """Check what is due if this worker is the one that checks; whether it is."""
        began = self._clock()
        turn = await self._transactions.call(
            health.take_turn, LEASE, self._owner, began, began + LEASE_US, began - FRESH_US
        )
        if turn is None:
            return False
        known, signals = turn
        waiting = [
            self._check(provider)
            for provider in self._registry().providers.values()
            if provider.enabled and due(known.get(provider.name, NOT_CHECKED), self._rule, self._clock())
        ]
        results = await asyncio.gather(*waiting)
        found = {
            name: with_calls(known.get(name, NOT_CHECKED), check, calls_of(name, signals), self._rule)
            for name, check in results
            if check is not None
        }
        now = {name: after(known.get(name, NOT_CHECKED), check, self._rule) for name, check in found.items()}
        ended = self._clock()
        # What cannot be asked any more is not what it was found to be for ever.
        lost = ProviderHealth(changed_at=ended, checked_at=ended)
        now |= {name: lost for name, check in results if check is None and known.get(name, lost).state != "unknown"}
        if not now:
            return True
        alerts = (health_changed(name, known.get(name, NOT_CHECKED), one) for name, one in now.items())
        await self._publish(tuple(self._encoder.alert(alert) for alert in alerts if alert is not None))
        kept: bool = await self._transactions.call(health.record_turn, LEASE, self._owner, ended, ended + LEASE_US, now)
        if kept:
            for name, check in found.items():
                self._checked(name, check.result)
        return kept

    async def _check(self, provider: Provider) -> tuple[str, Check | None]:
        """What the first key finds that is not at fault itself, else what the last one finds; None where nothing can be asked."""
        found = None
        try:
            async with asyncio.timeout(2 * CHECK_SECONDS):
                for open_key in self._keys_of(provider):
                    found = await self._check_with(provider, open_key)
                    if found is None or found.result not in OF_THE_KEY:
                        break
        except TimeoutError:
            found = found or Check(self._clock(), "timeout", f"It was not checked within {2 * CHECK_SECONDS:g} s.")
        return provider.name, found

    async def _check_with(self, provider: Provider, open_key: OpenKey) -> Check | None:
        try:
            key = await asyncio.to_thread(open_key)
        except CredentialError as why:
            return Check(self._clock(), "key", str(why))
        if not checkable(provider.kind, provider.base_url, key):
            return None
        return await check_models(provider.kind, provider.base_url, key, self._clock())
