"""The command line of the provider simulator: `python -m local.simulator --port N`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import signal
import sys

import uvloop
from aiohttp import web

from local.simulator.calls import NO_TOKENS
from local.simulator.prices import cost_nano_usd
from local.simulator.server import PROVIDERS, Simulator

BACKLOG = 4_096
OPEN_FILES = 65_536


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local.simulator", description="Serves the OpenAI, Anthropic and Gemini APIs for trying things."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="wait before an answer (default: %(default)g)")
    return parser.parse_args()


async def _serve(host: str, port: int, latency_ms: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Without handler_cancellation a call would go on, and be paid for, when its client is gone.
    server = web.Server(Simulator(latency_ms).handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=BACKLOG)
    await site.start()
    print(f"The provider simulator listens on http://{host}:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Serves until SIGTERM or Ctrl-C; exit status 2 where it cannot listen."""
    arguments = _arguments()
    _allow_many_connections()
    for provider in PROVIDERS:
        cost_nano_usd(provider, "", NO_TOKENS)  # Loads the price list, half a second that no call should wait for.
    gc.freeze()
    try:
        uvloop.run(_serve(arguments.host, arguments.port, arguments.latency_ms))
    except (OSError, OverflowError) as error:
        print(
            f"The provider simulator cannot listen on {arguments.host}:{arguments.port}: {error}; choose another --port.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
