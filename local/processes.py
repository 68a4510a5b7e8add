"""Start, watch and stop one child process that never outlives this one."""

from __future__ import annotations

import os
import queue
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM

# PR_SET_PDEATHSIG (1) survives execve, and a parent that died before the call is seen by getppid:
# https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
# The account is changed first, because a change of credentials clears the setting.
_LAUNCHER = """
import ctypes, os, sys
parent, account, program = sys.argv[1:4]
if account:
    import pwd
    entry = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("The parent process ended before this one began.")
os.execv(program, sys.argv[4:])
"""


class Child:
    """Runs one program as a child process until `stop`, `kill`, or the end of this process.

    `args` is the command line, `env` replaces the environment (None: inherit ours), standard output and
    standard error are appended to `log_path`, `name` is the word used in messages, `user` the account it runs
    as, which on Linux root may choose. The child has a process
    group of its own, so Ctrl-C in a terminal reaches only this process, which then stops its children in
    order. On Linux the kernel kills the child when this process dies, however it dies; elsewhere a child of
    a killed parent lives on. Raises FileNotFoundError when the program does not exist.
    """

    def __init__(
        self,
        args: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
        *,
        log_path: Path,
        name: str,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.args = [os.fspath(arg) for arg in args]
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        program = shutil.which(self.args[0], path=(env or os.environ).get("PATH"))
        if program is None:
            raise FileNotFoundError(f"Cannot start {name}: there is no program {self.args[0]!r} on the PATH.")
        command = self.args
        if sys.platform == "linux":
            launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), user or ""]
            command = [*launcher, os.path.abspath(program), *self.args]
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        self._process = _spawner().spawn(command, None if env is None else dict(env), log_path, cwd)

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the child has ended."""
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, the negative signal number if a signal ended it, None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Sends signal `number` to the child alone; does nothing when it has ended."""
        self._process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        """Waits at most `timeout` seconds for its end; returns the exit status or raises TimeoutError."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (process {self.pid}) still runs after {timeout} s.") from None

    def stop(self, timeout: float = 10.0, *, number: int = SIGTERM) -> int:
        """Asks the child to end, kills its group after `timeout` seconds, and returns the exit status."""
        self.signal(number)
        self.signal(SIGCONT)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kills the child and its process group at once (SIGKILL) and returns the exit status."""
        if self.running:
            try:
                os.killpg(self.pid, SIGKILL)
            except ProcessLookupError:
                self._process.kill()
        return self._process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last `lines` lines that this child (not an earlier one on the same file) wrote to its log."""
        try:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - 64 * 1024))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def wait_until(predicate: Callable[[], bool], timeout: float, what: str, child: Child | None = None) -> None:
    """Returns as soon as `predicate()` is true, asking every 20 to 100 ms.

    `what` completes the sentence "Waited N s for …". Raises RuntimeError with the log's tail when `child`
    has ended, TimeoutError with the same when `timeout` seconds are over.
    """
    begin = time.monotonic()
    pause = 0.02
    while not predicate():
        waited = time.monotonic() - begin
        if child is not None and not child.running:
            raise RuntimeError(
                f"{child.name} ended with status {child.returncode} after {waited:.1f} s, "
                f"while waiting for {what}.{_log_of(child)}"
            )
        if waited > timeout:
            raise TimeoutError(f"Waited {timeout:g} s for {what}, in vain.{_log_of(child)}")
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


def _log_of(child: Child | None) -> str:
    if child is None:
        return ""
    tail = child.log_tail()
    return f" The end of {child.log_path}:\n{tail}" if tail else f" Its log {child.log_path} is empty."


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on, never the same twice in one process.

    It lies below the range that the kernel takes for outgoing connections: a client that dials a stopped
    server's port inside that range can be connected to itself and so hold the port.
    """
    lowest, highest = 10_000, _first_outgoing_port() - 1
    for _ in range(1000):
        port = random.randint(lowest, highest)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        with _ports_lock:
            if port not in _ports_given:
                _ports_given.add(port)
                return port
    raise RuntimeError(f"No free TCP port on 127.0.0.1 between {lowest} and {highest} in 1,000 tries.")


_ports_lock = threading.Lock()
_ports_given: set[int] = set()


def _first_outgoing_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768
    return first if first > 12_000 else 32_768


class _Spawner:
    """Forks every child from one thread that lives as long as the process.

    PR_SET_PDEATHSIG fires when the *thread* that forked ends, and callers start servers on short-lived ones.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._orders = queue.SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def spawn(
        self, command: list[str], env: dict[str, str] | None, log_path: Path, cwd: Path | None
    ) -> subprocess.Popen[bytes]:
        def start() -> subprocess.Popen[bytes]:
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    command,
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )

        future: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((start, future))
        return future.result()

    def _run(self) -> None:
        while True:
            start, future = self._orders.get()
            try:
                future.set_result(start())
            except BaseException as error:  # handed to the caller, whose call failed
                future.set_exception(error)


_spawner_lock = threading.Lock()
_current_spawner: _Spawner | None = None


def _spawner() -> _Spawner:
    global _current_spawner
    with _spawner_lock:
        if _current_spawner is None or _current_spawner.owner != os.getpid():
            _current_spawner = _Spawner()
        return _current_spawner
