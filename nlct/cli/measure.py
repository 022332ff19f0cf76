"""What the demo and the benchmarks share: timing, and a table that each measurement finds whole."""

from __future__ import annotations

import errno
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from nlct.conntrack import Conntrack
from nlct.errors import TableFullError
from nlct.fill import tables
from nlct.mirror import Mirror
from nlct.table import FlowTable

Progress = Callable[[int], None]

# Flows to create before a mirror shall look: their events fit into the smallest buffer.
PIECE = 100


@dataclass(frozen=True)
class Summary:
    """Some times, in milliseconds, and how many there are."""

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
    # quantiles() wants two, and would round: one time is its own percentiles.
    percentiles = (
        statistics.quantiles(times, n=100, method="inclusive")
        if len(times) > 1
        else [times[0]] * 99
    )
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


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Call ``work``; return the milliseconds it took and its result."""
    started = time.perf_counter()
    result = work(*arguments, **options)
    return (time.perf_counter() - started) * 1000, result


class SyntheticTable:
    """The flows of nlct.fill, in zones 1 to ``zones`` in turn, alone in a table.

    Other flows: override tables(), zone() and counts().
    """

    def __init__(self, ct: Conntrack, flows: int, zones: int) -> None:
        self.ct = ct
        self.flows = flows
        self.zones = zones
        self._made: dict[int, list[FlowTable]] = {}

    def tables(self) -> Iterable[FlowTable]:
        """Return all flows."""
        return tables(self.flows, self.zones)

    def zone(self, zone: int) -> list[FlowTable]:
        """Return the flows of a zone; none for a zone above ``zones``."""
        if zone > self.zones:
            return []
        if zone not in self._made:
            self._made[zone] = list(tables(self.flows, self.zones, zone=zone))
        return self._made[zone]

    def fill(self, progress: Progress | None = None) -> None:
        """Create what is missing. Raises TableFullError if the table then holds more or less."""
        done = 0
        for table in self.tables():
            self.ct.load(table)
            done += len(table)
            if progress is not None:
                progress(done)
        there = self.ct.count()
        if there != self.flows:
            why = f"it holds {there:,} flows, not {self.flows:,}"
            raise TableFullError(errno.ENOMEM, "fill the table", reason=why)

    def counts(self) -> dict[int, int]:
        """Return how many flows each zone has."""
        each, more = divmod(self.flows, self.zones)
        return {zone: each + (zone <= more) for zone in range(1, self.zones + 1)}

    def put_back(self, zone: int, mirror: Mirror | None = None) -> bool:
        """Create the flows of a zone that was flushed; tell if the flush had left none of them.

        ``mirror``: let it keep up, however small its buffer is.
        """
        made = self.zone(zone)
        created = 0
        for table in made:
            size = len(table) if mirror is None else PIECE
            for at in range(0, len(table), size):
                created += self.ct.load(table[at : at + size]).created
                if mirror is not None:
                    mirror.count()
        return created == sum(map(len, made))

    def is_whole(self, *, without: Iterable[int] = ()) -> bool:
        """Tell if every zone has its flows, and those of ``without`` none."""
        flushed = set(without)
        expected = {zone: flows for zone, flows in self.counts().items() if zone not in flushed}
        return self.ct.count_by("zone") == expected
