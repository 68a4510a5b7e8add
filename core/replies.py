"""Where a copy of the answer goes that a request asks for, by its own field or by the headers of Spring for Apache Kafka.

https://docs.spring.io/spring-kafka/reference/kafka/sending-messages.html#replying-template
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape

from core.errors import error
from core.outcome import Headers
from schemas.events import Error, ReplyTo

REPLY_TOPIC, REPLY_PARTITION, CORRELATION_ID = "kafka_replyTopic", "kafka_replyPartition", "kafka_correlationId"


@dataclass(frozen=True, slots=True)
class NoReplyTo:
    """Why no copy can go where the request asks for one."""

    error: Error


def reply_to(named: str | None, headers: Headers) -> ReplyTo | NoReplyTo | None:
    """Where the copy goes; None when none is asked for. `named` is the request's own field and wins over the headers.

    A reply partition is four bytes, the highest first, as Spring writes it.
    """
    found = {name: value for name, value in headers if value is not None}
    topic = named
    if topic is None and REPLY_TOPIC in found:
        topic = found[REPLY_TOPIC].decode("utf-8", "replace")
    if topic is None:
        return None
    partition = found.get(REPLY_PARTITION)
    if partition is not None and len(partition) != 4:
        what = f"Header {REPLY_PARTITION} has {len(partition)} bytes; it must be a number of four bytes."
        return NoReplyTo(error("caller_invalid_request", what))
    number = None if partition is None else int.from_bytes(partition, "big", signed=True)
    return ReplyTo(topic=topic, partition=number, correlation_id=found.get(CORRELATION_ID))


def allowed(topic: str, patterns: Sequence[str]) -> bool:
    """Whether requests may name this topic."""
    return any(fnmatchcase(topic, pattern) for pattern in patterns)


def own_patterns(patterns: Sequence[str], tenant: str | None) -> tuple[str, ...]:
    """The patterns with this tenant's name for `{tenant}`, in which nothing stands for other characters; None for those without it."""
    if tenant is None:
        return tuple(pattern for pattern in patterns if "{tenant}" not in pattern)
    return tuple(pattern.replace("{tenant}", escape(tenant)) for pattern in patterns)


def checked(to: ReplyTo, patterns: Sequence[str], partitions: int | None) -> ReplyTo | NoReplyTo:
    """`to`, or why no answer can go there; `partitions` is None for a topic that does not exist."""
    topic, number = to["topic"], to["partition"]
    if not allowed(topic, patterns):
        allow = f"the allowed ones are {', '.join(patterns)}" if patterns else "none is allowed"
        problem = f"Reply topic {topic!r} is not allowed here; {allow} (setting MILLSTREAM_REPLY_TOPICS)."
    elif partitions is None:
        problem = f"Reply topic {topic!r} does not exist; create it first."
    elif number is not None and not 0 <= number < partitions:
        problem = f"Reply partition {number} does not exist; topic {topic!r} has {partitions}, counted from 0."
    else:
        return to
    return NoReplyTo(error("caller_invalid_request", problem))
