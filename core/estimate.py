"""What can be said of a request before any provider has seen it: its size, and what a model must be able to do."""

from __future__ import annotations

from core.registry import Capability
from schemas.events import ContentPart, LlmRequest

#: English has about 4 bytes of UTF-8 to a token, code about 3, Chinese and Japanese 3 to a character and token.
BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 4
#: About the most that the providers count for one image: Anthropic 1,568 (https://docs.anthropic.com/en/docs/build-with-claude/vision),
#: OpenAI and Google less at their defaults. A part that is only a URL counts as much.
TOKENS_PER_IMAGE = 1_600
#: Google counts 32 tokens for a second of audio (https://ai.google.dev/gemini-api/docs/audio), about 16 kB at 128 kbit/s.
AUDIO_BYTES_PER_TOKEN = 500
#: About 75 kB and 2,000 tokens to a page of PDF (https://docs.anthropic.com/en/docs/build-with-claude/pdf-support).
FILE_BYTES_PER_TOKEN = 40


def input_tokens(request: LlmRequest) -> int:
    """About how many input tokens a request has, rather too many than too few."""
    tokens = TOKENS_PER_MESSAGE * (len(request["messages"]) + 1)
    texts = [request["parameters"]["response_format"]]
    for tool in request["tools"]:
        texts += (tool["name"], tool["description"], tool["parameters"])
    for message in request["messages"]:
        for part in message["content"]:
            texts += (part["text"], part["tool_name"], part["tool_arguments"])
            tokens += _beside_text(part)
    return tokens + -(-sum(len(text.encode()) for text in texts if text) // BYTES_PER_TOKEN)


def characters(request: LlmRequest) -> int:
    """How many characters the texts of a request's messages have."""
    return sum(len(part["text"] or "") for message in request["messages"] for part in message["content"])


def needs(request: LlmRequest) -> frozenset[Capability]:
    """What a model must be able to do to serve a request."""
    found: set[Capability] = {"text"}
    for message in request["messages"]:
        for part in message["content"]:
            match part["type"]:
                case "image" | "audio" | "file" as kind:
                    found.add(kind)
                case "tool_call" | "tool_result":
                    found.add("tools")
    if request["tools"]:
        found.add("tools")
    if request["parameters"]["response_format"] is not None:
        found.add("structured_output")
    if request["parameters"]["reasoning_effort"] is not None:
        found.add("reasoning")
    if request["stream"]:
        found.add("streaming")
    return frozenset(found)


def _beside_text(part: ContentPart) -> int:
    """The tokens of what a part holds beside text."""
    size = len(part["data"] or b"")
    match part["type"]:
        case "audio" if size:
            return -(-size // AUDIO_BYTES_PER_TOKEN)
        case "file" if size:
            return -(-size // FILE_BYTES_PER_TOKEN)
        case "image" | "audio" | "file":
            return TOKENS_PER_IMAGE
    return 0
