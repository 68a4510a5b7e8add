"""A limit that has no room for a request's further call, in the complete stage itself: the answer, and that it is counted."""

from __future__ import annotations

import asyncio
import uuid

from sqlalchemy import Engine

from config import ledger, limits, upkeep
from core.accounts import path_of
from core.limits import Amounts, Asking, Limit
from core.topics import RESPONSES
from streams.metrics import Metrics
from tests.contract.calling import llm_call
from tests.contract.simulator import Simulator
from tests.contract.test_cancelled_calls import Lane, now_us


def test_a_retry_without_room_ends_the_request_and_is_a_violation(engine: Engine, simulator: Simulator) -> None:
    """The first call failed and may be charged; the second does not fit beside it, and the metric counts one more refusal."""
    asked = llm_call("openai", directive={"fault": "garbage"})
    request_id = asked["request"]["request_id"] = str(uuid.uuid4())
    asking = Asking(path_of("acme", None, "ana", None), None, ("openai/gpt-5-mini",), Amounts(1, 10))
    with engine.begin() as db:
        upkeep.heartbeat(db, "worker", now_us() + 3_600_000_000)
        limits.change(db, limits.Edit([Limit("/acme", "tokens", "day", 15)]), "test", now_us())
        ledger.admit(db, [ledger.Admission(request_id, bytes(32), "acme", 1, None, now_us(), asking=asking)])
    metrics = Metrics()
    metrics.quota.add_refusals()

    async def story() -> Lane:
        lane = Lane(engine, simulator, "openai", metrics.quota.violated)
        await lane.deal_with(asked)
        await lane.close()
        return lane

    lane = asyncio.run(story())
    [answer] = lane.events(RESPONSES.record)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "policy_quota_exceeded", 1)
    assert len(simulator.calls()) == 1
    labels = {"code": "policy_quota_exceeded", "meter": "tokens"}
    assert metrics.registry.get_sample_value("provider_quota_violations_total", labels) == 1
    labels["meter"] = "requests"
    assert metrics.registry.get_sample_value("provider_quota_violations_total", labels) == 0
