"""The pipeline: which stage reads which topic, and what stands behind it.

llm.requests.<tenant>.v1, where tenants have one ─▶ ingress ─▶ llm.requests.v1
llm.requests.v1 ─▶ admit ─▶ llm.calls.<provider>.v1 ─▶ complete ─▶ llm.responses.v1
                     └────────▶ llm.responses.v1            └────▶ llm.usage.v1 ─▶ meter ─▶ ledger
what a stage cannot read ─▶ llm.dead-letters.v1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from agents.chunks import Send
from core.topics import REQUESTS, USAGE, Topic, calls, requests_of
from streams import handlers
from streams.lane import Handler
from streams.tools import Tools


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its consumer group, the topic it reads, and how its handler is made, with what publishes beside outcomes.

    `beside` are further topics that it reads.
    """

    group: str
    reads: Topic
    handler: Callable[[Tools, Send], Handler]
    beside: tuple[Topic, ...] = ()

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Every topic it reads."""
        return self.reads, *self.beside


def ingress(tenants: Sequence[str]) -> Stage:
    """The ingress stage for these tenants."""
    first, *beside = map(requests_of, tenants)
    return Stage("millstream-ingress", first, partial(handlers.ingress, tenants), tuple(beside))


ADMIT = Stage("millstream-admit", REQUESTS, handlers.admit)


def lane(name: str) -> Stage:
    """The complete stage of the provider called `name`."""
    return Stage(f"millstream-complete-{name}", calls(name), partial(handlers.complete, name))


METER = Stage("millstream-meter", USAGE, handlers.meter)
