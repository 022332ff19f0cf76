"""The targets, all in one place.

A target decides only about a word in the report.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from bench.results import BETTER, Group, Spread


class Figure(NamedTuple):
    """What was measured beside a target."""

    says: str
    target: str
    value: str
    detail: str
    missed: bool


@dataclass(frozen=True)
class Target:
    """A bound for the ratio of two contenders' times, in pairs; the worst of several groups counts.

    ``groups``: the pattern of their names. ``unit``: " ms" bounds the difference, not the ratio.
    ``note``: the name of a note of the first contender to bound instead. ``grace``: a time that is
    greater by no more than so many seconds is within the bound.
    """

    groups: str
    of: str
    to: str = ""
    at_most: float = 1
    unit: str = ""
    note: str = ""
    grace: float = 0

    def figure(self, found: dict[str, Group]) -> Figure | None:
        """Return what was measured; None if nothing was."""
        values = [
            (self._value(group), group)
            for name, group in found.items()
            if fnmatchcase(name, self.groups)
        ]
        there = [(self._misses(value, group), value, group) for value, group in values if value]
        if not there:
            return None
        missed, value, group = max(there, key=lambda each: (each[0], each[1].median))
        says = f"{self.groups}: {self.of}" + f" to {self.to}" * bool(self.to)
        detail = f"{value.count} pairs" * bool(self.to) + f" of {group.name}" * (len(there) > 1)
        return Figure(says, f"{self.at_most:g}{self.unit}", f"{value}{self.unit}", detail, missed)

    def _value(self, group: Group) -> Spread | None:
        pairs = group.pairs(self.of, self.to)
        values = [ours / theirs for ours, theirs in pairs]
        if self.note:
            values = group.extra(self.of, self.note)
        elif self.unit:
            values = [1e3 * (ours - theirs) for ours, theirs in pairs]
        return Spread.of(values) if values else None

    def _misses(self, value: Spread, group: Group) -> bool:
        if value.median <= self.at_most or not self.grace:
            return value.median > self.at_most
        pairs = group.pairs(self.of, self.to)
        return statistics.median(ours - theirs for ours, theirs in pairs) > self.grace


TARGETS = (
    Target("zone some", "nlct", "kernel", 0.5),
    Target("zone some", "nlct", "ovs", 0.5),
    Target("zone some", "nlct", "floor", 1.1),
    Target("zone empty", "nlct", "kernel", 0.5),
    Target("zone empty", "nlct", "ovs", 0.5),
    Target("old_kernel some", "nlct-on-old-kernel", "ovs-on-old-kernel", 0.80),
    Target("old_kernel some", "nlct-on-old-kernel", "floor", 1.08),
    Target("shares *", "nlct.auto", BETTER, 1.3),
    Target("grid *", "nlct.auto", BETTER, 1.3),
    Target("grid *", "nlct.first", BETTER, 2, grace=0.02),
    Target("several *", "nlct.auto", BETTER, 1.3),
    Target("storm 200", "nlct", "kernel", 0.03),
    Target("storm 200", "nlct", "ovs", 0.03),
    Target("storm_on_old_kernel 200", "nlct-on-old-kernel", "ovs-on-old-kernel", 0.01),
    Target("dump", "nlct.table", "floor", 1.20),
    Target("dump", "nlct.count_by", "floor", 1.05),
    Target("dump", "nlct.loop", "floor", 3),
    Target("groups", "nlct.count_by", "floor", 1.10),
    Target("groups", "nlct.sum_by", "floor", 1.10),
    Target("dump", "nlct.table", "pyroute2", 1 / 50),
    Target("dump", "nlct.loop", "pyroute2", 1 / 20),
    Target("arrow", "nlct.arrow", "nlct.table", 0.10),
    Target("text", "nlct-command", "conntrack", 1 / 1.5),
    Target("formats", "nlct-command.json", "nlct-command", 2),
    Target("formats", "nlct-command.columns", "nlct-command", 1.5),
    Target("formats", "nlct-command.parquet", "nlct-command", 1.6),
    Target("delete 10000", "nlct", "floor", 1.3),
    Target("flows 200", "nlct", "floor", 1.5),
    Target("update *", "nlct", "floor", 1.3),
    Target("create", "nlct", "floor", 1.3),
    Target("load", "nlct-command", "conntrack", 1),
    Target("mirror_flush some", "nlct", "floor", 1.2),
    Target("mirror_flush some", "nlct", "kernel", 0.03),
    Target("mirror_flush some", "nlct", "loop-on-old-kernel", 0.006),
    Target("mirror_flush empty", "nlct", "kernel", 0.001),
    Target("mirror_storm 200", "nlct", "floor", 1.3),
    Target("mirror_storm 200", "nlct", "kernel", 0.025),
    Target("mirror_delete", "nlct", "conntrack", 0.002),
    Target("mirror_count", "nlct.mirror", "nlct.walk", 0.001),
    Target("mirror_memory", "nlct.zone", at_most=96, unit=" bytes", note="most_per_flow"),
    Target("mirror_memory", "nlct.address", at_most=180, unit=" bytes", note="most_per_flow"),
    Target("mirror_start", "nlct.zone", "floor", 1.3),
    Target("mirror_events *", "nlct", "listener", 2),
    Target("mirror_audit", "nlct", at_most=1, unit=" %", note="percent"),
    Target("events *", "nlct.loop", "listener", 2.5),
    Target("memory *", "nlct.batches", at_most=16, unit=" MiB", note="added_mib"),
    *(
        Target("memory *", f"nlct.{stream}", at_most=4, unit=" MiB", note="added_mib")
        for stream in ("dump", "text", "count_by", "scan")
    ),
    Target("memory *", "nlct.table", at_most=160, unit=" bytes", note="bytes_per_flow"),
    Target("scrape *", "exporter.full", "exporter.empty", 1.5),
    Target("import", "nlct-command", "python", 30, unit=" ms"),
    Target("import", "nlct-command", "python.needs", 1.5),
    Target("command *", "nlct-command", "python", 1.4),
)
# For every case, if another checkout of nlct is measured beside this one.
TO_OLD = 1.03


def figures(found: dict[str, Group]) -> Iterator[Figure]:
    """Yield what was measured beside each target, if anything was."""
    olds = (
        Target(group.name, contender[: -len("@old")], contender, TO_OLD)
        for group in found.values()
        for contender in group.entries
        # One pair says nothing.
        if contender.endswith("@old") and len(group.times(contender)) > 1
    )
    for target in (*TARGETS, *olds):
        figure = target.figure(found)
        if figure:
            yield figure
