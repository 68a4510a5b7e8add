"""A model without a price, where the deployment names a default one: held, charged and corrected in the ledger, on both databases."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, select

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.outgoing import Encoder
from agents.planning import Planner
from agents.turn import Duty, Turn
from config import ledger, limits, settling
from config.database import reading
from config.limit_audit import counted
from config.limit_models import COUNTERS
from config.models import ACCOUNTS
from config.prices import DEFAULT, Prices
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.attempts import Begin, attempt_id
from core.facts import Attempt
from core.limits import Limit
from core.outcome import Emit, Record, pack
from core.pricing import Price, Tier, flat
from core.reply import NO_TOKENS, Reply
from core.repricing import Charged, adjustment, can_be_repriced
from core.topics import REQUESTS
from schemas.codec import Codec
from schemas.events import LlmCall, LlmRequest, LlmUsage, Tokens
from tests.examples import NOON, request

CODEC, SETTINGS = Codec(), Settings()
REGISTRY = from_environment(SETTINGS)
MODEL = "openai/gpt-unpriced"
#: Five and twenty USD per million tokens.
FLAT = flat(Decimal(5), Decimal(20))
BUDGET = Limit("/acme", "usd", "day", 10**9)
TOKENS: Tokens = {**NO_TOKENS, "input_uncached": 100, "cache_write_1h": 10, "output_text": 7, "output_audio": 3}  # type: ignore[typeddict-item]
#: 110 tokens in and 10 out.
COST = 110 * 5_000 + 10 * 20_000


def admitted(engine: Engine, asked: LlmRequest, prices: Any) -> Any:
    """What the stage makes of a request at these default prices: a call or an answer."""

    async def nowhere(_: str) -> int | None:
        return None

    async def run() -> Any:
        transactions = Transactions(engine, most=10, linger=0.001)
        planner = Planner(lambda: REGISTRY, dict, {"openai": ["gpt-unpriced"]}, 1_000, default_price=prices)
        rules = AdmitRules(SETTINGS.max_request_bytes, ())
        stage = Admit(CODEC, Ledgers(transactions), lambda: Tasks.load(SETTINGS), planner, rules, nowhere, lambda: NOON)
        value = CODEC.encode("LlmRequest", asked)
        outcome = await stage(Record(REQUESTS.name, 0, 0, asked["request_id"].encode(), value, [], NOON))
        await transactions.close()
        assert isinstance(outcome, Emit)
        (event,) = outcome.events
        return CODEC.decode("LlmCall" if "calls" in event.topic else "LlmResponse", event.value)

    return asyncio.run(run())


def ended(engine: Engine, call: LlmCall) -> LlmUsage:
    """The usage event of the call, answered with `TOKENS`, and stored in the ledger as `complete` does."""
    one = call["request"]["request_id"]
    with engine.begin() as db:
        started = ledger.start(db, [ledger.Start(one, "w", NOON, None, 5, True)])[0]
    assert isinstance(started.step, Begin)
    made = Attempt(attempt_id(one, 1), 1, "first", NOON)
    reply = Reply((), "stop", "gpt-unpriced", "r1", TOKENS, "{}")
    fact = Turn(started, Duty(0, False), made, reply).usage(call, NOON, Prices(REGISTRY, FLAT))
    assert fact is not None
    packed = pack((Encoder(CODEC, "complete", lambda: NOON).usage(fact, b"00-0-0-00"),))
    attempt = ledger.EndedAttempt(1, packed, fact["cost_nano_usd"], fact["cost_status"])
    with engine.begin() as db:
        assert ledger.end(db, [ledger.End(one, "w", NOON, attempt, b"answer")]) == ["recorded"]
    return fact


def books(engine: Engine) -> tuple[int, int, int]:
    """What the account has spent, holds and does not know, in nano-USD."""
    with engine.connect() as db:
        row = db.execute(select(ACCOUNTS).where(ACCOUNTS.c.account == "acme")).one()
        return row.spent_nano, row.reserved_nano, row.unknown_nano


def counts(engine: Engine) -> list[tuple[int, int]]:
    with engine.connect() as db:
        return [(row.used, row.reserved) for row in db.execute(select(COUNTERS))]


def test_without_a_default_price_a_limit_of_money_refuses_what_has_none(engine: Engine) -> None:
    """The setting left out, a request for such a model is refused under a limit of money."""
    with engine.begin() as db:
        limits.change(db, limits.Edit([BUDGET]), "test", NOON)
    refused = admitted(engine, request(model=MODEL), None)
    assert (refused["outcome"], refused["error"]["code"]) == ("refused", "policy_unpriced_model")
    assert counts(engine) == [(0, 0)]


def test_it_is_held_charged_and_corrected_later(engine: Engine) -> None:
    """Held at the default price, settled at it with that as its source, and brought to the real price by an adjustment; all adds up."""
    with engine.begin() as db:
        limits.change(db, limits.Edit([BUDGET]), "test", NOON)
    call = admitted(engine, request(model=MODEL), FLAT)
    bound = call["reserved_nano_usd"]
    assert bound > 1_000 * 20_000
    assert (books(engine), counts(engine)) == ((0, bound, 0), [(0, bound)])

    fact = ended(engine, call)
    assert (fact["cost_nano_usd"], fact["cost_status"]) == (COST, "priced")
    assert (fact["price_source"], fact["price_date"]) == (DEFAULT, NOON // 86_400_000_000)
    assert (fact["costs"]["cache_write_1h"], fact["costs"]["output_audio"]) == (50_000, 60_000)
    settlement = settling.Settlement(fact["request_id"], 1, fact["cost_nano_usd"], bound, 120, MODEL, NOON)
    with engine.begin() as db:
        assert settling.settle(db, [settlement]) == [True]
    assert (books(engine), counts(engine)) == ((COST, 0, 0), [(COST, 0)])
    with reading(engine) as db:
        (found,) = counted(db, NOON, 8)
    assert (found.used, found.reserved, found.used_by_calls, found.held_by_requests) == (COST, 0, COST, 0)

    real = Price({name: (Tier(0, Decimal(1)),) for name in fact["tokens"]}, "given", 20_800)  # type: ignore[misc]
    charged = Charged(fact, fact["costs"], fact["cost_nano_usd"], 0)
    assert can_be_repriced(charged, real, given=False)
    event = adjustment(charged, real)
    assert event is not None and event["cost_nano_usd"] == 120 * 1_000 - COST
    moved = settling.Adjustment(event["attempt_id"], "acme", NOON, event["cost_nano_usd"], 0)
    with engine.begin() as db:
        assert settling.adjust(db, [moved]) == [True]
    assert books(engine) == (120 * 1_000, 0, 0)
