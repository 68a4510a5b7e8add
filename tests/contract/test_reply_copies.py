"""Copies of answers to records that are refused, in the admit stage itself: a service that waits for its reply has one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Planner
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.outcome import Emit, Outcome, Record, Reject
from core.topics import REQUESTS, RESPONSES
from schemas.codec import Codec
from tests.examples import NOON, request

CODEC, SETTINGS = Codec(), Settings()
CORRELATION = ("kafka_correlationId", bytes(range(16)))
ID = "0190163d-8694-739b-aea5-966c26f8ad91"


def deal(engine: Engine, *records: Record) -> list[Outcome]:
    """What the stage makes of these records, where replies may go to `answers` and to each tenant's own topic."""

    async def three(_: str) -> int:
        return 3

    async def run() -> list[Outcome]:
        transactions = Transactions(engine, most=10, linger=0.001)
        planner = Planner(lambda: from_environment(SETTINGS), dict, SETTINGS.models, 4_096)
        rules = AdmitRules(SETTINGS.max_request_bytes, ("answers", "of.{tenant}"))
        stage = Admit(CODEC, Ledgers(transactions), lambda: Tasks.load(SETTINGS), planner, rules, three, lambda: NOON)
        found = [await stage(record) for record in records]
        await transactions.close()
        return found

    return asyncio.run(run())


def record(value: bytes, topic: str = "answers", offset: int = 7) -> Record:
    """A record under one id that asks for its reply as Spring's `ReplyingKafkaTemplate` does."""
    return Record(
        REQUESTS.name, 0, offset, ID.encode(), value, [("kafka_replyTopic", topic.encode()), CORRELATION], NOON
    )


def told(outcome: Outcome, code: str) -> list[str]:
    """The topics that an answer of this code goes to; the copy is the same event, with the correlation id."""
    assert isinstance(outcome, Emit | Reject)
    first, *copies = outcome.events
    answer = CODEC.decode("LlmResponse", first.value)
    assert (first.topic, answer["error"]["code"], answer["request_id"]) == (RESPONSES.name, code, ID)
    for copy in copies:
        assert copy == replace(first, topic=copy.topic, headers=[*first.headers, CORRELATION], callers=True)
    return [copy.topic for copy in copies]


def test_bytes_that_are_no_request_are_answered_where_their_headers_say(engine: Engine) -> None:
    """Also delivered again, and after other bytes under the same id; the dead letter stands beside."""
    first, again, other = deal(engine, record(b"no request"), record(b"no request"), record(b"nor this", offset=8))
    assert isinstance(first, Reject)
    assert first == again
    assert told(first, "caller_undecodable") == told(other, "caller_undecodable") == ["answers"]


def test_a_reused_id_is_answered_where_the_record_says(engine: Engine) -> None:
    """By its headers or by its own field."""
    one = request(request_id=ID)
    _, by_headers, by_field = deal(
        engine,
        record(CODEC.encode("LlmRequest", one)),
        record(CODEC.encode("LlmRequest", {**one, "user": "bo"})),
        record(CODEC.encode("LlmRequest", {**one, "user": "bo", "reply_topic": "of.acme"}), "of.globex"),
    )
    assert told(by_headers, "caller_request_id_reused") == ["answers"]
    assert told(by_field, "caller_request_id_reused") == ["of.acme"]


@pytest.mark.parametrize("topic", ["elsewhere", "of.acme", "of.", "of.{tenant}", "of.default"])
def test_only_topics_that_anybody_may_name_are_answered_on(engine: Engine, topic: str) -> None:
    """Whose bytes they are is not known, so a topic of a tenant's own gets no copy, and neither does one that is not allowed."""
    [outcome] = deal(engine, record(b"no request", topic))
    assert told(outcome, "caller_undecodable") == []


def test_a_partition_that_is_none_keeps_nobody_from_the_answer(engine: Engine) -> None:
    """It is on the response topic alone, as where no reply is asked for."""
    odd = record(b"no request")
    odd.headers.append(("kafka_replyPartition", b"3"))
    [outcome] = deal(engine, odd)
    assert told(outcome, "caller_undecodable") == []
