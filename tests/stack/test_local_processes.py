"""A child process lives no longer than its parent, and says why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from local.processes import Child, free_port, wait_until

_ROOT = Path(__file__).parent.parent.parent


def _sleeper(tmp_path: Path, code: str = "") -> Child:
    """A child that runs `code`, says so, and sleeps."""
    program = f"import signal, time\n{code}\nprint('ready', flush=True)\ntime.sleep(600)"
    child = Child([sys.executable, "-c", program], log_path=tmp_path / "log", name="sleeper")
    wait_until(lambda: "ready" in child.log_tail(), 20, "the sleeper", child)
    return child


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_child_dies_with_a_killed_parent_but_not_with_the_thread_that_started_it(tmp_path: Path) -> None:
    """kill -9 of the parent ends the child; the end of the starting thread does not."""
    program = f"""
        import sys, threading, time
        from pathlib import Path
        from local.processes import Child
        started = []
        def start():
            command = [sys.executable, "-c", "import time; time.sleep(600)"]
            started.append(Child(command, log_path=Path({str(tmp_path)!r}) / "log", name="sleeper"))
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        time.sleep(0.5)
        print(started[0].pid, started[0].running, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as parent:
        assert parent.stdout is not None
        pid, running = parent.stdout.readline().split()
        assert running == "True"
        parent.kill()
    wait_until(lambda: not _alive(int(pid)), 20, "the kernel to end the orphan")


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_child_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to its foreground group, does not reach the child."""
    child = _sleeper(tmp_path)
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        child.kill()


def test_stop_ends_a_child_that_heeds_sigterm_and_one_that_does_not(tmp_path: Path) -> None:
    """stop() is SIGTERM, then SIGKILL, and a suspended child is no exception."""
    assert _sleeper(tmp_path).stop(20) == -signal.SIGTERM
    stubborn = _sleeper(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    assert stubborn.stop(0.2) == -signal.SIGKILL
    suspended = _sleeper(tmp_path)
    suspended.signal(signal.SIGSTOP)
    assert suspended.stop(20) == -signal.SIGTERM
    assert not suspended.running
    assert suspended.stop(1) == -signal.SIGTERM


def test_waiting_for_a_child_that_ended_shows_its_last_words(tmp_path: Path) -> None:
    """The error names the child, its status and what it wrote last, not what an earlier child wrote."""
    log = tmp_path / "log"
    log.write_text("words of an earlier run\n")
    child = Child([sys.executable, "-c", "print('no disk left'); exit(3)"], log_path=log, name="store")
    with pytest.raises(RuntimeError, match=r"store ended with status 3 .*the store to answer") as caught:
        wait_until(lambda: False, 20, "the store to answer", child)
    assert "no disk left" in str(caught.value)
    assert "earlier run" not in str(caught.value)


def test_waiting_in_vain_is_a_timeout(tmp_path: Path) -> None:
    """A child that lives but does not do what is waited for ends in TimeoutError."""
    child = _sleeper(tmp_path)
    try:
        with pytest.raises(TimeoutError, match="the moon"):
            wait_until(lambda: False, 0.1, "the moon", child)
        with pytest.raises(TimeoutError, match="sleeper"):
            child.wait(0.1)
    finally:
        child.kill()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """A program that is not there is FileNotFoundError with its name, at once."""
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        Child(["no-such-program"], log_path=tmp_path / "log", name="ghost")


def test_environment_and_folder_reach_the_child(tmp_path: Path) -> None:
    """`env` replaces the environment and `cwd` is where the child runs."""
    code = "import os; print(sorted(os.environ.get(name, '') for name in ('A', 'HOME')), os.getcwd())"
    env = {"A": "1", "PATH": os.environ["PATH"]}
    child = Child([sys.executable, "-c", code], env, log_path=tmp_path / "log", name="echo", cwd=tmp_path)
    assert child.wait(20) == 0
    assert child.log_tail() == f"['', '1'] {tmp_path.resolve()}"


def test_free_ports_differ_even_between_threads() -> None:
    """Servers that start at the same time get different ports."""
    ports: list[int] = []
    threads = [threading.Thread(target=lambda: ports.append(free_port())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ports)) == 50


def test_children_can_be_started_after_a_fork(tmp_path: Path) -> None:
    """A forked process, which lost our starting thread, starts children of its own."""
    _sleeper(tmp_path).kill()
    program = """
        import os, sys
        from pathlib import Path
        from local.processes import Child
        def run(name):
            command = [sys.executable, "-c", "pass"]
            return Child(command, log_path=Path(sys.argv[1]) / name, name=name).wait(20)
        run("parent")
        pid = os.fork()
        if pid == 0:
            os._exit(run("fork"))
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    assert subprocess.run(command, cwd=_ROOT, timeout=60).returncode == 0
