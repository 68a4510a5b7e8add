"""Faults in what is published."""

from __future__ import annotations

from collections.abc import Iterator

from cli.chaos.faults.entry import fault, only
from cli.chaos.world import World

BURST = 50


@fault("repeat-burst", f"{BURST} of the latest requests are published again at once.", only("traffic"), (0, 0))
def _repeat_burst(world: World, _: str) -> Iterator[None]:
    assert world.traffic is not None
    world.traffic.repeat(BURST)
    yield


@fault("poison-burst", f"{BURST} records that are no requests are published at once.", only("traffic"), (0, 0))
def _poison_burst(world: World, _: str) -> Iterator[None]:
    assert world.traffic is not None
    world.traffic.poison(BURST)
    yield
