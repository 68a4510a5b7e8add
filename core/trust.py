"""Who asks: what the headers of a signed request say, whether they hold, and the request as its key lets it be asked."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

from core.errors import error
from core.outcome import Headers
from schemas.events import Error, LlmRequest
from schemas.signing import KEY_ID, SIGNATURE, SIGNED_AT, signature

#: How far the time of a signature may be from the time at which its record is judged.
WINDOW_SECONDS = 300
#: Codes of answers to what is not believed; the ledger knows nothing of these.
NOT_KEPT = (
    "caller_not_signed", "caller_unknown_key", "caller_key_revoked", "caller_bad_signature", "caller_key_expired",
    "caller_signature_untimely", "caller_identity_mismatch", "pipeline_internal",
)  # fmt: skip
#: The tenant of a request that names none, as the schema has it.
NO_TENANT = "default"
_FORMS = {KEY_ID: rb"[0-9A-Za-z._-]{1,40}", SIGNED_AT: rb"[0-9]{1,12}", SIGNATURE: rb"[0-9a-f]{64}"}
_WANTED = {
    KEY_ID: "the id of an API key", SIGNED_AT: "a time in whole seconds since 1970", SIGNATURE: "64 hexadecimal digits in small letters",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom an API key speaks for. With `user` or `project` None, the request may name one; `models` are shell patterns of
    `provider/model`, none of them for every model.
    """

    api_key_id: str
    tenant: str
    user: str | None = None
    project: str | None = None
    models: tuple[str, ...] = ()

    def may_use(self, model: str) -> bool:
        """Whether the key is for this `provider/model`."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Signed:
    """What the headers of a record claim, as the bytes that were signed."""

    key_id: bytes
    signed_at: bytes
    signature: bytes

    def by(self, signing_key: bytes, value: bytes) -> bool:
        """Whether the signature is this key's, over this value; takes as long for a wrong one."""
        return hmac.compare_digest(signature(signing_key, self.key_id, self.signed_at, value), self.signature)


def signed_of(headers: Headers) -> Signed | Error:
    """What the headers claim, or what is wrong with them."""
    found: dict[str, list[bytes]] = {name: [] for name in _FORMS}
    for name, value in headers:
        if name in found:
            found[name].append(value or b"")
    if not any(found.values()):
        return error(
            "caller_not_signed",
            f"The request is not signed, and this deployment takes signed ones only; add the headers {', '.join(_FORMS)}.",
        )
    for name, form in _FORMS.items():
        if len(found[name]) != 1:
            return error("caller_not_signed", f"Header {name} stands there {len(found[name])} times; give it once.")
        if not re.fullmatch(form, found[name][0]):
            return error("caller_bad_signature", f"Header {name} cannot be read; it must be {_WANTED[name]}.")
    return Signed(*(found[name][0] for name in (KEY_ID, SIGNED_AT, SIGNATURE)))


def untimely(signed: Signed, at_us: int) -> Error | None:
    """Why a signature does not count at this time, in microseconds since 1970; None where it does."""
    ago = at_us / 1_000_000 - int(signed.signed_at)
    if abs(ago) <= WINDOW_SECONDS:
        return None
    where = f"{ago:,.0f} s ago" if ago > 0 else f"{-ago:,.0f} s from now"
    return error(
        "caller_signature_untimely",
        f"The request was signed {where}, and {WINDOW_SECONDS} s either way are allowed; set the clock, and sign it again.",
    )


def mismatch(request: LlmRequest, caller: Caller) -> Error | None:
    """What a request claims to be that its key is not for; None where there is nothing."""
    claims = {name: cast(dict[str, str | None], request)[name] for name in ("tenant", "user", "project", "api_key_id")}
    for name, claimed in claims.items():
        given = getattr(caller, name)
        if claimed is not None and given is not None and claimed != given and (name, claimed) != ("tenant", NO_TENANT):
            return error(
                "caller_identity_mismatch",
                f"The request names the {name.replace('_', ' ')} {claimed[:80]!r}, and API key {caller.api_key_id} is not for "
                "it; leave it out, or sign with its key.",
            )
    return None


def mismatch_with_topic(request: LlmRequest, tenant: str, topic: str) -> Error | None:
    """Why a request cannot stand in the topic of this tenant; None where it can."""
    if request["tenant"] in (tenant, NO_TENANT):
        return None
    return error(
        "caller_identity_mismatch",
        f"The request names the tenant {request['tenant'][:80]!r}, and topic {topic} is for {tenant}; leave it out, or write "
        "to its own topic.",
    )


def as_caller(request: LlmRequest, caller: Caller) -> LlmRequest:
    """The request with the identity of its key, whatever it claims."""
    own = {
        "tenant": caller.tenant, "user": caller.user or request["user"], "project": caller.project or request["project"],
        "api_key_id": caller.api_key_id,
    }  # fmt: skip
    return cast(LlmRequest, {**request, **own})


def not_for(caller: Caller | None, model: str) -> Error | None:
    """Why the caller's key is not for a model; None where it is."""
    if caller is None or caller.may_use(model):
        return None
    return error(
        "policy_model_not_allowed",
        f"API key {caller.api_key_id} is not for {model}; it is for {', '.join(caller.models)}.",
    )
