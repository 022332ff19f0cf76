"""Flush of a zone.

One zone of a large table, and one that holds nothing. The bare C loop receives what the kernel
sends for that zone and deletes nothing: the floor of any flush by scanning. nlct chooses its way
by itself. Left out: pyroute2, which has no flush of a zone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from bench.measure import Tool, in_turn
from bench.report import Section

if TYPE_CHECKING:
    from bench.peers import Peer
    from bench.run import Bench

KERNEL = "kernel's own flush"


def run(bench: Bench, section: Section) -> None:
    """A zone with flows, then one without."""
    scale = bench.scale
    bench.lab.even(scale.flows, scale.zones)
    each = scale.flows // scale.zones
    for key, zone, what in (
        ("zone", min(7, scale.zones), f"A zone of {each:,} of {scale.flows:,} flows"),
        ("empty", scale.zones + 1, f"An empty zone beside {scale.flows:,} flows"),
    ):
        series = in_turn(_tools(bench, zone), scale.samples, limit=scale.limit)
        section.times(what, series, KERNEL)
        section.ratio(f"{key}/kernel", series, "nlct", KERNEL)
        section.ratio(f"{key}/ovs", series, "nlct", "Open vSwitch")
        if key == "zone":
            section.ratio("zone/floor", series, "nlct", "bare C loop")


def _tools(bench: Bench, zone: int) -> list[Tool]:
    floor = bench.peers["floor"]
    tools = [Tool(floor.name, partial(floor.run, "zone_dump", zone))]
    for peer in bench.able("flush_zone", "kernel", "nlct", "ovs"):
        tools.append(flushing(bench, peer, zone))
    for peer in bench.able("flush_zone", "nfct", "conntrack"):
        tools.append(flushing(bench, peer, zone, bench.scale.budget))
    return tools


def flushing(bench: Bench, peer: Peer, zone: int, budget: float = math.inf) -> Tool:
    """A tool that flushes a zone, which is put back afterwards."""
    return Tool(
        peer.name,
        partial(peer.run, "flush_zone", zone),
        after=lambda: bench.lab.put_back(zone),
        budget=budget,
    )
