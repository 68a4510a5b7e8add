"""Make the provider calls of an admitted request: the ledger is asked before every one, and knows the answer before it is sent."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from agents.cancel import Cancellation, Cancellations, Cancelled
from agents.chunks import Send
from agents.hedging import POLL_SECONDS, Hedges
from agents.ledgers import Ledgers
from agents.outgoing import Clock, Encoder, decode
from agents.provider_calls import ProviderCalls
from agents.providers.base import Provider
from agents.signals import Signals
from agents.slots import Slots
from agents.turn import Duty, Turn, cached_answer
from config import ledger
from config.holding import NotAdmitted
from config.keyring import Keyring, Picked
from config.prices import Prices
from config.transactions import Transactions
from core.attempts import FIRST_UNCHECKED, Begin, Ending, Finished, Left, Lost, Moved, OverLimit, Wait, attempt_id
from core.errors import ProviderError, error
from core.facts import Attempt
from core.fallback import Again, Next, Tried, after_lost, at_candidate, next_candidate, next_move, room, tried_so_far
from core.hedging import hedge_to, waits_for
from core.outcome import Emit, Outcome, Outgoing, Record, Reject, pack, unpack
from core.reply import Reply
from core.retry import RetryRule, rest_left
from schemas.cloudevents import trace_of
from schemas.codec import Codec, Undecodable
from schemas.events import Error, LlmCall, LlmResponse, LlmUsage, ReplyTo

LOG = logging.getLogger(__name__)
DAY_US = 86_400_000_000
FOREVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CompleteRules:
    """How many calls a lane may have under way at once now, how long one may take, and when a failed one is made again.

    An answer of more than `max_answer_bytes` as an event cannot be published.
    """

    concurrency: Callable[[], int]
    call_timeout: float
    retry: RetryRule
    max_answer_bytes: int


class Complete:
    """The complete stage of the provider called `name`; `owner` is the id of this worker process in the ledger.

    `call_ended` hears of every provider call once the ledger knows its end, `send` publishes what does not wait for a record's end:
    the pieces of streamed answers, and alerts. A call is made with a key of the `keyring`; `signals` say where calls fail, so
    that they go on to another candidate where there is one. `violated` hears of limits that end a request between its calls.
    `slots_in_use` counts the slots taken now.
    """

    def __init__(
        self, codec: Codec, ledgers: Ledgers, name: str, provider: Provider, rules: CompleteRules,
        prices: Callable[[], Prices], keyring: Keyring, signals: Signals, clock: Clock, owner: str,
        call_ended: Callable[[LlmUsage], None], send: Send, cancellations: Cancellations,
        violated: Callable[[NotAdmitted], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._codec = codec
        self._encoder = Encoder(codec, "complete", clock)
        self._ledgers = ledgers
        self._name = name
        self._rules = rules
        self._prices = prices
        self._keyring = keyring
        self._signals = signals
        self._clock = clock
        self._owner = owner
        self._call_ended = call_ended
        self._send = send
        self._cancellations = cancellations
        self._violated = violated
        hedges = Hedges(ledgers, self._encoder, send)
        self._calls = ProviderCalls(provider, self._encoder, hedges, send, clock, rules.call_timeout)
        self.slots_in_use = 0
        self._slots = Slots(rules.concurrency)
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
            with self._cancellations.watch(request_id, call["request"]["tenant"]) as cancellation:
                return await self._complete(call, trace_of(record.headers, request_id), cancellation)
        finally:
            del self._running[request_id]
            done.set_result(None)

    async def _complete(self, call: LlmCall, trace: bytes, cancellation: Cancellation) -> Outcome:
        duty, repair = Duty(call["candidate"], call["beside"] is not None), None
        while True:
            picked = self._pick(call)
            may_go_round = repair is None and not cancellation.requested
            if may_go_round and (wait := await self._go_round(call, picked)):
                with suppress(Cancelled):
                    await cancellation.unless(asyncio.sleep(wait))
                continue
            turn = await self._turn(call, repair, picked, duty, trace, cancellation)
            match turn.started.step:
                case Finished():
                    return Emit((*turn.earlier, *unpack(turn.started.answer or b"[]")))
                case Moved(place):
                    call, repair = at_candidate(call, place), None
                    if call["provider"] == self._name:
                        continue
                    return Emit((*turn.earlier, self._encoder.call(call, trace)))
                case Left():
                    return Emit(turn.hedge)
                case Wait():
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                case None:
                    return Reject(
                        "pipeline_not_admitted",
                        f"The ledger has no admission of request {call['request']['request_id']}; "
                        "check that every stage uses the same MILLSTREAM_DATABASE_URL and MILLSTREAM_SPARE_DATABASE_URL.",
                    )
            at = self._clock()
            fact = turn.usage(call, at, self._prices())
            came_to: Ending = "changed"
            while came_to == "changed":
                move = self._next(call, turn, fact, at)
                answer = turn.answer(call, fact, at) if move is None else None
                came_to, events = await self._store(call, turn, fact, answer, move, trace)
                if came_to == "changed":
                    now = await self._ledger(call).run(ledger.calls_of, call["request"]["request_id"])
                    turn = replace(turn, ended=now.ended, open=now.open - 1)
            if came_to == "refused":
                continue  # The ledger has moved on without this worker; it says what stands now.
            if isinstance(turn.started.step, OverLimit):
                self._violated(turn.started.step.why)
            if fact is not None:
                await self._tell(call, turn, fact)
            if move is None or came_to == "left":
                return Emit((*turn.earlier, *events))
            repair = turn.repair_of(call) if isinstance(move, Again) else None
            if isinstance(move, Again) and repair is None:
                with suppress(Cancelled):
                    await cancellation.unless(asyncio.sleep(move.wait))

    def _ledger(self, call: LlmCall) -> Transactions:
        return self._ledgers.of(unchecked=call["unchecked"])

    def _pick(self, call: LlmCall, limited: str | None = None) -> Picked:
        """The key for a call, none that rests, nor the one that was just limited, while there is another."""

        def out_until(credential_id: str) -> int | None:
            if credential_id == limited:
                return FOREVER
            return self._signals.out_until(self._name, call["model"], credential_id)

        tenant = call["request"]["tenant"]
        return self._keyring.pick(self._name, tenant, self._clock(), random.random(), out_until)

    async def _go_round(self, call: LlmCall, picked: Picked) -> float:
        """Hand the request over to its next candidate where this one is known to fail or to refuse just now.

        Where no later one fits into what it may still spend, this one is called all the same, after the rest that it said
        it needs: the seconds to wait, outside a slot, before all this is asked again.
        """
        request, now = call["request"], self._clock()
        deployment = self._name, call["model"], picked.credential_id
        if call["beside"] is not None:
            return 0.0
        rest = rest_left(self._rules.retry, self._signals.told_until(*deployment), now, request["deadline"])
        last = call["candidate"] + 1 >= len(call["candidates"])
        if not rest and ((picked.rests_until <= now and self._signals.may_begin(*deployment)) or last):
            return 0.0
        made = await self._ledger(call).run(ledger.calls_of, request["request_id"])
        if made.answered or made.open:
            return 0.0
        tried = tried_so_far(call, [(each.candidate, each.cost_nano) for each in made.ended])
        following = next_candidate(call["candidates"], call["candidate"], room(call, tried), tried.places)
        if following is None:
            return rest
        passed = ledger.End(
            request["request_id"], self._owner, now, None, None, move_to=following, counted=(len(made.ended), 0)
        )
        await self._ledger(call).run(ledger.end, passed)
        return 0.0

    async def _tell(self, call: LlmCall, turn: Turn, fact: LlmUsage) -> None:
        """Let everybody know how a call ended."""
        self._call_ended(fact)
        failed = turn.result.error if isinstance(turn.result, ProviderError) else None
        wait = failed["retry_after_ms"] if failed is not None else None
        deadline = call["request"]["deadline"]
        late = deadline is not None and fact["finished_at"] >= deadline
        alert = self._signals.ended(fact, wait, late, call["request"]["stream"])
        if fact["error_code"] == "provider_rate_limited" and wait is not None:
            self._keyring.rest(fact["credential_id"], fact["finished_at"] + wait * 1_000)
        if alert is not None:
            await self._send((self._encoder.alert(alert),))

    async def _turn(
        self, call: LlmCall, repair: LlmCall | None, picked: Picked, duty: Duty, trace: bytes, cancellation: Cancellation
    ) -> Turn:  # fmt: skip
        """Ask the ledger for the next step and make the provider call if that is it; only this takes a slot of the lane.

        `repair` is the call with which an answer is to be mended, where that is what is asked for. A request that is given
        up goes the way of one whose deadline has passed.
        """
        async with self._slots:
            self.slots_in_use += 1
            try:
                return await self._next_step(call, repair, picked, duty, trace, cancellation)
            finally:
                self.slots_in_use -= 1

    async def _next_step(
        self, call: LlmCall, repair: LlmCall | None, picked: Picked, duty: Duty, trace: bytes, cancellation: Cancellation
    ) -> Turn:  # fmt: skip
        request = call["request"]
        start = ledger.Start(
            request["request_id"],
            self._owner,
            self._clock(),
            0 if cancellation.requested else request["deadline"],
            self._rules.retry.max_attempts,
            request["on_unknown_outcome"] == "retry",
            call["candidate"],
            repair is not None,
            request["max_attempts"],
            self._beside(call, picked),
            FIRST_UNCHECKED if call["unchecked"] else 1,
        )
        started = await self._ledger(call).run(ledger.start, start)
        if started.step is None and call["unchecked"]:
            # It is through, and was carried over.
            started = await self._ledgers.main.run(ledger.start, start)
        turn = Turn(started, duty, None, None, ended=started.ended)
        match started.step:
            case Begin(number, reason):
                attempt = Attempt(attempt_id(request["request_id"], number), number, reason, self._clock())
                alone = repair is not None or duty.hedge or not waits_for(call)
                to = None if alone else hedge_to(call, self._tried(call, turn, None))
                asked = repair if repair is not None and reason == "repair" else call
                attempt, result = await self._calls.make(asked, attempt, picked, to, trace, cancellation)
                return replace(turn, attempt=attempt, result=result, picked=picked, open=int(reason == "hedge"))
            case Lost(opened):
                lost = Attempt(opened.attempt_id, opened.number, opened.reason, opened.started_at)
                return replace(turn, attempt=lost)
        return replace(turn, cancelled=cancellation.requested or started.cancelled)

    def _beside(self, call: LlmCall, picked: Picked) -> int | None:
        """The number of the call beside which a hedge is to begin, 0 for none where it would fail or be refused just now."""
        if call["beside"] is None:
            return None
        out = self._signals.out_until(self._name, call["model"], picked.credential_id) is not None
        return 0 if out or picked.rests_until > self._clock() else call["beside"]

    def _tried(self, call: LlmCall, turn: Turn, cost_nano: int | None) -> Tried:
        """What was done for the request, the call of this round included."""
        calls = [(each.candidate, each.cost_nano) for each in turn.ended]
        tried = tried_so_far(call, [*calls, (call["candidate"], cost_nano)])
        return replace(tried, repaired=call["candidate"] in turn.repairs(call["candidate"]))

    def _next(self, call: LlmCall, turn: Turn, fact: LlmUsage | None, at: int) -> Again | Next | None:
        """What follows this round, None when its end is the request's."""
        if fact is None or isinstance(turn.result, Reply):
            return None
        tried = self._tried(call, turn, fact["cost_nano_usd"])
        if isinstance(turn.started.step, Lost) or turn.result is None:
            return after_lost(self._rules.retry, call, tried)
        failed = turn.result.error
        limited = turn.picked.credential_id if turn.picked is not None else None
        if limited and failed["code"] == "provider_rate_limited" and self._pick(call, limited).rests_until <= at:
            # Another key is not bound by what this one was told.
            failed = Error(**{**failed, "retry_after_ms": None})
        return next_move(self._rules.retry, call, failed, tried, at, random.random())

    async def _store(
        self, call: LlmCall, turn: Turn, fact: LlmUsage | None, answer: LlmResponse | None, move: Again | Next | None,
        trace: bytes,
    ) -> tuple[Ending, tuple[Outgoing, ...]]:  # fmt: skip
        """Store the end of a call, and the answer if there is one; what came of it, and the events that it brings."""
        usages = (self._encoder.usage(fact, trace),) if fact is not None else ()
        answers: tuple[Outgoing, ...] = ()
        cached, completed = None, False
        if answer is not None:
            fitting, answers = self._answer(answer, trace, call["reply_to"])
            cached, completed = cached_answer(call, fitting, answers[0].value), fitting["outcome"] == "completed"
        ended = None
        if fact is not None:
            ended = ledger.EndedAttempt(fact["attempt"], pack(usages), fact["cost_nano_usd"], fact["cost_status"])
        packed = pack(answers) if answers else None
        lost = isinstance(turn.started.step, Lost)
        move_to = move.candidate if isinstance(move, Next) else None
        end = ledger.End(
            call["request"]["request_id"], self._owner, self._clock(), ended, packed, lost, move_to, cached,
            completed, (len(turn.ended), turn.open),
        )  # fmt: skip
        came_to = await self._ledger(call).run(ledger.end, end)
        return came_to, (*usages, *answers) if came_to == "recorded" else usages

    def _answer(
        self, answer: LlmResponse, trace: bytes, to: ReplyTo | None
    ) -> tuple[LlmResponse, tuple[Outgoing, ...]]:
        """The answer and its events; without its output, and failed, where the broker would refuse it."""
        events, most = self._encoder.answer(answer, trace, to), self._rules.max_answer_bytes
        if len(events[0].value) <= most:
            return answer, events
        failure = error(
            "provider_bad_answer",
            f"The answer is {len(events[0].value):,} bytes as an event and {most:,} are allowed; lower max_output_tokens, or "
            "raise MILLSTREAM_MAX_REQUEST_BYTES and the topics' max.message.bytes.",
        )
        answer = {**answer, "outcome": "failed", "output": [], "error": failure}
        return answer, self._encoder.answer(answer, trace, to)
