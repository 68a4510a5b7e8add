"""The alert rules, checked and tried by Prometheus' own tool."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.promtool import PROMETHEUS, promtool

RULES = (PROMETHEUS / "alerts.yml").read_text("utf-8")
CASES = (PROMETHEUS / "alerts.test.yml").read_text("utf-8")


def test_prometheus_takes_its_configuration() -> None:
    """The configuration of the compose file and the rules that it names are valid."""
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", PROMETHEUS / "alerts.yml")


def test_every_rule_fires_in_trouble_and_is_quiet_otherwise() -> None:
    """Each rule fires on the series of the first case with the words it should say, and on none of the second."""
    names = re.findall(r"- alert: (\w+)", RULES)
    assert len(names) == len(set(names)) >= 9
    assert all(len(re.findall(rf"alertname: {name}\b", CASES)) == 2 for name in names)
    promtool("test", "rules", PROMETHEUS / "alerts.test.yml")


@pytest.mark.parametrize(("limit", "changed"), [("> 900", "> 9000"), ("> 50", "> 90"), ('"unpriced"', '"priced"')])
def test_the_cases_would_notice_a_wrong_rule(limit: str, changed: str) -> None:
    """With another limit or label in a rule, its cases fail."""
    assert limit in RULES
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "alerts.yml").write_text(RULES.replace(limit, changed))
        Path(folder, "alerts.test.yml").write_text(CASES)
        with pytest.raises(AssertionError, match="FAILED"):
            promtool("test", "rules", Path(folder, "alerts.test.yml"))
