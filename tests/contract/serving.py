"""A server of HTTP on a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import TypeVar

S = TypeVar("S", bound=ThreadingHTTPServer)


def served(server: S) -> Iterator[S]:
    """The server, running until the test ends."""
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
