"""Routes that degrade, in the admit stage itself on a real ledger: from when on, by what, and what stays of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, select

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Planner
from config import answers, energy, energy_prices, limits
from config.limit_models import COUNTERS
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.energy import EnergyPrice
from core.facts import response
from core.limits import Limit
from core.outcome import Emit, Record
from core.registry import Registry, Route, Target
from core.standing import Standing
from core.topics import REQUESTS
from schemas.codec import Codec
from schemas.events import LlmRequest
from tests.examples import NOON, request

CODEC = Codec()
STRONG, CHEAP, OTHER = "openai/gpt-5", "google/gemini-2.5-flash-lite", "anthropic/claude-haiku-4-5"
ROUTE = Route(
    "draft", tuple(map(Target, (STRONG, OTHER, CHEAP))), task="draft", cache_seconds=60, degrade_from=80,
    degrade_to=(OTHER, CHEAP),
)  # fmt: skip
MINUTE = 60_000_000


class Desk:
    """An admit stage for one route, with a clock and standings that the test sets; each batch is a worker of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = NOON
        self.route = ROUTE
        self.standings: dict[str, Standing] = {}
        #: What was told of choices: provider, model, route and complexity.
        self.chosen: list[tuple[Any, ...]] = []

    def put(self, *wanted: Limit) -> None:
        with self.engine.begin() as db:
            limits.change(db, limits.Edit(wanted), "test", self.now)

    def deal(self, *requests: LlmRequest) -> list[Any]:
        """The call or the answer of each request, which are all there at once."""
        known = from_environment(Settings(), NOON)
        registry = Registry(known.providers, known.models, (self.route,))

        async def nowhere(_: str) -> int | None:
            return None

        async def run() -> list[Any]:
            transactions = Transactions(self.engine, most=50, linger=0.02)
            planner = Planner(
                lambda: registry, lambda: self.standings, {}, 1_000, lambda *told: self.chosen.append(told)
            )
            tasks = Tasks.load(Settings())
            rules = AdmitRules(1_000_000, ())
            stage = Admit(CODEC, Ledgers(transactions), lambda: tasks, planner, rules, nowhere, lambda: self.now)

            async def one(asked: LlmRequest) -> Any:
                value = CODEC.encode("LlmRequest", asked)
                outcome = await stage(Record(REQUESTS.name, 0, 0, asked["request_id"].encode(), value, [], NOON))
                assert isinstance(outcome, Emit)
                *_, event = outcome.events
                return CODEC.decode("LlmResponse" if "responses" in event.topic else "LlmCall", event.value)

            found = await asyncio.gather(*map(one, requests))
            await transactions.close()
            return list(found)

        return asyncio.run(run())

    def one_by_one(self, number: int, **changes: Any) -> list[Any]:
        return [self.deal(ask(**changes))[0] for _ in range(number)]

    def taken(self) -> dict[str, int]:
        """What is used and held, by what is limited."""
        with self.engine.connect() as db:
            return {row.subject: row.used + row.reserved for row in db.execute(select(COUNTERS))}


@pytest.fixture
def desk(engine: Engine) -> Desk:
    return Desk(engine)


def ask(**changes: Any) -> LlmRequest:
    return request(**{"model": None, "task": "draft", "cache": "bypass", **changes})


def models(calls: Sequence[Any]) -> list[str]:
    return [f"{each['provider']}/{each['model']}" for each in calls]


@pytest.mark.parametrize("hard", [True, False])
def test_from_the_share_on_the_cheaper_models_are_called(desk: Desk, hard: bool) -> None:
    """Four requests of five are below 80 % of a limit, hard or soft; the fifth gets the cheaper ones, in their order, and is told."""
    desk.put(Limit("/acme", "requests", "day", 5, hard=hard))
    calls = desk.one_by_one(5)
    assert models(calls) == [STRONG] * 4 + [OTHER]
    assert [call["downgraded_from"] for call in calls] == [None] * 4 + [STRONG]
    last = calls[-1]
    assert [each["model"] for each in last["candidates"]] == [name.split("/")[1] for name in (OTHER, CHEAP)]
    assert [each["reason"] for each in last["decisions"] if not each["kept"]] == [
        "dropped: 80 % of requests per day of /acme are used or held, and the route degrades from 80 % on"
    ]
    assert [each["model"] for each in last["decisions"]] == [OTHER, CHEAP, STRONG]
    assert [(near["account"], near["percent"]) for near in last["near_limits"]] == [("/acme", 100)]


def test_a_choice_is_told_once_a_request_that_is_called(desk: Desk) -> None:
    """By the plan that is kept: the cheaper model where the route degrades; nothing of refusals, repetitions and cached answers."""
    desk.put(Limit("/acme", "requests", "day", 5))
    requests = [*(ask() for _ in range(5)), ask()]
    calls = [desk.deal(each)[0] for each in requests]
    assert calls[-1]["error"]["code"] == "policy_quota_exceeded"
    told = [(*name.split("/"), "draft", None) for name in [STRONG] * 4 + [OTHER]]
    assert desk.chosen == told
    desk.deal(*requests)
    assert desk.chosen == told
    first, second = ask(tenant="globex", cache="use"), ask(tenant="globex", cache="use")
    [call] = desk.deal(first)
    answer = CODEC.encode("LlmResponse", response(call, "completed", NOON, spent=[]))
    kept = answers.Kept(first["request_id"], "globex", answer, 70)
    with desk.engine.begin() as db:
        answers.keep(db, [answers.Ended(call["cache_key"], first["request_id"], kept, NOON + MINUTE)])
    assert desk.deal(second)[0]["cost_status"] == "cached"
    assert desk.chosen == [*told, (*STRONG.split("/"), "draft", None)]


def test_another_tenant_keeps_the_better_model(desk: Desk) -> None:
    """The limit of one tenant degrades no other, and a full platform degrades nobody."""
    desk.put(Limit("/acme", "requests", "day", 1, hard=False), Limit("/", "requests", "day", 1, hard=False))
    desk.one_by_one(2)
    assert models(desk.deal(ask(), ask(tenant="globex"))) == [OTHER, STRONG]


def test_at_once_as_many_get_the_better_model_as_one_by_one(desk: Desk) -> None:
    """Twenty requests at once over ten: eight get the better model, two the cheaper one, the others are refused, none twice."""
    desk.put(Limit("/acme", "requests", "day", 10))
    found = desk.deal(*(ask() for _ in range(20)))
    calls = [each for each in found if "candidates" in each]
    assert sorted(models(calls)) == sorted([STRONG] * 8 + [OTHER] * 2)
    refused = [each for each in found if "candidates" not in each]
    assert {each["error"]["code"] for each in refused} == {"policy_quota_exceeded"}
    assert desk.taken() == {"requests per day": 10}


def test_delivered_again_a_request_keeps_its_plan(desk: Desk) -> None:
    """Both the better and the cheaper call are the same events, whatever the limit and the route say by then."""
    desk.put(Limit("/acme", "requests", "day", 5))
    early, late = ask(), ask()
    [first] = desk.deal(early)
    desk.one_by_one(3)
    [second] = desk.deal(late)
    assert models([first, second]) == [STRONG, OTHER]
    desk.put(Limit("/acme", "requests", "day", 100))
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    assert desk.deal(early, late) == [first, second]
    assert desk.taken() == {"requests per day": 5}


def test_the_time_just_past_counts_in_a_sliding_window(desk: Desk) -> None:
    """Once what was used has left the window, the better model is called again."""
    desk.put(Limit("/acme/user:ana", "requests", "minute", 5, sliding=True))
    assert models(desk.one_by_one(5)) == [STRONG] * 4 + [OTHER]
    desk.now += MINUTE + MINUTE // 60
    assert models(desk.one_by_one(1)) == [STRONG]


def test_a_request_that_fits_no_more_goes_on_with_less_money(desk: Desk) -> None:
    """Below the share, where the bound of the dearer model is more than the rest, that of the cheaper ones alone is held."""
    [probe] = desk.deal(ask())
    dear, cheaper = (
        max(each["reserved_nano_usd"] for each in probe["candidates"] if f"{each['provider']}/{each['model']}" in some)
        for some in ((STRONG,), (OTHER, CHEAP))
    )
    desk.put(Limit("/acme", "usd", "month", 2 * dear - 1))
    [call] = desk.deal(ask())
    assert (models([call]), call["downgraded_from"]) == ([OTHER], STRONG)
    assert "does not fit into the rest" in call["decisions"][-1]["reason"]
    assert desk.taken()["usd per month"] - dear == cheaper, "the first request counts with its bound"


def test_where_no_cheaper_model_can_serve_the_route_goes_on(desk: Desk) -> None:
    """Cheaper models that are out of service, or too dear in energy, leave the better one; a hard limit refuses at its end."""
    desk.put(Limit("/acme", "requests", "day", 2))
    desk.standings = {name: Standing(health="unhealthy") for name in (OTHER, CHEAP)}
    found = desk.one_by_one(3)
    assert models(found[:2]) == [STRONG, STRONG]
    assert found[2]["error"]["code"] == "policy_quota_exceeded"


def test_both_energy_and_limits_have_their_say(desk: Desk) -> None:
    """What the limit leaves and the user cannot pay for is dropped as well, each candidate with its own reason, and nothing held twice."""
    desk.put(Limit("/acme", "requests", "day", 1, hard=False))
    desk.one_by_one(1)
    with desk.engine.begin() as db:
        energy_prices.change(
            db, [EnergyPrice("draft", OTHER, None, 3), EnergyPrice("draft", CHEAP, None, 1)], [], "test", NOON
        )
        energy.grant(db, "/acme/user:ana", 2, "test", NOON)
    [call] = desk.deal(ask())
    assert (models([call]), call["downgraded_from"]) == ([CHEAP], STRONG)
    dropped = {each["model"]: each["reason"] for each in call["decisions"] if not each["kept"]}
    assert "the route degrades from 80 % on" in dropped[STRONG]
    assert dropped[OTHER] == "dropped: it costs 3 credits and /acme/user:ana has 2 left"
    assert desk.taken() == {"requests per day": 2}


def test_the_cache_keeps_no_degraded_answer(desk: Desk) -> None:
    """An answer of the cheaper model is nobody else's; one of the better model is kept, also on a route that degrades."""
    desk.put(Limit("/acme", "requests", "day", 1, hard=False))
    [better] = desk.deal(ask(cache="use"))
    [weaker] = desk.deal(ask(cache="use", messages=request("Another.")["messages"]))
    assert better["cache_key"] is not None
    assert (weaker["downgraded_from"], weaker["cache_key"]) == (STRONG, None)


def test_a_route_that_says_nothing_degrades_nothing(desk: Desk) -> None:
    """Without a share every request gets the first choice until the limit refuses."""
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    desk.put(Limit("/acme", "requests", "day", 5))
    assert models(desk.one_by_one(5)) == [STRONG] * 5


def test_a_full_limit_of_a_fallbacks_models_drops_that_one(desk: Desk) -> None:
    """The others are called as before, the decisions say why, and what is not called does not count; no route has to say so."""
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    desk.put(
        Limit("/acme", "requests", "day", 1, model="anthropic/*"), Limit("/", "tokens", "day", 1, model="nobody/*")
    )
    first, second = desk.one_by_one(2)
    assert models([first, second]) == [STRONG, STRONG]
    assert [len(call["candidates"]) for call in (first, second)] == [3, 2]
    assert second["downgraded_from"] is None
    assert [each["reason"] for each in second["decisions"] if not each["kept"]] == [
        "dropped: 100 % of requests per day model anthropic/* of /acme are used or held, and what the request may take does not fit "
        "into the rest"
    ]
    assert desk.taken() == {"requests per day model anthropic/*": 1}


def test_a_request_is_refused_once_limits_cover_all_its_models(desk: Desk) -> None:
    """Each of three limits of a model has room for one request less; the first choice that was dropped is told of."""
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    desk.put(*(
        Limit(account, "requests", "day", most, model=model)
        for account, most, model in (("/acme", 1, STRONG), ("/", 2, OTHER), ("/acme/user:ana", 3, CHEAP))
    ))  # fmt: skip
    found = desk.one_by_one(5)
    assert models(found[:3]) == [STRONG, OTHER, CHEAP]
    assert [call["downgraded_from"] for call in found[:3]] == [None, STRONG, STRONG]
    assert [each["error"]["code"] for each in found[3:]] == ["policy_quota_exceeded"] * 2
    assert CHEAP in found[3]["error"]["message"]
    assert {each["model"] for each in found[3]["decisions"] if not each["kept"]} == {STRONG, OTHER}
    assert set(desk.taken().values()) == {1, 2, 3}


def test_at_once_a_limit_of_a_model_lets_in_as_many_as_one_by_one(desk: Desk) -> None:
    """Of ten at once, three get the first choice and the others the next one."""
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    desk.put(Limit("/acme", "requests", "day", 3, model="openai/*"))
    calls = desk.deal(*(ask() for _ in range(10)))
    assert sorted(models(calls)) == sorted([STRONG] * 3 + [OTHER] * 7)
    assert desk.taken() == {"requests per day model openai/*": 3}


def test_a_money_limit_of_a_model_leaves_the_others(desk: Desk) -> None:
    """Its room is for the request's bound; without the model the request holds nothing of it."""
    desk.route = replace(ROUTE, degrade_from=None, degrade_to=())
    desk.put(Limit("/acme", "usd", "month", 1, model="openai/*", sliding=True))
    assert models(desk.one_by_one(1)) == [OTHER]
