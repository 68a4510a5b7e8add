"""The kinds of bad record that the request topic has to bear, each by name: a value and the headers that it comes with."""

from __future__ import annotations

import random
from typing import NamedTuple

from core.replay import TIMES_SEEN
from schemas.cloudevents import CE_ID, TRACEPARENT
from schemas.codec import Codec, Event
from tests.stack.asking import told

CODEC = Codec()
GOOD = CODEC.encode("LlmRequest", told("Smörgås."))
LETTER: Event = {
    "topic": "t", "partition": 0, "offset": 0, "key": None, "value": None, "headers": [], "timestamp": 0, "reason": "r",
    "message": "m", "stage": "s", "times_seen": 1, "failed_at": 0,
}  # fmt: skip

Headers = list[tuple[str, bytes | None]]
HEADERS: Headers = [
    (CE_ID, b"x"),
    ("x-binary", b"\x00\xff"),
    ("x-binary", b"again"),
    ("x-null", None),
    ("x-empty", b""),
]
#: Under names that mean something here, values that do not.
SENSELESS: Headers = [
    (CE_ID, b"\xff\xfe"),
    (TRACEPARENT, None),
    ("content-type", b"\x00"),
    (TIMES_SEEN, None),
    ("", b""),
]

#: The topics of the tests take records of 1.4 MB; its dead letter has to fit as well.
ALMOST_TOO_LARGE = 1_390_000


class Poison(NamedTuple):
    """One kind of bad record."""

    value: bytes | None
    headers: Headers = HEADERS


POISON: dict[str, Poison] = {
    "tombstone": Poison(None),
    "empty": Poison(b""),
    "text": Poison(b"hello"),
    "JSON": Poison(b'{"prompt": "hello"}'),
    "random bytes": Poison(random.Random(13).randbytes(1_000)),
    "unknown fingerprint": Poison(b"\xc3\x01" + b"\x07" * 8 + GOOD[10:]),
    "unknown schema id": Poison(b"\x00\x00\x00\xff\xff" + GOOD[10:]),
    "cut short": Poison(GOOD[:40]),
    "bytes left over": Poison(GOOD + b"!"),
    "another record type": Poison(CODEC.encode("DeadLetter", LETTER)),
    "text that is not UTF-8": Poison(GOOD.replace("ö".encode(), b"\xff\xfe")),
    "as large as the topic takes": Poison(b"\xc3\x01" + b"\x00" * ALMOST_TOO_LARGE),
    "senseless headers": Poison(b"hello", SENSELESS),
}
