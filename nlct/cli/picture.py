"""The demo's figures as a picture."""

from __future__ import annotations

import importlib
from math import ceil, floor, log10
from typing import Any

from nlct.cli.app import Failure
from nlct.cli.demo import Figures, Report
from nlct.cli.output import flows_word

NAMES = {
    "auto": "auto",
    "scan": "scan",
    "kernel": "kernel",
    "old": "scan, old kernel",
    "mirror": "mirror",
}


def pygal() -> Any:
    """Import what draws; fail if it is missing."""
    try:
        return importlib.import_module("pygal")
    except ImportError as exc:
        raise Failure("no module 'pygal'; --picture needs: pip install 'nlct[picture]'") from exc


def svg(report: Report) -> bytes:
    """Draw the medians of each way to flush a zone, as an SVG that needs nothing else.

    The scale is logarithmic: a mirror may be a thousand times as fast as the rest.
    """
    cases = (report.zone, report.empty_zone)
    names = [name for name in NAMES if name in report.zone.times]
    medians = {_title(case): [case.times[name].median for name in names] for case in cases}
    every = [median for row in medians.values() for median in row]
    # Powers of ten, from below the lowest bar to above the highest.
    powers = range(floor(log10(min(every)) - 0.2), ceil(log10(max(every)) + 0.2) + 1)
    chart = pygal().Bar(
        title="Milliseconds to flush a zone: medians\n"
        f"{flows_word(report.flows)} in {report.zones:,} zones, Linux {report.kernel}",
        logarithmic=True,
        zero=10.0 ** powers[0],
        range=(10.0 ** powers[0], 10.0 ** powers[-1]),
        y_labels=[10.0**power for power in powers],
        print_values=True,
        print_values_position="top",
        formatter=in_short,
        legend_at_bottom=True,
        # Scripts would be loaded from elsewhere.
        js=[],
    )
    chart.x_labels = [NAMES[name] for name in names]
    for title, row in medians.items():
        chart.add(title, row)
    drawn: bytes = chart.render()
    return drawn


def in_short(milliseconds: float) -> str:
    """Return a time in three digits, or in whole milliseconds if these are more."""
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _title(case: Figures) -> str:
    return f"a zone of {flows_word(case.zone_flows)}" if case.zone_flows else "an empty zone"
