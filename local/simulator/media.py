"""Images, audio and files in a prompt: whether they are what they say, and how many tokens they count.

The counts are plain: one number for every image and every page, one rate for audio. They lie within what the providers
document, so what was reserved for a call can be checked against them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

BEGINNINGS = {
    "image/png": (b"\x89PNG",), "image/jpeg": (b"\xff\xd8\xff",), "image/gif": (b"GIF8",), "image/webp": (b"RIFF",),
    "audio/wav": (b"RIFF",), "audio/mp3": (b"ID3", b"\xff"), "application/pdf": (b"%PDF-",),
}  # fmt: skip
#: Bytes of a second of audio, whatever its format.
AUDIO_BYTES_PER_SECOND = 16_000


@dataclass(slots=True)
class Media:
    """What a prompt holds beside its text, in tokens, counted by the rates of one provider."""

    image: int
    page: int
    audio_second: int
    image_tokens: int = 0
    file_tokens: int = 0
    audio_tokens: int = 0

    def count(self, media_type: str, data: bytes | None) -> None:
        """Add a medium; one that is only named by its URL, which nobody here fetches, counts as one image, page or second."""
        data = data or b""
        if media_type.startswith("audio/"):
            self.audio_tokens += self.audio_second * max(1, -(-len(data) // AUDIO_BYTES_PER_SECOND))
        elif media_type == "application/pdf":
            pages = data.count(b"/Type /Page") - data.count(b"/Type /Pages")
            self.file_tokens += self.page * max(1, pages)
        else:
            self.image_tokens += self.image


def decoded(text: object) -> bytes | None:
    """The bytes of a base64 text, None where it is none."""
    try:
        return base64.b64decode(str(text), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def is_what_it_says(data: bytes, media_type: str) -> bool:
    """Whether the bytes begin as files of this type do."""
    return data.startswith(BEGINNINGS.get(media_type, ()))
