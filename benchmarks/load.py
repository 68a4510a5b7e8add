"""Put load on a running pipeline and note when each answer reached its consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import Producer

from cli import kafka
from cli.lines import new_id, request_of
from config.schema_registry import open_codec
from config.settings import Settings
from core.topics import REQUESTS, RESPONSES
from schemas.cloudevents import headers, trace_of
from schemas.codec import Event
from schemas.events import LlmRequest

MODEL = "openai/gpt-5-mini"
MAX_OUTPUT_TOKENS = 200
ANSWER_SECONDS = 30.0
_TOPICS = ("the water cycle", "a bakery that ships sourdough overnight", "why ships float", "a rental law of 1923")


def prompt(number: int) -> str:
    """A prompt of 230 characters, another one for every number."""
    return (
        f"Case {number:06d}. Summarise the following for a reader in a hurry, in two or three plain sentences, and end with "
        f"one question that the reader should ask next. The text is about {_TOPICS[number % len(_TOPICS)]}."
    ).ljust(230, ".")


@dataclass
class Load:
    """What was sent and what came back: answers by request id, and when each was received (µs since 1970)."""

    sent: int
    began: float
    answers: dict[str, Event] = field(default_factory=dict)
    received_us: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers per second between the first answer and the last."""
        times = self.received_us.values()
        return (len(times) - 1) / (max(times) - min(times)) * 1_000_000

    @property
    def completed(self) -> int:
        """Answers with the outcome `completed`."""
        return sum(answer["outcome"] == "completed" for answer in self.answers.values())


class Client:
    """One producer and one consumer, as an application has them."""

    def __init__(self, settings: Settings) -> None:
        self.codec = open_codec(settings)
        self.answers = kafka.reader(settings, RESPONSES, from_beginning=False)
        self._topic = REQUESTS.on(settings.topic_prefix)
        bootstrap = {"bootstrap.servers": settings.kafka_bootstrap}
        self._producer = Producer({**bootstrap, "enable.idempotence": True, "linger.ms": 2}, logger=kafka.QUIET)

    def backlog(self, count: int, directive: str = "") -> Load:
        """Send `count` requests as fast as the broker takes them, and wait for the answers."""
        requests = [request_number(number, directive) for number in range(count)]
        with _Receiver(self, requests) as receiver:
            for request in requests:
                self.send(request)
            self.flush()
            return receiver.result()

    def steady(self, per_second: float, seconds: float) -> Load:
        """Send requests at one constant rate, whatever comes back, and wait for the answers."""
        requests = [request_number(number) for number in range(max(2, int(per_second * seconds)))]
        with _Receiver(self, requests) as receiver:
            begin = time.perf_counter()
            for number, request in enumerate(requests):
                wait = begin + number / per_second - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                self.send(request)
            self.flush()
            return receiver.result()

    def flush(self) -> None:
        """Return when the broker has every request."""
        self._producer.flush()

    def close(self) -> None:
        """Let go of the broker."""
        self.answers.close()

    def send(self, request: LlmRequest) -> None:
        """Publish one request, created now."""
        key = request["request_id"]
        request["created_at"] = now = time.time_ns() // 1_000
        with_headers = headers("LlmRequest", key, "benchmark", now, trace_of([], key))
        self._producer.produce(
            self._topic, self.codec.encode("LlmRequest", request), key.encode(), headers=with_headers
        )
        self._producer.poll(0)


class _Receiver:
    """Receives on a thread of its own, so that a receipt is noted when it happens."""

    def __init__(self, client: Client, requests: Iterable[LlmRequest]) -> None:
        self._consumer = client.answers
        self._codec = client.codec
        self._missing = {request["request_id"] for request in requests}
        self._load = Load(len(self._missing), time.perf_counter())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="receiver", daemon=True)

    def __enter__(self) -> _Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def result(self) -> Load:
        """The load once all answers are there, or none has come for 30 seconds."""
        self._thread.join()
        return self._load

    def _receive(self) -> None:
        ends = time.monotonic() + ANSWER_SECONDS
        while self._missing and time.monotonic() < ends and not self._stopped.is_set():
            message = self._consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            now = time.time_ns() // 1_000
            answer = self._codec.decode_blocking("LlmResponse", message.value())
            request_id = answer["request_id"]
            if request_id in self._missing:
                self._missing.discard(request_id)
                self._load.answers[request_id] = answer
                self._load.received_us[request_id] = now
                ends = time.monotonic() + ANSWER_SECONDS


def request_number(number: int, directive: str = "") -> LlmRequest:
    """The request with this number, under a new id; `directive` tells the simulator how to behave."""
    line = {
        "request_id": new_id(), "tenant": f"tenant-{number % 7}", "user": f"user-{number % 101}", "task": "summarise",
        "plan": "pro", "model": MODEL, "prompt": prompt(number) + directive,
        "parameters": {"max_output_tokens": MAX_OUTPUT_TOKENS},
    }  # fmt: skip
    return request_of(line, {}, f"Request {number}")
