"""The TCP proxy on real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from local.proxy import Proxy


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo()
    between = Proxy().start(echo.port)
    yield between
    between.stop()
    echo.close()


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def refuses(proxy: Proxy) -> bool:
    """Whether a new connection is ended and carries nothing."""
    try:
        with connected(proxy) as connection:
            connection.sendall(b"anyone?")
            return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_it_passes_bytes_both_ways_and_the_end(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        sent = bytes(range(256)) * 4_000
        threading.Thread(target=connection.sendall, args=(sent,)).start()
        assert read(connection, len(sent)) == sent
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_cut_resets_connections_and_new_ones_until_it_is_mended(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        connection.sendall(b"before")
        assert read(connection, 6) == b"before"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert refuses(proxy)
    proxy.mend()
    assert not refuses(proxy)
    with connected(proxy) as connection:
        connection.sendall(b"after")
        assert read(connection, 5) == b"after"


def test_a_held_connection_stays_open_and_passes_all_when_it_is_mended(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        connection.sendall(b"before")
        assert read(connection, 6) == b"before"
        proxy.hold()
        connection.sendall(b"held")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        proxy.mend()
        assert read(connection, 4) == b"held"


def test_stop_ends_held_connections(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        connection.sendall(b"x")
        assert read(connection, 1) == b"x"
        proxy.hold()
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
