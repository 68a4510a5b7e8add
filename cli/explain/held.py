"""What the ledger knows of a request, its packed events opened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agents.planning import Plan
from cli.explain.known import Held, OpenCall, Row
from config.audit import Kept
from core.outcome import Outgoing, unpack
from core.topics import RESPONSES, USAGE, Topic
from schemas.cloudevents import CE_ID
from schemas.codec import Codec
from sinks.rows import columns_of, values_of


def held_of(kept: Kept, codec: Codec) -> Held:
    """The ledger's word on a request; raises `schemas.codec.Undecodable` or OSError where its events cannot be read."""
    plan = Plan.unpacked(kept.plan) if kept.plan is not None else None
    published = unpack(kept.answer) if kept.answer is not None else ()
    ended = (event for one in kept.attempts if one.usage is not None for event in unpack(one.usage))
    # Beside an answer of the response cache stands the usage event that says so.
    usages = (*published, *ended)
    made = None
    if plan is not None and plan.made is not None:
        made = row_of("LlmRequest", codec.decode_blocking("LlmRequest", plan.made))
    return Held(
        account=kept.account, window=kept.window, reserved_nano=kept.reserved_nano, admitted_at=kept.admitted_at,
        answered=kept.answer is not None, turn=_model(plan, kept.candidate), plan=plan.fields if plan else None,
        open_calls=tuple(
            OpenCall(one.number, one.reason, _model(plan, one.candidate) or "?", one.owner, one.alive, one.started_at)
            for one in kept.attempts if one.ended_at is None
        ),
        unsettled=tuple(one.number for one in kept.attempts if one.ended_at is not None and not one.settled),
        copies=tuple((event.topic, event.partition) for event in published if event.callers),
        request=made,
        answers=tuple(_rows(RESPONSES, published, codec)), usages=tuple(_rows(USAGE, usages, codec)),
    )  # fmt: skip


def row_of(record: str, event: Any, ce_id: str = "") -> Row:
    """An event as a row that ClickHouse does not have."""
    values = values_of(record, [event], "", 0, [0], [ce_id])
    return {column.name: one for column, (one,) in zip(columns_of(record), values, strict=True)} | {"ingested_at": None}


def _rows(topic: Topic, events: Iterable[Outgoing], codec: Codec) -> Iterable[Row]:
    for event in events:
        if event.topic == topic.name and not event.callers:
            ce_id = dict(event.headers)[CE_ID].decode()
            yield row_of(topic.record, codec.decode_blocking(topic.record, event.value), ce_id)


def _model(plan: Plan | None, candidate: int) -> str | None:
    candidates = plan.fields["candidates"] if plan is not None else []
    if candidate >= len(candidates):
        return None
    return f"{candidates[candidate]['provider']}/{candidates[candidate]['model']}"
