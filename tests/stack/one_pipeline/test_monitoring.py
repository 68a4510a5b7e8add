"""Metrics, liveness and readiness of running workers, as Prometheus and an orchestrator meet them."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer

from cli.running import Running
from config.settings import Settings
from core.topics import REQUESTS
from local.processes import free_port
from sinks.metrics import Place, SinkMetrics
from sinks.metrics_server import Readiness, serving
from sinks.rows import FACTS
from tests.stack.asking import ask, eventually, log, told
from tests.stack.scrape import Samples, get, scrape, total, workers

ROOT = Path(__file__).parents[3]
STAGES = ("admit", "complete", "meter")
LANE = "gen_ai_client_operation_duration_seconds"


@pytest.fixture(scope="module")
def traffic(pipeline: Running) -> dict[str, tuple[Samples, Samples]]:
    """Every worker's samples before and after: two good calls, one that fails twice, an unpriced one, and a record of junk."""

    def quiet() -> bool:
        """Whether nothing that an earlier test sent is still on its way."""
        at_work = sum(total(scrape(pipeline, name), "millstream_in_flight") for name in STAGES)
        return at_work + total(scrape(pipeline, "sink"), "millstream_sink_lag_records") == 0

    assert eventually(quiet, 60)
    before = {name: scrape(pipeline, name) for name in (*STAGES, "sink")}
    requests = [
        told("One"),
        told("Two", user="ana"),
        told("Three", sim={"status": 500, "times": 2, "key": str(uuid.uuid4())}),
        told("Four", model="openai/gpt-unpriced"),
    ]
    assert {answer["outcome"] for answer in ask(pipeline, requests).values()} == {"completed"}
    producer = Producer({"bootstrap.servers": pipeline.settings.kafka_bootstrap})
    producer.produce(REQUESTS.on(pipeline.settings.topic_prefix), b"junk", key=b"no id")
    producer.flush()

    def settled() -> bool:
        meter, admit, sink = (scrape(pipeline, name) for name in ("meter", "admit", "sink"))
        return (
            total(meter, "millstream_records_total") - total(before["meter"], "millstream_records_total") >= 6
            and dead(admit) > dead(before["admit"])
            and total(sink, "millstream_sink_rows_total", table="usage") >= 6
            and total(sink, "millstream_sink_lag_records") == 0
        )

    assert eventually(settled)
    return {name: (before[name], scrape(pipeline, name)) for name in before}


def dead(samples: Samples) -> float:
    return total(samples, "millstream_dead_letters_total", stage="admit", reason="caller_undecodable")


def grown(pair: tuple[Samples, Samples], name: str, **labels: str) -> float:
    """By how much a metric grew."""
    return total(pair[1], name, **labels) - total(pair[0], name, **labels)


def test_every_call_is_counted_as_the_conventions_say(traffic: dict[str, tuple[Samples, Samples]]) -> None:
    """Calls, their tokens, their time, errors, retries and spend grow by exactly what the traffic was."""
    lane = traffic["complete"]
    openai = {"gen_ai_provider_name": "openai", "gen_ai_operation_name": "chat"}
    assert grown(lane, f"{LANE}_count", **openai) == 6
    assert grown(lane, f"{LANE}_count", **openai, error_type="") == 4
    mini = {**openai, "gen_ai_request_model": "gpt-5-mini"}
    for kind in ("input", "output"):
        assert grown(lane, "gen_ai_client_token_usage_count", **mini, gen_ai_token_type=kind) == 3
        assert grown(lane, "gen_ai_client_token_usage_sum", **mini, gen_ai_token_type=kind) > 0
    assert grown(lane, "millstream_provider_errors_total", provider="openai") == 2
    assert grown(lane, "millstream_retries_total", provider="openai") == 2
    assert grown(lane, "millstream_provider_calls_total", provider="openai", cost_status="unpriced") == 1
    assert grown(lane, "millstream_spend_usd_total", provider="openai") > 0


def test_stages_ledger_and_dead_letters_are_counted(traffic: dict[str, tuple[Samples, Samples]]) -> None:
    """Every stage counts its records, the ledger its transactions, and a record of junk is one dead letter."""
    assert grown(traffic["admit"], "millstream_records_total", stage="admit", outcome="emitted") == 4
    assert grown(traffic["complete"], "millstream_records_total", stage="complete-openai", outcome="emitted") == 4
    assert grown(traffic["meter"], "millstream_records_total", stage="meter", outcome="emitted") == 6
    assert grown(traffic["admit"], "millstream_dead_letters_total") == 1
    for stage in STAGES:
        assert grown(traffic[stage], "millstream_ledger_transaction_seconds_count") > 0
        assert total(traffic[stage][1], "millstream_in_flight") == 0
        assert total(traffic[stage][1], "millstream_oldest_unacknowledged_seconds") == 0
    assert total(traffic["complete"][1], "millstream_lane_slots", provider="openai") == 256
    assert total(traffic["complete"][1], "millstream_lane_slots_in_use") == 0


def test_many_can_read_the_sinks_page_at_once(pipeline: Running) -> None:
    """Each of a hundred readers, eight at a time, gets the lag of every topic that the sink stores."""
    with ThreadPoolExecutor(8) as readers:
        found = list(readers.map(lambda _: scrape(pipeline, "sink"), range(100)))
    topics = {fact.topic.on(pipeline.settings.topic_prefix) for fact in FACTS}
    lags = [{dict(labels)["topic"] for name, labels in page if name == "millstream_sink_lag_records"} for page in found]
    assert lags == [topics] * 100


def test_the_sink_shows_what_it_stored_and_how_far_it_is(traffic: dict[str, tuple[Samples, Samples]]) -> None:
    """The sink counts rows, bytes, inserts and freshness, and knows that it is at the end of the log."""
    sink = traffic["sink"]
    assert grown(sink, "millstream_sink_rows_total", table="usage") == 6
    assert grown(sink, "millstream_sink_rows_total", table="dead_letters") == 1
    assert grown(sink, "millstream_sink_bytes_total", table="usage") > 0
    inserts = grown(sink, "millstream_sink_insert_seconds_count")
    assert 0 < inserts == grown(sink, "millstream_sink_batch_rows_count")
    # A batch of one topic may be no insert, or two: its facts, and its bodies apart.
    assert grown(sink, "millstream_sink_freshness_seconds_count") > 0
    assert total(sink[1], "millstream_sink_lag_seconds") == 0
    assert total(sink[1], "millstream_sink_partitions") == 5 * 6


def test_no_label_names_a_user_or_a_request(traffic: dict[str, tuple[Samples, Samples]]) -> None:
    """Labels are of few values: none is called after a user, tenant or id, none holds one."""
    for _, samples in traffic.values():
        for _, labels in samples:
            assert not {name for name, _ in labels} & {"user", "tenant", "request_id", "attempt_id", "task", "project"}
            assert not {value for _, value in labels} & {"ana", "acme"}


def test_a_page_has_no_problem_for_prometheus(pipeline: Running) -> None:
    """No sample stands twice on a page, and the process's own metrics stand there once."""
    for name in workers(pipeline):
        _, text = get(f"{pipeline.monitoring[name]}/metrics")
        lines = [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
        assert len(lines) == len(set(lines))
        assert lines.count("process_resident_memory_bytes") == 1


def test_running_workers_are_alive_and_ready(pipeline: Running) -> None:
    """A worker with its partitions answers 200 on both addresses, and nothing else is served."""
    for address in (pipeline.monitoring[name] for name in workers(pipeline)):
        assert get(f"{address}/healthz")[0] == 200
        assert eventually(lambda address=address: get(f"{address}/readyz")[0] == 200)
        assert get(f"{address}/")[0] == 404


def test_a_stage_whose_ledger_is_away_is_not_ready(pipeline: Running) -> None:
    """While no stage can write to the ledger, `/readyz` is 503 and says so, `/healthz` stays 200; then all is well again."""
    stages = [pipeline.monitoring[name] for name in STAGES]
    with sqlite3.connect(pipeline.settings.database_url.removeprefix("sqlite:///"), isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert eventually(lambda: all(get(f"{address}/readyz")[0] == 503 for address in stages))
        assert all("MILLSTREAM_DATABASE_URL" in get(f"{address}/readyz")[1] for address in stages)
        assert all(get(f"{address}/healthz")[0] == 200 for address in stages)
        holder.execute("ROLLBACK")
    holder.close()
    assert eventually(lambda: all(get(f"{address}/readyz")[0] == 200 for address in stages))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kafka_bootstrap": "127.0.0.1:9"}, "Kafka at 127.0.0.1:9 does not answer."),
        ({"clickhouse_url": "http://me:secret@127.0.0.1:9"}, "ClickHouse at http://127.0.0.1:9 does not answer."),
        ({}, "No partitions are assigned to this sink."),
    ],
)
def test_a_sink_that_cannot_store_is_not_ready(pipeline: Running, changes: dict[str, str], word: str) -> None:
    """Without Kafka, without ClickHouse or without partitions, `/readyz` is 503 with the reason, and `/healthz` stays 200."""
    port = free_port()
    settings = pipeline.settings.model_copy(update={**changes, "metrics_port": port})
    metrics = SinkMetrics(settings)
    with serving(settings, metrics.registry, Readiness(settings, metrics).problem):
        status, body = get(f"http://127.0.0.1:{port}/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "reason": word})
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200


def test_lag_is_what_the_log_holds_beyond_the_sink(
    pipeline: Running, traffic: dict[str, tuple[Samples, Samples]]
) -> None:
    """Lag in records is the log's end less the sink's place, in seconds the age of the oldest record it waits to store."""
    name = REQUESTS.on(pipeline.settings.topic_prefix)
    count = pipeline.settings.topic_partitions
    metrics = SinkMetrics(pipeline.settings)
    metrics.places = lambda: [Place(name, number, 0, 1_000 if number else None) for number in range(count)]
    found = {family.name: family.samples[0].value for family in metrics.registry.collect() if family.samples}
    assert found["millstream_sink_lag_records"] == len(log(pipeline, REQUESTS)) >= 5
    assert found["millstream_sink_lag_seconds"] > 1_000_000
    assert found["millstream_sink_partitions"] == count


@pytest.mark.parametrize("command", [["sink"], ["worker", "meter"]])
def test_a_taken_port_is_said_in_one_sentence(pipeline: Running, command: list[str]) -> None:
    """A process whose metrics port is taken ends with status 2 and says which setting to change."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            env={**os.environ, **pipeline.environment, "MILLSTREAM_METRICS_PORT": str(port)},
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, "MILLSTREAM_METRICS_PORT" in done.stderr) == (2, True), done.stderr


def test_nothing_is_served_unless_a_port_is_set() -> None:
    """Without the setting, no port is opened, and by default it is the host's own address alone."""
    assert (Settings().metrics_port, Settings().metrics_host) == (0, "127.0.0.1")
