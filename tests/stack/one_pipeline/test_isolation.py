"""A provider that hangs holds up nobody else, and only so many of its calls are under way."""

from __future__ import annotations

import time

from cli.exchange import Exchange
from cli.running import Running
from schemas.codec import Event
from tests.stack.asking import ask, eventually, simulator, told

HANGING_SECONDS = 12


def p99(answers: dict[str, Event]) -> float:
    """The 99th percentile of seconds from creation to the end, the provider's own time included."""
    spans = sorted((a["finished_at"] - a["created_at"]) / 1_000_000 for a in answers.values())
    return spans[int(len(spans) * 0.99)]


def test_a_hanging_provider_leaves_the_other_lanes_alone(pipeline: Running) -> None:
    """While every slot of one lane hangs, another lane answers all it gets, about as fast as before."""
    crowd = [told(f"Number {n}.", sim={"latency_ms": 20}) for n in range(200)]
    before = p99(ask(pipeline, crowd))
    bound = pipeline.settings.lane_concurrency
    simulator(pipeline, "faults", {"provider": "google", "fault": "hang"})
    deadline = int((time.time() + HANGING_SECONDS) * 1_000_000)
    hanging = [told(f"Hang {n}.", model="google/gemini-2.5-flash", deadline=deadline) for n in range(bound + 60)]
    exchange = Exchange(pipeline.settings)
    try:
        for request in hanging:
            exchange.send(request)
        exchange.flush()

        def under_way() -> int:
            return int(simulator(pipeline, "ledger")["providers"]["google"]["in_flight"])

        assert eventually(lambda: under_way() == bound), under_way()
        crowd = [told(f"Again {n}.", sim={"latency_ms": 20}) for n in range(200)]
        answers = ask(pipeline, crowd)
        assert under_way() == bound, "the lane gave way while it was compared"
    finally:
        simulator(pipeline, "faults", method="DELETE")
    assert {a["outcome"] for a in answers.values()} == {"completed"}
    # Within noise: a lane that shared slots, connections or its consumer with the hanging one would wait for its deadline.
    assert p99(answers) < max(5 * before, HANGING_SECONDS / 4)
    ended = exchange.answers([request["request_id"] for request in hanging], 90)
    exchange.close()
    assert len(ended) == len(hanging)
    assert {a["error"]["code"] for a in ended.values()} <= {"provider_timeout", "pipeline_deadline_exceeded"}
    assert simulator(pipeline, "ledger")["providers"]["google"]["max_in_flight"] == bound
