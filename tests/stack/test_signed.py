"""A pipeline that believes signatures alone: every bad one, a good one, a revocation, and one tenant against another."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from pydantic import SecretStr
from sqlalchemy import Engine, select

from cli import kafka
from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config.credentials import Change, NewCredential, add
from config.database import open_database
from config.issued_keys import NewKey, issue
from config.key_encryption import EncryptionKeys, encryption_keys
from config.limits import Edit, change
from config.models import REQUESTS as ADMITTED
from config.registry import apply
from core.limits import Limit
from core.outcome import Headers
from core.registry import Route, Target
from core.topics import REQUESTS, Topic
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from schemas.signing import KEY_ID, SIGNATURE, SIGNED_AT, signed_headers
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, ask_one, eventually, log, millstream, simulator, told
from tests.stack.test_planted_keys import everything, secrets_of

CODEC = Codec()
MODEL = "openai/gpt-5-mini"
ANSWERS = Topic("answers.acme", "LlmResponse", 86_400_000)
CACHED = Route("cached", (Target(MODEL),), task="cached", cache_seconds=600)


def keys(run: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `millstream keys` says in this deployment; it has to go well, and workers have to be told."""
    command = (sys.executable, "-m", "cli.main", "keys", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=run.environment)
    assert done.returncode == 0, done.stderr
    assert "not told" not in done.stderr
    return done


@dataclass
class World:
    """A running pipeline, its database, and keys of two tenants."""

    run: Running
    engine: Engine
    at_hand: EncryptionKeys
    acme: str
    globex: str

    def issue(self, new: NewKey) -> str:
        """A key, issued beside the command."""
        with self.engine.begin() as db:
            return issue(db, self.at_hand, new, Change("ana", 1))[1]

    def by(self, key: str) -> Running:
        """The pipeline as somebody sees it who signs with this key."""
        return replace(self.run, settings=self.run.settings.model_copy(update={"api_key": SecretStr(key)}))

    def known(self) -> set[str]:
        """The request ids that the ledger knows."""
        with self.engine.connect() as db:
            return {row.request_id for row in db.execute(select(ADMITTED.c.request_id))}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The whole pipeline in signed mode; its workers read the registry when they are told, and every five minutes."""
    environment = {
        **QUICK, "MILLSTREAM_TRUST": "signed", "MILLSTREAM_LOG_LEVEL": "DEBUG", "MILLSTREAM_KEY_ENCRYPTION": "env:SEALING",
        "SEALING": f"test:{base64.b64encode(os.urandom(32)).decode()}", "MILLSTREAM_REPLY_TOPICS": '["answers.{tenant}"]',
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("signed"), environment=environment) as run:
        kafka.create_topics(run.settings, (ANSWERS,))
        engine = open_database(run.settings.database_url)
        at_hand = encryption_keys(environment["MILLSTREAM_KEY_ENCRYPTION"], environment)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes={**now.routes, "cached": CACHED}), run.settings, "test", 1)
        acme = keys(run, "issue", "--tenant", "acme", "--user", "ana").stdout.strip()
        globex = keys(run, "issue", "--tenant", "globex").stdout.strip()
        made = World(run, engine, at_hand, acme, globex)
        assert eventually(lambda: ask_one(made.by(globex), told("Hi.", tenant="globex"))["outcome"] == "completed")
        yield made
        engine.dispose()


def test_a_signed_request_is_answered_as_its_keys(world: World) -> None:
    """From `millstream send`, without a word of a tenant: answer, call and costs are the key's, by the broker's own time."""
    answer = millstream(world.run, "send", "Hello.", "--model", MODEL, MILLSTREAM_API_KEY=world.acme)
    who = ("acme", "ana", world.acme.partition(".")[0])
    assert answer["outcome"] == "completed"
    assert (answer["tenant"], answer["user"], answer["api_key_id"]) == who
    [usage] = eventually(lambda: all_usages(world.run, CODEC).get(answer["request_id"]))
    assert (usage["tenant"], usage["user"], usage["api_key_id"]) == who
    assert {message.timestamp()[0] for message in log(world.run, REQUESTS)} == {TIMESTAMP_LOG_APPEND_TIME}


def bad_ones(world: World) -> list[tuple[str, LlmRequest, bytes, Headers]]:
    """Requests that must not be believed: the code that says why, the request, and the value and headers of its record."""
    acme, now = world.acme, int(time.time())
    expired = world.issue(NewKey("acme", expires_at=(now - 60) * 1_000_000))
    revoked = keys(world.run, "issue", "--tenant", "acme").stdout.strip()
    keys(world.run, "revoke", revoked.partition(".")[0])
    other_id = world.globex.partition(".")[0].encode()
    found = []

    def bad(
        code: str, key: str = acme, off: int = 0, edit: Callable[[Headers], Headers] = list, sent: Any = None, **asks: Any
    ) -> None:  # fmt: skip
        asked = told("Let me in.", tenant="acme", **asks)
        value = CODEC.encode("LlmRequest", asked)
        headers = edit(signed_headers(key, value, now + off))
        found.append((code, asked, CODEC.encode("LlmRequest", {**asked, **sent}) if sent else value, headers))

    def put(name: str, value: bytes) -> Callable[[Headers], Headers]:
        return lambda headers: [(n, value if n == name else v) for n, v in headers]

    bad("caller_not_signed", edit=lambda headers: [])
    bad("caller_not_signed", edit=lambda headers: headers[:2])
    bad("caller_not_signed", edit=lambda headers: headers[1:])
    bad("caller_not_signed", edit=lambda headers: [*headers, headers[0]])
    bad("caller_unknown_key", "vk-0000000000000000.guessed")
    bad("caller_key_revoked", revoked)
    bad("caller_key_expired", expired)
    bad("caller_bad_signature", f"{acme.partition('.')[0]}.guessed")
    bad("caller_bad_signature", edit=put(KEY_ID, other_id))
    bad("caller_bad_signature", edit=put(SIGNED_AT, str(now - 1).encode()))
    bad("caller_bad_signature", edit=put(SIGNED_AT, b"now"))
    bad("caller_bad_signature", edit=put(SIGNATURE, b"0" * 64))
    bad("caller_bad_signature", sent={"priority": "batch"})
    bad("caller_signature_untimely", off=-600)
    bad("caller_signature_untimely", off=600)
    bad("caller_identity_mismatch", world.globex)
    bad("caller_identity_mismatch", user="bo")
    bad("caller_identity_mismatch", api_key_id="vk-0000000000000000")
    return found


def test_what_is_not_believed_reaches_nobody(world: World) -> None:
    """Every bad record gets an answer with its own code and a sentence; no provider is called for it, and the ledger knows nothing
    of it; afterwards all accounts agree."""
    bad = bad_ones(world)
    calls = simulator(world.run, "ledger")
    before = world.known()
    exchange = Exchange(world.run.settings)
    for _, asked, value, headers in bad:
        exchange.send_bytes(asked["request_id"].encode(), value, headers)
    exchange.flush()
    answers = exchange.answers([asked["request_id"] for _, asked, _, _ in bad], 90)
    exchange.close()
    assert [answers[asked["request_id"]]["error"]["code"] for _, asked, _, _ in bad] == [code for code, *_ in bad]
    for code, asked, _, _ in bad:
        answer = answers[asked["request_id"]]
        assert (answer["outcome"], answer["attempts"], answer["output"]) == ("refused", 0, [])
        assert answer["error"]["message"].endswith(".")
        if code != "caller_identity_mismatch":
            assert (answer["tenant"], answer["user"], answer["api_key_id"]) == ("default", None, None)
    assert len({answers[asked["request_id"]]["error"]["message"] for _, asked, _, _ in bad}) > 10
    assert simulator(world.run, "ledger") == calls
    assert world.known() == before
    assert all_usages(world.run, CODEC).keys().isdisjoint(answers)

    def through() -> Any:
        proof = reconcile(world.run.settings, None, world.run.stack.simulator_url)
        behind = (mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not any(behind) and proof

    assert {line.name: line.differences for line in eventually(through, 60).lines if line.status == "BROKEN"} == {}


def test_a_replayed_record_is_the_same_request(world: World) -> None:
    """The very bytes, sent again by somebody who read them, with a reply topic of his own, give the same answer where it was and
    no second call."""
    asked = told("Once.")
    value = CODEC.encode("LlmRequest", asked)
    headers = signed_headers(world.acme, value, int(time.time()))
    exchange = Exchange(world.run.settings)
    answers: list[Event] = []
    for more in ([], [("kafka_replyTopic", b"answers.globex")]):
        exchange.send_bytes(asked["request_id"].encode(), value, [*headers, *more])
        exchange.flush()
        answers += exchange.answers([asked["request_id"]], 90).values()
    exchange.close()
    assert [answer["outcome"] for answer in answers] == ["completed"] * 2
    assert answers[0] == answers[1]
    assert len(all_usages(world.run, CODEC)[asked["request_id"]]) == 1


def test_a_revoked_key_is_refused_at_once(world: World) -> None:
    """Workers that read the registry every five minutes refuse a key as soon as it is revoked."""
    assert world.run.settings.registry_refresh_seconds == 300
    key = keys(world.run, "issue", "--tenant", "acme").stdout.strip()
    mine = world.by(key)
    assert eventually(lambda: ask_one(mine, told("Still?"))["outcome"] == "completed")
    keys(world.run, "revoke", key.partition(".")[0])
    refused = eventually(lambda: (answer := ask_one(mine, told("Still?")))["outcome"] == "refused" and answer)
    assert refused["error"]["code"] == "caller_key_revoked"


def test_a_key_is_bound_to_its_models_and_its_money(world: World) -> None:
    """What it may not use or spend is refused to it by name, and served to another key of the tenant."""
    key = keys(
        world.run, "issue", "--tenant", "acme", "--models", "openai/*", "--limit-usd-per-day", "0.000000001"
    ).stdout.strip()  # fmt: skip
    mine = world.by(key)
    assert eventually(lambda: "policy" in ask_one(mine, told("Hi."))["error"]["code"])
    other, dear = told("Hi.", "google/gemini-2.5-flash"), told("Hi.")
    answers = ask(mine, [other, dear])
    assert answers[other["request_id"]]["error"]["code"] == "policy_model_not_allowed"
    assert answers[dear["request_id"]]["error"]["code"] == "policy_budget_exceeded"
    assert f"/acme/key:{key.partition('.')[0]}" in answers[dear["request_id"]]["error"]["message"]
    again = [told("Hi.", "google/gemini-2.5-flash"), told("Hi.")]
    assert {answer["outcome"] for answer in ask(world.by(world.acme), again).values()} == {"completed"}


def test_a_tenant_gets_nothing_of_another(world: World) -> None:
    """With a valid key of its own, globex is refused acme's name, request id and reply topic, and has other cached answers,
    provider's keys and limits."""
    acme, globex = world.by(world.acme), world.by(world.globex)
    with world.engine.begin() as db:
        own = add(
            db, world.at_hand, NewCredential("openai", "acme"), "acme's own key".replace(" ", "-"), Change("ana", 1)
        )
        change(db, Edit([Limit("/acme", "requests", "day", 1_000)]), "ana", time.time_ns() // 1_000)
    keys(world.run, "rotate")

    def with_own_key() -> bool:
        first = ask_one(acme, told("Mine."))
        return bool(
            {usage["credential_id"] for usage in all_usages(world.run, CODEC)[first["request_id"]]}
            == {own.credential_id}
        )

    assert eventually(with_own_key)
    mine = ask_one(acme, asked := told("A secret of acme.", task="cached", model=None))
    assert mine["outcome"] == "completed"
    for changes, code in (
        ({}, "caller_identity_mismatch"), ({"tenant": "globex"}, "caller_request_id_reused"),
        ({"tenant": "default"}, "caller_request_id_reused"),
    ):  # fmt: skip
        stolen = ask_one(globex, {**asked, **changes})  # type: ignore[typeddict-item]
        assert (stolen["error"]["code"], stolen["tenant"], stolen["output"]) == (code, "globex", [])
    again = ask_one(acme, told("A secret of acme.", task="cached", model=None))
    assert (again["cost_status"], again["cached_from"]) == ("cached", asked["request_id"])
    theirs = ask_one(globex, told("A secret of acme.", task="cached", model=None, tenant="globex"))
    assert (theirs["outcome"], theirs["cost_status"], theirs["cached_from"]) == ("completed", "priced", None)
    [usage] = all_usages(world.run, CODEC)[theirs["request_id"]]
    assert (usage["tenant"], usage["credential_id"], usage["credential_owner"]) == ("globex", None, "platform")
    used = len(log(world.run, ANSWERS))
    there = ask_one(globex, told("Hi.", tenant="globex", reply_topic=ANSWERS.name))
    assert (there["outcome"], there["error"]["code"]) == ("refused", "caller_invalid_request")
    assert ask_one(acme, told("Hi.", reply_topic=ANSWERS.name))["outcome"] == "completed"
    assert eventually(lambda: len(log(world.run, ANSWERS)) == used + 1)
    with world.engine.begin() as db:
        change(db, Edit([Limit("/acme", "requests", "day", 1)]), "ana", time.time_ns() // 1_000)
    assert ask_one(acme, told("More."))["error"]["code"] == "policy_quota_exceeded"
    assert ask_one(globex, told("More.", tenant="globex"))["outcome"] == "completed"


def test_what_signs_stays_where_it_was_put(world: World) -> None:
    """After all of that, neither a secret nor what it signs with is in a topic, ClickHouse, the ledger, a log or a metrics page."""
    places = everything(world.run)
    key_id = world.acme.partition(".")[0].encode()
    assert {"topic llm.requests.v1", "ClickHouse usage"} <= {place for place, text in places.items() if key_id in text}
    for secret in (*secrets_of(world.acme), *secrets_of(world.globex)):
        assert [place for place, text in places.items() if secret in text] == []
