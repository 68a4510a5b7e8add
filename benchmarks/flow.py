"""A constant rate of requests for a long time, and the latency of every answer by stretches of that time."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable

from benchmarks.figures import percentiles
from benchmarks.load import ANSWER_SECONDS, Client, request_number


class Flow:
    """Sends `per_second` requests a second for `seconds`, whatever comes back, and receives the answers, on two threads.

    `latency_ms` holds, by stretch of `stretch` seconds, the milliseconds from when each request was due until its answer was
    received; so a sender that falls behind counts too (https://github.com/giltene/wrk2#coordinated-omission). Nothing
    else is kept of an answer, so a long run takes little memory. Ends when all answers are there, or none has come for 30 s.
    """

    def __init__(self, client: Client, per_second: float, seconds: float, stretch: float) -> None:
        self.sent = 0
        self.completed = 0
        self.latency_ms = [array("d") for _ in range(max(1, round(seconds / stretch)))]
        self._client, self._per_second, self._seconds, self._stretch = client, per_second, seconds, stretch
        self._due: dict[str, float] = {}
        self._began = time.perf_counter()
        self._sent_all = threading.Event()
        self._failed: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def seconds(self) -> float:
        """Since when it runs."""
        return time.perf_counter() - self._began

    @property
    def sending(self) -> bool:
        """Whether requests are still being sent."""
        return not self._sent_all.is_set()

    def wait(self) -> None:
        """Return at its end; raises what a thread failed with."""
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def percentiles(self) -> list[dict[str, float] | None]:
        """p50 and p99 in milliseconds by stretch, None where fewer than two answers came."""
        return [percentiles(stretch) if len(stretch) > 1 else None for stretch in self.latency_ms]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failed:
            self._failed.append(failed)
            self._sent_all.set()

    def _send(self) -> None:
        for number in range(int(self._per_second * self._seconds)):
            due = self._began + number / self._per_second
            time.sleep(max(0.0, due - time.perf_counter()))
            request = request_number(number)
            self._due[request["request_id"]] = due
            self._client.send(request)
            self.sent += 1
        self._client.flush()
        self._sent_all.set()

    def _receive(self) -> None:
        last = time.perf_counter()
        while (self.sending or self._due) and time.perf_counter() < last + ANSWER_SECONDS:
            message = self._client.answers.poll(0.1)
            if message is None or message.error() is not None:
                continue
            now = last = time.perf_counter()
            answer = self._client.codec.decode_blocking("LlmResponse", message.value())
            due = self._due.pop(answer["request_id"], None)
            if due is None:
                continue
            self.completed += answer["outcome"] == "completed"
            stretch = min(len(self.latency_ms) - 1, int((due - self._began) / self._stretch))
            self.latency_ms[stretch].append((now - due) * 1_000)
