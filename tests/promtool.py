"""Prometheus' own checker, `promtool`, of Debian's package `prometheus`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str | Path, text: str = "") -> None:
    """Run promtool on files or a text, fail with its words; a machine without it skips the test, except in CI."""
    program = shutil.which("promtool")
    if program is None:
        missing = "promtool is not installed; Debian's package `prometheus` has it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
