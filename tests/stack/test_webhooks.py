"""Alerts to webhooks on a real Kafka: nothing is lost while a receiver or the sink is down, and each keeps its order and id."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from cli.running import Running, running
from config.kafka import librdkafka
from config.settings import Settings
from core.alerts import alert
from core.topics import ALERTS
from local.processes import free_port
from schemas.cloudevents import headers, trace_of
from schemas.codec import Codec
from tests.conftest import QUICK
from tests.serving import Handler, Server
from tests.stack.asking import eventually
from tests.stack.scrape import get, scrape, total

SECRET = "a secret of the test"
NOW = 1_795_258_680_000_000
SUBJECTS = ("/acme", "/globex", "openai")


class Receiver(Server):
    """Checks the signature of what it gets, refuses the first `refusals` with 503 and keeps the rest."""

    def __init__(self, port: int, refusals: int = 0) -> None:
        super().__init__(_Handler, port)
        self.refusals = refusals
        self.refused: list[str] = []
        self.got: list[tuple[str, bytes]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def told(self) -> dict[str, list[str]]:
        """The alerts' ids by subject, in the order in which they came; one that came again counts once."""
        found: dict[str, list[str]] = {}
        for webhook_id, body in dict.fromkeys(self.got):
            data = json.loads(body)["data"]
            assert data["alert_id"] == webhook_id
            found.setdefault(data["subject"], []).append(webhook_id)
        return found


class _Handler(Handler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.body()
        webhook_id, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        said = f"{webhook_id}.{at}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET.encode(), said, hashlib.sha256).digest()).decode()
        good = self.headers["webhook-signature"] == f"v1,{expected}" and self.path == "/in?key=1"
        if good and len(self.server.refused) < self.server.refusals:
            self.server.refused.append(webhook_id)
            good = False
        elif good:
            self.server.got.append((webhook_id, body))
        self.answer(204 if good else 503)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack without workers."""
    with running(tmp_path_factory.mktemp("webhooks"), workers={}, environment=QUICK) as run:
        yield run


def publish(settings: Settings, first: int, count: int) -> dict[str, list[str]]:
    """Put so many alerts on the topic for each subject; their ids by subject, in order."""
    producer, found = Producer(librdkafka(settings)), dict[str, list[str]]()
    for number in range(first, first + count):
        for subject in SUBJECTS:
            one: Any = alert("limit_near", "warning", subject, "Near.", {"share": "80"}, NOW + number)
            found.setdefault(subject, []).append(one["alert_id"])
            head = headers("LlmAlert", one["alert_id"], "test", NOW, trace_of([], one["alert_id"]))
            producer.produce(ALERTS.name, Codec().encode("LlmAlert", one), key=subject.encode(), headers=head)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    return found


def start(run: Running, *ports: int) -> None:
    urls = [f"http://127.0.0.1:{port}/in?key=1" for port in ports]
    extra = {
        "MILLSTREAM_ALERT_WEBHOOKS": json.dumps(urls), "MILLSTREAM_ALERT_WEBHOOK_SECRET": SECRET,
        "MILLSTREAM_ALERT_WEBHOOKS_PRIVATE": "true",
    }  # fmt: skip
    run.start_worker("webhooks", ["sink", "webhooks"], extra)


def log(run: Running) -> str:
    return (Path(run.stack.data_dir) / "webhooks.log").read_text()


def pauses(said: str) -> list[int]:
    """For how many seconds the sink has waited after each failure."""
    return [int(seconds) for seconds in re.findall(r"Trying again in (\d+) s", said)]


@pytest.mark.timeout(420)
def test_a_receiver_that_is_down_loses_nothing_and_holds_up_no_other(run: Running) -> None:
    """One receiver gets all at once; the other, away through a `kill -9` of the sink, then failing, then down for a minute, gets all in
    order under the same ids.
    """
    down, up = free_port(), Receiver(free_port())
    start(run, down, up.server_port)
    expected = publish(run.settings, 0, 4)
    assert eventually(lambda: up.told() == expected, 60), up.told()
    assert eventually(lambda: f"127.0.0.1:{down} could not be reached" in log(run), 60)
    status, said = get(f"{run.monitoring['webhooks']}/readyz")
    assert (status, f"127.0.0.1:{down} could not be reached" in said) == (503, True)

    def deliveries(host: str, outcome: str) -> float:
        return total(scrape(run, "webhooks"), "millstream_webhook_deliveries_total", host=host, outcome=outcome)

    assert eventually(lambda: deliveries(f"127.0.0.1:{up.server_port}", "taken") == 12)
    assert deliveries(f"127.0.0.1:{down}", "failed") > 0
    assert deliveries(f"127.0.0.1:{down}", "taken") == 0
    run.workers["webhooks"].kill()
    start(run, down, up.server_port)
    more = publish(run.settings, 4, 2)
    expected = {subject: ids + more[subject] for subject, ids in expected.items()}
    late = Receiver(down, refusals=3)
    assert eventually(lambda: late.told() == expected, 90), late.told()
    assert len(set(late.refused)) == 1 and late.refused[0] == late.got[0][0]
    assert eventually(lambda: up.told() == expected, 60), up.told()
    assert eventually(lambda: get(f"{run.monitoring['webhooks']}/readyz")[0] == 200)
    for receiver in (late, up):
        receiver.got.clear()
    # Stopped and started again, it goes on where it was.
    assert run.workers["webhooks"].stop(20) == 0
    late.shutdown()
    late.server_close()
    said = len(log(run))
    start(run, down, up.server_port)
    last = publish(run.settings, 6, 1)
    assert eventually(lambda: up.told() == last, 60), up.told()
    # A receiver that is down for a minute is asked ever less often, and then gets all.
    assert eventually(lambda: pauses(log(run)[said:]), 60)
    time.sleep(60)
    late = Receiver(down)
    assert eventually(lambda: late.told() == last, 60), late.told()
    assert pauses(log(run)[said:]) == [1, 2, 4, 8, 16, 32]
    assert "key=1" not in log(run) and SECRET not in log(run)
    run.workers["webhooks"].stop(20)
    for server in (late, up):
        server.shutdown()
        server.server_close()
