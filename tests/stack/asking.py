"""Put requests to a running pipeline and look at what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from cli.exchange import Exchange
from cli.lines import request_of
from cli.running import Running
from core.topics import USAGE, Topic
from schemas.cloudevents import CE_ID
from schemas.codec import Codec, Event
from schemas.events import LlmRequest

ROOT = Path(__file__).parents[2]


def told(
    prompt: str = "Hello.", model: str = "openai/gpt-5-mini", sim: dict[str, Any] | None = None, **fields: Any
) -> LlmRequest:
    """A request whose prompt tells the simulator how to behave."""
    directive = f" [[sim {json.dumps(sim)}]]" if sim is not None else ""
    return request_of({"prompt": prompt + directive, "model": model, "tenant": "acme", **fields}, {}, "test")


def ask(run: Running, requests: Iterable[LlmRequest], seconds: float = 90.0) -> dict[str, Event]:
    """Send requests and return their answers by request id, as many as come."""
    exchange = Exchange(run.settings)
    asked = list(requests)
    for request in asked:
        exchange.send(request)
    exchange.flush()
    answers = exchange.answers([request["request_id"] for request in asked], seconds)
    exchange.close()
    return answers


def ask_one(run: Running, request: LlmRequest, seconds: float = 90.0) -> Event:
    """Send one request and return its answer."""
    return ask(run, [request], seconds)[request["request_id"]]


def millstream(run: Running, *arguments: str, **environment: str) -> Any:
    """What a command that has to go well prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments, "--json"], env={**os.environ, **run.environment, **environment},
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def log(run: Running, topic: Topic) -> list[Any]:
    """Every record of a topic as it stands now, partition by partition."""
    name = topic.on(run.settings.topic_prefix)
    consumer = Consumer(
        {
            "bootstrap.servers": run.settings.kafka_bootstrap,
            "group.id": "test",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = [
        TopicPartition(name, n, OFFSET_BEGINNING)
        for n in consumer.list_topics(name, timeout=10).topics[name].partitions
    ]
    consumer.assign(partitions)
    found: list[Any] = []
    ended: set[int] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(1_000, timeout=0.1):
            if message.error() is None:
                found.append(message)
            else:
                ended.add(message.partition())
    consumer.close()
    return found


def events(run: Running, topic: Topic) -> dict[str, list[tuple[str, bytes]]]:
    """The `ce_id` and value of every record of a topic, by its key."""
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for message in log(run, topic):
        event_id = dict(message.headers() or ())[CE_ID].decode()
        found[(message.key() or b"").decode("ascii", "replace")].append((event_id, message.value()))
    return found


def all_usages(run: Running, codec: Codec) -> dict[str, list[Event]]:
    """The usage events by request id, the same one counted once, in the order of their attempts."""
    found: dict[str, list[Event]] = {}
    for request_id, records in events(run, USAGE).items():
        once = {event_id: codec.decode(USAGE.record, value) for event_id, value in records}
        found[request_id] = sorted(once.values(), key=lambda event: event["attempt"])
    return found


def usages_of(run: Running, codec: Codec, ids: Iterable[str]) -> list[Event]:
    """The usage events of these requests, as they stand now."""
    found = all_usages(run, codec)
    return [usage for request_id in ids for usage in found.get(request_id, [])]


def simulator(run: Running, path: str, body: Any = None, method: str | None = None) -> Any:
    """What the simulator's own account says."""
    request = urllib.request.Request(
        f"{run.stack.simulator_url}/_sim/{path}",
        data=json.dumps(body).encode() if body is not None else None,
        headers={"content-type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `holds` returns once it is true, or its last word when the time is out."""
    ends = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < ends:
        time.sleep(0.1)
    return found
