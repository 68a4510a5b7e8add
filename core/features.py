"""What the APIs of the providers can take, so that a request that one cannot serve is refused by name before it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from core.errors import error
from schemas.events import ContentPart, Error, LlmRequest

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Features:
    """What an API takes: the most bytes by media type, the part types that it reads from a URL, and whether it knows tools.

    `lacks` names the parameters that it has nothing for, `not_from` the hosts whose URLs it would read as something else, and
    without `untyped_urls` it would so read any whose media type is not said.
    """

    most_bytes: Mapping[str, int] = field(default_factory=dict)
    urls: frozenset[str] = frozenset()
    untyped_urls: bool = True
    not_from: tuple[str, ...] = ()
    tools: bool = True
    hottest: float = 2.0
    lacks: tuple[str, ...] = ()


#: 50 MB a request (https://platform.openai.com/docs/guides/images-vision, .../guides/pdf-files, .../guides/audio); only images
#: have a URL in Chat Completions (https://platform.openai.com/docs/api-reference/chat/create).
OPENAI = Features(
    {
        "image/png": 50 * MB, "image/jpeg": 50 * MB, "image/gif": 50 * MB, "image/webp": 50 * MB,
        "audio/wav": 50 * MB, "audio/mpeg": 50 * MB, "application/pdf": 50 * MB,
    },
    urls=frozenset({"image"}),
)  # fmt: skip

#: By the kind of a provider.
FEATURES: dict[str, Features] = {
    "openai": OPENAI,
    "openai-compatible": OPENAI,
    # Images of 5 MB and requests of 32 MB, as base64, which is a third longer
    # (https://platform.claude.com/docs/en/build-with-claude/vision, .../build-with-claude/pdf-support).
    "anthropic": Features(
        {
            "image/png": 3_750_000, "image/jpeg": 3_750_000, "image/gif": 3_750_000, "image/webp": 3_750_000,
            "application/pdf": 24 * MB,
        },
        urls=frozenset({"image", "file"}),
        hottest=1.0,
        # https://docs.anthropic.com/en/api/messages
        lacks=("seed",),
    ),
    # Bytes inside a request of 100 MB, PDFs of 50 MB (https://ai.google.dev/gemini-api/docs/file-input-methods); no GIF
    # (https://ai.google.dev/gemini-api/docs/image-understanding#supported-formats).
    "google": Features(
        {
            "image/png": 75 * MB, "image/jpeg": 75 * MB, "image/webp": 75 * MB,
            "audio/wav": 75 * MB, "audio/mpeg": 75 * MB, "application/pdf": 50 * MB,
        },
        urls=frozenset({"image", "audio", "file"}),
        # A video, or a file of another type than the part says, which would be read at another price
        # (https://ai.google.dev/gemini-api/docs/video-understanding#youtube, https://ai.google.dev/gemini-api/docs/files).
        untyped_urls=False,
        not_from=("youtube.com", "youtu.be", "youtube-nocookie.com", "generativelanguage.googleapis.com"),
    ),
    "echo": Features(
        tools=False, lacks=("temperature", "top_p", "stop", "seed", "reasoning_effort", "provider_options")
    ),
}  # fmt: skip


def unsupported_by(request: LlmRequest, provider: str, kind: str, model: str) -> Error | None:
    """The first thing in a request that a provider of this kind cannot take, as the error that names both; None without one."""
    found = next(_unsupported(request, FEATURES[kind], kind, model), None)
    if found is None:
        return None
    what, instead = found
    return error("caller_unsupported_feature", f"{what} is not offered by {provider}; {instead}.")


def _unsupported(request: LlmRequest, features: Features, kind: str, model: str) -> Iterator[tuple[str, str]]:
    for message in request["messages"]:
        for part in message["content"]:
            if part["type"] != "text":
                yield from _unsupported_part(part, features)
    if request["tools"] and not features.tools:
        yield "A tool definition", "leave tools out"
    if request["tools"] and request["parameters"]["response_format"] is not None and old_gemini(kind, model):
        yield f"A response_format beside tools with {model}", "leave one of them out or ask for a later model"
    if request["messages"] and request["messages"][-1]["role"] == "assistant" and no_prefill(kind, model):
        yield f"A last message of role assistant with {model}", "end with one of role user or ask for an earlier model"
    given = {**request["parameters"], "provider_options": request["provider_options"]}
    for name in features.lacks:
        if given[name] not in (None, [], {}):
            yield f"The parameter {name}", "leave it out"
    temperature = request["parameters"]["temperature"]
    if temperature is not None and temperature > features.hottest:
        yield f"A temperature of {temperature:g}", f"send at most {features.hottest:g}"


def _unsupported_part(part: ContentPart, features: Features) -> Iterator[tuple[str, str]]:
    kind, media_type, data = part["type"], part["media_type"], part["data"]
    if kind in ("tool_call", "tool_result"):
        if not features.tools:
            yield f"Content of type {kind}", "leave it out"
    elif not any(taken.startswith(PREFIX[kind]) for taken in features.most_bytes):
        yield f"Content of type {kind}", "leave it out"
    elif media_type is not None and media_type not in features.most_bytes:
        taken = ", ".join(taken for taken in features.most_bytes if taken.startswith(PREFIX[kind]))
        yield f"Content of type {kind} as {media_type}", f"send one of {taken}"
    elif part["url"] is not None and kind not in features.urls:
        yield f"Content of type {kind} by URL", "send its bytes in data"
    elif part["url"] is not None and media_type is None and not features.untyped_urls:
        yield f"Content of type {kind} by URL without a media_type", "name it"
    elif part["url"] is not None and _is_at(part["url"], features.not_from):
        yield f"Content of type {kind} at {urlsplit(part['url']).hostname}", "send its bytes in data"
    elif data is not None and media_type is not None and len(data) > features.most_bytes[media_type]:
        most = features.most_bytes[media_type]
        yield f"Content of type {kind} of {len(data):,} bytes", f"send at most {most:,}"


def _is_at(url: str, hosts: tuple[str, ...]) -> bool:
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    return any(f".{host}".endswith(f".{each}") for each in hosts)


PREFIX = {"image": "image/", "audio": "audio/", "file": "application/"}


def old_gemini(kind: str, model: str) -> bool:
    """Whether it is a Gemini before version 3, which knows budgets for thinking, no levels and no signatures to give back.

    https://ai.google.dev/gemini-api/docs/gemini-3
    """
    return kind == "google" and model.removeprefix("models/").startswith(("gemini-1", "gemini-2"))


#: Family and version: claude-opus-4-6, claude-sonnet-5; but for a date (claude-sonnet-4-20250514) or an older name (claude-3-opus).
CLAUDE = re.compile(r"claude-[a-z]+-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")


def no_prefill(kind: str, model: str) -> bool:
    """Whether it is a Claude from version 4.6 on, which does not go on with an answer that somebody else began.

    https://platform.claude.com/docs/en/about-claude/models/migration-guide
    """
    found = CLAUDE.search(model) if kind == "anthropic" else None
    return found is not None and (int(found[1]), int(found[2] or 0)) >= (4, 6)
