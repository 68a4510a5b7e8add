"""`millstream up` and `millstream demo` as processes: what they write, and that nothing is left when they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.stack.asking import eventually

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def clean(**changes: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    ours = ("MILLSTREAM_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
    return {n: v for n, v in os.environ.items() if not n.startswith(ours)} | {"PYTHONPATH": str(ROOT)} | changes


def begin(folder: Path, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments], cwd=folder, env=clean(**changes), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def stack_of(folder: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    path = folder / ".millstream" / "stack.json"
    assert eventually(lambda: path.exists() or process.poll() is not None, 90)
    assert process.poll() is None, process.stdout.read() if process.stdout else ""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def beside(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in another terminal."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env=clean(), capture_output=True, text=True, timeout=60, check=False)


def send(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return beside(folder, "send", *arguments)


def test_up_is_found_by_other_commands_and_leaves_nothing(folder: Path) -> None:
    """The stack file has every address, `send` in the same folder needs no setting, Ctrl-C ends every process."""
    up = begin(folder, "up")
    stack = stack_of(folder, up)
    assert {"kafka_bootstrap", "clickhouse_url", "database_url", "simulator_url", "schema_registry_url"} <= set(stack)
    assert {"kafka", "clickhouse", "simulator", "admit", "complete", "meter", "sink"} <= set(stack["processes"])
    assert {"admit", "complete", "meter", "sink"} == set(stack["metrics"])
    for page in stack["metrics"].values():
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert b"millstream_" in answer.read()
    found = send(folder, "Why?", "--model", "openai/gpt-5-mini")
    assert found.returncode == 0, found.stderr
    listed = {one["name"]: one["base_url"] for one in json.loads(beside(folder, "providers", "list", "--json").stdout)}
    assert listed["google"] == f"{stack['simulator_url']}/google"
    tested = beside(folder, "providers", "test", "openai")
    assert tested.returncode == 0, tested.stdout
    assert "(simulator)" in tested.stdout
    processes = family(up)
    up.send_signal(signal.SIGINT)
    printed, _ = up.communicate(timeout=60)
    assert up.returncode == 0, printed
    assert "millstream send" in printed
    assert gone(processes)
    assert not (folder / ".millstream" / "stack.json").exists()
    assert send(folder, "Why?", "--model", "openai/gpt-5-mini").returncode == 2


def test_a_provider_can_be_pointed_elsewhere(folder: Path) -> None:
    """`--provider-base-url` sends one provider's calls to the user's own server, and SIGTERM leaves nothing either."""
    own = subprocess.Popen(
        [sys.executable, "-m", "local.simulator", "--port", "0"],
        env=clean(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert own.stdout is not None
    address = next(word for word in own.stdout.readline().split() if word.startswith("http")).rstrip(".")
    up = begin(folder, "up", "--provider-base-url", f"openai={address}/openai/v1")
    assert stack_of(folder, up)["providers"]["openai"] == f"{address}/openai/v1"
    assert send(folder, "Why?", "--model", "openai/gpt-5-mini").returncode == 0
    with urllib.request.urlopen(f"{address}/_sim/ledger") as answer:
        assert json.load(answer)["overall"]["calls"] == 1
    processes = family(up)
    up.terminate()
    up.communicate(timeout=60)
    assert gone(processes)
    own.terminate()
    own.communicate(timeout=20)


@pytest.mark.parametrize("after", [0.2, 8.0], ids=["while it starts", "at work"])
def test_an_interrupted_demo_leaves_nothing(folder: Path, after: float) -> None:
    """Ctrl-C at any moment of the demo ends every process that it started."""
    demo = begin(folder, "demo")
    assert eventually(lambda: family(demo))
    time.sleep(after)
    processes = family(demo)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode != 0
    assert eventually(lambda: gone(processes), 60)
