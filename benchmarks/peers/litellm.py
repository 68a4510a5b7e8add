"""LiteLLM's proxy as a child process, in the venv that `benchmarks/peers/install` builds.

It is set up to its advantage: no database, no callbacks, no log, its price list from the package instead of the network, and
one worker process a core (https://docs.litellm.ai/docs/proxy/prod advises one worker for each core of a machine).
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from importlib.metadata import distributions
from pathlib import Path

import psutil

from benchmarks.bare import NAME
from benchmarks.machine import tree
from local.processes import Child, free_port, wait_until

VENV = Path(__file__).parents[2] / ".millstream" / "peers"
START_SECONDS = 300.0
KEY = "sk-benchmark"
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}


class LiteLLM:
    """The proxy on a free port of 127.0.0.1; its only model is the benchmarks', served by `provider_url`."""

    def __init__(self, provider_url: str, folder: Path) -> None:
        program = VENV / "bin" / "litellm"
        if not program.exists():
            raise FileNotFoundError(f"There is no {program}; run benchmarks/peers/install first.")
        self.workers = psutil.cpu_count() or 1
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "litellm.json"
        config.write_text(json.dumps(_config(provider_url)))  # every JSON text is YAML as well
        command = [program, "--host", "127.0.0.1", "--port", str(port), "--num_workers", str(self.workers)]
        # On a starved machine uvicorn would take a worker that starts slowly for dead, and start another one.
        command += ["--keepalive_timeout", "75", "--timeout_worker_healthcheck", "120"]
        self._child = Child(
            [*command, "--config", config],
            {**_plain_environment(), **ENVIRONMENT},
            log_path=folder / "litellm.log",
            name="LiteLLM",
        )

    def wait(self) -> None:
        """Return when every worker answers; RuntimeError or TimeoutError with the end of the log if that never happens."""
        ready = f"LiteLLM's {self.workers} workers to answer at {self.url}"
        wait_until(lambda: self._answers() and self._workers_up(), START_SECONDS, ready, self._child)

    def pids(self) -> list[int]:
        """The process ids of the proxy and its workers."""
        return tree(self._child.pid)

    def stop(self) -> None:
        """Stop it, and its workers should they outlive it."""
        workers = [psutil.Process(pid) for pid in self.pids()[1:]] if self._child.running else []
        self._child.stop(10.0)
        for worker in psutil.wait_procs(workers, timeout=5.0)[1]:
            worker.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/liveliness", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _workers_up(self) -> bool:
        return self._child.log_tail(1_000).count("Proxy initialized with Config") >= self.workers


def version() -> str:
    """The version in the peers' venv."""
    site = next((VENV / "lib").glob("python*/site-packages"))
    return next(found.version for found in distributions(path=[str(site)]) if found.name == "litellm")


def _plain_environment() -> dict[str, str]:
    dropped = ("MILLSTREAM_", "OPENAI_", "PYTHON")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**plain, "PYTHONUNBUFFERED": "1"}  # so that its log says at once which workers are up


def _config(provider_url: str) -> dict[str, object]:
    model = {"model": f"openai/{NAME}", "api_base": provider_url, "api_key": "sim-key"}
    return {
        "model_list": [{"model_name": NAME, "litellm_params": model}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"request_timeout": 600, "num_retries": 0, "set_verbose": False},
    }
