"""Small charts as SVG text: columns, a step line, a lying stack, a line of tiny columns.

Each fills whatever box it is put into, so it has no text inside, which would be stretched; hovering shows a value. Colours are
classes for the page's style sheet. Labels are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

HEIGHT = 100.0


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 … at or above `value`, so that an axis ends at a round figure; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10, 20) if power * step >= value)


def column_chart(
    series: Sequence[tuple[str, Sequence[float]]], labels: Sequence[str], most: float, title: str
) -> str:  # fmt: skip
    """Columns, the series (class, values) stacked from the bottom; `most` is the value of the full height."""
    shapes = [_grid(len(labels))]
    for at, label in enumerate(labels):
        base = HEIGHT
        for css, values in series:
            tall = HEIGHT * max(0.0, values[at]) / most
            if tall:
                base -= tall
                shapes.append(
                    f'<rect class="{css}" x="{at + 0.08:.2f}" y="{base:.2f}" width="0.84" height="{tall:.2f}"/>'
                )
        shapes.append(_hover(at, label))
    return _svg(len(labels), title, shapes)


def step_line(values: Sequence[float | None], labels: Sequence[str], most: float, title: str) -> str:
    """A line that is flat within each step, with a gap where there is no value."""
    return step_lines([("", values)], labels, most, title)


def step_lines(
    series: Sequence[tuple[str, Sequence[float | None]]], labels: Sequence[str], most: float, title: str
) -> str:  # fmt: skip
    """Lines of several series (class, values), each flat within a step, with a gap where there is no value."""
    shapes = [_grid(len(labels))]
    shapes += [f'<path class="line {css}" d="{_path(values, most)}"/>' for css, values in series]
    shapes += [_hover(at, label) for at, label in enumerate(labels)]
    return _svg(len(labels), title, shapes)


def _path(values: Sequence[float | None], most: float) -> str:
    path: list[str] = []
    drawing = False
    for at, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        level = f"{HEIGHT - HEIGHT * value / most:.2f}"
        path.append(f"V{level}H{at + 1}" if drawing else f"M{at} {level}H{at + 1}")
        drawing = True
    return "".join(path)


def bars(rows: Sequence[Sequence[tuple[str, float, float, str]]], width: float, title: str) -> str:
    """A row of lying bars (class, from, to, label) for each of `rows`, on one common axis of this width; a short bar still shows."""
    tall = HEIGHT / max(len(rows), 1)
    shapes = []
    for at, row in enumerate(rows):
        shapes.append(f'<path class="grid" d="M0 {at * tall:.2f}H{width}"/>')
        for css, begin, end, label in row:
            shapes.append(
                f'<rect class="{css}" x="{begin:.2f}" y="{(at + 0.15) * tall:.2f}" width="{max(end - begin, width / 300):.2f}" '
                f'height="{0.7 * tall:.2f}"><title>{escape(label)}</title></rect>'
            )
    return _svg(width, title, shapes)


def stack(parts: Sequence[tuple[str, float, str]], title: str) -> str:
    """One lying bar of parts (class, value, label) side by side."""
    whole = sum(value for _, value, _ in parts) or 1.0
    shapes, left = [], 0.0
    for css, value, label in parts:
        wide = 100 * value / whole
        shapes.append(
            f'<rect class="{css}" x="{left:.3f}" y="0" width="{wide:.3f}" height="{HEIGHT:.0f}"><title>{escape(label)}</title></rect>'
        )
        left += wide
    return _svg(100, title, shapes, css="stack")


def tiny_columns(values: Sequence[float], title: str) -> str:
    """A word-sized trend, scaled to its own highest value."""
    most = max(values, default=0) or 1
    shapes = [
        f'<rect class="main" x="{at}" y="{HEIGHT - HEIGHT * value / most:.1f}" width="0.8" height="{HEIGHT * value / most:.1f}"/>'
        for at, value in enumerate(values)
        if value > 0
    ]
    return _svg(len(values), title, shapes, css="tiny")


def _svg(width: float, title: str, shapes: list[str], css: str = "chart") -> str:
    return (
        f'<svg class="{css}" viewBox="0 0 {max(width, 1)} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{"".join(shapes)}</svg>'
    )


def _grid(width: int) -> str:
    return "".join(f'<path class="grid" d="M0 {level}H{width}"/>' for level in (0, 50, 100))


def _hover(at: int, label: str) -> str:
    return f'<rect class="hover" x="{at}" y="0" width="1" height="{HEIGHT:.0f}"><title>{escape(label)}</title></rect>'
