"""What images, audio and files a request may carry, told by their first bytes (https://www.iana.org/assignments/media-types)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.addresses import url_problem
from schemas.events import ContentPart

#: The media types that a part of each type can have.
MEDIA_TYPES: dict[str, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/gif", "image/webp"),
    "audio": ("audio/wav", "audio/mpeg"),
    "file": ("application/pdf",),
}
#: How a file of each type begins: PNG (https://www.w3.org/TR/png-3/#5PNG-file-signature), JPEG (ITU-T T.81, B.1), GIF89a,
#: WebP (RFC 9649) and WAV in RIFF, MP3 as an ID3 tag (https://id3.org) or a frame of layer III with a bit rate (ISO/IEC
#: 11172-3, 2.4.1.3), PDF (ISO 32000-1, 7.5.2).
BEGINNINGS: dict[str, re.Pattern[bytes]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "audio/wav": re.compile(rb"RIFF.{4}WAVE", re.DOTALL),
    "audio/mpeg": re.compile(rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]"),
    "application/pdf": re.compile(rb"%PDF-[12]\.\d"),
}
#: The lowest bit rate of MP3 is 8 kbit/s (ISO/IEC 13818-3, 2.4.2.3), and speech in WAV has no less.
LEAST_AUDIO_BYTES_PER_SECOND = 1_000


def invalid_media(name: str, part: ContentPart) -> Iterator[tuple[str, object, str]]:
    """What is wrong with an image, audio or file part: field, value, and what it must be."""
    allowed = MEDIA_TYPES[part["type"]]
    data, url, media_type = part["data"], part["url"], part["media_type"]
    if (data is None) == (url is None):
        yield name, "a part with both data and url" if url else "a part without data and url", "one with either of them"
        return
    if media_type not in (allowed if url is None else (*allowed, None)):
        # OpenAI's Chat Completions takes no other file (https://developers.openai.com/api/docs/guides/file-inputs).
        instead = "; send the text of another file in a part of type text" if part["type"] == "file" else ""
        yield f"{name}.media_type", media_type, f"one of {', '.join(allowed)}{instead}"
    elif url is not None and (problem := url_problem(url)):
        yield f"{name}.url", *problem
    elif data is not None and media_type is not None and not BEGINNINGS[media_type].match(data):
        really = next((other for other, begins in BEGINNINGS.items() if begins.match(data)), "of no type known here")
        yield f"{name}.data", f"{len(data)} bytes that are {really}", f"{media_type}, as its media_type says"
    elif media_type == "audio/wav" and data is not None and _wav_bytes_per_second(data) < LEAST_AUDIO_BYTES_PER_SECOND:
        least = LEAST_AUDIO_BYTES_PER_SECOND
        yield f"{name}.data", f"{len(data)} bytes of WAV", f"WAV whose fmt chunk states at least {least} bytes a second"


def _wav_bytes_per_second(data: bytes) -> int:
    """What the `fmt ` chunk says a second takes, by rate and size of its samples; 0 where there is none.

    http://soundfile.sapp.org/doc/WaveFormat
    """
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"fmt " and at + 24 <= len(data):
            rate, stated = (int.from_bytes(data[at + o : at + o + 4], "little") for o in (12, 16))
            return min(stated, rate * int.from_bytes(data[at + 20 : at + 22], "little"))
        at += 8 + size + size % 2
    return 0
