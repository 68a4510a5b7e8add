"""Requests that name a task and a plan, and models that fail: who answers, what is told of it, and that all of it is accounted for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cli import kafka
from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config.credentials import Change, NewCredential, add
from config.database import open_database
from config.key_encryption import encryption_keys, new_local_key
from config.registry import apply
from core.registry import Route, Target
from core.topics import Topic
from schemas.codec import Codec, Event
from sinks.writer import connect
from tests.stack.asking import all_usages, ask, ask_one, events, eventually, log, simulator, told, usages_of
from tests.stack.scrape import scrape, total

CODEC = Codec()
REPLIES = Topic("replies.orders", "LlmResponse", 86_400_000)
PLANS = ("freemium", "paygo", "pro")
#: A route a test, each with models of its own: what one test makes fail, a circuit breaker keeps another from.
MODELS = {
    "two": ("google/gemini-2.5-flash", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5"),
    "all": ("google/gemini-2.5-pro", "openai/gpt-5", "anthropic/claude-sonnet-4-5"),
    "waiting": ("google/gemini-2.5-flash-lite", "openai/gpt-5-nano"),
    "strict": ("google/gemini-2.0-flash", "openai/gpt-4o-mini"),
    "forgiving": ("google/gemini-2.0-flash", "openai/gpt-4o-mini"),
    "bounded": ("google/gemini-2.0-flash-lite", "openai/gpt-4.1-mini"),
    "resting": ("anthropic/claude-opus-4-1", "openai/gpt-4.1-nano"),
    "dying": ("google/gemini-1.5-flash", "openai/gpt-4o", "anthropic/claude-opus-4-5"),
}
ROUTES = {task: Route(task, tuple(map(Target, models)), task=task) for task, models in MODELS.items()}
ROUTES["cached"] = Route("cached", (Target("openai/gpt-4.1"),), task="cached", cache_seconds=600)
ROUTES["brief"] = replace(ROUTES["cached"], name="brief", task="brief", cache_seconds=1)
ROUTES["common"] = replace(ROUTES["cached"], name="common", task="common", cache_shared=True)
ROUTES["forgiving"] = replace(ROUTES["forgiving"], fall_back_on=frozenset({"provider_invalid_request"}))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"MILLSTREAM_REPLY_TOPICS": '["replies.*"]', "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05",
                "MILLSTREAM_MAX_ATTEMPTS": "2", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
                "MILLSTREAM_KEY_ENCRYPTION": "env:SEALING", "SEALING": new_local_key("first")}  # fmt: skip
    with running(tmp_path_factory.mktemp("routing"), environment=settings) as run:
        kafka.create_topics(run.settings, (REPLIES,))
        yield run


@pytest.fixture(scope="module")
def routed(pipeline: Running) -> Running:
    """The pipeline with routes of its own, which its workers have read."""
    engine = open_database(pipeline.settings.database_url)
    with engine.begin() as db:
        apply(db, lambda now: replace(now, routes=ROUTES), pipeline.settings, "test", 1)
    engine.dispose()
    assert eventually(lambda: ask_one(pipeline, asked("two"))["route"] == "two")
    return pipeline


@pytest.fixture
def failing(pipeline: Running) -> Iterator[Any]:
    """Makes a provider fail for the length of a test."""
    yield lambda provider, **how: simulator(pipeline, "faults", {"provider": provider, **how}, "POST")
    simulator(pipeline, "faults", method="DELETE")


def asked(task: str, prompt: str = "Hello.", sim: dict[str, Any] | None = None, **fields: Any) -> Any:
    return {**told(prompt, sim=sim, task=task, **fields), "model": None}


def calls_of(run: Running, answer: Event) -> list[tuple[str, str, str | None]]:
    """The calls of a request in their order, each with its provider, its reason and its error."""
    usages = eventually(
        lambda: len(found := all_usages(run, CODEC).get(answer["request_id"], [])) == answer["attempts"] and found
    )
    return [(usage["provider"], usage["reason"], usage["error_code"]) for usage in usages]


@pytest.mark.parametrize("task", ["extraction", "cv_draft", "cover_letter"])
def test_a_task_and_a_plan_choose_the_model(task: str, pipeline: Running) -> None:
    """A request without a model is answered by the model of its task and plan, and says which route chose it and why."""
    requests = {plan: asked(task, plan=plan) for plan in PLANS}
    answers = ask(pipeline, requests.values())
    chosen = {plan: answers[request["request_id"]] for plan, request in requests.items()}
    assert {answer["outcome"] for answer in chosen.values()} == {"completed"}
    assert {chosen[plan]["model"] for plan in PLANS[:2]} == {"gemini-2.5-flash"}
    assert chosen["pro"]["model"] == ("gemini-2.5-flash" if task == "extraction" else "gemini-2.5-pro")
    for answer in chosen.values():
        kept = [decision for decision in answer["decisions"] if decision["kept"]]
        assert (bool(answer["route"]), kept[0]["model"]) == (True, f"google/{answer['model']}")
        assert kept[0]["reason"]


def test_a_request_that_no_route_is_for_is_told_so(pipeline: Running) -> None:
    """Without a model and a route the answer names the plan and the task, and nobody is called."""
    answer = ask_one(pipeline, asked("juggling", plan="pro"))
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", "policy_no_route", 0)
    assert "juggling" in answer["error"]["message"]


def test_two_failing_providers_leave_the_third(routed: Running, failing: Any) -> None:
    """Each model is tried as often as the rule says, then the next answers; every call has its own usage event."""
    failing("google", status=503)
    failing("openai", status=500)
    answer = ask_one(routed, asked("two"))
    assert (answer["outcome"], answer["provider"], answer["attempts"]) == ("completed", "anthropic", 5)
    assert calls_of(routed, answer) == [
        ("google", "first", "provider_unavailable"), ("google", "retry", "provider_unavailable"),
        ("openai", "fallback", "provider_unavailable"), ("openai", "retry", "provider_unavailable"),
        ("anthropic", "fallback", None),
    ]  # fmt: skip
    assert [decision["model"] for decision in answer["decisions"]] == list(MODELS["two"])


def test_all_failing_ends_with_the_last_ones_error(routed: Running, failing: Any) -> None:
    """When no candidate is left, the answer has the last failure, and nothing stays open."""
    for provider in ("google", "openai", "anthropic"):
        failing(provider, status=503)
    answer = ask_one(routed, asked("all"))
    assert (answer["outcome"], answer["error"]["code"], answer["provider"]) == ("failed", "provider_unavailable", "anthropic")  # fmt: skip
    assert len(calls_of(routed, answer)) == 6


def test_a_wait_that_is_too_long_goes_to_the_next_at_once(routed: Running, failing: Any) -> None:
    """A `Retry-After` beyond the deadline costs no second call of that provider."""
    failing("google", status=429, retry_after=600)
    request = asked("waiting")
    answer = ask_one(routed, {**request, "deadline": request["created_at"] + 30_000_000})
    assert calls_of(routed, answer) == [("google", "first", "provider_rate_limited"), ("openai", "fallback", None)]


def test_a_tenants_own_key_is_called_while_the_platforms_rests(routed: Running, failing: Any) -> None:
    """After a 429 the platform's requests go past the model; those of a tenant with a key of its own do not."""
    sealing = encryption_keys("env:SEALING", routed.environment)
    engine = open_database(routed.settings.database_url)
    with engine.begin() as db:
        own = add(db, sealing, NewCredential("anthropic", "initech"), "sk-of-initech", Change("test", 1))
    engine.dispose()
    failing("anthropic", status=429, retry_after=600)
    assert ask_one(routed, asked("resting"))["provider"] == "openai"
    simulator(routed, "faults", method="DELETE")
    assert eventually(lambda: "resting for" in ask_one(routed, asked("resting"))["decisions"][-1]["reason"])
    answer = ask_one(routed, asked("resting", tenant="initech"))
    assert answer["provider"] == "anthropic"
    (usage,) = eventually(lambda: all_usages(routed, CODEC).get(answer["request_id"]))
    assert (usage["credential_owner"], usage["credential_id"]) == ("tenant", own.credential_id)
    assert ask_one(routed, asked("resting"))["provider"] == "openai"


def test_what_would_fail_again_does_not_fall_back_unless_the_route_says_so(routed: Running, failing: Any) -> None:
    """A request that one provider refuses is not carried to the next, but for a route that names the error."""
    failing("google", status=400)
    refused, forgiven = asked("strict"), asked("forgiving")
    answers = ask(routed, [refused, forgiven])
    answer = answers[refused["request_id"]]
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "provider_invalid_request")
    assert calls_of(routed, answers[forgiven["request_id"]]) == [
        ("google", "first", "provider_invalid_request"), ("openai", "fallback", None),
    ]  # fmt: skip


def test_calls_and_money_are_bounded_by_the_request(routed: Running, failing: Any) -> None:
    """A request's own bounds end its calls, and drop what it could not pay."""
    failing("google", status=503)
    once, poor = asked("bounded", max_attempts=1), asked("bounded", max_cost_nano_usd=1)
    answers = ask(routed, [once, poor])
    assert (answers[once["request_id"]]["attempts"], answers[once["request_id"]]["outcome"]) == (1, "failed")
    answer = answers[poor["request_id"]]
    assert (answer["outcome"], answer["error"]["code"]) == ("refused", "policy_no_candidate")
    assert not any(decision["kept"] for decision in answer["decisions"])


def test_a_lane_that_dies_in_mid_fallback_leaves_one_answer(routed: Running, failing: Any) -> None:
    """After `kill -9` while requests go from model to model, each has one answer and no call is missing from the accounts."""
    failing("google", status=503, latency_ms=40)
    failing("openai", status=503, latency_ms=40)
    requests = [asked("dying") for _ in range(60)]
    exchange = Exchange(routed.settings)
    for request in requests:
        exchange.send(request)
    exchange.flush()
    eventually(lambda: len(all_usages(routed, CODEC)) > 20)
    routed.workers["complete"].kill()
    routed.start_worker("complete", ["worker", "complete"])
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert [answers[request["request_id"]]["outcome"] for request in requests] == ["completed"] * 60
    for request_id, usages in all_usages(routed, CODEC).items():
        if request_id in answers:
            assert [usage["attempt"] for usage in usages] == list(range(1, answers[request_id]["attempts"] + 1))


def test_a_spring_service_gets_its_answer_on_its_own_topic(pipeline: Running) -> None:
    """The headers of a `ReplyingKafkaTemplate` bring a copy of the answer, with its correlation id, to its topic and partition."""
    request, correlation = told("Reply to me."), uuid.uuid4().bytes
    headers = [
        ("kafka_replyTopic", b"replies.orders"),
        ("kafka_correlationId", correlation),
        ("kafka_replyPartition", bytes([0, 0, 0, 4])),
    ]
    exchange = Exchange(pipeline.settings)
    exchange.send_bytes(request["request_id"].encode(), CODEC.encode("LlmRequest", request), headers)
    exchange.flush()
    assert request["request_id"] in exchange.answers([request["request_id"]], 90)
    exchange.close()
    (copy,) = eventually(lambda: log(pipeline, REPLIES))
    (answer,) = (
        value for _, value in events(pipeline, Topic("llm.responses.v1", "LlmResponse", 1))[request["request_id"]]
    )
    assert (copy.partition(), copy.value(), dict(copy.headers())["kafka_correlationId"]) == (4, answer, correlation)


@pytest.mark.parametrize("topic", ["replies.nobody", "llm.usage.v1"])
def test_a_reply_topic_that_cannot_be_is_refused(topic: str, pipeline: Running) -> None:
    """One that is not there or not allowed is named in the answer, which comes on the response topic."""
    answer = ask_one(pipeline, told(reply_topic=topic))
    assert (answer["outcome"], topic in answer["error"]["message"]) == ("refused", True)


def test_equal_requests_share_one_call(routed: Running) -> None:
    """Of many equal requests at once one is called, the others get its answer for nothing, and say whose it is."""
    requests = [asked("cached", prompt="Share this.", sim={"latency_ms": 700}) for _ in range(20)]
    answers = ask(routed, requests)
    assert {answer["outcome"] for answer in answers.values()} == {"completed"}
    called = [answer for answer in answers.values() if answer["attempts"]]
    assert len(called) == 1
    given = [answer for answer in answers.values() if not answer["attempts"]]
    assert {(a["cached_from"], a["cost_nano_usd"], a["cost_status"]) for a in given} == {
        (called[0]["request_id"], 0, "cached")
    }
    assert {str(answer["output"]) for answer in answers.values()} == {str(called[0]["output"])}
    usages = eventually(lambda: len(found := usages_of(routed, CODEC, answers)) == 20 and found)
    saved = [usage["saved_nano_usd"] for usage in usages if usage["reason"] == "cached"]
    assert saved == [called[0]["cost_nano_usd"]] * 19
    with connect(routed.settings) as client:
        query = "SELECT sum(hits), sum(saved_usd) FROM cache_savings WHERE task = 'cached'"
        [(hits, usd)] = eventually(lambda: (rows := client.query(query).result_rows)[0][0] >= 19 and rows)
    assert (hits, usd) == (19, Decimal(19 * called[0]["cost_nano_usd"]).scaleb(-9))
    metrics = scrape(routed, "admit")
    counted = [total(metrics, f"millstream_cache_{name}") for name in ("hits_total", "saved_usd_total")]
    assert counted == [19, pytest.approx(float(usd))]


def test_a_cache_is_gone_round_renewed_and_ends(routed: Running) -> None:
    """`bypass` neither reads nor writes, `refresh` writes, and an answer is given only for as long as its route says."""

    def calls(task: str, **fields: Any) -> int:
        return int(ask_one(routed, asked(task, prompt=f"Once, {task}.", **fields))["attempts"])

    assert [calls("cached"), calls("cached"), calls("cached", cache="bypass"), calls("cached", cache="refresh")] == [
        1,
        0,
        1,
        1,
    ]
    assert [calls("cached"), calls("cached", parameters={**told()["parameters"], "seed": 7})] == [0, 1]
    assert calls("brief") == 1
    assert eventually(lambda: calls("brief"))


def test_no_tenant_sees_anothers_answer_unless_the_route_shares_it(routed: Running) -> None:
    """The same request of another tenant is called; on a shared route it is not, and is not told whose answer it got."""
    for task, expected in (("cached", 1), ("common", 0)):
        first = ask_one(routed, asked(task, prompt="Ours."))
        second = ask_one(routed, asked(task, prompt="Ours.", tenant="globex"))
        assert (first["attempts"], second["attempts"]) == (1, expected)
        assert second["cached_from"] == (None if expected else "shared")


def test_every_account_agrees_afterwards(routed: Running) -> None:
    """Topics, ledger, ClickHouse and the simulator's own account tell the same of all these calls."""

    def through() -> Any:
        proof = reconcile(routed.settings, None, routed.stack.simulator_url)
        behind = (mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not any(behind) and proof

    assert {line.name: line.differences for line in eventually(through, 60).lines if line.status == "BROKEN"} == {}
