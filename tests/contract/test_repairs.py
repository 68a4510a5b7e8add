"""Answers off their schema in the complete stage, with its ledger and the real SDKs: what is mended, how often, and what follows."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine

from config import ledger, upkeep
from core.attempts import Begin
from core.fallback import at_candidate
from core.topics import RESPONSES
from schemas.codec import Event
from schemas.events import Candidate, LlmCall
from tests.contract.simulator import Simulator
from tests.contract.test_cancelled_calls import Lane, now_us
from tests.examples import call

CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
OFF = {"fault": "off_schema"}


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


def asked(*models: str, sim: dict[str, Any] | None = None, **changes: Any) -> LlmCall:
    """A call whose answer has to follow a schema, and is mended where it does not, with these models of OpenAI as candidates."""
    made = call(prompt=f"Where? [[sim {json.dumps(sim or OFF)}]]", **changes)
    parameters = {**made["request"]["parameters"], "response_format": CITY}
    candidates = [Candidate(provider="openai", model=one, max_output_tokens=100, reserved_nano_usd=9, hedge_after_us=None) for one in models]  # fmt: skip
    routed = {
        **made,
        "request": {**made["request"], "parameters": parameters},
        "candidates": candidates,
        "repair": True,
    }
    return at_candidate(routed, 0)  # type: ignore[arg-type]


class Story:
    """What the stage tells of one request: its calls, and its answer."""

    def __init__(self, engine: Engine, simulator: Simulator, request: LlmCall) -> None:
        self.engine, self.simulator, self.request = engine, simulator, request
        self.id = request["request"]["request_id"]

    def admit(self) -> None:
        with self.engine.begin() as db:
            upkeep.heartbeat(db, "worker", now_us() + 3_600_000_000)
            ledger.admit(db, [ledger.Admission(self.id, bytes(32), "acme", 9, None, now_us())])

    def run(self) -> tuple[list[tuple[str, str, str | None]], Event]:
        """Let a lane deal with the record; its calls as (model, reason, error), and the answer."""

        async def main() -> tuple[list[tuple[str, str, str | None]], Event]:
            lane = Lane(self.engine, self.simulator, "openai")
            try:
                await lane.deal_with(self.request)
            finally:
                await lane.close()
            [answer] = lane.events(RESPONSES.record)
            told = [(one["model"], one["reason"], one["error_code"]) for one in lane.events("LlmUsage")]
            return told, answer

        return asyncio.run(main())


MISMATCH = "provider_schema_mismatch"


def test_an_answer_is_mended_once_and_then_the_next_candidate_has_its_turn(
    engine: Engine, simulator: Simulator
) -> None:
    """A request gets one repair in all: a model that could not mend its answer is left, and the next one's is not mended."""
    story = Story(engine, simulator, asked("gpt-5-mini", "gpt-5"))
    story.admit()
    made, answer = story.run()
    assert made == [
        ("gpt-5-mini", "first", MISMATCH), ("gpt-5-mini", "repair", MISMATCH),
        ("gpt-5", "fallback", MISMATCH), ("gpt-5", "retry", MISMATCH), ("gpt-5", "retry", MISMATCH),
    ]  # fmt: skip
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", MISMATCH, 5)


def test_without_another_candidate_a_failed_repair_is_the_end(engine: Engine, simulator: Simulator) -> None:
    """Neither another repair nor a plain retry follows, though the model's calls are not used up."""
    story = Story(engine, simulator, asked("gpt-5-mini"))
    story.admit()
    made, answer = story.run()
    assert made == [("gpt-5-mini", "first", MISMATCH), ("gpt-5-mini", "repair", MISMATCH)]
    assert (answer["error"]["code"], answer["attempts"]) == (MISMATCH, 2)


def test_a_mended_answer_is_the_answer(engine: Engine, simulator: Simulator) -> None:
    """The one repair is made, and its answer follows the schema."""
    story = Story(engine, simulator, asked("gpt-5-mini", sim={**OFF, "times": 1, "key": str(uuid.uuid4())}))
    story.admit()
    made, answer = story.run()
    assert made == [("gpt-5-mini", "first", MISMATCH), ("gpt-5-mini", "repair", None)]
    assert (answer["outcome"], list(json.loads(answer["output"][0]["text"]))) == ("completed", ["city"])


def test_a_worker_that_starts_knows_of_the_repair_before(engine: Engine, simulator: Simulator) -> None:
    """A repair that a crash cut off was the request's one: the call after it is a plain one, and its failure is not mended."""
    story = Story(engine, simulator, asked("gpt-5-mini", "gpt-5"))
    story.admit()
    rules: dict[str, Any] = {"deadline": None, "max_attempts": 3, "retry_unknown": True}
    with engine.begin() as db:
        for number, repair in ((1, False), (2, True)):
            [started] = ledger.start(db, [ledger.Start(story.id, "dead", now_us(), **rules, repair=repair)])
            assert started.step == Begin(number, "repair" if repair else "first")
            if not repair:
                ended = ledger.EndedAttempt(number, b"[]", 0, "priced")
                ledger.end(db, [ledger.End(story.id, "dead", now_us(), ended, None)])
    made, answer = story.run()
    assert made == [
        ("gpt-5-mini", "repair", "provider_outcome_unknown"), ("gpt-5-mini", "redelivery", MISMATCH),
        ("gpt-5", "fallback", MISMATCH), ("gpt-5", "retry", MISMATCH), ("gpt-5", "retry", MISMATCH),
    ]  # fmt: skip
    assert (answer["error"]["code"], answer["attempts"]) == (MISMATCH, 6)
