"""Pieces of an answer on their way to the broker, without one: what is sent, in which order, and when it is waited for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from agents.chunks import LONGEST_CHUNK, Chunks
from agents.outgoing import Encoder
from core.attempts import attempt_id
from core.facts import Attempt
from core.outcome import Outgoing
from core.topics import CHUNKS
from schemas.cloudevents import CE_ID
from schemas.codec import Codec, Event
from tests.examples import NOON, call

CODEC = Codec()
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Broker:
    """Takes events one by one, as long as it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = 0
        self.confirmed: list[Outgoing] = []

    async def send(self, events: tuple[Outgoing, ...]) -> None:
        """Confirm the events."""
        self.under_way += 1
        assert self.under_way == 1, "two sends of one call at once"
        await self.open.wait()
        self.confirmed += events
        self.under_way -= 1

    def chunks(self) -> list[Event]:
        """What was confirmed, in order."""
        return [CODEC.decode(CHUNKS.record, event.value) for event in self.confirmed]


def streamed(broker: Broker, use: Callable[[Chunks], Awaitable[None]], stream: bool = True) -> Chunks:
    """The chunks of one call after it was used so; its clock counts from 1."""
    asked = call(stream=stream, tenant="acme")
    asked["request"]["request_id"] = "0190163d-8694-739b-aea5-966c26f8ad91"
    attempt = Attempt(attempt_id(asked["request"]["request_id"], 2), 2, "retry", NOON)
    ticks = itertools.count(1)

    async def main() -> Chunks:
        encoder = Encoder(CODEC, "complete", lambda: NOON)
        async with Chunks(asked, attempt, encoder, TRACE, broker.send, lambda: next(ticks)) as chunks:
            await use(chunks)
        return chunks

    return asyncio.run(main())


def test_chunks_are_in_order_without_gaps_and_complete() -> None:
    """The chunks make up the answer, in order, and all of them are confirmed when the context is left."""
    broker, words = Broker(), [f"word{number} " for number in range(40)]

    async def use(chunks: Chunks) -> None:
        for number, word in enumerate(words):
            chunks.delta(word)
            for _ in range(number % 5):
                await asyncio.sleep(0)

    chunks = streamed(broker, use)
    sent = broker.chunks()
    assert "".join(chunk["text"] for chunk in sent) == "".join(words)
    assert [chunk["index"] for chunk in sent] == list(range(len(sent)))
    assert len({dict(event.headers)[CE_ID] for event in broker.confirmed}) == len(sent)
    assert {(chunk["attempt"], chunk["tenant"]) for chunk in sent} == {(2, "acme")}
    assert (chunks.attempt.first_token_at, chunks.attempt.received_chars) == (1, len("".join(words)))
    assert [chunk["at"] for chunk in sent] == sorted(chunk["at"] for chunk in sent)


def test_what_comes_while_a_chunk_is_on_its_way_is_joined() -> None:
    """A broker that is slower than the provider gets fewer and longer chunks, so that nothing piles up."""
    broker = Broker()

    async def use(chunks: Chunks) -> None:
        broker.open.clear()
        for number in range(40):
            chunks.delta(f"{number} ")
            await asyncio.sleep(0)
        broker.open.set()

    streamed(broker, use)
    assert [chunk["text"] for chunk in broker.chunks()] == ["0 ", "".join(f"{number} " for number in range(1, 40))]


def test_a_repeated_call_has_the_same_ids() -> None:
    """The same pieces of the same call have the same ids, so that readers can tell a repetition."""
    brokers = Broker(), Broker()

    async def use(chunks: Chunks) -> None:
        chunks.delta("one")

    for broker in brokers:
        streamed(broker, use)
    first, second = (dict(broker.confirmed[0].headers)[CE_ID] for broker in brokers)
    assert first == second


def test_a_long_piece_is_split() -> None:
    """A piece longer than a record may be goes out as several."""
    broker, text = Broker(), "☃" * (2 * LONGEST_CHUNK + 7)

    async def use(chunks: Chunks) -> None:
        chunks.delta(text)

    streamed(broker, use)
    assert [len(chunk["text"]) for chunk in broker.chunks()] == [LONGEST_CHUNK, LONGEST_CHUNK, 7]
    assert "".join(chunk["text"] for chunk in broker.chunks()) == text


def test_a_tool_call_has_a_first_token_and_no_chunk() -> None:
    """Pieces without text are no chunks, and the first of them is the first token."""
    broker = Broker()

    async def use(chunks: Chunks) -> None:
        chunks.delta("")
        chunks.delta("")

    attempt = streamed(broker, use).attempt
    assert (attempt.first_token_at, attempt.received_chars) == (1, 0)
    assert broker.confirmed == []


def test_a_request_without_a_stream_is_not_heard() -> None:
    """Where no stream is wanted there is no listener, no chunk and no first token."""
    broker, listeners = Broker(), []

    async def use(chunks: Chunks) -> None:
        listeners.append(chunks.listener)

    attempt = streamed(broker, use, stream=False).attempt
    assert (attempt.first_token_at, attempt.received_chars) == (None, None)
    assert listeners == [None]


def test_a_worker_that_drains_does_not_wait_for_chunks() -> None:
    """Cancelling the call's task ends the sending too, also while the broker takes nothing."""
    broker = Broker()
    broker.open.clear()

    async def main() -> bool:
        encoder = Encoder(CODEC, "complete", lambda: NOON)
        asked = call(stream=True)
        attempt = Attempt(attempt_id(asked["request"]["request_id"], 1), 1, "first", NOON)

        async def one() -> None:
            async with Chunks(asked, attempt, encoder, TRACE, broker.send, lambda: NOON) as chunks:
                chunks.delta("one")

        task = asyncio.create_task(one())
        while not broker.under_way:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled() and len(asyncio.all_tasks()) == 1

    assert asyncio.run(main())
    assert broker.confirmed == []


def test_a_broken_broker_does_not_fail_the_call() -> None:
    """An answer is worth more than its chunks: what cannot be sent is given up, and the call goes on."""

    class Refusing(Broker):
        async def send(self, events: tuple[Outgoing, ...]) -> None:
            raise ValueError("no")

    async def use(chunks: Chunks) -> None:
        chunks.delta("one")

    assert streamed(Refusing(), use).attempt.first_token_at == 1
