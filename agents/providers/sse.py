"""Server-sent events out of bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)."""

from __future__ import annotations


class Events:
    """Takes a stream's bytes however they are split, and gives the data of each event once its empty line has come.

    Names, ids and comments are left out: the APIs say in the data what an event is. Data whose empty line never comes is
    dropped, as the standard asks.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that these bytes complete; UnicodeDecodeError where one is no UTF-8."""
        self._rest += piece
        # A carriage return at the very end may be half of a line end.
        held = self._rest.endswith(b"\r")
        lines = bytes(self._rest[:-1] if held else self._rest).splitlines(keepends=True)
        unfinished = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        self._rest = bytearray(unfinished + (b"\r" if held else b""))
        found: list[str] = []
        for line in lines:
            self._take(line.rstrip(b"\r\n"), found)
        return found

    def _take(self, line: bytes, found: list[str]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            found.append(b"\n".join(self._data).decode())
            self._data.clear()
