"""Bad input and failing providers, case by case, through the running pipeline: each gets its answer, none stops anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.running import Running
from core.replay import NOT_CARRIED, TIMES_SEEN
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES
from schemas.codec import Event
from sinks.writer import connect
from tests.stack.asking import ask, ask_one, events, eventually, log, told
from tests.stack.crowd import FAILING, MODELS, REFUSED, RETRY_AFTER, Crowd, gather, workers
from tests.stack.poison import CODEC, HEADERS, POISON


@pytest.fixture(scope="module")
def crowd(pipeline: Running) -> Crowd:
    return gather(pipeline)


@pytest.fixture(autouse=True)
def everything_still_runs(pipeline: Running) -> Any:
    """After each case the same processes run, none of them restarted."""
    before = {name: child.pid for name, child in pipeline.workers.items()}
    yield
    assert {name: child.pid for name, child in pipeline.workers.items() if child.running} == before


def letter_of(run: Running, key: bytes) -> Event | None:
    """The dead letter of the record with this key, None while there is none."""
    letters = (CODEC.decode(DEAD_LETTERS.record, message.value()) for message in log(run, DEAD_LETTERS))
    return next((letter for letter in letters if letter["key"] == key), None)


@pytest.mark.parametrize("name", POISON)
@pytest.mark.parametrize("readable", [True, False], ids=["readable key", "other key"])
def test_an_undecodable_record_becomes_a_dead_letter_byte_for_byte(name: str, readable: bool, crowd: Crowd) -> None:
    """Key, value and headers come back intact with their position, once, and a caller whose id can be read is answered."""
    key = crowd.keys[f"{name}, {readable}"]
    letters = crowd.letters[key]
    assert len(letters) == 1
    letter = letters[0]
    assert (letter["value"], letter["topic"], letter["reason"]) == (
        POISON[name].value,
        REQUESTS.name,
        "caller_undecodable",
    )
    assert [(h["key"], h["value"]) for h in letter["headers"]] == POISON[name].headers
    assert (letter["partition"], letter["offset"]) == crowd.sent[key]
    if readable:
        answer = crowd.answer(f"{name}, {readable}")
        assert (answer["outcome"], answer["error"]["code"]) == ("refused", "caller_undecodable")


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_served_is_refused_by_field_and_value(name: str, crowd: Crowd) -> None:
    """The answer has the code, names the field and the value, and no provider was called."""
    _, code, words = REFUSED[name]
    answer = crowd.answer(f"refused: {name}")
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", code, 0)
    assert all(word in answer["error"]["message"] for word in words), answer["error"]["message"]
    assert crowd.usage(f"refused: {name}") == []


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("provider", MODELS)
def test_a_failing_provider_is_retried_where_it_helps_and_answered_from_the_closed_list(
    name: str, provider: str, crowd: Crowd
) -> None:
    """The answer names the fault, every attempt is one usage event and one call at the provider, and no key is in it."""
    _, code, attempts = FAILING[name]
    case = f"{provider}: {name}"
    answer = crowd.answer(case)
    assert answer["outcome"] == "failed"
    assert answer["error"]["code"].startswith(code), answer["error"]
    assert "sim-key" not in json.dumps(answer, default=str)
    assert [usage["attempt"] for usage in crowd.usage(case)] == list(range(1, attempts + 1))
    assert (answer["attempts"], crowd.called(case)) == (attempts, attempts)


@pytest.mark.parametrize("form", RETRY_AFTER)
def test_retry_after_is_kept_in_its_three_forms(form: str, crowd: Crowd) -> None:
    """The second call comes no sooner than the provider asked, and succeeds."""
    answer = crowd.answer(form)
    assert (answer["outcome"], answer["attempts"]) == ("completed", 2)
    first, second = crowd.usage(form)
    assert second["started_at"] - first["finished_at"] >= RETRY_AFTER[form][1]
    assert (first["status"], first["error_code"], second["status"]) == ("failed", "provider_rate_limited", "succeeded")
    assert answer["cost_nano_usd"] == second["cost_nano_usd"] > 0


def test_an_unpriced_model_is_called_and_its_cost_is_null(crowd: Crowd) -> None:
    """No price is not a price of zero: the cost is null and says unpriced."""
    answer = crowd.answer("unpriced")
    assert (answer["outcome"], answer["cost_nano_usd"], answer["cost_status"]) == ("completed", None, "unpriced")
    assert answer["tokens"]["output_text"] > 0


def test_a_deadline_already_past_is_expired_without_a_call(crowd: Crowd) -> None:
    """Outcome expired, nothing called, nothing paid."""
    answer = crowd.answer("expired")
    assert (answer["outcome"], answer["attempts"], answer["cost_nano_usd"]) == ("expired", 0, 0)


@pytest.mark.parametrize("name", POISON)
def test_good_requests_before_and_behind_a_bad_record_are_answered(name: str, crowd: Crowd) -> None:
    """In the bad record's own partition stand good requests on both sides of it, and each of them has its answer."""
    partition, offset = crowd.sent[crowd.keys[f"{name}, True"]]
    good = {crowd.sent[i.encode()][1]: i for i in crowd.good if crowd.sent[i.encode()][0] == partition}
    assert min(good) < offset < max(good)
    assert {crowd.answers[request_id]["outcome"] for request_id in good.values()} == {"completed"}


def test_no_worker_restarts_and_no_group_rebalances(pipeline: Running, crowd: Crowd) -> None:
    """After the whole crowd the same processes run, and none was given its partitions again."""
    assert workers(pipeline) == crowd.workers


def test_a_record_too_large_for_its_dead_letter_holds_up_nobody(pipeline: Running) -> None:
    """Its dead letter has everything but the value, says so, and the lane goes on behind it."""
    key, value = uuid.uuid4().bytes, b"\xc3\x01" + b"\x00" * 1_399_700
    exchange = Exchange(pipeline.settings)
    exchange.send_bytes(key, value, HEADERS)
    exchange.flush()
    exchange.close()
    found = eventually(lambda: letter_of(pipeline, key))
    assert (found["value"], [(h["key"], h["value"]) for h in found["headers"]]) == (None, HEADERS)
    assert found["message"].endswith(NOT_CARRIED)
    assert {a["outcome"] for a in ask(pipeline, [told(f"Behind {n}.") for n in range(30)]).values()} == {"completed"}


#: aiokafka's own builder in Python, and a text that it takes for a header's name: other clients send any bytes.
NAMELESS = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Raw(str):
    def encode(self, *_):
        return b"x\\xff"

async def main(broker, topic, key):
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        await producer.send_and_wait(topic, b"hello", bytes.fromhex(key), headers=[("a", b"1"), (Raw("x"), None)])

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_header_name_that_is_not_utf8_stops_neither_admit_nor_the_sink(pipeline: Running) -> None:
    """The record is a dead letter, the byte written as it reads, and requests are answered and stored behind it."""
    key = uuid.uuid4().bytes
    command = [sys.executable, "-c", NAMELESS, pipeline.settings.kafka_bootstrap, REQUESTS.name, key.hex()]
    subprocess.run(command, env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}, check=True, timeout=60)
    found = eventually(lambda: letter_of(pipeline, key))
    assert [(h["key"], h["value"]) for h in found["headers"]] == [("a", b"1"), ("x\\xff", None)]
    behind = [told(f"Behind {n}.") for n in range(30)]
    assert {a["outcome"] for a in ask(pipeline, behind).values()} == {"completed"}
    with connect(pipeline.settings) as client:
        sql = "SELECT count() FROM requests WHERE request_id IN {ids:Array(String)}"
        ids = {"ids": [request["request_id"] for request in behind]}
        assert eventually(lambda: client.query(sql, ids).result_rows == [(30,)])
    assert all(child.running for child in pipeline.workers.values())


FORGED = {
    "beyond 32 bits": b"9" * 20,
    "5,000 digits": b"9" * 5_000,
    "negative": b"-1",
    "no digit": b"\xb2",
    "null": None,
}


@pytest.mark.parametrize("count", FORGED.values(), ids=FORGED)
def test_a_forged_count_of_replays_stops_nothing(count: bytes | None, pipeline: Running) -> None:
    """A header that is no count of ours is taken for none; the record is a dead letter like any other."""
    key = uuid.uuid4().bytes
    exchange = Exchange(pipeline.settings)
    exchange.send_bytes(key, b"hello", [(TIMES_SEEN, count)])
    exchange.flush()
    exchange.close()
    found = eventually(lambda: letter_of(pipeline, key))
    assert (found["times_seen"], found["headers"]) == (1, [{"key": TIMES_SEEN, "value": count}])


def test_a_refused_key_names_the_provider_and_the_setting(crowd: Crowd) -> None:
    """The sentence tells an operator what to mend, without the key."""
    message = crowd.answer("openai: 401")["error"]["message"]
    assert "OPENAI_API_KEY" in message
    assert "sim-key" not in message


def test_the_same_request_again_gets_the_stored_answer(pipeline: Running) -> None:
    """Same id and body, sent later: the same bytes again, no second call."""
    request = told("Only once, please.")
    first = ask_one(pipeline, request)
    again = ask_one(pipeline, {**request, "created_at": request["created_at"] + 5_000_000})
    assert again == first
    stored = events(pipeline, RESPONSES)[request["request_id"]]
    assert len(stored) == 2
    assert len(set(stored)) == 1


def test_the_same_id_with_another_body_is_refused(pipeline: Running) -> None:
    """A reused id is told so, and the first answer stands."""
    request = told("The first.")
    first = ask_one(pipeline, request)
    other = told("The second.", request_id=request["request_id"])
    assert ask_one(pipeline, other)["error"]["code"] == "caller_request_id_reused"
    assert ask_one(pipeline, request) == first


def test_a_call_is_cut_off_at_its_deadline(pipeline: Running) -> None:
    """A provider that hangs costs the caller no more time than the deadline, and its cost is unknown, not zero."""
    request = told(sim={"fault": "hang"}, deadline=int((time.time() + 1.5) * 1_000_000))
    answer = ask_one(pipeline, request)
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "provider_timeout")
    assert (answer["cost_nano_usd"], answer["cost_status"]) == (None, "unknown")
    assert CODEC.decode("LlmResponse", events(pipeline, RESPONSES)[request["request_id"]][0][1]) == answer
