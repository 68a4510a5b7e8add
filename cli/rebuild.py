"""`millstream rebuild`: ClickHouse filled again from the topics, proven equal row by row."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicPartition
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import kafka
from cli.errors import CommandError
from cli.reconcile.watermark import Log
from cli.stackfile import stack_settings
from config.kafka import librdkafka
from config.schema_registry import open_codec
from config.settings import Settings
from sinks.consumer import GROUP
from sinks.query import reason
from sinks.rebuild import Digest, Filling, Ranges, bodies_kept, digest, fresh_database, replace_tables, rows_elsewhere
from sinks.rows import FACTS
from sinks.tables import migrate_clickhouse

SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of one table: its digest before and after, and how many rows the topics no longer hold."""

    table: str
    before: Digest
    after: Digest
    dropped: int


def describe(parser: argparse.ArgumentParser) -> None:
    """Whether rows that no topic holds may go."""
    parser.add_argument(
        "--yes", action="store_true", help="go on although ClickHouse has rows whose records the topics no longer hold"
    )


def run(arguments: argparse.Namespace) -> int:
    """Fill fresh tables, put them in place and say whether they are equal to what was there."""
    settings, console = stack_settings(), Console(stderr=True)
    try:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        ) as bar:
            found = rebuild(settings, arguments.yes, bar)
    except KafkaException as why:
        raise CommandError(f"Kafka at {settings.kafka_bootstrap} failed ({why.args[0].str()}); run it again.") from None
    except ClickHouseError as why:
        raise CommandError(
            f"ClickHouse at {settings.clickhouse_url.rpartition('@')[2]} failed: {reason(str(why))}; run it again."
        ) from None
    for table in found:
        same = "equal row by row to what was there"
        if not table.before.rows:
            same = "there was none before"
        elif table.before != table.after:
            same = (
                f"not what was there, {table.before.rows:,} rows: `millstream reconcile` says whether it is right now"
            )
        gone = f"; {table.dropped:,} rows that the topics no longer hold are gone" if table.dropped else ""
        print(
            f"{table.table}: {table.after.rows:,} rows, hash {table.after.sum:016x}{table.after.xor:016x}, {same}{gone}."
        )
    print("The sinks can be started again: they go on where they stopped.")
    return 0


def rebuild(settings: Settings, drop: bool, bar: Progress) -> list[Rebuilt]:
    """Rebuild every table from the records that the sink has stored; `CommandError` when that is not safe.

    The rows end where the sink's committed offsets do, so a sink that starts afterwards goes on without gap or repetition.
    """
    ranges = _ranges(settings)
    migrate_clickhouse(settings)
    before = {fact.table: digest(settings, fact, ranges[fact.table]) for fact in FACTS}
    gone = {fact.table: rows_elsewhere(settings, fact, ranges[fact.table]) for fact in FACTS}
    if any(gone.values()) and not drop:
        many = ", ".join(f"{count:,} rows of {table}" for table, count in gone.items() if count)
        raise CommandError(
            f"The topics no longer hold the records of {many}, which a rebuild would drop; nothing was changed. "
            "Back them up, then add --yes."
        )
    task = bar.add_task("Records", total=sum(b - a for held in ranges.values() for a, b in held.values()))
    with fresh_database(settings) as fresh:
        _fill(settings, fresh, ranges, bar, task)
        after = {fact.table: digest(fresh, fact, ranges[fact.table]) for fact in FACTS}
        if {table: {n: b for n, (_, b) in held.items()} for table, held in _ranges(settings).items()} != {
            table: {n: b for n, (_, b) in held.items()} for table, held in ranges.items()
        }:
            raise CommandError(
                "A sink has stored records during the rebuild; nothing was changed. Stop it and run again."
            )
        have, would_have = bodies_kept(settings), bodies_kept(fresh)
        if not drop and (would_have[0] < have[0] or would_have[1] < have[1]):
            raise CommandError(
                f"Table bodies has {have[0]:,} prompts and answers of {have[1]:,} bytes, and MILLSTREAM_BODIES="
                f"{settings.bodies} would leave {would_have[0]:,} of {would_have[1]:,} bytes; nothing was changed. "
                "Change the setting, or add --yes."
            )
        replace_tables(settings, fresh)
    placed = {fact.table: digest(settings, fact, ranges[fact.table]) for fact in FACTS}
    if placed != after:
        raise CommandError("The tables in place are not the ones that were filled; run it again.")
    return [Rebuilt(table, before[table], after[table], gone[table]) for table in after]


def _fill(settings: Settings, fresh: Settings, ranges: dict[str, Ranges], bar: Progress, task: object) -> None:
    log, filling = Log(settings), Filling(fresh, open_codec(settings))
    try:
        for fact in FACTS:
            held = ranges[fact.table]
            begin, end = ({n: bounds[side] for n, bounds in held.items()} for side in (0, 1))
            for message in log.messages(fact.topic, begin, end):
                filling.take(fact, message, begin[message.partition()])
                bar.advance(task)  # type: ignore[arg-type]
        filling.finish()
    finally:
        log.close()


def _ranges(settings: Settings) -> dict[str, Ranges]:
    """What the log still holds of what the sink has stored, by table; `CommandError` while a sink runs or left a batch begun."""
    client, _ = kafka.admin(settings)
    group = settings.topic_prefix + GROUP
    described = client.describe_consumer_groups([group], request_timeout=SECONDS)[group].result()
    if described.state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD) or described.members:
        raise CommandError(
            f"Group {group} has {len(described.members)} running sinks; stop them with SIGTERM and run this again "
            "(a killed sink counts until its session has timed out)."
        )
    log = Log(settings)
    reader = Consumer({**librdkafka(settings), "group.id": group}, logger=kafka.QUIET)
    try:
        found: dict[str, Ranges] = {}
        for fact in FACTS:
            low, _ = log.bounds(fact.topic)
            name = fact.topic.on(settings.topic_prefix)
            committed = reader.committed([TopicPartition(name, number) for number in low], timeout=SECONDS)
            for place in committed:
                if place.metadata:
                    raise CommandError(
                        f"A sink has left a batch of {name} partition {place.partition} half stored; start a sink, "
                        "let it catch up, stop it with SIGTERM and run this again."
                    )
            found[fact.table] = {p.partition: (low[p.partition], max(p.offset, low[p.partition])) for p in committed}
        return found
    finally:
        reader.close()
        log.close()
