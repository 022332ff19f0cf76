"""What was measured, as pytest-benchmark's JSON has it: one entry for each contender of a group.

A group is a case at one of its sizes, and shares a table of results. Its contenders are measured in
turn, so times of one round are a pair, and the ratios of pairs count.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlct.cli.measure import summary

# The better of nlct's two ways in each round, to compare its own choice with.
BETTER = "the better of scan and kernel"
SCAN, KERNEL = "nlct.scan", "nlct.kernel"
# A scan that takes no longer than so many seconds is the better way, because it counts.
COUNTED = 0.02


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Make it of at least one value."""
        two = values if len(values) > 1 else [*values, *values]
        low, median, high = statistics.quantiles(two, n=4, method="inclusive")
        return cls(low, median, high, len(values))

    def __str__(self) -> str:
        if self.count < 3:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


@dataclass
class Group:
    """The entries of one group. ``sizes``: its parameters, which its name ends with."""

    name: str
    sizes: tuple[str, ...]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def times(self, contender: str) -> dict[int, float]:
        """Return seconds by round; none if the contender did not take part."""
        if contender == BETTER:
            return self._better()
        entry = self.entries.get(contender)
        return dict(zip(entry["extra_info"]["rounds"], entry["stats"]["data"])) if entry else {}

    def _better(self) -> dict[int, float]:
        scan, kernel = self.times(SCAN), self.times(KERNEL)
        return {
            at: seconds if seconds <= COUNTED else min(seconds, kernel.get(at, seconds))
            for at, seconds in scan.items()
        }

    def pairs(self, one: str, other: str) -> list[tuple[float, float]]:
        """Return the times of the rounds that both took part in."""
        ours, theirs = self.times(one), self.times(other)
        return [(ours[at], theirs[at]) for at in ours if at in theirs]

    def ratio(self, one: str, other: str) -> Spread | None:
        """Return the ratio of one's times to the other's, if both were measured."""
        pairs = self.pairs(one, other)
        return Spread.of([ours / theirs for ours, theirs in pairs]) if pairs else None

    def extra(self, contender: str, key: str) -> list[Any]:
        """Return what else was noted about a contender."""
        return list(self.entries.get(contender, {}).get("extra_info", {}).get(key, ()))


def groups(entries: Iterable[dict[str, Any]]) -> dict[str, Group]:
    """Sort entries into their groups."""
    found: dict[str, Group] = {}
    for entry in entries:
        sizes = tuple(str(v) for k, v in entry["params"].items() if k != "contender")
        group = found.setdefault(entry["group"], Group(entry["group"], sizes))
        group.entries[entry["params"]["contender"]] = entry
    return found


def merge(benchmarks: list[Any]) -> list[Any]:
    """Make one benchmark of the rounds of each contender, for pytest-benchmark's own reports.

    ``benchmarks``: pytest-benchmark's records, one for each round.
    """
    merged: dict[str, Any] = {}
    for bench in (each for each in benchmarks if each and not each.has_error):
        params = {**bench.params}
        at = params.pop("turn_number")
        test = bench.fullname.partition("[")[0]
        name = f"{test}[{'-'.join(map(str, params.values()))}]"
        whole = merged.setdefault(name, bench)
        if whole is bench:
            bench.fullname, bench.params = name, params
            bench.name, bench.param = name.rpartition("::")[2], name.partition("[")[2][:-1]
            bench.extra_info = {"rounds": [], "all": []}
        else:
            whole.stats.data += bench.stats.data
        whole.extra_info["rounds"].append(at)
        whole.extra_info["all"].append(bench.fixture.extra_info)
    for whole in merged.values():
        whole.extra_info.update(_merge_extra(whole.extra_info.pop("all")))
        whole.stats.data = [round(seconds, 7) for seconds in whole.stats.data]
        figures = summary(whole.stats.data)
        whole.extra_info.update(p90=figures.p90, p99=figures.p99)
    return list(merged.values())


def _merge_extra(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the different values of each note, or the percentiles of its lists."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in rounds for key in each):
        values = [each[key] for each in rounds if key in each]
        if isinstance(values[0], list):
            figures = summary([value for each in values for value in each])
            merged[key] = [figures.median, figures.p99, figures.max, figures.count]
        else:
            merged[key] = list(dict.fromkeys(values))
    return merged


def number(value: float) -> str:
    """Write a number in about three digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"
