"""The closed list of errors that a caller can see, and the exception a provider call ends with.

The first word of a code says whose fault it is: `caller`, `policy`, `provider` or `pipeline`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from core.reply import Reply
from schemas.events import Error


class Kind(NamedTuple):
    """What a code means to a caller."""

    retryable: bool
    meaning: str


CODES: dict[str, Kind] = {
    "caller_undecodable": Kind(False, "The record's value is not an event of the topic's type."),
    "caller_invalid_request": Kind(False, "A field of the request has a value that cannot be served; the message names both."),
    "caller_unknown_model": Kind(False, "No provider here serves the model; the message lists the nearest names."),
    "caller_unsupported_feature": Kind(False, "The request uses something that this deployment or provider does not offer."),
    "caller_request_id_reused": Kind(False, "The request id was used before with another body."),
    "caller_cancelled": Kind(False, "The caller asked to stop the request."),
    "caller_not_signed": Kind(False, "The request lacks a header of its signature, or has one twice."),
    "caller_unknown_key": Kind(False, "The request is signed with an API key that was never issued here."),
    "caller_key_revoked": Kind(False, "The request is signed with an API key that was revoked."),
    "caller_bad_signature": Kind(False, "A header of the signature cannot be read, or the signature is not the key's over this record."),
    "caller_key_expired": Kind(False, "The request is signed with an API key whose time is over."),
    "caller_signature_untimely": Kind(False, "The request was signed more than five minutes before or after it was judged."),
    "caller_identity_mismatch": Kind(False, "The request names another tenant, user, project or key than it may ask for."),
    "policy_no_route": Kind(False, "The request names no model, and no route is for its plan, task and tenant."),
    "policy_no_candidate": Kind(False, "No model of the route can or may serve the request; the message says why for each."),
    "policy_rate_limited": Kind(True, "A limit of a minute, an hour or of concurrent requests has no room now; `retry_after_ms` says when."),
    "policy_quota_exceeded": Kind(True, "A limit of requests or tokens over a day or longer is used up until its window ends."),
    "policy_budget_exceeded": Kind(True, "A limit of money has no room for what the request may cost."),
    "policy_model_not_allowed": Kind(False, "The API key is for other models than those that could answer."),
    "policy_energy_exhausted": Kind(False, "Every model that may answer costs more credits than the user has left."),
    "policy_unpriced_model": Kind(False, "An account has a limit of money, and a model that may answer has no price."),
    "policy_unknown_account": Kind(False, "No limit names the tenant, or its user, and this deployment serves only those that one names."),
    "provider_rate_limited": Kind(True, "The provider answered that too many requests were made."),
    "provider_unavailable": Kind(True, "The provider answered with a server error or that it is overloaded."),
    "provider_timeout": Kind(True, "The provider did not answer in time."),
    "provider_connection": Kind(True, "The connection to the provider failed or was cut."),
    "provider_bad_answer": Kind(True, "The provider's answer could not be read or was empty."),
    "provider_schema_mismatch": Kind(True, "The answer does not follow the JSON schema that the request gave."),
    "provider_auth": Kind(False, "The provider's key is missing, refused or lacks a permission."),
    "provider_invalid_request": Kind(False, "The provider refused the request as it stands."),
    "provider_context_too_long": Kind(False, "The request has more tokens than the model reads; a larger model may take it."),
    "provider_unknown_model": Kind(False, "The provider does not know the model."),
    "provider_content_refused": Kind(False, "The provider refused to answer because of the content."),
    "provider_outcome_unknown": Kind(True, "A crash cut the call off and the request asked not to repeat it."),
    "pipeline_deadline_exceeded": Kind(True, "The deadline passed before a call could be made."),
    "pipeline_superseded": Kind(False, "Another call of the request answered first, and this one was broken off."),
    "pipeline_not_admitted": Kind(False, "A call reached a lane without a ledger entry of its admission."),
    "pipeline_unknown_attempt": Kind(False, "A usage event names an attempt that the ledger does not know."),
    "pipeline_internal": Kind(True, "A stage failed on the record; its log names the cause."),
}  # fmt: skip


def error(code: str, message: str, *, retry_after_ms: int | None = None, provider_status: int | None = None) -> Error:
    """The error with this code from the closed list; KeyError when the list does not have it."""
    return Error(
        code=code,
        message=message,
        retryable=CODES[code].retryable,
        retry_after_ms=retry_after_ms,
        provider_status=provider_status,
    )


class ProviderError(Exception):
    """A provider call that gave no usable answer.

    `charged` is `no` when the provider answered with an error and so charges nothing, `maybe` when work may have been done
    and paid for. `reply` holds what the provider reported all the same, its usage above all, where it did.
    """

    def __init__(self, error: Error, charged: Literal["no", "maybe"], reply: Reply | None = None) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.error = error
        self.charged: Literal["no", "maybe"] = charged
        self.reply = reply
