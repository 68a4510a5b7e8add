"""Limits through the real pipeline: who is refused and why, what a change does to running traffic, who waits, and that it adds up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import Proof, reconcile
from cli.running import Running, running
from config import limits
from config.database import open_database, reading
from config.limit_models import COUNTERS
from config.limit_uses import uses
from core.attempts import attempt_id
from core.limits import Limit
from schemas.codec import Codec, Event
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask, ask_one, eventually, simulator, told, usages_of
from tests.stack.scrape import scrape, total

ROOT = Path(__file__).parent.parent.parent
MODEL, STRONG = "openai/gpt-5-mini", "openai/gpt-5"
CODEC = Codec()
#: Records that a lane holds at once; half as many may wait for room, and half of these in one line.
IN_FLIGHT = 40
LINES = ("used of limits = settled calls and requests", "held of limits = held for open requests")


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Running]:
    """A pipeline that serves only tenants that a limit names."""
    environment = {
        **QUICK, "MILLSTREAM_UNKNOWN_ACCOUNTS": "refuse", "MILLSTREAM_LANE_IN_FLIGHT": str(IN_FLIGHT),
        "MILLSTREAM_DEFAULT_INPUT_USD_PER_MTOK": "5", "MILLSTREAM_DEFAULT_OUTPUT_USD_PER_MTOK": "20",
    }  # fmt: skip
    with running(environment=environment) as run:
        yield run


def millstream(run: Running, *arguments: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], env={**run.environment, "COLUMNS": "160", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, cwd=run.stack.data_dir, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def put(run: Running, *wanted: Limit) -> None:
    """Set limits at once."""
    engine = open_database(run.settings.database_url)
    with engine.begin() as db:
        limits.change(db, limits.Edit(wanted), "test", time.time_ns() // 1_000)
    engine.dispose()


def levels(run: Running, account: str) -> dict[str, tuple[int, int]]:
    """Used and reserved of the account's own limits, by what is limited."""
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        found = uses(db, time.time_ns() // 1_000, account)
    engine.dispose()
    return {
        use.limit.subject: (use.level.used, use.level.reserved)
        for use in found
        if use.level is not None and use.account == account
    }


def outcomes(answers: dict[str, Event]) -> list[str]:
    return sorted(answer["outcome"] for answer in answers.values())


def waiting(run: Running) -> float:
    """How many requests wait for room, as Prometheus is told."""
    return total(scrape(run, "admit"), "millstream_waiting_requests")


def calls_of(run: Running, requests: list[Any]) -> int:
    """How many calls a provider has seen of these requests, by its own account."""
    ids = {attempt_id(request["request_id"], number) for request in requests for number in (1, 2, 3)}
    return sum(call["client_request_id"] in ids for call in simulator(run, "calls?since=0"))


def test_a_budget_refuses_what_does_not_fit_and_nobody_is_called(pipeline: Running) -> None:
    """The answer names the account, the limit, what is left and that waiting is of no use; it costs and holds nothing."""
    millstream(pipeline, "limits", "set", "poor", "--user", "ana", "--usd-per-day", "0.000001")
    request = told(tenant="poor", user="ana")
    answer = ask_one(pipeline, request)
    assert (answer["outcome"], answer["attempts"], answer["cost_nano_usd"]) == ("refused", 0, 0)
    assert (answer["error"]["code"], answer["error"]["retry_after_ms"]) == ("policy_budget_exceeded", None)
    said = answer["error"]["message"]
    assert "Account /poor/user:ana has a limit of 0.000001 USD per day; 0.000001 USD of it are left" in said
    assert "more than the whole limit" in said
    assert answer["decisions"][0]["model"] == MODEL
    assert calls_of(pipeline, [request]) == 0
    assert levels(pipeline, "/poor/user:ana") == {"usd per day": (0, 0)}


def test_a_model_without_a_price_is_charged_the_default_one(pipeline: Running) -> None:
    """Under a limit of money it is called, costs its tokens at the deployment's price, and the usage event says which that is."""
    millstream(pipeline, "limits", "set", "novel", "--usd-per-day", "5")
    request = told(tenant="novel", model="openai/gpt-unpriced")
    answer = ask_one(pipeline, request)
    assert (answer["outcome"], answer["cost_status"]) == ("completed", "priced")
    (usage,) = all_usages(pipeline, CODEC)[request["request_id"]]
    read, wrote = usage["tokens"]["input_uncached"], usage["tokens"]["output_text"]
    assert usage["cost_nano_usd"] == answer["cost_nano_usd"] == read * 5_000 + wrote * 20_000 > 0
    assert usage["price_source"] == "default price"
    expected = {"usd per day": (usage["cost_nano_usd"], 0)}
    assert eventually(lambda: levels(pipeline, "/novel") == expected), levels(pipeline, "/novel")


def test_so_many_a_day_and_no_more(pipeline: Running) -> None:
    """Of many at once exactly as many pass as the limit says; the others are told when to ask again, and reach no provider."""
    millstream(pipeline, "limits", "set", "daily", "--requests-per-day", "3", "--usd-per-month", "5")
    requests = [told(tenant="daily") for _ in range(8)]
    answers = ask(pipeline, requests)
    assert outcomes(answers) == ["completed"] * 3 + ["refused"] * 5
    refused = [request for request in requests if answers[request["request_id"]]["outcome"] == "refused"]
    for answer in (answers[request["request_id"]] for request in refused):
        assert answer["error"]["code"] == "policy_quota_exceeded"
        assert 0 < answer["error"]["retry_after_ms"] <= 86_400_000
        assert (
            "Account /daily has a limit of 3 requests per day; 0 requests of it are left" in answer["error"]["message"]
        )
    assert calls_of(pipeline, refused) == 0
    spent = sum(answer["cost_nano_usd"] or 0 for answer in answers.values())
    expected = {"requests per day": (3, 0), "usd per month": (spent, 0)}
    assert eventually(lambda: levels(pipeline, "/daily") == expected), levels(pipeline, "/daily")
    shown = json.loads(millstream(pipeline, "limits", "show", "daily", "--json"))
    assert [(one["used"], one["left"]) for one in shown] == [(3, 0), (spent, 5 * 10**9 - spent)]


def test_a_change_acts_on_running_traffic_at_once(pipeline: Running) -> None:
    """What was admitted before it ends well; whatever is sent after it has to fit into the new limit, also a raised one."""
    millstream(pipeline, "limits", "set", "busy", "--tokens-per-day", "100000000")
    exchange = Exchange(pipeline.settings)
    before = [told(tenant="busy", sim={"latency_ms": 8_000}) for _ in range(10)]
    for request in before:
        exchange.send(request)
    exchange.flush()
    assert eventually(lambda: levels(pipeline, "/busy")["tokens per day"][1] > 10 * 4_096)
    put(pipeline, Limit("/busy", "concurrent", None, 10))
    after = [told(tenant="busy") for _ in range(5)]
    refused = ask(pipeline, after)
    assert outcomes(refused) == ["refused"] * 5
    assert {answer["error"]["code"] for answer in refused.values()} == {"policy_rate_limited"}
    put(pipeline, Limit("/busy", "concurrent", None, 20))
    assert outcomes(ask(pipeline, [told(tenant="busy") for _ in range(5)])) == ["completed"] * 5
    assert outcomes(exchange.answers([request["request_id"] for request in before], 90)) == ["completed"] * 10
    exchange.close()
    assert calls_of(pipeline, after) == 0
    assert eventually(lambda: levels(pipeline, "/busy")["concurrent"] == (0, 0))


def test_who_waits_is_admitted_when_there_is_room(pipeline: Running) -> None:
    """One call at a time, all of them in the end, while another tenant is answered at once; whose deadline comes first is refused."""
    millstream(pipeline, "limits", "set", "patient", "--concurrent", "1")
    millstream(pipeline, "limits", "set", "brisk", "--concurrent", "1")
    exchange = Exchange(pipeline.settings)
    requests = [told(tenant="patient", on_limit="wait", sim={"latency_ms": 700}) for _ in range(7)]
    for request in requests:
        exchange.send(request)
    exchange.flush()
    assert eventually(lambda: levels(pipeline, "/patient")["concurrent"] == (0, 1))
    soon = (time.time_ns() // 1_000) + 2_000_000
    late = ask_one(pipeline, {**told(tenant="patient", on_limit="wait"), "deadline": soon})
    assert (late["outcome"], late["error"]["code"]) == ("refused", "policy_rate_limited")
    assert late["error"]["retry_after_ms"]
    assert ask_one(pipeline, told(tenant="brisk"))["outcome"] == "completed"
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert outcomes(answers) == ["completed"] * 7
    usages = eventually(lambda: len(found := usages_of(pipeline, CODEC, answers)) == 7 and found)
    calls = sorted((usage["started_at"], usage["finished_at"]) for usage in usages)
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(calls))


def test_past_the_bound_a_request_is_refused_and_others_go_on(pipeline: Running) -> None:
    """A crowd that waits for one tenant's limit leaves the lane to others; those too many are told when to ask again."""
    millstream(pipeline, "limits", "set", "crowd", "--concurrent", "1")
    exchange = Exchange(pipeline.settings)
    requests = [told(tenant="crowd", on_limit="wait", sim={"latency_ms": 8_000})]
    exchange.send(requests[0])
    exchange.flush()
    assert eventually(lambda: levels(pipeline, "/crowd")["concurrent"] == (0, 1))
    requests += [told(tenant="crowd", on_limit="wait") for _ in range(60)]
    for request in requests[1:]:
        exchange.send(request)
    exchange.flush()
    assert ask_one(pipeline, told(tenant="brisk"))["outcome"] == "completed"
    assert eventually(lambda: waiting(pipeline) == IN_FLIGHT // 4)
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert waiting(pipeline) == 0
    refused = [answer for answer in answers.values() if answer["outcome"] == "refused"]
    assert (len(answers), len(refused)) == (61, 61 - 1 - IN_FLIGHT // 4)
    assert all(answer["error"]["retry_after_ms"] for answer in refused)


def test_a_crash_forgets_nobody_who_waits(pipeline: Running) -> None:
    """After `kill -9` of the admit process those who waited are delivered again, and admitted when there is room."""
    millstream(pipeline, "limits", "set", "lasting", "--concurrent", "1")
    exchange = Exchange(pipeline.settings)
    requests = [told(tenant="lasting", on_limit="wait", sim={"latency_ms": 2_500}) for _ in range(4)]
    for request in requests:
        exchange.send(request)
    exchange.flush()
    assert eventually(lambda: levels(pipeline, "/lasting")["concurrent"] == (0, 1))
    pipeline.workers["admit"].kill()
    pipeline.start_worker("admit", ["worker", "admit"])
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert outcomes(answers) == ["completed"] * 4
    assert eventually(lambda: levels(pipeline, "/lasting")["concurrent"] == (0, 0))


def test_a_tenant_or_user_that_no_limit_names_is_refused(pipeline: Running) -> None:
    """Here only named ones are served; the answer names the account, and the next request is served once a limit stands."""
    millstream(pipeline, "limits", "set", "listed", "--user", "bo", "--concurrent", "5")
    requests = [told(tenant="stranger"), told(tenant="listed", user="ana")]
    answers = ask(pipeline, requests)
    for request, account in zip(requests, ("/stranger", "/listed/user:ana"), strict=True):
        answer = answers[request["request_id"]]
        assert (answer["outcome"], answer["error"]["code"]) == ("refused", "policy_unknown_account")
        assert account in answer["error"]["message"]
    assert calls_of(pipeline, requests) == 0
    millstream(pipeline, "limits", "set", "stranger", "--requests-per-day", "5", "--soft")
    again = ask(pipeline, [told(tenant="stranger"), told(tenant="listed", user="bo"), told(tenant="listed")])
    assert outcomes(again) == ["completed"] * 3


def test_a_tenant_near_its_limit_gets_the_cheaper_model(pipeline: Running) -> None:
    """From 80 % of its requests on, a tenant's answers come from the cheaper model and say so, then it is refused; others keep theirs."""
    for tenant in ("thrifty", "lavish"):
        millstream(pipeline, "limits", "set", tenant, "--requests-per-day", "5" if tenant == "thrifty" else "100")
    options = "--task", "draft", "--target", STRONG, "--target", MODEL, "--degrade-from", "80", "--degrade-to", MODEL
    millstream(pipeline, "routes", "add", "draft", *options)

    def draft(tenant: str) -> Any:
        return ask_one(pipeline, {**told(tenant=tenant, task="draft"), "model": None})

    assert eventually(lambda: draft("lavish")["route"] == "draft")
    *better, cheaper, refused = (draft("thrifty") for _ in range(6))
    of_another = draft("lavish")
    for answer in (*better, of_another):
        assert (f"{answer['provider']}/{answer['model']}", answer["downgraded_from"]) == (STRONG, None)
    assert (f"{cheaper['provider']}/{cheaper['model']}", cheaper["downgraded_from"]) == (MODEL, STRONG)
    assert {each["model"]: each["reason"] for each in cheaper["decisions"]}[STRONG] == (
        "dropped: 80 % of requests per day of /thrifty are used or held, and the route degrades from 80 % on"
    )
    assert (refused["outcome"], refused["error"]["code"]) == ("refused", "policy_quota_exceeded")


def through(run: Running) -> Any:
    """The comparisons, once everything that was sent is acknowledged by every stage and the sink."""

    def found() -> Proof | None:
        proof = reconcile(run.settings, None, run.stack.simulator_url)
        marks = proof.marks.marks.values()
        behind = any(mark.not_yet(mark.handled) or mark.not_yet(mark.stored) for mark in marks)
        return None if behind or proof.marks.under_way else proof

    return eventually(found, 60)


def test_every_account_agrees_afterwards_until_a_counter_is_changed(pipeline: Running) -> None:
    """`reconcile` holds on all of it; a counter that says one nano-USD more, or holds a place for nobody, is named."""
    proof = through(pipeline)
    assert {line.name: line.differences for line in proof.lines if line.status == "BROKEN"} == {}
    by_name = {line.name: line for line in proof.lines}
    assert [by_name[name].status for name in LINES] == ["holds", "holds"]
    used = by_name[LINES[0]].left.figures
    assert used["used_nano_usd"] > 0 and used["tokens"] > 0 and used["requests"] >= 4
    engine = open_database(pipeline.settings.database_url)
    with engine.begin() as db:
        db.execute(COUNTERS.update().where(COUNTERS.c.subject == "usd per month").values(used=COUNTERS.c.used + 1))
        db.execute(COUNTERS.update().where(COUNTERS.c.account == "/lasting").values(reserved=1))
    engine.dispose()
    lines = {line.name: line for line in reconcile(pipeline.settings, None, pipeline.stack.simulator_url).lines}
    assert {name for name, line in lines.items() if line.status == "BROKEN"} == set(LINES)
    (used_of,), (held_of,) = (lines[name].differences for name in LINES)
    assert used_of.id.startswith("/daily usd per month from ")
    assert (held_of.id, held_of.what) == ("/lasting concurrent", "requests 1 in counters, 0 in open requests")
