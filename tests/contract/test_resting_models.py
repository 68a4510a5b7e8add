"""Models that are limited just now, in the complete stage with its ledger and the real SDKs: who is called instead, and who waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from config import ledger, upkeep
from core.fallback import at_candidate
from core.topics import RESPONSES
from schemas.codec import Event
from schemas.events import Candidate, LlmCall
from tests.contract.simulator import Simulator
from tests.contract.test_cancelled_calls import Lane, now_us
from tests.examples import call

BOUND = 1_000
SMALL, LARGE = "gpt-5-mini", "gpt-5"


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


def asked(*models: str, sim: dict[str, Any] | None = None, seconds: float | None = None, **changes: Any) -> LlmCall:
    """A call with these models of OpenAI as candidates, each of the same bound, which has so many seconds until its deadline."""
    deadline = None if seconds is None else now_us() + int(seconds * 1_000_000)
    made = call(prompt=f"Hi. [[sim {json.dumps(sim)}]]" if sim else "Hi.", deadline=deadline, **changes)
    candidates = [Candidate(provider="openai", model=one, max_output_tokens=100, reserved_nano_usd=BOUND, hedge_after_us=None) for one in models]  # fmt: skip
    return at_candidate({**made, "candidates": candidates}, 0)


class World:
    """A lane whose small model has just been limited, for as long as its 429 said."""

    def __init__(self, engine: Engine, lane: Lane) -> None:
        self.engine, self.lane = engine, lane

    def admit(self, request: LlmCall) -> None:
        with self.engine.begin() as db:
            upkeep.heartbeat(db, "worker", now_us() + 3_600_000_000)
            entry = ledger.Admission(request["request"]["request_id"], bytes(32), "acme", BOUND, None, now_us())
            ledger.admit(db, [entry])

    async def limit(self, milliseconds: int) -> None:
        limited = asked(SMALL, sim={"retry_after_ms": milliseconds}, max_attempts=1)
        self.admit(limited)
        await self.lane.deal_with(limited)
        assert self.lane.events(RESPONSES.record)[0]["error"]["code"] == "provider_rate_limited"

    async def called(self, request: LlmCall) -> list[str]:
        """The models that an admitted request has called, once it is answered."""
        await self.lane.deal_with(request)
        return [usage["model"] for usage in self.usages(request)]

    def usages(self, request: LlmCall) -> list[Event]:
        request_id = request["request"]["request_id"]
        return [usage for usage in self.lane.events("LlmUsage") if usage["request_id"] == request_id]


def run(engine: Engine, simulator: Simulator, story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        lane = Lane(engine, simulator, "openai")
        try:
            await story(World(engine, lane))
        finally:
            await lane.close()

    asyncio.run(main())


@pytest.mark.parametrize(("most", "model"), [(None, LARGE), (BOUND, LARGE), (BOUND - 1, SMALL)])
def test_a_request_with_bounded_money_goes_round_where_the_next_model_fits(
    engine: Engine, simulator: Simulator, most: int | None, model: str
) -> None:
    """It passes a limited model like any other request, unless the next one may cost more than there is left."""

    async def story(world: World) -> None:
        await world.limit(60_000)
        request = asked(SMALL, LARGE, max_cost_nano_usd=most)
        world.admit(request)
        assert await world.called(request) == [model]

    run(engine, simulator, story)


@pytest.mark.parametrize(("cost", "models"), [(70, [SMALL, LARGE]), (71, [SMALL, SMALL])])
def test_what_was_spent_before_counts(engine: Engine, simulator: Simulator, cost: int, models: list[str]) -> None:
    """Calls of another worker, of which the ledger knows, leave less for the next model."""

    async def story(world: World) -> None:
        await world.limit(60_000)
        request = asked(SMALL, LARGE, max_cost_nano_usd=BOUND + 70)
        world.admit(request)
        request_id = request["request"]["request_id"]
        with engine.begin() as db:
            ledger.start(db, [ledger.Start(request_id, "before", now_us(), None, 3, True)])
            ended = ledger.EndedAttempt(1, b"[]", cost, "priced")
            assert ledger.end(db, [ledger.End(request_id, "before", now_us(), ended, None)]) == ["recorded"]
        assert [SMALL, *await world.called(request)] == models

    run(engine, simulator, story)


def test_the_last_candidate_is_called_after_its_rest(engine: Engine, simulator: Simulator) -> None:
    """A request with time left waits as long as the 429 said, without a slot, and then has its answer from one call."""

    async def story(world: World) -> None:
        await world.limit(1_500)
        request = asked(SMALL, seconds=60)
        world.admit(request)
        work = asyncio.create_task(world.called(request))
        await asyncio.sleep(0.2)
        assert world.lane.stage.slots_in_use == 0
        assert await work == [SMALL]
        [limited, answered] = world.lane.events("LlmUsage")
        assert answered["error_code"] is None
        assert answered["started_at"] >= limited["finished_at"] + 1_500_000

    run(engine, simulator, story)


@pytest.mark.parametrize("seconds", [None, 20])
def test_a_rest_that_no_deadline_allows_is_not_waited_for(
    engine: Engine, simulator: Simulator, seconds: float | None
) -> None:
    """Without a deadline, or with one before its end, the last candidate is called all the same."""

    async def story(world: World) -> None:
        await world.limit(60_000)
        request = asked(SMALL, seconds=seconds)
        world.admit(request)
        assert await world.called(request) == [SMALL]
        assert world.usages(request)[0]["started_at"] < world.lane.signals.told_until("openai", SMALL)

    run(engine, simulator, story)


def test_a_cancelled_rest_ends_at_once(engine: Engine, simulator: Simulator) -> None:
    """Whoever gives up a request that waits for a rest has its answer, and nobody is called."""

    async def story(world: World) -> None:
        await world.limit(60_000)
        request = asked(SMALL, seconds=120)
        world.admit(request)
        work = asyncio.create_task(world.called(request))
        await asyncio.sleep(0.2)
        world.lane.cancellations.cancel(request["request"]["request_id"], "acme")
        assert await work == []
        assert world.lane.events(RESPONSES.record)[-1]["error"]["code"] == "caller_cancelled"

    run(engine, simulator, story)
