"""Run a module in several processes that race for the same rows and are killed on their way."""

from __future__ import annotations

import subprocess
import sys
import time

from sqlalchemy import Engine

#: The processes of a race; the seed of the first life of each is below this.
RACERS = 4


def race(engine: Engine, module: str, requests: int, *arguments: str) -> int:
    """Run `module URL SEED FIRST LAST ARGUMENTS` until all requests have ended, starting again what was killed; how many times it was.

    Whoever was killed starts again at once: the others may be waiting for what it holds.
    """
    url, share = engine.url.render_as_string(hide_password=False), requests // RACERS
    kills = 0

    def start(racer: int, seed: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, url, str(seed)]
        return subprocess.Popen([*command, str(racer * share), str((racer + 1) * share), *arguments])

    running = {racer: start(racer, racer) for racer in range(RACERS)}
    while running:
        for racer, process in list(running.items()):
            status = process.poll()
            if status == 0:
                del running[racer]
            elif status is not None:
                assert status == -9, f"A racer ended with {status}."
                kills += 1
                running[racer] = start(racer, 1_000 * kills + racer)
        time.sleep(0.01)
    return kills
