"""How the handler of each stage is made of what its process shares and of the settings; `send` publishes beside its outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from core.topics import requests_of
from streams.lane import Handler
from streams.tools import Tools


def ingress(tenants: Sequence[str], tools: Tools, _: Send) -> Handler:
    """The handler of the request topics of these tenants."""
    prefix = tools.settings.topic_prefix
    replies = Replies(tools.settings.reply_topics, tools.reply_topics.partitions)
    topics = {requests_of(tenant).on(prefix): tenant for tenant in tenants}
    return Ingress(tools.codec, topics, replies, tools.clock)


def admit(tools: Tools, _: Send) -> Handler:
    """The handler of `llm.requests.v1`."""
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
    """The handler of the calls to the provider called `name`."""
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
    """The handler of `llm.usage.v1`."""
    return Meter(tools.codec, tools.ledgers)
