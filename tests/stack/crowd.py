"""Every kind of bad input and every failing provider, sent at once; tests look up what became of each case."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from cli.exchange import Exchange
from cli.running import Running
from core.topics import DEAD_LETTERS, REQUESTS
from schemas.codec import Event
from tests.media import FILES
from tests.stack.asking import all_usages, eventually, log, simulator, told
from tests.stack.poison import CODEC, POISON

PART = told()["messages"][0]["content"][0]


def said(role: str = "user", **part: Any) -> dict[str, Any]:
    """A request of one message whose role or part is changed."""
    return {"messages": [{"role": role, "content": [{**PART, **part}]}]}


def set_to(**parameters: Any) -> dict[str, Any]:
    """A request with these parameters."""
    return {"parameters": {**told()["parameters"], **parameters}}


#: What is wrong, the changed fields, the code, and words that the sentence has to hold.
REFUSED: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "no messages": ({"messages": []}, "caller_invalid_request", ["messages", "empty"]),
    "negative limit": (set_to(max_output_tokens=-1), "caller_invalid_request", ["max_output_tokens", "-1"]),
    "absurd limit": (set_to(max_output_tokens=10**15), "caller_invalid_request", ["max_output_tokens", "1000000000000000"]),
    "temperature": (set_to(temperature=9.5), "caller_invalid_request", ["temperature", "9.5"]),
    "bad UUID": ({"request_id": f"not-a-uuid-{uuid.uuid4()}"}, "caller_invalid_request", ["request_id", "not-a-uuid"]),
    "unknown role": (said("wizard"), "caller_invalid_request", ["role", "wizard"]),
    "too long": (said(text="x" * 210_000), "caller_invalid_request", ["bytes", "200000"]),
    "unknown model": ({"model": "openai/gtp-5-mini"}, "caller_unknown_model", ["openai/gtp-5-mini", "openai/gpt-5-mini"]),
    "unknown provider": ({"model": "opanai/gpt-5-mini"}, "caller_unknown_model", ["opanai/gpt-5-mini", "openai/gpt-5-mini"]),
    "no model": ({"model": None}, "policy_no_route", ["names no model", "no route"]),
    "image within": (said(type="image", text=None, url="http://10.0.0.1/x.png"), "caller_invalid_request", ["10.0.0.1"]),
    "no audio there": (
        {**said(type="audio", text=None, media_type="audio/wav", data=FILES["audio/wav"]), "model": "anthropic/claude-haiku-4-5"},
        "caller_unsupported_feature", ["audio", "anthropic"],
    ),
    "unknown task": ({"task": "juggle", "input": "{}"}, "caller_invalid_request", ["juggle"]),
    "no inputs": ({"task": "summarise", "input": "{}"}, "caller_invalid_request", ["text"]),
    "no such reply topic": ({"reply_topic": "nowhere"}, "caller_invalid_request", ["nowhere", "MILLSTREAM_REPLY_TOPICS"]),
    "image of another type": (
        said(type="image", text=None, media_type="image/png", data=FILES["image/jpeg"]),
        "caller_invalid_request", ["data", "image/jpeg", "image/png"],
    ),
    "image too large": (
        said(type="image", text=None, media_type="image/png", data=FILES["image/png"] + bytes(210_000)),
        "caller_invalid_request", ["bytes", "200000"],
    ),
    "audio by URL": (
        {**said(type="audio", text=None, url="https://example.org/x.wav"), "model": "openai/gpt-audio"},
        "caller_unsupported_feature", ["audio by URL", "openai"],
    ),
    "result without a call": (
        said("tool", type="tool_result", tool_call_id="c9"), "caller_invalid_request", ["tool_call_id", "'c9'"],
    ),
    "no schema": (set_to(response_format='{"type":"thing"}'), "caller_invalid_request", ["response_format", "'thing'"]),
    "schema elsewhere": (set_to(response_format='{"$ref":"http://10.0.0.1/s"}'), "caller_invalid_request", ["nothing is fetched"]),
}  # fmt: skip

#: How the simulator behaves, the code of the answer (or how it begins), and the calls that are made.
FAILING: dict[str, tuple[dict[str, Any], str, int]] = {
    "429 for ever": ({"status": 429, "retry_after_ms": 50}, "provider_rate_limited", 3),
    "500 for ever": ({"status": 500}, "provider_unavailable", 3),
    "503 for ever": ({"status": 503}, "provider_unavailable", 3),
    "reset": ({"fault": "reset"}, "provider_connection", 3),
    "garbage": ({"fault": "garbage"}, "provider_bad_answer", 3),
    "truncated": ({"fault": "truncated"}, "provider_", 3),
    "empty choices": ({"fault": "empty_choices"}, "provider_bad_answer", 3),
    "200 with an error inside": ({"fault": "error_in_200"}, "provider_", 3),
    "400": ({"status": 400}, "provider_invalid_request", 1),
    "401": ({"status": 401}, "provider_auth", 1),
    "403": ({"status": 403}, "provider_auth", 1),
    "404": ({"status": 404}, "provider_unknown_model", 1),
    "422": ({"status": 422}, "provider_invalid_request", 1),
    "refusal": ({"fault": "refusal"}, "provider_content_refused", 1),
}
MODELS = {"openai": "openai/gpt-5-mini", "anthropic": "anthropic/claude-haiku-4-5", "google": "google/gemini-2.5-flash"}

#: Forms of Retry-After, and the least that must lie between the two calls, in microseconds. An HTTP date has whole seconds,
#: so up to one of the two asked for may have gone by when it is read.
RETRY_AFTER: dict[str, tuple[float, int]] = {
    "retry_after": (1, 1_000_000),
    "retry_after_ms": (700, 700_000),
    "retry_after_date": (2, 900_000),
}


@dataclass
class Crowd:
    """The keys of the cases by name, and everything that was seen of them."""

    keys: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Event] = field(default_factory=dict)
    usages: dict[str, list[Event]] = field(default_factory=dict)
    calls: dict[str, list[Any]] = field(default_factory=dict)
    letters: dict[bytes, list[Event]] = field(default_factory=dict)
    sent: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    good: list[str] = field(default_factory=list)
    #: The workers' process ids, and how often each was given partitions, before anything was sent.
    workers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def answer(self, case: str) -> Event:
        """The answer of a case."""
        return self.answers[self.keys[case].decode()]

    def usage(self, case: str) -> list[Event]:
        """The usage events of a case, in the order of their attempts."""
        return self.usages.get(self.keys[case].decode(), [])

    def called(self, case: str) -> int:
        """How many calls of a case the simulator saw."""
        return sum(len(self.calls.get(usage["attempt_id"], ())) for usage in self.usage(case))


def workers(run: Running) -> dict[str, tuple[int, int]]:
    """The workers' process ids, and how often each was given partitions: once more with every generation of its group."""
    return {name: (child.pid, child.log_path.read_text().count(" partitions.")) for name, child in run.workers.items()}


def gather(run: Running) -> Crowd:
    """Send the crowd, good requests before, among and behind the bad ones, and wait for all that has to come of it."""
    crowd = Crowd(workers=workers(run))
    exchange = Exchange(run.settings)
    requests: dict[str, Any] = {f"refused: {n}": {**told(), **changes} for n, (changes, _, _) in REFUSED.items()}
    for provider, model in MODELS.items():
        requests |= {f"{provider}: {n}": told(model=model, sim=sim) for n, (sim, _, _) in FAILING.items()}
    for form, (wait, _) in RETRY_AFTER.items():
        requests[form] = told(
            f"Slow down, {form}.", sim={"status": 429, "times": 1, form: wait, "key": str(uuid.uuid4())}
        )
    requests["unpriced"] = told(model="openai/gpt-unpriced")
    requests["expired"] = told(deadline="2020-01-01T00:00:00Z")
    requests |= {f"good {n}": told(f"Number {n}.", sim={"latency_ms": 5}) for n in range(100)}
    before = {f"good before {n}": told(f"Before {n}.", sim={"latency_ms": 5}) for n in range(100)}
    for name, request in before.items():
        crowd.keys[name] = request["request_id"].encode()
        exchange.send(request)
    for name, poison in POISON.items():
        for readable in (True, False):
            key = str(uuid.uuid4()).encode() if readable else b"\xff\x00" + uuid.uuid4().bytes
            crowd.keys[f"{name}, {readable}"] = key
            exchange.send_bytes(key, *poison)
    for name, request in requests.items():
        crowd.keys[name] = request["request_id"].encode()
        exchange.send(request)
    exchange.flush()
    requests |= before
    answered = [key.decode() for name, key in crowd.keys.items() if not name.endswith(", False")]
    crowd.answers = exchange.answers(answered, 90)
    exchange.close()
    crowd.good = [request["request_id"] for name, request in requests.items() if name.startswith("good")]
    eventually(lambda: _look(run, crowd))
    return crowd


def _look(run: Running, crowd: Crowd) -> bool:
    """Read the topics and the simulator's account; whether all is there that the answers speak of."""
    crowd.usages = all_usages(run, CODEC)
    letters = defaultdict(list)
    for message in log(run, DEAD_LETTERS):
        letter = CODEC.decode(DEAD_LETTERS.record, message.value())
        letters[letter["key"]].append(letter)
    crowd.letters = letters
    crowd.sent = {message.key(): (message.partition(), message.offset()) for message in log(run, REQUESTS)}
    calls = defaultdict(list)
    for call in simulator(run, "calls"):
        calls[call["client_request_id"]].append(call)
    crowd.calls = calls
    complete = all(len(crowd.usages.get(i, ())) == a["attempts"] for i, a in crowd.answers.items())
    return complete and len(letters) >= 2 * len(POISON)
