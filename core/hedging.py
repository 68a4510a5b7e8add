"""When a second candidate is called beside a call whose first token is late, and which."""

from __future__ import annotations

from collections.abc import Sequence

from core.fallback import Tried, next_candidate, room
from core.standing import Standing
from schemas.events import Candidate, LlmCall, LlmRequest

#: However fast a model is: a second call costs more than a wait that nobody notices.
LEAST_US = 100_000


def may_hedge(request: LlmRequest) -> bool:
    """Whether a request allows two calls at all: not one that would rather fail than be called twice."""
    return request["on_unknown_outcome"] != "fail" and request["max_attempts"] != 1


def hedge_after_us(standing: Standing, streamed: bool) -> int | None:
    """How long to wait for the first token of a streamed answer, or for another one; None where too few calls are known."""
    p95_ms = standing.first_token_p95_ms if streamed else standing.answer_p95_ms
    return None if p95_ms is None else max(LEAST_US, round(p95_ms * 1_000))


def most_at_once(candidates: Sequence[Candidate]) -> int:
    """The most that the calls of a request that are open at once can cost in nano-USD: one, or a late one and its hedge."""
    bounds = [one["reserved_nano_usd"] or 0 for one in candidates]
    pairs = (
        bounds[place] + bounds[other]
        for place, late in enumerate(candidates)
        if late["hedge_after_us"] is not None
        for other in range(place + 1, len(candidates))
        if candidates[other]["provider"] != late["provider"]
    )
    return max((*bounds, *pairs), default=0)


def waits_for(call: LlmCall) -> bool:
    """Whether another candidate may be called when this call is late."""
    candidates = call["candidates"]
    return not candidates or candidates[call["candidate"]]["hedge_after_us"] is not None


def hedge_to(call: LlmCall, tried: Tried) -> int | None:
    """The place of the candidate that is called as well when this call is late; None where none may be.

    It is a later one of another provider, since what makes one model late may make its provider's others late too. `tried` counts
    the late call with its bound: both calls have to fit into what the request allows.
    """
    most = call["request"]["max_attempts"]
    if (
        not waits_for(call)
        or call["beside"] is not None
        or not may_hedge(call["request"])
        or (most is not None and tried.made >= most)
    ):
        return None
    own = {place for place, one in enumerate(call["candidates"]) if one["provider"] == call["provider"]}
    return next_candidate(call["candidates"], call["candidate"], room(call, tried), tried.places | own)
