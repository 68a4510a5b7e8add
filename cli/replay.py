"""`millstream replay dead-letters`: send the records behind the dead letters again, each to where it came from, once."""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.amounts import moment, plain, shortened
from cli.errors import CommandError
from cli.reconcile.watermark import Log
from cli.report.window import parse_since
from cli.stackfile import stack_settings
from config.kafka import librdkafka
from config.registry import lanes
from config.schema_registry import open_codec
from config.settings import Settings
from core.errors import CODES
from core.replay import NOT_CARRIED, Fate, Rejected, fate_of, headers_again, replay_of
from core.topics import DEAD_LETTERS, all_topics
from schemas.cloudevents import CE_ID
from schemas.codec import Codec, Event, Undecodable
from sinks.dead_letters import STAGE as SINK_STAGE
from sinks.partition import headers_of

DELIVERY_SECONDS = 30
LONGEST_KEY = 40
PIPE_COLUMNS = 160

WORDS: dict[Fate, str] = {
    "send": "sent again",
    "sent before": "sent before",
    "too many cycles": "left: too many cycles",
    "not carried": "left: too large for its letter",
    "sink's": "left: for `millstream rebuild`",
    "log is gone": "left: too old",
}


@dataclass(slots=True)
class Letter:
    """A dead letter without its value: where it stands in its own topic, what people see of it, and what becomes of it."""

    partition: int
    offset: int
    failed_at: int
    reason: str
    message: str
    key: bytes | None
    record: Rejected
    fate: Fate = "send"


def describe(parser: argparse.ArgumentParser) -> None:
    """Which dead letters, and how often a record may come back."""
    parser.add_argument("what", choices=["dead-letters"])
    parser.add_argument("--reason", metavar="CODE", choices=CODES, help="only those with this error code")
    parser.add_argument("--since", metavar="TIME", help="only those rejected since: 2h, 7d, or a UTC date or time")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent and publish nothing")
    parser.add_argument("--limit", type=_number, metavar="N", help="send at most N records, the oldest letters first")
    parser.add_argument(
        "--max-cycles", type=_number, default=3, metavar="N",
        help="leave a record alone that was sent again N times (default: %(default)s)",
    )  # fmt: skip


def _number(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def run(arguments: argparse.Namespace) -> int:
    """Send the records again and show every letter that is not dealt with."""
    since = parse_since(arguments.since, time.time_ns() // 1_000).since if arguments.since else 0
    settings = stack_settings()
    try:
        letters = replay(
            settings, arguments.reason, since, arguments.max_cycles, arguments.limit, publish=not arguments.dry_run
        )
    except KafkaException as why:
        raise CommandError(f"Kafka at {settings.kafka_bootstrap} failed ({why.args[0].str()}); run it again.") from None
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    _show(letters, arguments.dry_run, console)
    return 0


def replay(
    settings: Settings, reason: str | None, since: int, max_cycles: int, limit: int | None, *, publish: bool
) -> list[Letter]:
    """Send again what these letters are about; the letters, oldest first, each with its fate.

    Those beyond `limit` are left out. What was sent before is found in the topics themselves, so a second run, also after one that
    broke off, sends nothing twice; two runs at the same time can. Raises `CommandError` or KafkaException.
    """
    codec, log = open_codec(settings), Log(settings)
    try:
        low, end = log.bounds(DEAD_LETTERS)
        found: dict[str, Letter] = {}
        for letter, _ in _letters(log, codec, low, end):
            known = found.get(letter.record.place)
            # Letters about one record, published twice or by two stages, stand for it once, a stage's before the sink's.
            if (
                letter.failed_at >= since
                and reason in (None, letter.reason)
                and (known is None or known.record.stage == SINK_STAGE)
            ):
                found[letter.record.place] = letter
        letters = sorted(found.values(), key=lambda letter: (letter.failed_at, letter.record.place))
        _decide(log, settings, letters, max_cycles)
        if limit is not None:
            beyond = {id(letter) for letter in [letter for letter in letters if letter.fate == "send"][limit:]}
            letters = [letter for letter in letters if id(letter) not in beyond]
        if publish:
            _publish(settings, log, codec, [letter for letter in letters if letter.fate == "send"])
    finally:
        log.close()
    return letters


def _letters(log: Log, codec: Codec, begin: dict[int, int], end: dict[int, int]) -> Iterator[tuple[Letter, Event]]:
    for message in log.messages(DEAD_LETTERS, begin, end):
        try:
            event = codec.decode_blocking(DEAD_LETTERS.record, message.value())
        except Undecodable:
            continue
        record = Rejected(
            event["topic"], event["partition"], event["offset"], event["stage"], event["times_seen"],
            carried=event["value"] is not None or not event["message"].endswith(NOT_CARRIED),
            known_to_sink=event["stage"] == SINK_STAGE and any(h["key"] == CE_ID for h in event["headers"]),
        )  # fmt: skip
        place = message.partition(), message.offset()
        yield Letter(*place, event["failed_at"], event["reason"], event["message"], event["key"], record), event


def _decide(log: Log, settings: Settings, letters: list[Letter], max_cycles: int) -> None:
    """Give every letter its fate, by what stands in its record's partition behind the record."""
    of_topic = defaultdict(list)
    for letter in letters:
        of_topic[letter.record.topic].append(letter)
    topics = {topic.on(settings.topic_prefix): topic for topic in all_topics(lanes(settings), settings.request_tenants)}
    for name, those in of_topic.items():
        low, end = log.bounds(topics[name]) if name in topics else ({}, {})
        begin: dict[int, int] = {}
        for number, offset in ((letter.record.partition, letter.record.offset) for letter in those):
            if low.get(number, offset + 2) <= offset + 1:
                begin[number] = min(begin.get(number, offset + 1), offset + 1)
        again = set()
        if begin:
            for message in log.messages(topics[name], begin, end):
                again.add(replay_of(headers_of(message)))
        for letter in those:
            number = letter.record.partition
            bounds = (low[number], end[number]) if number in end else None
            letter.fate = fate_of(letter.record, max_cycles, bounds, letter.record.place.encode() in again)


def _publish(settings: Settings, log: Log, codec: Codec, letters: list[Letter]) -> None:
    """Send the records and return when the broker has them all; `CommandError` says how many it has."""
    producer = Producer(
        {
            **librdkafka(settings), "enable.idempotence": True, "linger.ms": 20,
            # A value that was compressed when it came may only fit its topic when it is compressed again.
            "compression.type": "gzip", "message.max.bytes": 100_000_000,
            "delivery.timeout.ms": DELIVERY_SECONDS * 1_000,
        },
        logger=kafka.QUIET,
    )  # fmt: skip
    taken, refused = Counter[bool](), list[str]()

    def delivered(error: Any, _: Any) -> None:
        taken[error is None] += 1
        if error is not None:
            refused.append(error.str())

    places = {(letter.partition, letter.offset) for letter in letters}
    begin: dict[int, int] = {}
    end: dict[int, int] = {}
    for number, offset in places:
        begin[number] = min(begin.get(number, offset), offset)
        end[number] = max(end.get(number, 0), offset + 1)
    for letter, event in _letters(log, codec, begin, end):
        if (letter.partition, letter.offset) in places:
            _send(producer, letter.record, event, delivered)
    producer.flush(DELIVERY_SECONDS + 5)
    if taken[True] < len(letters):
        raise CommandError(
            f"The broker took {taken[True]:,} of {len(letters):,} records ({refused[0] if refused else 'no answer'}); "
            "run the same again, which sends only the others."
        )


def _send(producer: Producer, record: Rejected, event: Event, delivered: Any) -> None:
    headers = headers_again([(header["key"], header["value"]) for header in event["headers"]], record)
    while True:
        try:
            # The partition too is the original's: that is where the sink and the next replay look for a repetition.
            producer.produce(
                record.topic, event["value"], event["key"], record.partition, headers=headers, on_delivery=delivered
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.5)


def _show(letters: list[Letter], dry: bool, console: Console) -> None:
    open_ = [letter for letter in letters if letter.fate != "sent before"]
    if open_:
        console.print(_table(open_, dry))
    counts = Counter(letter.fate for letter in letters)
    left = len(open_) - counts["send"]
    sent = f"{counts['send']:,} {'to be sent' if dry else 'sent'} again"
    console.print(f"{len(letters):,} dead letters: {sent}, {counts['sent before']:,} sent before, {left:,} left.")


def _table(letters: list[Letter], dry: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("when", "stage", "reason", "record", "key", "sentence", "cycle", ""):
        table.add_column(
            name, justify="right" if name == "cycle" else "left", overflow="fold", no_wrap=name in ("when", "key")
        )
    for letter in letters:
        what = "to be sent again" if dry and letter.fate == "send" else WORDS[letter.fate]
        words = (
            moment(letter.failed_at, seconds=True), letter.record.stage, letter.reason, letter.record.place,
            _key(letter.key), letter.message, str(letter.record.cycles), what,
        )  # fmt: skip
        table.add_row(*(Text(plain(word)) for word in words))
    return table


def _key(key: bytes | None) -> str:
    if key is None:
        return "none"
    try:
        return shortened(key.decode(), LONGEST_KEY)
    except UnicodeDecodeError:
        return shortened(f"0x{key.hex()}", LONGEST_KEY)
