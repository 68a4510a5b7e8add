"""Tenants with request topics of their own, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from core.topics import REQUESTS, requests_of
from schemas.codec import Codec
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, eventually, log, told

CODEC = Codec()
TENANTS = ("acme", "globex")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole pipeline, its topics with a prefix."""
    environment = {
        **QUICK, "MILLSTREAM_REQUEST_TENANTS": '["acme", "globex"]', "MILLSTREAM_TOPIC_PREFIX": "corp.",
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("tenants"), environment=environment) as run:
        yield run


def test_a_tenants_topic_holds_the_tenants_requests(pipeline: Running) -> None:
    """What stands there is answered and charged as its tenant's, another's name is refused, requests of others go on where they did,
    and all accounts agree."""
    asked = [told(f"Number {n}.", tenant=tenant) for tenant in (*TENANTS, "initech") for n in range(20)]
    answers = ask(pipeline, asked)
    assert {answer["outcome"] for answer in answers.values()} == {"completed"}
    assert {answers[one["request_id"]]["tenant"] == one["tenant"] for one in asked} == {True}
    assert all_usages(pipeline, CODEC).keys() == answers.keys()
    assert [len(log(pipeline, requests_of(tenant))) for tenant in TENANTS] == [20, 20]
    assert len(log(pipeline, REQUESTS)) == 60
    theirs, nobodys = told("Let me in.", tenant="globex"), told("Hi.", tenant="default")
    exchange = Exchange(pipeline.settings)
    for one in (theirs, nobodys):
        value = CODEC.encode("LlmRequest", one)
        exchange.send_bytes(one["request_id"].encode(), value, [], requests_of("acme").on("corp."))
    exchange.flush()
    found = exchange.answers([theirs["request_id"], nobodys["request_id"]], 90)
    exchange.close()
    refused, own = found[theirs["request_id"]], found[nobodys["request_id"]]
    assert (refused["outcome"], refused["tenant"], refused["attempts"]) == ("refused", "acme", 0)
    assert refused["error"]["code"] == "caller_identity_mismatch"
    assert (own["outcome"], own["tenant"]) == ("completed", "acme")

    def through() -> list[str] | None:
        proof = reconcile(pipeline.settings, None, pipeline.stack.simulator_url)
        behind = (mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        if proof.marks.under_way or any(behind):
            return None
        return [f"{line.name}: {line.differences}" for line in proof.lines if line.status == "BROKEN"] or ["none"]

    assert eventually(through, 60) == ["none"]
