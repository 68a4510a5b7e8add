"""The topics: what each one carries, how long, and its name on the broker. Nothing else knows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its logical name; `record` is the Avro record type of its values, `keep_ms` its retention."""

    name: str
    record: str
    keep_ms: int

    def on(self, prefix: str) -> str:
        """The topic's name on the broker, with the company's prefix in front."""
        return prefix + self.name


REQUESTS = Topic("llm.requests.v1", "LlmRequest", 7 * DAY_MS)
RESPONSES = Topic("llm.responses.v1", "LlmResponse", 7 * DAY_MS)
USAGE = Topic("llm.usage.v1", "LlmUsage", 30 * DAY_MS)
CHUNKS = Topic("llm.chunks.v1", "LlmChunk", DAY_MS)
CONTROL = Topic("llm.control.v1", "LlmControl", DAY_MS)
ALERTS = Topic("llm.alerts.v1", "LlmAlert", 30 * DAY_MS)
DEAD_LETTERS = Topic("llm.dead-letters.v1", "DeadLetter", 30 * DAY_MS)


def calls(provider: str) -> Topic:
    """The lane of one provider."""
    return Topic(f"llm.calls.{provider}.v1", "LlmCall", DAY_MS)


def requests_of(tenant: str) -> Topic:
    """The request topic of one tenant, for brokers that say who may write it."""
    return Topic(f"llm.requests.{tenant}.v1", REQUESTS.record, REQUESTS.keep_ms)


def all_topics(providers: tuple[str, ...], tenants: Iterable[str] = ()) -> tuple[Topic, ...]:
    """Every topic of a deployment that serves these providers; `tenants` have a request topic of their own."""
    return (
        REQUESTS,
        *(requests_of(tenant) for tenant in tenants),
        *(calls(provider) for provider in providers),
        RESPONSES,
        CHUNKS,
        USAGE,
        CONTROL,
        ALERTS,
        DEAD_LETTERS,
    )
