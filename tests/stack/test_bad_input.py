"""Bad input and failing providers, case by case, through the running pipeline: each gets its answer, none stops anything."""

from __future__ import annotations

import json
import time
import uuid

from typing import Any

import pytest

from cli.exchange import Exchange
from cli.running import Running
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE
from schemas.codec import Codec, Event
from tests.stack.asking import ask, ask_one, events, eventually, log, simulator, told, usages

CODEC = Codec()
GOOD = CODEC.encode("LlmRequest", told())


@pytest.fixture(autouse=True)
def everything_still_runs(pipeline: Running) -> Any:
    """After each case the same processes run, none of them restarted."""
    before = {name: child.pid for name, child in pipeline.workers.items()}
    yield
    assert all(child.running for child in pipeline.workers.values())
    assert {name: child.pid for name, child in pipeline.workers.items()} == before


def calls_of(run: Running, request_id: str) -> list[Any]:
    """The simulator's record of every call made for a request."""
    attempts = {usage["attempt_id"] for usage in usages(run, CODEC, USAGE, request_id)}
    return [call for call in simulator(run, "calls") if call["client_request_id"] in attempts]


UNDECODABLE: list[tuple[str, bytes | None]] = [
    ("tombstone", None), ("empty", b""), ("text", b"hello"), ("JSON", b'{"prompt": "hello"}'),
    ("unknown fingerprint", b"\xc3\x01" + b"\x07" * 8 + GOOD[10:]), ("unknown schema id", b"\x00\x00\x00\xff\xff" + GOOD[10:]),
    ("cut short", GOOD[:40]), ("bytes left over", GOOD + b"!"), ("zeros", b"\x00" * 64), ("another record type", b""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), UNDECODABLE, ids=[n for n, _ in UNDECODABLE])
@pytest.mark.parametrize("readable", [True, False], ids=["readable key", "other key"])
def test_an_undecodable_record_becomes_a_dead_letter_byte_for_byte(
    name: str, value: bytes | None, readable: bool, pipeline: Running
) -> None:
    """Key, value and headers come back intact with their position, and a caller whose id can be read gets an answer."""
    if name == "another record type":
        value = CODEC.encode("DeadLetter", _letter())
    key = str(uuid.uuid4()).encode() if readable else b"\xff\x00" + uuid.uuid4().bytes
    headers = [("ce_id", b"x"), ("x-binary", b"\x00\xff"), ("x-binary", b"again")]
    exchange = Exchange(pipeline.settings)
    exchange.send_bytes(key, value, headers)
    exchange.flush()
    answers = exchange.answers([key.decode()], 20) if readable else {}
    exchange.close()
    if readable:
        answer = answers[key.decode()]
        assert (answer["outcome"], answer["error"]["code"]) == ("refused", "caller_undecodable")
    letters = eventually(
        lambda: [e for m in log(pipeline, DEAD_LETTERS) if (e := CODEC.decode("DeadLetter", m.value()))["key"] == key]
    )
    assert len(letters) == 1
    letter = letters[0]
    assert (letter["value"], letter["topic"], letter["reason"]) == (value, REQUESTS.name, "caller_undecodable")
    assert [(h["key"], h["value"]) for h in letter["headers"]] == headers
    sent = [m for m in log(pipeline, REQUESTS) if m.key() == key]
    assert (letter["partition"], letter["offset"]) == (sent[0].partition(), sent[0].offset())


def _letter() -> Event:
    return {
        "topic": "t", "partition": 0, "offset": 0, "key": None, "value": None, "headers": [], "timestamp": 0, "reason": "r",
        "message": "m", "stage": "s", "times_seen": 1, "failed_at": 0,
    }  # fmt: skip


def part(**changes: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "x", **changes}]}]


REFUSED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("no messages", {"prompt": None, "messages": []}, "caller_invalid_request", ["messages", "empty"]),
    ("negative limit", {"parameters": {"max_output_tokens": -1}}, "caller_invalid_request", ["max_output_tokens", "-1"]),
    ("absurd limit", {"parameters": {"max_output_tokens": 10**15}}, "caller_invalid_request", ["max_output_tokens", "1000000000000000"]),
    ("temperature", {"parameters": {"temperature": 9.5}}, "caller_invalid_request", ["temperature", "9.5"]),
    ("bad UUID", {"request_id": "not-a-uuid"}, "caller_invalid_request", ["request_id", "not-a-uuid"]),
    ("unknown role", {"prompt": None, "messages": [{"role": "wizard", "content": [{"type": "text", "text": "x"}]}]}, "caller_invalid_request", ["role", "wizard"]),
    ("too long", {"prompt": "x" * 210_000}, "caller_invalid_request", ["bytes", "200000"]),
    ("unknown model", {"model": "openai/gtp-5-mini"}, "caller_unknown_model", ["openai/gtp-5-mini", "openai/gpt-5-mini"]),
    ("unknown provider", {"model": "opanai/gpt-5-mini"}, "caller_unknown_model", ["opanai/gpt-5-mini", "openai/gpt-5-mini"]),
    ("no model", {"model": None}, "caller_unknown_model", ["provider/model"]),
    ("image", {"prompt": None, "messages": part(type="image", url="https://example.org/x.png")}, "caller_unsupported_feature", ["image"]),
    ("stream", {"stream": True}, "caller_unsupported_feature", ["stream"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "code", "named"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_request_that_cannot_be_served_is_refused_by_field_and_value(
    name: str, fields: dict[str, Any], code: str, named: list[str], pipeline: Running
) -> None:
    """The answer has the code, names the field and the value, and no provider was called."""
    fields = {**fields}
    fields.setdefault("request_id", str(uuid.uuid4()))
    if fields["request_id"] == "not-a-uuid":
        fields["request_id"] = f"not-a-uuid-{uuid.uuid4()}"
    prompt = fields.pop("prompt", "Hello.")
    if "messages" in fields:
        request = {**told(), **_filled(fields)}
    else:
        request = {**told(prompt), **_filled(fields)}
    answer = ask_one(pipeline, request)  # type: ignore[arg-type]
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", code, 0)
    assert all(word in answer["error"]["message"] for word in named), answer["error"]["message"]
    assert usages(pipeline, CODEC, USAGE, answer["request_id"]) == []


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields in the event's shape, whatever a JSON line may leave out filled in."""
    empty = {**told()["messages"][0]["content"][0], "text": None}
    filled = dict(fields)
    if "messages" in filled:
        filled["messages"] = [
            {**m, "content": [{**empty, **p} for p in m["content"]]} for m in filled["messages"]
        ]  # fmt: skip
    if "parameters" in filled:
        filled["parameters"] = {**told()["parameters"], **filled["parameters"]}
    return filled


def test_an_unpriced_model_is_called_and_its_cost_is_null(pipeline: Running) -> None:
    """No price is not a price of zero: the cost is null and says unpriced."""
    answer = ask_one(pipeline, told(model="openai/gpt-unpriced"))
    assert (answer["outcome"], answer["cost_nano_usd"], answer["cost_status"]) == ("completed", None, "unpriced")
    assert answer["tokens"]["output_text"] > 0


def test_the_same_request_again_gets_the_stored_answer(pipeline: Running) -> None:
    """Same id and body: the same bytes again, no second call, no second usage."""
    request = told("Only once, please.")
    first = ask_one(pipeline, request)
    again = ask_one(pipeline, {**request, "created_at": request["created_at"] + 5_000_000})
    assert again == first
    stored = events(pipeline, RESPONSES)[request["request_id"]]
    assert len(stored) == 2
    assert len(set(stored)) == 1
    assert len(calls_of(pipeline, request["request_id"])) == 1


def test_the_same_id_with_another_body_is_refused(pipeline: Running) -> None:
    """A reused id is told so, and the first answer stands."""
    request = told("The first.")
    first = ask_one(pipeline, request)
    other = told("The second.", request_id=request["request_id"])
    assert ask_one(pipeline, other)["error"]["code"] == "caller_request_id_reused"
    assert ask_one(pipeline, request) == first


def test_a_deadline_already_past_is_expired_without_a_call(pipeline: Running) -> None:
    """Outcome expired, nothing called, nothing paid."""
    answer = ask_one(pipeline, told(deadline="2020-01-01T00:00:00Z"))
    assert (answer["outcome"], answer["attempts"], answer["cost_nano_usd"]) == ("expired", 0, 0)


FAILING: list[tuple[str, dict[str, Any], str, int]] = [
    ("429 for ever", {"status": 429, "retry_after_ms": 50}, "provider_rate_limited", 3),
    ("500 for ever", {"status": 500}, "provider_unavailable", 3),
    ("503 for ever", {"status": 503}, "provider_unavailable", 3),
    ("reset", {"fault": "reset"}, "provider_connection", 3),
    ("garbage", {"fault": "garbage"}, "provider_bad_answer", 3),
    ("truncated", {"fault": "truncated"}, "provider_", 3),
    ("empty choices", {"fault": "empty_choices"}, "provider_bad_answer", 3),
    ("200 with an error inside", {"fault": "error_in_200"}, "provider_", 3),
    ("400", {"status": 400}, "provider_invalid_request", 1),
    ("401", {"status": 401}, "provider_auth", 1),
    ("403", {"status": 403}, "provider_auth", 1),
    ("404", {"status": 404}, "provider_unknown_model", 1),
    ("422", {"status": 422}, "provider_invalid_request", 1),
    ("refusal", {"fault": "refusal"}, "provider_content_refused", 1),
]


@pytest.mark.parametrize(("name", "sim", "code", "attempts"), FAILING, ids=[f[0] for f in FAILING])
@pytest.mark.parametrize(
    "model",
    ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash"],
    ids=["openai", "anthropic", "google"],
)
def test_a_failing_provider_is_retried_where_it_helps_and_answered_from_the_closed_list(
    name: str, sim: dict[str, Any], code: str, attempts: int, model: str, pipeline: Running
) -> None:
    """The answer names the fault, every attempt is a usage event and a call at the provider, and no key is in it."""
    answer = ask_one(pipeline, told(model=model, sim=sim))
    assert answer["outcome"] == "failed"
    assert answer["error"]["code"].startswith(code), answer["error"]
    assert "sim-key" not in json.dumps(answer, default=str)
    found = eventually(lambda: len(f := usages(pipeline, CODEC, USAGE, answer["request_id"])) >= attempts and f)
    assert [usage["attempt"] for usage in found] == list(range(1, attempts + 1))
    assert answer["attempts"] == attempts
    assert len(calls_of(pipeline, answer["request_id"])) == attempts


@pytest.mark.parametrize("form", ["retry_after", "retry_after_ms", "retry_after_date"])
def test_retry_after_is_kept_in_its_three_forms(form: str, pipeline: Running) -> None:
    """The second call comes no sooner than the provider asked, and succeeds."""
    wait = {"retry_after": 1, "retry_after_ms": 700, "retry_after_date": 2}[form]
    answer = ask_one(pipeline, told(f"Slow down, {uuid.uuid4()}.", sim={"status": 429, "times": 1, form: wait}))
    assert (answer["outcome"], answer["attempts"]) == ("completed", 2)
    first, second = usages(pipeline, CODEC, USAGE, answer["request_id"])
    # An HTTP date has whole seconds, so up to one of the two may have gone by when it is read.
    least = {"retry_after": 1_000_000, "retry_after_ms": 700_000, "retry_after_date": 900_000}[form]
    assert second["started_at"] - first["finished_at"] >= least
    assert (first["status"], first["error_code"], second["status"]) == ("failed", "provider_rate_limited", "succeeded")
    assert answer["cost_nano_usd"] == second["cost_nano_usd"] > 0


def test_a_call_is_cut_off_at_its_deadline(pipeline: Running) -> None:
    """A provider that hangs costs the caller no more time than the deadline, and its cost is unknown, not zero."""
    request = told(sim={"fault": "hang"}, deadline=int((time.time() + 1.5) * 1_000_000))
    answer = ask_one(pipeline, request)
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "provider_timeout")
    assert answer["cost_nano_usd"] is None
    assert answer["cost_status"] == "unknown"


def test_a_refused_key_names_the_provider_and_the_setting(pipeline: Running) -> None:
    """The sentence tells an operator what to mend, without the key."""
    message = ask_one(pipeline, told(sim={"status": 401}))["error"]["message"]
    assert "OPENAI_API_KEY" in message
    assert "sim-key" not in message


def test_bad_records_in_a_crowd_hold_up_nobody(pipeline: Running) -> None:
    """Two hundred good requests between two hundred bad records all get their answers."""
    exchange = Exchange(pipeline.settings)
    requests = [told(f"Number {n}.", sim={"latency_ms": 5}) for n in range(200)]
    for request in requests:
        exchange.send_bytes(None, b"poison", [])
        exchange.send(request)
    exchange.flush()
    answers = exchange.answers([r["request_id"] for r in requests], 30)
    exchange.close()
    assert sum(answer["outcome"] == "completed" for answer in answers.values()) == 200
