"""Run stages in one process: start, keep the lease, watch, and on SIGTERM drain within the limit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

from agents.abandoned import AbandonedCalls
from agents.cancel import keep_cancelled
from agents.outgoing import Encoder
from config import answers, energy, spare, upkeep
from config.schema_registry import open_codec
from config.settings import Settings
from config.transactions import Transactions
from core.alerts import registry_refused
from schemas.codec import Codec
from streams.abandoned import abandoned_calls
from streams.control import Control
from streams.health_checks import checker
from streams.lease import Lease
from streams.limit_alerts import limit_alerts
from streams.metrics_server import serve
from streams.pipeline import Stage
from streams.quota_metrics import keep_accounts
from streams.running import Running, watch
from streams.spend_alerts import spend_alerts
from streams.tools import Tools, open_tools

LOG = logging.getLogger("millstream.worker")
PURGE_SECONDS = 3_600.0
EXPIRE_SECONDS = 30.0
CARRY_SECONDS = 2.0
STOP_SECONDS = 15.0


async def run_stages(stages: list[Stage], settings: Settings) -> int:
    """Run the stages until SIGTERM or SIGINT; the exit status, 1 when a stage could not go on."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    worker = _Worker(settings, await asyncio.to_thread(open_codec, settings), stopped)
    await worker.start(stages)
    await stopped.wait()
    return await worker.stop()


class _Worker:
    """The stages of this process and what runs beside them; a stage that cannot go on sets `stopped`."""

    def __init__(self, settings: Settings, codec: Codec, stopped: asyncio.Event) -> None:
        self._settings, self._codec, self._stopped = settings, codec, stopped
        self._failures: list[str] = []
        self._running: list[Running] = []
        self._beside: list[asyncio.Task[None]] = []
        self._tools = open_tools(settings, codec, self._registry_refused)

    async def start(self, stages: Sequence[Stage]) -> None:
        """Return when the app of every stage has started."""
        tools, running = self._tools, self._running
        await tools.snapshot.start()
        tools.metrics.routing.add_registry(tools.snapshot.age)
        running += [Running(stage, tools, self._fail) for stage in stages]
        leases = self._leases = [Lease(tools, one) for one in tools.ledgers.all]
        if port := self._settings.metrics_port:
            page = await serve(
                self._settings.metrics_host, port, tools.metrics.registry, lambda: _problem(running, leases)
            )
            tools.at_exit.push_async_callback(page.cleanup)
        await asyncio.gather(*(lease.renew() for lease in leases))
        self._beside += [asyncio.create_task(duty) for duty in self._duties()]
        await asyncio.gather(*(one.app.start() for one in running))
        _collect_rarely()

    async def stop(self) -> int:
        """Finish what can be finished within the limit, end everything that runs, and return the exit status."""
        for why in self._failures:
            LOG.error("Stopping: %s", why)
        await self._drain()
        hung = await self._stop_apps()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await asyncio.gather(*(lease.end() for lease in self._leases), return_exceptions=True)
                await self._tools.at_exit.aclose()
        if hung:
            # What is left of it may join its groups again when Kafka is back, and take partitions that it never reads.
            LOG.error("The Kafka clients did not stop within %g s; the process ends without them.", STOP_SECONDS)
            logging.shutdown()
            os._exit(1)
        for ledger in self._tools.ledgers.all:
            await ledger.close()
        return 1 if self._failures else 0

    def _fail(self, why: str) -> None:
        self._failures.append(why)
        self._stopped.set()

    def _registry_refused(self, problems: Sequence[str]) -> None:
        clock = self._tools.clock
        alert = Encoder(self._codec, "worker", clock).alert(registry_refused(problems, clock()))
        for one in self._running[:1]:
            self._beside.append(asyncio.create_task(one.publisher.publish((alert,))))

    def _duties(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs beside the stages of this process."""
        tools = self._tools
        for lease in self._leases:
            yield lease.keep()
        yield watch(self._running, self._fail)
        keep = partial(keep_cancelled, tools.ledgers)
        yield Control(self._settings, self._codec, tools.cancellations, keep, tools.snapshot.refresh_now).run()
        yield tools.standings.run()
        names = [one.name for one in self._running]
        if any(name.startswith("complete") for name in names):
            yield checker(tools, self._running[0].publisher.publish).run()
        if "meter" in names:
            yield keep_accounts(tools)
            yield limit_alerts(tools, self._running[0].publisher.publish).run()
            yield spend_alerts(tools, self._running[0].publisher.publish).run()
            for ledger in tools.ledgers.all:
                yield _expire(tools, ledger, abandoned_calls(tools, ledger, self._running[0].publisher.publish))
            yield _purge(tools)
            if tools.ledgers.spare is not None:
                yield _carry(tools.ledgers.spare, tools)

    async def _drain(self) -> None:
        seconds = self._settings.drain_seconds
        cancelled = sum(await asyncio.gather(*(one.lane.drain(seconds) for one in self._running)))
        if cancelled:
            LOG.warning("%d records were not finished within %g s; they will be delivered again.", cancelled, seconds)

    async def _stop_apps(self) -> bool:
        """Whether an app still hangs when its time is over."""
        stopping = asyncio.gather(*(one.app.stop() for one in self._running), return_exceptions=True)
        _, hung = await asyncio.wait([stopping], timeout=STOP_SECONDS)
        return bool(hung)


def _collect_rarely() -> None:
    """Keep the cycle collector off what was loaded at the start, and make its rounds rare.

    With its usual thresholds it took a fifth of the CPU of a busy `complete` process: docs/performance.md.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def _problem(running: Sequence[Running], leases: Sequence[Lease]) -> str | None:
    """Why the worker is not ready, None when it is."""
    if all(lease.run_out() for lease in leases):
        return "The ledger's database does not answer; see MILLSTREAM_DATABASE_URL."
    waiting = [one.name for one in running if not one.reads_partitions()]
    if waiting:
        return f"No partitions are assigned to {', '.join(waiting)}."
    return None


async def _expire(tools: Tools, ledger: Transactions, calls: AbandonedCalls) -> None:
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        with contextlib.suppress(Exception):
            if lost := await calls.look():
                LOG.warning("%d usage events of calls that nobody works on any more are published.", lost)
        with contextlib.suppress(Exception):
            expired = await ledger.call(upkeep.expire, tools.clock())
            if expired:
                LOG.warning("What was held for %d requests that nobody works on any more is given back.", expired)
            await ledger.call(energy.expire, tools.clock())


async def _purge(tools: Tools) -> None:
    while True:
        await asyncio.sleep(PURGE_SECONDS)
        with contextlib.suppress(Exception):
            # What the spare ledger has of requests, it keeps until that is carried over.
            await tools.transactions.call(upkeep.purge, tools.clock(), tools.settings.ledger_keep_days)
            for ledger in tools.ledgers.all:
                await ledger.call(answers.forget, tools.clock())


async def _carry(away: Transactions, tools: Tools) -> None:
    """Carry what the spare ledger admitted over into the ledger whenever that can be reached."""
    while True:
        await asyncio.sleep(CARRY_SECONDS)
        with contextlib.suppress(Exception):
            while carried := await away.call(spare.through):
                await tools.transactions.call(spare.adopt, carried, tools.clock())
                await tools.transactions.call(spare.answer, carried, tools.clock())
                await away.call(spare.leave, carried)
                LOG.warning("%d requests that were admitted unchecked are carried over into the ledger.", len(carried))
