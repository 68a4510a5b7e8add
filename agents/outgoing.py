"""Turn what a stage decided into events ready for the broker, with stable ids, so that a repetition is recognised."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from core.ids import derived
from core.outcome import Drop, Emit, Fail, Outcome, Outgoing, Record, Reject
from core.replay import NOT_CARRIED, times_seen
from core.replies import CORRELATION_ID
from core.topics import ALERTS, CHUNKS, DEAD_LETTERS, RESPONSES, USAGE, Topic, calls
from schemas.cloudevents import headers, trace_of
from schemas.codec import Codec, Event, SchemaNotLoaded
from schemas.events import DeadLetter, Header, LlmAlert, LlmCall, LlmChunk, LlmResponse, LlmUsage, ReplyTo

LOG = logging.getLogger(__name__)
Clock = Callable[[], int]

#: More than a record's headers and the broker's own bytes around it come to.
ENVELOPE_BYTES = 2_000


async def decode(codec: Codec, name: str, value: bytes | None) -> Event:
    """Decode a value, fetching an unknown schema off the event loop; while the registry is away, wait for it.

    Raises `schemas.codec.Undecodable`.
    """
    pause = 0.2
    while True:
        try:
            return codec.decode(name, value)
        except SchemaNotLoaded as missing:
            try:
                await asyncio.to_thread(codec.load, missing.schema_id)
            except OSError as error:
                LOG.warning("The schema registry is away (%s); trying again in %.1f s.", type(error).__name__, pause)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)


class Encoder:
    """Makes the events of one stage; `largest` is the most bytes that the broker takes as one record."""

    def __init__(self, codec: Codec, stage: str, clock: Clock, largest: int = 1_000_000) -> None:
        self._codec = codec
        self._stage = stage
        self._clock = clock
        self._largest = largest

    def call(self, call: LlmCall, trace: bytes) -> Outgoing:
        """An admitted request on its way to its provider's lane."""
        request_id = call["request"]["request_id"]
        place, beside = call["candidate"], call["beside"]
        name = f"call:{place}" if place else "call"
        event_id = derived(request_id, name if beside is None else f"{name}:beside:{beside}")
        return self._event(calls(call["provider"]), request_id, event_id, call, call["admitted_at"], trace)

    def response(self, response: LlmResponse, trace: bytes, event_id: str | None = None) -> Outgoing:
        """The answer to a request; it has one id for ever unless `event_id` gives another."""
        request_id = response["request_id"]
        event_id = event_id or response_id(request_id)
        return self._event(RESPONSES, request_id, event_id, response, response["finished_at"], trace)

    def answer(
        self, response: LlmResponse, trace: bytes, to: ReplyTo | None, event_id: str | None = None
    ) -> tuple[Outgoing, ...]:
        """The answer to a request, as `response` makes it, and its copy on the caller's own reply topic where there is one."""
        event = self.response(response, trace, event_id)
        if to is None:
            return (event,)
        own = [(CORRELATION_ID, to["correlation_id"])] if to["correlation_id"] is not None else []
        return event, replace(
            event, topic=to["topic"], headers=[*event.headers, *own], callers=True, partition=to["partition"]
        )

    def chunk(self, chunk: LlmChunk, trace: bytes) -> Outgoing:
        """A piece of an answer, known by its call and its number."""
        event_id = derived(chunk["attempt_id"], f"chunk:{chunk['index']}")
        return self._event(CHUNKS, chunk["request_id"], event_id, chunk, chunk["at"], trace)

    def usage(self, usage: LlmUsage, trace: bytes) -> Outgoing:
        """The accounting fact of a provider call, known by the call's id."""
        return self._event(USAGE, usage["request_id"], usage["attempt_id"], usage, usage["finished_at"], trace)

    def alert(self, alert: LlmAlert) -> Outgoing:
        """Something an operator should know; it belongs to no request, so its trace is its own."""
        trace = trace_of([], alert["alert_id"])
        return self._event(ALERTS, alert["subject"], alert["alert_id"], alert, alert["raised_at"], trace)

    def events_of(self, record: Record, outcome: Outcome) -> tuple[Outgoing, ...]:
        """All that an outcome puts on the broker; a rejected record becomes a dead letter beside its events."""
        match outcome:
            case Emit(events):
                return events
            case Reject(_, _, events):
                return (*events, self._dead_letter(record, outcome))
            case Drop() | Fail():
                return ()

    def _dead_letter(self, record: Record, why: Reject) -> Outgoing:
        at = self._clock()
        letter = DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=[Header(key=name, value=value) for name, value in record.headers],
            timestamp=record.timestamp_us,
            reason=why.code,
            message=why.message,
            stage=self._stage,
            times_seen=times_seen(record.headers) + 1,
            failed_at=at,
        )
        place = place_of(record)
        trace = trace_of(record.headers, place)
        event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._stage}/{place}"))
        value = self._codec.encode(DEAD_LETTERS.record, letter)
        if len(value) + len(record.key or b"") + ENVELOPE_BYTES > self._largest:
            letter |= {"value": None, "message": f"{why.message} {NOT_CARRIED}"}
            value = self._codec.encode(DEAD_LETTERS.record, letter)
        return Outgoing(
            DEAD_LETTERS.name, record.key or b"", value, headers(DEAD_LETTERS.record, event_id, self._stage, at, trace)
        )

    def _event(
        self, topic: Topic, key: str, event_id: str, event: Mapping[str, Any], time_us: int, trace: bytes
    ) -> Outgoing:
        value = self._codec.encode(topic.record, event)
        return Outgoing(topic.name, key.encode(), value, headers(topic.record, event_id, self._stage, time_us, trace))


def response_id(request_id: str) -> str:
    """The id of the one answer to a request."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{request_id}/response"))


def place_of(record: Record) -> str:
    """Where a record stands, as text that names it for ever."""
    return f"{record.topic}/{record.partition}/{record.offset}"
