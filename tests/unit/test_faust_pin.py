"""The parts of Faust that streams/transport.py replaces are the ones it was written against."""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version

import pytest
from faust.tables.recovery import Recovery
from faust.transport import consumer
from faust.transport.drivers import aiokafka as driver

REPLACED = {
    consumer.Consumer._new_offset: "1d2c7ea89a7ad4f1",
    consumer.Consumer.ack: "5fcf41cf45153475",
    consumer.Consumer._filter_tps_with_pending_acks: "f6f9239774234e7e",
    consumer.Consumer._add_gap: "4df2573ded7c1c2c",
    consumer.Consumer.on_partitions_revoked: "d04b7ae72c6fc206",
    consumer.Consumer.on_partitions_assigned: "29ce96596f05a18c",
    consumer.Consumer.perform_seek: "0e8c130ff4b0afd8",
    Recovery._resume_streams: "d986a6710c1aca98",
    Recovery._wait: "ec7429b70176f8c6",
    consumer.Consumer.getmany: "4b168d84882a70d6",
    consumer.Consumer._drain_messages: "44a2500309e83c63",
    consumer.Consumer._commit_tps: "a20e230b05ae8b15",
    consumer.Consumer.verify_all_partitions_active: "4e0e46f5c297305d",
    driver.Consumer._new_consumer_thread: "0870ec53dea75083",
    driver.Producer._settings_extra: "a4c7bc41b6382223",
}


def test_faust_is_the_version_that_was_read() -> None:
    """Another Faust version must be read again before the offset tracker is put under it."""
    assert version("faust-streaming") == "0.15.3"


@pytest.mark.parametrize("method", REPLACED, ids=lambda method: method.__qualname__)
def test_a_replaced_method_is_unchanged_upstream(method: object) -> None:
    """A change of a replaced method, or of one that calls it, is noticed before it can lose a record."""
    digest = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16]  # type: ignore[arg-type]
    assert digest == REPLACED[method], f"{method} now has digest {digest}: read it, then update streams/transport.py"
