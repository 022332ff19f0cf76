"""Zones from 0 to 100 % of the table.

Each zone flushed by nlct in each of its ways: as it chooses ("auto"), by scanning, and by the
kernel's own flush. The better of the last two, round by round, is what "auto" is held against; a
scan that takes no longer than 20 ms is the better one, because it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.lab import Even, Shares
from bench.measure import Series, Spread, Tool, in_turn
from bench.peers import Program
from bench.report import Picture, Section, seconds_text, spread_text, times_text

if TYPE_CHECKING:
    from bench.run import Bench

WAYS = ("auto", "scan", "kernel")
BETTER = "the better of scan and kernel"
COUNTED = 0.02


def ways(bench: Bench) -> tuple[str, ...]:
    """Return the ways that this kernel allows."""
    return WAYS if "kernel" in bench.peers else WAYS[:2]


def run(bench: Bench, section: Section) -> None:
    """Every share, in each way."""
    scale = bench.scale
    rows = []
    found = dict(by_share(bench, scale.flows, scale.few, scale.limit / len(scale.shares)))
    for share, (series, used) in found.items():
        times = [times_text(series.values(way)) for way in ways(bench)]
        rows.append([f"{share:g} %", *times, spread_text(series.ratios("auto", BETTER)), used])
    section.table(
        f"{scale.flows:,} flows, milliseconds, median (quartiles)",
        ["zone", *ways(bench), "auto to the better", "auto took"],
        rows,
    )
    worst = max(found, key=lambda share: Spread.of(found[share][0].ratios("auto", BETTER)).median)
    section.ratio("shares/better", found[worst][0], "auto", BETTER)
    section.figures["shares/better"].detail += f", at {worst:g} %"
    lines = {
        way: [
            (share, *(1e3 * at for at in (spread.low, spread.median, spread.high)))
            for share, (series, _) in found.items()
            for spread in [Spread.of(series.values(way))]
        ]
        for way in ways(bench)
    }
    section.pictures.append(
        Picture(
            "shares",
            f"Flush of one zone of a table of {scale.flows:,} flows",
            "lines",
            {"lines": lines, "x": "% of the table", "y": "ms"},
        )
    )


def by_share(
    bench: Bench, flows: int, rounds: int, limit: float
) -> Iterator[tuple[float, tuple[Series, str]]]:
    """Yield for each share the times by way, and what "auto" chose."""
    shares = [share for share in bench.scale.shares if 0 < share < 100]
    bench.lab.hold(Shares(flows, shares))
    for share in bench.scale.shares:
        if share == 100:
            bench.lab.hold(Even(flows, 1))
            zone = 1
        else:
            # One more holds the rest, and the next one nothing.
            zone = shares.index(share) + 1 if share else len(shares) + 2
        yield share, _ways(bench, zone, rounds, limit)


def _ways(bench: Bench, zone: int, rounds: int, limit: float) -> tuple[Series, str]:
    worker = bench.peers["nlct"]
    assert isinstance(worker, Program)
    used: list[str] = []

    def tool(way: str) -> Tool:
        def work() -> float:
            seconds, took = worker.ask("flush_zone", zone, way).split()
            if way == "auto" and took not in used:
                used.append(took)
            return float(seconds)

        return Tool(way, work, after=lambda: bench.lab.put_back(zone))

    series = in_turn([tool(way) for way in ways(bench)], rounds, limit=limit, least=2)
    add_better(series, *ways(bench)[1:])
    return series, ", ".join(used)


def add_better(series: Series, *chosen: str) -> None:
    """Add the better one of some ways in each round."""
    series.best(BETTER, *chosen)
    better, scan = series.times[BETTER], series.times["scan"]
    better.update({n: scan[n] for n in better if scan[n] <= COUNTED})


def summary(series: Series) -> str:
    """The middle time of each way, in few words."""
    return ", ".join(
        f"{way} {seconds_text(series.median(way))}" for way in WAYS if way in series.times
    )
