"""Growth, from few flows to many.

The same work on tables of every size, in as many zones; the hash table keeps its size. "zone" is a
flush of one of the zones, which grows with the table.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Callable

from bench.measure import Series, Spread, Tool, in_turn
from bench.report import Picture, Section, times_text

if TYPE_CHECKING:
    from bench.run import Bench

FLUSHES = ("zone: bare C loop", "zone: kernel's own flush", "zone: nlct")


def run(bench: Bench, section: Section) -> None:
    """Each size with all of the work."""
    scale = bench.scale
    sizes: dict[int, Series] = {}
    for flows in scale.growth:
        bench.lab.even(flows, scale.zones)
        tools = _tools(bench, flows)
        limit = scale.budget
        series = in_turn(tools, scale.few, limit=limit, least=2)
        bench.lab.even(0, 1)
        series.times.update(in_turn(_creating(bench, flows), min(scale.few, 3)).times)
        sizes[flows] = series
    names = list(sizes[scale.growth[0]].times)
    section.table(
        "Milliseconds, median (quartiles)",
        ["work", *(f"{flows:,} flows" for flows in sizes)],
        [[name, *(times_text(each.values(name)) for each in sizes.values())] for name in names],
    )
    for name, title, wanted in (
        ("growth-zone", "Flush of one zone", [work for work in names if work in FLUSHES]),
        ("growth-table", "Work on the table", [work for work in names if work not in FLUSHES]),
    ):
        chosen = {work: _points(sizes, work) for work in wanted}
        data = {"lines": chosen, "x": "flows in the table", "y": "ms"}
        section.pictures.append(Picture(name, title, "lines", data))


def _points(sizes: dict[int, Series], work: str) -> list[tuple[float, ...]]:
    return [
        (flows, *(1e3 * at for at in (spread.low, spread.median, spread.high)))
        for flows, series in sizes.items()
        for spread in [Spread.of(series.values(work))]
    ]


def _tools(bench: Bench, flows: int) -> list[Tool]:
    zone = min(7, bench.scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["nlct"]
    step = max(1, flows // 100)

    def back() -> None:
        bench.lab.put_back(zone)

    whole: dict[str, Callable[[], float]] = {
        "dump: bare C loop": partial(floor.run, "dump"),
        "table(): nlct": partial(ours.run, "table"),
        'count_by("zone"): nlct': partial(ours.run, "count_by", "zone"),
        "loop over dump(): nlct": partial(ours.run, "loop"),
        "dump_text(): nlct": partial(ours.run, "text", "/dev/null"),
    }
    tools = [
        Tool(FLUSHES[0], partial(floor.run, "zone_dump", zone)),
        *(
            Tool(FLUSHES[1], partial(kernel.run, "flush_zone", zone), after=back)
            for kernel in bench.able("flush_zone", "kernel")
        ),
        Tool(FLUSHES[2], partial(ours.run, "flush_zone", zone), after=back),
        *(Tool(name, work) for name, work in whole.items()),
        Tool(
            "delete of 100 addresses: nlct",
            partial(ours.run, "delete", 0, step, 100),
            after=bench.lab.fill_up,
        ),
    ]
    for peer in bench.able("dump", "conntrack"):
        budget = bench.scale.budget / 4
        tools.append(Tool("dump: conntrack", partial(peer.run, "dump"), budget=budget))
    return tools


def _creating(bench: Bench, flows: int) -> list[Tool]:
    return [
        Tool(
            f"create: {peer.name}",
            partial(peer.run, "create", flows, bench.scale.zones),
            after=bench.lab.ct.flush_all,
        )
        for peer in bench.able("create", "floor", "nlct")
    ]
