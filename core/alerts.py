"""The alerts about providers, limits and spend: what an operator should know, stated once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, cast

from core.accounts import account, tenant_of
from core.health import ProviderHealth
from core.limits import Meter, Reached, amount_shown
from core.spending import Anomaly
from schemas.events import LlmAlert, Severity

US = 1_000_000
_LIMIT_NEAR: Final[tuple[str, Severity]] = "limit_near", "warning"
_LIMIT_REACHED: Final[tuple[str, Severity]] = "limit_reached", "critical"


def alert(kind: str, severity: Severity, subject: str, message: str, details: dict[str, str], at: int) -> LlmAlert:
    """An alert whose id follows from what it says of whom and when, `at` in microseconds since 1970."""
    return LlmAlert(
        alert_id=_id(f"{kind}/{subject}/{at}"), kind=kind, severity=severity,
        subject=subject, tenant=None, message=message, details=details, raised_at=at,
    )  # fmt: skip


def health_changed(provider: str, before: ProviderHealth, now: ProviderHealth) -> LlmAlert | None:
    """The alert for a provider that became unhealthy, or is so no more; None for any other check.

    It is published before the change is kept, and its id is that of the change, however often that is made.
    """
    if now.state == before.state or "unhealthy" not in (now.state, before.state):
        return None
    return _health_alert(provider, before, now) | {
        "alert_id": _id(f"health/{provider}/{before.changed_at}/{now.state}")
    }


def _health_alert(provider: str, before: ProviderHealth, now: ProviderHealth) -> LlmAlert:
    details = {"good_in_a_row": str(now.good_in_a_row), "failed_in_a_row": str(now.failed_in_a_row)}
    if now.state == "unhealthy":
        said = f"{provider} failed {now.failed_in_a_row} checks in a row and gets no calls while another can answer: "
        said += (
            f"{(now.last_error or 'no reason is known').rstrip('.')}; see the provider's status page and its key here."
        )
        return alert("provider_unhealthy", "critical", provider, said, details, now.changed_at)
    gone = (now.changed_at - before.changed_at) // US
    said = f"{provider} passed {now.good_in_a_row} checks in a row and gets calls again after {gone:,} s."
    if now.state == "unknown":
        said = f"{provider} has no key left to be checked with, and gets calls again after {gone:,} s."
    return alert("provider_healthy", "info", provider, said, details, now.changed_at)


def breaker_open(provider: str, model: str, error_code: str, until: int, at: int) -> LlmAlert:
    """The alert for a circuit breaker that opened, with the code of the failure that opened it."""
    subject = f"{provider}/{model}"
    said = f"Too many calls to {subject} failed, the last with {error_code}; it gets none for {(until - at) // US:,} s."
    return alert("breaker_open", "warning", subject, said, {"error_code": error_code, "until": str(until)}, at)


def breaker_closed(provider: str, model: str, at: int) -> LlmAlert:
    """The alert for a circuit breaker that is closed again after a good trial."""
    subject = f"{provider}/{model}"
    return alert(
        "breaker_closed", "info", subject, f"A trial call to {subject} went well; it gets calls again.", {}, at
    )


def limit_share(reached: Reached) -> LlmAlert:
    """The alert for a share of a limit that an account has reached; it follows from that alone, so it is the same each time."""
    kind, severity = _LIMIT_REACHED if reached.share >= 100 else _LIMIT_NEAR
    meter, _, span = reached.subject.partition(" ")
    limit = f"{amount_shown(cast(Meter, meter), reached.most)} {span}".rstrip()
    used = amount_shown(cast(Meter, meter), reached.used)
    details = {
        "limit": limit, "meter": meter, "share": str(reached.share), "used": str(reached.used), "most": str(reached.most),
    }  # fmt: skip
    has = "has" if reached.ends is None else "has used"
    said = f"Account {reached.account} {has} {used} of its limit of {limit}, at least {reached.share} %"
    if reached.share >= 100 and reached.used < reached.most:
        said = f"Account {reached.account} has used {used} of its limit of {limit}, and a request did not fit into the rest"
    if reached.ends is not None:
        details |= {"begins": _iso(reached.begins), "resets_at": _iso(reached.ends)}
        word = "at the latest at" if span.startswith("per sliding ") else "at"
        said += f"; this stops counting {word} {details['resets_at']}"
    said += ". See `millstream limits show`, and raise the limit if it is too low."
    made = alert(kind, severity, reached.account, said, details, reached.raised_at)
    place = f"{kind}/{reached.account}/{reached.subject}/{reached.begins}/{reached.share}"
    return made | {
        "alert_id": _id(place), "tenant": tenant_of(reached.account)
    }  # fmt: skip


def spend_anomaly(anomaly: Anomaly) -> LlmAlert:
    """The alert for a tenant that spends unusually much in a day; it follows from that alone, so it is the same each time."""
    found, day = anomaly.unusual, anomaly.day.isoformat()
    spent, mean, greatest = (amount_shown("usd", nano) for nano in (found.spent, found.mean, found.greatest))
    details = {
        "day": day, "spent": str(found.spent), "weekdays": str(found.known), "mean": str(found.mean),
        "greatest": str(found.greatest),
    }  # fmt: skip
    said = (
        f"Tenant {anomaly.tenant} has spent {spent} so far on {day}; the last {found.known} same weekdays that are known came to "
        f"{mean} on average and {greatest} at most. See `millstream report`, and set a limit if this shall not go on."
    )
    subject = account(anomaly.tenant)
    made = alert("spend_anomaly", "warning", subject, said, details, anomaly.raised_at)
    place = f"alert/spend_anomaly/{subject}/{day}"
    return made | {"alert_id": str(uuid.uuid5(uuid.NAMESPACE_URL, place)), "tenant": anomaly.tenant}


def _id(what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"alert/{what}"))


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / US, UTC).isoformat().replace("+00:00", "Z")


def registry_refused(problems: Sequence[str], at: int) -> LlmAlert:
    """The alert for a registry that cannot be used; workers go on with the one before. All that say so in an hour say the same."""
    said = f"The registry cannot be used and the one before holds: {problems[0].rstrip('.')}"
    said += (
        f", and {len(problems) - 1} problems more; mend it, or import an earlier file."
        if problems[1:]
        else "; mend it."
    )
    made = alert("registry_snapshot_refused", "critical", "registry", said, {"problems": str(len(problems))}, at)
    return made | {"alert_id": _id(f"registry/{at // (3_600 * US)}/{'/'.join(problems)}")}
