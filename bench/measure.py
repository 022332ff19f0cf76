"""Tools in turn: A B C A B C ..., so that a drift of the machine's speed hits all alike."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Tool:
    """One way to do the work.

    ``work`` does it once and returns the seconds. ``before`` makes ready for it and ``after``
    checks it, both uncounted. ``budget``: seconds that all its samples may take; one that is
    too slow for it takes part in every second, third, ... round alone.
    """

    name: str
    work: Callable[[], float]
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing
    budget: float = math.inf


@dataclass
class Series:
    """Seconds by tool and by round."""

    times: dict[str, dict[int, float]] = field(default_factory=dict)

    def values(self, tool: str) -> list[float]:
        """Return the times of a tool, none if it did not take part."""
        return list(self.times.get(tool, {}).values())

    def median(self, tool: str) -> float:
        """Return the middle one."""
        return statistics.median(self.values(tool))

    def ratios(self, tool: str, other: str) -> list[float]:
        """Return the ratios of the rounds that both took part in."""
        if tool not in self.times or other not in self.times:
            return []
        ours, theirs = self.times[tool], self.times[other]
        return [ours[number] / theirs[number] for number in ours if number in theirs]

    def best(self, name: str, *tools: str) -> None:
        """Add the better one of some tools in each round, under a name of its own."""
        rounds = set.intersection(*(set(self.times[tool]) for tool in tools))
        self.times[name] = {n: min(self.times[tool][n] for tool in tools) for n in sorted(rounds)}


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        two = values if len(values) > 1 else [*values, *values]
        low, median, high = statistics.quantiles(two, n=4, method="inclusive")
        return cls(low, median, high, len(values))


def in_turn(
    tools: Sequence[Tool], samples: int, *, limit: float = math.inf, least: int = 1
) -> Series:
    """Run each tool once a round.

    ``limit``: seconds after which no further round begins, once there were ``least``.
    """
    series = Series({tool.name: {} for tool in tools})
    every = dict.fromkeys(series.times, 1)
    started = time.monotonic()
    for number in range(samples):
        if number >= least and time.monotonic() - started > limit:
            break
        for tool in tools:
            if number % every[tool.name]:
                continue
            tool.before()
            seconds = tool.work()
            tool.after()
            series.times[tool.name][number] = seconds
            if number == 0:
                every[tool.name] = max(1, math.ceil(seconds * samples / tool.budget))
        _tick(number, samples)
    _tick(None, samples)
    return series


def _tick(number: int | None, samples: int) -> None:
    """Show a person that it goes on."""
    if sys.stderr.isatty():
        text = " " * 20 if number is None else f"round {number + 1} of {samples}"
        print(f"\r  {text}\r", end="", file=sys.stderr, flush=True)
