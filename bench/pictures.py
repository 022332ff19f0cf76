"""Draws bar charts of what RESULTS.md says, for the site: SVG in the colours of the page around it.

    python -m bench.pictures NAME

prints one of PICTURES.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "RESULTS.md"
WIDTH, LABELS, VALUES = 760, 250, 90
STEP, BAR = 30, 18


class Bars(NamedTuple):
    """Bars of one column of a table: the table's section and caption, and who is called what.

    ``part``: which of the figures in a cell, if several stand there with slashes between.
    """

    title: str
    section: str
    caption: str
    column: str
    names: Mapping[str, str]
    unit: str = "ms"
    part: int = 0


_TOOLS = {
    "floor": "bare C loop",
    "nlct": "nlct",
    "kernel": "the kernel's own flush",
    "nfct": "libnetfilter_conntrack",
    "conntrack": "conntrack",
    "pyroute2": "pyroute2",
}
_ZONE = "Flush of a zone with some flows, and of an empty one"
_WAITS = (
    "What a running flush does to others",
    "Waits: median / 99 % / longest of all, microseconds",
    "get",
    {
        "nobody": "nobody flushes",
        "kernel": "the kernel flushes",
        "nlct": "nlct scans",
        "nlct-on-old-kernel": "nlct, as on an old kernel",
    },
)

PICTURES: dict[str, tuple[Bars, ...]] = {
    "flush": (
        Bars(
            "Flush a zone: 1,000 of 500,000 flows",
            "Flush of a zone",
            _ZONE,
            "some",
            _TOOLS,
        ),
        Bars(
            "The same, as on a kernel before 6.8",
            "Flush of a zone",
            "The same as on an old kernel",
            "some",
            {"floor": "bare C loop", "nlct-on-old-kernel": "nlct"},
        ),
        Bars(
            "The same, by a process that keeps a mirror",
            "What a mirror does",
            _ZONE,
            "some",
            {
                "nlct": "nlct's mirror",
                "kernel": "the kernel's own flush",
                "loop-on-old-kernel": "Open vSwitch's loop, in C",
            },
        ),
    ),
    "storm": (
        Bars(
            "Flush 200 zones at once",
            "Storms: many zones at once",
            "Storms, by their zones",
            "200",
            {**_TOOLS, "nlct": "nlct's Flusher", "kernel": "200 kernel flushes"},
        ),
        Bars(
            "The same, by a process that keeps a mirror",
            "What a mirror does",
            "So many zones, each flushed by a thread of its own, all at once",
            "200",
            {"floor": "bare C loop", "nlct": "nlct's mirror", "kernel": "200 kernel flushes"},
        ),
    ),
    "waits": (
        Bars("Look up one flow during a flush, median", *_WAITS, unit="µs"),
        Bars("The same, what one in a hundred exceeds", *_WAITS, unit="µs", part=1),
    ),
    "dump": (
        Bars(
            "Dump 500,000 flows",
            "Dumps",
            "Dump of all flows",
            "",
            {
                **_TOOLS,
                "nlct.table": "nlct: table()",
                "nlct.count_by": "nlct: count_by()",
                "nlct.loop": "nlct: a loop over dump()",
            },
        ),
        Bars(
            "Dump them to a file, as text",
            "Dump to a file: as text, and as the other formats",
            "Dump to a file",
            "",
            {**_TOOLS, "nlct": "nlct: dump_text()", "nlct-command": "nlct dump"},
        ),
    ),
    "create": (
        Bars("Create 500,000 flows", "Create", "Create all flows", "", _TOOLS),
        Bars(
            "Restore them from a file",
            "Restore",
            "Restore all flows",
            "",
            {"nlct-command": "nlct load", "conntrack": "conntrack -R"},
        ),
    ),
    "memory": (
        Bars(
            "Memory that a dump of 500,000 flows adds to a process",
            "Memory",
            "MiB added, by flows in the table",
            "500000",
            {
                "nlct.count_by": "nlct: count_by()",
                "nlct.dump": "nlct: dump()",
                "nlct.text": "nlct: dump_text()",
                "nlct.batches": "nlct: batches()",
                "nlct.table": "nlct: table()",
                "pyroute2": "pyroute2",
            },
            unit="MiB",
        ),
    ),
}


def values(bars: Bars, results: str) -> list[tuple[str, float]]:
    """Return labels and figures, in the order of the table; none for who was not measured."""
    section = results.partition(f"\n## {bars.section}\n")[2].partition("\n## ")[0]
    table = section.partition(f"\n{bars.caption}:\n\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    if not rows:
        raise ValueError(f"RESULTS.md has no table '{bars.caption}' in '{bars.section}'")
    at = rows[0].index(bars.column, 1)
    found = ((row[0], _figure(row[at], bars.part)) for row in rows[2:])
    return [
        (bars.names[who], value) for who, value in found if who in bars.names and value is not None
    ]


def _figure(cell: str, part: int) -> float | None:
    """Read a figure of a cell, which may have a ratio behind it."""
    number = re.match(r"[\d,]*\d(\.\d+)?", cell.split(" / ")[part])
    return float(number[0].replace(",", "")) if number else None


def shown(value: float, unit: str) -> str:
    """Write a figure in about three digits, in the unit that reads best."""
    larger = {"ms": "s", "µs": "ms"}.get(unit)
    if larger and value >= 1000:
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def svg(name: str, results: str) -> str:
    """Return a picture as SVG, with no blank line in it."""
    charts = [(bars, values(bars, results)) for bars in PICTURES[name]]
    height = sum(STEP * (len(each) + 1) + 14 for _, each in charts)
    said = "; ".join(
        f"{bars.title}: " + ", ".join(f"{who} {shown(value, bars.unit)}" for who, value in each)
        for bars, each in charts
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(said)}" font-size="15" fill="currentColor">'
    ]
    top = 0
    for bars, each in charts:
        lines += _chart(bars, each, top)
        top += STEP * (len(each) + 1) + 14
    return "\n".join([*lines, "</svg>"])


def _chart(bars: Bars, each: list[tuple[str, float]], top: int) -> Iterator[str]:
    """Yield a title and its bars, from zero on, each with its figure behind it."""
    largest = max(value for _, value in each)
    room = WIDTH - LABELS - VALUES
    yield f'<text x="0" y="{top + 20}" font-weight="bold">{escape(bars.title)}</text>'
    for number, (who, value) in enumerate(each, 1):
        y = top + STEP * number
        long = max(1.5, room * value / largest)
        ours = who.startswith("nlct")
        color = 'class="ours" fill="#3f6fd8"' if ours else 'opacity="0.4"'
        yield f'<text x="{LABELS - 10}" y="{y + 20}" text-anchor="end">{escape(who)}</text>'
        yield f'<rect x="{LABELS}" y="{y + 6}" width="{long:.1f}" height="{BAR}" {color}/>'
        yield f'<text x="{LABELS + long + 8:.1f}" y="{y + 20}">{shown(value, bars.unit)}</text>'


if __name__ == "__main__":
    print(svg(sys.argv[1], RESULTS.read_text(encoding="utf-8")))
