"""Make the provider calls of an admitted request: the ledger is asked before every one, and knows the answer before it is sent."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from agents.outgoing import Clock, Encoder, decode
from agents.providers.base import Provider
from config import ledger
from config.prices import price_on
from config.transactions import Transactions
from core.attempts import Begin, Expire, Finished, GiveUp, Lost, Wait, attempt_id
from core.errors import ProviderError, error
from core.facts import Attempt, Spent, response, usage
from core.outcome import Emit, Outcome, Outgoing, Record, Reject, pack, unpack
from core.reply import Reply
from core.retry import RetryRule, next_wait
from schemas.cloudevents import trace_of
from schemas.codec import Codec, Undecodable
from schemas.events import LlmCall, LlmResponse, LlmUsage

LOG = logging.getLogger(__name__)
DAY_US = 86_400_000_000
POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class CompleteRules:
    """How many calls a lane has under way at once, how long one may take, and when a failed one is made again."""

    concurrency: int
    call_timeout: float
    retry: RetryRule


class Complete:
    """The complete stage of one provider; `owner` is the id of this worker process in the ledger."""

    def __init__(
        self, codec: Codec, transactions: Transactions, provider: Provider, rules: CompleteRules, clock: Clock, owner: str
    ) -> None:  # fmt: skip
        self._codec = codec
        self._encoder = Encoder(codec, "complete", clock)
        self._transactions = transactions
        self._provider = provider
        self._rules = rules
        self._clock = clock
        self._owner = owner
        self._slots = asyncio.Semaphore(rules.concurrency)
        self._running: dict[str, asyncio.Future[None]] = {}

    async def __call__(self, record: Record) -> Outcome:
        """Deal with one record of the provider's call topic."""
        try:
            call: LlmCall = await decode(self._codec, "LlmCall", record.value)  # type: ignore[assignment]
        except Undecodable as why:
            return Reject("caller_undecodable", str(why))
        request_id = call["request"]["request_id"]
        # The same call delivered again while its first delivery is at work here: wait, then the ledger has the answer.
        while (running := self._running.get(request_id)) is not None:
            await asyncio.wait([running])
        self._running[request_id] = done = asyncio.get_running_loop().create_future()
        try:
            return await self._complete(call, trace_of(record.headers, request_id))
        finally:
            del self._running[request_id]
            done.set_result(None)

    async def _complete(self, call: LlmCall, trace: bytes) -> Outcome:
        while True:
            started, attempt, result = await self._next(call)
            match started.step:
                case Finished():
                    return Emit((*_usages(started), *unpack(started.answer or b"[]")))
                case Wait():
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                case None:
                    return Reject(
                        "pipeline_not_admitted",
                        f"The ledger has no admission of request {call['request']['request_id']}; "
                        "check that every stage uses the same MILLSTREAM_DATABASE_URL.",
                    )
            fact = self._usage(call, attempt, result, lost=isinstance(started.step, Lost))
            wait = self._wait_before_next(call, attempt, result, started)
            answer = None if wait is not None else self._answer(call, attempt, result, fact, started)
            events = await self._record(call, fact, answer, trace, lost=isinstance(started.step, Lost))
            if events is None:
                continue
            if wait is None:
                return Emit((*_usages(started), *events))
            await asyncio.sleep(wait)

    async def _next(self, call: LlmCall) -> tuple[ledger.Started, Attempt | None, Reply | ProviderError | None]:
        """Ask the ledger for the next step and make the provider call if that is it; only this takes a slot of the lane."""
        request = call["request"]
        async with self._slots:
            now = self._clock()
            started = await self._transactions.run(ledger.start, ledger.Start(
                request["request_id"], self._owner, now, request["deadline"], self._rules.retry.max_attempts,
                request["on_unknown_outcome"] == "retry",
            ))  # fmt: skip
            if isinstance(started.step, Lost):
                opened = started.step.open
                return started, Attempt(opened.attempt_id, opened.number, opened.reason, opened.started_at), None
            if not isinstance(started.step, Begin):
                return started, None, None
            number = started.step.number
            attempt = Attempt(attempt_id(request["request_id"], number), number, started.step.reason, self._clock())
            return started, attempt, await self._ask(call, attempt)

    async def _ask(self, call: LlmCall, attempt: Attempt) -> Reply | ProviderError:
        timeout = self._rules.call_timeout
        if (deadline := call["request"]["deadline"]) is not None:
            timeout = min(timeout, max(0.001, (deadline - self._clock()) / 1_000_000))
        try:
            return await self._provider.call(call, attempt.attempt_id, timeout)
        except ProviderError as failed:
            return failed
        except Exception as bug:
            LOG.error(
                "The %s provider failed on attempt %s: %s.", call["provider"], attempt.attempt_id, type(bug).__name__
            )
            return ProviderError(error("pipeline_internal", "The provider module failed on the call."), "maybe")

    def _usage(
        self, call: LlmCall, attempt: Attempt | None, result: Reply | ProviderError | None, lost: bool
    ) -> LlmUsage | None:
        if attempt is None:
            return None
        price = price_on(call["provider"], call["model"], attempt.started_at // DAY_US)
        return usage(call, attempt, None if lost else result, self._clock(), price)

    def _wait_before_next(
        self, call: LlmCall, attempt: Attempt | None, result: Reply | ProviderError | None, started: ledger.Started
    ) -> float | None:
        """Seconds until the next call of this request, None when there will be none."""
        if isinstance(started.step, Lost):
            return 0.0
        if attempt is None or not isinstance(result, ProviderError):
            return None
        return next_wait(
            self._rules.retry, result.error, attempt.number, self._clock(), call["request"]["deadline"], random.random()
        )

    def _answer(
        self, call: LlmCall, attempt: Attempt | None, result: Reply | ProviderError | None, fact: LlmUsage | None,
        started: ledger.Started,
    ) -> LlmResponse:  # fmt: skip
        spent = [Spent(ended.cost_nano, ended.cost_status) for ended in started.ended]  # type: ignore[arg-type]
        if fact is not None:
            spent.append(Spent(fact["cost_nano_usd"], fact["cost_status"]))
        at = self._clock()
        if isinstance(result, Reply):
            return response(call, "completed", at, attempt=attempt, reply=result, spent=spent)
        if isinstance(result, ProviderError):
            return response(call, "failed", at, attempt=attempt, reply=result.reply, failure=result.error, spent=spent)
        if isinstance(started.step, Expire):
            late = error("pipeline_deadline_exceeded", "The deadline passed before a provider call could be made.")
            return response(call, "expired", at, failure=late, spent=spent)
        assert isinstance(started.step, GiveUp)
        unknown = error(
            "provider_outcome_unknown",
            f"A crash cut off the call to {call['provider']} and no further call may be made; "
            "the provider may have charged for it.",
        )
        return response(call, "failed", at, failure=unknown, spent=spent)

    async def _record(
        self, call: LlmCall, fact: LlmUsage | None, answer: LlmResponse | None, trace: bytes, *, lost: bool
    ) -> tuple[Outgoing, ...] | None:
        """Store the end of a call, and the answer if there is one; their events, or None if the ledger has moved on."""
        usages = (self._encoder.usage(fact, trace),) if fact is not None else ()
        answers = (self._encoder.response(answer, trace),) if answer is not None else ()
        ended = None
        if fact is not None:
            ended = ledger.EndedAttempt(fact["attempt"], pack(usages), fact["cost_nano_usd"], fact["cost_status"])
        packed = pack(answers) if answers else None
        end = ledger.End(call["request"]["request_id"], self._owner, self._clock(), ended, packed, lost)
        stored = await self._transactions.run(ledger.end, end)
        return (*usages, *answers) if stored else None


def _usages(started: ledger.Started) -> tuple[Outgoing, ...]:
    """The usage events of the calls that ended before."""
    return tuple(event for ended in started.ended for event in unpack(ended.usage))
