"""The catalogue of a failing provider, through the whole pipeline: what the caller gets, and that every account has it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from cli.lines import text_of
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config import audit
from config.database import open_database, reading
from config.registry import apply
from core.registry import Route, Target
from core.topics import ALERTS
from schemas.codec import Codec, Event
from tests.stack.asking import all_usages, ask, ask_one, events, eventually, simulator, told

CODEC = Codec()
MODELS = {"openai": "openai/gpt-5-mini", "anthropic": "anthropic/claude-haiku-4-5", "google": "google/gemini-2.5-flash"}
SIXTY = " ".join(f"word{number:02}" for number in range(60))
#: A route a test, each with models of its own: what one test makes fail, a circuit breaker keeps another from.
ROUTES = {
    "long": Route(
        "long", (Target("google/gemini-2.0-flash"), Target("openai/gpt-4.1")), task="long",
        fall_back_on=frozenset({"provider_context_too_long"}),
    ),
    "short": Route("short", (Target("google/gemini-2.0-flash-lite"), Target("openai/gpt-4.1-mini")), task="short"),
    "refused": Route("refused", (Target("google/gemini-2.5-flash-lite"), Target("openai/gpt-4o-mini")), task="refused"),
    "begun": Route(
        "begun", (Target("google/gemini-2.5-pro"), Target("anthropic/claude-opus-4-6"), Target("openai/gpt-4o")), task="begun",
    ),
    "unknown": Route(
        "unknown", (Target("google/gemini-2.5-pro"), Target("anthropic/claude-next"), Target("openai/gpt-4o")),
        task="unknown", fall_back_on=frozenset({"provider_invalid_request"}),
    ),
    "flapping": Route("flapping", (Target("google/gemini-1.5-pro"), Target("openai/gpt-5-nano")), task="flapping"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How the simulator behaves, how many calls there are to be, and how the request ends: None for an answer, else its error."""

    sim: dict[str, Any]
    calls: int
    code: str | None = None
    #: The error of the first call, and whether what it cost is known.
    first: str | None = None
    known: bool = True
    #: Of a stream, how many of the sixty words the first call brings.
    words: int | None = None


CASES = {
    "429 with Retry-After": Case({"status": 429, "retry_after_ms": 700, "times": 1}, 2, None, "provider_rate_limited"),
    "429 without Retry-After": Case({"status": 429, "retry_after": None, "times": 1}, 2, None, "provider_rate_limited"),
    "one 500": Case({"status": 500, "times": 1}, 2, None, "provider_unavailable"),
    "lasting 503": Case({"status": 503}, 3, "provider_unavailable", "provider_unavailable"),
    "reset": Case({"fault": "reset", "times": 1}, 2, None, "provider_connection", known=False),
    "no answer": Case({"fault": "hang", "times": 1}, 2, None, "provider_timeout", known=False),
    "malformed answer": Case({"fault": "garbage", "times": 1}, 2, None, "provider_bad_answer", known=False),
    "content filter": Case({"fault": "refusal"}, 1, "provider_content_refused", "provider_content_refused"),
    "empty answer": Case({"text": ""}, 3, "provider_bad_answer", "provider_bad_answer"),
    "slow first token": Case({"stream": {"first_token_ms": 2_500}}, 1, words=60),
    "cut at 40 of 60 tokens": Case({"stream": {"cut_at": 40}, "times": 1}, 2, None, "provider_bad_answer", False, 40),
    "stall": Case({"stream": {"stall_at": 40, "stall_seconds": 30}, "times": 1}, 2, None, "provider_timeout", False, 40),
    "stall kept alive": Case(
        {"stream": {"stall_at": 40, "stall_seconds": 30, "keep_alive_ms": 200}, "times": 1}, 2, None, "provider_timeout", False, 40
    ),
    "malformed chunk": Case({"stream": {"malformed_at": 40}, "times": 1}, 2, None, "provider_bad_answer", False, 40),
    "missing end mark": Case({"stream": {"no_end": True}, "times": 1}, 2, None, "provider_bad_answer", words=60),
    "one 500 before a stream": Case({"status": 500, "times": 1}, 2, None, "provider_unavailable", words=0),
}  # fmt: skip
every_case = pytest.mark.parametrize(("name", "provider"), [(name, provider) for name in CASES for provider in MODELS])


@dataclass
class Seen:
    """What became of the cases, and the workers' process ids before the first of them."""

    run: Running
    ids: dict[tuple[str, str], str]
    answers: dict[str, Event]
    pids: dict[str, int]

    def usages(self, answer: Event) -> list[Event]:
        """The usage events of an answered request, once all are there."""
        return eventually(
            lambda: (
                len(found := all_usages(self.run, CODEC).get(answer["request_id"], [])) == answer["attempts"] and found
            )
        )

    def accounted(self, answer: Event, unknown: bool = False) -> list[Event]:
        """The usage events of a request, which the ledger and the provider's own account have as well, at the same cost.

        `unknown` says that nobody can know that of the first call, and of no other.
        """
        usages = self.usages(answer)

        def theirs() -> list[dict[str, Any]]:
            calls = {call["client_request_id"]: call for call in simulator(self.run, "calls")}
            return [calls[usage["attempt_id"]] for usage in usages if usage["attempt_id"] in calls]

        made = eventually(lambda: len(found := theirs()) == len(usages) and found)
        assert len(made) == len(usages)
        for usage, call in zip(usages, made, strict=True):
            nobody_knows = unknown and usage["attempt"] == 1
            assert usage["cost_nano_usd"] == (None if nobody_knows else call["cost_nano_usd"])
            assert (usage["cost_status"] == "unknown") is nobody_knows
        settled = eventually(lambda: (found := self.held(answer)) and all(one.settled for one in found) and found)
        assert [one.cost_nano for one in settled] == [usage["cost_nano_usd"] for usage in usages]
        return usages

    def held(self, answer: Event) -> tuple[audit.HeldAttempt, ...]:
        """What the ledger holds of the request's calls."""
        engine = open_database(self.run.settings.database_url)
        with reading(engine) as db:
            (found,) = audit.held(db, [answer["request_id"]])
        engine.dispose()
        return found.attempts


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A pipeline with short times, the routes above, and all cases on all providers sent at once."""
    settings = {
        "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05", "MILLSTREAM_CALL_TIMEOUT_SECONDS": "5",
        "MILLSTREAM_STREAM_STALL_SECONDS": "1.5", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
        "MILLSTREAM_BREAKER_OPEN_SECONDS": "2", "MILLSTREAM_BREAKER_WINDOW_SECONDS": "5",
        "MILLSTREAM_MODELS": '{"anthropic": ["claude-next"], "echo": ["*"]}',
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("failing"), environment=settings) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes=ROUTES), run.settings, "test", 1)
        engine.dispose()
        assert eventually(lambda: ask_one(run, asked("short"))["route"] == "short")
        pids = {name: child.pid for name, child in run.workers.items()}
        requests = {
            (name, provider): told(
                f"{name}.",
                MODELS[provider],
                {"text": SIXTY, "key": str(uuid.uuid4()), **case.sim},
                stream=case.words is not None,
            )
            for name, case in CASES.items()
            for provider in MODELS
        }
        answers = ask(run, requests.values(), 60)
        yield Seen(run, {key: request["request_id"] for key, request in requests.items()}, answers, pids)


def asked(task: str, **fields: Any) -> Any:
    """A request that leaves the model to the route of its task."""
    return {**told(task=task, **fields), "model": None}


@contextmanager
def failing(run: Running, provider: str, **how: Any) -> Iterator[None]:
    """A provider that fails for a while."""
    simulator(run, "faults", {"provider": provider, **how}, "POST")
    try:
        yield
    finally:
        simulator(run, "faults", method="DELETE")


@every_case
def test_a_failing_provider_is_dealt_with_and_accounted_for(name: str, provider: str, seen: Seen) -> None:
    """The answer, or its error, comes after as many calls as it needs, and events, ledger and provider agree on each call."""
    case, answer = CASES[name], seen.answers[seen.ids[name, provider]]
    assert (answer["error"] and answer["error"]["code"], answer["attempts"]) == (case.code, case.calls), answer["error"]
    assert answer["outcome"] == ("completed" if case.code is None else "failed")
    assert text_of(answer) == ("" if case.code else SIXTY)
    # Gemini's mark of the end is also what says that its usage is the whole.
    known = case.known and (name, provider) != ("missing end mark", "google")
    usages = seen.accounted(answer, unknown=not known)
    assert [usage["attempt"] for usage in usages] == list(range(1, case.calls + 1))
    assert all(later["started_at"] >= earlier["finished_at"] for earlier, later in pairwise(usages))
    assert usages[0]["error_code"] == case.first
    came = None if case.words is None else len(" ".join(SIXTY.split()[: case.words]))
    assert usages[0]["received_chars"] == came
    assert (usages[0]["first_token_us"] is not None) is bool(case.words)
    if case.code is None:
        assert (usages[-1]["status"], usages[-1]["cost_nano_usd"] > 0) == ("succeeded", True)
        assert usages[-1]["received_chars"] == (None if case.words is None else len(SIXTY))


def test_the_wait_that_a_provider_asks_for_is_kept(seen: Seen) -> None:
    """Between a 429 with Retry-After and the next call lies at least the time that it names."""
    for provider in MODELS:
        first, second = seen.usages(seen.answers[seen.ids["429 with Retry-After", provider]])
        assert second["started_at"] - first["finished_at"] >= 700_000


def test_a_limit_that_names_no_wait_is_tried_again_after_its_answer(seen: Seen) -> None:
    """After a 429 without Retry-After comes one more call, as a retry, once the refusal is here; the refusal cost nothing."""
    for provider in MODELS:
        first, second = seen.usages(seen.answers[seen.ids["429 without Retry-After", provider]])
        assert (first["provider_status"], first["cost_status"], second["reason"]) == (429, "not_charged", "retry")
        assert second["started_at"] >= first["finished_at"] >= first["started_at"]


def test_a_first_token_is_recorded_when_it_comes(seen: Seen) -> None:
    """What a provider is told to wait before its first token is on the usage event, and the answer says the same moment."""
    for provider in MODELS:
        answer = seen.answers[seen.ids["slow first token", provider]]
        (usage,) = seen.usages(answer)
        assert usage["first_token_us"] == usage["first_token_at"] - usage["started_at"] >= 2_500_000
        assert usage["first_token_at"] == answer["first_token_at"] <= usage["finished_at"]


def test_a_context_too_long_goes_to_the_larger_model_where_the_route_says_so(seen: Seen) -> None:
    """The refused call costs nothing, the larger model answers; without the route's word the caller is told what is too long."""
    with failing(seen.run, "google", context_tokens=1):
        fallen, kept = asked("long"), asked("short")
        answers = ask(seen.run, [fallen, kept])
    larger, refused = answers[fallen["request_id"]], answers[kept["request_id"]]
    assert (larger["outcome"], larger["model"], larger["attempts"]) == ("completed", "gpt-4.1", 2)
    first, second = seen.accounted(larger)
    assert (first["error_code"], first["cost_nano_usd"], second["reason"]) == (
        "provider_context_too_long",
        0,
        "fallback",
    )
    assert (refused["error"]["code"], refused["attempts"]) == ("provider_context_too_long", 1)
    assert "exceeds the maximum number of tokens allowed" in refused["error"]["message"]
    seen.accounted(refused)


def test_refused_content_is_carried_to_no_other_provider(seen: Seen) -> None:
    """A content filter's word is the answer; what the refusal used is on the account."""
    with failing(seen.run, "google", fault="refusal"):
        answer = ask_one(seen.run, asked("refused"))
    assert (answer["error"]["code"], answer["provider"], answer["attempts"]) == (
        "provider_content_refused",
        "google",
        1,
    )
    (usage,) = seen.accounted(answer)
    assert usage["cost_nano_usd"] == answer["cost_nano_usd"] > 0


def begun(**fields: Any) -> dict[str, Any]:
    """A request whose last message is the beginning of the answer."""
    first: dict[str, Any] = dict(told()["messages"][0])
    return asked("begun", **fields) | {"messages": [first, {**first, "role": "assistant"}]}


def test_a_fallback_that_would_refuse_the_prefill_is_not_called(seen: Seen) -> None:
    """A Claude that takes no answer begun by another is left out with the reason; asked for by name it is refused without a call."""
    with failing(seen.run, "google", status=503):
        answer = ask_one(seen.run, begun())
    assert (answer["outcome"], answer["model"]) == ("completed", "gpt-4o")
    assert {usage["provider"] for usage in seen.accounted(answer)} == {"google", "openai"}
    (dropped,) = [d for d in answer["decisions"] if d["model"] == "anthropic/claude-opus-4-6"]
    assert not dropped["kept"] and "role assistant" in dropped["reason"]
    named = ask_one(seen.run, begun() | {"model": "anthropic/claude-opus-4-6"})
    assert (named["outcome"], named["error"]["code"], named["attempts"]) == ("refused", "caller_unsupported_feature", 0)
    earlier = ask_one(seen.run, begun() | {"model": "anthropic/claude-haiku-4-5"})
    assert earlier["outcome"] == "completed"


def test_a_fallback_that_refuses_the_prefill_itself_is_passed_over(seen: Seen) -> None:
    """A model whose version nobody knows refuses it with a 400, and the route's next one answers."""
    with failing(seen.run, "google", status=503):
        answer = ask_one(seen.run, begun() | {"task": "unknown"})
    assert (answer["outcome"], answer["model"]) == ("completed", "gpt-4o")
    calls = [(usage["provider"], usage["error_code"]) for usage in seen.accounted(answer)]
    assert calls[-2:] == [("anthropic", "provider_invalid_request"), ("openai", None)]


def test_a_flapping_provider_is_called_again_each_time_that_it_is_back(seen: Seen) -> None:
    """Each time it fails its breaker opens and requests go past it, each time it is well a trial closes the breaker again."""

    def flapping() -> Event:
        return ask_one(seen.run, asked("flapping"))

    def opened() -> int:
        once = {event_id: value for records in events(seen.run, ALERTS).values() for event_id, value in records}
        found = [CODEC.decode(ALERTS.record, value) for value in once.values()]
        return sum((a["kind"], a["subject"]) == ("breaker_open", "google/gemini-1.5-pro") for a in found)

    answers: list[Event] = []

    def asked_until_open(times: int) -> bool:
        answers.append(flapping())
        return opened() == times

    for times in range(1, 4):
        assert eventually(lambda: flapping()["provider"] == "google", 60)
        with failing(seen.run, "google", status=503):
            assert eventually(lambda times=times: asked_until_open(times), 60)
            while_open = [flapping() for _ in range(10)]
        # While it is open nobody is called; a trial now and then is.
        assert any(answer["attempts"] == 1 for answer in while_open)
        answers += while_open
    assert eventually(lambda: flapping()["provider"] == "google", 60)
    assert {(answer["outcome"], answer["provider"]) for answer in answers} == {("completed", "openai")}
    for answer in answers:
        assert len(seen.usages(answer)) == answer["attempts"]


def test_after_all_of_them_the_same_workers_run_and_every_account_agrees(seen: Seen) -> None:
    """No process was started again, and topics, ledger, ClickHouse and the simulator's own account tell the same."""
    assert {name: child.pid for name, child in seen.run.workers.items() if child.running} == seen.pids

    def broken() -> dict[str, Any]:
        proof = reconcile(seen.run.settings, None, seen.run.stack.simulator_url)
        behind = sum(mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        if proof.marks.under_way or behind:
            return {"behind": behind}
        return {line.name: line.differences for line in proof.lines if line.status == "BROKEN"}

    assert eventually(lambda: not broken(), 60), broken()
