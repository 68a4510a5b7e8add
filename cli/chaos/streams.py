"""Whether the chunks of every streamed answer make up its text, whatever befell the workers on the way."""

from __future__ import annotations

import zlib

from cli.reconcile.watermark import Log
from config.settings import Settings
from core.reconcile import Book, Line, compare
from core.topics import CHUNKS, RESPONSES
from schemas.codec import Codec

FIGURES = ("characters",)


def streamed_line(settings: Settings) -> Line:
    """Each completed answer that was streamed, beside the chunks of the call that made it."""
    codec, log = Codec(), Log(settings)
    pieces: dict[str, dict[int, str]] = {}
    texts: dict[str, str] = {}
    try:
        for message in log.messages(CHUNKS, *log.bounds(CHUNKS)):
            chunk = codec.decode(CHUNKS.record, message.value())
            pieces.setdefault(chunk["attempt_id"], {})[chunk["index"]] = chunk["text"]
        for message in log.messages(RESPONSES, *log.bounds(RESPONSES)):
            answer = codec.decode(RESPONSES.record, message.value())
            if answer["outcome"] == "completed" and answer["first_token_at"] is not None:
                texts[answer["attempt_id"]] = "".join(part["text"] or "" for part in answer["output"])
    finally:
        log.close()
    answers, chunks = Book("answers", FIGURES, ("text",)), Book("chunks", FIGURES, ("text",))
    for attempt, text in texts.items():
        answers.add(attempt, (len(text),), details=_sum(text))
        if (own := pieces.get(attempt)) is not None:
            # A number that is missing shows as text that is.
            joined = "".join(own.get(number, "") for number in range(max(own) + 1))
            chunks.add(attempt, (len(joined),), details=_sum(joined))
    return compare("streamed answers = their chunks, joined", answers, chunks)


def _sum(text: str) -> bytes:
    return zlib.crc32(text.encode()).to_bytes(4, "big")
