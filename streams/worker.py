"""Run stages in one process: start, keep the lease, watch, and on SIGTERM drain within the limit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
import uuid
from collections.abc import Sequence
from typing import Any

from agents.cancel import Cancellations
from agents.outgoing import Encoder
from agents.signals import Signals
from agents.standings import Standings
from config import answers, upkeep
from config.credentials import stored_credentials
from config.database import open_database
from config.key_encryption import encryption_keys
from config.keyring import Keyring
from config.schema_registry import open_codec
from config.settings import Settings
from config.snapshot import Snapshot, read_registry
from config.transactions import Transactions
from core.alerts import registry_refused
from core.outcome import Outcome, Record
from core.registry import Registry
from streams.app import build_app
from streams.control import Control
from streams.lane import Lane
from streams.metrics import Metrics
from streams.metrics_server import serve
from streams.pipeline import Stage, Tools, checker
from streams.publish import Publisher
from streams.reply_topics import ReplyTopics

LOG = logging.getLogger("millstream.worker")
WATCH_SECONDS = 10.0
PURGE_SECONDS = 3_600.0
STOP_SECONDS = 15.0


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class _Running:
    """One stage at work: its Faust app and its lane."""

    def __init__(self, stage: Stage, tools: Tools, stop: Any) -> None:
        self.name = stage.group.removeprefix("millstream-")
        prefix = tools.settings.topic_prefix
        self.app = build_app(prefix + stage.group, tools.settings)
        publisher = self.publisher = Publisher(self.app, prefix, tools.reply_topics)
        largest = tools.settings.max_record_bytes
        encoder = Encoder(tools.codec, self.name.split("-")[0], tools.clock, largest)

        async def publish(record: Record, outcome: Outcome) -> None:
            await publisher.publish(encoder.events_of(record, outcome))
            tools.metrics.record_done(self.name, outcome)

        self.lane = Lane(
            self.name, stage.handler(tools, publisher.publish), publish, stop, tools.settings.lane_in_flight
        )
        topic = self.app.topic(
            stage.reads.on(prefix), key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        self.app.agent(topic, name=self.name)(self.lane.consume)
        self.app.on_partitions_assigned.connect(self._assigned)
        tools.metrics.add_stage(
            self.name,
            lambda: self.app.consumer.tracker.in_flight if self.app.started else 0,
            lambda: self.app.consumer.tracker.oldest_age if self.app.started else 0.0,
        )

    def reads_partitions(self) -> bool:
        """Whether the group has given partitions to this member."""
        return self.app.started and bool(self.app.consumer.assignment())

    def _assigned(self, app: Any, assigned: set[Any], **_: Any) -> None:
        LOG.info("%s reads %d partitions.", self.name, len(assigned))


class _Lease:
    """This worker's entry in the ledger, which says until when it lives; also the proof that the ledger answers."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._seconds = tools.settings.lease_seconds
        self._renewed = time.monotonic()

    async def renew(self) -> None:
        """State that the worker lives."""
        until = now_us() + int(self._seconds * 1_000_000)
        await self._tools.transactions.call(upkeep.heartbeat, self._tools.owner, until)
        self._renewed = time.monotonic()

    async def keep(self) -> None:
        """Renew it again and again; a failure is tried again, and the lease runs out if it lasts."""
        while True:
            await asyncio.sleep(self._seconds / 4)
            try:
                await self.renew()
            except Exception as error:
                LOG.warning("The lease could not be renewed (%s).", type(error).__name__)

    def run_out(self) -> bool:
        """Whether the ledger has not answered for as long as a lease lasts."""
        return time.monotonic() - self._renewed > self._seconds


async def run_stages(stages: list[Stage], settings: Settings) -> int:
    """Run the stages until SIGTERM or SIGINT; the exit status, 1 when a stage could not go on."""
    stopped = asyncio.Event()
    watch: list[asyncio.Task[None]] = []
    failures: list[str] = []

    def fail(why: str) -> None:
        failures.append(why)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    codec = await asyncio.to_thread(open_codec, settings)
    metrics = Metrics()
    engine = open_database(settings.database_url)
    transactions = Transactions(
        engine,
        settings.ledger_batch_max,
        settings.ledger_linger_seconds,
        metrics.transaction_done,
    )
    owner = str(uuid.uuid4())
    keyring, signals = Keyring(encryption_keys(settings.key_encryption)), Signals(owner, now_us)

    def read() -> Registry:
        registry = read_registry(engine, settings)
        keyring.load(stored_credentials(engine))
        return registry

    running: list[_Running] = []

    def refused(problems: Sequence[str]) -> None:
        alert = Encoder(codec, "worker", now_us).alert(registry_refused(problems, now_us()))
        for one in running[:1]:
            watch.append(asyncio.create_task(one.publisher.publish((alert,))))

    snapshot = Snapshot(read, settings.registry_refresh_seconds, refused)
    standings = Standings(
        transactions, signals, now_us, lambda heard: metrics.routing.standings_heard(heard, signals.states())
    )
    reply_topics, cancellations = ReplyTopics(settings.kafka_bootstrap), Cancellations()
    control = Control(settings, codec, cancellations, snapshot.refresh_now)
    tools = Tools(
        settings, codec, transactions, now_us, owner, metrics, lambda: snapshot.registry, keyring, signals, standings,
        reply_topics, cancellations, contextlib.AsyncExitStack(),
    )  # fmt: skip
    tools.at_exit.push_async_callback(snapshot.close)
    tools.at_exit.push_async_callback(reply_topics.close)
    await snapshot.start()
    metrics.routing.add_registry(snapshot.age)
    running += [_Running(stage, tools, fail) for stage in stages]
    lease = _Lease(tools)
    if settings.metrics_port:
        page = await serve(
            settings.metrics_host, settings.metrics_port, metrics.registry, lambda: _problem(running, lease)
        )
        tools.at_exit.push_async_callback(page.cleanup)
    await lease.renew()
    beside = [lease.keep(), _watch(running, fail), control.run(), standings.run()]
    if any(r.name.startswith("complete") for r in running):
        beside.append(checker(tools, running[0].publisher.publish).run())
    watch += [asyncio.create_task(work) for work in beside]
    if any(r.name == "meter" for r in running):
        watch.append(asyncio.create_task(_purge(tools)))
    await asyncio.gather(*(r.app.start() for r in running))
    _collect_rarely()
    await stopped.wait()
    for why in failures:
        LOG.error("Stopping: %s", why)
    cancelled = sum(await asyncio.gather(*(r.lane.drain(settings.drain_seconds) for r in running)))
    if cancelled:
        LOG.warning("%d records were not finished within %g s; they will be delivered again.", cancelled, settings.drain_seconds)  # fmt: skip
    stopping = asyncio.gather(*(r.app.stop() for r in running), return_exceptions=True)
    _, hung = await asyncio.wait([stopping], timeout=STOP_SECONDS)
    for task in watch:
        task.cancel()
    await asyncio.gather(*watch, return_exceptions=True)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2.0):
            await transactions.call(upkeep.leave, tools.owner)
            await tools.at_exit.aclose()
    if hung:
        # What is left of it may join its groups again when Kafka is back, and take partitions that it never reads.
        LOG.error("The Kafka clients did not stop within %g s; the process ends without them.", STOP_SECONDS)
        logging.shutdown()
        os._exit(1)
    await transactions.close()
    return 1 if failures else 0


def _collect_rarely() -> None:
    """Keep the cycle collector off what was loaded at the start, and make its rounds rare.

    With its usual thresholds it took a fifth of the CPU of a busy `complete` process: docs/performance.md.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _problem(running: list[_Running], lease: _Lease) -> str | None:
    """Why the worker is not ready, None when it is."""
    if lease.run_out():
        return "The ledger's database does not answer; see MILLSTREAM_DATABASE_URL."
    waiting = [one.name for one in running if not one.reads_partitions()]
    if waiting:
        return f"No partitions are assigned to {', '.join(waiting)}."
    return None


async def _purge(tools: Tools) -> None:
    while True:
        await asyncio.sleep(PURGE_SECONDS)
        with contextlib.suppress(Exception):
            await tools.transactions.call(upkeep.purge, now_us(), tools.settings.ledger_keep_days)
            await tools.transactions.call(answers.forget, now_us())


async def _watch(running: list[_Running], fail: Any) -> None:
    """Stop the worker when an app has crashed or can send nothing more, and say how long the oldest record has been at work."""
    said = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        for one in running:
            if one.app.crashed:
                fail(f"{one.name} lost its connection to Kafka ({type(one.app.crash_reason).__name__}).")
            elif one.app.started and one.app.producer.ended:
                fail(f"The Kafka producer of {one.name} has ended; what is not sent is sent after a restart.")
        if time.monotonic() - said >= WATCH_SECONDS:
            said = time.monotonic()
            for one in running:
                tracker = one.app.consumer.tracker
                if tracker.in_flight:
                    LOG.info(
                        "%s: %d in flight, the oldest for %.1f s.", one.name, tracker.in_flight, tracker.oldest_age
                    )
