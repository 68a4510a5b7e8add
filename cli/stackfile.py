"""Find the local stack of this folder: `.millstream/stack.json`, written by `millstream up`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from config.settings import Settings, settings

STACK_FILE = Path(".millstream") / "stack.json"

#: Which setting each address in the file stands for; a variable that is set wins over the file.
ADDRESSES = {
    "kafka_bootstrap": "MILLSTREAM_KAFKA_BOOTSTRAP",
    "clickhouse_url": "MILLSTREAM_CLICKHOUSE_URL",
    "database_url": "MILLSTREAM_DATABASE_URL",
    "schema_registry_url": "MILLSTREAM_SCHEMA_REGISTRY_URL",
}


def stack_settings() -> Settings:
    """The settings, with the addresses of this folder's running stack where nothing else sets them."""
    for name, value in _running_stack().items():
        if (variable := ADDRESSES.get(name)) and value:
            os.environ.setdefault(variable, value)
    return settings()


def worker_pages() -> list[str]:
    """Addresses of the metrics pages of this folder's running stack; none without one."""
    pages = _running_stack().get("metrics")
    return [str(page) for page in pages.values()] if isinstance(pages, dict) else []


def simulator_url() -> str | None:
    """Address of the provider simulator of this folder's running stack; None without one."""
    url = _running_stack().get("simulator_url")
    return str(url) if url else None


def _running_stack() -> dict[str, Any]:
    """The stack file's content, empty when there is none or its processes are gone."""
    try:
        found: dict[str, Any] = json.loads(STACK_FILE.read_text())
        alive = all(_alive(pid) for pid in found["processes"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found if alive else {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
