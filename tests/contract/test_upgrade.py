"""A request that is sent again over an upgrade: written by an earlier version, then by this one, and the other way round."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Planner
from config.models import REQUESTS as ADMITTED
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.outcome import Emit, Outgoing, Record
from core.topics import REQUESTS
from schemas.avro import SCHEMAS, written
from schemas.codec import Codec
from schemas.events import LlmRequest
from tests import examples
from tests.examples import NOON, request

CODEC, SETTINGS = Codec(), Settings()
#: The schemas of requests before those of now, without its later fields.
FORMER = [
    schema
    for schema in written().values()
    if schema["name"] == "millstream.v1.LlmRequest" and len(schema["fields"]) < len(SCHEMAS["LlmRequest"]["fields"])
]


def admitted(engine: Engine, one: LlmRequest, *values: bytes) -> list[Outgoing]:
    """What the stage makes of a request that comes in these values, one after another."""

    async def nowhere(_: str) -> int | None:
        return None

    async def run() -> list[Outgoing]:
        transactions = Transactions(engine, most=10, linger=0.001)
        planner = Planner(lambda: from_environment(SETTINGS), dict, SETTINGS.models, 4_096)
        rules = AdmitRules(SETTINGS.max_request_bytes, ())
        stage = Admit(CODEC, Ledgers(transactions), lambda: Tasks.load(SETTINGS), planner, rules, nowhere, lambda: NOON)
        found: list[Outgoing] = []
        for offset, value in enumerate(values):
            record = Record(REQUESTS.name, 0, offset, one["request_id"].encode(), value, [], NOON)
            outcome = await stage(record)
            assert isinstance(outcome, Emit)
            found += outcome.events
        await transactions.close()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("former", FORMER, ids=[f"{len(schema['fields'])} fields" for schema in FORMER])
@pytest.mark.parametrize("first", ["former", "present"])
def test_it_is_the_same_request(engine: Engine, former: Any, first: str) -> None:
    """Whoever wrote it first, it is admitted once and is the same call; with another prompt it is another body."""
    asked, other = request("Why?"), request("Who?")
    other["request_id"] = asked["request_id"]
    values = [examples.written(former, asked), CODEC.encode("LlmRequest", asked)]
    again = [CODEC.encode("LlmRequest", {**asked, "created_at": NOON + 5}), CODEC.encode("LlmRequest", other)]
    one, same, later, reused = admitted(engine, asked, *(values if first == "former" else values[::-1]), *again)
    assert one.topic.startswith("llm.calls")
    assert CODEC.decode("LlmCall", one.value) == CODEC.decode("LlmCall", same.value)
    assert CODEC.decode("LlmCall", later.value)["admitted_at"] == NOON
    assert CODEC.decode("LlmResponse", reused.value)["error"]["code"] == "caller_request_id_reused"
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(ADMITTED)).scalar() == 1
