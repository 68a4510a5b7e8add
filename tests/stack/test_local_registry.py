"""The local schema registry answers in Confluent's way."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from local.registry import SchemaRegistry


def _call(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as reply:
        return json.load(reply)


def test_a_schema_is_registered_and_read_by_id(tmp_path: Path) -> None:
    """The same schema gets the same id, an incompatible one is refused, and stop ends the process."""
    schema = {"type": "record", "name": "X", "fields": [{"name": "a", "type": "long"}]}
    changed = {"type": "record", "name": "X", "fields": [{"name": "b", "type": "string"}]}
    registry = SchemaRegistry(tmp_path)
    registry.start()
    try:
        versions = f"{registry.url}/subjects/x-value/versions"
        first = _call(versions, {"schema": json.dumps(schema)})
        assert _call(versions, {"schema": json.dumps(schema)}) == first
        assert json.loads(_call(f"{registry.url}/schemas/ids/{first['id']}")["schema"]) == schema
        assert _call(f"{registry.url}/subjects") == ["x-value"]
        with pytest.raises(urllib.error.HTTPError, match="422"):
            _call(versions, {"schema": "no schema"})
        assert _call(versions, {"schema": json.dumps(changed)})["id"] != first["id"]
    finally:
        registry.stop()
    assert registry.child is not None and not registry.child.running
