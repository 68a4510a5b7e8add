"""The report for programs: JSON with everything, CSV with one line a group."""

from __future__ import annotations

import csv
import io
import json

from cli.report.figures import Report, figures_values


def as_json(report: Report) -> str:
    """The whole report; exact integers, null where nobody knows."""
    return json.dumps(report.values(), indent=2, ensure_ascii=False) + "\n"


def as_csv(report: Report) -> str:
    """A header and one line a group, with an empty field where nobody knows; the first column is called as the dimension."""
    out = io.StringIO()
    columns = list(figures_values(report.total))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([report.by, *columns[1:]])
    for group in report.groups:
        writer.writerow(["" if value is None else value for value in figures_values(group).values()])
    return out.getvalue()
