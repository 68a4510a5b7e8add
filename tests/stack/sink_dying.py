"""A sink that dies by SIGKILL at a named point of its work: `python -m tests.stack.sink_dying`.

The product knows nothing of this: its sink and writer are subclassed here. Each line of the input is a `Doom` in JSON; the
sink runs in a fork, so that a start costs no imports; the output has its process id on one line, its end on the next.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from config.settings import Settings
from schemas.codec import Codec
from sinks import consumer
from sinks.partition import Partition
from sinks.writer import Writer

POINTS = ("before_recording", "after_recording", "during_insert", "after_insert", "after_commit")


@dataclass(frozen=True)
class Doom:
    """Where a sink dies: at the `nth` time that it comes to `point` (None: never).

    During an insert, this `share` of the request's body has been sent, and `pause` seconds have passed since.
    """

    settings: str
    point: str | None = None
    nth: int = 1
    share: float = 1.0
    pause: float = 0.0

    def as_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class Fate:
    """Counts how often the sink comes to its point."""

    def __init__(self, doom: Doom) -> None:
        self.doom = doom
        self._left = doom.nth

    def reached(self, point: str) -> bool:
        """Whether this is the time."""
        if point != self.doom.point:
            return False
        self._left -= 1
        return self._left == 0

    def strike(self, point: str) -> None:
        """Die if this is the time."""
        if self.reached(point):
            os.kill(os.getpid(), signal.SIGKILL)


def doomed(fate: Fate) -> None:
    """Make this process's sink die as `fate` says."""

    class DyingWriter(Writer):
        def insert(self, body: bytes, token: str) -> None:
            if fate.reached("during_insert"):
                assert self.client  # connected, so that the next body sent is the insert's
                setattr(http.client.HTTPConnection, "send", _last_words(fate.doom))  # noqa: B010
            super().insert(body, token)
            fate.strike("after_insert")

    class DyingSink(consumer.Sink):
        def _committed(self, positions: list[tuple[Partition, int, str]]) -> list[Partition]:
            recording = any(metadata for *_, metadata in positions)
            if recording:
                fate.strike("before_recording")
            taken = super()._committed(positions)
            if taken:
                fate.strike("after_recording" if recording else "after_commit")
            return taken

    vars(consumer).update(Writer=DyingWriter, Sink=DyingSink)


def _last_words(doom: Doom) -> Callable[[http.client.HTTPConnection, Any], None]:
    """A `send` that lets the head of a request pass and dies with its body."""

    def send(connection: http.client.HTTPConnection, data: Any) -> None:
        if data.startswith(b"POST"):
            connection.sock.sendall(data)
            return
        connection.sock.sendall(data[: int(len(data) * doom.share)])
        time.sleep(doom.pause)
        os.kill(os.getpid(), signal.SIGKILL)

    return send


def live(doom: Doom) -> None:
    """Run the sink until its point or SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    doomed(Fate(doom))
    consumer.run(Settings.model_validate_json(doom.settings), stop.is_set, Codec())


def main() -> None:
    """Run one sink after another."""
    # A SIGTERM that comes before a fork has its handler waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        doom = Doom(**json.loads(line))
        child = os.fork()
        if child == 0:
            live(doom)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
