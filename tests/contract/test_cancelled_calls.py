"""The complete stage with its ledger and the real SDKs: streams that break and callers who give up, without a broker."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from agents.cancel import Cancellations
from agents.complete import Complete, CompleteRules
from agents.ledgers import Ledgers
from agents.providers import provider
from agents.signals import Signals
from config import ledger, upkeep
from config.holding import NotAdmitted
from config.key_encryption import EncryptionKeys
from config.keyring import Keyring
from config.prices import Prices
from config.transactions import Transactions
from core.outcome import Emit, Outgoing, Record
from core.registry import Registry
from core.retry import RetryRule
from core.topics import CHUNKS, RESPONSES, USAGE, calls
from schemas.codec import Codec, Event
from schemas.events import LlmCall
from tests.contract.calling import settings_of, until
from tests.contract.simulator import Simulator
from tests.contract.test_streaming import SIXTY, sixty

CODEC = Codec()
NAMES = ("openai", "anthropic", "google")


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


class Lane:
    """The complete stage of one provider, and what it put on the topics, in order."""

    def __init__(
        self, engine: Engine, simulator: Simulator, name: str, violated: Callable[[NotAdmitted], None] = lambda _: None
    ) -> None:
        self.name = name
        self.published: list[Outgoing] = []
        self.cancellations = Cancellations()
        self.signals = Signals("worker", now_us)
        self._engine = engine
        self._transactions = Transactions(engine, 10, 0.001)
        self._provider = provider(replace(settings_of(name, simulator.url), stream_stall_seconds=5))
        self.stage = Complete(
            CODEC, Ledgers(self._transactions), name, self._provider, CompleteRules(lambda: 4, 30, RetryRule(3, 0.05, 30), 1_000_000),
            lambda: Prices(Registry()), Keyring(EncryptionKeys(())), self.signals, now_us, "worker",
            lambda _: None, self._publish, self.cancellations, violated,
        )  # fmt: skip

    async def _publish(self, events: tuple[Outgoing, ...]) -> None:
        await asyncio.sleep(0)
        self.published += events

    async def complete(self, asked: LlmCall) -> Event:
        """Admit the call and let the stage deal with it; the answer, which comes after all else."""
        request = asked["request"]
        request["request_id"] = str(uuid.uuid4())
        with self._engine.begin() as db:
            upkeep.heartbeat(db, "worker", now_us() + 3_600_000_000)
            ledger.admit(db, [ledger.Admission(request["request_id"], b"body".ljust(32), "acme", 1, None, now_us())])
        await self.deal_with(asked)
        [answer] = self.events(RESPONSES.record)
        assert self.published[-1].topic == RESPONSES.name
        return answer

    async def deal_with(self, asked: LlmCall) -> None:
        """Deal with one record of the lane, and publish what follows from it."""
        value = CODEC.encode("LlmCall", asked)
        outcome = await self.stage(Record(calls(self.name).name, 0, 0, b"", value, [], now_us()))
        assert isinstance(outcome, Emit)
        self.published += outcome.events

    def events(self, record: str) -> list[Event]:
        """What was published of one kind."""
        topic = {"LlmChunk": CHUNKS, "LlmUsage": USAGE, "LlmResponse": RESPONSES}[record].name
        return [CODEC.decode(record, event.value) for event in self.published if event.topic == topic]

    async def close(self) -> None:
        """Let go of the provider and the ledger."""
        await self._provider.close()
        await self._transactions.close()


def run(lane: Lane, asked: LlmCall, while_at_it: Callable[[LlmCall], Any] | None = None) -> Event:
    """The answer to a call, with something done while the stage is at it."""

    async def main() -> Event:
        try:
            work = asyncio.create_task(lane.complete(asked))
            if while_at_it is not None:
                await while_at_it(asked)
            return await work
        finally:
            await lane.close()

    return asyncio.run(main())


@pytest.mark.parametrize("name", NAMES)
def test_chunks_are_out_before_the_answer_and_are_its_text(engine: Engine, simulator: Simulator, name: str) -> None:
    """What consumers join is the answer, and the answer comes last; both say when the first token came."""
    lane = Lane(engine, simulator, name)
    asked = sixty(name, pace_ms=5)
    asked["request"]["stream"] = True
    answer = run(lane, asked)
    chunks = lane.events("LlmChunk")
    assert (answer["outcome"], "".join(chunk["text"] for chunk in chunks)) == ("completed", SIXTY)
    assert [chunk["index"] for chunk in chunks] == list(range(len(chunks)))
    [usage] = lane.events("LlmUsage")
    assert usage["started_at"] < usage["first_token_at"] == answer["first_token_at"] <= chunks[0]["at"]
    assert usage["first_token_us"] == usage["first_token_at"] - usage["started_at"]
    assert [event.topic for event in lane.published[-2:]] == [USAGE.name, RESPONSES.name]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_stream_is_called_again(engine: Engine, simulator: Simulator, name: str) -> None:
    """The chunks of the second attempt are the answer; the first one's cost stays unknown, and so does the whole.

    How much of it had come is on the record.
    """
    asked = sixty(name, cut_at=40)
    asked["request"]["stream"] = True
    part = asked["request"]["messages"][0]["content"][0]
    part["text"] = (part["text"] or "").replace(
        "[[sim {", f'[[sim {{"times": 1, "key": {json.dumps(str(engine.url))}, '
    )
    lane = Lane(engine, simulator, name)
    answer = run(lane, asked)
    assert (answer["outcome"], answer["attempts"], answer["cost_nano_usd"]) == ("completed", 2, None)
    texts = {n: "".join(c["text"] for c in lane.events("LlmChunk") if c["attempt"] == n) for n in (1, 2)}
    assert texts == {1: SIXTY[: SIXTY.index(" word40")], 2: SIXTY}
    assert [(one["status"], one["cost_status"], one["received_chars"]) for one in lane.events("LlmUsage")] == [
        ("failed", "unknown", len(texts[1])), ("succeeded", "priced", len(SIXTY)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_cancelled_stream_is_accounted(engine: Engine, simulator: Simulator, name: str) -> None:
    """The call ends at the provider; the answer and the usage event say who ended it, and at what unknown cost."""
    lane = Lane(engine, simulator, name)
    asked = sixty(name, stall_at=40, stall_seconds=4)
    asked["request"]["stream"] = True

    async def cancel(call: LlmCall) -> None:
        await until(lambda: "".join(c["text"] for c in lane.events("LlmChunk")).endswith("word39"))
        lane.cancellations.cancel(call["request"]["request_id"], "other")
        lane.cancellations.cancel(call["request"]["request_id"], "acme")

    answer = run(lane, asked, cancel)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "caller_cancelled", 1)
    [usage] = lane.events("LlmUsage")
    assert (usage["error_code"], usage["cost_status"], usage["first_token_at"] is None) == (
        "caller_cancelled", "unknown", False,
    )  # fmt: skip
    assert usage["received_chars"] == SIXTY.index(" word40")
    told = {"openai": (None, None), "anthropic": (10, None), "google": (10, 40)}[name]
    assert (usage["tokens"]["input_uncached"], usage["tokens"]["output_text"]) == told
    [seen] = simulator.calls()
    assert (seen["outcome"], seen["tokens"]["output_text"]) == ("cut_off", 40)


def test_a_cancelled_wait_makes_no_other_call(engine: Engine, simulator: Simulator) -> None:
    """A request that waits for its next attempt is answered at once; what was made is on the record, and no more is made."""
    lane = Lane(engine, simulator, "openai")
    asked = sixty("openai")
    asked["request"]["messages"][0]["content"][0]["text"] = 'Hi. [[sim {"retry_after": 200}]]'

    async def cancel(call: LlmCall) -> None:
        await until(lambda: simulator.request("GET", "/_sim/ledger")["overall"]["calls"] == 1)
        lane.cancellations.cancel(call["request"]["request_id"], None)

    answer = run(lane, asked, cancel)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "caller_cancelled", 1)
    assert (answer["cost_nano_usd"], answer["cost_status"]) == (0, "not_charged")
    assert len(simulator.calls()) == 1


def test_a_request_that_is_cancelled_before_its_turn_is_not_called(engine: Engine, simulator: Simulator) -> None:
    """A word that comes before the lane has got to the request keeps it from being called at all."""
    lane = Lane(engine, simulator, "openai")
    asked = sixty("openai")

    async def main() -> Event:
        work = asyncio.create_task(lane.complete(asked))
        await asyncio.sleep(0)
        lane.cancellations.cancel(asked["request"]["request_id"], "acme")
        try:
            return await work
        finally:
            await lane.close()

    answer = asyncio.run(main())
    assert (answer["outcome"], answer["error"]["code"], answer["cost_nano_usd"]) == ("failed", "caller_cancelled", 0)
    assert simulator.calls() == []
