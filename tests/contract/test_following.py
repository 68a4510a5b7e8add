"""A lane follows its provider's settings in the registry while it runs: its address, and how many calls it makes at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from agents.providers.following import Following
from config import ledger, upkeep
from config.database import create_tables, open_database
from config.registry import apply
from config.settings import ProviderSettings, Settings
from core.errors import ProviderError
from core.outcome import Emit, Outcome, Outgoing, Record
from core.registry import Provider
from core.topics import calls
from schemas.codec import Codec
from streams import handlers
from streams.tools import now_us, open_tools
from tests.contract.calling import ATTEMPT, KEY, llm_call, until
from tests.examples import call
from tests.serving import Handler, Server, served

NAME = "eu"


class Refusing(Server):
    """Refuses every call, once it may; counts the calls that came and the connections that stand."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.may_answer = threading.Event()
        self.calls = self.connections = 0


class _Handler(Handler):
    server: Refusing

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def finish(self) -> None:
        super().finish()
        self.server.connections -= 1

    def do_POST(self) -> None:
        self.body()
        self.server.calls += 1
        self.server.may_answer.wait(30)
        self.answer(400, json.dumps({"error": {"message": f"Refused by {self.server.url}."}}).encode())


@pytest.fixture
def first() -> Iterator[Refusing]:
    """Where the provider is at first."""
    yield from served(Refusing())


@pytest.fixture
def second() -> Iterator[Refusing]:
    """Where it is afterwards."""
    yield from served(Refusing())


def test_a_new_address_holds_for_the_next_call_and_the_old_one_is_let_go_when_idle(
    first: Refusing, second: Refusing
) -> None:
    """The call under way ends where it began, the next goes to the new address, and then no connection to the old one is left."""
    where = ProviderSettings("openai", KEY, first.url, "KEY")

    async def run() -> None:
        nonlocal where
        made = Following(lambda: where)

        async def refusal() -> str:
            with pytest.raises(ProviderError) as failed:
                await made.call(llm_call("openai"), ATTEMPT, 30)
            return failed.value.error["message"]

        under_way = asyncio.create_task(refusal())
        await until(lambda: first.calls == 1)
        where, same = replace(where, base_url=second.url), replace(where)
        second.may_answer.set()
        assert second.url in await refusal()
        assert first.connections == 1
        assert not under_way.done()
        first.may_answer.set()
        assert first.url in await under_way
        await until(lambda: first.connections == 0)
        where = replace(where)
        assert second.url in await refusal()
        assert second.connections == 1
        where = same
        assert first.url in await refusal()
        await until(lambda: second.connections == 0)
        await made.close()
        await until(lambda: first.connections == 0)

    asyncio.run(run())


def test_a_running_lane_follows_the_registry(first: Refusing, second: Refusing, tmp_path: Path) -> None:
    """What is set while a lane runs holds for its next call: another address, fewer slots, and enabled where it was not."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/ledger.db", lane_concurrency=7)
    engine = open_database(settings.database_url)
    create_tables(engine)
    first.may_answer.set()
    second.may_answer.set()

    def register(**changes: Any) -> None:
        found = Provider(NAME, "openai-compatible", **changes)
        with engine.begin() as db:
            apply(db, lambda contents: replace(contents, providers={NAME: found}), settings, "test", now_us())

    async def run() -> None:
        tools = open_tools(settings, Codec(), lambda _: None)

        async def send(_: tuple[Outgoing, ...]) -> None:
            """Publish nothing."""

        async def complete() -> Outcome:
            asked = call(model=f"{NAME}/gpt-5-mini", request_id=str(uuid.uuid4()))
            admitted = ledger.Admission(asked["request"]["request_id"], b"body".ljust(32), "acme", 1, None, now_us())
            with engine.begin() as db:
                upkeep.heartbeat(db, tools.owner, now_us() + 3_600_000_000)
                ledger.admit(db, [admitted])
            value = tools.codec.encode("LlmCall", asked)
            return await stage(Record(calls(NAME).name, 0, 0, b"", value, [], time.time_ns() // 1_000))

        def slots() -> str:
            page = generate_latest(tools.metrics.registry).decode()
            [line] = [line for line in page.splitlines() if line.startswith("millstream_lane_slots{")]
            return line.split()[1]

        register(base_url=first.url, enabled=False)
        assert await tools.snapshot.refresh_now()
        stage = handlers.complete(NAME, tools, send)
        assert isinstance(await complete(), Emit)
        assert (first.calls, second.calls, slots()) == (1, 0, "7.0")
        register(base_url=second.url, concurrency=3)
        assert await tools.snapshot.refresh_now()
        assert isinstance(await complete(), Emit)
        assert (first.calls, second.calls, slots()) == (1, 1, "3.0")
        await tools.at_exit.aclose()
        await tools.transactions.close()

    asyncio.run(run())
    engine.dispose()
