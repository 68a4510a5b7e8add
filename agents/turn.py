"""One round of the complete stage with a call: what came of it, as facts."""

from __future__ import annotations

from dataclasses import dataclass

from agents.cancel import cancelled_error
from agents.structured import answer_problem, answer_text, repair_request
from config import ledger
from config.answers import Ended, Kept
from config.keyring import Picked
from config.prices import Prices
from core.attempts import Expire
from core.errors import ProviderError, error
from core.facts import Attempt, Spent, response, usage
from core.outcome import Outgoing, unpack
from core.reply import Reply
from schemas.events import LlmCall, LlmResponse, LlmUsage

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One round with a call: what the ledger said, and the provider call made for it, or found to be cut off (no result).

    `since` is the place of the candidate with which the call came to this lane; what was called before was published there.
    `picked` is the key that the call was made with.
    """

    started: ledger.Started
    since: int
    attempt: Attempt | None
    result: Reply | ProviderError | None
    cancelled: bool = False
    picked: Picked | None = None

    @property
    def earlier(self) -> tuple[Outgoing, ...]:
        """The usage events of the calls that this lane made before."""
        ended = (each for each in self.started.ended if each.candidate >= self.since)
        return tuple(event for each in ended for event in unpack(each.usage))

    def usage(self, call: LlmCall, at: int, prices: Prices) -> LlmUsage | None:
        """The accounting fact of this round's provider call, if there was one."""
        if self.attempt is None:
            return None
        price = prices.on(call["provider"], call["model"], self.attempt.started_at // DAY_US)
        fact = usage(call, self.attempt, self.result, at, price)
        if self.picked is None:
            return fact
        return {**fact, "credential_id": self.picked.credential_id, "credential_owner": self.picked.owner}

    def repair_of(self, call: LlmCall) -> LlmCall | None:
        """The call that asks to mend an answer which did not follow its schema, where the call says that this shall be tried."""
        failed = self.result
        if not call["repair"] or not isinstance(failed, ProviderError) or failed.reply is None:
            return None
        if failed.error["code"] != "provider_schema_mismatch":
            return None
        problem = answer_problem(call["request"], failed.reply) or failed.error["message"]
        return repair_request(call, answer_text(failed.reply), problem)

    def answer(self, call: LlmCall, fact: LlmUsage | None, at: int) -> LlmResponse:
        """The answer to the request when no further call is made."""
        spent = [Spent(ended.cost_nano, ended.cost_status) for ended in self.started.ended]
        if fact is not None:
            spent.append(Spent(fact["cost_nano_usd"], fact["cost_status"]))
        if isinstance(self.result, Reply):
            return response(call, "completed", at, attempt=self.attempt, reply=self.result, spent=spent)
        if isinstance(self.result, ProviderError):
            failed, reply = self.result.error, self.result.reply
            return response(call, "failed", at, attempt=self.attempt, reply=reply, failure=failed, spent=spent)
        if isinstance(self.started.step, Expire) and self.cancelled:
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
