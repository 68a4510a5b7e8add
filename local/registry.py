"""Starts a schema registry on this machine: Apicurio Registry, a child process, in memory."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from local import jars
from local.processes import Child, free_port, wait_until

_START_SECONDS = 120.0
_OLDEST_JAVA = 21  # of Apicurio Registry 3.3
_JVM_FLAGS = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


class SchemaRegistry:
    """An Apicurio registry on `port` of 127.0.0.1 (None: a free one); its log is under `data_dir`.

    `start` returns when clients can use it. It keeps schemas in memory: after `stop` or `kill` they are gone.
    """

    def __init__(
        self, data_dir: Path, port: int | None = None, progress: Callable[[str], None] = lambda line: None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.child: Child | None = None
        self._progress = progress

    @property
    def url(self) -> str:
        """Its API in Confluent's form: `http://127.0.0.1:<port>/apis/ccompat/v7`."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self) -> SchemaRegistry:
        """Starts the registry and waits until it answers; raises with the end of its log when it does not."""
        if self.child is not None and self.child.running:
            return self
        folder = jars.archives("registry", self._progress)
        # The management interface would take port 9000 on every address, and a second registry could not start:
        # https://quarkus.io/guides/management-interface-reference
        settings = {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": str(free_port()),
        }
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.child = Child(
            [jars.java(_OLDEST_JAVA), *_JVM_FLAGS, "-jar", folder / "quarkus-run.jar"],
            env=os.environ | settings,
            log_path=self.data_dir / "registry.log",
            name="the schema registry",
            cwd=self.data_dir,
        )
        try:
            wait_until(self._answers, _START_SECONDS, f"the schema registry to answer on {self.url}", self.child)
        except BaseException:
            self.child.kill()
            raise
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Stops the registry; kills it after `timeout` seconds."""
        if self.child is not None:
            self.child.stop(timeout)

    def kill(self) -> None:
        """Ends the registry with SIGKILL."""
        if self.child is not None:
            self.child.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False
