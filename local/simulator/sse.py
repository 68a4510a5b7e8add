"""An answer as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from local.simulator.calls import Answer, Json, Tokens

ARGUMENT_PIECE = 12


@dataclass(frozen=True, slots=True)
class Script:
    """What a stream says: before the first piece, each piece, after the last one, and the mark that it is whole.

    `keep_alive` is what it says while it has nothing to say.
    """

    opening: bytes
    pieces: tuple[bytes, ...]
    closing: bytes
    end: bytes = b""
    keep_alive: bytes = b": keep-alive\n\n"


def event(data: Json, name: str | None = None) -> bytes:
    """One event with JSON for its data."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + orjson.dumps(data) + b"\n\n"


def pieces_of(answer: Answer) -> list[str]:
    """The words of the answer's text with the space before them, or the arguments of its tool call in short pieces."""
    if answer.tool:
        arguments = orjson.dumps(answer.arguments).decode()
        return [arguments[at : at + ARGUMENT_PIECE] for at in range(0, len(arguments), ARGUMENT_PIECE)]
    return re.findall(r"\s*\S+|\s+", answer.text)


def made_by(tokens: Tokens, piece: int, pieces: int) -> Tokens:
    """The tokens used when this many of the pieces are made: all that was read and thought, and a share of what is said."""
    if piece >= pieces:
        return tokens
    return tokens._replace(
        output_text=-(-tokens.output_text * piece // pieces), output_audio=-(-tokens.output_audio * piece // pieces)
    )
