"""The slots of a lane: never more than there are, and a number that changes is followed."""

from __future__ import annotations

import asyncio

from agents.slots import Slots


class Lane:
    """Work that takes a slot each and goes on until it is told to end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.at_work: list[asyncio.Event] = []
        self._slots = Slots(lambda: self.most)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, count: int) -> None:
        """Let so many more want a slot."""
        self._tasks += [asyncio.create_task(self._work()) for _ in range(count)]
        await settled()

    async def end(self, count: int) -> None:
        """Let the oldest end."""
        for done in self.at_work[:count]:
            done.set()
        await settled()

    async def give_up(self, count: int) -> None:
        """Let the newest give up, waiting or at work."""
        for task in self._tasks[-count:]:
            task.cancel()
        await settled()

    async def _work(self) -> None:
        async with self._slots:
            self.at_work.append(done := asyncio.Event())
            try:
                await done.wait()
            finally:
                self.at_work.remove(done)


async def settled() -> None:
    """Return when every task has come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_number_that_rises_lets_more_in() -> None:
    """Those that wait get the new slots with the next one that comes, and no more than there are."""

    async def run() -> None:
        lane = Lane(2)
        await lane.begin(6)
        assert len(lane.at_work) == 2
        lane.most = 5
        await lane.begin(1)
        assert len(lane.at_work) == 5
        await lane.end(5)
        assert len(lane.at_work) == 2
        await lane.begin(9)
        assert len(lane.at_work) == 5

    asyncio.run(run())


def test_a_number_that_falls_is_kept_by_all_who_come_after() -> None:
    """What is at work stays; nobody comes until there are fewer than the new number, idle slots are gone too."""

    async def run() -> None:
        lane = Lane(4)
        await lane.begin(4)
        lane.most = 2
        await lane.begin(3)
        assert len(lane.at_work) == 4
        await lane.end(2)
        assert len(lane.at_work) == 2
        await lane.end(1)
        assert len(lane.at_work) == 2
        await lane.end(2)
        await lane.end(2)
        assert lane.at_work == []
        lane.most = 1
        await lane.begin(3)
        assert len(lane.at_work) == 1

    asyncio.run(run())


def test_who_gives_up_leaves_no_slot_taken() -> None:
    """After waiting and working tasks were cancelled, and the number went down and up, there are as many slots as it says."""

    async def run() -> None:
        lane = Lane(3)
        await lane.begin(6)
        await lane.give_up(2)
        lane.most = 1
        await lane.give_up(5)
        lane.most = 3
        await lane.end(3)
        await lane.begin(8)
        assert len(lane.at_work) == 3

    asyncio.run(run())
