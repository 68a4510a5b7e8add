"""What the contents of generateContent hold, checked as Google does (https://ai.google.dev/api/caching#Content)."""

from __future__ import annotations

import re
from typing import Any

from local.simulator.calls import Json, Refused
from local.simulator.media import Media, decoded, is_what_it_says

TAKEN = ("image/png", "image/jpeg", "image/webp", "audio/wav", "audio/mp3", "application/pdf")
_SNAKE = re.compile(r"([A-Z])").sub


def field(body: Json, name: str) -> Any:
    """The field under its own name or in snake case, which ProtoJSON takes too and Google's SDK mixes in."""
    return body[name] if name in body else body.get(_SNAKE(r"_\1", name).lower())


def media_in(contents: list[Json]) -> Media:
    """The media of all contents; `Refused` for one that is not what it says."""
    media = Media(image=258, page=258, audio_second=32)
    for number, content in enumerate(contents):
        for at, part in enumerate(content["parts"]):
            if (inline := field(part, "inlineData")) is not None:
                _inline(inline, f"contents[{number}].parts[{at}].inline_data", media)
            elif (file := field(part, "fileData")) is not None:
                media.count(field(file, "mimeType") or "image/png", None)
    return media


def _inline(inline: Json, place: str, media: Media) -> None:
    media_type, data = field(inline, "mimeType"), decoded(inline.get("data"))
    if data is None:
        raise Refused(400, f"Invalid value at '{place}.data' (TYPE_BYTES), Base64 decoding failed")
    if media_type not in TAKEN:
        raise Refused(400, f"Unsupported MIME type: {media_type}")
    if not is_what_it_says(data, media_type):
        raise Refused(400, "Unable to process input image. Please retry or report in https://developers.generativeai.google/guide/troubleshooting")  # fmt: skip
    media.count(media_type, data)


def check_tool_turns(contents: list[Json], model: str) -> None:
    """`Refused` where functions that were called have no responses in the next turn, or a call lacks its signature."""
    called: list[str] = []
    for content in [*contents, {"parts": []}]:
        answered = [response["name"] for part in content["parts"] if (response := field(part, "functionResponse"))]
        if sorted(answered) != sorted(called):
            raise Refused(
                400,
                "Please ensure that the number of function response parts is equal to the number of function call parts "
                "of the function call turn.",
            )
        calls = [part for part in content["parts"] if field(part, "functionCall")]
        # https://ai.google.dev/gemini-api/docs/thought-signatures: the first call of a step must carry one, from Gemini 3 on.
        if calls and not model.startswith(("gemini-1", "gemini-2")) and not field(calls[0], "thoughtSignature"):
            name = field(calls[0], "functionCall")["name"]
            raise Refused(400, f"Function call is missing a thought_signature in functionCall parts. Function: {name}")
        called = [field(part, "functionCall")["name"] for part in calls]
