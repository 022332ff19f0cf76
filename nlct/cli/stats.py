"""What a row of times says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Some times, in milliseconds, and how many they were."""

    min: float
    median: float
    p90: float
    p99: float
    max: float
    mean: float
    total: float
    count: int


def summary(times: Sequence[float]) -> Summary:
    """Sum up at least one time. Percentiles are interpolated between the nearest times."""
    # quantiles() wants two; one time is its own percentiles.
    two = times if len(times) > 1 else [*times, *times]
    percentiles = statistics.quantiles(two, n=100, method="inclusive")
    return Summary(
        min=min(times),
        median=statistics.median(times),
        p90=percentiles[89],
        p99=percentiles[98],
        max=max(times),
        mean=statistics.fmean(times),
        total=sum(times),
        count=len(times),
    )


def ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the median of the ratios of times that were taken side by side."""
    return statistics.median(ours / theirs for ours, theirs in pairs)
