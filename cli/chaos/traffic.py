"""Publish signed requests at a constant rate, whatever becomes of them, with repeated, poisoned and wrongly signed ones among them."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import deque
from typing import Any

from confluent_kafka import Message, Producer

from cli import kafka
from cli.chaos.callers import TENANTS, USER, Keys
from cli.chaos.energy import OTHER_USER
from cli.chaos.features import UNKNOWN_MODEL, Asked
from cli.lines import request_of
from config.kafka import librdkafka
from config.schema_registry import open_codec
from config.settings import Settings
from core.registry import Route, Target
from core.topics import REQUESTS
from schemas.cloudevents import headers, trace_of

MODELS = (
    "openai/gpt-5-mini",
    "anthropic/claude-haiku-4-5",
    "google/gemini-2.5-flash",
    "echo/echo",
    "openai-compatible/gpt-5-mini",
)
#: Shares of the records.
REPEATED, POISONED, DISBELIEVED = 0.04, 0.02, 0.04
#: Shares of the requests.
REFUSED, SLOW, ONCE_ONLY, DEADLINE, STREAMED, WITHOUT_USER = 0.02, 0.05, 0.1, 0.02, 0.2, 0.05
#: Requests that wait for room in a limit.
WAITING = 0.3
#: Requests that name a task alone: three models may answer, and for the second kind the response cache. It has so many questions.
ROUTED, CACHED, QUESTIONS = 0.25, 0.1, 5
#: Of the first kind: those whose first model is not there when it is called.
ELSEWHERE = 0.2
ROUTES = tuple(
    Route(task, tuple(map(Target, MODELS[:3])), task=task, order="weighted", cache_seconds=seconds, hedge=True)
    for task, seconds in (("routed", None), ("cached", 60))
)
#: Milliseconds between two words of a stream.
PACE_MS = 5
QUICK_MS, SLOW_MS = (5, 150), (1_000, 5_000)
#: What is published again is one of so many records before, while its signature counts.
REMEMBERED, REPEATABLE_SECONDS = 2_000, 120
POISON = (None, b"", b"not Avro", b"\xc3\x01" + b"\x07" * 8 + b"unknown", b"\x00\x00\x00\xff\xff?")
DELIVERY_SECONDS = 300.0


class Traffic:
    """Sends `requests` records at `rate` a second; what they are follows from the seed.

    `ids` are the request ids that the broker has taken, `places` (topic/partition/offset) the records that have no readable id,
    `untaken` what the broker said of those it has not. `disbelieved` are those that must be refused for their signature, with
    the code that says why. `asked` counts the features that requests ask for.
    """

    def __init__(self, settings: Settings, requests: int, rate: float, seed: int, keys: Keys) -> None:
        self._codec = open_codec(settings)
        self._topic = REQUESTS.on(settings.topic_prefix)
        self._requests, self._rate, self._rng, self._keys = requests, rate, random.Random(seed), keys
        self._producer = Producer(
            {
                **librdkafka(settings), "enable.idempotence": True, "linger.ms": 5,
                "delivery.timeout.ms": int(DELIVERY_SECONDS * 1_000), "reconnect.backoff.max.ms": 500,
                "queue.buffering.max.messages": 1_000_000,
            },
            logger=kafka.QUIET,
        )  # fmt: skip
        self._sent: deque[tuple[float, bytes, bytes, list[tuple[str, bytes]]]] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self.ids: set[str] = set()
        self.places: set[str] = set()
        self.untaken: list[str] = []
        self.disbelieved: dict[str, str] = {}
        self.asked = Asked()
        self.records = self.repeated = self.poisoned = 0
        self.all_published = False

    def run(self, stop: threading.Event) -> None:
        """Publish at the rate until all are out or `stop` is set, then wait until the broker has answered for each."""
        begun = time.monotonic()
        for number in range(self._requests):
            while (early := begun + number / self._rate - time.monotonic()) > 0 and not stop.is_set():
                self._producer.poll(min(early, 0.05))
            if stop.is_set():
                break
            with self._lock:
                self._next(number)
        else:
            self.all_published = True
        ends = time.monotonic() + DELIVERY_SECONDS
        while self._producer.flush(0.5) and time.monotonic() < ends and not stop.is_set():
            pass

    def repeat(self, count: int) -> None:
        """Publish so many of the latest records again, at once."""
        with self._lock:
            sent = self._repeatable()
            for record in self._rng.sample(sent, min(count, len(sent))):
                self._again(*record)

    def poison(self, count: int) -> None:
        """Publish so many records that are no requests, at once."""
        with self._lock:
            for _ in range(count):
                self._poisoned()

    def flush(self) -> None:
        """Wait until the broker has answered for every record."""
        self._producer.flush(DELIVERY_SECONDS)

    def _next(self, number: int) -> None:
        draw = self._rng.random()
        if draw < REPEATED and (sent := self._repeatable()):
            self._again(*self._rng.choice(sent))
        elif draw < REPEATED + POISONED:
            self._poisoned()
        elif draw < REPEATED + POISONED + DISBELIEVED:
            self._disbelieved(number)
        else:
            self._request(number)

    def _request(self, number: int) -> None:
        tenant, user = self._caller()
        line, directive = self._line(number)
        self.asked.add(line, directive, tenant, user)
        request_id, value, with_headers = self._encoded(number, line, tenant, user)
        with_headers += self._keys.sign(tenant, user, value, int(time.time()))
        record = request_id.encode(), value, with_headers
        self._sent.append((time.monotonic(), *record))
        self._produce(*record)

    def _disbelieved(self, number: int) -> None:
        tenant, user = self._caller()
        request_id, value, with_headers = self._encoded(number, self._line(number)[0], tenant, user)
        self.disbelieved[request_id], bad = self._keys.sign_badly(tenant, value, int(time.time()), self._rng)
        self._produce(request_id.encode(), value, with_headers + bad)

    def _caller(self) -> tuple[int, str | None]:
        """The number of a tenant, and the user: that of a user's key, or one that the holder of a tenant's key names, or none."""
        tenant, draw = self._rng.randrange(TENANTS), self._rng.random()
        return tenant, None if draw < WITHOUT_USER else USER if draw < 0.5 else OTHER_USER

    def _encoded(
        self, number: int, line: dict[str, Any], tenant: int, user: str | None
    ) -> tuple[str, bytes, list[tuple[str, bytes]]]:
        request_id = self._new_id()
        own = {
            "request_id": request_id,
            "created_at": time.time_ns() // 1_000,
            "tenant": f"tenant-{tenant}",
            "user": user,
        }
        request = request_of({**line, **own}, {}, f"Request {number}")
        with_headers = headers("LlmRequest", request_id, "chaos", request["created_at"], trace_of([], request_id))
        return request_id, self._codec.encode("LlmRequest", request), with_headers

    def _line(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """A request as a line, and what it tells the simulator."""
        rng = self._rng
        slowly = rng.random() < SLOW
        latency = round(rng.uniform(*(SLOW_MS if slowly else QUICK_MS)), 1)
        directive: dict[str, Any] = {"latency_ms": latency, "stream": {"pace_ms": PACE_MS}}
        line: dict[str, Any] = {"model": rng.choice(MODELS), "stream": rng.random() < STREAMED}
        draw = rng.random()
        if draw < ROUTED:
            line |= {"model": None, "task": "routed"}
            if rng.random() < ELSEWHERE:
                directive |= {"status": 404, "times": 1}
        elif draw < ROUTED + CACHED:
            line |= {"model": None, "task": "cached", "stream": False}
            # Equal requests: the same prompt, whenever it is answered.
            number, directive = number % QUESTIONS, {}
        line["prompt"] = f"Question {number}." + (f" [[sim {json.dumps(directive)}]]" if directive else "")
        if rng.random() < REFUSED:
            line["model"] = UNKNOWN_MODEL
        if rng.random() < ONCE_ONLY:
            line["on_unknown_outcome"] = "fail"
        if rng.random() < WAITING:
            line["on_limit"] = "wait"
        if rng.random() < DEADLINE:
            line["deadline"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + rng.uniform(2, 30)))
        return line, directive

    def _repeatable(self) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
        oldest = time.monotonic() - REPEATABLE_SECONDS
        while self._sent and self._sent[0][0] < oldest:
            self._sent.popleft()
        return [(key, value, with_headers) for _, key, value, with_headers in self._sent]

    def _again(self, key: bytes, value: bytes, with_headers: list[tuple[str, bytes]]) -> None:
        self.repeated += 1
        self._produce(key, value, with_headers)

    def _poisoned(self) -> None:
        self.poisoned += 1
        key = self._new_id().encode() if self._rng.random() < 0.5 else None
        value = self._rng.choice(POISON)
        signed = self._rng.random() < 0.5
        with_headers = self._keys.sign(*self._caller(), value or b"", int(time.time())) if signed else []
        self._produce(key, value, with_headers)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _produce(self, key: bytes | None, value: bytes | None, with_headers: list[tuple[str, bytes]]) -> None:
        self.records += 1
        self._producer.produce(self._topic, value, key, headers=with_headers, on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: Any, message: Message) -> None:
        key = message.key()
        if error is not None:
            self.untaken.append(f"{key.decode() if key else 'a poisoned record'}: {error.str()}")
        elif key is not None:
            self.ids.add(key.decode())
        else:
            self.places.add(f"{message.topic()}/{message.partition()}/{message.offset()}")
