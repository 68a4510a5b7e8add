"""What follows a failed provider call: another one of the same model, the next candidate, or the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.retry import RetryRule, next_wait
from schemas.events import Candidate, Error, LlmCall

#: Another model, key or provider may well answer. Everything else would come back the same: the request itself is at fault.
FALLS_BACK = frozenset({
    "provider_rate_limited", "provider_unavailable", "provider_timeout", "provider_connection", "provider_bad_answer",
    "provider_schema_mismatch", "provider_auth", "provider_unknown_model", "caller_unsupported_feature",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Again:
    """Call the same model again after this many seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class Next:
    """Go on to the candidate at this place."""

    candidate: int


@dataclass(frozen=True, slots=True)
class Tried:
    """What was done for a request so far: calls in all and to the present candidate, and the most that they can have cost."""

    made: int
    here: int
    cost_bound_nano: int
    #: The candidates called so far: more than those up to the present one where one was called beside another.
    places: frozenset[int] = frozenset()
    #: Whether the present candidate was asked to mend its answer.
    repaired: bool = False


def next_move(
    rule: RetryRule, call: LlmCall, failed: Error, tried: Tried, now_us: int, jitter: float
) -> Again | Next | None:
    """What to do after a call of the request failed; None ends it with that failure.

    `rule.max_attempts` bounds the calls to one candidate, the request's own `max_attempts` and `max_cost_nano_usd` those
    to all of them. A wait that the rule or the deadline does not allow goes on to the next candidate at once, and so does a
    candidate that could not mend its answer.
    """
    request = call["request"]
    if request["max_attempts"] is not None and tried.made >= request["max_attempts"]:
        return None
    left = room(call, tried)
    if not tried.repaired and _fits(call["reserved_nano_usd"], left):
        wait = next_wait(rule, failed, tried.here, now_us, request["deadline"], jitter)
        if wait is not None:
            return Again(wait)
    if failed["code"] not in FALLS_BACK and failed["code"] not in call["fall_back_on"]:
        return None
    if request["deadline"] is not None and now_us >= request["deadline"]:
        return None
    following = next_candidate(call["candidates"], call["candidate"], left, tried.places)
    return None if following is None else Next(following)


def after_lost(rule: RetryRule, call: LlmCall, tried: Tried) -> Again | Next:
    """What to do after a crash cut a call off: ask again, where the ledger knows the request's own policy, or go on.

    A model that had all its calls makes room for the next candidate, unless the request would rather fail than be called twice.
    """
    request = call["request"]
    may_go_on = request["on_unknown_outcome"] == "retry" and tried.here >= rule.max_attempts
    if may_go_on and (request["max_attempts"] is None or tried.made < request["max_attempts"]):
        following = next_candidate(call["candidates"], call["candidate"], room(call, tried), tried.places)
        if following is not None:
            return Next(following)
    return Again(0.0)


def tried_so_far(call: LlmCall, calls: Sequence[tuple[int, int | None]]) -> Tried:
    """What these calls, each by its candidate's place and its cost, come to; an unknown cost counts with its bound."""
    bounds = [candidate["reserved_nano_usd"] or 0 for candidate in call["candidates"]]
    cost = sum(
        nano if nano is not None else bounds[place] if place < len(bounds) else call["reserved_nano_usd"] or 0
        for place, nano in calls
    )
    places = [place for place, _ in calls]
    return Tried(len(calls), places.count(call["candidate"]), cost, frozenset(places))


def next_candidate(
    candidates: Sequence[Candidate], after: int, room_nano: int | None, without: Collection[int] = ()
) -> int | None:
    """The place of the first later candidate whose bound fits into what may still be spent; None when there is none."""
    places = (place for place in range(after + 1, len(candidates)) if place not in without)
    return next((i for i in places if _fits(candidates[i]["reserved_nano_usd"], room_nano)), None)


def at_candidate(call: LlmCall, place: int) -> LlmCall:
    """The call as it goes to the candidate at this place, in its turn."""
    chosen = call["candidates"][place]
    return {
        **call,
        "provider": chosen["provider"],
        "model": chosen["model"],
        "max_output_tokens": chosen["max_output_tokens"],
        "reserved_nano_usd": chosen["reserved_nano_usd"],
        "candidate": place,
        "beside": None,
    }


def room(call: LlmCall, tried: Tried) -> int | None:
    """What a further call of the request may cost in nano-USD; None where it says nothing."""
    most = call["request"]["max_cost_nano_usd"]
    return None if most is None else most - tried.cost_bound_nano


def _fits(bound: int | None, room: int | None) -> bool:
    return room is None or (bound is not None and bound <= room)
