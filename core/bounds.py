"""The most tokens that a request can make a model read, by what the providers document; what they count is never more."""

from __future__ import annotations

from core.media import LEAST_AUDIO_BYTES_PER_SECOND, MEDIA_TYPES
from schemas.events import ContentPart, LlmRequest

#: The provider's own framing of each message, part and tool.
TOKENS_PER_MESSAGE = 16
#: What a provider adds by itself where there are tools or a schema for the answer; Anthropic states up to 530
#: (https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing).
TOKENS_OF_INSTRUCTIONS = 1_024

#: An image, after the provider has scaled it down. Anthropic: 4,784 patches for models of high resolution
#: (https://platform.claude.com/docs/en/build-with-claude/vision). Gemini: 9 tiles of 258 up to version 2.5, 2,240 after it
#: (https://ai.google.dev/gemini-api/docs/media-resolution).
IMAGE_TOKENS = {"anthropic": 4_784, "google": 2_322}
#: OpenAI's by the first letters of the model: 8 tiles and the base, or 1,536 patches (10,000 for later models) times the
#: model's factor of at most 2.46 (https://developers.openai.com/api/docs/guides/images-vision#calculating-costs).
OPENAI_IMAGE_TOKENS = (
    ("gpt-4o-mini", 2_833 + 8 * 5_667), ("gpt-4", 3_779), ("o1", 1_275), ("o3", 1_275), ("o4", 2_642), ("", 24_600),
)  # fmt: skip

#: https://developers.openai.com/api/docs/guides/realtime-costs and https://ai.google.dev/gemini-api/docs/audio.
AUDIO_TOKENS_PER_SECOND = {"openai": 10, "google": 32}
#: Gemini reads 9.5 hours of audio a prompt (https://ai.google.dev/gemini-api/docs/audio).
LONGEST_AUDIO_SECONDS = 34_200

#: The most that any model of a provider reads, which bounds a PDF: its pages and their text have no other bound, and a
#: longer prompt is refused unpaid (https://developers.openai.com/api/docs/models,
#: https://platform.claude.com/docs/en/build-with-claude/context-windows, https://ai.google.dev/gemini-api/docs/long-context).
LARGEST_CONTEXT = {"openai": 1_050_000, "anthropic": 1_000_000, "google": 2_097_152}


def text_tokens(request: LlmRequest) -> int:
    """At most this many tokens are in the texts, tools, schemas and options: a token is at least one byte of UTF-8."""
    tools, schema = request["tools"], request["parameters"]["response_format"]
    texts = [schema, *request["provider_options"].values()]
    framed = 1 + len(tools)
    for message in request["messages"]:
        framed += max(1, len(message["content"]))
        for part in message["content"]:
            texts.append(part["text"])
            if part["type"] in ("tool_call", "tool_result"):
                texts += part["tool_name"], part["tool_arguments"], part["tool_call_id"]
    for tool in tools:
        texts += tool["name"], tool["description"], tool["parameters"]
    added = TOKENS_OF_INSTRUCTIONS if tools or schema is not None else 0
    return sum(len(text.encode()) for text in texts if text) + TOKENS_PER_MESSAGE * framed + added


def media_of(request: LlmRequest) -> list[ContentPart]:
    """The images, audio and files of a request."""
    return [part for message in request["messages"] for part in message["content"] if part["type"] in MEDIA_TYPES]


def media_tokens(request: LlmRequest, kind: str, model: str, context_tokens: int | None = None) -> int | None:
    """At most this many tokens are in the images, audio and files for a provider of this kind; None where none is known.

    `context_tokens` is the most that the model reads, where the registry knows it.
    """
    media = media_of(request)
    if not media:
        return 0
    context = context_tokens or LARGEST_CONTEXT.get(kind)
    counts = [_tokens(part, kind, model) or context for part in media]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    return sum(known) if context is None else min(sum(known), context)


def _tokens(part: ContentPart, kind: str, model: str) -> int | None:
    match part["type"]:
        case "image" if kind == "openai":
            name = model.removeprefix("ft:")
            return next(tokens for prefix, tokens in OPENAI_IMAGE_TOKENS if name.startswith(prefix))
        case "image":
            return IMAGE_TOKENS.get(kind)
        case "audio" if kind in AUDIO_TOKENS_PER_SECOND:
            data = part["data"]
            seconds = LONGEST_AUDIO_SECONDS if data is None else 1 + len(data) // LEAST_AUDIO_BYTES_PER_SECOND
            return seconds * AUDIO_TOKENS_PER_SECOND[kind]
    return None
