"""A figure, and how figures are printed: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `spread` are the smallest and the largest of several measurements.

    `aim` is the largest value that the project is content with; `None` where it has no aim.
    """

    bench: str
    name: str
    value: float
    unit: str
    aim: float | None = None
    spread: tuple[float, float] | None = None


def median_figure(
    bench: str, name: str, values: Sequence[float], unit: str, *, aim: float | None = None
) -> Figure:
    """Return the median of several measurements as a figure."""
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Figure(bench, name, statistics.median(values), unit, aim, spread)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as lines of a table."""
    rows = [("bench", "figure", "value", "unit", "from … to", "aim")]
    for one in figures:
        spread = f"{_short(one.spread[0])} … {_short(one.spread[1])}" if one.spread else ""
        aim = "" if one.aim is None else f"≤ {_short(one.aim)} {'met' if one.value <= one.aim else 'MISSED'}"
        rows.append((one.bench, one.name, _short(one.value), one.unit, spread, aim))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(figures: Sequence[Figure], settings: Mapping[str, object]) -> str:
    """Return the figures and what they were measured with; `load` is the machine's after the run."""
    load = [round(average, 2) for average in os.getloadavg()]
    return json.dumps(
        {"settings": dict(settings), "load": load, "figures": [asdict(one) for one in figures]}, indent=1
    )


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
