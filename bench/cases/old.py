"""Flush of a zone as on an old kernel.

The same where the kernel ignores the zone of a dump, so that the whole table comes, and cannot be
trusted with a zone flush. nlct is told not to ask the kernel for a filter. Open vSwitch is made to
believe that it runs on Linux 6.1, and the zone is taken out of its requests (bench/c/old.c); it
then deletes in a loop over the whole dump. conntrack and libnetfilter_conntrack never ask for a
zone, so what stands above holds for them here. The bare C loop receives the whole table and deletes
nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.cases.zone import flushing
from bench.measure import Tool, in_turn
from bench.report import Section

if TYPE_CHECKING:
    from bench.run import Bench

OVS = "Open vSwitch as on an old kernel"


def run(bench: Bench, section: Section) -> None:
    """A zone with flows, then one without."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    floor, ours = bench.peers["floor"], bench.peers["old"]
    each = scale.flows // scale.zones
    zone = f"A zone of {each:,} of {scale.flows:,} flows"
    empty = f"An empty zone beside {scale.flows:,} flows"
    for key, number, what, limit in (
        ("old", min(7, scale.zones), zone, scale.limit),
        ("empty", scale.zones + 1, empty, scale.limit / 4),
    ):
        tools = [Tool(floor.name, partial(floor.run, "dump")), flushing(bench, ours, number)]
        for peer in bench.able("flush_zone", "ovs-old"):
            tools.append(flushing(bench, peer, number))
        series = in_turn(tools, scale.samples, limit=limit)
        section.times(what, series, floor.name)
        if key == "old":
            section.ratio("old/floor", series, ours.name, floor.name)
            section.ratio("old/ovs", series, ours.name, OVS)
