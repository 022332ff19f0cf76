"""Dumps.

The whole table, then one zone of it, in the shapes that each tool gives: nothing (the bare C
loop), columns, counts, objects, text to nowhere. "loop" reads two fields and the zone of each flow
of dump(). The table() to pyarrow is what pyarrow.table() takes beyond table(). pyroute2's dump is
iterated and nothing of it is looked at.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.measure import Tool, in_turn
from bench.report import Section

if TYPE_CHECKING:
    from bench.run import Bench

OURS = {
    "nlct table()": ("table",),
    'nlct count_by("zone")': ("count_by", "zone"),
    "nlct batches()": ("batches",),
    "nlct dump()": ("dump",),
    "nlct loop over dump()": ("loop",),
}


def run(bench: Bench, section: Section) -> None:
    """The whole table, a zone."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["nlct"]
    tools = [Tool(floor.name, partial(floor.run, "dump"))]
    tools += [Tool(name, partial(ours.run, *words)) for name, words in OURS.items()]
    tools += [
        Tool(peer.name, partial(peer.run, "dump"), budget=scale.budget)
        for peer in bench.able("dump", "nfct", "conntrack", "ovs", "pyroute2")
    ]
    series = in_turn(tools, scale.few)
    section.times(f"All of {scale.flows:,} flows", series, floor.name)
    table, loop = "nlct table()", "nlct loop over dump()"
    section.ratio("dump/table-floor", series, table, floor.name)
    section.ratio("dump/count-floor", series, 'nlct count_by("zone")', floor.name)
    section.ratio("dump/loop-floor", series, loop, floor.name)
    section.ratio("dump/table-pyroute2", series, "pyroute2", table)
    section.ratio("dump/loop-pyroute2", series, "pyroute2", loop)
    _arrow(bench, section)
    _zone(bench, section)


def _arrow(bench: Bench, section: Section) -> None:
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ImportError:
        section.notes.append("Left out: table() to pyarrow, which is not installed.")
        return
    ours = bench.peers["nlct"]
    tools = [
        Tool("pyarrow.table(), beyond table()", partial(ours.run, "arrow")),
        Tool("table()", partial(ours.run, "table")),
    ]
    series = in_turn(tools, bench.scale.few)
    section.times("To Arrow", series, "table()")
    section.ratio("dump/arrow", series, tools[0].name, "table()")


def _zone(bench: Bench, section: Section) -> None:
    scale = bench.scale
    zone = min(7, scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["nlct"]
    tools = [
        Tool(floor.name, partial(floor.run, "zone_dump", zone)),
        Tool("nlct table(zone=)", partial(ours.run, "zone_table", zone)),
        Tool("nlct dump(zone=)", partial(ours.run, "zone_loop", zone)),
    ]
    tools += [
        Tool(peer.name, partial(peer.run, "zone_dump", zone), budget=scale.budget)
        for peer in bench.able("zone_dump", "conntrack", "ovs")
    ]
    series = in_turn(tools, min(scale.samples, 25), limit=scale.limit)
    each = scale.flows // scale.zones
    section.times(f"A zone of {each:,} of {scale.flows:,} flows", series, floor.name)
