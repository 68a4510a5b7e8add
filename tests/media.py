"""The smallest files of each medium, and the parts, tools and turns that tests put into requests."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

from core.reply import text_part
from schemas.events import ContentPart, Message, Tool


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _wav(seconds: float = 0.5, rate: int = 8_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * int(rate * seconds)))
    return out.getvalue()


PDF = (
    b"%PDF-1.4\n1 0 obj<</Type /Catalog /Pages 2 0 R>>endobj\n2 0 obj<</Type /Pages /Kids [3 0 R] /Count 1>>endobj\n"
    b"3 0 obj<</Type /Page /Parent 2 0 R /MediaBox [0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
FILES: dict[str, bytes] = {
    "image/png": _png(),
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9",
    "image/gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
    "image/webp": b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00/\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00",
    "audio/wav": _wav(),
    "audio/mpeg": b"\xff\xfb\x90\xc4" + bytes(413),
    "application/pdf": PDF,
}
URL = "https://example.com/picture"
WEATHER = Tool(
    name="weather",
    description="The weather in a city.",
    parameters='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}',
)


def part(kind: str, **fields: Any) -> ContentPart:
    """A part of this type with nothing else set but these fields."""
    return ContentPart(**{**text_part(""), "type": kind, "text": None, **fields})  # type: ignore[typeddict-item]


def medium(media_type: str, *, url: str | None = None) -> ContentPart:
    """The smallest file of this type, or a URL of one, as a part."""
    kind = media_type.partition("/")[0]
    data = FILES[media_type] if url is None else None
    return part("file" if kind == "application" else kind, media_type=media_type, data=data, url=url)


def tool_call(call_id: str = "c1", name: str = "weather", arguments: str = '{"city":"Rome"}') -> ContentPart:
    """A call of a tool."""
    return part("tool_call", tool_call_id=call_id, tool_name=name, tool_arguments=arguments)


def tool_result(call_id: str = "c1", text: str = "Sunny.") -> ContentPart:
    """What a tool answered."""
    return part("tool_result", tool_call_id=call_id, text=text)


def turn(role: str, *parts: ContentPart) -> Message:
    """A message of these parts."""
    return Message(role=role, content=list(parts))


#: A question that took two tool calls, the results in two messages.
TOOL_TURNS = [
    turn("user", text_part("Where is it warmer?")),
    turn("assistant", text_part("I look."), tool_call("c1"), tool_call("c2", arguments='{"city":"Oslo"}')),
    turn("tool", tool_result("c1", '{"celsius":30}')),
    turn("tool", tool_result("c2", "Snow.")),
]
