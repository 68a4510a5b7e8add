"""Put load on a running pipeline and note when each answer reached its consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Producer

from benchmarks.figures import arrivals
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
KEPT = ("outcome", "attempt_id", "admitted_at", "started_at", "finished_at")
_TOPICS = ("the water cycle", "a bakery that ships sourdough overnight", "why ships float", "a rental law of 1923")


@dataclass(frozen=True)
class Shape:
    """What requests are like: how many tenants they come from, how long a prompt is, and what it asks of the simulator."""

    tenants: int = 7
    prompt_characters: int = 230
    directive: str = ""


ORDINARY = Shape()


def prompt(number: int, characters: int = ORDINARY.prompt_characters) -> str:
    """A prompt of so many characters, at least 230, another one for every number."""
    return (
        f"Case {number:06d}. Summarise the following for a reader in a hurry, in two or three plain sentences, and end with "
        f"one question that the reader should ask next. The text is about {_TOPICS[number % len(_TOPICS)]}."
    ).ljust(characters, ".")


@dataclass
class Load:
    """What was sent and what came back, by request id: when each was due and received (µs since 1970), and the answers.

    Of an answer only its outcome, its attempt and its times are kept.
    """

    answers: dict[str, Event] = field(default_factory=dict)
    due_us: dict[str, int] = field(default_factory=dict)
    received_us: dict[str, int] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """Requests sent."""
        return len(self.due_us)

    @property
    def per_second(self) -> float:
        """Answers per second between the first answer and the last."""
        times = self.received_us.values()
        return (len(times) - 1) / (max(times) - min(times)) * 1_000_000

    @property
    def seconds(self) -> float:
        """From when the first request was due until the last answer was received."""
        return (max(self.received_us.values()) - min(self.due_us.values())) / 1_000_000

    @property
    def took_ms(self) -> list[float]:
        """How long each answer took, from when its request was due until it was received."""
        return [(received - self.due_us[key]) / 1_000 for key, received in self.received_us.items()]

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
        most = settings.max_record_bytes
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap, "enable.idempotence": True, "linger.ms": 2,
                "message.max.bytes": most, "queue.buffering.max.messages": 2_000_000,
            },
            logger=kafka.QUIET,
        )  # fmt: skip

    def backlog(self, count: int, shape: Shape = ORDINARY) -> Load:
        """Send `count` requests as fast as the broker takes them, and wait for the answers."""
        with _Receiver(self) as receiver:
            for number in range(count):
                self._send(receiver, number, shape, time.time())
        return receiver.load

    def closed(self, count: int, concurrent: int, shape: Shape = ORDINARY) -> Load:
        """Send `count` requests, never more than `concurrent` of them unanswered, and wait for the answers."""
        room = threading.Semaphore(concurrent)
        with _Receiver(self, room.release) as receiver:
            for number in range(count):
                if not room.acquire(timeout=ANSWER_SECONDS):
                    break
                self._send(receiver, number, shape, time.time())
        return receiver.load

    def steady(self, per_second: float, seconds: float, shape: Shape = ORDINARY) -> Load:
        """Send requests at one constant rate, whatever comes back, and wait for the answers."""
        with _Receiver(self) as receiver:
            begin = time.time()
            for number, at in enumerate(arrivals(per_second, seconds)):
                if (wait := begin + at - time.time()) > 0:
                    time.sleep(wait)
                self._send(receiver, number, shape, begin + at)
        return receiver.load

    def flush(self) -> None:
        """Return when the broker has all that was sent."""
        self._producer.flush()

    def close(self) -> None:
        """Let go of the broker."""
        self.answers.close()

    def _send(self, receiver: _Receiver, number: int, shape: Shape, due: float) -> None:
        request = request_number(number, shape)
        receiver.expect(request["request_id"], int(due * 1_000_000))
        self.send(request)

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
    """Receives on a thread of its own, so that a receipt is noted when it happens.

    The end of its `with` block waits until all answers are there, or none has come for 30 seconds.
    """

    def __init__(self, client: Client, on_answer: Callable[[], None] = lambda: None) -> None:
        self.load = Load()
        self._client = client
        self._on_answer = on_answer
        self._all_sent = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="receiver", daemon=True)

    def __enter__(self) -> _Receiver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stopped.set()
        else:
            self._client.flush()
        self._all_sent.set()
        self._thread.join()

    def expect(self, request_id: str, due_us: int) -> None:
        """Wait for the answer to this request, which was to be sent at `due_us`."""
        self.load.due_us[request_id] = due_us

    def _receive(self) -> None:
        consumer, codec, load = self._client.answers, self._client.codec, self.load
        ends = time.monotonic() + ANSWER_SECONDS
        while not self._stopped.is_set() and time.monotonic() < ends:
            if self._all_sent.is_set() and len(load.answers) == load.sent:
                return
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            now = time.time_ns() // 1_000
            answer = codec.decode_blocking("LlmResponse", message.value())
            request_id = answer["request_id"]
            if request_id in load.due_us and request_id not in load.answers:
                load.answers[request_id] = {name: answer[name] for name in KEPT}
                load.received_us[request_id] = now
                ends = time.monotonic() + ANSWER_SECONDS
                self._on_answer()


def request_number(number: int, shape: Shape = ORDINARY) -> LlmRequest:
    """The request with this number, under a new id."""
    line = {
        "request_id": new_id(), "tenant": f"tenant-{number % shape.tenants}", "user": f"user-{number % 101}",
        "task": "summarise", "plan": "pro", "model": MODEL,
        "prompt": prompt(number, shape.prompt_characters) + shape.directive,
        "parameters": {"max_output_tokens": MAX_OUTPUT_TOKENS},
    }  # fmt: skip
    return request_of(line, {}, f"Request {number}")
