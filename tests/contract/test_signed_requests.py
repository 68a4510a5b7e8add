"""Signed requests in the admit stage itself, on a real ledger: what is refused, that nothing is kept of it, and what tenants cannot
do to each other."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, func, insert, select

from agents.admit import Admit, AdmitRules
from agents.callers import SignedCallers
from agents.ledgers import Ledgers
from agents.planning import Planner
from config import answers, energy, energy_prices
from config.credentials import Change
from config.database import reading
from config.energy_audit import balances
from config.issued_keys import NewKey, issue, issued_keys, revoke
from config.key_encryption import EncryptionKeys, LocalKey
from config.limit_models import COUNTERS
from config.limits import Edit, change
from config.models import METADATA, REQUESTS
from config.registry import from_environment
from config.registry_models import TASKS
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.accounts import account
from core.energy import EnergyPrice
from core.facts import response
from core.limits import Limit
from core.outcome import Emit, Headers, Outcome, Record, Reject
from core.registry import Route, Target
from core.trust import Caller
from schemas.codec import Codec, Event
from schemas.events import LlmCall, LlmRequest
from schemas.signing import KEY_ID, SIGNATURE, SIGNED_AT, signed_headers
from streams.tools import open_tools
from tests.examples import NOON, request

CODEC = Codec()
KEYS = EncryptionKeys((LocalKey("test", bytes(range(32))),))
AT = NOON // 1_000_000
MINUTE = 60
TWO_MODELS = Route(
    "two", (Target("google/gemini-2.5-flash"), Target("google/gemini-2.5-pro")), task="extraction", cache_seconds=60
)


class Deployment:
    """A ledger with keys of two tenants, and an admit stage that believes signatures alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.callers = SignedCallers(KEYS, lambda: NOON)
        self.acme = self.issue(NewKey("acme", "ana"))
        self.globex = self.issue(NewKey("globex"))

    def issue(self, new: NewKey) -> str:
        with self.engine.begin() as db:
            _, text = issue(db, KEYS, new, Change("ana", 1))
        self.callers.load(issued_keys(self.engine))
        return text

    def revoke(self, key: str) -> None:
        with self.engine.begin() as db:
            revoke(db, key.partition(".")[0], Change("ana", 2))
        self.callers.load(issued_keys(self.engine))

    def deal(self, *records: Record) -> list[Outcome]:
        """What the stage makes of these records, one after the other."""
        settings = Settings(reply_topics=["answers.{tenant}"])

        async def three(_: str) -> int:
            return 3

        async def run() -> list[Outcome]:
            transactions = Transactions(self.engine, most=10, linger=0.001)
            registry = replace(from_environment(settings), routes=(TWO_MODELS,))
            planner = Planner(lambda: registry, dict, settings.models, 4_096)
            rules = AdmitRules(settings.max_request_bytes, tuple(settings.reply_topics), 60)
            stage = Admit(
                CODEC,
                Ledgers(transactions),
                lambda: Tasks.load(settings),
                planner,
                rules,
                three,
                lambda: NOON,
                self.callers,
            )
            found = [await stage(record) for record in records]
            await transactions.close()
            return found

        return asyncio.run(run())

    def answer(self, record: Record) -> Event:
        """The answer to a record for which nobody is called."""
        [outcome] = self.deal(record)
        assert isinstance(outcome, Emit)
        [event] = outcome.events
        assert event.topic == "llm.responses.v1"
        return CODEC.decode("LlmResponse", event.value)

    def call(self, record: Record) -> Event:
        """The call that follows from a record that is admitted."""
        [outcome] = self.deal(record)
        assert isinstance(outcome, Emit)
        [event] = outcome.events
        assert event.topic.startswith("llm.calls.")
        return CODEC.decode("LlmCall", event.value)

    def kept(self) -> dict[str, int]:
        """How many rows each table of the ledger has; those of the registry aside."""
        names = ("requests", "attempts", "accounts", "counters", "cached_answers", "shared_calls")
        with self.engine.connect() as db:
            return {
                name: db.execute(select(func.count()).select_from(METADATA.tables[name])).scalar_one() for name in names
            }


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    return Deployment(engine)


def record(asked: LlmRequest | bytes, api_key: str | None, at: int = AT, edit: Callable[[Headers], Headers] = list, **changes: Any) -> Record:  # fmt: skip
    """A request's record, signed with this key and sent at noon."""
    value = asked if isinstance(asked, bytes) else CODEC.encode("LlmRequest", asked)
    record_key = changes.pop("key", None if isinstance(asked, bytes) else asked["request_id"].encode())
    headers = edit(signed_headers(api_key, value, at) if api_key is not None else [])
    return Record("llm.requests.v1", 0, changes.pop("offset", 7), record_key, changes.pop("value", value), headers, NOON, **changes)  # fmt: skip


def with_header(name: str, value: bytes) -> Callable[[Headers], Headers]:
    """Headers with another value in one of them."""
    return lambda headers: [(n, value if n == name else v) for n, v in headers]


def test_a_signed_request_is_its_keys(deployment: Deployment) -> None:
    """Tenant, user and key come from the key, whether the request names them or not; the ledger charges them."""
    for claims in ({}, {"tenant": "default", "user": None}):
        asked = deployment.call(record(request(**claims), deployment.acme))["request"]
        assert (asked["tenant"], asked["user"], asked["api_key_id"]) == (
            "acme",
            "ana",
            deployment.acme.partition(".")[0],
        )
    with deployment.engine.connect() as db:
        assert {row.account for row in db.execute(select(REQUESTS))} == {"acme"}
    asked = deployment.call(record(request(tenant="globex", user="bo"), deployment.globex))["request"]
    assert (asked["tenant"], asked["user"]) == ("globex", "bo")


def bad_ones(deployment: Deployment) -> dict[str, list[Record]]:
    """Records that must not be believed, by the code that says why."""
    expired, revoked = deployment.issue(NewKey("acme", expires_at=NOON)), deployment.issue(NewKey("acme"))
    deployment.revoke(revoked)
    acme, globex = deployment.acme, deployment.globex
    good = request()
    own_id = globex.partition(".")[0].encode()
    return {
        "caller_not_signed": [
            record(request(), None),
            *(record(request(), acme, edit=lambda h, n=name: [x for x in h if x[0] != n]) for name in (KEY_ID, SIGNED_AT, SIGNATURE)),
            record(request(), acme, edit=lambda h: [*h, *h]),
        ],
        "caller_unknown_key": [record(request(), "vk-0000000000000000.secret")],
        "caller_key_revoked": [record(request(), revoked)],
        "caller_key_expired": [record(request(), expired)],
        "caller_bad_signature": [
            record(request(), f"{acme.partition('.')[0]}.another"),
            record(request(), acme, edit=with_header(KEY_ID, own_id)),
            record(request(), acme, edit=with_header(SIGNED_AT, str(AT - 1).encode())),
            record(request(), acme, edit=with_header(SIGNED_AT, b"noon")),
            record(request(), acme, edit=with_header(SIGNATURE, b"0" * 64)),
            record(good, acme, value=CODEC.encode("LlmRequest", {**good, "priority": "batch"})),
        ],
        "caller_signature_untimely": [record(request(), acme, AT - 10 * MINUTE), record(request(), acme, AT + 10 * MINUTE)],
    }  # fmt: skip


def test_what_is_not_believed_is_told_why_and_kept_nowhere(deployment: Deployment) -> None:
    """Each has its code and sentence in an answer that names nobody, has no call, and leaves every table as it was."""
    bad = bad_ones(deployment)
    before = deployment.kept()
    for code, records in bad.items():
        for one in records:
            answer = deployment.answer(one)
            assert (answer["outcome"], answer["error"]["code"]) == ("refused", code)
            assert answer["request_id"].encode() == one.key
            assert (answer["tenant"], answer["user"], answer["api_key_id"], answer["tags"]) == (
                "default",
                None,
                None,
                {},
            )
            assert answer["cost_nano_usd"] == 0
    assert deployment.kept() == before
    assert set(before.values()) == {0}


def test_a_forger_takes_nobodys_request_id_or_answer(deployment: Deployment) -> None:
    """What is badly signed under a victim's id, before and after, changes nothing for it and shows nothing of its answer."""
    asked = request()
    forged = record(asked, "vk-0000000000000000.secret")
    assert deployment.answer(forged)["error"]["code"] == "caller_unknown_key"
    unsigned_key = record(b"no request", None, key=asked["request_id"].encode())
    assert deployment.answer(unsigned_key)["error"]["code"] == "caller_not_signed"
    first = deployment.call(record(asked, deployment.acme))
    answer = deployment.answer(forged)
    assert (answer["error"]["code"], answer["output"], answer["tenant"]) == ("caller_unknown_key", [], "default")
    # The same request again is the same call, and no second one.
    assert deployment.call(record(asked, deployment.acme)) == first
    assert deployment.kept()["requests"] == 1


def test_a_valid_key_occupies_no_id_by_an_unsigned_record_key(deployment: Deployment) -> None:
    """Signed bytes that are no request become a dead letter and an answer, and the id in their record's key stays free."""
    asked = request()
    [outcome] = deployment.deal(record(b"no request", deployment.globex, key=asked["request_id"].encode()))
    assert isinstance(outcome, Reject)
    assert outcome.code == "caller_undecodable"
    assert deployment.kept()["requests"] == 0
    assert deployment.call(record(asked, deployment.acme))["request"]["tenant"] == "acme"


def test_another_tenants_key_is_refused_or_separate(deployment: Deployment) -> None:
    """With a key of its own a tenant cannot ask as another, take its request id, get its answer or write to its reply topic."""
    asked = request()
    mine = deployment.call(record(asked, deployment.acme))
    answer = deployment.answer(record(asked, deployment.globex))
    assert (answer["error"]["code"], answer["tenant"]) == ("caller_identity_mismatch", "globex")
    answer = deployment.answer(record({**asked, "tenant": "default", "user": None}, deployment.globex))
    assert (answer["error"]["code"], answer["tenant"], answer["output"]) == ("caller_request_id_reused", "globex", [])
    assert deployment.call(record(asked, deployment.acme)) == mine
    another = deployment.issue(NewKey("acme", "ana"))
    assert deployment.answer(record(asked, another))["error"]["code"] == "caller_request_id_reused"
    theirs = request(tenant="globex", user=None, reply_topic="answers.acme")
    assert "answers.acme" in deployment.answer(record(theirs, deployment.globex))["error"]["message"]
    own = request(reply_topic="answers.acme")
    assert deployment.call(record(own, deployment.acme))["reply_to"]["topic"] == "answers.acme"


def test_reply_headers_that_nobody_signed_are_passed_over(deployment: Deployment) -> None:
    """Whoever copies a record and adds a header does not get its answer."""
    added = ("kafka_replyTopic", b"answers.acme")
    assert deployment.call(record(request(), deployment.acme, edit=lambda h: [*h, added]))["reply_to"] is None
    # Nor the answer to what is not believed, or is no request.
    deployment.answer(record(request(), "vk-0000000000000000.secret", edit=lambda h: [*h, added]))
    no_request = record(b"no request", deployment.acme, edit=lambda h: [*h, added], key=str(uuid.uuid4()).encode())
    [outcome] = deployment.deal(no_request)
    assert isinstance(outcome, Reject)
    assert [event.topic for event in outcome.events] == ["llm.responses.v1"]


def test_limits_of_a_key_are_its_own(deployment: Deployment) -> None:
    """What one tenant's key uses counts for it, is refused to it, and takes nothing from another's."""
    limited = deployment.issue(NewKey("globex", nano_usd_per_day=1))
    key_id = limited.partition(".")[0]
    with deployment.engine.begin() as db:
        change(db, Edit([Limit("/acme", "requests", "day", 1)]), "ana", NOON)
    refused = deployment.answer(record(request(tenant="globex"), limited))
    assert refused["error"]["code"] == "policy_budget_exceeded"
    assert f"/globex/key:{key_id}" in refused["error"]["message"]
    for _ in range(2):
        deployment.call(record(request(tenant="globex"), deployment.globex))
    deployment.call(record(request(), deployment.acme))
    assert deployment.answer(record(request(), deployment.acme))["error"]["code"] == "policy_quota_exceeded"
    with deployment.engine.connect() as db:
        used = {row.account: row.used for row in db.execute(select(COUNTERS))}
    assert used["/acme"] == 1
    assert used.get(f"/globex/key:{key_id}", 0) == 0


def test_energy_is_of_the_user_of_a_tenant(deployment: Deployment) -> None:
    """Another tenant's user of the same name has none of it, and takes none of it."""
    with deployment.engine.begin() as db:
        energy_prices.change(db, [EnergyPrice(None, None, None, 1)], [], "ana", NOON)
        energy.grant(db, account("acme", "user", "ana"), 5, "ana", NOON)
    refused = deployment.answer(record(request(tenant="globex", user="ana"), deployment.globex))
    assert (refused["error"]["code"], refused["tenant"]) == ("policy_energy_exhausted", "globex")
    with reading(deployment.engine) as db:
        assert [(one.account, one.left, one.reserved) for one in balances(db, "/", NOON)] == [("/acme/user:ana", 5, 0)]
    deployment.call(record(request(user=None), deployment.acme))
    with reading(deployment.engine) as db:
        assert [(one.account, one.left, one.reserved) for one in balances(db, "/", NOON)] == [("/acme/user:ana", 4, 1)]


def test_a_key_uses_the_models_that_it_is_for(deployment: Deployment) -> None:
    """A named model that does not fit is refused by a code of its own; of a route's candidates those that do not fit are dropped."""
    narrow = deployment.issue(NewKey("acme", models=("google/gemini-2.5-pro",)))
    answer = deployment.answer(record(request(), narrow))
    assert answer["error"]["code"] == "policy_model_not_allowed"
    assert "not for openai/gpt-5-mini" in answer["error"]["message"]
    call = deployment.call(record(request(model=None, task="extraction"), narrow))
    assert (call["provider"], call["model"]) == ("google", "gemini-2.5-pro")
    dropped = [one for one in call["decisions"] if not one["kept"]]
    assert dropped
    assert all("is not for" in one["reason"] for one in dropped)


def test_a_cached_answer_of_a_model_that_a_key_is_not_for_is_not_given_to_it(deployment: Deployment) -> None:
    """The key's own candidate is called in its place, also while an answer is kept; a key for the model that answered gets it."""
    asked = request(model=None, task="extraction")
    first = deployment.call(record(asked, deployment.acme))
    assert first["model"] == "gemini-2.5-flash"
    answer = CODEC.encode("LlmResponse", response(cast(LlmCall, first), "completed", NOON, spent=[]))
    kept = answers.Kept(asked["request_id"], "acme", answer, 70)
    with deployment.engine.begin() as db:
        answers.keep(db, [answers.Ended(first["cache_key"], asked["request_id"], kept, NOON + 1)])
    for models, served in (
        ((), "gemini-2.5-flash"),
        (("google/*-flash",), "gemini-2.5-flash"),
        (("google/*-pro",), None),
    ):
        again = record(
            {**asked, "request_id": str(uuid.uuid4())}, deployment.issue(NewKey("acme", "ana", models=models))
        )
        [outcome] = deployment.deal(again)
        assert isinstance(outcome, Emit)
        *_, event = outcome.events
        if served is None:
            call = CODEC.decode("LlmCall", event.value)
            assert (call["model"], call["cache_key"]) == ("gemini-2.5-pro", first["cache_key"])
        else:
            hit = CODEC.decode("LlmResponse", event.value)
            assert (hit["cost_status"], hit["model"]) == ("cached", served)


def test_a_record_that_waited_in_the_log_is_judged_by_the_brokers_time(deployment: Deployment) -> None:
    """Taken by the broker in time, it is admitted however late; with its producer's time alone, the clock decides."""
    early = AT - 10 * MINUTE
    waited = record(request(), deployment.acme, early, by_broker=True)
    taken = Record(*(getattr(waited, n) for n in ("topic", "partition", "offset", "key", "value", "headers")), early * 1_000_000, True)  # fmt: skip
    assert deployment.call(taken)["request"]["tenant"] == "acme"
    assert deployment.answer(waited)["error"]["code"] == "caller_signature_untimely"


def test_revocation_acts_with_the_next_record(deployment: Deployment) -> None:
    """Between two records of one key it is revoked; the second is refused, also by a stage that had opened the key."""
    deployment.call(record(request(), deployment.acme))
    deployment.revoke(deployment.acme)
    assert deployment.answer(record(request(), deployment.acme))["error"]["code"] == "caller_key_revoked"


def test_revocation_acts_while_the_registry_cannot_be_used(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reads a registry with a row it cannot use keeps what it had of that, and refuses the key all the same."""
    monkeypatch.setenv("SEALING", f"test:{base64.b64encode(bytes(range(32))).decode()}")
    url = deployment.engine.url.render_as_string(hide_password=False)
    settings = Settings(trust="signed", key_encryption="env:SEALING", database_url=url)
    asked = record(request(), deployment.acme, int(time.time()))

    async def run() -> None:
        tools = open_tools(settings, CODEC, lambda _: None)
        assert await tools.snapshot.refresh_now()
        assert isinstance(await tools.callers.of(asked), Caller)
        with deployment.engine.begin() as db:
            db.execute(insert(TASKS).values(name="broken", definition="{"))
        deployment.revoke(deployment.acme)
        assert not await tools.snapshot.refresh_now()
        refused = await tools.callers.of(asked)
        assert refused is not None
        assert not isinstance(refused, Caller)
        assert refused["code"] == "caller_key_revoked"
        await tools.at_exit.aclose()
        await tools.transactions.close()

    asyncio.run(run())


def test_without_an_id_there_is_a_dead_letter(deployment: Deployment) -> None:
    """A record that names no request anywhere is a dead letter with the reason; one with an id in its value alone is answered."""
    [outcome] = deployment.deal(record(b"no request", None, key=b"none"))
    assert isinstance(outcome, Reject)
    assert outcome.code == "caller_not_signed"
    asked = request(request_id=str(uuid.uuid4()))
    assert deployment.answer(record(asked, None, key=None))["request_id"] == asked["request_id"]
