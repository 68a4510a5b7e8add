"""What storing a usage event costs, beside the sink that people write first, and how soon a row can be read.

`python -m benchmarks.sink` starts Kafka and ClickHouse, puts a backlog of usage events on the topic and lets one sink process store
it, rollups, deduplication and all; then `benchmarks.bare_sink` stores the same records into a bare table; three times over. Then it
publishes 500 events a second and asks ClickHouse every 20 ms what it has. Prints tables, writes `benchmarks/results/sink.json`; exit
status 1 when a row is missing or stands twice.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentiles, spread
from benchmarks.machine import Gauge, machine, versions
from cli.running import Running, running
from core.reply import NO_TOKENS
from core.topics import USAGE
from local.processes import wait_until
from schemas.cloudevents import headers
from schemas.codec import Codec
from sinks.writer import connect

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sink.json"
AIM_ROWS = 50_000
AIM_FRESH_SECONDS = 5.0
FRESH_RATE = 500
FRESH_SECONDS = 20
STORED_SECONDS = 600.0
TRACE = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"

Json = dict[str, Any]


def main() -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="events in a backlog (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times to measure each (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    with (
        console.status("Starting the local stack ...") as status,
        running(workers={}, progress=status.update) as run,
        connect(run.settings) as client,
    ):
        client.command("CREATE TABLE bare AS usage ENGINE = MergeTree ORDER BY (tenant, created_at, request_id)")
        source = Source(run)
        rounds = []
        for number in range(arguments.rounds):
            status.update(f"Round {number + 1} of {arguments.rounds}: publishing {arguments.rows:,} events ...")
            source.publish(arguments.rows)
            status.update(f"Round {number + 1} of {arguments.rounds}: storing them ...")
            rounds.append({"ours": ours(run, client, source), "bare": bare(run, client, arguments.rows)})
        status.update(f"Publishing {FRESH_RATE} events a second ...")
        report: Json = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {**machine(), "load_before": round(os.getloadavg()[0], 2)},
            "versions": versions(str(client.server_version)),
            "settings": {"rows": arguments.rows, "rounds": arguments.rounds, "bytes_per_event": source.bytes_per_event},
            "rounds": rounds,
            "freshness": freshness(run, client, source),
        }
    report["parity_holds"] = all(
        one["ours"]["stored"] == one["ours"]["distinct"] == one["ours"]["published"] for one in rounds
    )
    report["summary"] = summary(rounds)
    for table in tables(report):
        console.print(table)
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {RESULTS.relative_to(ROOT)}.")
    return 0 if report["parity_holds"] else 1


class Source:
    """Publishes usage events such as the workers make, with 100 tenants of 100 users, uneven, made in the last minutes."""

    def __init__(self, run: Running) -> None:
        self.topic = USAGE.on(run.settings.topic_prefix)
        self.published = 0
        self.bytes_per_event = 0
        self._codec = Codec()
        self._random = random.Random(7)
        self._producer = Producer(
            {"bootstrap.servers": run.settings.kafka_bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 500_000}
        )

    def publish(self, count: int) -> None:
        """Publish so many, each another event, and wait until the broker has them."""
        for _ in range(count):
            self.one(None)
        self._producer.flush()

    def one(self, delivered: Any) -> None:
        """Publish one."""
        event = self._event()
        value = self._codec.encode("LlmUsage", event)
        self.bytes_per_event = len(value)
        header = headers("LlmUsage", event["attempt_id"], "benchmark", event["finished_at"], TRACE)
        while True:
            try:
                self._producer.produce(
                    self.topic, value, event["request_id"].encode(), headers=header, on_delivery=delivered
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        self.published += 1

    def _event(self) -> Json:
        pick = self._random
        created = int(time.time() * 1e6) - pick.randrange(120_000_000)
        tenant = int(100 * pick.random() ** 3)
        took = int(200_000 * 10 ** pick.random())
        tokens_in, tokens_out = pick.randrange(50, 4_000), pick.randrange(1, 800)
        return {
            "attempt_id": str(uuid.UUID(int=pick.getrandbits(128))), "request_id": str(uuid.UUID(int=pick.getrandbits(128))),
            "tenant": f"tenant-{tenant:03}", "user": f"user-{tenant * 100 + int(100 * pick.random() ** 2)}",
            "api_key_id": None, "project": None, "tags": {"team": "search"}, "task": pick.choice(("extraction", "chat", "code")),
            "plan": "pro", "provider": "openai", "model": pick.choice(("gpt-5", "gpt-5-mini")), "response_model": "gpt-5",
            "provider_response_id": f"chatcmpl-{pick.getrandbits(64):x}", "attempt": 1, "reason": "first", "adjusts": None,
            "status": "succeeded", "error_code": None, "provider_status": None,
            "tokens": {**NO_TOKENS, "input_uncached": tokens_in, "cache_read": 0, "output_text": tokens_out},
            "costs": {**NO_TOKENS, "input_uncached": tokens_in * 250, "cache_read": 0, "output_text": tokens_out * 2_000},
            "cost_nano_usd": tokens_in * 250 + tokens_out * 2_000, "cost_status": "priced", "reserved_nano_usd": 9_000_000,
            "price_source": "genai-prices 0.2.3", "price_date": 20_778,
            "provider_usage": f'{{"prompt_tokens":{tokens_in},"completion_tokens":{tokens_out}}}', "queue_us": 4_000,
            "first_token_us": took // 4, "provider_us": took, "total_us": took + 9_000, "created_at": created,
            "admitted_at": created + 3_000, "started_at": created + 6_000, "first_token_at": created + 6_000 + took // 4,
            "finished_at": created + 6_000 + took,
        }  # fmt: skip


def ours(run: Running, client: Client, source: Source) -> Json:
    """One sink process stores the backlog; the time runs from its first rows to its last."""
    before = _rows(client)
    child = run.start_worker("sink", ["sink"])
    wait_until(lambda: _rows(client) > before, STORED_SECONDS, "the first rows", child)
    began, first = time.monotonic(), _rows(client)
    gauge = Gauge({"sink": child.pid, "clickhouse": run.stack.processes["clickhouse"]})
    wait_until(lambda: _rows(client) >= source.published, STORED_SECONDS, "the last row", child)
    seconds, cost, memory = time.monotonic() - began, gauge.since(), gauge.memory()["sink"]
    child.stop(30)
    distinct = int(client.query("SELECT uniqExact(attempt_id) FROM usage").result_rows[0][0])
    rows = source.published - first
    return {
        "published": source.published, "stored": _rows(client), "distinct": distinct,
        "rows_per_second": rows / seconds, "memory_bytes": memory,
        "sink_us_per_row": cost.cpu["sink"] / rows * 1e6, "clickhouse_us_per_row": cost.cpu["clickhouse"] / rows * 1e6,
        "cores_used_by_others": cost.others / cost.seconds,
    }  # fmt: skip


def bare(run: Running, client: Client, rows: int) -> Json:
    """The bare sink stores the same backlog."""
    settings = run.settings
    topic = USAGE.on(settings.topic_prefix)
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_sink", settings.kafka_bootstrap, topic, settings.clickhouse_url,
         settings.clickhouse_database, "bare", str(rows)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    before = os.times()
    out, _ = child.communicate(timeout=STORED_SECONDS)
    after = os.times()
    seconds = float(out)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"rows_per_second": rows / seconds, "sink_us_per_row": cpu / rows * 1e6}


def freshness(run: Running, client: Client, source: Source) -> Json:
    """How long after the broker's time stamp a query sees an event, at a constant rate."""
    child = run.start_worker("sink", ["sink"])
    source.publish(1)
    wait_until(lambda: _rows(client) >= source.published, STORED_SECONDS, "the sink to have joined its group", child)
    published: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}

    def delivered(error: Any, message: Any) -> None:
        assert error is None
        published[message.partition(), message.offset()] = message.timestamp()[1] / 1e3

    ended = threading.Event()

    def watch() -> None:
        upto: dict[int, int] = {}
        with connect(run.settings) as reader:
            while not ended.is_set():
                now = time.time()
                found = reader.query("SELECT kafka_partition, max(kafka_offset) FROM usage GROUP BY 1").result_rows
                for partition, offset in found:
                    for each in range(upto.get(partition, offset) + 1, offset + 1):
                        seen[partition, each] = now
                    upto[partition] = offset
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    for number in range(FRESH_RATE * FRESH_SECONDS):
        time.sleep(max(0.0, began + number / FRESH_RATE - time.monotonic()))
        source.one(delivered)
    source.publish(0)
    wait_until(lambda: _rows(client) >= source.published, STORED_SECONDS, "the last row", child)
    time.sleep(0.2)
    ended.set()
    watcher.join()
    child.stop(30)
    ages = [seen[place] - at for place, at in published.items() if place in seen]
    return {
        "rate": FRESH_RATE, "events": len(published), "events_seen": len(ages),
        **{f"{name}_seconds": value for name, value in percentiles(ages).items()}, "most_seconds": max(ages),
    }  # fmt: skip


def _rows(client: Client) -> int:
    return int(client.query("SELECT count() FROM usage").result_rows[0][0])


def summary(rounds: list[Json]) -> Json:
    """Medians and spreads over the rounds."""
    found: Json = {
        f"{side}_{name}": spread([one[side][name] for one in rounds])
        for side in ("ours", "bare")
        for name in ("rows_per_second", "sink_us_per_row")
    }
    found["cpu_ratio"] = spread([one["ours"]["sink_us_per_row"] / one["bare"]["sink_us_per_row"] for one in rounds])
    found["clickhouse_us_per_row"] = spread([one["ours"]["clickhouse_us_per_row"] for one in rounds])
    return found


def tables(report: Json) -> list[Table]:
    """What is printed."""
    found, fresh = report["summary"], report["freshness"]
    table = Table(title=f"{report['settings']['rows']:,} usage events a round, one process", title_justify="left")
    for name in ("", "median", "least to most", "aim"):
        table.add_column(name, justify="left" if not name else "right")
    for name, key, digits in (
        ("rows a second, ours", "ours_rows_per_second", 0),
        ("rows a second, bare sink", "bare_rows_per_second", 0),
        ("CPU µs a row, ours", "ours_sink_us_per_row", 1),
        ("CPU µs a row, bare sink", "bare_sink_us_per_row", 1),
        ("CPU, ours / bare", "cpu_ratio", 2),
        ("ClickHouse's CPU µs a row, with rollups", "clickhouse_us_per_row", 1),
    ):
        value, aim = found[key], f"≥ {AIM_ROWS:,}" if key == "ours_rows_per_second" else ""
        ends = f"{value['least']:,.{digits}f} – {value['most']:,.{digits}f}"
        table.add_row(name, f"{value['median']:,.{digits}f}", ends, aim)
    table.add_row(
        f"seconds until readable at {fresh['rate']}/s, p50 / p99",
        f"{fresh['p50_seconds']:.2f} / {fresh['p99_seconds']:.2f}", f"at most {fresh['most_seconds']:.2f}", f"p99 ≤ {AIM_FRESH_SECONDS:g}",
    )  # fmt: skip
    table.add_row("published = stored once", "holds" if report["parity_holds"] else "BROKEN", "", "")
    return [table]


if __name__ == "__main__":
    raise SystemExit(main())
