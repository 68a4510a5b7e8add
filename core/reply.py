"""What a provider answered, in Millstream's own terms."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import ContentPart, Tokens

NO_TOKENS = Tokens(
    input_uncached=None, cache_read=None, cache_write_5m=None, cache_write_1h=None,
    input_audio=None, output_text=None, reasoning=None, output_audio=None,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """One provider's answer: its parts, why it ended, who served it and what it used.

    `finish_reason` is `stop`, `length`, `tool_calls`, `content_filter` or `other`; `provider_usage` is the usage as the
    provider reported it, JSON in text, or None where it reported none. `terms` says what the provider charges for by other
    prices than the model's standard ones, such as `service tier priority`; None where nothing. `counted` is False where a
    stream broke off before the usage of the whole call was told: the tokens are those so far, and the cost is not known.
    """

    output: tuple[ContentPart, ...]
    finish_reason: str
    response_model: str | None
    provider_response_id: str | None
    tokens: Tokens
    provider_usage: str | None
    terms: str | None = None
    counted: bool = True


def text_part(text: str) -> ContentPart:
    """A content part that holds just this text."""
    return ContentPart(
        type="text", text=text, media_type=None, url=None, data=None,
        tool_call_id=None, tool_name=None, tool_arguments=None,
    )  # fmt: skip
