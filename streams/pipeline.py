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

from agents.admit import Admit, AdmitRules
from agents.chunks import Send
from agents.complete import Complete, CompleteRules
from agents.ingress import Ingress
from agents.meter import Meter
from agents.outgoing import ENVELOPE_BYTES
from agents.planning import Planner
from agents.providers.following import Following
from agents.replies import Replies
from config.prices import Prices
from config.registry import provider_settings
from config.tasks import Tasks
from core.registry import Provider, Registry, following
from core.retry import RetryRule
from core.topics import REQUESTS, USAGE, Topic, calls, requests_of
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


def admit(tools: Tools, _: Send) -> Handler:
    s = tools.settings
    rules = AdmitRules(
        s.max_request_bytes, tuple(s.reply_topics), s.reserve_seconds, refuse_unknown=s.unknown_accounts == "refuse",
        wait_seconds=s.limit_wait_seconds, most_waiting=s.lane_in_flight // 2,
    )  # fmt: skip
    planner = Planner(
        tools.registry, tools.standings.current, s.models, s.default_max_output_tokens, tools.metrics.routing.chosen,
        s.default_price, tools.keyring.has_own,
    )  # fmt: skip
    partitions = tools.reply_topics.partitions
    files = Tasks.load(s)
    tasks = following(tools.registry, lambda registry: files.with_stored(registry.tasks))
    stage = Admit(
        tools.codec, tools.ledgers, tasks, planner, rules, partitions, tools.clock, tools.callers,
        tools.metrics.quota.violated, tools.metrics.quota.unchecked, tools.metrics.routing.cached, tools.cancellations,
    )  # fmt: skip
    tools.metrics.quota.add_admission(lambda: stage.waiting)
    return stage


def complete(name: str, tools: Tools, send: Send) -> Handler:
    s = tools.settings
    served = _served(name, tools.registry)

    def most() -> int:
        return served().concurrency or s.lane_concurrency

    retry = RetryRule(s.max_attempts, s.backoff_base_seconds, s.backoff_max_seconds)
    rules = CompleteRules(most, s.call_timeout_seconds, retry, s.max_record_bytes - ENVELOPE_BYTES)
    called = Following(following(served, lambda found: provider_settings(found, s)))
    tools.at_exit.push_async_callback(called.close)
    prices = following(tools.registry, partial(Prices, default=s.default_price))
    stage = Complete(
        tools.codec, tools.ledgers, name, called, rules, prices, tools.keyring, tools.signals, tools.clock,
        tools.owner, tools.metrics.calls.ended, send, tools.cancellations,
        tools.metrics.quota.violated,
    )  # fmt: skip
    tools.metrics.quota.add_refusals()
    tools.metrics.add_lane(name, most, lambda: stage.slots_in_use)
    return stage


def _served(name: str, registry: Callable[[], Registry]) -> Callable[[], Provider]:
    """The provider of this name as it is now, and as it was last while it is not registered."""
    last = registry().providers[name]

    def now() -> Provider:
        nonlocal last
        last = registry().providers.get(name, last)
        return last

    return now


def meter(tools: Tools, _: Send) -> Handler:
    return Meter(tools.codec, tools.ledgers)


ADMIT = Stage("millstream-admit", REQUESTS, admit)
METER = Stage("millstream-meter", USAGE, meter)


def ingress(tenants: Sequence[str]) -> Stage:
    """The ingress stage for these tenants."""
    first, *beside = map(requests_of, tenants)

    def handler(tools: Tools, _: Send) -> Handler:
        prefix = tools.settings.topic_prefix
        replies = Replies(tools.settings.reply_topics, tools.reply_topics.partitions)
        topics = {requests_of(tenant).on(prefix): tenant for tenant in tenants}
        return Ingress(tools.codec, topics, replies, tools.clock)

    return Stage("millstream-ingress", first, handler, tuple(beside))


def lane(name: str) -> Stage:
    """The complete stage of the provider called `name`."""
    return Stage(f"millstream-complete-{name}", calls(name), partial(complete, name))
