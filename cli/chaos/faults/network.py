"""Faults of the network between a process and the broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cli.chaos.faults.entry import fault
from cli.chaos.world import World


def _proxied(world: World) -> Sequence[str]:
    return tuple(world.proxies)


@fault("network-cut", "A process's connections to the broker are reset and refused.", _proxied, (1, 10))
def _network_cut(world: World, target: str) -> Iterator[None]:
    world.proxies[target].cut()
    try:
        yield
    finally:
        world.proxies[target].mend()


@fault("network-hold", "Nothing passes between a process and the broker, and neither is told.", _proxied, (1, 10))
def _network_hold(world: World, target: str) -> Iterator[None]:
    world.proxies[target].hold()
    try:
        yield
    finally:
        world.proxies[target].mend()
