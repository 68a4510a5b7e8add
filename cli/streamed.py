"""A streamed answer printed while it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from cli import kafka
from cli.exchange import Exchange
from config.settings import Settings
from core.topics import CHUNKS
from schemas.codec import Event, Undecodable
from schemas.events import LlmRequest


class Deltas:
    """Reads the chunks of a request; made before the request is sent, so that none is missed."""

    def __init__(self, settings: Settings, exchange: Exchange) -> None:
        self._exchange = exchange
        self._reader = kafka.reader(settings, CHUNKS, from_beginning=False)
        self._records = kafka.records(self._reader)
        self._attempt = 0
        self._attempt_id = ""
        #: How many characters of the present attempt are printed.
        self.printed = 0

    def answer(self, request: LlmRequest, seconds: float) -> Event | None:
        """The answer once it has come, its text printed piece by piece; None when nothing comes for so many seconds."""
        wanted, ends = request["request_id"], time.monotonic() + seconds
        while time.monotonic() < ends:
            if self._print(wanted):
                ends = time.monotonic() + seconds
            if (answer := self._exchange.answers([wanted], 0.05).get(wanted)) is not None:
                # Every chunk was on the broker before the answer was.
                while self._print(wanted):
                    pass
                if self.printed and answer["outcome"] == "completed" and answer["attempt_id"] != self._attempt_id:
                    print("\nAnother call was faster; this is its answer:", file=sys.stderr)
                    self.printed = 0
                return answer
        return None

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()

    def _print(self, wanted: str) -> bool:
        """Print what there is now; whether there was any."""
        found = False
        for chunk in self._now():
            if chunk["request_id"] != wanted or chunk["attempt"] < self._attempt:
                continue
            if chunk["attempt"] > self._attempt:
                if self.printed:
                    print("\nThe call failed; the answer begins again.", file=sys.stderr)
                self._attempt, self._attempt_id, self.printed = chunk["attempt"], chunk["attempt_id"], 0
            print(chunk["text"], end="", flush=True)
            self.printed += len(chunk["text"])
            found = True
        return found

    def _now(self) -> Iterator[Event]:
        while (message := next(self._records)) is not None:
            try:
                yield self._exchange.codec.decode_blocking(CHUNKS.record, message.value())
            except Undecodable:
                continue
