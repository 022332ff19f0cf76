"""What is asked of the figures: the one place where the targets stand.

A target never decides more than a word in the report.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench.results import BETTER, Group, Spread, matching, seconds_text


class Figure(NamedTuple):
    """What was measured beside a target."""

    says: str
    target: str
    value: str
    detail: str
    missed: bool


@dataclass(frozen=True)
class Target:
    """A bound for the ratio of the times of two contenders, in pairs; of several groups the worst.

    ``groups``: the pattern of their names. ``unit``: " ms" for the difference in place of the
    ratio. ``note``: the name of a note of the first contender that is bound instead. ``grace``: a
    time that is greater by no more than so many seconds is within the bound.
    """

    groups: str
    of: str
    to: str = ""
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""
    note: str = ""
    grace: float = 0

    def figure(self, found: dict[str, Group]) -> Figure | None:
        """Return what was measured, None where nothing was."""
        values = [(self._value(group), group) for group in matching(found, self.groups)]
        there = [(value, group) for value, group in values if value]
        if not there:
            return None
        value, group = max(there, key=lambda each: self._badness(*each))
        low = self.at_most is None
        return Figure(
            says=f"{self.groups}: {self.of}" + f" to {self.to}" * bool(self.to),
            target=f"{'at least' if low else 'at most'} {self._bound:g}{self.unit}",
            value=f"{value}{self.unit}",
            missed=self._badness(value, group)[0],
            detail=self._detail(group) + f" ({group.name})" * (len(there) > 1),
        )

    @property
    def _bound(self) -> float:
        return (self.at_least if self.at_most is None else self.at_most) or 0

    def _value(self, group: Group) -> Spread | None:
        if self.note:
            notes = group.extra(self.of, self.note)
            return Spread.of(notes) if notes else None
        if self.unit:
            pairs = group.pairs(self.of, self.to)
            return Spread.of([1e3 * (ours - theirs) for ours, theirs in pairs]) if pairs else None
        return group.ratio(self.of, self.to)

    def _badness(self, value: Spread, group: Group) -> tuple[bool, float]:
        """Tell if a bound is missed, and by how much."""
        over = self._bound - value.median if self.at_most is None else value.median - self._bound
        within = self.grace and (
            statistics.median(ours - theirs for ours, theirs in group.pairs(self.of, self.to))
            <= self.grace
        )
        return over > 0 and not within, over

    def _detail(self, group: Group) -> str:
        if not self.to:
            return ""
        pairs = group.pairs(self.of, self.to)
        ours, theirs = (statistics.median(side) for side in zip(*pairs))
        return f"{seconds_text(ours)} to {seconds_text(theirs)}, {len(pairs)} pairs"


TARGETS = (
    Target("zone some", "nlct", "kernel", at_most=0.5),
    Target("zone some", "nlct", "ovs", at_most=0.5),
    Target("zone some", "nlct", "floor", at_most=1.1),
    Target("zone empty", "nlct", "kernel", at_most=0.5),
    Target("zone empty", "nlct", "ovs", at_most=0.5),
    Target("old_kernel some", "nlct-on-old-kernel", "ovs-on-old-kernel", at_most=0.80),
    Target("old_kernel some", "nlct-on-old-kernel", "floor", at_most=1.08),
    Target("shares *", "nlct.auto", BETTER, at_most=1.3),
    Target("grid *", "nlct.auto", BETTER, at_most=1.3),
    Target("grid *", "nlct.first", BETTER, at_most=2, grace=0.02),
    Target("several *", "nlct.auto", BETTER, at_most=1.3),
    Target("storm 200", "nlct", "kernel", at_most=0.03),
    Target("storm 200", "nlct", "ovs", at_most=0.03),
    Target("storm_on_old_kernel 200", "nlct-on-old-kernel", "ovs-on-old-kernel", at_most=0.01),
    Target("dump", "nlct.table", "floor", at_most=1.20),
    Target("dump", "nlct.count_by", "floor", at_most=1.05),
    Target("dump", "nlct.loop", "floor", at_most=3),
    Target("dump", "pyroute2", "nlct.table", at_least=50),
    Target("dump", "pyroute2", "nlct.loop", at_least=20),
    Target("arrow", "nlct.arrow", "nlct.table", at_most=0.10),
    Target("text", "conntrack", "nlct-command", at_least=1.5),
    Target("delete 10000", "nlct", "floor", at_most=1.3),
    Target("create", "nlct", "floor", at_most=1.3),
    Target("memory *", "nlct.batches", at_most=16, unit=" MiB", note="added_mib"),
    *(
        Target("memory *", f"nlct.{stream}", at_most=4, unit=" MiB", note="added_mib")
        for stream in ("dump", "text", "count_by", "scan")
    ),
    Target("memory *", "nlct.table", at_most=160, unit=" bytes", note="bytes_per_flow"),
    Target("import", "nlct-command", "python", at_most=30, unit=" ms"),
    Target("import", "nlct-command", "python.needs", at_most=1.5),
    Target("command *", "nlct-command", "python", at_most=1.4),
)
# Of every case, where another checkout of nlct is measured beside this one.
TO_OLD = 1.03


def figures(found: dict[str, Group]) -> Iterator[Figure]:
    """Yield what was measured beside each target, as far as it was."""
    olds = (
        Target(group.name, contender[: -len("@old")], contender, at_most=TO_OLD)
        for group in found.values()
        for contender in group.entries
        # One pair says nothing.
        if contender.endswith("@old") and len(group.times(contender)) > 1
    )
    for target in (*TARGETS, *olds):
        figure = target.figure(found)
        if figure:
            yield figure
