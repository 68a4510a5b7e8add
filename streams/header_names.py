"""Records whose header names are not UTF-8 are read like any other.

Kafka takes any bytes for a header's name, and aiokafka 0.14 fails on the whole batch when they are not UTF-8: one such record would
end its consumer again and again. Here the batch is read once more, and each byte that is no UTF-8 becomes `\\xNN` in the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: A batch begins with eight bytes of offset and four of the length of what follows:
#: https://kafka.apache.org/documentation/#recordbatch
_OVERHEAD = 12


class _Bytes(bytearray):
    """Bytes whose slices can be decoded whatever they hold."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Bytes(found) if isinstance(index, slice) else found

    def decode(self, *_: Any) -> str:
        return bytes(self).decode("utf-8", "backslashreplace")


class _LenientBatch(_DefaultRecordBatchPy):
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Bytes(self._buffer)


class _Batch:
    """aiokafka's batch; its records are read leniently from the first one on that cannot be read otherwise."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                read += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(_LenientBatch(self._data), read, None)


class Records:
    """aiokafka's `MemoryRecords` of lenient batches."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = memoryview(data)
        self._at = 0

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def next_batch(self) -> _Batch | None:
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._at
        self._at += _OVERHEAD + int.from_bytes(self._data[begin + 8 : begin + _OVERHEAD], "big")
        return _Batch(batch, self._data[begin : self._at])


def read_leniently() -> None:
    """Let every consumer of this process read such records."""
    fetcher.MemoryRecords = Records
