"""Admit a request: valid, known, in time, routed, priced and reserved; then it goes to a provider's lane, else to its caller."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from agents.cache import Cache, key_of
from agents.callers import AsTheySay, Callers
from agents.cancel import Cancellations, Cancelled
from agents.entries import answer_entry, call_entry, ledger_key, path
from agents.fetch import NotFetched, fetch_text
from agents.ledgers import Ledgers
from agents.outgoing import Clock, Encoder, decode, place_of
from agents.planning import Plan, Planner, call_of
from agents.replies import Partitions, Replies
from agents.structured import schema_problem
from agents.waiting import Waiting
from config import ledger
from config.holding import NotAdmitted
from config.tasks import Prepared, Tasks
from config.transactions import Transactions
from core.admission import UUID, problem_of
from core.caching import Hit
from core.degrading import Degraded
from core.energy import Short
from core.errors import error
from core.facts import refusal, undecodable
from core.outcome import Emit, Outcome, Outgoing, Record, Reject, pack, unpack
from core.replay import times_seen
from core.replies import NoReplyTo
from core.routing import NoChoice
from core.trust import Caller, as_caller, mismatch
from schemas.avro import SCHEMAS
from schemas.cloudevents import trace_of
from schemas.codec import Codec, SchemaNotLoaded, Undecodable
from schemas.content import Content
from schemas.events import Error, LlmRequest, LlmResponse, LlmUsage, ReplyTo

#: By what a request is known that is sent again: it is the same whenever it was made, and by whichever release it is read.
CONTENT = Content(SCHEMAS["LlmRequest"], without=("created_at",))
Marked = TypeVar("Marked", Plan, LlmResponse, Plan | LlmResponse)


@dataclass(frozen=True, slots=True)
class AdmitRules:
    """The bounds a deployment sets: bytes of a request's value, patterns of the reply topics that requests may name, and how
    long what is held for a request stays held past its deadline, or its admission where it has none.

    `refuse_unknown` refuses accounts that no limit names. `wait_seconds` is how long a request waits for room in a limit at
    most, `most_waiting` how many do at once.
    """

    max_request_bytes: int
    reply_topics: tuple[str, ...]
    reserve_seconds: int = 86_400
    refuse_unknown: bool = False
    wait_seconds: float = 0.0
    most_waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Desk:
    """A ledger that admits, and what stands before it; `unchecked` is the spare one."""

    unchecked: bool
    ledger: Transactions
    cache: Cache
    waiting: Waiting

    def marked(self, planned: Marked) -> Marked:
        """A plan or an answer that says so where it is unchecked."""
        if not self.unchecked:
            return planned
        if isinstance(planned, Plan):
            return replace(planned, fields={**planned.fields, "unchecked": True})
        return {**planned, "unchecked": True}


class Admit:
    """The admit stage."""

    def __init__(
        self, codec: Codec, ledgers: Ledgers, tasks: Callable[[], Tasks], planner: Planner, rules: AdmitRules,
        partitions: Partitions, clock: Clock, callers: Callers | None = None,
        violated: Callable[[NotAdmitted], None] = lambda _: None, unchecked: Callable[[], None] = lambda: None,
        cached: Callable[[LlmUsage], None] = lambda _: None, cancellations: Cancellations | None = None,
    ) -> None:  # fmt: skip
        """`violated` hears why a request was not admitted, `unchecked` of each that the spare ledger admits, `cached` of each
        that the response cache answers.
        """
        self._codec = codec
        self._encoder = Encoder(codec, "admit", clock)
        self._ledgers = ledgers
        self._tasks = tasks
        self._planner = planner
        self._rules = rules
        self._replies = Replies(rules.reply_topics, partitions)
        self._clock = clock
        self._callers = callers or AsTheySay()
        self._violated = violated
        self._unchecked = unchecked
        self._cached = cached
        self._cancellations = cancellations or Cancellations()
        self._desks = [
            _Desk(bool(place), one, Cache(codec, one, clock), Waiting(one, clock, rules.most_waiting))
            for place, one in enumerate(ledgers.all)
        ]

    @property
    def waiting(self) -> int:
        """How many requests wait for room in a limit now."""
        return sum(desk.waiting.length for desk in self._desks)

    async def __call__(self, record: Record) -> Outcome:
        """Deal with one record of the request topic."""
        caller = await self._callers.of(record)
        if caller is not None and not isinstance(caller, Caller):
            return self._disbelieved(record, caller)
        try:
            request: LlmRequest = await decode(self._codec, "LlmRequest", record.value)  # type: ignore[assignment]
        except Undecodable as why:
            return await self._undecodable(record, str(why), caller)
        if caller is None:
            return await self._admit(record, request, None)
        if (other := mismatch(request, caller)) is not None:
            refused = refusal(as_caller(request, caller), "refused", other, record.timestamp_us)
            trace = trace_of(record.headers, request["request_id"])
            return Emit((self._encoder.response(refused, trace, _id_at(record)),))
        return await self._admit(record, as_caller(request, caller), caller)

    async def _admit(self, record: Record, request: LlmRequest, caller: Caller | None) -> Outcome:
        """Deal with a request of this caller, or of whom it names where nothing is signed."""

        async def admit(unchecked: bool) -> Outcome:
            return await self._admit_at(self._desks[unchecked], record, request, caller)

        return await self._ledgers.admit(ledger_key(request["request_id"]), record.timestamp_us, admit)

    async def _admit_at(self, desk: _Desk, record: Record, request: LlmRequest, caller: Caller | None) -> Outcome:
        now = self._clock()
        trace = trace_of(record.headers, request["request_id"])
        body = CONTENT.of(request)
        # Whoever copies a signed record can change the headers that say where an answer goes.
        headers = record.headers if caller is None else []
        to = await self._replies.to(request["reply_topic"], headers, request["tenant"])
        prepared = await self._prepare(request)
        plan = desk.marked(self._plan(request, prepared, len(record.value or b""), to, now, caller))
        planned: Plan | Hit | LlmResponse = plan
        if isinstance(plan, Plan) and isinstance(prepared, Prepared):
            planned = await desk.cache.look(prepared.request, plan, caller) or plan
        copy_to = None if isinstance(to, NoReplyTo) else to
        known = path(request) if isinstance(plan, Plan) and self._rules.refuse_unknown and not desk.unchecked else ()

        def answered(answer: Hit | LlmResponse, known: tuple[str, ...] = ()) -> ledger.Admission:
            marked = answer if isinstance(answer, Hit) else desk.marked(answer)
            packed = pack(self._answered(marked, trace, copy_to))
            return answer_entry(request["request_id"], body, request["tenant"], self._clock(), packed, known)

        if isinstance(planned, Plan):
            entry = call_entry(request, body, planned, now, known, self._rules.reserve_seconds)
        else:
            entry = answered(planned, known)
        plans = {entry.plan: plan} if isinstance(plan, Plan) else {}

        def cheaper(asked: ledger.Admission, why: Short | Degraded) -> ledger.Admission:
            cut = plans[asked.plan].without(why.too_dear)
            found = call_entry(request, body, cut, now, known, self._rules.reserve_seconds)
            plans[found.plan] = cut
            return found

        until = self._waits_until(request, record)
        try:
            admitted = await self._unless_cancelled(request, until, desk.waiting.admit(entry, until, cheaper))
        except Cancelled as cancelled:
            entry = answered(refusal(request, "refused", cancelled.why, self._clock()))
            admitted = await desk.ledger.run(ledger.admit, entry)
        why = admitted.refusal
        if why is not None and not isinstance(why, Degraded) and isinstance(plan, Plan):
            entry = answered(_refused(request, plans[admitted.plan], why, self._clock()))
            admitted = await desk.ledger.run(ledger.admit, entry)
            if admitted.kind == "new":
                self._violated(why)
        if isinstance(planned, Hit) and admitted.kind == "new":
            self._cached(planned.usage)
        if admitted.kind == "other" and times_seen(record.headers):
            # Its caller was told that these bytes cannot be read, and keeps that answer when they can be, later.
            as_bytes = replace(entry, body_hash=hashlib.sha256(record.value or b"").digest())
            admitted = await desk.ledger.run(ledger.admit, as_bytes)
        if admitted.kind == "other":
            return Emit(self._encoder.answer(desk.marked(_reused(request, record)), trace, copy_to, _id_at(record)))
        if admitted.kind == "new" and desk.unchecked:
            self._unchecked()
        if admitted.answer is not None:
            return Emit(unpack(admitted.answer))
        return Emit((self._call(request, admitted, copy_to, trace),))

    def _call(self, request: LlmRequest, admitted: ledger.Admitted, to: ReplyTo | None, trace: bytes) -> Outgoing:
        """The call of an admitted request, the same event each time: its plan and its time are those of the first admission."""
        kept = Plan.unpacked(admitted.plan or b"")
        if admitted.kind == "new":
            self._planner.admitted(kept)
        made = request if kept.made is None else self._codec.decode_blocking("LlmRequest", kept.made)
        ready = cast(LlmRequest, made)
        call = call_of(ready, kept, admitted.admitted_at, to, key_of(ready, kept), admitted.near)
        return self._encoder.call(call, trace)

    async def _unless_cancelled(
        self, request: LlmRequest, until: int | None, admission: Coroutine[Any, Any, ledger.Admitted]
    ) -> ledger.Admitted:
        """What the admission comes to; `Cancelled` where the request is given up before, or while it waits for room until then."""
        with self._cancellations.watch(request["request_id"], request["tenant"]) as cancellation:
            if until is None and not cancellation.requested:
                return await admission
            return await cancellation.unless(admission)

    def _waits_until(self, request: LlmRequest, record: Record) -> int | None:
        """Until when the request waits for room in a limit; None for not at all."""
        if request["on_limit"] != "wait":
            return None
        longest = record.timestamp_us + int(self._rules.wait_seconds * 1_000_000)
        return longest if request["deadline"] is None else min(longest, request["deadline"])

    def _answered(self, answer: Hit | LlmResponse, trace: bytes, to: ReplyTo | None) -> tuple[Outgoing, ...]:
        """The events of a request that needs no call."""
        if isinstance(answer, Hit):
            return self._encoder.usage(answer.usage, trace), *self._encoder.answer(answer.answer, trace, to)
        return self._encoder.answer(answer, trace, to)

    async def _prepare(self, request: LlmRequest) -> Prepared | Error:
        """The request with its task's messages, made also of a page that the deployment fetches for it."""
        tasks = self._tasks()
        url = tasks.page_of(request)
        try:
            page = await fetch_text(url) if url is not None else None
        except NotFetched as why:
            return error("caller_invalid_request", f"The page that the input names cannot be read. {why}")
        return tasks.prepare(request, request["user"] or request["request_id"], page)

    def _plan(
        self, request: LlmRequest, prepared: Prepared | Error, size: int, to: ReplyTo | NoReplyTo | None, now: int,
        caller: Caller | None,
    ) -> Plan | LlmResponse:  # fmt: skip
        """The plan for a request, or the answer that refuses it."""
        if not isinstance(prepared, Prepared):
            return refusal(request, "refused", prepared, now)
        ready = prepared.request
        problem = problem_of(ready, size, self._rules.max_request_bytes) or schema_problem(ready)
        if problem is None and isinstance(to, NoReplyTo):
            problem = to.error
        if problem is not None:
            return refusal(request, "refused", problem, now)
        plan = self._planner.plan(prepared, now, caller)
        if isinstance(plan, NoChoice):
            refused = refusal(request, "refused", plan.error, now)
            return {**refused, "route": plan.route.name if plan.route else None, "decisions": list(plan.decisions)}
        if request["deadline"] is not None and now >= request["deadline"]:
            late = error("pipeline_deadline_exceeded", "The deadline had passed when the request was admitted.")
            return refusal(request, "expired", late, now)
        if prepared.prompt_version is None and plan.max_attempts == ready["max_attempts"]:
            return plan
        return replace(plan, made=self._codec.encode("LlmRequest", {**ready, "max_attempts": plan.max_attempts}))

    def _disbelieved(self, record: Record, why: Error) -> Outcome:
        """An answer that says nothing of anybody, to the request that the record claims to be; nothing is stored.

        Where that is not to be seen, a dead letter.
        """
        request_id = (record.key or b"").decode("ascii", "replace")
        if not UUID.fullmatch(request_id):
            with suppress(Undecodable, SchemaNotLoaded):
                request_id = self._codec.decode("LlmRequest", record.value)["request_id"]
        if not UUID.fullmatch(request_id):
            return Reject(why["code"], why["message"])
        answer = undecodable(request_id, why, record.timestamp_us)
        return Emit((self._encoder.response(answer, trace_of([], request_id), _id_at(record)),))

    async def _undecodable(self, record: Record, why: str, caller: Caller | None) -> Outcome:
        """A dead letter, and an answer too where the key tells whom to answer."""
        failure = error("caller_undecodable", why)
        key = (record.key or b"").decode("ascii", "replace")
        if not UUID.fullmatch(key):
            return Reject(failure["code"], why)
        trace = trace_of(record.headers, key)
        answer = undecodable(key, failure, record.timestamp_us)
        if caller is not None:
            # The record's key is not signed: it may be the id of somebody else's request.
            return Reject(failure["code"], why, (self._encoder.response(answer, trace, _id_at(record)),))
        to = await self._replies.by_headers(record.headers)
        packed = pack(self._encoder.answer(answer, trace, to))
        entry = answer_entry(key, record.value or b"", "default", self._clock(), packed)

        async def admit(unchecked: bool) -> ledger.Admitted:
            return await self._ledgers.of(unchecked=unchecked).run(ledger.admit, entry)

        admitted = await self._ledgers.admit(key, record.timestamp_us, admit)
        if admitted.kind == "other":
            return Reject(failure["code"], why, self._encoder.answer(answer, trace, to, _id_at(record)))
        return Reject(failure["code"], why, unpack(admitted.answer or packed))


def _refused(request: LlmRequest, plan: Plan, why: NotAdmitted, now: int) -> LlmResponse:
    """The answer to a request that the ledger does not admit."""
    refused = refusal(request, "refused", why.error, now)
    return {**refused, "route": plan.fields["route"], "decisions": plan.fields["decisions"]}


def _reused(request: LlmRequest, record: Record) -> LlmResponse:
    """The answer to a request id that stands for another body; its time is the record's, so that a repetition is equal."""
    failure = error(
        "caller_request_id_reused",
        f"Request id {request['request_id']} was used before with another body; give every request an id of its own.",
    )
    return refusal(request, "refused", failure, record.timestamp_us)


def _id_at(record: Record) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"response/{place_of(record)}"))
