"""How many calls a lane has under way at once, by a number that may change while they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal


class Slots(asyncio.Semaphore):
    """A semaphore of `most` slots; a change holds for whoever comes next, and takes no slot away from a call under way."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._slots = most()
        super().__init__(self._slots)

    async def acquire(self) -> Literal[True]:
        """Wait for a slot and take it."""
        most = self._most()
        while self._slots < most:
            self._slots += 1
            super().release()
        while self._slots > most and not self.locked():
            self._slots -= 1
            await super().acquire()
        return await super().acquire()

    def release(self) -> None:
        """Give a slot back, or away where there are too many now."""
        if self._slots > self._most():
            self._slots -= 1
        else:
            super().release()
