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
#: The variables that point a provider elsewhere: its address and its key.
PROVIDER_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    "google": ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
    "openai-compatible": ("MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL", "MILLSTREAM_OPENAI_COMPATIBLE_API_KEY"),
}


def stack_settings() -> Settings:
    """The settings, with the addresses of this folder's running stack where nothing else sets them.

    Providers are those that the stack's workers call; a key of the user's is not used for its simulator.
    """
    stack = _running_stack()
    for name, value in stack.items():
        if (variable := ADDRESSES.get(name)) and value:
            os.environ.setdefault(variable, value)
    for name, address in stack.get("providers", {}).items():
        variable, key = PROVIDER_VARIABLES[name]
        if variable not in os.environ:
            own = None if is_simulated(address) else os.environ.get(key)
            os.environ |= {variable: address, key: own or "none"}
    return settings()


def worker_pages() -> list[str]:
    """Addresses of the metrics pages of this folder's running stack; none without one."""
    pages = _running_stack().get("metrics")
    return [str(page) for page in pages.values()] if isinstance(pages, dict) else []


def simulator_url() -> str | None:
    """Address of the provider simulator of this folder's running stack; None without one."""
    url = _running_stack().get("simulator_url")
    return str(url) if url else None


def is_simulated(address: str | None) -> bool:
    """Whether a provider's address is that of this folder's running simulator."""
    url = simulator_url()
    return url is not None and address is not None and address.startswith(f"{url}/")


def address_shown(address: str | None) -> str | None:
    """A provider's address for people, which says so where it is the simulator's."""
    return f"{address} (simulator)" if is_simulated(address) else address


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
