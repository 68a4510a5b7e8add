"""Prometheus and its checker, `promtool`, of Debian's package `prometheus`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"


def program(name: str) -> str:
    """The path of `promtool` or `prometheus`; a machine without it skips the test, except in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed; Debian's package `prometheus` has it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def promtool(*arguments: str | Path, text: str = "") -> None:
    """Run promtool on files or a text, fail with its words."""
    done = subprocess.run(
        [program("promtool"), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
