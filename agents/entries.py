"""What the admit stage tells the ledger of a request: that it is to be called by its plan, or that it has its answer."""

from __future__ import annotations

import hashlib

from agents.planning import Plan
from config import ledger
from core.accounts import path_of
from core.admission import LONGEST_LABEL, UUID
from core.limits import Asking
from schemas.events import LlmRequest

#: The last moment that the ledger can keep: a deadline may be the largest number there is.
LAST = 2**63 - 1


def call_entry(
    request: LlmRequest, body: bytes, plan: Plan, now: int, known: tuple[str, ...], reserve_seconds: int
) -> ledger.Admission:
    """What asks the ledger to let a request be called by its plan; `body` is what it is known by when it is sent again.

    What is held for it stays held for so many seconds past its deadline, or past its admission where it has none.
    """
    # When nobody works on the request any more, if it has no answer by then.
    expires_at = min((request["deadline"] or now) + reserve_seconds * 1_000_000, LAST)
    asking = Asking(
        path(request), request["task"], plan.models, plan.amounts, plan.tiers, plan.degrade_from, plan.dearer
    )
    return ledger.Admission(
        ledger_key(request["request_id"]), hashlib.sha256(body).digest(), _account(request["tenant"]), plan.bound_nano, None, now,
        plan.packed(), asking, expires_at, known,
    )  # fmt: skip


def answer_entry(
    request_id: str, body: bytes, account: str, now: int, answer: bytes, known: tuple[str, ...] = ()
) -> ledger.Admission:
    """What tells the ledger of a request that needs no call, with its packed answer."""
    hashed = hashlib.sha256(body).digest()
    return ledger.Admission(ledger_key(request_id), hashed, _account(account), 0, answer, now, known=known)


def ledger_key(request_id: str) -> str:
    """The ledger's key, at most 64 characters; only a valid id can be as short as it looks."""
    return request_id if UUID.fullmatch(request_id) else hashlib.sha256(request_id.encode()).hexdigest()


def path(request: LlmRequest) -> tuple[str, ...]:
    """The accounts that a request is charged to."""
    return path_of(request["tenant"], request["project"], request["user"], request["api_key_id"])


def _account(tenant: str) -> str:
    """The account that a tenant's name stands for; a name that was refused still has to fit the ledger's column."""
    return tenant[:LONGEST_LABEL].replace("\x00", "")
