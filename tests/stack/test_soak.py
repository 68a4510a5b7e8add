"""Workers killed under load: every request answered once, every call accounted for, no money left hanging."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.running import Running, running
from config import audit
from config.database import open_database
from core.topics import RESPONSES
from schemas.codec import Codec, Event
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask_one, events, eventually, simulator, told

CODEC = Codec()
REQUESTS = 3_000
RATE = 150
COMPLETE = ["worker", "complete", "--provider", "openai"]
WORKERS = {
    "admit": (["worker", "admit"], 1), "complete-0": (COMPLETE, 1), "complete-1": (COMPLETE, 1),
    "meter": (["worker", "meter"], 1),
}  # fmt: skip


class Soak:
    """What was left when the last answer had come."""

    def __init__(self, run: Running, asked: list[str], answers: dict[str, Event]) -> None:
        self.asked, self.answers = asked, answers
        self.totals = eventually(
            lambda: (t := self._totals(run)).unsettled == t.reserved_nano == t.unanswered == 0 and t, 60
        )
        self.totals = self.totals or self._totals(run)
        self.published = events(run, RESPONSES)
        self.usages = {usage["attempt_id"]: usage for usages in all_usages(run, CODEC).values() for usage in usages}
        self.calls: dict[str, list[Any]] = defaultdict(list)
        for call in simulator(run, "calls"):
            self.calls[call["client_request_id"]].append(call)

    @staticmethod
    def _totals(run: Running) -> audit.Totals:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            found = audit.totals(db)
        engine.dispose()
        return found


def torment(run: Running, stop: threading.Event) -> None:
    """kill -9 three times and SIGTERM once, now one `complete` worker, now the other; each is started again."""
    for number, (worker, deadly) in enumerate([(0, True), (1, True), (0, False), (1, True)]):
        if stop.wait(4.0):
            return
        name = f"complete-{worker}"
        child = run.workers.pop(name)
        child.kill() if deadly else child.stop(20)
        run.start_worker(name, COMPLETE)
        if number == 3:
            return


@pytest.fixture(scope="module")
def quiet() -> Iterator[Running]:
    """A pipeline of its own: two `complete` workers, and room for a lane of calls that wait."""
    with running(workers=WORKERS, environment={**QUICK, "MILLSTREAM_LANE_CONCURRENCY": "400"}) as run:
        yield run


@pytest.fixture(scope="module")
def soak(quiet: Running) -> Soak:
    rng = random.Random(7)
    exchange = Exchange(quiet.settings)
    asked = []
    stop = threading.Event()
    tormentor = threading.Thread(target=torment, args=(quiet, stop))
    tormentor.start()
    begun = time.monotonic()
    for number in range(REQUESTS):
        latency = 5_000 if rng.random() < 0.02 else int(rng.uniform(5, 1_000))
        request = told(f"Number {number}.", sim={"latency_ms": latency}, tenant=f"tenant-{number % 7}")
        asked.append(request["request_id"])
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        exchange.send(request)
    exchange.flush()
    answers = exchange.answers(asked, 90)
    stop.set()
    tormentor.join()
    exchange.close()
    return Soak(quiet, asked, answers)


def test_every_request_has_one_answer(soak: Soak) -> None:
    """Nobody waits in vain, and a republished answer is the same bytes under the same event id."""
    assert set(soak.answers) == set(soak.asked)
    assert {a["outcome"] for a in soak.answers.values()} == {"completed"}
    different = [request_id for request_id in soak.asked if len(set(soak.published[request_id])) != 1]
    assert different == []


def test_no_finished_call_was_made_twice(soak: Soak) -> None:
    """Each request has exactly one succeeded call, and the simulator saw each attempt once."""
    succeeded = Counter(u["request_id"] for u in soak.usages.values() if u["status"] == "succeeded")
    assert succeeded == Counter(soak.asked)
    assert [attempt for attempt, calls in soak.calls.items() if len(calls) != 1] == []


def test_every_call_has_its_usage_and_a_cut_off_one_says_so(soak: Soak) -> None:
    """What the provider saw is on the usage topic; a call that a kill cut off is `outcome_unknown`, of unknown cost."""
    assert set(soak.calls) <= set(soak.usages)
    cut_off = [attempt for attempt, (call,) in soak.calls.items() if call["outcome"] == "cut_off"]
    assert len(cut_off) > 0, "no call was in flight at any kill: the soak proves nothing"
    assert {soak.usages[attempt]["status"] for attempt in cut_off} == {"outcome_unknown"}
    unknown = [u for u in soak.usages.values() if u["status"] == "outcome_unknown"]
    assert {(u["cost_nano_usd"], u["cost_status"]) for u in unknown} == {(None, "unknown")}


def test_the_cost_is_the_providers_to_the_nano_dollar(soak: Soak) -> None:
    """Call by call, what was priced is what the simulator charged, and the ledger spent their sum."""
    known = {attempt: u["cost_nano_usd"] for attempt, u in soak.usages.items() if u["status"] == "succeeded"}
    charged = {attempt: soak.calls[attempt][0]["cost_nano_usd"] for attempt in known}
    assert known == charged
    assert soak.totals.spent_nano == sum(known.values())


def test_no_reservation_is_left_open(soak: Soak) -> None:
    """All is answered and settled; only the bounds of calls of unknown cost are still counted."""
    assert (soak.totals.unanswered, soak.totals.unsettled, soak.totals.reserved_nano) == (0, 0, 0)
    bounds = [u["reserved_nano_usd"] for u in soak.usages.values() if u["status"] == "outcome_unknown"]
    assert soak.totals.unknown_nano == sum(bounds)


def test_a_worker_leaves_in_time_and_its_call_is_delivered_again(soak: Soak, quiet: Running) -> None:
    """SIGTERM during a call that never ends: out within the drain limit, and the request is answered by the next worker."""
    request = told(sim={"fault": "hang", "times": 1, "key": "never-ends"})
    exchange = Exchange(quiet.settings)
    exchange.send(request)
    exchange.flush()
    assert eventually(lambda: simulator(quiet, "ledger")["overall"]["in_flight"] == 1)
    for name in ("complete-0", "complete-1"):
        child = quiet.workers.pop(name)
        child.signal(15)
        # TimeoutError when it is still there after its drain limit and the time that a process needs to end.
        assert child.wait(quiet.settings.drain_seconds + 6) == 0
    quiet.start_worker("complete-0", COMPLETE)
    answer = exchange.answers([request["request_id"]], 90)[request["request_id"]]
    exchange.close()
    assert (answer["outcome"], answer["attempts"]) == ("completed", 2)
    first, second = all_usages(quiet, CODEC)[request["request_id"]]
    assert (first["status"], second["reason"]) == ("outcome_unknown", "redelivery")


def test_fail_answers_that_the_outcome_is_unknown(soak: Soak, quiet: Running) -> None:
    """A request that would rather fail than pay twice is not called again after a crash."""
    request = told(sim={"fault": "hang"}, on_unknown_outcome="fail")
    exchange = Exchange(quiet.settings)
    exchange.send(request)
    exchange.flush()
    assert eventually(lambda: simulator(quiet, "ledger")["overall"]["in_flight"] == 1)
    quiet.workers.pop("complete-0").kill()
    quiet.start_worker("complete-0", COMPLETE)
    answer = exchange.answers([request["request_id"]], 90)[request["request_id"]]
    exchange.close()
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "provider_outcome_unknown", 1)
    assert ask_one(quiet, told("Still here."))["outcome"] == "completed"
