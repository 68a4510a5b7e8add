"""Read many Avro values of one schema at once, column by column.

The values are walked side by side: each step reads the same field of every value with a few NumPy operations. What comes
out is what a reader of single values gives, or nothing: one value that is not plainly valid, and the whole batch is left to
that reader, which can say what is wrong with it. https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = list[Any]
Columns = dict[str, Values]
Places = npt.NDArray[np.int64]

#: A varint has ten bytes at most, so that a read that begins at the end stays inside the buffer.
_PADDING = 11
_LARGEST_MAP = 1_000


class _Odd(Exception):
    """A value is not plainly valid."""


class Table:
    """Reads the columns of one record schema, which is without logical types.

    Raises TypeError for a schema with a type that only a reader of single values knows: arrays, bytes, floating point numbers,
    maps of anything but strings and unions other than of null and one such type.
    """

    def __init__(self, schema: Any) -> None:
        self._record = _Record(schema, "", {})

    def columns(self, bodies: Sequence[bytes]) -> Columns | None:
        """A list of values for each field, by its path (`tokens.input_uncached`); None when one of the values is odd."""
        walk = _Walk(bodies)
        columns: Columns = {}
        try:
            self._record.read(walk, np.arange(len(bodies)), columns)
        except _Odd:
            return None
        return columns if (walk.at == walk.ends).all() else None


class _Walk:
    """Where each value is being read; a place past the end of its value is found out when the walk is over."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        joined = b"".join(bodies)
        self.joined = joined
        self.bytes = np.frombuffer(joined + bytes(_PADDING), np.uint8)
        self.ends = np.cumsum(np.fromiter(map(len, bodies), np.int64, len(bodies)))
        self.at = np.concatenate((np.zeros(1, np.int64), self.ends[:-1]))
        # One character a byte, so that places in it are places in the values.
        self.text = joined.decode("latin-1")
        self.high_before = np.concatenate((np.zeros(1, np.int32), np.cumsum(self.bytes >= 0x80, dtype=np.int32)))

    def places(self, rows: Places) -> Places:
        """Where these values go on."""
        at = self.at[rows]
        if at.size and at.max() >= len(self.joined):
            raise _Odd
        return at

    def longs(self, rows: Places) -> Places:
        """The next integer of these values."""
        at = self.places(rows)
        read = self.bytes[at]
        found = (read & 0x7F).astype(np.uint64)
        more = np.flatnonzero(read >= 0x80)
        length = np.ones(len(rows), np.int64)
        shift = 0
        while more.size:
            shift += 7
            if shift > 56:  # nine bytes hold 63 bits; larger numbers are none that we write
                raise _Odd
            read = self.bytes[at[more] + length[more]]
            found[more] |= (read & 0x7F).astype(np.uint64) << np.uint64(shift)
            length[more] += 1
            more = more[read >= 0x80]
        self.at[rows] = at + length
        return (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64)

    def texts(self, rows: Places) -> list[str]:
        """The next string of these values."""
        lengths = self.longs(rows)
        begin = self.at[rows]
        end = begin + lengths
        if (lengths < 0).any() or (lengths > len(self.joined)).any() or (end > self.ends[rows]).any():
            raise _Odd
        self.at[rows] = end
        text, places = self.text, zip(begin.tolist(), end.tolist(), strict=True)
        if (self.high_before[end] == self.high_before[begin]).all():
            return [text[a:b] for a, b in places]
        try:
            return [self.joined[a:b].decode() for a, b in places]
        except UnicodeDecodeError:
            raise _Odd from None


class _Scalar(ABC):
    """A field with a column of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, walk: _Walk, rows: Places, columns: Columns) -> None:
        columns[self.path] = self.values(walk, rows)

    @abstractmethod
    def values(self, walk: _Walk, rows: Places) -> Values:
        """The field of these values."""


class _Long(_Scalar):
    def values(self, walk: _Walk, rows: Places) -> Values:
        return list(walk.longs(rows).tolist())


class _Int(_Scalar):
    def values(self, walk: _Walk, rows: Places) -> Values:
        found = walk.longs(rows)
        if (found != found.astype(np.int32)).any():
            raise _Odd
        return list(found.tolist())


class _Boolean(_Scalar):
    def values(self, walk: _Walk, rows: Places) -> Values:
        at = walk.places(rows)
        walk.at[rows] = at + 1
        read = walk.bytes[at]
        if (read > 1).any():
            raise _Odd
        return list(read.astype(bool).tolist())


class _Text(_Scalar):
    def values(self, walk: _Walk, rows: Places) -> Values:
        return walk.texts(rows)


class _Enum(_Scalar):
    def __init__(self, path: str, symbols: Sequence[str]) -> None:
        super().__init__(path)
        self.symbols = np.array(symbols, dtype=object)

    def values(self, walk: _Walk, rows: Places) -> Values:
        found = walk.longs(rows)
        if found.size and (found.min() < 0 or found.max() >= len(self.symbols)):
            raise _Odd
        return list(self.symbols[found])


class _TextMap(_Scalar):
    """A map in one block, as Avro writers make it."""

    def values(self, walk: _Walk, rows: Places) -> Values:
        left = walk.longs(rows)
        if left.size and (left.min() < 0 or left.max() > _LARGEST_MAP):
            raise _Odd
        maps: list[dict[str, str]] = [{} for _ in range(len(rows))]
        filled = np.flatnonzero(left)
        more = filled
        while more.size:
            of = rows[more]
            for row, key, value in zip(more.tolist(), walk.texts(of), walk.texts(of), strict=True):
                maps[row][key] = value
            left[more] -= 1
            more = more[left[more] > 0]
        if filled.size and walk.longs(rows[filled]).any():
            raise _Odd
        return maps


class _Optional(_Scalar):
    """A union of null and a type with one column."""

    def __init__(self, branch: _Scalar) -> None:
        super().__init__(branch.path)
        self.branch = branch

    def values(self, walk: _Walk, rows: Places) -> Values:
        index = walk.longs(rows)
        if index.size and (index.min() < 0 or index.max() > 1):
            raise _Odd
        there = np.flatnonzero(index)
        if there.size == len(rows):
            return self.branch.values(walk, rows)
        found: Values = [None] * len(rows)
        if there.size:
            for row, value in zip(there.tolist(), self.branch.values(walk, rows[there]), strict=True):
                found[row] = value
        return found


class _Record:
    """Fields one after another."""

    def __init__(self, schema: Any, path: str, named: dict[str, Any]) -> None:
        named[schema["name"]] = schema
        self.fields = [_reader(field["type"], path + field["name"], named) for field in schema["fields"]]

    def read(self, walk: _Walk, rows: Places, columns: Columns) -> None:
        for field in self.fields:
            field.read(walk, rows, columns)


def _reader(schema: Any, path: str, named: dict[str, Any]) -> _Scalar | _Record:
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    match schema:
        case "long":
            return _Long(path)
        case "int":
            return _Int(path)
        case "boolean":
            return _Boolean(path)
        case "string":
            return _Text(path)
        case {"type": "enum"}:
            named[schema["name"]] = schema
            return _Enum(path, schema["symbols"])
        case {"type": "map", "values": "string"}:
            return _TextMap(path)
        case {"type": "record"}:
            return _Record(schema, path + ".", named)
        case ["null", branch]:
            inner = _reader(branch, path, named)
            if isinstance(inner, _Scalar):
                return _Optional(inner)
    raise TypeError(f"Field {path} has a type that is not read by columns: {schema}.")
