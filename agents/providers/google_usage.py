"""What a Gemini answer used, in Millstream's token classes (https://ai.google.dev/api/generate-content#UsageMetadata)."""

from __future__ import annotations

from typing import Any

from agents.providers.base import count, fields, less, terms_text, unlike
from core.reply import NO_TOKENS
from schemas.events import Tokens


def usage_of(body: dict[str, Any]) -> Tokens:
    """The tokens of a `GenerateContentResponse` (https://ai.google.dev/api/generate-content#UsageMetadata).

    `promptTokenCount` includes what was read from the cache, and audio; what tools brought into the prompt is counted
    beside it; `candidatesTokenCount` excludes thoughts. The API leaves counts of zero out of its JSON, so a missing count
    may be a zero: it stays unknown here, which costs the same.
    """
    usage = fields(body.get("usageMetadata"))
    tools, cache_read = count(usage.get("toolUsePromptTokenCount")), count(usage.get("cachedContentTokenCount"))
    prompt = count(usage.get("promptTokenCount"))
    read = _audio(usage.get("promptTokensDetails"))
    audio_in = None if read is None else less(read, _audio(usage.get("cacheTokensDetails")))
    audio_out = _audio(usage.get("candidatesTokensDetails"))
    tool_audio = _audio(usage.get("toolUsePromptTokensDetails"))
    uncached = less(prompt, cache_read, audio_in)
    return Tokens(
        **NO_TOKENS
        | {
            "input_uncached": uncached if tools is None else (uncached or 0) + tools - (tool_audio or 0),
            "cache_read": cache_read,
            "input_audio": audio_in if tool_audio is None else (audio_in or 0) + tool_audio,
            "output_text": less(count(usage.get("candidatesTokenCount")), audio_out),
            "reasoning": count(usage.get("thoughtsTokenCount")),
            "output_audio": audio_out,
        }
    )


def terms_of(body: dict[str, Any]) -> str | None:
    """What of a `GenerateContentResponse` has prices of its own: another service tier, cached audio, images made, searches.

    https://ai.google.dev/gemini-api/docs/pricing and https://ai.google.dev/gemini-api/docs/optimization
    """
    usage = fields(body.get("usageMetadata"))
    made = usage.get("candidatesTokensDetails")
    modalities = {fields(detail).get("modality") for detail in (made if isinstance(made, list) else ())}
    candidates = body.get("candidates")
    grounded = [fields(each).get("groundingMetadata") for each in (candidates if isinstance(candidates, list) else ())]
    return terms_text(
        unlike("service tier", str(usage.get("serviceTier") or "").lower(), "standard", "unspecified"),
        unlike("traffic", usage.get("trafficType"), "ON_DEMAND", "TRAFFIC_TYPE_UNSPECIFIED"),
        "cached audio" if _audio(usage.get("cacheTokensDetails")) else None,
        "images made" if "IMAGE" in modalities else None,
        "web search" if any(fields(each).get("webSearchQueries") for each in grounded) else None,
    )


def _audio(details: object) -> int | None:
    """The audio tokens of a list of `ModalityTokenCount`; None where it names no audio."""
    found = [
        tokens
        for detail in (details if isinstance(details, list) else ())
        if fields(detail).get("modality") == "AUDIO" and (tokens := count(detail.get("tokenCount"))) is not None
    ]
    return sum(found) if found else None
