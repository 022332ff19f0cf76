"""The choice of the way, whatever the table's shape.

The same with few and many flows in small and large hash tables: what "auto" takes, to the better
of scan and kernel in each round. The size of the hash table is the whole machine's; it is put back.
Where the chains would be longer than the kernel allows, the flows do not fit and the row is left
out, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench import machine
from bench.cases.shares import BETTER, by_share, summary
from bench.lab import NoRoomError
from bench.measure import Spread
from bench.report import Picture, Section, number

if TYPE_CHECKING:
    from bench.run import Bench


class Worst(NamedTuple):
    """The row and column where "auto" does worst."""

    spread: Spread
    where: str


def run(bench: Bench, section: Section) -> None:
    """Every size of the hash table, with every number of flows."""
    scale = bench.scale
    before = int(machine.BUCKETS.read_text())
    rows: dict[str, list[float]] = {}
    worst = Worst(Spread(0, 0, 0, 0), "")
    try:
        for buckets in scale.grid_buckets or (before,):
            # Resized while it is empty, which is quick.
            bench.lab.ct.flush_all()
            machine.set_to(machine.BUCKETS, buckets)
            for flows in scale.grid_flows:
                name = f"{flows:,} / {buckets:,}"
                try:
                    rows[name], worst = _row(bench, name, flows, worst)
                except NoRoomError as exc:
                    section.notes.append(f"Left out: {name}: {exc}.")
    finally:
        machine.set_to(machine.BUCKETS, before)
    if not rows:
        return
    _show(section, [f"{share:g} %" for share in scale.shares], rows)
    section.figure("grid/better", worst.spread.median, worst.where)
    section.figures["grid/better"].quartiles = (worst.spread.low, worst.spread.high)


def _row(bench: Bench, name: str, flows: int, worst: Worst) -> tuple[list[float], Worst]:
    scale = bench.scale
    row = []
    limit = scale.grid_limit / len(scale.shares)
    for share, (series, used) in by_share(bench, flows, scale.few, limit):
        spread = Spread.of(series.ratios("auto", BETTER))
        row.append(spread.median)
        if spread.median > worst.spread.median:
            worst = Worst(spread, f"{name}, {share:g} %: {summary(series)}; auto took {used}")
    return row, worst


def _show(section: Section, columns: list[str], rows: dict[str, list[float]]) -> None:
    section.table(
        'Time of "auto" to the better of both, median of rounds, by share of the zone',
        ["flows / buckets", *columns],
        [[name, *map(number, row)] for name, row in rows.items()],
    )
    data = {
        "values": list(rows.values()),
        "rows": list(rows),
        "columns": columns,
        "x": "zone's share",
    }
    title = '"auto" to the better of scan and kernel'
    section.pictures.append(Picture("grid", title, "heat", data))
