"""Storms: many zones at once.

As many callers as zones, each in a thread of its own asking for one zone, all at the same moment:
nlct.Flusher, from that moment until the last of them has its answer. Beside it the same zones one
after another, by those who have nothing else. What would take longer than a sample may is left
out by name, with what one zone took.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bench.measure import Series, Spread, Tool, in_turn, nothing
from bench.peers import Peer
from bench.report import Picture, Section

if TYPE_CHECKING:
    from bench.run import Bench

KERNEL = "kernel's own flush, one after another"
OVS = "Open vSwitch, one after another"
OVS_OLD = "Open vSwitch as on an old kernel, one after another"
FLOOR = "bare C loop over the whole table, one after another"


class Other(NamedTuple):
    """Who flushes one zone after another. ``receives``: or only receives the table each time."""

    name: str
    peer: Peer
    receives: bool = False

    def work(self, zones: int) -> float:
        """Flush zones 1 to ``zones``."""
        if self.receives:
            return math.fsum(self.peer.run("dump") for _ in range(zones))
        return math.fsum(self.peer.run("flush_zone", zone) for zone in range(1, zones + 1))


def run(bench: Bench, section: Section) -> None:
    """Storms of every size, then the same as on an old kernel."""
    bench.lab.even(bench.scale.flows, bench.scale.zones)
    others = [
        Other(name, bench.peers[key])
        for key, name in (
            ("kernel", KERNEL),
            ("ovs", OVS),
            ("conntrack", "conntrack, one after another"),
        )
        if key in bench.peers
    ]
    ours = bench.peers["nlct"]
    series = _storms(bench, section, ours, others, "Storms", bench.scale.patience)
    section.ratio("storm/kernel", series, ours.name, KERNEL)
    section.ratio("storm/ovs", series, ours.name, OVS)
    # Without Open vSwitch the least that any loop over the table costs stands in.
    last = Other(FLOOR, bench.peers["floor"], receives=True)
    if "ovs-old" in bench.peers:
        last = Other(OVS_OLD, bench.peers["ovs-old"])
    ours = bench.peers["old"]
    series = _storms(
        bench, section, ours, [last], "Storms as on an old kernel", bench.scale.old_patience
    )
    section.ratio("storm/ovs-old", series, ours.name, OVS_OLD)


def _storms(
    bench: Bench, section: Section, ours: Peer, others: Sequence[Other], title: str, patience: float
) -> Series:
    """Measure every size; return the one that has targets."""
    scale = bench.scale
    found: dict[int, Series] = {}
    for zones in (size for size in scale.storms if size <= scale.zones):
        back = partial(bench.lab.put_back, *range(1, zones + 1))
        tools = [Tool(ours.name, partial(ours.run, "storm", 1, zones), after=back)]
        for other in others:
            if _fits(bench, section, other, zones, patience):
                after = nothing if other.receives else back
                tools.append(Tool(other.name, partial(other.work, zones), after=after))
        # What has targets is worth another pair.
        limit = scale.patience if zones == scale.target_storm else scale.budget
        found[zones] = in_turn(tools, scale.few, limit=limit)
        section.times(f"{title}, zones: {zones}", found[zones], others[0].name)
        # One picture tells of all sizes.
        section.pictures.pop()
    section.pictures.append(_picture(f"storm-{len(section.pictures) + 1}", title, found))
    return found.get(scale.target_storm, Series())


def _fits(bench: Bench, section: Section, other: Other, zones: int, patience: float) -> bool:
    """Tell if there is time for so many; try it with one."""
    one = other.work(1)
    if not other.receives:
        bench.lab.put_back(1)
    if one * zones > patience:
        section.notes.append(f"Left out: {zones} zones, {other.name}: {one:.2f} s for one.")
    return one * zones <= patience


def _picture(name: str, title: str, found: dict[int, Series]) -> Picture:
    lines: dict[str, list[tuple[float, ...]]] = {}
    for zones, series in found.items():
        for tool in series.times:
            spread = Spread.of(series.values(tool))
            lines.setdefault(tool, []).append((zones, spread.low, spread.median, spread.high))
    return Picture(name, title, "lines", {"lines": lines, "x": "zones", "y": "seconds"})
