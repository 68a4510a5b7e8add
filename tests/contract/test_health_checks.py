"""The health checker against the providers of the simulator: what a check finds, and what many of them come to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from agents.health import Checker, OpenKey
from agents.model_list import RESULTS, check_models, checkable
from agents.outgoing import Encoder
from agents.signals import Signals
from agents.standings import Standings
from config import health
from config.credentials import Credential
from config.key_encryption import EncryptionKeys, LocalKey
from config.keyring import Keyring
from config.secrets import Binding, seal
from config.transactions import Transactions
from core.health import Check, HealthRule
from core.outcome import Outgoing
from core.registry import Provider, Registry
from core.signals import Signal
from local.processes import free_port
from schemas.codec import Codec
from tests.contract.simulator import Simulator

NOW = 1_795_258_680_000_000
SECOND = 1_000_000
RULE = HealthRule()
KEY = "sk-health-0123456789abcdef"
PATHS = {"openai": "/openai/v1", "openai-compatible": "/openai/v1", "anthropic": "/anthropic", "google": "/google"}


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


def checked(simulator: Simulator, kind: str, key: str | None = KEY, seconds: float = 10) -> Check:
    """What one check of a provider of this kind finds."""
    return asyncio.run(check_models(kind, simulator.url + PATHS[kind], key, NOW, seconds))


@pytest.mark.parametrize("kind", PATHS)
def test_a_check_finds_what_is_wrong(simulator: Simulator, kind: str) -> None:
    """Each kind of provider answers its list of models; every way not to has its own word, and no message holds the key."""
    assert checked(simulator, kind) == Check(NOW)
    for directives, seconds, result, says in (
        ({"status": 503}, 10, "status", "503"), ({"status": 429}, 10, "limited", "429"), ({"fault": "garbage"}, 10, "garbage", "200"),
        ({"latency_ms": 5_000}, 0.3, "timeout", "0.3 s"), ({"fault": "hang"}, 0.3, "timeout", "0.3 s"),
        ({"fault": "reset"}, 10, "connection", "connection"),
    ):  # fmt: skip
        simulator.hold(kind, **directives)
        found = checked(simulator, kind, seconds=seconds)
        assert found.result == result and result in RESULTS
        assert says in (found.error or "") and KEY not in (found.error or "")
    simulator.release()
    if kind != "openai-compatible":
        assert checked(simulator, kind, key="bad-key").result == "auth"


def test_an_address_where_nobody_listens_is_a_failed_connection() -> None:
    """A provider that is gone is told from one that answers badly."""
    found = asyncio.run(check_models("openai", f"http://127.0.0.1:{free_port()}", KEY, NOW))
    assert found.result == "connection"


def test_what_cannot_be_asked_is_not_checked() -> None:
    """A provider without its key, a server without its address and one without a network say nothing about health."""
    assert checkable("openai", None, KEY) and not checkable("openai", None, None)
    assert checkable("openai-compatible", "http://127.0.0.1:1", None) and not checkable("openai-compatible", None, KEY)
    assert not checkable("echo", None, None)


#: A key that the keyring has, and one that is gone from it.
KEYS, GONE = EncryptionKeys((LocalKey("k1", bytes(32)),)), EncryptionKeys((LocalKey("k2", bytes(32)),))


def credential(secret: str, keys: EncryptionKeys = KEYS) -> Credential:
    """One of the platform's keys of OpenAI; the simulator refuses `bad-key`."""
    sealed = seal(keys, Binding(secret, "openai", None, "", 1), secret)
    return Credential(secret, "openai", None, "", "", 1, True, NOW, None, None, 1, sealed)


class Worker:
    """A checker with a clock that the test sets, what it published and what it counted."""

    def __init__(self, engine: Engine, simulator: Simulator, owner: str) -> None:
        self.now = NOW
        self.alerts: list[tuple[str, str, str]] = []
        self.counted: list[tuple[str, str]] = []
        self.keyring = Keyring(KEYS)
        self.key: str | None = KEY
        self.away = False
        self.transactions = Transactions(engine, 10, 0)
        self.signals = Signals(owner, lambda: self.now)
        self.standings = Standings(self.transactions, self.signals, lambda: self.now)
        registry = Registry({
            "openai": Provider("openai", "openai", f"{simulator.url}/openai/v1"),
            "google": Provider("google", "google", f"{simulator.url}/google"),
            "anthropic": Provider("anthropic", "anthropic", f"{simulator.url}/anthropic", enabled=False),
            "echo": Provider("echo", "echo"),
        })  # fmt: skip
        encoder = Encoder(Codec(), "health", lambda: self.now)
        self.checker = Checker(
            lambda: registry, self._keys, self.transactions, encoder, self._publish, lambda: self.now, owner, RULE,
            lambda provider, result: self.counted.append((provider, result)),
        )  # fmt: skip

    def _keys(self, provider: Provider) -> Sequence[OpenKey]:
        return self.keyring.platform_keys(provider.name) or [lambda: self.key]

    async def _publish(self, events: tuple[Outgoing, ...]) -> None:
        if events and self.away:
            raise ConnectionError
        for event in events:
            alert: Any = Codec().decode("LlmAlert", event.value)
            assert event.topic == "llm.alerts.v1" and event.key == alert["subject"].encode()
            self.alerts.append((alert["kind"], alert["subject"], alert["message"]))

    async def look(self, after: int = 0) -> bool:
        """Look once, so many seconds later."""
        self.now += after * SECOND
        return await self.checker.look()

    async def state(self, provider: str) -> str:
        """A provider's health as any worker hears it."""
        await self.standings.refresh()
        return self.standings.current()[provider].health


def with_workers(engine: Engine, simulator: Simulator, use: Callable[..., Awaitable[None]], count: int = 1) -> None:
    """Run a coroutine function with so many workers on one database."""

    async def main() -> None:
        workers = [Worker(engine, simulator, f"worker-{number}") for number in range(count)]
        try:
            await use(*workers)
        finally:
            for worker in workers:
                await worker.transactions.close()

    asyncio.run(main())


def test_a_provider_that_is_down_leaves_and_comes_back_after_three_good_checks(
    engine: Engine, simulator: Simulator
) -> None:
    """Three failed checks make it unhealthy and are one alert, three good ones healthy and another; the others are untouched."""

    async def use(worker: Worker) -> None:
        assert await worker.look()
        assert await worker.state("openai") == "healthy"
        simulator.hold("openai", status=503)
        for state in ("suspect", "suspect", "unhealthy"):
            await worker.look(after=300)
            assert await worker.state("openai") == state
        simulator.release()
        for state in ("unhealthy", "unhealthy", "healthy"):
            await worker.look(after=60)
            assert await worker.state("openai") == state
        assert await worker.state("google") == "healthy"
        assert [alert[:2] for alert in worker.alerts] == [
            ("provider_unhealthy", "openai"),
            ("provider_healthy", "openai"),
        ]
        assert "503" in worker.alerts[0][2] and KEY not in worker.alerts[0][2]
        assert worker.counted.count(("openai", "status")) == 3
        assert {provider for provider, _ in worker.counted} == {"openai", "google"}

    with_workers(engine, simulator, use)


def test_what_can_no_longer_be_checked_is_not_unhealthy_for_ever(engine: Engine, simulator: Simulator) -> None:
    """Without the key that was refused nobody knows how the provider does, and an alert says that it gets calls again."""

    async def use(worker: Worker) -> None:
        simulator.hold("openai", status=401)
        for after in (0, 300, 300):
            await worker.look(after)
        assert await worker.state("openai") == "unhealthy"
        assert worker.standings.current()["openai"].of_the_key
        simulator.release()
        worker.key = None
        await worker.look(after=60)
        assert await worker.state("openai") == "unknown"
        said = [alert for alert in worker.alerts if alert[1] == "openai"]
        assert [alert[0] for alert in said] == ["provider_unhealthy", "provider_healthy"]
        assert "no key left" in said[1][2]
        await worker.look(after=300)
        assert await worker.state("openai") == "unknown"

    with_workers(engine, simulator, use)


def test_an_alert_that_could_not_be_published_is_published_later(engine: Engine, simulator: Simulator) -> None:
    """While the broker is away the change is not kept, so that the next check finds it again."""

    async def use(worker: Worker) -> None:
        await worker.look()
        simulator.hold("openai", status=503)
        for _ in range(2):
            await worker.look(after=300)
        worker.away = True
        with pytest.raises(ConnectionError):
            await worker.look(after=300)
        assert await worker.state("openai") == "suspect"
        worker.away = False
        await worker.look(after=60)
        assert await worker.state("openai") == "unhealthy"
        assert [alert[:2] for alert in worker.alerts] == [("provider_unhealthy", "openai")]

    with_workers(engine, simulator, use)


def test_nothing_is_asked_before_it_is_due(engine: Engine, simulator: Simulator) -> None:
    """A healthy provider every five minutes, one that failed every minute."""

    async def use(worker: Worker) -> None:
        simulator.hold("openai", fault="garbage")
        for after in (0, 59, 1, 239, 1):
            await worker.look(after)
        assert worker.counted.count(("openai", "garbage")) == 3
        assert worker.counted.count(("google", "good")) == 2

    with_workers(engine, simulator, use)


def test_a_provider_whose_calls_fail_is_not_well_although_its_list_answers(
    engine: Engine, simulator: Simulator
) -> None:
    """What all workers saw of their calls counts as a failed check."""

    async def use(worker: Worker) -> None:
        told = Signal("openai", "gpt-5", "", "elsewhere", 2, 9, None, None, None, NOW, NOW)
        await worker.transactions.call(health.tell, [told])
        await worker.look()
        assert sorted(worker.counted) == [("google", "good"), ("openai", "calls")]
        assert await worker.state("openai") == "suspect"
        # Nothing was called since, so the next check stands.
        await worker.look(after=60)
        assert await worker.state("openai") == "healthy"

    with_workers(engine, simulator, use)


@pytest.mark.parametrize(
    ("held", "result", "says"),
    [
        ([credential("gone", GONE)], "key", "Credential gone is encrypted under the key local:k2"),
        ([credential("bad-key")], "auth", "401"),
        ([credential("bad-key"), credential("gone", GONE)], "key", "Credential gone"),
        ([credential("bad-key"), credential("gone", GONE), credential(KEY)], "good", ""),
    ],
)  # fmt: skip
def test_a_provider_is_as_well_as_its_best_key(
    engine: Engine, simulator: Simulator, held: list[Credential], result: str, says: str
) -> None:
    """A key that is refused or cannot be opened fails the check where no other serves, and no other provider's check."""

    async def use(worker: Worker) -> None:
        worker.keyring.load(held)
        for after in (0, 300, 300):
            assert await worker.look(after)
        assert worker.counted.count(("openai", result)) == worker.counted.count(("google", "good")) == 3
        assert await worker.state("openai") == ("healthy" if result == "good" else "unhealthy")
        assert [says in text for _, _, text in worker.alerts] == ([] if result == "good" else [True])

    with_workers(engine, simulator, use)


def test_a_provider_that_is_down_is_asked_with_one_key(engine: Engine, simulator: Simulator) -> None:
    """What is not the key's fault is not tried again with another."""

    async def use(worker: Worker) -> None:
        worker.keyring.load([credential(KEY), credential("gone", GONE)])
        simulator.hold("openai", status=503)
        assert await worker.look()
        assert worker.counted.count(("openai", "status")) == 1

    with_workers(engine, simulator, use)


def test_one_worker_at_a_time_checks_and_another_takes_over(engine: Engine, simulator: Simulator) -> None:
    """While one holds the lease the other only looks; when it is gone, or lets go, the other checks."""

    async def use(first: Worker, second: Worker) -> None:
        for _ in range(3):
            assert await first.look(after=10)
            assert not await second.look(after=10)
        second.now = first.now + 31 * SECOND
        assert await second.look()
        assert not await first.look()
        await second.transactions.call(health.let_go, "health", "worker-1")
        assert await first.look()

    with_workers(engine, simulator, use, count=2)


def test_a_checker_that_lost_its_turn_writes_nothing(engine: Engine, simulator: Simulator) -> None:
    """A worker that hung in the middle of its checks finds another at work, and what it found is dropped."""

    async def use(first: Worker, second: Worker) -> None:
        simulator.hold("openai", latency_ms=1_000, status=503)
        slow = asyncio.create_task(first.look())
        await asyncio.sleep(0.3)
        first.now = second.now = NOW + 3_600 * SECOND
        simulator.release()
        assert await second.look()
        assert not await slow
        assert await second.state("openai") == "healthy"
        assert first.counted == []

    with_workers(engine, simulator, use, count=2)


def test_a_running_checker_lets_go_when_it_is_stopped(engine: Engine, simulator: Simulator) -> None:
    """A worker that drains leaves the checks to the next at once."""

    async def use(first: Worker, second: Worker) -> None:
        running = asyncio.create_task(first.checker.run())
        while not first.counted:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await second.look()

    with_workers(engine, simulator, use, count=2)
