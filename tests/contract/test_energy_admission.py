"""Energy in the admit stage itself, on a real ledger: what is called instead, what is told of it, and what nothing is left for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Plan, Planner
from config import energy, energy_prices
from config.database import reading
from config.energy_audit import Balance, balances
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.energy import EnergyPrice
from core.outcome import Emit, Record
from core.registry import Registry, Route, Target
from core.topics import REQUESTS
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from tests.examples import NOON, request

CODEC = Codec()
STRONG, MIDDLE, CHEAP = "openai/gpt-5", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash-lite"
USER = "/acme/user:ana"
Deal = Callable[..., list[Event]]


@pytest.fixture
def deal(engine: Engine) -> Deal:
    """Deals with requests for a route of three models, which cost 5, 3 and 1 credits."""
    known = from_environment(Settings(), NOON)
    route = Route("draft", tuple(map(Target, (STRONG, MIDDLE, CHEAP))), task="draft", cache_seconds=60)
    registry = Registry(known.providers, known.models, (route,))
    prices = [EnergyPrice("draft", model, None, credits) for model, credits in ((STRONG, 5), (MIDDLE, 3), (CHEAP, 1))]
    with engine.begin() as db:
        energy_prices.change(db, prices, [], "test", NOON)

    async def nowhere(_: str) -> int | None:
        return None

    def work(*requests: LlmRequest) -> list[Event]:
        async def run() -> list[Event]:
            transactions = Transactions(engine, most=10, linger=0.02)
            planner = Planner(lambda: registry, dict, {}, 1_000)
            rules = AdmitRules(1_000_000, ())
            tasks = Tasks.load(Settings())
            stage = Admit(CODEC, Ledgers(transactions), lambda: tasks, planner, rules, nowhere, lambda: NOON)

            async def one(asked: LlmRequest) -> Event:
                value = CODEC.encode("LlmRequest", asked)
                outcome = await stage(Record(REQUESTS.name, 0, 0, asked["request_id"].encode(), value, [], NOON))
                assert isinstance(outcome, Emit)
                [event] = outcome.events
                return CODEC.decode("LlmResponse" if "responses" in event.topic else "LlmCall", event.value)

            found = await asyncio.gather(*map(one, requests))
            await transactions.close()
            return list(found)

        return asyncio.run(run())

    return work


def grant(engine: Engine, credits: int) -> None:
    with engine.begin() as db:
        energy.grant(db, USER, credits, "test", NOON)


def balance(engine: Engine) -> Balance:
    with reading(engine) as db:
        return balances(db, USER, NOON)[0]


def ask() -> LlmRequest:
    return request(model=None, task="draft", cache="bypass")


def test_a_cheaper_model_is_called_where_credits_do_not_reach(deal: Deal, engine: Engine) -> None:
    """The candidates that fit stay in their order, the decisions say why the others went, and a repetition is the same call."""
    grant(engine, 7)
    first, second, third = ask(), ask(), ask()
    [call] = deal(first)
    assert (f"{call['provider']}/{call['model']}", call["downgraded_from"], len(call["candidates"])) == (
        STRONG,
        None,
        3,
    )
    [call] = deal(second)
    assert (f"{call['provider']}/{call['model']}", call["downgraded_from"]) == (CHEAP, STRONG)
    assert {each["model"]: each["reason"] for each in call["decisions"] if not each["kept"]} == {
        STRONG: f"dropped: it costs 5 credits and {USER} has 2 left",
        MIDDLE: f"dropped: it costs 3 credits and {USER} has 2 left",
    }
    assert [each["model"] for each in call["decisions"] if each["kept"]] == [CHEAP]
    grant(engine, 10)
    assert deal(second) == [call]
    assert (balance(engine).left, balance(engine).reserved) == (11, 6)
    assert deal(third)[0]["downgraded_from"] is None


def test_a_dearer_fallback_that_does_not_fit_is_no_downgrade(deal: Deal, engine: Engine) -> None:
    """A request that gets its first choice goes without the fallbacks that its user cannot pay for."""
    with engine.begin() as db:
        energy_prices.change(db, [EnergyPrice("draft", STRONG, None, 2)], [], "test", NOON)
    grant(engine, 2)
    [call] = deal(ask())
    assert call["downgraded_from"] is None
    assert [each["model"] for each in call["candidates"]] == [STRONG.split("/")[1], CHEAP.split("/")[1]]


def test_nothing_left_is_told_with_what_there_is(deal: Deal, engine: Engine) -> None:
    """Refused once and for all under its id, with every model's price, and without a credit held."""
    with engine.begin() as db:
        energy_prices.change(db, [EnergyPrice("draft", CHEAP, None, 4)], [], "test", NOON)
    grant(engine, 2)
    asked = ask()
    [answer] = deal(asked)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", "policy_energy_exhausted", 0)
    assert f"at least 3 credits and account {USER} has 2 left" in answer["error"]["message"]
    assert (len(answer["decisions"]), any(each["kept"] for each in answer["decisions"])) == (3, False)
    grant(engine, 100)
    assert deal(asked) == [answer]
    assert (balance(engine).left, balance(engine).reserved) == (102, 0)


def test_requests_at_once_share_what_is_left(deal: Deal, engine: Engine) -> None:
    """Ten at once over twelve credits: two get the strong model, two the cheap one, six nothing; nobody gets what is not there."""
    grant(engine, 12)
    found = deal(*(ask() for _ in range(10)))
    called = sorted(f"{each['provider']}/{each['model']}" for each in found if "candidates" in each)
    assert called == sorted([STRONG, STRONG, CHEAP, CHEAP])
    assert {each["error"]["code"] for each in found if "candidates" not in each} == {"policy_energy_exhausted"}
    assert (balance(engine).left, balance(engine).reserved) == (0, 12)


def test_a_downgraded_answer_is_not_kept_for_others(deal: Deal, engine: Engine) -> None:
    """The response cache gives nobody the weaker answer of somebody who could not pay for the better one."""
    grant(engine, 6)
    [better] = deal(request("Hello.", model=None, task="draft"))
    [weaker] = deal(request("Another.", model=None, task="draft"))
    assert better["cache_key"] is not None
    assert (weaker["downgraded_from"], weaker["cache_key"]) == (STRONG, None)


def test_a_plan_keeps_its_first_choice_however_often_it_is_cut() -> None:
    """What was left out first is what it was downgraded from."""
    decisions = [{"model": f"{p}/m", "kept": True, "reason": "first"} for p in "abc"]
    candidates = [{"provider": p, "model": "m", "reserved_nano_usd": 1} for p in "abc"]
    plan = Plan({"candidates": candidates, "decisions": decisions, "downgraded_from": None}, tiers=("cheap",) * 3)
    cut = plan.without({0: "one"}).without({0: "two"})
    assert (cut.models, cut.tiers, cut.fields["downgraded_from"]) == (("c/m",), ("cheap",), "a/m")
    assert [each["reason"] for each in cut.fields["decisions"]] == ["first", "dropped: one", "dropped: two"]
