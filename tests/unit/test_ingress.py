"""Requests from the topics of single tenants: what goes on, as whose, and what is answered there."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from agents.ingress import Ingress
from agents.replies import Replies
from config.settings import Settings, SettingsError, settings_in
from core.outcome import Emit, Outcome, Record, Reject
from core.topics import all_topics, requests_of
from schemas.codec import Codec
from tests.examples import NOON, request

CODEC = Codec()
TOPIC = "corp.llm.requests.acme.v1"


def deal(value: bytes, key: bytes | None = None, headers: Any = (("traceparent", b"x"),)) -> Outcome:
    async def three(_: str) -> int:
        return 3

    stage = Ingress(CODEC, {TOPIC: "acme"}, Replies(("of.{tenant}",), three), lambda: NOON)
    return asyncio.run(stage(Record(TOPIC, 1, 2, key, value, list(headers), NOON)))


def test_a_request_goes_on_as_it_came() -> None:
    """Key, bytes and headers are the same, and a record without an event id gets one by its place, each time the same."""
    asked = request()
    value, key = CODEC.encode("LlmRequest", asked), asked["request_id"].encode()
    first, again = deal(value, key), deal(value, key)
    assert isinstance(first, Emit)
    [event] = first.events
    assert (event.topic, event.key, event.value) == ("llm.requests.v1", key, value)
    assert event.headers[0] == ("traceparent", b"x")
    assert [name for name, _ in event.headers] == ["traceparent", "ce_id"]
    assert first == again
    with_id = deal(value, key, [("ce_id", b"mine")])
    assert isinstance(with_id, Emit)
    assert with_id.events[0].headers == [("ce_id", b"mine")]


def test_a_request_without_a_tenant_is_the_topics() -> None:
    """The tenant is filled in, and the record's key where it has none."""
    asked = request(tenant="default")
    outcome = deal(CODEC.encode("LlmRequest", asked))
    assert isinstance(outcome, Emit)
    [event] = outcome.events
    assert event.key == asked["request_id"].encode()
    assert CODEC.decode("LlmRequest", event.value) == {**asked, "tenant": "acme"}


def test_another_tenants_request_is_refused() -> None:
    """The answer is the topic's tenant's, names both, and nothing goes on."""
    asked = request(tenant="globex")
    outcome = deal(CODEC.encode("LlmRequest", asked), asked["request_id"].encode())
    assert isinstance(outcome, Emit)
    [event] = outcome.events
    answer = CODEC.decode("LlmResponse", event.value)
    assert (event.topic, answer["tenant"], answer["error"]["code"]) == (
        "llm.responses.v1",
        "acme",
        "caller_identity_mismatch",
    )
    assert f"'globex', and topic {TOPIC} is for acme" in answer["error"]["message"]


def test_what_is_no_request_goes_to_the_dead_letters() -> None:
    """With an answer where the key names a request."""
    key = str(uuid.uuid4())
    for given, answers in ((key.encode(), 1), (b"none", 0), (None, 0)):
        outcome = deal(b"no request", given)
        assert isinstance(outcome, Reject)
        assert (outcome.code, len(outcome.events)) == ("caller_undecodable", answers)


@pytest.mark.parametrize(("topic", "copies"), [(b"of.acme", ["of.acme"]), (b"of.globex", [])])
def test_what_is_refused_is_answered_on_the_tenants_reply_topic_too(topic: bytes, copies: list[str]) -> None:
    """A service that waits for a reply has one, on a topic that its tenant may name and on no other's."""
    asked = request(tenant="globex")
    for value in (CODEC.encode("LlmRequest", asked), b"no request"):
        outcome = deal(value, asked["request_id"].encode(), [("kafka_replyTopic", topic)])
        assert isinstance(outcome, Emit | Reject)
        assert [event.topic for event in outcome.events] == ["llm.responses.v1", *copies]


def test_topics_follow_from_the_setting() -> None:
    """Each tenant has a topic kept like the common one; a name that no topic can have, and signatures beside it, are refused."""
    assert [topic.name for topic in all_topics((), ["acme"])][:2] == ["llm.requests.v1", "llm.requests.acme.v1"]
    assert requests_of("acme").record == "LlmRequest"
    assert Settings(request_tenants=["acme", "Globex_2.eu"]).request_tenants == ["acme", "Globex_2.eu"]
    for environment, words in (
        ({"MILLSTREAM_REQUEST_TENANTS": '["a b"]'}, "MILLSTREAM_REQUEST_TENANTS"),
        ({"MILLSTREAM_REQUEST_TENANTS": '["acme"]', "MILLSTREAM_TRUST": "signed"}, "leave one of them out"),
    ):
        with pytest.raises(SettingsError, match=words):
            settings_in(environment)
