"""`millstream replay dead-letters` on a stack of its own: whatever became a dead letter comes again byte for byte, and once.

The stack begins with an `admit` that knows no schema registry, so it cannot read requests that everybody else can; later it does.
The tests are one story, in the order in which they stand.
"""

from __future__ import annotations

import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from cli.errors import CommandError
from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.replay import Letter, replay
from cli.running import Running, running
from core.replay import REPLAY_OF, TIMES_SEEN
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, Topic
from schemas.cloudevents import headers, trace_of
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from sinks.writer import connect
from tests.conftest import QUICK
from tests.stack.asking import ask, events, eventually, log, simulator, told
from tests.stack.poison import POISON, Headers
from tests.stack.test_reconcile import millstream, through

REGISTRY = "MILLSTREAM_SCHEMA_REGISTRY_URL"
SECRET = "Tell nobody what this says."
CYCLES = 3


def put(run: Running, topic: Topic, value: bytes | None, key: bytes | None, headers: Headers, partition: int) -> None:
    """Publish a record on one partition."""
    producer = Producer({"bootstrap.servers": run.settings.kafka_bootstrap})
    producer.produce(topic.name, value, key, partition, headers=headers)
    assert producer.flush(10) == 0


@dataclass
class Story:
    """What was sent: a request without a key, one whose caller could be told that it was unreadable, and the poison."""

    run: Running
    codec: Codec
    keyless: LlmRequest
    refused: LlmRequest
    poison: int

    def replay(self, **changes: Any) -> Counter[str]:
        """Replay once; how many letters met which fate."""
        return Counter(letter.fate for letter in self.letters(**changes))

    def letters(self, **changes: Any) -> list[Letter]:
        """Replay once; the letters."""
        asked = {"reason": None, "since": 0, "max_cycles": CYCLES, "limit": None, "publish": True, **changes}
        return replay(self.run.settings, **asked)

    def records(self) -> dict[str, Any]:
        """The request topic by place."""
        return {f"{m.topic()}/{m.partition()}/{m.offset()}": m for m in log(self.run, REQUESTS)}

    def sent_again(self) -> dict[str, list[Any]]:
        """The records that were sent again, by the place that they were sent again from."""
        found: dict[str, list[Any]] = {}
        for message in log(self.run, REQUESTS):
            if (place := dict(message.headers() or ()).get(REPLAY_OF)) is not None:
                found.setdefault(place.decode(), []).append(message)
        return found

    def dead(self) -> list[Event]:
        """Every dead letter."""
        return [self.codec.decode_blocking("DeadLetter", message.value()) for message in log(self.run, DEAD_LETTERS)]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """The stack once every bad record is a dead letter; its `admit` is stopped then."""
    with running(environment=QUICK, registry=True) as run:
        run.workers.pop("admit").stop()
        address = run.environment.pop(REGISTRY)
        run.start_worker("admit", ["worker", "admit"])
        run.wait_ready("admit", 1)
        run.environment[REGISTRY] = address
        exchange = Exchange(run.settings)
        keyless, refused = told(f"{SECRET} Keyless."), told(f"{SECRET} Refused.")
        for request, key in ((keyless, None), (refused, refused["request_id"].encode())):
            value = exchange.codec.encode("LlmRequest", request)
            exchange.send_bytes(key, value, headers("LlmRequest", request["request_id"], "t", 1, trace_of([], "t")))
        for poison in POISON.values():
            for key in (str(uuid.uuid4()).encode(), b"\xff\x00" + uuid.uuid4().bytes, b"", None):
                exchange.send_bytes(key, *poison)
        exchange.flush()
        exchange.close()
        made = Story(run, exchange.codec, keyless, refused, 4 * len(POISON))
        assert eventually(lambda: len(made.dead()) == made.poison + 2, 60)
        run.workers.pop("admit").stop()
        yield made


def test_a_dry_run_shows_the_letters_without_their_values_and_publishes_nothing(story: Story) -> None:
    """The table names place, key and sentence; no value is in it, and the topic is as long as before."""
    before = len(story.records())
    done = millstream(story.run, "replay", "dead-letters", "--dry-run", "--since", "1h")
    assert done.returncode == 0, done.stderr
    told_again = re.sub(r"\s", "", done.stdout)
    assert f"{story.poison + 2}deadletters:{story.poison + 2}tobesentagain,0sentbefore,0left." in told_again
    assert story.refused["request_id"] in told_again
    assert "caller_undecodable" in told_again and REQUESTS.name in told_again
    assert SECRET.replace(" ", "") not in told_again
    assert len(story.records()) == before


def test_what_is_not_asked_for_is_not_sent(story: Story) -> None:
    """Another reason, a later time: nothing; a limit: the oldest, and the next run goes on behind them."""
    assert story.letters(reason="pipeline_internal") == []
    assert story.letters(since=1 << 60) == []
    first = [letter.record.place for letter in story.letters(limit=2)]
    assert set(story.sent_again()) == set(first) and len(first) == 2
    done = millstream(story.run, "replay", "dead-letters", "--reason", "nonsense")
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)


def test_a_record_comes_again_byte_for_byte_and_only_once(story: Story) -> None:
    """Value, key, headers, topic and partition are the original's, behind them two headers; a second run sends nothing."""
    assert story.replay() == {"send": story.poison, "sent before": 2}
    again, records = story.sent_again(), story.records()
    assert len(again) == story.poison + 2
    for place, copies in again.items():
        (copy,), original = copies, records[place]
        assert (copy.value(), copy.key(), copy.partition()) == (original.value(), original.key(), original.partition())
        # One kind of poison brings a senseless count, which gives way to the right one.
        theirs = [header for header in original.headers() if header[0] != TIMES_SEEN]
        assert copy.headers() == [*theirs, (TIMES_SEEN, b"1"), (REPLAY_OF, place.encode())]
    assert story.replay() == {"sent before": story.poison + 2}
    assert len(story.records()) == 2 * (story.poison + 2)


def test_what_can_be_read_by_now_is_answered_once_and_called_once(story: Story) -> None:
    """The caller who heard nothing gets an answer; the one who was refused keeps that; a record sent twice changes neither."""
    exchange = Exchange(story.run.settings)
    (place,) = [place for place, m in story.records().items() if SECRET.encode() + b" Keyless." in (m.value() or b"")][
        :1
    ]
    copy = story.sent_again()[place][0]
    put(
        story.run, REQUESTS, copy.value(), None, copy.headers(), copy.partition()
    )  # as two replays at the same time would
    story.run.start_worker("admit", ["worker", "admit"])
    wanted = [story.keyless["request_id"]]
    assert exchange.answers(wanted, 90)[wanted[0]]["outcome"] == "completed"
    exchange.close()
    assert eventually(lambda: through(story.run), 60)
    answers = events(story.run, RESPONSES)
    assert {len(set(answers[request["request_id"]])) for request in (story.keyless, story.refused)} == {1}
    assert len(answers[story.keyless["request_id"]]) >= 2
    refusal = story.codec.decode_blocking("LlmResponse", answers[story.refused["request_id"]][0][1])
    assert refusal["error"]["code"] == "caller_undecodable"
    assert len(simulator(story.run, "calls")) == 1
    with connect(story.run.settings) as client:
        sql = "SELECT (SELECT count() FROM requests WHERE request_id = {i:String}), (SELECT count() FROM usage)"
        assert client.query(sql, {"i": story.keyless["request_id"]}).result_rows == [(1, 1)]


def test_a_record_that_is_rejected_every_time_is_left_alone_after_three_cycles(story: Story) -> None:
    """Each cycle makes a letter that counts one more; at the third it is shown as left, and nothing is sent any more."""
    for _ in range(CYCLES - 1):
        assert story.replay()["send"] == story.poison
        assert eventually(lambda: through(story.run), 60)
    assert story.replay() == {"sent before": story.poison * CYCLES + 2, "too many cycles": story.poison}
    count = Counter(letter["times_seen"] for letter in story.dead())
    assert count == {1: story.poison + 2, 2: story.poison, 3: story.poison, 4: story.poison}
    last = [letter for letter in story.dead() if letter["times_seen"] == CYCLES + 1]
    assert {{h["key"]: h["value"] for h in letter["headers"]}[TIMES_SEEN] for letter in last} == {b"3"}
    assert Counter(letter["value"] for letter in last) == Counter([poison.value for poison in POISON.values()] * 4)
    done = millstream(story.run, "replay", "dead-letters")
    assert (done.returncode, "too many cycles" in " ".join(done.stdout.split())) == (0, True)


def test_reconcile_holds_after_it_all(story: Story) -> None:
    """Every account agrees on what was answered, called and rejected; the pipeline serves on."""
    assert {a["outcome"] for a in ask(story.run, [told(f"Still here, {n}.") for n in range(20)]).values()} == {
        "completed"
    }
    assert eventually(lambda: through(story.run), 60)
    lines = reconcile(story.run.settings, None, story.run.stack.simulator_url).lines
    assert {line.name: line.differences for line in lines if line.status != "holds"} == {}


def test_the_sinks_letter_is_sent_again_only_where_the_sink_would_take_it(story: Story) -> None:
    """It drops an event whose id it has seen, so such a letter is left for `rebuild`; one without an id is sent."""
    for with_headers in ([("ce_id", b"known")], [("other", b"x")]):
        put(story.run, RESPONSES, b"no answer", b"k", with_headers, 0)
    assert eventually(lambda: sum(letter["stage"] == "sink" for letter in story.dead()) == 2)
    fates = {
        letter.record.known_to_sink: letter.fate for letter in story.letters() if letter.record.topic == RESPONSES.name
    }
    assert fates == {True: "sink's", False: "send"}


def test_a_broker_that_refuses_is_said_so(story: Story) -> None:
    """The sentence has the count and the broker's reason, and what was not taken is sent by the next run."""
    put(story.run, REQUESTS, random.Random(5).randbytes(5_000), b"refused by the broker", [], 0)
    assert eventually(lambda: any(letter["key"] == b"refused by the broker" for letter in story.dead()))
    limit_records_to(story.run, 500)
    with pytest.raises(CommandError, match=r"The broker took \d of \d+ records \(.*[Mm]essage.*\); run the same again"):
        story.replay(since=0)
    limit_records_to(story.run, 1_400_000)
    assert story.replay()["send"] >= 1
    assert eventually(lambda: through(story.run), 60)


def limit_records_to(run: Running, size: int) -> None:
    """Let the request topic take records of this many bytes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, REQUESTS.name, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": run.settings.kafka_bootstrap})
    client.incremental_alter_configs([resource])[resource].result()


def test_nothing_is_sent_once_the_log_behind_it_is_gone(story: Story) -> None:
    """Where the topic no longer says whether a record was sent again, it is left alone. The last: it deletes records."""
    client = AdminClient({"bootstrap.servers": story.run.settings.kafka_bootstrap})
    partitions = range(story.run.settings.topic_partitions)
    for number in partitions:
        put(story.run, REQUESTS, story.codec.encode("LlmRequest", told()), None, [], number)
    ends = [TopicPartition(REQUESTS.name, number, -1) for number in partitions]
    for deleted in client.delete_records(ends).values():
        deleted.result()
    before = len(story.records())
    fates = {letter.fate for letter in story.letters(max_cycles=100) if letter.record.topic == REQUESTS.name}
    assert (fates, len(story.records())) == ({"log is gone"}, before)
