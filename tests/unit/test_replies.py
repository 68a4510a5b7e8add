"""Where a copy of the answer goes, and why it cannot."""

from __future__ import annotations

import uuid

import pytest

from agents.outgoing import Encoder
from core.facts import refusal
from core.outcome import Outgoing, pack, unpack
from core.replies import NoReplyTo, checked, reply_to
from schemas.codec import Codec
from schemas.events import ReplyTo
from tests.examples import NOON, request

SPRING = [("kafka_replyTopic", b"replies"), ("kafka_correlationId", bytes(16)), ("kafka_replyPartition", b"\0\0\0\3")]
TO = ReplyTo(topic="replies", partition=3, correlation_id=bytes(16))


def test_springs_headers_are_read_as_they_are() -> None:
    """Topic, partition and correlation id come from the headers of a `ReplyingKafkaTemplate`; the request's own field wins."""
    assert reply_to(None, SPRING) == TO
    assert reply_to("mine", SPRING) == {**TO, "topic": "mine"}
    assert reply_to(None, SPRING[:1]) == ReplyTo(topic="replies", partition=None, correlation_id=None)
    assert reply_to(None, SPRING[1:]) is None


def test_a_partition_of_another_length_is_refused() -> None:
    """Spring writes four bytes; anything else is no number that could be meant."""
    refused = reply_to(None, [*SPRING[:2], ("kafka_replyPartition", b"3")])
    assert isinstance(refused, NoReplyTo) and "1 bytes" in refused.error["message"]


@pytest.mark.parametrize(
    ("patterns", "partitions", "words"),
    [
        ((), 9, "none is allowed"),
        (("answers.*",), 9, "answers.*"),
        (("rep*",), None, "does not exist"),
        (("rep*",), 3, "has 3"),
    ],
)
def test_a_topic_that_cannot_take_the_answer_is_refused(
    patterns: tuple[str, ...], partitions: int | None, words: str
) -> None:
    """Not allowed, not there, or without the partition: the sentence says which."""
    refused = checked(TO, patterns, partitions)
    assert isinstance(refused, NoReplyTo)
    assert (refused.error["code"], words in refused.error["message"]) == ("caller_invalid_request", True)
    assert checked(TO, ("rep*",), 4) == TO


def test_the_copy_is_the_answer_with_the_callers_correlation_id() -> None:
    """Both have the same bytes and the same event id, and come back from the ledger as they were."""
    encoder = Encoder(Codec(), "admit", lambda: NOON)
    answer = refusal(request(request_id=str(uuid.uuid4())), "expired", None, NOON)
    event, copy = encoder.answer(answer, b"00-", TO)
    assert copy == Outgoing(
        "replies",
        event.key,
        event.value,
        [*event.headers, ("kafka_correlationId", bytes(16))],
        callers=True,
        partition=3,
    )
    assert unpack(pack((event, copy))) == (event, copy)
    assert encoder.answer(answer, b"00-", None) == (event,)
