"""From what went wrong with a provider call to the error its caller sees, without the secrets that providers repeat."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from config.settings import ProviderSettings
from core.errors import ProviderError, error
from core.reply import Reply

LONGEST_QUOTE = 300
LONGEST_MESSAGE = 600
#: A provider that asks for more is tried again after a day.
LONGEST_WAIT_MS = 86_400_000
HIDDEN = "[secret]"

#: What keys look like in the texts of providers, and what one looks like whose middle is asterisks.
SECRETS = re.compile(
    r"""(?ix)
    \bbearer\s+(?!\[secret\])[^\s"',;]+
    | \b(?:x-api-key|x-goog-api-key|api[-_]?key|authorization|access[-_]?token)\b["']?\s*[:=]\s*["']?[^\s"',;&]+
    | (?<![a-z0-9])(?:sk|pk|rk)-[\w*.-]{4,}
    | (?<![a-z0-9])(?:gsk|hf|xai|nvapi)[-_][\w*-]{8,}
    | (?<![a-z0-9])AIza[\w-]{8,}
    """
)
MASKED = re.compile(r"[^\s\"'*]*\*{3,}[^\s\"']*")

#: Codes inside a 400 that say more than the status does (https://ai.google.dev/gemini-api/docs/troubleshooting,
#: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter).
BY_REASON = {
    "api_key_invalid": "provider_auth",
    "content_filter": "provider_content_refused",
    "content_policy_violation": "provider_content_refused",
    "context_length_exceeded": "provider_context_too_long",
}
#: How a 400 says the same in words: Anthropic (https://docs.anthropic.com/en/docs/build-with-claude/context-windows), Gemini, and
#: servers of OpenAI's API such as vLLM, which send no code.
TOO_LONG = re.compile(r"(?i)prompt is too long|input token count .* exceeds the maximum|maximum context length")

NEXT_ACTION = {
    "provider_rate_limited": "send fewer requests or raise the limit with the provider.",
    "provider_unknown_model": "check the model's name and the provider's base URL.",
    "provider_invalid_request": "change the request.",
    "provider_context_too_long": "shorten it, ask a larger model, or let the route fall back on this code.",
    "provider_content_refused": "change the content.",
}


def without_secrets(text: str, key: str | None, longest: int = LONGEST_QUOTE) -> str:
    """The text in one line of at most `longest` characters, with the key and whatever looks like a key replaced."""
    if key:
        text = text.replace(key, HIDDEN)
    text = " ".join(text[:4_000].split())
    text = SECRETS.sub(HIDDEN, text)
    if "***" in text:
        text = MASKED.sub(HIDDEN, text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def code_of(status: int, body: object) -> str:
    """The error code for an HTTP status that is no success, with the reason inside its body where that says more."""
    if status == 429:
        return "provider_rate_limited"
    if status == 408:
        return "provider_timeout"
    if status >= 500:
        return "provider_unavailable"
    if status in (401, 403):
        return "provider_auth"
    if status == 404:
        return "provider_unknown_model"
    if status >= 400:
        reasons = (BY_REASON[reason] for reason in _reasons(body) if reason in BY_REASON)
        too_long = status == 400 and TOO_LONG.search(said(body)) is not None
        return next(reasons, "provider_context_too_long" if too_long else "provider_invalid_request")
    return "provider_bad_answer"


def status_failure(settings: ProviderSettings, status: int, headers: Mapping[str, str], body: object) -> ProviderError:
    """The failure that an HTTP error answer stands for; `body` is its JSON, or its text where it is none."""
    code = code_of(status, body)
    wait = retry_after_ms(headers, body, time.time())
    return failure(settings, code, f"{settings.name} answered {status}", "no", said(body), status=status, wait=wait)


def failure(
    settings: ProviderSettings,
    code: str,
    what: str,
    charged: Literal["no", "maybe"],
    quote: str = "",
    *,
    status: int | None = None,
    wait: int | None = None,
    reply: Reply | None = None,
) -> ProviderError:
    """A failure whose message is `what` happened, what the provider said, and the next action."""
    quoted = without_secrets(quote, settings.api_key)
    message = f"{what}: {quoted.rstrip('.')}" if quoted else what
    action = f"check {settings.key_setting}." if code == "provider_auth" else NEXT_ACTION.get(code)
    message += f"; {action}" if action else "."
    return ProviderError(error(code, message, retry_after_ms=wait, provider_status=status), charged, reply)


def said(body: object) -> str:
    """What an error's body says: its message where it has the form of one of the providers, else the whole of it."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return str(body or "")
    inner = body.get("error", body)
    if isinstance(inner, dict):
        message = inner.get("message") or inner.get("detail") or inner.get("type")
        return str(message or inner)
    return str(inner)


def retry_after_ms(headers: Mapping[str, str], body: object, now: float) -> int | None:
    """How long the provider asks to wait, in milliseconds, a day at most; `now` in seconds since 1970.

    Read from `retry-after-ms`, from `Retry-After` as seconds or as an HTTP date (RFC 9110, section 10.2.3), or from a
    `google.rpc.RetryInfo` in the body (https://cloud.google.com/apis/design/errors#error_details).
    """
    try:
        asked = _asked_seconds(headers, body, now)
        return None if asked is None else min(max(0, round(asked * 1_000)), LONGEST_WAIT_MS)
    except (ValueError, OverflowError, KeyError):
        return None


def _asked_seconds(headers: Mapping[str, str], body: object, now: float) -> float | None:
    if (wait := headers.get("retry-after-ms")) is not None:
        return float(wait) / 1_000
    if (wait := headers.get("retry-after")) is not None:
        return _seconds(wait, now)
    for detail in _details(body):
        if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
            return float(str(detail["retryDelay"]).removesuffix("s"))
    return None


def _seconds(value: str, now: float) -> float:
    try:
        return float(value)
    except ValueError:
        at = parsedate_to_datetime(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now


def _error_object(body: object) -> dict[str, Any]:
    if isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error") if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _details(body: object) -> list[dict[str, Any]]:
    details = _error_object(body).get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _reasons(body: object) -> list[str]:
    found = [_error_object(body).get("code"), *(detail.get("reason") for detail in _details(body))]
    return [str(reason).lower() for reason in found if reason is not None]
