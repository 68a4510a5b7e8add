"""One round of the complete stage with a call: what came of it, as facts."""

from __future__ import annotations

from dataclasses import dataclass

from agents.cancel import cancelled_error
from agents.structured import answer_problem, answer_text, repair_request
from config import ledger
from config.answers import Ended, Kept
from config.keyring import Picked
from config.prices import Prices
from core.attempts import Expire, OverLimit
from core.errors import ProviderError, error
from core.facts import Attempt, Spent, response, usage
from core.outcome import Outgoing, unpack
from core.reply import Reply
from schemas.events import LlmCall, LlmResponse, LlmUsage

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Duty:
    """The calls whose usage events a record of a lane answers for: those from the candidate on with which it came.

    What was called before was published by another lane. Hedges are the duty of their own records, those with `hedge`.
    """

    since: int
    hedge: bool

    def has(self, ended: ledger.EndedAttempt) -> bool:
        """Whether this call is among them."""
        return ended.candidate >= self.since and (self.hedge or ended.reason != "hedge")


@dataclass(frozen=True, slots=True)
class Turn:
    """One round with a call: what the ledger said, and the provider call made for it, or found to be cut off (no result).

    `picked` is the key that the call was made with, `ended` are the other calls that have ended, `open` is how many have not.
    """

    started: ledger.Started
    duty: Duty
    attempt: Attempt | None
    result: Reply | ProviderError | None
    cancelled: bool = False
    picked: Picked | None = None
    ended: tuple[ledger.EndedAttempt, ...] = ()
    open: int = 0

    @property
    def earlier(self) -> tuple[Outgoing, ...]:
        """The usage events of the calls that this lane made before."""
        return tuple(event for each in self.ended if self.duty.has(each) for event in unpack(each.usage))

    @property
    def hedge(self) -> tuple[Outgoing, ...]:
        """The usage event of the hedge that the record stands for, where it was begun and has ended."""
        own = (each for each in self.ended if each.reason == "hedge" and each.candidate == self.duty.since)
        return tuple(event for each in own for event in unpack(each.usage))

    def usage(self, call: LlmCall, at: int, prices: Prices) -> LlmUsage | None:
        """The accounting fact of this round's provider call, if there was one."""
        if self.attempt is None:
            return None
        price = prices.on(call["provider"], call["model"], self.attempt.started_at // DAY_US)
        fact = usage(call, self.attempt, self.result, at, price)
        if self.picked is None:
            return fact
        return {**fact, "credential_id": self.picked.credential_id, "credential_owner": self.picked.owner}

    def repairs(self, candidate: int) -> list[int]:
        """The places of the candidates that were asked to mend an answer, each as often; the call of this round was to `candidate`."""
        now = [candidate] if self.attempt is not None and self.attempt.reason == "repair" else []
        return [each.candidate for each in self.ended if each.reason == "repair"] + now

    def repair_of(self, call: LlmCall) -> LlmCall | None:
        """The call that asks to mend an answer which did not follow its schema, where the call says that this shall be tried.

        A request gets one in all.
        """
        failed = self.result
        if not call["repair"] or self.repairs(call["candidate"]):
            return None
        if not isinstance(failed, ProviderError) or failed.reply is None:
            return None
        if failed.error["code"] != "provider_schema_mismatch":
            return None
        problem = answer_problem(call["request"], failed.reply) or failed.error["message"]
        return repair_request(call, answer_text(failed.reply), problem)

    def answer(self, call: LlmCall, fact: LlmUsage | None, at: int) -> LlmResponse:
        """The answer to the request when no further call is made."""
        spent = [Spent(ended.cost_nano, ended.cost_status) for ended in self.ended]
        spent += [Spent(None, "unknown")] * self.open
        if fact is not None:
            spent.append(Spent(fact["cost_nano_usd"], fact["cost_status"]))
        if isinstance(self.result, Reply):
            return response(call, "completed", at, attempt=self.attempt, reply=self.result, spent=spent)
        if isinstance(self.result, ProviderError):
            failed, reply = self.result.error, self.result.reply
            return response(call, "failed", at, attempt=self.attempt, reply=reply, failure=failed, spent=spent)
        if isinstance(self.started.step, OverLimit):
            return response(call, "failed", at, failure=self.started.step.error, spent=spent)
        if self.cancelled:
            return response(call, "failed", at, failure=cancelled_error(), spent=spent)
        if isinstance(self.started.step, Expire):
            late = error("pipeline_deadline_exceeded", "The deadline passed before a provider call could be made.")
            return response(call, "expired", at, failure=late, spent=spent)
        unknown = error(
            "provider_outcome_unknown",
            f"A crash cut off the call to {call['provider']} and no further call may be made; "
            "the provider may have charged for it.",
        )
        return response(call, "failed", at, failure=unknown, spent=spent)


def cached_answer(call: LlmCall, answer: LlmResponse, value: bytes) -> Ended | None:
    """What the response cache is told of the end of a request, None where it has nothing to do with it.

    `value` is the encoded answer, which is kept where it is one.
    """
    if call["cache_key"] is None:
        return None
    request, kept = call["request"], None
    if answer["outcome"] == "completed":
        kept = Kept(request["request_id"], request["tenant"], value, answer["cost_nano_usd"])
    return Ended(call["cache_key"], request["request_id"], kept, call["cache_until"] or 0)
