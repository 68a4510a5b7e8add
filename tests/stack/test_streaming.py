"""Streamed answers and cancelled requests through the whole pipeline: what callers see, and that all of it is accounted for."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import kafka
from cli.cancel import tell
from cli.chaos.streams import streamed_line
from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from core.attempts import attempt_id
from core.topics import CHUNKS
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, ask_one, events, eventually, simulator, told

CODEC = Codec()
ROOT = Path(__file__).parent.parent.parent
MODELS = ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash")
SIXTY = " ".join(f"word{number:02}" for number in range(60))
FORTY = SIXTY[: SIXTY.index(" word40")]

every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def run() -> Iterator[Running]:
    """A pipeline whose workers give a stream up after two seconds of silence."""
    with running(environment={**QUICK, "MILLSTREAM_STREAM_STALL_SECONDS": "2"}) as started:
        yield started


def sixty(model: str, stream: dict[str, Any], **directive: Any) -> LlmRequest:
    """A streamed request for 60 tokens in 60 pieces, with a count of its own for `times`."""
    usage = {"input": 10, "output": 60}
    sim = {"text": SIXTY, "usage": usage, "stream": stream, "key": str(uuid.uuid4()), **directive}
    return told("Stream.", model, sim, stream=True)


def chunks_of(run: Running, request: LlmRequest) -> list[Event]:
    """The chunks of a request in the order of the log, each once."""
    records = events(run, CHUNKS).get(request["request_id"], [])
    assert len({event_id for event_id, _ in records}) == len(records)
    return [CODEC.decode(CHUNKS.record, value) for _, value in records]


def texts_of(chunks: list[Event]) -> dict[int, str]:
    """The text of each attempt, whose chunks stand in order and without gaps."""
    found: dict[int, str] = {}
    for attempt in sorted({chunk["attempt"] for chunk in chunks}):
        own = [chunk for chunk in chunks if chunk["attempt"] == attempt]
        assert [chunk["index"] for chunk in own] == list(range(len(own)))
        assert {chunk["attempt_id"] for chunk in own} == {attempt_id(own[0]["request_id"], attempt)}
        found[attempt] = "".join(chunk["text"] for chunk in own)
    return found


def usages_of(run: Running, answer: Event) -> list[Event]:
    """The usage events of an answered request, once all are there."""
    return eventually(
        lambda: len(found := all_usages(run, CODEC).get(answer["request_id"], [])) == answer["attempts"] and found
    )


def seen(run: Running, usage: Event) -> dict[str, Any]:
    """What the simulator's own account says of a call, once it has ended there."""
    return eventually(
        lambda: next(
            (call for call in simulator(run, "calls") if call["client_request_id"] == usage["attempt_id"]), None
        )
    )


@every_model
def test_chunks_come_in_order_and_make_up_the_answer(run: Running, model: str) -> None:
    """A streamed answer stands on the chunk topic piece by piece while it is made, and whole in the final answer."""
    request = sixty(model, {"pace_ms": 15, "first_token_ms": 200})
    answer = ask_one(run, request)
    chunks = chunks_of(run, request)
    assert (answer["outcome"], answer["output"][0]["text"], answer["attempts"]) == ("completed", SIXTY, 1)
    assert texts_of(chunks) == {1: SIXTY}
    assert len(chunks) > 1
    assert {chunk["tenant"] for chunk in chunks} == {"acme"}
    assert answer["started_at"] < answer["first_token_at"] < answer["finished_at"]
    assert answer["first_token_at"] <= chunks[0]["at"] <= chunks[-1]["at"] <= answer["finished_at"]
    [usage] = usages_of(run, answer)
    assert usage["first_token_at"] == answer["first_token_at"]
    assert usage["first_token_us"] == usage["first_token_at"] - usage["started_at"] >= 200_000
    call = seen(run, usage)
    assert call["tokens"] == {name: count or 0 for name, count in usage["tokens"].items()}
    assert usage["cost_nano_usd"] == call["cost_nano_usd"] > 0


@every_model
@pytest.mark.parametrize(
    ("stream", "code"),
    [
        ({"cut_at": 40}, "provider_bad_answer"),
        ({"stall_at": 40, "stall_seconds": 30}, "provider_timeout"),
        ({"malformed_at": 40}, "provider_bad_answer"),
        ({"error_at": 40}, "provider_unavailable"),
    ],
)
def test_a_broken_stream_is_never_a_short_success(run: Running, model: str, stream: dict[str, Any], code: str) -> None:
    """A stream that breaks at 40 of 60 tokens is called again, then fails, with each call on the record at unknown cost."""
    request = sixty(model, stream)
    request["max_attempts"] = 2
    answer = ask_one(run, request)
    assert (answer["outcome"], answer["error"]["code"], answer["output"], answer["attempts"]) == ("failed", code, [], 2)
    assert (answer["cost_nano_usd"], answer["cost_status"]) == (None, "unknown")
    assert texts_of(chunks_of(run, request)) == {1: FORTY, 2: FORTY}
    for usage in usages_of(run, answer):
        assert (usage["status"], usage["error_code"]) == ("failed", code)
        assert (usage["cost_nano_usd"], usage["cost_status"]) == (None, "unknown")
        assert usage["first_token_us"] > 0
        call = seen(run, usage)
        assert call["outcome"] != "answered"
        assert call["cost_nano_usd"] > 0


@every_model
def test_a_stream_without_its_end_begins_again(run: Running, model: str) -> None:
    """All the words without the mark of the end are no answer; the next attempt's chunks are the answer's text."""
    request = sixty(model, {"no_end": True}, times=1)
    answer = ask_one(run, request)
    assert (answer["outcome"], answer["attempts"], answer["output"][0]["text"]) == ("completed", 2, SIXTY)
    assert texts_of(chunks_of(run, request)) == {1: SIXTY, 2: SIXTY}
    first, second = usages_of(run, answer)
    assert (first["status"], second["status"]) == ("failed", "succeeded")
    # OpenAI and Anthropic had told the whole usage by then; for Gemini it could have gone on.
    known = not model.startswith("google")
    assert first["cost_nano_usd"] == (seen(run, first)["cost_nano_usd"] if known else None)
    assert answer["cost_nano_usd"] == (first["cost_nano_usd"] + second["cost_nano_usd"] if known else None)


def test_an_echo_streams_as_well(run: Running) -> None:
    """The provider without a network streams word by word, so that a consumer can be tried without a key."""
    request = told("one two three", "echo/echo", stream=True)
    answer = ask_one(run, request)
    assert texts_of(chunks_of(run, request)) == {1: "one two three"} == {1: answer["output"][0]["text"]}


def test_a_request_without_a_stream_has_no_chunks(run: Running) -> None:
    """Where no stream is asked for there is none, and no first token."""
    request = told()
    answer = ask_one(run, request)
    assert (chunks_of(run, request), answer["first_token_at"]) == ([], None)


def endless() -> dict[str, Any]:
    """An answer of 300 tokens that takes two minutes."""
    return {"text": " ".join([SIXTY] * 5), "usage": {"input": 10, "output": 300}, "stream": {"pace_ms": 400}}


def first_chunk(run: Running, request: LlmRequest) -> Callable[[], bool]:
    """Whether a piece of the request's answer has come since this was called."""
    reader = kafka.reader(run.settings, CHUNKS, from_beginning=False)

    def come() -> bool:
        message = reader.poll(0.5)
        return message is not None and message.key() == request["request_id"].encode()

    return come


def cancelled(run: Running, request: LlmRequest, under_way: Any) -> Event:
    """The answer to a request that is cancelled once `under_way` holds."""
    exchange = Exchange(run.settings)
    exchange.send(request)
    exchange.flush()
    assert eventually(under_way)
    tell(run.settings, "cancel", request["request_id"], "another-tenant")
    tell(run.settings, "cancel", str(uuid.uuid4()))
    assert exchange.answers([request["request_id"]], 1.5) == {}
    tell(run.settings, "cancel", request["request_id"], "acme")
    answer = exchange.answers([request["request_id"]], 90)[request["request_id"]]
    exchange.close()
    return answer


def called(run: Running, request: LlmRequest) -> bool:
    """Whether a call of this text is under way at the simulator."""
    return bool(simulator(run, "ledger")["overall"]["in_flight"])


@every_model
def test_cancel_stops_a_stream_and_what_it_used_is_accounted(run: Running, model: str) -> None:
    """The right tenant's word ends the call at the provider; another's does not; the answer and the usage event say so."""
    request = told("Endless.", model, endless(), stream=True)
    answer = cancelled(run, request, first_chunk(run, request))
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "caller_cancelled", 1)
    assert not answer["error"]["retryable"]
    [usage] = usages_of(run, answer)
    assert (usage["status"], usage["error_code"]) == ("failed", "caller_cancelled")
    assert (usage["cost_nano_usd"], usage["cost_status"]) == (None, "unknown")
    call = seen(run, usage)
    assert (call["outcome"], 0 < call["tokens"]["output_text"] < 300) == ("cut_off", True)
    told_of = {"openai": (None, False), "anthropic": (10, False), "google": (10, True)}[model.split("/")[0]]
    assert (usage["tokens"]["input_uncached"], usage["tokens"]["output_text"] is not None) == told_of
    assert endless()["text"].startswith(texts_of(chunks_of(run, request))[1])


def test_cancel_stops_a_call_without_a_stream(run: Running) -> None:
    """A call that would never end is given up, its connection closed, its cost unknown."""
    request = told("Hang.", sim={"fault": "hang"})
    answer = cancelled(run, request, lambda: called(run, request))
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "caller_cancelled")
    [usage] = usages_of(run, answer)
    assert usage["cost_status"] == "unknown"
    assert seen(run, usage)["outcome"] == "cut_off"


def test_cancel_ends_a_wait_for_the_next_attempt(run: Running) -> None:
    """A request that waits for its next call is answered at once, without another call and with nothing to pay."""
    request = told("Wait.", sim={"retry_after": 120})
    before = simulator(run, "ledger")["overall"]["calls"]
    answer = cancelled(
        run, request, lambda: simulator(run, "ledger")["overall"]["calls"] > before and not called(run, request)
    )
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "caller_cancelled", 1)
    assert (answer["cost_nano_usd"], answer["cost_status"]) == (0, "not_charged")
    [usage] = usages_of(run, answer)
    assert usage["error_code"] == "provider_rate_limited"


def millstream(run: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in the environment of the stack."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=run.environment, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip


def test_send_prints_a_stream_once(run: Running) -> None:
    """`millstream send --stream` prints the text as it comes, and not again when the answer is there."""
    prompt = f'Say it. [[sim {{"text": "{FORTY}", "stream": {{"pace_ms": 10}}}}]]'
    done = millstream(run, "send", "--stream", "--model", MODELS[0], "--tenant", "acme", prompt)
    assert (done.returncode, done.stdout) == (0, f"{FORTY}\n"), done.stderr
    refused = millstream(run, "send", "--stream", "--model", "openai/gtp-5", "hello")
    assert (refused.returncode, refused.stdout.split(":")[0]) == (0, "refused")


def test_cancel_is_a_command(run: Running) -> None:
    """`millstream cancel` stops a call by its request's id, and says what is wrong with one that is none."""
    request = told("Endless.", MODELS[0], endless(), stream=True)
    exchange, come = Exchange(run.settings), first_chunk(run, request)
    exchange.send(request)
    exchange.flush()
    assert eventually(come)
    done = millstream(run, "cancel", request["request_id"], "--tenant", "acme")
    assert (done.returncode, request["request_id"] in done.stderr) == (0, True)
    answer = exchange.answers([request["request_id"]], 90)[request["request_id"]]
    exchange.close()
    assert answer["error"]["code"] == "caller_cancelled"
    wrong = millstream(run, "cancel", "17")
    assert (wrong.returncode, "'17'" in wrong.stderr) == (2, True)


def test_after_all_of_this_the_accounts_agree_and_the_workers_live(run: Running) -> None:
    """The same workers go on answering streams, and every account of calls, tokens and money agrees with the next."""
    requests = [sixty(model, {}) for model in MODELS for _ in range(5)]
    answers = ask(run, requests)
    assert {answer["outcome"] for answer in answers.values()} == {"completed"}
    assert all(child.running for child in run.workers.values())

    def broken() -> list[str]:
        proof = reconcile(run.settings, None, run.stack.simulator_url)
        return [f"{line.name}: {line.differences}" for line in proof.lines if line.status == "BROKEN"]

    assert eventually(lambda: not broken(), 60), broken()
    joined = streamed_line(run.settings)
    assert joined.status == "holds", joined.differences
    assert joined.left.figures["characters"] >= len(SIXTY) * len(requests)
