"""Run a module in several processes that race for the same rows and are killed on their way."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, select, text

from config.database import reading
from config.limit_models import COUNTERS

#: The processes of a race; the seed of the first life of each is below this.
RACERS = 4
#: An account and where a window of it begins.
Place = tuple[str, int]


def race(engine: Engine, module: str, requests: int, *arguments: str) -> int:
    """Run `main(URL, SEED, NUMBERS, *ARGUMENTS)` of a module until all requests have ended; how many times one of its processes was killed.

    Whoever was killed starts again at once: the others may be waiting for what it holds.
    """
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.contract.racing", module, url, str(requests), *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert deadlocks(engine) == 0
    return int(done.stdout)


def deadlocks(engine: Engine) -> int:
    """How many transactions had to be broken off because others waited for them and they for those; in SQLite a writer is alone."""
    if engine.dialect.name != "postgresql":
        return 0
    # https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
    with engine.connect() as db:
        return int(
            db.execute(text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")).scalar_one()
        )


@contextmanager
def watched(engine: Engine) -> Iterator[list[Counter[Place]]]:
    """Look at the counters all the time; what each look found used and held."""
    stop, looks = threading.Event(), list[Counter[Place]]()

    def watch() -> None:
        while not stop.is_set():
            with reading(engine) as db:
                looks.append(
                    Counter({(r.account, r.begins): r.used + r.reserved for r in db.execute(select(COUNTERS))})
                )
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield looks
    finally:
        stop.set()
        watcher.join()


def main(module: str, url: str, requests: int, *arguments: str) -> None:
    """Fork the processes of a race, which have the module's code by then; print how many times one was killed."""
    work, share, kills = importlib.import_module(module).main, requests // RACERS, 0

    def start(racer: int, seed: int) -> int:
        if pid := os.fork():
            return pid
        status = 1
        # PR_SET_PDEATHSIG: nobody races on alone.
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        try:
            work(url, seed, range(racer * share, (racer + 1) * share), *arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)

    running = {start(racer, racer): racer for racer in range(RACERS)}
    while running:
        pid, ended = os.wait()
        racer, status = running.pop(pid), os.waitstatus_to_exitcode(ended)
        if status == 0:
            continue
        if status != -9:
            sys.exit(f"A racer ended with {status}.")
        kills += 1
        running[start(racer, 1_000 * kills + racer)] = racer
    print(kills)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
