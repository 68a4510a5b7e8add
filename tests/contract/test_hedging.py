"""Two lanes at one request, with their ledger and the real SDKs: who answers, and what becomes of the other call, without a broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from multiprocessing import get_context
from typing import Any

import pytest
from sqlalchemy import Engine

from agents.cancel import Cancellations
from agents.complete import Complete, CompleteRules
from agents.ledgers import Ledgers
from agents.meter import Meter
from agents.providers import provider
from agents.signals import Signals
from config import audit, ledger
from config.database import open_database
from config.key_encryption import EncryptionKeys
from config.keyring import Keyring
from config.prices import Prices
from config.transactions import Transactions
from config.upkeep import heartbeat, leave
from core.fallback import at_candidate
from core.outcome import Emit, Outgoing, Record
from core.registry import Registry
from core.retry import RetryRule
from core.topics import RESPONSES, USAGE, calls
from schemas.codec import Codec, Event
from schemas.events import Candidate, LlmCall
from tests.contract.calling import MODELS, settings_of, until
from tests.contract.simulator import Simulator
from tests.examples import call

CODEC = Codec()
BOUND = 1_000_000
FIRST, SECOND = "openai", "anthropic"


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


def asked(sim: dict[str, Any] | None = None, wait_ms: int | None = 50, **changes: Any) -> LlmCall:
    """A request for the first provider's model, which the second's is to answer when it is late."""
    directive = f" [[sim {json.dumps(sim)}]]" if sim else ""
    candidates = [
        Candidate(
            provider=name, model=MODELS[name], max_output_tokens=100, reserved_nano_usd=BOUND,
            hedge_after_us=None if wait_ms is None else wait_ms * 1_000,
        )
        for name in (FIRST, SECOND)
    ]  # fmt: skip
    made = call(prompt=f"Hello.{directive}", model=f"{FIRST}/{MODELS[FIRST]}", **changes)
    return at_candidate({**made, "candidates": candidates}, 0)


class Worker:
    """A worker process with both lanes; `log` has what it puts on the topics, in order, as often as it does."""

    def __init__(
        self, engine: Engine, simulator: Simulator, log: list[Outgoing], attempts: int = 1, lease_seconds: int = 3_600
    ) -> None:
        self.owner = str(uuid.uuid4())
        self.log = log
        self._engine = engine
        self._transactions = Transactions(engine, 10, 0.001)
        self._providers = {name: provider(settings_of(name, simulator.url)) for name in (FIRST, SECOND)}
        rules = CompleteRules(lambda: 4, 30, RetryRule(attempts, 0.05, 30), 1_000_000)
        signals = Signals(self.owner, now_us)
        self._lanes = {
            name: Complete(
                CODEC, Ledgers(self._transactions), name, made, rules, lambda: Prices(Registry()), Keyring(EncryptionKeys(())),
                signals, now_us, self.owner, lambda _: None, self._publish, Cancellations(),
            )
            for name, made in self._providers.items()
        }  # fmt: skip
        with engine.begin() as db:
            heartbeat(db, self.owner, now_us() + lease_seconds * 1_000_000)

    async def _publish(self, events: tuple[Outgoing, ...]) -> None:
        self.log += events

    async def deal_with(self, name: str, value: bytes) -> None:
        """Deal with one record of a lane and publish what follows from it."""
        outcome = await self._lanes[name](Record(calls(name).name, 0, 0, b"", value, [], now_us()))
        assert isinstance(outcome, Emit)
        self.log += outcome.events

    def die(self) -> None:
        """Count as dead at once."""
        with self._engine.begin() as db:
            leave(db, self.owner)

    async def close(self) -> None:
        """Let go of everything."""
        for made in self._providers.values():
            await made.close()
        await self._transactions.close()


class World:
    """A ledger, two workers, a log, and one admitted request."""

    def __init__(self, engine: Engine, simulator: Simulator, request: LlmCall, attempts: int = 1) -> None:
        self.engine = engine
        self.simulator = simulator
        self.log: list[Outgoing] = []
        self.workers = [Worker(engine, simulator, self.log, attempts) for _ in range(3)]
        self.id = request["request"]["request_id"]
        self.value = CODEC.encode("LlmCall", request)
        with engine.begin() as db:
            ledger.admit(db, [ledger.Admission(self.id, b"body".ljust(32), "acme", BOUND, None, now_us())])

    def records(self, record: str, topic: str) -> list[Event]:
        return [CODEC.decode(record, event.value) for event in self.log if event.topic == topic]

    def hedges(self) -> list[bytes]:
        """The calls that were published for the second lane."""
        return [event.value for event in self.log if event.topic == calls(SECOND).name]

    async def hedge(self) -> bytes:
        """The hedge, once it is there."""
        await until(lambda: self.hedges())
        return self.hedges()[0]

    async def both_begun(self) -> None:
        """Wait until both calls have reached their providers."""
        await until(lambda: self.simulator.in_flight() == 2)

    def answer(self) -> Event:
        """The one answer."""
        [answer] = self.records("LlmResponse", RESPONSES.name)
        return answer

    async def usages(self) -> dict[int, Event]:
        """The usage events, each published once, by number; the meter has settled them and nothing is held any more."""
        found = self.records("LlmUsage", USAGE.name)
        by_number = {usage["attempt"]: usage for usage in found}
        assert len(by_number) == len(found) == self.answer()["attempts"]
        transactions = Transactions(self.engine, 10, 0.001)
        meter = Meter(CODEC, Ledgers(transactions))
        for event in [event for event in self.log if event.topic == USAGE.name]:
            assert await meter(Record(USAGE.name, 0, 0, b"", event.value, [], now_us())) == Emit(())
        with self.engine.begin() as db:
            totals = audit.totals(db)
        await transactions.close()
        spent = sum(usage["cost_nano_usd"] or 0 for usage in found)
        unknown = sum(usage["reserved_nano_usd"] for usage in found if usage["cost_nano_usd"] is None)
        assert (totals.spent_nano, totals.reserved_nano, totals.unknown_nano) == (spent, 0, unknown)
        assert (totals.unanswered, totals.unsettled) == (0, 0)
        return by_number


def run(
    engine: Engine, simulator: Simulator, request: LlmCall, story: Callable[[World], Coroutine[Any, Any, None]], attempts: int = 1
) -> None:  # fmt: skip
    """Let a story happen to a request."""

    async def main() -> None:
        # The simulator is shared, and may still be at a call whose caller was killed.
        await until(lambda: simulator.in_flight() == 0)
        world = World(engine, simulator, request, attempts)
        try:
            await story(world)
        finally:
            for worker in world.workers:
                await worker.close()

    asyncio.run(main())


@asynccontextmanager
async def lanes(world: World) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Task[None]]]:
    """The first call in the first worker, and the hedge in the second, both begun; at the end both have come to theirs."""
    first = asyncio.create_task(world.workers[0].deal_with(FIRST, world.value))
    second = asyncio.create_task(world.workers[1].deal_with(SECOND, await world.hedge()))
    await world.both_begun()
    yield first, second
    await asyncio.wait([first, second])
    for task in (first, second):
        if not task.cancelled():
            task.result()


@pytest.fixture
def slow(simulator: Simulator) -> Callable[..., None]:
    """Makes a provider slow, or fail, for the length of a test."""
    return lambda name, latency_ms, **how: simulator.hold(name, latency_ms=latency_ms, **how)


def told(usage: Event) -> tuple[str, str, str | None, str]:
    return usage["provider"], usage["reason"], usage["error_code"], usage["cost_status"]


def test_a_hedge_that_is_faster_answers_and_the_late_call_is_broken_off(
    engine: Engine, simulator: Simulator, slow: Any
) -> None:
    """One answer, the second provider's; the first one's call ends at once, at an unknown cost; both are settled."""
    slow(FIRST, 25_000)
    slow(SECOND, 1_500)

    async def story(world: World) -> None:
        async with lanes(world):
            pass
        answer = world.answer()
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", SECOND, 2)
        assert (answer["cost_nano_usd"], answer["cost_status"]) == (None, "unknown")
        usages = await world.usages()
        assert told(usages[1]) == (FIRST, "first", "pipeline_superseded", "unknown")
        assert told(usages[2]) == (SECOND, "hedge", None, "priced")
        assert [seen["outcome"] for seen in simulator.calls() if seen["provider"] == FIRST] == ["cut_off"]

    run(engine, simulator, asked(), story)


def test_a_first_call_that_is_faster_after_all_answers(engine: Engine, simulator: Simulator, slow: Any) -> None:
    """The hedge is broken off, by the ledger's word, and accounted; the answer is the first provider's."""
    slow(FIRST, 1_500)
    slow(SECOND, 25_000)

    async def story(world: World) -> None:
        async with lanes(world):
            pass
        assert (world.answer()["outcome"], world.answer()["provider"]) == ("completed", FIRST)
        usages = await world.usages()
        assert told(usages[1]) == (FIRST, "first", None, "priced")
        assert told(usages[2]) == (SECOND, "hedge", "pipeline_superseded", "unknown")

    run(engine, simulator, asked(), story)


@pytest.mark.parametrize(("first_ms", "second_ms", "last"), [(3_000, 500, FIRST), (1_500, 4_000, SECOND)])
def test_when_both_fail_the_last_failure_is_the_answer(
    engine: Engine, simulator: Simulator, slow: Any, first_ms: int, second_ms: int, last: str
) -> None:
    """Whichever fails first answers nothing; the failed candidate is not called again, and the cost is the sum of both."""
    slow(FIRST, first_ms, status=503)
    slow(SECOND, second_ms, status=500)

    async def story(world: World) -> None:
        async with lanes(world):
            pass
        answer = world.answer()
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("failed", last, 2)
        assert (answer["cost_nano_usd"], answer["cost_status"]) == (0, "not_charged")
        usages = await world.usages()
        assert [told(usages[n])[:3] for n in (1, 2)] == [
            (FIRST, "first", "provider_unavailable"), (SECOND, "hedge", "provider_unavailable"),
        ]  # fmt: skip

    run(engine, simulator, asked(), story)


def test_a_hedge_answers_for_a_call_that_failed(engine: Engine, simulator: Simulator, slow: Any) -> None:
    """The first call's failure is neither an answer nor a retry while the hedge goes on, whose answer then says what both cost."""
    slow(FIRST, 1_000, status=503)
    slow(SECOND, 3_000)

    async def story(world: World) -> None:
        async with lanes(world):
            pass
        answer, usages = world.answer(), await world.usages()
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", SECOND, 2)
        assert answer["cost_nano_usd"] == usages[2]["cost_nano_usd"] > 0

    run(engine, simulator, asked(), story, attempts=3)


@pytest.mark.parametrize("dead", [0, 1])
def test_either_worker_may_die(engine: Engine, simulator: Simulator, slow: Any, dead: int) -> None:
    """The call of the one that died is accounted as unknown when its record comes again, and the other one's answer stands."""
    slow((FIRST, SECOND)[1 - dead], 2_500)
    slow((FIRST, SECOND)[dead], 25_000)

    async def story(world: World) -> None:
        async with lanes(world) as tasks:
            tasks[dead].cancel()
            await asyncio.wait([tasks[dead]])
            world.workers[dead].die()
            lane, value = ((FIRST, world.value), (SECOND, world.hedges()[0]))[dead]
            await world.workers[2].deal_with(lane, value)
        answer, usages = world.answer(), await world.usages()
        assert (answer["outcome"], answer["provider"]) == ("completed", (FIRST, SECOND)[1 - dead])
        assert [usages[n]["status"] for n in (1, 2)] == (
            ["outcome_unknown", "succeeded"] if dead == 0 else ["succeeded", "outcome_unknown"]
        )

    run(engine, simulator, asked(), story)


def test_both_workers_may_die(engine: Engine, simulator: Simulator, slow: Any) -> None:
    """The first call is accounted and leaves the turn to the hedge's lane, which calls again."""
    slow(FIRST, 25_000)
    slow(SECOND, 2_000)

    async def story(world: World) -> None:
        async with lanes(world) as tasks:
            for task, worker in zip(tasks, world.workers, strict=False):
                task.cancel()
                await asyncio.wait([task])
                worker.die()
            await world.workers[2].deal_with(FIRST, world.value)
            assert world.records("LlmResponse", RESPONSES.name) == []
            await world.workers[2].deal_with(SECOND, world.hedges()[0])
        answer, usages = world.answer(), await world.usages()
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", SECOND, 3)
        assert [(usages[n]["reason"], usages[n]["status"]) for n in (1, 2, 3)] == [
            ("first", "outcome_unknown"), ("hedge", "outcome_unknown"), ("redelivery", "succeeded"),
        ]  # fmt: skip

    run(engine, simulator, asked(), story, attempts=3)


def lane_process(turn: Any, database: str, simulator_url: str, name: str, value: bytes) -> None:
    """A worker process that deals with one record when it is its turn, and is taken for dead a few seconds after it is."""
    turn.wait()
    turn.wait()

    async def main() -> None:
        worker = Worker(open_database(database), Simulator(simulator_url), [], lease_seconds=5)
        await worker.deal_with(name, value)

    asyncio.run(main())


@pytest.mark.parametrize("victim", [FIRST, SECOND])
def test_a_process_may_be_killed_in_the_middle(engine: Engine, simulator: Simulator, slow: Any, victim: str) -> None:
    """After `kill -9` of the process with either call, whoever gets its record waits for its lease, then has the call accounted."""
    request = asked()
    survivor = SECOND if victim == FIRST else FIRST
    slow(victim, 60_000)
    slow(survivor, 20_000)
    hedge = CODEC.encode("LlmCall", {**at_candidate(request, 1), "beside": 1})
    spawning = get_context("spawn")
    turn = spawning.Barrier(2)

    async def begun(count: int) -> None:
        await until(lambda: simulator.in_flight() == count)

    async def story(world: World) -> None:
        records = {FIRST: world.value, SECOND: hedge}
        told = (turn, str(engine.url), simulator.url, victim, records[victim])
        dying = spawning.Process(target=lane_process, args=told, daemon=True)
        dying.start()
        await asyncio.to_thread(turn.wait)
        tasks = []
        for count, name in enumerate((FIRST, SECOND), 1):
            if name == victim:
                await asyncio.to_thread(turn.wait)
            else:
                tasks.append(asyncio.create_task(world.workers[0].deal_with(name, records[name])))
            await begun(count)
        assert dying.pid is not None
        os.kill(dying.pid, signal.SIGKILL)
        tasks.append(asyncio.create_task(world.workers[1].deal_with(victim, records[victim])))
        await asyncio.gather(*tasks)
        answer, usages = world.answer(), await world.usages()
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", survivor, 2)
        status = {usage["provider"]: usage["status"] for usage in usages.values()}
        assert status == {survivor: "succeeded", victim: "outcome_unknown"}

    run(engine, simulator, request, story)


def test_a_hedge_delivered_again_after_the_end_repeats_the_same_bytes(
    engine: Engine, simulator: Simulator, slow: Any
) -> None:
    """A worker that died before it acknowledged the winning hedge: the same usage event and the same answer come again."""
    slow(FIRST, 25_000)
    slow(SECOND, 1_500)

    async def story(world: World) -> None:
        async with lanes(world):
            pass
        before, count = list(world.log), len(world.log)
        await world.workers[2].deal_with(SECOND, world.hedges()[0])
        again = world.log[count:]
        assert [event.topic for event in again] == [USAGE.name, RESPONSES.name]
        assert all(event in before for event in again)

    run(engine, simulator, asked(), story)


@pytest.mark.parametrize(
    "changes",
    [{"wait_ms": None}, {"on_unknown_outcome": "fail"}, {"max_attempts": 1}, {"max_cost_nano_usd": 2 * BOUND - 1}],
)
def test_a_request_that_does_not_allow_two_calls_has_one(
    engine: Engine, simulator: Simulator, slow: Any, changes: dict[str, Any]
) -> None:
    """Without the route's word, with a bound that both calls do not fit into, or where it would rather fail, nothing is hedged."""
    slow(FIRST, 800)

    async def story(world: World) -> None:
        await world.workers[0].deal_with(FIRST, world.value)
        assert world.hedges() == []
        assert (world.answer()["outcome"], world.answer()["attempts"]) == ("completed", 1)
        await world.usages()

    run(engine, simulator, asked(**changes), story)


@pytest.mark.parametrize(("pace", "calls_made"), [({"pace_ms": 200}, 1), ({"first_token_ms": 2_500}, 2)])
def test_a_stream_is_hedged_until_its_first_token(
    engine: Engine, simulator: Simulator, pace: dict[str, Any], calls_made: int
) -> None:
    """One that has begun is waited for, however long it takes; one that has not begins at another provider too."""

    async def story(world: World) -> None:
        if calls_made == 1:
            await world.workers[0].deal_with(FIRST, world.value)
            assert world.hedges() == []
        else:
            async with lanes(world):
                pass
        assert (world.answer()["outcome"], world.answer()["attempts"]) == ("completed", calls_made)
        await world.usages()

    sim = {"text": "One two three four five six.", "stream": pace}
    run(engine, simulator, asked(sim, wait_ms=500, stream=True), story)
