"""Starts a ClickHouse server on this machine: the chDB engine behind ClickHouse's HTTP interface.

`python -m local.clickhouse --port N --path DIR` serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import urllib.error
import urllib.request
from pathlib import Path

from local.processes import Child, free_port, wait_until

_START_SECONDS = 60.0
_ROOT = Path(__file__).parent.parent
NAME_HEADER = "X-ClickHouse-Server-Display-Name"


def display_name(process_id: int) -> str:
    """What a server calls itself in its replies, so that `start` knows it from another on its port."""
    return f"millstream-{process_id}"


class ClickHouseServer:
    """A ClickHouse server with its databases under `data_dir`, on `port` of 127.0.0.1 (None: a free one).

    `start` returns when clients can use it. After `stop` or `kill`, `start` brings it back on the same port
    with every row it had acknowledged. Each HTTP request is a session of its own: `SET` and temporary
    tables do not reach the next one.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ClickHouseServer:
        """Starts the server and waits until it answers; raises with the end of its log when it does not."""
        if self.child is not None and self.child.running:
            return self
        command = [sys.executable, "-m", "local.clickhouse", "--port", str(self.port)]
        self.child = Child(
            [*command, "--path", str(self.data_dir / "data")],
            log_path=self.data_dir / "clickhouse.log",
            name="ClickHouse",
            cwd=_ROOT,
        )
        try:
            wait_until(self._answers, _START_SECONDS, f"ClickHouse to answer on {self.url}", self.child)
        except BaseException:
            self.child.kill()
            raise
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Lets running statements end, then stops the server; kills it after `timeout` seconds."""
        if self.child is not None:
            self.child.stop(timeout)

    def kill(self) -> None:
        """Ends the server with SIGKILL."""
        if self.child is not None:
            self.child.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=2) as reply:
                return bool(reply.headers[NAME_HEADER] == display_name(self.child.pid if self.child else 0))
        except (urllib.error.URLError, OSError):
            return False


def main() -> None:
    """Command line of the server process."""
    parser = argparse.ArgumentParser(prog="python -m local.clickhouse", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--path", type=Path, required=True, help="folder of the databases")
    options = parser.parse_args()
    from local.clickhouse_http import serve  # chDB takes 0.3 s to import, which only the server needs

    asyncio.run(serve(options.path, options.port))


if __name__ == "__main__":
    main()
