"""Batches with header names that are not UTF-8 are read whole, and all others as aiokafka reads them."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from streams.header_names import Records


class Raw(str):
    """A header name that aiokafka's builder in Python writes as other bytes."""

    def encode(self, *_: Any) -> bytes:
        return b"\xc3(\xff"


def batch(first: int, names: list[str], compression: int) -> bytes:
    """One batch of a record for each header name, from this offset on."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        builder.append(number, 1_000 + number, b"k%d" % number, None, [(name, b"\xff"), (name, None)])
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")
    return bytes(data)


def read(records: Any) -> list[tuple[Any, ...]]:
    """Everything that a consumer takes from the batches."""
    found = []
    while records.has_next():
        here = records.next_batch()
        assert here.validate_crc() and not here.is_control_batch
        found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in here]
        assert here.next_offset == found[-1][0] + 1
    return found


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_a_bad_name_costs_no_record_of_its_batch(compression: int) -> None:
    """Between good records and good batches, the bad name is written out and nothing else is changed."""
    data = b"".join([
        batch(0, ["a", "b"], compression), batch(2, ["c", Raw("x"), "e", Raw("x")], compression), batch(6, ["g"], compression),
    ])  # fmt: skip
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(data))
    found = read(Records(data))
    assert [record[0] for record in found] == list(range(7))
    bad = "\\xc3(\\xff"
    assert [record[4][0][0] for record in found] == ["a", "b", "c", bad, "e", bad, "g"]
    assert all(record[4] == [(record[4][0][0], b"\xff"), (record[4][0][0], None)] for record in found)
    assert [record[2] for record in found] == [b"k0", b"k1", b"k0", b"k1", b"k2", b"k3", b"k0"]


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_good_batches_are_read_as_aiokafka_reads_them(compression: int) -> None:
    """Also where the fetch ends in the middle of a batch."""
    data = b"".join(batch(2 * number, ["a", "ö"], compression) for number in range(3))
    assert read(Records(data)) == read(MemoryRecords(data)) != []
    cut = data[:-5]
    assert read(Records(cut)) == read(MemoryRecords(cut))
    assert Records(cut).size_in_bytes() == MemoryRecords(cut).size_in_bytes()
