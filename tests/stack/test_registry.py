"""The whole pipeline on PostgreSQL with a real schema registry, and the codec's wire form against it."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config import audit
from config.database import open_database, reading
from config.schema_registry import SchemaRegistry, open_codec
from config.settings import SettingsError
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES
from schemas.avro import SCHEMAS
from schemas.codec import Codec, Undecodable
from tests.conftest import QUICK
from tests.examples import request, written
from tests.stack.asking import ask, ask_one, eventually, log, told

ROOT = Path(__file__).parent.parent.parent
ADJUSTED = "price adjustments = settled in the ledger"


@pytest.fixture(scope="module")
def registered() -> Iterator[Running]:
    """The pipeline with PostgreSQL and Apicurio beside Kafka and ClickHouse."""
    with running(environment=QUICK, postgres=True, registry=True) as run:
        yield run


def test_the_pipeline_runs_on_postgresql_and_a_registry(registered: Running) -> None:
    """Requests in Confluent wire format are answered in it, on a PostgreSQL ledger."""
    assert registered.settings.database_url.startswith("postgresql")
    answers = ask(registered, [told(f"Number {n}.") for n in range(50)])
    assert [a["outcome"] for a in answers.values()] == ["completed"] * 50
    assert {m.value()[:1] for m in log(registered, REQUESTS) + log(registered, RESPONSES)} == {b"\x00"}


def test_any_client_can_read_an_answer_with_the_registry_alone(registered: Running) -> None:
    """The id in the record leads to a schema with which plain Avro reads the value."""
    answer = ask_one(registered, told("For a stranger."))
    message = next(m for m in log(registered, RESPONSES) if m.key() == answer["request_id"].encode())
    schema_id = int.from_bytes(message.value()[1:5], "big")
    with urllib.request.urlopen(f"{registered.stack.schema_registry_url}/schemas/ids/{schema_id}") as found:
        schema = parse_schema(json.loads(json.load(found)["schema"]))
    read = schemaless_reader(io.BytesIO(message.value()[5:]), schema, None)
    assert (read["request_id"], read["outcome"]) == (answer["request_id"], "completed")


def test_an_older_producer_is_understood(registered: Running) -> None:
    """A value written with an earlier version of the schema gets the defaults of what it lacks."""
    registry = SchemaRegistry(registered.settings.schema_registry_url or "")
    older: dict[str, Any] = copy.deepcopy(SCHEMAS["LlmRequest"])
    older["fields"] = [field for field in older["fields"] if field["name"] != "plan"]
    writer = Codec(registry)
    schema_id = registry.id_of("older-value", older)
    value = b"\x00" + schema_id.to_bytes(4, "big") + written(older, request())[10:]
    assert writer.decode_blocking("LlmRequest", value)["plan"] is None
    with pytest.raises(Undecodable, match="no schema with id 999999"):
        writer.decode_blocking("LlmRequest", b"\x00" + (999_999).to_bytes(4, "big") + b"x")


def test_both_wire_forms_are_read_side_by_side(registered: Running) -> None:
    """A producer without the registry is served by a pipeline with one; an id that nobody gave out is a dead letter."""
    exchange = Exchange(registered.settings)
    asked = told("In the other form.")
    exchange.send_bytes(asked["request_id"].encode(), Codec().encode("LlmRequest", asked), [])
    exchange.send_bytes(b"stray", b"\x00" + (999_999).to_bytes(4, "big") + b"x", [])
    exchange.flush()
    assert exchange.answers([asked["request_id"]], 90)[asked["request_id"]]["outcome"] == "completed"
    codec = exchange.codec
    exchange.close()
    letters = [codec.decode_blocking("DeadLetter", m.value()) for m in log(registered, DEAD_LETTERS)]
    assert ["999999" in letter["message"] for letter in letters if letter["key"] == b"stray"] == [True]


def test_a_registry_that_is_away_is_said_so(registered: Running) -> None:
    """The sentence names the setting and the address."""
    away = registered.settings.model_copy(update={"schema_registry_url": "http://127.0.0.1:9"})
    with pytest.raises(SettingsError, match=r"MILLSTREAM_SCHEMA_REGISTRY_URL=http://127\.0\.0\.1:9"):
        open_codec(away)


def reprice(run: Running, *price: str) -> subprocess.Popen[str]:
    """Bring the calls of this model to a price, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "reprice", "--since", "1h", "--model", "openai/gpt-5-mini", *price],
        env={**run.environment, "PYTHONPATH": str(ROOT)}, cwd=run.stack.data_dir, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def spent(run: Running) -> int:
    """What all accounts of the ledger have spent, in nano-USD."""
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        found = audit.totals(db).spent_nano
    engine.dispose()
    return found


def through(run: Running) -> bool:
    """Whether everything that was sent is acknowledged by every stage and the sink."""
    marks = reconcile(run.settings, None, run.stack.simulator_url).marks
    return not marks.under_way and all(
        not mark.not_yet(mark.handled) and not mark.not_yet(mark.stored) for mark in marks.marks.values()
    )


def test_the_proof_holds_there_and_after_two_who_reprice_at_once(registered: Running) -> None:
    """All of this file holds in `reconcile`; so it does after two runs of `reprice` at once, and today's price undoes both."""
    assert eventually(lambda: through(registered))
    lines = reconcile(registered.settings, None, registered.stack.simulator_url).lines
    assert {line.name: (line.status, line.differences) for line in lines} == {
        line.name: ("holds", ()) for line in lines
    }
    money = spent(registered)
    assert money > 0
    both = [reprice(registered, "--price", f"input={usd},output={usd}") for usd in (7, 9)]
    told_both = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], told_both
    assert eventually(lambda: through(registered))
    assert spent(registered) > money
    today = reprice(registered, "--from-today")
    said, _ = today.communicate(timeout=120)
    assert (today.returncode, "Nothing to adjust" in said) == (0, False), said
    assert eventually(lambda: through(registered))
    assert spent(registered) == money
    lines = reconcile(registered.settings, None, registered.stack.simulator_url).lines
    assert {line.name: (line.status, line.differences) for line in lines} == {
        line.name: ("holds", ()) for line in lines
    }
    (adjusted,) = (line for line in lines if line.name == ADJUSTED)
    assert adjusted.left.figures["adjustments"] >= 2 * 52
    assert adjusted.left.figures["cost_nano_usd"] == 0
