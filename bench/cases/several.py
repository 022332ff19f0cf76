"""Several zones in one call.

flush_zones() of more and more zones, in each of nlct's ways: as it chooses ("auto"), in one scan,
and by a kernel flush for each zone. The better of the last two, round by round, is what "auto"
is held against; where the kernel's flushes would take too long, the scan.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.cases.shares import BETTER, add_better, ways
from bench.measure import Series, Spread, Tool, in_turn
from bench.report import Section, spread_text, times_text

if TYPE_CHECKING:
    from bench.run import Bench

# A kernel flush for each of more than these takes too long.
MOST_BY_KERNEL = 50


def run(bench: Bench, section: Section) -> None:
    """Ever more zones, at last all of them."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    counts = sorted({count for count in (*scale.several, scale.zones) if count <= scale.zones})
    found = {count: _flushes(bench, count) for count in counts}
    rows = []
    for count, series in found.items():
        times = [times_text(series.values(way)) for way in ways(bench)]
        rows.append([f"{count:,}", *times, spread_text(series.ratios("auto", BETTER))])
    section.table(
        f"Of {scale.zones:,} zones with {scale.flows:,} flows, milliseconds, median (quartiles)",
        ["zones", *ways(bench), "auto to the better"],
        rows,
    )
    worst = max(found, key=lambda count: Spread.of(found[count].ratios("auto", BETTER)).median)
    section.ratio("several/better", found[worst], "auto", BETTER)
    section.figures["several/better"].detail += f", {worst:,} zones"


def _flushes(bench: Bench, count: int) -> Series:
    worker = bench.peers["nlct"]
    back = partial(bench.lab.put_back, *range(1, count + 1))
    chosen = [way for way in ways(bench) if way != "kernel" or count <= MOST_BY_KERNEL]
    tools = [
        Tool(way, partial(worker.run, "flush_zones", 1, count, way), after=back) for way in chosen
    ]
    series = in_turn(tools, bench.scale.few, limit=bench.scale.budget / 2, least=2)
    add_better(series, *chosen[1:])
    return series
