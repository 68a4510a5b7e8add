"""The sink on real Kafka and ClickHouse: each event of the log is one row, whatever fails in between."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaException

from config.settings import Settings
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE
from local.processes import free_port
from schemas.cloudevents import headers
from schemas.codec import Codec
from schemas.jsonform import from_json
from sinks import consumer
from sinks.batch import prepare
from sinks.metrics import SinkMetrics
from sinks.partition import Batch, Partition, event_id
from sinks.rows import FACTS, columns_of, values_of
from sinks.tables import SchemaBehind, migrate_clickhouse, require_current_schema, schema_version
from sinks.window import Window
from sinks.writer import INSERT_SETTINGS, Writer, connect
from tests.examples import NOON, request
from tests.stack.sink_world import TRACE, MakeWorld, World, eventually, usage

ROLLUPS = ("usage_by_minute", "usage_by_hour", "usage_by_day", "latency_by_hour")


def response(request_id: str) -> dict[str, Any]:
    """An answer that was refused."""
    return from_json(
        "LlmResponse",
        {
            "request_id": request_id, "tenant": "acme", "outcome": "refused", "attempts": 0, "created_at": NOON,
            "finished_at": NOON + 5, "cost_status": "not_charged",
            "error": {"code": "caller_unknown_model", "message": "No such model.", "retryable": False},
        },
    )  # fmt: skip


def test_the_tables_are_what_the_schemas_ask_for(world: MakeWorld) -> None:
    """After the migrations, every fact table of the server has the generated columns with their types."""
    with connect(world().settings) as client:
        for fact in FACTS:
            described = {row[0]: row[1] for row in client.query(f"DESCRIBE {fact.table}").result_rows}
            assert described.pop("ingested_at") == "DateTime64(3, 'UTC')"
            assert described == {column.name: column.type for column in columns_of(fact.record)}


def test_migrating_again_changes_nothing(world: MakeWorld) -> None:
    """The migrations can be applied again, and a store without them is refused with the command to run."""
    here = world()
    version = migrate_clickhouse(here.settings)
    with connect(here.settings) as client:
        assert schema_version(client) == version
        require_current_schema(client)
        client.command("TRUNCATE TABLE schema_migrations")
        with pytest.raises(SchemaBehind, match="run `millstream migrate`"):
            require_current_schema(client)
    assert migrate_clickhouse(here.settings) == version


def test_every_topic_becomes_rows(world: MakeWorld) -> None:
    """An event of each kind becomes one row with its position, and of a body a fact keeps nothing but its length."""
    here = world()
    asked = request("How tall is Mont Blanc?")
    spent = usage(random.Random(1))
    here.send("LlmRequest", REQUESTS.name, dict(asked), "ce-1")
    here.send("LlmResponse", RESPONSES.name, response(asked["request_id"]), "ce-2")
    here.send("LlmUsage", USAGE.name, spent, "ce-3")
    here.producer.flush()
    here.start_sink()
    eventually(lambda: here.count("requests") + here.count("responses") + here.count("usage") == 3)
    found = here.rows("SELECT ce_id, request_id, user, message_count, input_chars, model FROM requests")
    assert found == [("ce-1", asked["request_id"], "ana", 1, 23, "openai/gpt-5-mini")]
    found = here.rows("SELECT ce_id, outcome, error_code, error_retryable, error_provider_status FROM responses")
    assert found == [("ce-2", "refused", "caller_unknown_model", False, None)]
    here.assert_store_equals_log()


def test_a_republished_event_is_one_row(world: MakeWorld) -> None:
    """Events that stand in the log again, in the same batch or a later one, are stored once and counted once."""
    here = world(sink_batch_rows=50)
    here.send_usage(random.Random(2), 600, again=0.2)
    here.start_sink()
    expected = here.usage_of_the_log()
    assert len(expected) < len(here.log(USAGE.name))
    eventually(lambda: here.count() >= len(expected))
    here.assert_store_equals_log()


def test_a_record_without_a_row_becomes_a_dead_letter(world: MakeWorld) -> None:
    """Bytes that are no event, and events that no table can hold, reach the dead-letter topic whole; the rest is stored."""
    here = world(partitions=1)
    rng = random.Random(3)
    header = headers("LlmUsage", "broken", "test", NOON, TRACE)
    lost_in_time = usage(rng, created_at=-1)
    here.send_usage(rng, 5)
    here.send_raw(RESPONSES.name, b"\xc3\x01 this is no event", header, "some key")
    here.send_raw(RESPONSES.name, None, [], "some key")
    here.send("LlmUsage", USAGE.name, lost_in_time, "placeless")
    too_big = usage(rng, attempt=1 << 40)
    here.send("LlmUsage", USAGE.name, too_big, "too big")
    here.send_usage(rng, 5)
    here.start_sink()
    eventually(lambda: here.count() == 10 and here.count("dead_letters") == 4)
    letters = [here.codec.decode("DeadLetter", letter.value()) for letter in here.log(DEAD_LETTERS.name)]
    prefix = here.settings.topic_prefix
    assert {
        (letter["topic"].removeprefix(prefix), letter["offset"], letter["key"], letter["value"]) for letter in letters
    } == {
        (RESPONSES.name, 0, b"some key", b"\xc3\x01 this is no event"),
        (RESPONSES.name, 1, b"some key", None),
        (USAGE.name, 5, lost_in_time["request_id"].encode(), here.codec.encode("LlmUsage", lost_in_time)),
        (USAGE.name, 6, too_big["request_id"].encode(), here.codec.encode("LlmUsage", too_big)),
    }
    first = next(letter for letter in letters if letter["value"] and letter["value"].endswith(b"no event"))
    assert {item["key"]: item["value"] for item in first["headers"]} == dict(header)
    assert here.rows("SELECT stage, value_bytes FROM dead_letters WHERE value_bytes = 19") == [("sink", 19)]


def test_what_a_stage_reports_is_not_reported_twice(world: MakeWorld) -> None:
    """Bytes that are no event on a topic that a stage reads too are that stage's dead letter, and stop nothing here."""
    here = world(partitions=1)
    rng = random.Random(4)
    here.send_raw(USAGE.name, b"no event", [], "some key")
    here.send_raw(REQUESTS.name, b"no event", [], "some key")
    here.send_usage(rng, 5)
    here.start_sink()
    eventually(lambda: here.count() == 5)
    assert here.log(DEAD_LETTERS.name) == []


@pytest.mark.parametrize("seed", [11, 12])
def test_kill_minus_nine_anywhere(world: MakeWorld, seed: int) -> None:
    """A sink killed again and again at random moments leaves facts and rollup equal to the log."""
    here = world(sink_batch_rows=20)
    rng = random.Random(seed)
    here.send_usage(rng, 800, again=0.05)
    goal = len(here.usage_of_the_log())
    for _ in range(4):
        before, sink = here.count(), here.start_sink()
        wait_beyond(here, before, goal)
        time.sleep(rng.random() * 0.2)
        sink.kill()
        sink.wait()
    here.start_sink()
    eventually(lambda: here.count() >= goal)
    here.assert_store_equals_log()


def test_a_sink_that_was_frozen_writes_nothing_twice(world: MakeWorld) -> None:
    """A sink stopped beyond its session in mid-work, replaced, and woken up again does no harm."""
    here = world(sink_batch_rows=20)
    rng = random.Random(4)
    here.send_usage(rng, 1_500)
    frozen = here.start_sink()
    eventually(lambda: here.count() > 100)
    frozen.send_signal(signal.SIGSTOP)
    second = here.start_sink()
    eventually(lambda: here.count() >= 1_500)
    frozen.send_signal(signal.SIGCONT)
    here.send_usage(rng, 500)
    eventually(lambda: here.count() >= 2_000)
    for sink in (frozen, second):
        assert stopped(sink) == 0
    here.assert_store_equals_log()


def wait_beyond(here: World, rows: int, goal: int) -> None:
    """Wait until there are more rows than `rows`, or all of them."""
    eventually(lambda: here.count() > rows or here.count() >= goal)


def stopped(sink: subprocess.Popen[bytes]) -> int:
    """The exit status of a sink that is asked to stop."""
    sink.terminate()
    return sink.wait(timeout=20)


def test_clickhouse_away_and_back(world: MakeWorld) -> None:
    """What arrives while ClickHouse is down, even at the sink's start, is stored once when it is back."""
    here = world(sink_batch_rows=50)
    rng = random.Random(5)
    sink = here.start_sink()
    here.send_usage(rng, 300)
    eventually(lambda: here.count() > 0)
    here.clickhouse.kill()
    here.send_usage(rng, 700)
    late = here.start_sink()
    time.sleep(3.0)
    here.clickhouse.start()
    eventually(lambda: here.count() >= 1_000)
    assert stopped(sink) == stopped(late) == 0
    here.assert_store_equals_log()


@pytest.mark.parametrize("kept", ["full", "hash", "off"])
def test_bodies_are_kept_as_the_setting_says(world: MakeWorld, kept: str) -> None:
    """A prompt and its answer, published twice, leave one row each with text and hash, with the hash alone, or none at all."""
    here = world(partitions=1, sink_batch_rows=1, bodies=kept)
    asked = request("Wie heißt du?")
    part = {"type": "text", "text": "Mühle.\x00"}
    answer = from_json(
        "LlmResponse", response(asked["request_id"]) | {"outcome": "completed", "error": None, "output": [part]}
    )
    for _ in range(2):
        here.send("LlmRequest", REQUESTS.name, dict(asked), "ce-1")
        here.send("LlmResponse", RESPONSES.name, answer, "ce-2")
    here.send("LlmResponse", RESPONSES.name, response(str(uuid.uuid4())), "ce-3")
    here.producer.flush()
    here.start_sink()
    eventually(lambda: here.count("requests") + here.count("responses") == 3)
    texts = {
        "request": '[{"role":"user","content":[{"type":"text","text":"Wie heißt du?"}]}]',
        "response": '[{"type":"text","text":"Mühle.\\u0000"}]',
    }
    rows = [
        (kind, here.settings.topic_prefix + topic.name, asked["request_id"], "acme", text if kept == "full" else "",
         len(text.encode()), hashlib.sha256(text.encode()).hexdigest())
        for (kind, text), topic in zip(texts.items(), (REQUESTS, RESPONSES), strict=True)
        if kept != "off"
    ]  # fmt: skip
    eventually(lambda: here.count("bodies") >= (0 if kept == "off" else 3))
    columns = "kind, kafka_topic, request_id, tenant, body, body_bytes, sha256"
    query = f"SELECT {columns} FROM bodies WHERE request_id = {{id:String}} ORDER BY kind"
    assert here.rows(query, id=asked["request_id"]) == rows
    assert here.rows("SELECT count() FROM bodies WHERE abs(dateDiff('minute', logged_at, now())) > 5") == [(0,)]


def test_a_repeated_insert_of_bodies_adds_none(world: MakeWorld) -> None:
    """Bodies of a batch that is stored again after a crash are dropped by their token, and added where they were missing."""
    here = world(partitions=1)
    asked = [request(f"Question {number}") for number in range(5)]
    for each in asked:
        here.send("LlmRequest", REQUESTS.name, dict(each), each["request_id"])
    here.producer.flush()
    messages = here.log(REQUESTS.name)
    topic = messages[0].topic()
    assert topic is not None
    partition = Partition(topic, 0, FACTS[0], 0, 4, Window(0), 5)
    batch = Batch(0, 4, messages, [event_id(message) for message in messages])
    writer = Writer(here.settings)
    prepared = prepare(partition, batch, here.codec, writer.encoded, "full")
    assert [insert.table for insert in prepared.inserts] == ["requests", "bodies"]
    for inserts in (prepared.inserts[:1], prepared.inserts, prepared.inserts):
        for insert in inserts:
            writer.insert(insert.body, f"{insert.table}:{topic}:0:0-4")
        assert (here.count("requests"), here.count("bodies")) == (5, 0 if len(inserts) == 1 else 5)
    writer.close()


@pytest.mark.parametrize("name", ROLLUPS)
def test_a_repeated_insert_repairs_the_rollup(world: MakeWorld, name: str) -> None:
    """A batch inserted again under its token adds no fact, and gives the rollups that missed it what they lack."""
    here = world()
    event = usage(random.Random(6))
    writer = Writer(here.settings)
    columns = values_of("LlmUsage", [event], "t", 0, [0], [str(uuid.uuid4())])
    body = writer.encoded("usage", columns)
    view = f"{name}_view"
    query = here.rows(
        "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = {view:String}", view=view
    )
    with connect(here.settings) as client:
        client.command(f"DROP TABLE {view}")
        writer.insert(body, "usage:t:0:0-0")
        assert here.rows(f"SELECT sum(calls) FROM {name}") == [(0,)]
        client.command(f"CREATE MATERIALIZED VIEW {view} TO {name} AS {query[0][0]}")
    for _ in range(2):
        writer.insert(body, "usage:t:0:0-0")
        assert here.count() == 1
        for each in ROLLUPS:
            assert here.rows(f"SELECT sum(calls) FROM {each}") == [(1,)]
    writer.close()
    assert INSERT_SETTINGS["deduplicate_blocks_in_dependent_materialized_views"] == 1


def test_a_sink_that_its_group_does_not_know_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that never becomes a member is given up, so that `run` makes another one."""
    monkeypatch.setattr(consumer, "REJOIN_SECONDS", 1.0)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}")
    sink = consumer.Sink(settings, Codec(), SinkMetrics(settings))
    try:
        with pytest.raises(KafkaException, match="does not take this consumer back"):
            sink.run(lambda: False)
    finally:
        sink.close()
