"""Admit a request: valid, known, in time, priced and reserved; then it goes to its provider's lane, else to its caller."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from agents.outgoing import Clock, Encoder, decode, place_of
from config import ledger
from config.prices import Catalogue, price_on
from config.transactions import Transactions
from core.admission import LONGEST_LABEL, UUID, problem_of, provider_and_model
from core.errors import error
from core.facts import refusal, undecodable
from core.outcome import Emit, Outcome, Record, Reject, pack, unpack
from core.pricing import upper_bound
from core.replay import times_seen
from schemas.cloudevents import trace_of
from schemas.codec import Codec, Undecodable
from schemas.events import Error, LlmCall, LlmRequest, LlmResponse

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class AdmitRules:
    """The bounds a deployment sets: bytes of a request's value, and output tokens where a request names no limit."""

    max_request_bytes: int
    default_max_output_tokens: int


class Admit:
    """The admit stage."""

    def __init__(
        self, codec: Codec, transactions: Transactions, catalogue: Catalogue, rules: AdmitRules, clock: Clock
    ) -> None:
        self._codec = codec
        self._encoder = Encoder(codec, "admit", clock)
        self._transactions = transactions
        self._catalogue = catalogue
        self._rules = rules
        self._clock = clock

    async def __call__(self, record: Record) -> Outcome:
        """Deal with one record of the request topic."""
        try:
            request: LlmRequest = await decode(self._codec, "LlmRequest", record.value)  # type: ignore[assignment]
        except Undecodable as why:
            return await self._undecodable(record, str(why))
        now = self._clock()
        trace = trace_of(record.headers, request["request_id"])
        size = len(record.value or b"")
        refused = self._refusal(request, size, now)
        answer = pack((self._encoder.response(refused, trace),)) if refused is not None else None
        call = self._call(request, now) if refused is None else None
        bound = (call["reserved_nano_usd"] or 0) if call is not None else 0
        # Sent again, a request is the same whenever it was made.
        body = self._codec.encode("LlmRequest", {**request, "created_at": 0})
        admitted = await self._admit(request["request_id"], body, request["tenant"], bound, answer, now)
        if admitted.kind == "other" and times_seen(record.headers):
            # Its caller was told that these bytes cannot be read, and keeps that answer when they can be, later.
            raw = record.value or b""
            admitted = await self._admit(request["request_id"], raw, request["tenant"], bound, answer, now)
        if admitted.kind == "other":
            return Emit((self._encoder.response(_reused(request, record), trace, _id_at(record)),))
        if admitted.answer is not None:
            return Emit(unpack(admitted.answer))
        # A request that was admitted before keeps the time of its first admission, so that its call is the same event.
        call = call or self._call(request, now)
        call["admitted_at"] = admitted.admitted_at
        return Emit((self._encoder.call(call, trace),))

    def _refusal(self, request: LlmRequest, size: int, now: int) -> LlmResponse | None:
        """The answer that refuses a request, or None when it can be called."""
        problem = problem_of(request, size, self._rules.max_request_bytes) or self._unknown_model(request)
        if problem is not None:
            return refusal(request, "refused", problem, now)
        if request["deadline"] is not None and now >= request["deadline"]:
            late = error("pipeline_deadline_exceeded", "The deadline had passed when the request was admitted.")
            return refusal(request, "expired", late, now)
        return None

    def _call(self, request: LlmRequest, now: int) -> LlmCall:
        provider, model = provider_and_model(request["model"])
        output = request["parameters"]["max_output_tokens"] or self._rules.default_max_output_tokens
        return LlmCall(
            request=request,
            provider=provider,
            model=model,
            max_output_tokens=output,
            admitted_at=now,
            reserved_nano_usd=upper_bound(request, output, price_on(provider, model, now // DAY_US)),
            route=None,
            candidates=[],
            candidate=0,
            decisions=[],
            fall_back_on=[],
            complexity=None,
            prompt_version=None,
            cache_key=None,
            cache_until=None,
            reply_to=None,
        )

    def _unknown_model(self, request: LlmRequest) -> Error | None:
        asked = request["model"]
        provider, model = provider_and_model(asked)
        if self._catalogue.knows(provider, model, self._clock() // DAY_US):
            return None
        nearest = self._catalogue.nearest(asked or "")
        hint = f"the nearest known are {', '.join(nearest)}" if nearest else "name one as provider/model"
        return error("caller_unknown_model", f"Model {asked!r} is not known here; {hint}.")

    async def _admit(
        self, request_id: str, body: bytes, account: str, reserve: int, answer: bytes | None, now: int
    ) -> ledger.Admitted:
        # The ledger's key is at most 64 characters; only a valid id can be as short as it looks.
        key = request_id if UUID.fullmatch(request_id) else hashlib.sha256(request_id.encode()).hexdigest()
        digest = hashlib.sha256(body).digest()
        return await self._transactions.run(
            ledger.admit, ledger.Admission(key, digest, _account(account), reserve, answer, now)
        )

    async def _undecodable(self, record: Record, why: str) -> Outcome:
        """A dead letter, and an answer too where the key tells whom to answer."""
        failure = error("caller_undecodable", why)
        key = (record.key or b"").decode("ascii", "replace")
        if not UUID.fullmatch(key):
            return Reject(failure["code"], why)
        trace = trace_of(record.headers, key)
        answer = undecodable(key, failure, record.timestamp_us)
        packed = pack((self._encoder.response(answer, trace),))
        admitted = await self._admit(key, record.value or b"", "default", 0, packed, self._clock())
        if admitted.kind == "other":
            return Reject(failure["code"], why, (self._encoder.response(answer, trace, _id_at(record)),))
        return Reject(failure["code"], why, unpack(admitted.answer or packed))


def _account(tenant: str) -> str:
    """The account that a tenant's name stands for; a name that was refused still has to fit the ledger's column."""
    return tenant[:LONGEST_LABEL].replace("\x00", "")


def _reused(request: LlmRequest, record: Record) -> LlmResponse:
    """The answer to a request id that stands for another body; its time is the record's, so that a repetition is equal."""
    failure = error(
        "caller_request_id_reused",
        f"Request id {request['request_id']} was used before with another body; give every request an id of its own.",
    )
    return refusal(request, "refused", failure, record.timestamp_us)


def _id_at(record: Record) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"response/{place_of(record)}"))
