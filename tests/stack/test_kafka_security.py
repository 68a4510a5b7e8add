"""The whole pipeline on a Kafka that asks who its clients are, encrypts, and allows each of them no more than docs/security.md says."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from cli import kafka
from cli.migrate import migrate
from cli.running import LOCAL_SETTINGS, WORKERS, Running
from config.kafka import librdkafka
from config.settings import PROVIDER_NAMES, Settings, settings_in
from core.topics import CONTROL, REQUESTS, RESPONSES, USAGE, Topic, all_topics, calls
from local.broker import KafkaBroker
from local.kafka_security import BrokerSecurity
from local.processes import free_port
from local.stack import Server, local_servers
from streams.reply_topics import ReplyTopics
from tests.conftest import QUICK
from tests.stack.asking import ask, eventually, log, simulator, told
from tests.stack.scrape import scrape, total
from tests.stack.test_webhooks import SECRET, Receiver, publish

ROOT = Path(__file__).parent.parent.parent
PASSWORDS = {name: uuid.uuid4().hex for name in ("stages", "sink", "webhooks", "application", "operator")}
ANSWERS, ELSEWHERE = Topic("answers.application", "LlmResponse", 0), "other.llm.requests.v1"


#: The right of whoever has the client certificate, which is no user of the page.
BY_CERTIFICATE = AclBinding(
    ResourceType.TOPIC, "llm.", ResourcePatternType.PREFIXED, "User:CN=client", "*", AclOperation.DESCRIBE,
    AclPermissionType.ALLOW,
)  # fmt: skip


@dataclass(frozen=True)
class Secured:
    """A running pipeline whose clients reach Kafka as users; `run` has the operator's rights."""

    run: Running
    security: BrokerSecurity

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        """The whole environment of a process of this user."""
        return {**self.run.environment, **self.security.environment("SECURE", user), **changes}

    def settings(self, user: str) -> Settings:
        return settings_in(self.environment(user))

    def millstream(self, user: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run one command as this user, for at most 90 s."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments], env=self.environment(user, **changes),
            capture_output=True, text=True, timeout=90, cwd=ROOT, check=False,
        )  # fmt: skip

    def plainly(self) -> Running:
        """The same pipeline, looked at through the listener that asks for nothing."""
        settings = settings_in({**self.run.environment, **self.run.stack.environment()})
        return Running(self.run.stack, self.run.environment, settings, {})


def documented() -> list[AclBinding]:
    """The rights that docs/security.md gives, from its own commands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    for option in ("--operation", "--topic", "--group"):
        parser.add_argument(option, action="append", default=[])
    found = []
    for line in re.findall(r"^\$acls (.+)$", (ROOT / "docs" / "security.md").read_text("utf-8"), re.MULTILINE):
        asked = parser.parse_args(shlex.split(line))
        pattern = ResourcePatternType[asked.resource_pattern_type.upper()]
        names = [(ResourceType.TOPIC, name) for name in asked.topic] + [
            (ResourceType.GROUP, name) for name in asked.group
        ]
        found += [
            AclBinding(kind, name, pattern, asked.allow_principal, "*", AclOperation[operation.upper()], AclPermissionType.ALLOW)
            for kind, name in names
            for operation in asked.operation
        ]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    def listen(servers: Mapping[str, Server]) -> None:
        broker = servers["kafka"]
        assert isinstance(broker, KafkaBroker)
        broker.security = BrokerSecurity(broker.data_dir / "security", PASSWORDS, authorize=True)

    with local_servers(before=listen) as (stack, servers):
        broker = servers["kafka"]
        assert isinstance(broker, KafkaBroker) and broker.security is not None
        security = broker.security
        admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap})
        for done in admin.create_acls([*documented(), BY_CERTIFICATE]).values():
            done.result(30)
        for done in admin.create_topics([NewTopic(name, 1, 1) for name in (ANSWERS.name, ELSEWHERE)]).values():
            done.result(30)
        ours = {**LOCAL_SETTINGS, **QUICK, **stack.environment(), **security.environment("SECURE", "operator")}
        whole = {**os.environ, **ours, "MILLSTREAM_REPLY_TOPICS": '["answers.*"]', "PYTHONUNBUFFERED": "1"}
        run = Running(stack, whole, settings_in(whole), {})
        migrate(run.settings)
        try:
            for name, (arguments, _) in WORKERS.items():
                run.start_worker(
                    name, arguments, security.environment("SECURE", "sink" if name == "sink" else "stages")
                )
            for name, (_, lanes) in WORKERS.items():
                run.wait_ready(name, lanes)
            yield Secured(run, security)
        finally:
            run.stop()


def test_top_looks_at_an_idle_pipeline(secured: Secured) -> None:
    """Before the first call there is a view without latency, drawn and as JSON."""
    assert secured.millstream("operator", "top", "--once").returncode == 0
    looked = secured.millstream("operator", "top", "--once", "--json")
    assert json.loads(looked.stdout)["minute"]["calls"] == 0


def test_requests_are_answered_and_stored(secured: Secured) -> None:
    """Requests of an application go through every stage and the sink over TLS with SCRAM, each process with its own few rights."""
    mine = Running(secured.run.stack, secured.run.environment, secured.settings("application"), {})
    producer = Producer({**librdkafka(mine.settings), "log_level": 0})
    producer.produce(REQUESTS.name, b"junk")
    assert producer.flush(30) == 0
    requests = [told(f"Number {n}.") for n in range(5)] + [told("Here, too.", reply_topic=ANSWERS.name)]
    found = ask(mine, requests)
    assert [found[request["request_id"]]["outcome"] for request in requests] == ["completed"] * 6
    copies = [record.key().decode() for record in log(secured.plainly(), ANSWERS)]
    assert copies == [requests[-1]["request_id"]]

    def stored() -> bool:
        sink = scrape(secured.run, "sink")
        rows = total(sink, "millstream_sink_rows_total", table="usage")
        return rows >= 6 and total(sink, "millstream_sink_lag_records") == 0

    assert eventually(stored)


def test_alerts_go_to_webhooks(secured: Secured) -> None:
    """A sink of webhooks reads the alerts that the stages may publish, and commits what it has sent on, with its two rights alone."""
    receiver = Receiver(free_port())
    webhooks = {
        "MILLSTREAM_ALERT_WEBHOOKS": f'["http://127.0.0.1:{receiver.server_port}/in?key=1"]',
        "MILLSTREAM_ALERT_WEBHOOK_SECRET": SECRET, "MILLSTREAM_ALERT_WEBHOOKS_PRIVATE": "true",
    }  # fmt: skip
    user = secured.security.environment("SECURE", "webhooks")
    secured.run.start_worker("webhooks", ["sink", "webhooks"], {**user, **webhooks})
    first = publish(secured.settings("stages"), 0, 1)
    assert eventually(lambda: receiver.told() == first, 60), receiver.told()
    assert secured.run.workers["webhooks"].stop(20) == 0
    receiver.got.clear()
    secured.run.start_worker("webhooks", ["sink", "webhooks"], {**user, **webhooks})
    more = publish(secured.settings("stages"), 1, 1)
    assert eventually(lambda: receiver.told() == more, 60), receiver.told()


def test_an_application_sends_and_reads(secured: Secured) -> None:
    """`send` prints the answer and `tail` the same record, both with an application's rights alone."""
    sent = secured.millstream("application", "send", "Hello there.", "--model", "openai/gpt-5-mini", "--json")
    assert sent.returncode == 0, sent.stderr
    request_id = json.loads(sent.stdout)["request_id"]
    tail = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "tail", "responses", "--from-beginning", "--json"],
        env=secured.environment("application"), stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert tail.stdout is not None
        assert any(json.loads(line)["request_id"] == request_id for line in tail.stdout)
    finally:
        tail.terminate()
        tail.communicate(timeout=30)


@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate"],
        ["top", "--once", "--json"],
        ["replay", "dead-letters"],
        ["cancel", str(uuid.uuid4())],
        ["reprice", "--since", "1h", "--model", "openai/gpt-5-mini", "--price", "input=9,output=9"],
        ["reconcile", "--json"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_the_operator_does_all_that_is_documented(arguments: list[str], secured: Secured) -> None:
    """Each command ends well with the rights that the page gives an operator, those that publish too; nothing is broken after them."""
    done = secured.millstream("operator", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["worker", "admit"], ["worker", "complete"], ["sink"], ["send", "Hello."], ["tail", "usage"], ["reconcile"], ["top", "--once"], ["migrate"]],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_password_is_said_at_once(arguments: list[str], secured: Secured) -> None:
    """A process with a wrong password ends by itself with one sentence that does not show it, and reaches no provider."""
    before = len(simulator(secured.run, "calls?since=0"))
    wrong = uuid.uuid4().hex
    done = secured.millstream("operator", *arguments, MILLSTREAM_KAFKA_SASL_PASSWORD=wrong)
    said = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, len(said)) == (2, 1), done.stderr
    assert "refuses the user 'operator' with SCRAM-SHA-512" in said[0] and "MILLSTREAM_KAFKA_SASL_USERNAME" in said[0]
    assert wrong not in done.stdout + done.stderr
    assert len(simulator(secured.run, "calls?since=0")) == before


def test_an_unknown_authority_is_said(secured: Secured, tmp_path: Path) -> None:
    """A broker whose certificate another authority would have to vouch for gets no password, and the command says what to check."""
    other = BrokerSecurity(tmp_path, {"ana": "unused"})
    done = secured.millstream("operator", "tail", "usage", MILLSTREAM_KAFKA_SSL_CA_LOCATION=str(other.ca))
    assert done.returncode == 2
    assert "There is no TLS connection to Kafka" in done.stderr and "MILLSTREAM_KAFKA_SSL_CA_LOCATION" in done.stderr


def test_a_worker_without_its_rights_ends(secured: Secured) -> None:
    """A stage run as an application's user says which topic it is not shown, and ends before it reads anything."""
    done = secured.millstream("application", "worker", "admit")
    assert done.returncode == 2
    assert "llm.control.v1 does not exist" in done.stderr and "no ACL shows it to this user" in done.stderr


WAYS = [
    (listener, mechanism)
    for listener in ("SECURE", "SASL")
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
]


@pytest.mark.parametrize(("listener", "mechanism"), [*WAYS, ("TLS", "")])
def test_both_libraries_go_every_way(listener: str, mechanism: str, secured: Secured) -> None:
    """With and without TLS, by each mechanism, and by a certificate, librdkafka and aiokafka both find the topics they may see."""
    settings = settings_in(secured.security.environment(listener, "operator", mechanism))
    kafka.need_topics(settings, [REQUESTS])

    async def partitions() -> int | None:
        topics = ReplyTopics(settings)
        try:
            return await topics.partitions(REQUESTS.name)
        finally:
            await topics.close()

    assert asyncio.run(asyncio.wait_for(partitions(), 30)) == secured.run.settings.topic_partitions


@pytest.mark.parametrize("topic", [calls("openai").name, USAGE.name, RESPONSES.name, CONTROL.name, ELSEWHERE])
def test_an_application_writes_nothing_but_its_requests(topic: str, secured: Secured) -> None:
    """What stages believe, and another deployment's requests, are closed to an application: the broker refuses the record."""
    refused: list[KafkaError] = []
    producer = Producer({**librdkafka(secured.settings("application")), "log_level": 0})
    producer.produce(topic, b"forged", on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(30) == 0
    assert [error.code() for error in refused] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]


def test_no_password_is_anywhere(secured: Secured) -> None:
    """After all of this no user's password is in a log, a topic, the ledger's file or an argument of a process."""
    folder = Path(secured.run.stack.data_dir)
    children = [child.pid for child in secured.run.workers.values()] + list(secured.run.stack.processes.values())
    places = {f"arguments of {pid}": Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    files = [
        path
        for kind in ("*.log", "ledger.db*")
        for path in folder.rglob(kind)
        if (folder / "kafka/log") not in path.parents
    ]
    places |= {str(path): path.read_bytes() for path in files}
    for topic in all_topics(PROVIDER_NAMES):
        records = log(secured.plainly(), topic)
        places[topic.name] = b"".join(
            (r.key() or b"") + (r.value() or b"") + repr(r.headers()).encode() for r in records
        )
    assert {f"{name}.log" for name in WORKERS} <= {path.name for path in files}
    assert places[REQUESTS.name] and places[RESPONSES.name]
    for password in PASSWORDS.values():
        assert [place for place, content in places.items() if password.encode() in content] == []


def test_the_workers_had_nothing_to_complain_of(secured: Secured) -> None:
    """No worker was refused anything: the rights on the page are enough, the control topic's and the metrics' included."""
    for name, child in secured.run.workers.items():
        assert not re.findall(r"^.* (?:WARNING|ERROR) .*$|.*Authorization.*", child.log_tail(10_000), re.MULTILINE), (
            name
        )
