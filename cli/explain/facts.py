"""What ClickHouse knows of a request."""

from __future__ import annotations

from typing import Any

from cli.explain.known import Facts, Row
from cli.reconcile.store import as_number
from sinks.query import Store
from sinks.rows import FACTS, Column, columns_of

_RECORDS = {fact.table: fact.record for fact in FACTS}
_INGESTED = Column("ingested_at", "DateTime64(3, 'UTC')", None)
_BY_ID = "request_id = {id:String}"
#: Every fact of a request has its time, and is found by it in the order of the table.
_AT = "{column} BETWEEN fromUnixTimestamp64Micro({{first:Int64}}, 'UTC') AND fromUnixTimestamp64Micro({{last:Int64}}, 'UTC')"


def facts_of(store: Store, request_id: str, models: set[str], now: int, *, bodies: bool) -> Facts:
    """The rows of a request, each event once; raises `sinks.query.QueryFailed`.

    `models` are those that it is known to concern, as `provider/model`: alerts about them belong to the story.
    """
    requests = _rows(store, "requests", _BY_ID, "kafka_partition, kafka_offset", {"id": request_id})
    times = [row["created_at"] for row in requests]
    where, of = _BY_ID, {"id": request_id}
    if times:
        where, of = f"{_BY_ID} AND {_AT.format(column='created_at')}", of | {"first": min(times), "last": max(times)}
    answers = _once(_rows(store, "responses", where, "kafka_partition, kafka_offset", of), "ce_id")
    usages = _once(_rows(store, "usage", where, "finished_at, attempt", of), "attempt_id")
    letters = _rows(store, "dead_letters", "key = {id:String}", "failed_at", {"id": request_id})
    models |= {model for row in answers for model in row["decisions_model"]}
    models |= {f"{row['provider']}/{row['model']}" for row in usages}
    ends = max((row["finished_at"] for row in answers), default=now)
    return Facts(
        tuple(requests), tuple(answers), tuple(usages), tuple(_once(letters, "ce_id")),
        tuple(_alerts(store, models, min(times, default=ends), ends)), tuple(_bodies(store, request_id)) if bodies else (),
    )  # fmt: skip


def _alerts(store: Store, models: set[str], first: int, last: int) -> list[Row]:
    """Alerts about models and their providers in a time."""
    subjects = sorted(models | {model.partition("/")[0] for model in models})
    where = f"subject IN {{subjects:Array(String)}} AND {_AT.format(column='raised_at')}"
    of = {"subjects": subjects, "first": first, "last": last}
    return _once(_rows(store, "alerts", where, "raised_at", of), "ce_id") if subjects else []


def _bodies(store: Store, request_id: str) -> list[Row]:
    chosen = "SELECT kind, body, body_bytes, sha256 FROM bodies"
    return list(
        store.rows(f"{chosen} WHERE {_BY_ID} ORDER BY kind, logged_at LIMIT 1 BY kind, sha256", {"id": request_id})
    )


def _rows(store: Store, table: str, where: str, order: str, of: dict[str, Any]) -> list[Row]:
    columns = (*columns_of(_RECORDS[table]), _INGESTED)
    chosen = ", ".join(
        "toUnixTimestamp64Micro(toDateTime64(ingested_at, 6))" if column is _INGESTED else as_number(column)
        for column in columns
    )
    found = store.rows(f"SELECT {chosen} FROM {table} WHERE {where} ORDER BY {order}", of)  # noqa: S608
    return [dict(zip((column.name for column in columns), row.values(), strict=True)) for row in found]


def _once(rows: list[Row], key: str) -> list[Row]:
    return list({row[key]: row for row in reversed(rows)}.values())[::-1]
