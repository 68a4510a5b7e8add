"""The sink that people write first: read, decode with fastavro, insert with clickhouse-connect, commit. Nothing is exact here.

`python -m benchmarks.bare_sink BOOTSTRAP TOPIC CLICKHOUSE_URL DATABASE TABLE ROWS` ends when it has stored that many rows and prints the
seconds from the first record to the last commit.
"""

from __future__ import annotations

import sys
import time
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from confluent_kafka import Consumer
from fastavro import parse_schema, schemaless_reader

from schemas.avro import SCHEMAS

BATCH_ROWS = 20_000
PREFIX_BYTES = 10


def main() -> None:
    """Store the rows."""
    bootstrap, topic, address, database, table, rows = sys.argv[1:]
    url = urlsplit(address)
    client = clickhouse_connect.get_client(host=url.hostname, port=url.port or 8123, database=database)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bare-sink",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    schema = parse_schema(SCHEMAS["LlmUsage"], named_schemas={})
    began, stored = 0.0, 0
    while stored < int(rows):
        messages = consumer.consume(BATCH_ROWS, 1.0)
        began = began or (time.monotonic() if messages else 0.0)
        if not messages:
            continue
        events = [flat(schemaless_reader(BytesIO(m.value()[PREFIX_BYTES:]), schema, None)) for m in messages]
        names = list(events[0])
        client.insert(table, [list(event.values()) for event in events], column_names=names)
        consumer.commit(asynchronous=False)
        stored += len(messages)
    print(time.monotonic() - began)
    consumer.close()


def flat(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its nested records' fields beside its own, as the table has them."""
    out: dict[str, Any] = {}
    for name, value in event.items():
        if name in ("tokens", "costs"):
            out.update({f"{name}_{inner}": amount for inner, amount in value.items()})
        else:
            out[name] = "" if value is None and name in TEXTS else value
    return out


#: The fields that are an empty text in the table where they are null.
TEXTS = frozenset(
    field["name"] for field in SCHEMAS["LlmUsage"]["fields"] if field["type"] == ["null", "string"]
)  # fmt: skip


if __name__ == "__main__":
    main()
