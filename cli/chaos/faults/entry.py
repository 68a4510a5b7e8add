"""What a fault is, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cli.chaos.schedule import Kind
from cli.chaos.world import World

Strike = Callable[[World, str], Iterator[None]]
Targets = Callable[[World], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: what it does in one sentence, what it strikes in a world, how long it may last (seconds), and how it is done.

    `lacking` says why it cannot be done in a world, None where it can.
    """

    name: str
    what: str
    targets: Targets
    seconds: tuple[float, float]
    strike: Strike
    lacking: Callable[[World], str | None]

    def kind(self, world: World) -> Kind:
        """What the schedule needs of it."""
        return Kind(self.name, tuple(self.targets(world)), *self.seconds)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, what: str, targets: Targets, seconds: tuple[float, float],
    lacking: Callable[[World], str | None] = lambda _: None,
) -> Callable[[Strike], Strike]:  # fmt: skip
    """Enter a fault."""

    def enter(strike: Strike) -> Strike:
        FAULTS[name] = Fault(name, what, targets, seconds, strike, lacking)
        return strike

    return enter


def only(target: str) -> Targets:
    """The one target."""
    return lambda _: (target,)
