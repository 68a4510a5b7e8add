"""Faults of the providers, which the simulator acts out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cli.chaos.faults.entry import fault
from cli.chaos.world import World

PROVIDERS = ("openai", "anthropic", "google")


def _providers(_: World) -> Sequence[str]:
    return PROVIDERS


@fault("provider-down", "A provider answers every call with 503.", _providers, (1, 8))
def _provider_down(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, status=503)


@fault("provider-reset", "A provider resets every connection, after it has counted the call.", _providers, (1, 6))
def _provider_reset(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, fault="reset")


@fault("provider-hang", "A provider takes calls and never answers.", _providers, (1, 6))
def _provider_hang(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, fault="hang")


@fault("provider-slow", "A provider takes 4 s for every answer.", _providers, (2, 10))
def _provider_slow(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, latency_ms=4_000)


@fault("provider-limit", "A provider answers every call with 429 and a Retry-After.", _providers, (1, 8))
def _provider_limit(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, status=429, retry_after_ms=400)


@fault("provider-cut", "A provider cuts every stream off after 15 words.", _providers, (1, 8))
def _provider_cut(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, stream={"cut_at": 15})


@fault("provider-stall", "A provider stops in the middle of every stream for 3 s.", _providers, (1, 6))
def _provider_stall(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, stream={"stall_at": 15, "stall_seconds": 3})


def _behaving(world: World, name: str, **behaviour: object) -> Iterator[None]:
    world.provider(name, behaviour)
    try:
        yield
    finally:
        world.provider(name, {})
