"""Planted keys through the whole pipeline, every failure of the simulator and a changed row among what happens: they stay where
they were put."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from cli.running import Running, running
from config.credential_models import CREDENTIALS
from config.credentials import Change, Credential, NewCredential, add, stored_credentials
from config.database import open_database
from config.key_encryption import encryption_keys
from config.settings import PROVIDER_NAMES
from core.topics import all_topics
from local.simulator.directives import FAULTS
from schemas.codec import Codec
from schemas.events import LlmRequest
from schemas.signing import KEY_ID, signing_key
from sinks.query import Store
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, eventually, log, told

CODEC = Codec()
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash"}
VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GEMINI_API_KEY"}
#: Of no form that keys have, so that only knowing the key itself can keep it out of a message.
SETTINGS = {name: f"planted-settings-{name}-5f0c2a" for name in MODELS}
#: Whose row somebody changes to be another's.
MOVED_FROM, MOVED_TO = "initech", "hooli"
OWNERS = (None, "acme", MOVED_FROM)
STORED = {(name, owner): f"planted-{owner or 'platform'}-{name}-81d3be" for name in MODELS for owner in OWNERS}
#: A key that the simulator refuses by repeating it.
REPEATED = "bad-key"
KEY_ENCRYPTION_KEY = os.urandom(32)
CANARY = "canary-3f9d1c77"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole pipeline with planted keys in its environment, saying as much as it can."""
    line = f"planted:{base64.b64encode(KEY_ENCRYPTION_KEY).decode()}"
    environment = {
        **QUICK, **{VARIABLES[name]: key for name, key in SETTINGS.items()}, "MILLSTREAM_KEY_ENCRYPTION": "env:PLANTED",
        "PLANTED": line, "MILLSTREAM_LOG_LEVEL": "DEBUG", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
        "MILLSTREAM_BODIES": "full",
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("planted"), environment=environment) as run:
        yield run


def failing(name: str, tenant: str) -> list[LlmRequest]:
    """A request for an answer and for every failure, some of them streamed."""
    sims: list[dict[str, Any] | None] = [None, *({"fault": fault} for fault in FAULTS if fault != "hang")]
    sims += [{"status": status} for status in (401, 429)]
    more = [{"status": status} for status in (400, 403, 404, 500, 503)] + [
        {"unknown-directive": 1},
        {"retry_after_ms": 1},
    ]
    told_to = [*((sim, stream) for sim in sims for stream in (False, True)), *((sim, False) for sim in more)]
    return [
        told(f"{CANARY} {tenant} {number}", f"{name}/{MODELS[name]}", sim, tenant=tenant, stream=stream)
        for number, (sim, stream) in enumerate(told_to)
    ]


def keys(run: Running, *arguments: str, given: str = "") -> str:
    """What `millstream keys` prints in this deployment."""
    command = (sys.executable, "-m", "cli.main", "keys", *arguments)
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=run.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def store_all(run: Running) -> tuple[dict[tuple[str, str | None], Credential], str]:
    """Every planted key as a credential, some in rows that somebody changes afterwards; and what the commands said."""
    said = keys(run, "add", "--provider", "openai", "--tenant", "refused", "--label", "no good", given=REPEATED)
    engine = open_database(run.settings.database_url)
    at_hand = encryption_keys(run.environment["MILLSTREAM_KEY_ENCRYPTION"], run.environment)
    with engine.begin() as db:
        for (name, owner), secret in STORED.items():
            add(db, at_hand, NewCredential(name, owner), secret, Change("ana", 1))
    said += keys(run, "rotate", "--data-keys") + keys(run, "list")
    with engine.begin() as db:
        db.execute(update(CREDENTIALS).where(CREDENTIALS.c.tenant == MOVED_FROM).values(tenant=MOVED_TO))
    held = {(one.provider, one.tenant): one for one in stored_credentials(engine)}
    engine.dispose()
    return held, said


def secrets_of(api_key: str) -> list[bytes]:
    """What nobody may find of an issued key: its secret, and what that signs with, as bytes and in hex."""
    secret = api_key.partition(".")[2]
    signs = signing_key(secret)
    return [secret.encode(), signs, signs.hex().encode()]


def made_with(run: Running, requests: list[LlmRequest]) -> dict[tuple[str, str], set[tuple[str | None, str]]]:
    """With which keys the calls of these requests were made and whose they were, by provider and tenant, once all are answered."""
    assert len(ask(run, requests, 200)) == len(requests)
    usages = all_usages(run, CODEC)
    found = defaultdict(set)
    for fact in (fact for request in requests for fact in usages.get(request["request_id"], ())):
        found[fact["provider"], fact["tenant"]].add((fact["credential_id"], fact["credential_owner"]))
    return dict(found)


def everything(run: Running) -> dict[str, bytes]:
    """What anybody can read of a deployment but its environment, by where it is."""
    places = {}
    for topic in all_topics(PROVIDER_NAMES):
        records = [part for one in log(run, topic) for part in (one.key(), one.value(), repr(one.headers()).encode())]
        places[f"topic {topic.name}"] = b"\n".join(part or b"" for part in records)
    store = Store(run.settings)
    told_of = len(all_usages(run, CODEC))
    assert eventually(lambda: store.rows("SELECT uniqExact(request_id) AS n FROM usage")[0]["n"] >= told_of)
    tables = store.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    )
    for name in (row["name"] for row in tables):
        places[f"ClickHouse {name}"] = b"".join(store.output(f"SELECT * FROM `{name}`", "RowBinary"))
    store.close()
    for name, address in run.monitoring.items():
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as page:
            places[f"metrics of {name}"] = page.read()
    folder = Path(run.stack.data_dir)
    for path in folder.rglob("*"):
        if path.is_file():
            places[f"file {path.relative_to(folder)}"] = path.read_bytes()
    return places


@pytest.mark.timeout(600)
def test_planted_keys_stay_where_they_were_put(pipeline: Running) -> None:
    """None is in a topic, in ClickHouse, a file of the ledger or a log, a metrics page or what a command prints; and each call is
    marked with whose key it was made with."""
    early = [one for name in MODELS for one in failing(name, "early")]
    assert made_with(pipeline, early) == {(name, "early"): {(None, "platform")} for name in MODELS}
    held, said = store_all(pipeline)
    own = {(name, "acme"): {(held[name, "acme"].credential_id, "tenant")} for name in MODELS}
    own |= {(name, "globex"): {(held[name, None].credential_id, "platform")} for name in MODELS}
    one_each = [(f"{name}/{MODELS[name]}", tenant) for name, tenant in own]
    taken = eventually(
        lambda: made_with(pipeline, [told("Hi.", model, tenant=tenant) for model, tenant in one_each]) == own
    )
    assert taken, "The workers never took the stored keys."
    assert made_with(pipeline, [one for name, tenant in own for one in failing(name, tenant)]) == own
    api_key = keys(pipeline, "issue", "--tenant", "acme").split()[0]
    said += keys(pipeline, "issued")
    signing = replace(pipeline, settings=pipeline.settings.model_copy(update={"api_key": SecretStr(api_key)}))
    assert len(ask(signing, failing("openai", "acme"), 200)) == len(failing("openai", "acme"))
    changed, refused = (told("Hi.", f"openai/{MODELS['openai']}", tenant=tenant) for tenant in (MOVED_TO, "refused"))
    answers = ask(pipeline, [changed, refused])
    assert "its row was changed" in answers[changed["request_id"]]["error"]["message"]
    assert held["openai", "refused"].credential_id in answers[refused["request_id"]]["error"]["message"]
    places = {"what commands print": said.encode(), **everything(pipeline)}
    for place in ("topic llm.requests.v1", "file complete.log", "metrics of complete"):
        assert places[place], place
    seen = [place for place, text in places.items() if CANARY.encode() in text]
    assert "topic llm.requests.v1" in seen, "the search does not see what is there"
    assert KEY_ID.encode() in places["topic llm.requests.v1"], "no request was signed"
    assert any(place.startswith("ClickHouse") for place in seen), "the search does not see what is there"
    line = base64.b64encode(KEY_ENCRYPTION_KEY)
    for secret in (
        KEY_ENCRYPTION_KEY,
        line,
        *secrets_of(api_key),
        *(key.encode() for key in (*SETTINGS.values(), *STORED.values(), REPEATED)),
    ):
        assert [place for place, text in places.items() if secret in text] == [], secret


def test_another_key_answers_while_a_limited_one_rests(pipeline: Running) -> None:
    """Told to wait for two minutes with one key, the call is made with the tenant's other one long before; so are those after it."""
    engine = open_database(pipeline.settings.database_url)
    at_hand = encryption_keys(pipeline.environment["MILLSTREAM_KEY_ENCRYPTION"], pipeline.environment)
    with engine.begin() as db:
        new = NewCredential("openai", "umbrella")
        ids = {add(db, at_hand, new, f"planted-umbrella-{one}", Change("ana", 1)).credential_id for one in "ab"}
    engine.dispose()
    model = f"openai/{MODELS['openai']}"

    def credentials_of(requests: list[LlmRequest]) -> set[str | None]:
        return {one for one, _ in made_with(pipeline, requests)["openai", "umbrella"]}

    assert eventually(lambda: credentials_of([told("Hi.", model, tenant="umbrella")]) <= ids)
    limited = told("Hi.", model, {"retry_after": 120, "times": 1}, tenant="umbrella")
    assert ask(pipeline, [limited], 60)[limited["request_id"]]["outcome"] == "completed"
    first, second = all_usages(pipeline, CODEC)[limited["request_id"]]
    assert {first["credential_id"], second["credential_id"]} == ids
    assert second["started_at"] < first["finished_at"] + 120_000_000
    assert credentials_of([told(f"Hi {n}.", model, tenant="umbrella") for n in range(20)]) == {second["credential_id"]}
