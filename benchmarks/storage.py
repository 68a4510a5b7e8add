"""How many bytes a request leaves behind in Kafka, ClickHouse and the ledger of a local stack."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rounds import Bench

Bytes = dict[str, int]


def stored(bench: Bench) -> Bytes:
    """Bytes by topic (`kafka llm.requests.v1`), by table (`clickhouse usage`) and of the ledger, as they are on disk now.

    ClickHouse's are those of active parts, compressed; they shrink as it merges them.
    """
    folder = Path(bench.run.stack.data_dir)
    found = {"ledger": sum(file.stat().st_size for file in folder.glob("ledger.db*"))}
    for log in folder.glob("kafka/log/llm.*/*.log"):
        topic = f"kafka {log.parent.name.rpartition('-')[0]}"
        found[topic] = found.get(topic, 0) + log.stat().st_size
    parts = "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table"
    for table, size in bench.clickhouse.query(parts).result_rows:
        found[f"clickhouse {table}"] = int(size)
    return found


def each(before: Bytes, after: Bytes, requests: int) -> dict[str, float]:
    """Bytes that one request added, by place; what no request grew is left out."""
    grown = {place: (size - before.get(place, 0)) / requests for place, size in after.items()}
    return {place: round(size, 1) for place, size in sorted(grown.items()) if size > 1}
