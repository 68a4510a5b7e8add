"""Late calls on a stack: another provider is called as well, one answers, and all of it is accounted for, also after `kill -9`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import WORKERS, Running, running
from config.database import open_database
from config.registry import apply
from core.registry import Route, Target
from core.signals import LEAST_FOR_P95
from core.topics import RESPONSES
from schemas.codec import Codec, Event
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, ask_one, events, eventually, simulator, told

CODEC = Codec()
SECOND = "google/gemini-2.5-flash"
#: A route a test, each with a first model of its own, whose p95 another test's slow calls do not change.
MODELS = {"faster": "gpt-5-mini", "first": "gpt-5-nano", "second": "gpt-5", "failing": "gpt-4o", "probe": "gpt-4o-mini"}
ROUTES = {
    task: Route(task, (Target(f"openai/{model}"), Target(SECOND)), task=task, hedge=True)
    for task, model in MODELS.items()
}
LANES = {"first": "openai", "second": "google"}
#: A worker process a lane, so that one can die without the other.
WORKERS_APART = {name: worker for name, worker in WORKERS.items() if name != "complete"} | {
    name: (["worker", "complete", "--provider", provider], 1) for name, provider in LANES.items()
}


def asked(task: str) -> Any:
    return {**told("Hello.", task=task), "model": None}


def slow(run: Running, provider: str, latency_ms: int, **how: Any) -> None:
    simulator(run, "faults", {"provider": provider, "latency_ms": latency_ms, **how}, "POST")


@pytest.fixture(scope="module")
def hedging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline that hedges, and whose workers know how long its models take; no check finds the slow providers unhealthy."""
    settings = {
        **QUICK, "MILLSTREAM_MAX_ATTEMPTS": "1", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
        "MILLSTREAM_HEALTH_CHECK_SECONDS": "3600",
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("hedging"), workers=WORKERS_APART, environment=settings) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes=ROUTES), run.settings, "test", 1)
        engine.dispose()
        for task, model in MODELS.items():
            count = 100 if task == "probe" else LEAST_FOR_P95 + 5
            assert len(ask(run, [told("Warm up.", f"openai/{model}") for _ in range(count)])) == count
        slow(run, "openai", 3_000)
        assert eventually(lambda: ask_one(run, asked("probe"))["provider"] == "google", 60)
        simulator(run, "faults", method="DELETE")
        yield run


@pytest.fixture(autouse=True)
def well(hedging: Running) -> Iterator[None]:
    """Every provider does well again after a test."""
    yield
    simulator(hedging, "faults", method="DELETE")


def calls_of(run: Running, answer: Event) -> list[tuple[str, str, str, str | None]]:
    """The calls of a request in their order, once all that the answer counts are accounted, and the one answer on the topic."""
    usages = eventually(
        lambda: len(found := all_usages(run, CODEC).get(answer["request_id"], [])) == answer["attempts"] and found, 60
    )
    answers = events(run, RESPONSES)[answer["request_id"]]
    assert len(set(answers)) == 1
    return [(usage["provider"], usage["reason"], usage["status"], usage["error_code"]) for usage in usages]


def test_a_late_call_is_overtaken_by_another_provider(hedging: Running) -> None:
    """The second provider answers, the first one's call is broken off, both have their usage event."""
    slow(hedging, "openai", 15_000)
    answer = ask_one(hedging, asked("faster"))
    assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", "google", 2)
    assert calls_of(hedging, answer) == [
        ("openai", "first", "failed", "pipeline_superseded"), ("google", "hedge", "succeeded", None),
    ]  # fmt: skip
    assert len(events(hedging, RESPONSES)[answer["request_id"]]) == 1


def test_when_both_fail_there_is_one_failure(hedging: Running) -> None:
    """The failure of the last call is the answer, and it knows what both cost."""
    slow(hedging, "openai", 3_000, status=503)
    slow(hedging, "google", 500, status=503)
    answer = ask_one(hedging, asked("failing"))
    assert (answer["outcome"], answer["provider"], answer["cost_nano_usd"]) == ("failed", "openai", 0)
    assert [call[:3] for call in calls_of(hedging, answer)] == [("openai", "first", "failed"), ("google", "hedge", "failed")]  # fmt: skip


@pytest.mark.parametrize("victim", LANES)
def test_the_other_worker_answers_when_one_dies_in_the_middle(hedging: Running, victim: str) -> None:
    """After `kill -9` of either lane while both calls are open, each request has its one answer, and each call its usage event."""
    survivor = "second" if victim == "first" else "first"
    slow(hedging, LANES[victim], 60_000)
    slow(hedging, LANES[survivor], 6_000)
    requests = [asked(victim) for _ in range(5)]
    exchange = Exchange(hedging.settings)
    for request in requests:
        exchange.send(request)
    exchange.flush()
    eventually(lambda: simulator(hedging, "ledger")["overall"]["in_flight"] == 2 * len(requests), 60)
    hedging.workers[victim].kill()
    hedging.start_worker(victim, WORKERS_APART[victim][0])
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert len(answers) == len(requests)
    for answer in answers.values():
        assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", LANES[survivor], 2)
        found = {provider: status for provider, _, status, _ in calls_of(hedging, answer)}
        assert found == {LANES[survivor]: "succeeded", LANES[victim]: "outcome_unknown"}


def test_every_account_agrees_afterwards(hedging: Running) -> None:
    """Topics, ledger, ClickHouse and the simulator's own account tell the same of all these calls, and nothing stays held."""

    def through() -> Any:
        proof = reconcile(hedging.settings, None, hedging.stack.simulator_url)
        behind = (mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not any(behind) and proof

    lines = eventually(through, 60).lines
    assert {line.name: line.differences for line in lines if line.status == "BROKEN"} == {}
    [held] = (line for line in lines if line.name == "reserved in accounts = held for open requests")
    assert set(held.left.figures.values()) == {0}
