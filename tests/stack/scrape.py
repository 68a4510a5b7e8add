"""Read the workers' metrics as Prometheus does."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from cli.running import Running

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def workers(run: Running) -> list[str]:
    """The workers that run: other tests start some and kill some."""
    return [name for name in run.monitoring if run.workers[name].running]


def get(url: str) -> tuple[int, str]:
    """Status and body of a GET request, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def scrape(run: Running, worker: str) -> Samples:
    """Every sample of a worker's page, by name and sorted labels."""
    return page(run.monitoring[worker])


def page(address: str) -> Samples:
    """Every sample of the page at a base address, by name and sorted labels."""
    status, text = get(f"{address}/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in samples.items() if found == name and wanted <= set(has))
