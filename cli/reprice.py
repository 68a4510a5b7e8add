"""`millstream reprice`: other prices for calls that were made, as signed adjustments on the usage topic."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.table import Table

from agents.outgoing import Encoder
from cli import kafka
from cli.amounts import money, plain
from cli.errors import CommandError
from cli.reconcile.store import as_number, quoted, streamed
from cli.reconcile.watermark import Log
from cli.report.window import parse_since
from cli.stackfile import stack_settings
from config.kafka import librdkafka
from config.prices import price_on
from config.schema_registry import open_codec
from config.settings import Settings
from core.pricing import TOKEN_CLASSES, Price, Tier, TokenClass
from core.repricing import Charged, adjustment, can_be_repriced
from core.topics import USAGE
from schemas.cloudevents import trace_of
from schemas.events import LlmUsage
from sinks.consumer import GROUP
from sinks.query import QueryFailed, Store
from sinks.rows import POSITION, columns_of

DAY_US = 86_400_000_000
SINK_SECONDS = 30.0
CLASSES: dict[str, TokenClass] = {
    **{name: name for name in TOKEN_CLASSES},
    "input": "input_uncached", "output": "output_text", "cache_write": "cache_write_5m",
}  # fmt: skip
#: Columns that are never null; an empty text in another one stands for null.
NEVER_NULL = ("attempt_id", "request_id", "tenant", "provider", "model", "reason", "status", "cost_status")


@dataclass(slots=True)
class Sum:
    """What becomes of one model's calls; money in nano-USD, calls whose cost is not known in none of it."""

    calls: int = 0
    adjusted: int = 0
    left: int = 0
    before: int = 0
    after: int = 0


def describe(parser: argparse.ArgumentParser) -> None:
    """Which calls, and which price."""
    parser.add_argument(
        "--since", required=True, metavar="TIME", help="requests made since then: 24h, 7d, or a UTC date or time"
    )
    parser.add_argument("--until", metavar="TIME", help="and before then (default: now)")
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="only this model")
    price = parser.add_mutually_exclusive_group(required=True)
    price.add_argument(
        "--price", metavar="CLASS=USD,…",
        help="USD per million tokens by class, for the --model: input=0.25,output=2.0 (also cache_read, cache_write_1h, …)",
    )  # fmt: skip
    price.add_argument("--from-today", action="store_true", help="take today's price lists")
    parser.add_argument("--dry-run", action="store_true", help="show what would change and publish nothing")


def run(arguments: argparse.Namespace) -> int:
    """Publish the adjustments and show the cost before and after, by model."""
    now = time.time_ns() // 1_000
    since = parse_since(arguments.since, now).since
    until = parse_since(arguments.until, now).since if arguments.until else now
    if until <= since:
        raise CommandError(f"--until {arguments.until!r} is not after --since {arguments.since!r}.")
    if arguments.model and not re.fullmatch(r"[^/]+/.+", arguments.model):
        raise CommandError(f"--model {arguments.model!r} is not PROVIDER/MODEL, such as openai/gpt-5-mini.")
    given = price_given(arguments.price, now // DAY_US) if arguments.price else None
    if given is not None and not arguments.model:
        raise CommandError("--price needs --model: one model's price is no other's.")
    settings = stack_settings()
    try:
        sums = reprice(settings, since, until, arguments.model, given, now // DAY_US, publish=not arguments.dry_run)
    except QueryFailed as why:
        raise CommandError(str(why)) from None
    except KafkaException as why:
        raise CommandError(f"Kafka at {settings.kafka_bootstrap} failed ({why.args[0].str()}); run it again.") from None
    _show(sums, arguments.dry_run)
    return 0


def price_given(text: str, day: int) -> Price:
    """The price in `input=0.25,output=2.0`, in USD per million tokens; `CommandError` says what is wrong."""
    tiers: dict[TokenClass, tuple[Tier, ...]] = {}
    for part in text.split(","):
        name, _, amount = (word.strip() for word in part.partition("="))
        if name not in CLASSES or not re.fullmatch(r"\d{1,9}(\.\d{1,12})?", amount):
            raise CommandError(
                f"--price has {part.strip()!r}; write a class and USD per million tokens, such as input=0.25. "
                f"Classes: {', '.join(CLASSES)}."
            )
        tiers[CLASSES[name]] = (Tier(0, Decimal(amount)),)
    return Price(tiers, f"given: {text}", day)


def reprice(
    settings: Settings, since: int, until: int, model: str | None, given: Price | None, today: int, *, publish: bool
) -> dict[str, Sum]:
    """Adjust the calls of requests made from `since` to `until` (microseconds); what became of them by `provider/model`.

    Waits until the sink has stored every usage event that stands in the topic, so that all earlier adjustments are seen.
    """
    _wait_for_sink(settings)
    encoder = Encoder(open_codec(settings), "reprice", lambda: time.time_ns() // 1_000)
    topic = USAGE.on(settings.topic_prefix)
    refused: list[str] = []
    producer = Producer({**librdkafka(settings), "enable.idempotence": True, "linger.ms": 20}, logger=kafka.QUIET)
    sums: dict[str, Sum] = {}
    store = Store(settings)
    try:
        for charged in _charged(store, since, until, model):
            usage = charged.usage
            found = sums.setdefault(f"{usage['provider']}/{usage['model']}", Sum())
            found.calls += 1
            found.before += charged.cost or 0
            found.after += charged.cost or 0
            price = given or price_on(usage["provider"], usage["model"], today)
            if price is None or not can_be_repriced(charged, price, given is not None):
                found.left += usage["cost_status"] != "not_charged"
                continue
            event = adjustment(charged, price)
            if event is None:
                continue
            found.adjusted += 1
            found.after += event["cost_nano_usd"] or 0
            if publish:
                _publish(producer, topic, encoder, event, refused)
    finally:
        store.close()
    if producer.flush(60) or refused:
        raise CommandError(
            f"The broker did not take every adjustment ({refused[0] if refused else 'no answer'}); run the same again."
        )
    return sums


def _publish(producer: Producer, topic: str, encoder: Encoder, event: LlmUsage, refused: list[str]) -> None:
    out = encoder.usage(event, trace_of([], event["request_id"]))

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            refused.append(error.str())

    while True:
        try:
            producer.produce(topic, out.value, out.key, headers=out.headers, on_delivery=delivered)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.5)


def _wait_for_sink(settings: Settings) -> None:
    log = Log(settings)
    try:
        _, end = log.bounds(USAGE)
        ends = time.monotonic() + SINK_SECONDS
        while True:
            stored = log.acknowledged(GROUP, USAGE)
            late = sum(max(0, last - stored.get(number, 0)) for number, last in end.items())
            if not late:
                return
            if time.monotonic() > ends:
                raise CommandError(
                    f"The sink has yet to store {late:,} usage events, and earlier adjustments may be among them; "
                    "let it catch up (`millstream top` shows its lag) and run this again."
                )
            time.sleep(0.3)
    finally:
        log.close()


def _charged(store: Store, since: int, until: int, model: str | None) -> Iterator[Charged]:
    """The calls of the window with what they are charged by now."""
    window = f"created_at >= fromUnixTimestamp64Micro(toInt64({since}), 'UTC') AND created_at < fromUnixTimestamp64Micro(toInt64({until}), 'UTC')"
    adjusted: dict[str, list[Any]] = {}
    sums = ", ".join(f"sum(costs_{name})" for name in TOKEN_CLASSES)
    of_calls = f"SELECT adjusts, count(), sum(cost_nano_usd), {sums} FROM usage WHERE adjusts != '' AND {window} GROUP BY adjusts"  # noqa: S608  # fmt: skip
    for row in streamed(store, of_calls):
        adjusted[row[0]] = row[1:]
    columns = [column for column in columns_of("LlmUsage") if column not in POSITION]
    chosen = ", ".join(map(as_number, columns))
    provider, _, name = (model or "").partition("/")
    only = f" AND provider = {quoted(provider)} AND model = {quoted(name)}" if model else ""
    for row in streamed(store, f"SELECT {chosen} FROM usage WHERE adjusts = '' AND {window}{only}"):  # noqa: S608
        event: dict[str, Any] = {}
        for column, value in zip(columns, row, strict=True):
            outer, _, inner = (column.field or "").partition(".")
            value = None if value == "" and outer not in NEVER_NULL else value
            if inner:
                event.setdefault(outer, {})[inner] = value
            else:
                event[outer] = value
        usage = cast(LlmUsage, event)
        count, difference, *by_class = adjusted.get(usage["attempt_id"], [0, None, *[None] * len(TOKEN_CLASSES)])
        own = cast(dict[str, int | None], usage["costs"])
        costs = {name: _sum(own[name], by_class[index]) for index, name in enumerate(TOKEN_CLASSES)}
        yield Charged(usage, cast(Any, costs), _sum(usage["cost_nano_usd"], difference), count)


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


def _show(sums: dict[str, Sum], dry: bool) -> None:
    table = Table(title="Would change" if dry else "Adjusted", title_justify="left", title_style="bold")
    for name in ("model", "calls", "adjusted", "before", "after", "difference", "left as they are"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, found in sorted(sums.items()):
        table.add_row(
            plain(name), f"{found.calls:,}", f"{found.adjusted:,}", money(found.before), money(found.after),
            money(found.after - found.before), f"{found.left:,}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    if any(found.left for found in sums.values()):
        console.print("Left as they are: calls whose tokens are not known, or that the price does not cover.")
    if not any(found.adjusted for found in sums.values()):
        console.print("Nothing to adjust: the calls stand at this price.")
