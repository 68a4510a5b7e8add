"""The registry in a worker's memory: the last state that could be used, read again now and then and whenever told to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.database import reading
from config.registry import load
from config.registry_entries import RegistryInvalid
from config.settings import PROVIDER_NAMES, Settings, SettingsError
from config.upgrade import refuse_other_schema
from core.registry import Registry
from core.registry_rules import check

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 5.0


def read_registry(engine: Engine, settings: Settings) -> Registry:
    """The registry of a database, of one moment; `RegistryInvalid` when it cannot be used, also for its tables' sake."""
    with reading(engine) as db:
        try:
            refuse_other_schema(db)
        except SettingsError as other:
            raise RegistryInvalid([str(other)]) from None
        return load(db, settings, time.time_ns() // 1_000)


class Snapshot:
    """An immutable registry that stays while the database is away and while what stands there cannot be used.

    `read` gets the registry, on a thread of its own; `refused` hears the problems of one that could not be used, once.
    """

    def __init__(
        self,
        read: Callable[[], Registry],
        seconds: float,
        refused: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """`seconds` pass between two readings."""
        self._read = read
        self._seconds = seconds
        self._refused = refused
        self._registry: Registry | None = None
        self._read_at = time.monotonic()
        self._told: tuple[str, ...] = ()
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def registry(self) -> Registry:
        """The registry to work by; RuntimeError before `start` has returned."""
        if self._registry is None:
            raise RuntimeError("The registry was not read yet; await start() first.")
        return self._registry

    def age(self) -> float:
        """Seconds since the registry was last read and could be used."""
        return time.monotonic() - self._read_at

    async def start(self) -> None:
        """Return when there is a registry, and read it again from then on; waits while the database is away."""
        pause = 0.05
        while not await self.refresh_now():
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        self._task = asyncio.create_task(self._keep_fresh(), name="registry")

    async def refresh_now(self) -> bool:
        """Read the registry; whether it could be read and used. What was committed before the call is seen."""
        async with self._one_at_a_time:
            began = time.monotonic()
            try:
                found = await asyncio.to_thread(self._read)
            except RegistryInvalid as why:
                if why.problems != self._told:
                    self._told = why.problems
                    LOG.error("The registry cannot be used: %s", why)
                    self._refused(why.problems)
                return False
            except SQLAlchemyError as why:
                LOG.warning(
                    "The registry's database failed (%s); %s.", type(why).__name__,
                    "waiting for it" if self._registry is None else f"using what was read {self.age():.0f} s ago",
                )  # fmt: skip
                return False
            if self._registry is None or found.version != self._registry.version:
                for warning in check(found, PROVIDER_NAMES).warnings:
                    LOG.warning("%s", warning)
            self._registry, self._read_at, self._told = found, began, ()
            return True

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.refresh_now()
            except Exception:
                LOG.exception("Reading the registry failed; using what was read %.0f s ago.", self.age())
