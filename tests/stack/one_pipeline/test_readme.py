"""The README's examples, run as a reader would run them against a running pipeline."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cli.running import Running
from tests.stack.asking import ask_one, eventually, told

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def rows(run: Running, sql: str) -> list[list[str]]:
    """What ClickHouse answers to a query over plain HTTP, as a reader's curl would get it; AssertionError with its complaint."""
    url = f"{run.settings.clickhouse_url}/?database={run.settings.clickhouse_database}"
    try:
        with urllib.request.urlopen(url, sql.encode(), timeout=30) as answer:
            return [line.split("\t") for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as refused:
        raise AssertionError(refused.read().decode()) from None


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_a_python_example_gets_its_answer(pipeline: Running, number: int) -> None:
    """A Python example of the README publishes a request and prints the answer to it."""
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]],
        env={**pipeline.environment, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("number", range(len(blocks("sql"))))
def test_a_sql_example_finds_rows(pipeline: Running, number: int) -> None:
    """A SQL example of the README is taken by ClickHouse and finds what a request left behind."""
    answer = ask_one(pipeline, told())
    assert answer["outcome"] == "completed"
    assert eventually(lambda: rows(pipeline, blocks("sql")[number]))


def test_every_local_link_of_the_documentation_leads_somewhere() -> None:
    """A link in the README, CONTRIBUTING, CHANGELOG or docs that is no web address names a file of the repository."""
    documents = [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *ROOT.glob("docs/**/*.md"),
    ]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text("utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_setting_the_readme_names_exists() -> None:
    """The README's table of settings names fields of the settings, with their defaults where it gives a plain one."""
    from config.settings import Settings

    table = README.partition("## Settings")[2].partition("\n## ")[0]
    lines = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    for names, defaults in lines:
        fields = re.findall(r"`(\w+)`", names)
        assert fields and set(fields) <= set(Settings.model_fields), names
        for name, shown in zip(fields, defaults.split(", "), strict=False):
            if re.fullmatch(r"\s*\d+\s*", shown):
                assert float(shown) == Settings.model_fields[name].default, name
