"""The cheapest question that a provider answers, its list of models, as a check of its health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import aiohttp
import orjson

from agents.providers.failures import said, without_secrets
from core.health import Check

CHECK_SECONDS = 10.0
#: What a check can find.
RESULTS = ("good", "timeout", "connection", "limited", "auth", "key", "status", "garbage", "calls")


class _Api(NamedTuple):
    """Where a kind of provider has its list of models, by default, and how it takes a key."""

    base_url: str | None
    path: str
    key_needed: bool
    headers: Callable[[str], Mapping[str, str]]


def _bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"}


APIS: Mapping[str, _Api] = {
    "openai": _Api("https://api.openai.com/v1", "/models", True, _bearer),
    "openai-compatible": _Api(None, "/models", False, _bearer),
    "anthropic": _Api(
        "https://api.anthropic.com", "/v1/models?limit=1", True,
        lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
    ),
    "google": _Api(
        "https://generativelanguage.googleapis.com", "/v1beta/models?pageSize=1", True, lambda key: {"x-goog-api-key": key}
    ),
}  # fmt: skip


def checkable(kind: str, base_url: str | None, key: str | None) -> bool:
    """Whether there is something to ask and a key to ask with; a provider without a key is neither healthy nor unhealthy."""
    api = APIS.get(kind)
    return api is not None and (base_url or api.base_url) is not None and (key is not None or not api.key_needed)


async def check_models(
    kind: str, base_url: str | None, key: str | None, at: int, seconds: float = CHECK_SECONDS
) -> Check:
    """Ask a provider for its models once: good is HTTP 200 with a JSON object within `seconds`; `at` is the time of the check."""
    api = APIS[kind]
    url = f"{(base_url or api.base_url or '').rstrip('/')}{api.path}"
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            async with http.get(url, headers=api.headers(key) if key else {}, allow_redirects=False) as answer:
                return _found(answer.status, await answer.read(), key, at)
    except TimeoutError:
        return Check(at, "timeout", f"It did not answer within {seconds:g} s.")
    except (aiohttp.ClientError, OSError, ValueError) as why:
        # Only its type: the text can hold the URL, and with it what somebody put there.
        return Check(at, "connection", f"The connection failed ({type(why).__name__}).")


def _found(status: int, body: bytes, key: str | None, at: int) -> Check:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if status == 200:
        if isinstance(answer, dict) and not answer.get("error"):
            return Check(at)
        return Check(at, "garbage", f"It answered 200 with {len(body):,} bytes that are no list of models.")
    result = "limited" if status == 429 else "auth" if status in (401, 403) else "status"
    quote = without_secrets(said(answer), key) if answer is not None else ""
    return Check(at, result, f"It answered {status}: {quote.rstrip('.')}." if quote else f"It answered {status}.")
