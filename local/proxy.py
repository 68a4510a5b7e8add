"""A TCP proxy on 127.0.0.1 whose connections can be cut, or held so that nothing passes, as a network does it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from concurrent.futures import Future

from local.processes import free_port

_CHUNK = 65_536


class Proxy:
    """Passes bytes between those who connect to `port` and another port of 127.0.0.1, on a thread of its own.

    After `start` it passes everything. While it is cut, connections are reset and new ones refused at once; while it is held, they
    stay open and nothing passes; `mend` ends both. What a held connection was sent is passed on when it is mended.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._target = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._passing = asyncio.Event()
        self._cut = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def start(self, target_port: int) -> Proxy:
        """Listen, and pass what comes to `target_port`; OSError when the own port is taken."""
        self._target = target_port
        self._thread.start()
        self._call(self._listen()).result()
        return self

    def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._thread.is_alive():
            self._call(self._close()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Reset every connection, and every new one, until `mend`."""
        self._call(self._set(cut=True, passing=True)).result()

    def hold(self) -> None:
        """Let nothing pass until `mend`; connections stay open and new ones are taken."""
        self._call(self._set(cut=False, passing=False)).result()

    def mend(self) -> None:
        """Pass everything again."""
        self._call(self._set(cut=False, passing=True)).result()

    def _call(self, coroutine: object) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set(self, *, cut: bool, passing: bool) -> None:
        self._cut = cut
        if passing:
            self._passing.set()
        else:
            self._passing.clear()
        if cut:
            for pair in list(self._pairs):
                for writer in pair:
                    _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            _reset(writer)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._pairs.discard(pair)
            _reset(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one direction until its end; the other one then learns of it."""
        while chunk := await reader.read(_CHUNK):
            await self._passing.wait()
            writer.write(chunk)
            await writer.drain()
        await self._passing.wait()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    if (connection := writer.get_extra_info("socket")) is not None and connection.fileno() >= 0:
        # No lingering makes the kernel send RST instead of FIN (socket(7), SO_LINGER).
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
