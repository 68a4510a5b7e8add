"""Providers that fail for longer, through the whole pipeline: who is left out, what operators are told, and that it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cli.running import Running, running
from config.database import open_database
from config.registry import apply
from core.registry import Route, Target
from core.topics import ALERTS
from schemas.codec import Codec, Event
from tests.stack.asking import ask, ask_one, events, eventually, simulator, told
from tests.stack.scrape import scrape

FIRST, SECOND = "google/gemini-2.5-flash", "openai/gpt-5-mini"
ROUTE = Route("report", (Target(FIRST), Target(SECOND)), task="report")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline that checks its providers often, but not within the few seconds of calls that a breaker needs; two are on a route."""
    settings = {
        "MILLSTREAM_HEALTH_CHECK_SECONDS": "20", "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.01", "MILLSTREAM_MAX_ATTEMPTS": "2",
        "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("health"), environment=settings) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes={**now.routes, "report": ROUTE}), run.settings, "test", 1)
        engine.dispose()
        assert eventually(lambda: report(run)["route"] == "report")
        yield run


def report(run: Running) -> Event:
    """The answer to a request that the route is for."""
    return ask_one(run, told(model=None, task="report"))


def reasons(answer: Event) -> dict[str, str]:
    """Why each model was a candidate or was not."""
    return {decision["model"]: decision["reason"] for decision in answer["decisions"]}


def alerts(run: Running) -> list[tuple[str, str]]:
    """Every alert's kind and subject, the same event counted once."""
    once = {event_id: value for records in events(run, ALERTS).values() for event_id, value in records}
    found: list[Any] = [Codec().decode("LlmAlert", value) for value in once.values()]
    return [(alert["kind"], alert["subject"]) for alert in sorted(found, key=lambda alert: alert["raised_at"])]


def test_calls_that_fail_open_a_breaker_and_the_model_is_passed_over_until_it_answers(pipeline: Running) -> None:
    """After five failures requests go past the model, who asks for it by name still gets a call, and later it answers again."""
    assert eventually(lambda: report(pipeline)["provider"] == "google")
    simulator(pipeline, "faults", {"provider": "google", "status": 503}, "POST")
    try:
        answers = [report(pipeline) for _ in range(5)]
    finally:
        simulator(pipeline, "faults", method="DELETE")
    assert {answer["provider"] for answer in answers} == {"openai"}
    # Twice two calls and one, then none.
    assert [answer["attempts"] for answer in answers] == [3, 3, 2, 1, 1]
    assert eventually(lambda: ("breaker_open", FIRST) in alerts(pipeline))
    assert eventually(lambda: "circuit breaker is open" in reasons(report(pipeline)).get(FIRST, ""))
    passed = report(pipeline)
    assert (passed["provider"], passed["attempts"], passed["outcome"]) == ("openai", 1, "completed")
    named = ask_one(pipeline, told(model=FIRST))
    assert (named["provider"], named["outcome"]) == ("google", "completed")
    assert reasons(named)[FIRST].startswith("last resort: ")
    assert eventually(lambda: report(pipeline)["provider"] == "google", 60)
    assert eventually(lambda: ("breaker_closed", FIRST) in alerts(pipeline))
    assert [kind for kind, subject in alerts(pipeline) if subject == FIRST] == ["breaker_open", "breaker_closed"]


def test_a_provider_whose_checks_fail_is_left_out_until_three_are_good(pipeline: Running) -> None:
    """It gets no calls while it is down, operators hear of both ends once, and the checks are counted by what they found."""
    assert eventually(lambda: report(pipeline)["provider"] == "google", 60)
    simulator(pipeline, "faults", {"provider": "google", "fault": "garbage"}, "POST")
    try:
        assert eventually(lambda: reasons(report(pipeline)).get(FIRST) == "dropped: unhealthy", 60)
        answers = ask(pipeline, [told(model=None, task="report") for _ in range(10)])
        assert {(one["provider"], one["attempts"]) for one in answers.values()} == {("openai", 1)}
    finally:
        simulator(pipeline, "faults", method="DELETE")
    assert eventually(lambda: ("provider_healthy", "google") in alerts(pipeline), 60)
    # Its breaker may have opened as well, before its health was known.
    assert eventually(lambda: report(pipeline)["provider"] == "google", 90)
    told_of = [kind for kind, subject in alerts(pipeline) if subject == "google"]
    assert told_of == ["provider_unhealthy", "provider_healthy"]
    counted = {
        labels: value
        for worker in pipeline.monitoring
        for (name, labels), value in scrape(pipeline, worker).items()
        if name == "provider_health_checks_total" and value
    }
    assert counted[("provider", "google"), ("result", "garbage")] >= 3
    assert counted[("provider", "openai"), ("result", "good")] >= 3
