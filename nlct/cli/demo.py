"""The demo: every way to flush a zone, measured side by side in a scratch namespace."""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from nlct.capabilities import Capabilities, probe, require_empty
from nlct.cli.limit import with_room
from nlct.cli.measure import Summary, SyntheticTable, ratio, summary, timed
from nlct.cli.output import flows_word
from nlct.cli.progress import Bar
from nlct.cli.signals import stoppable
from nlct.conntrack import Conntrack
from nlct.errors import UnsupportedError
from nlct.mirror import Mirror
from nlct.netns import Netns

MANY = 50
MANY_SAMPLES = 3
# The slowest strategy runs in one round out of so many.
OLD_EVERY = 5
# Seconds to wait for a mirror to be in step.
IN_STEP = 60
# What runs in a round. Each round begins with another, so that drift and order affect all alike.
# The mirror comes afterwards: while it listens, all others pay for it.
ORDER = ("auto", "kernel", "scan", "old")


@dataclass(frozen=True)
class Figures:
    """One zone, flushed in each way.

    ``times``: milliseconds by strategy. ``to_kernel``: the median of the ratios of pairs, to the
    kernel's own flush. ``auto_used``, ``mirror_used``: what "auto" and the mirror chose to do.
    """

    zone: int
    zone_flows: int
    times: dict[str, Summary]
    to_kernel: dict[str, float]
    auto_used: list[str]
    mirror_used: list[str]


@dataclass(frozen=True)
class ManyZones:
    """Many zones in one dump, against one kernel flush after another; milliseconds.

    ``one_pass`` is the median of a few.
    """

    zones: int
    one_pass: float
    one_pass_used: list[str]
    kernel_one_by_one: float | None
    ratio: float | None


@dataclass(frozen=True)
class Report:
    """What the demo measured, in milliseconds.

    ``exact``: every flow that was to be flushed is gone, and no other. ``seconds``: how long the
    whole demo took.
    """

    kernel: str
    cpus: int | None
    buckets: int | None
    limit: int
    flows: int
    zones: int
    samples: int
    probe: Capabilities
    zone: Figures
    empty_zone: Figures
    many_zones: ManyZones
    flush_all: float
    exact: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {**asdict(self), "probe": self.probe._asdict()}


def run(flows: int, zones: int, samples: int) -> Report:
    """Measure in a scratch namespace of our own."""
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        netns = stack.enter_context(Netns.scratch())
        ct = stack.enter_context(Conntrack(netns))
        require_empty(ct.count())
        if not probe().zones:
            raise UnsupportedError(errno.EOPNOTSUPP, "flush zones", reason="this kernel has none")
        old = stack.enter_context(Conntrack(netns, kernel_filter=False))

        def work(fitting: int) -> Report:
            return _Demo(ct, old, fitting, min(zones, fitting), samples).run()

        return with_room(ct, flows, work)


class _Demo:
    """One run on one table. The kernel sends every flow to ``old``, as an old kernel would."""

    def __init__(self, ct: Conntrack, old: Conntrack, flows: int, zones: int, samples: int) -> None:
        self._ct = ct
        self._old = old
        self._table = SyntheticTable(ct, flows, zones)
        self._samples = samples
        self._probe = probe()
        self._many = range(1, min(MANY, zones) + 1)
        self._exact = True

    def run(self) -> Report:
        table = self._table
        started = time.monotonic()
        with Bar(f"filling {flows_word(table.flows)}", table.flows).shown() as bar:
            table.fill(bar.at)
        a_zone = sum(len(self._strategies(i)) + 1 for i in range(self._samples)) + 1
        steps = 2 * a_zone + 3 + MANY_SAMPLES
        # Ticking would take time from what is measured.
        with Bar("measuring", steps, ticking=False).shown() as bar:
            zone = self._flush_again_and_again(1, bar)
            empty_zone = self._flush_again_and_again(table.zones + 1, bar)
            bar.step("counting the other zones")
            self._exact &= table.is_whole()
            many_zones = self._flush_many_zones(bar)
            table.fill()
            bar.step("flushing everything")
            flush_all, _ = timed(self._ct.flush_all)
        return Report(
            kernel=self._probe.release,
            cpus=os.cpu_count(),
            buckets=self._ct.buckets,
            limit=self._ct.limit,
            flows=table.flows,
            zones=table.zones,
            samples=self._samples,
            probe=self._probe,
            zone=zone,
            empty_zone=empty_zone,
            many_zones=many_zones,
            flush_all=flush_all,
            exact=self._exact,
            seconds=time.monotonic() - started,
        )

    def _strategies(self, sample: int) -> list[str]:
        """Return the strategies that run in a round."""
        left_out = set()
        if not self._probe.zone_flush:
            left_out.add("kernel")
        if sample % OLD_EVERY:
            left_out.add("old")
        first = sample % len(ORDER)
        return [name for name in ORDER[first:] + ORDER[:first] if name not in left_out]

    def _flush_again_and_again(self, zone: int, bar: Bar) -> Figures:
        """Flush one zone, and put it back each time."""
        flows = sum(map(len, self._table.zone(zone)))
        what = f"a zone of {flows_word(flows)}" if flows else "an empty zone"
        rounds: list[dict[str, float]] = []
        used: set[str] = set()
        for sample in range(self._samples):
            times: dict[str, float] = {}
            for name in self._strategies(sample):
                bar.step(f"{what}, {sample + 1} of {self._samples}: {name}")
                ct, strategy = (self._old, "scan") if name == "old" else (self._ct, name)
                times[name], result = timed(ct.flush_zone, zone, strategy=strategy)
                if name == "auto":
                    used.add(result.strategy)
                self._exact &= self._table.put_back(zone)
                self._exact &= result.complete and result.deleted in (None, flows)
            rounds.append(times)
        mirror_used = self._flush_from_memory(zone, rounds, what, bar)
        return Figures(
            zone=zone,
            zone_flows=flows,
            times={
                name: summary([times[name] for times in rounds if name in times])
                for name in rounds[0]
            },
            to_kernel={
                name: ratio((times[name], times["kernel"]) for times in rounds if name in times)
                for name in rounds[0]
                if self._probe.zone_flush
            },
            auto_used=sorted(used),
            mirror_used=sorted(mirror_used),
        )

    def _flush_from_memory(
        self, zone: int, rounds: list[dict[str, float]], what: str, bar: Bar
    ) -> set[str]:
        """Flush one zone by a mirror, and put it back, in each round; return what it chose to do.

        It adds no times where the kernel makes no events.
        """
        flows = sum(map(len, self._table.zone(zone)))
        used: set[str] = set()
        bar.step("a mirror, which begins to listen")
        with suppress(UnsupportedError), Mirror(self._ct) as mirror:
            for sample, times in enumerate(rounds):
                mirror.wait(IN_STEP)
                bar.step(f"{what}, {sample + 1} of {self._samples}: mirror")
                times["mirror"], result = timed(mirror.flush_zone, zone)
                used.add(result.strategy)
                self._exact &= self._table.put_back(zone, mirror)
                self._exact &= not result.failed and result.deleted in (None, flows)
        return used

    def _flush_many_zones(self, bar: Bar) -> ManyZones:
        one_by_one = None
        if self._probe.zone_flush:
            bar.step(f"{len(self._many)} zones, one kernel flush each")
            one_by_one = sum(
                timed(self._ct.flush_zone, zone, strategy="kernel")[0] for zone in self._many
            )
        samples = [self._flush_in_one_dump(bar) for _ in range(MANY_SAMPLES)]
        one_pass = summary([milliseconds for milliseconds, _ in samples]).median
        return ManyZones(
            zones=len(self._many),
            one_pass=one_pass,
            one_pass_used=sorted({used for _, used in samples}),
            kernel_one_by_one=one_by_one,
            ratio=None if one_by_one is None else one_pass / one_by_one,
        )

    def _flush_in_one_dump(self, bar: Bar) -> tuple[float, str]:
        """Return the milliseconds and the strategy."""
        bar.step(f"{len(self._many)} zones, one dump")
        self._table.fill()
        milliseconds, result = timed(self._ct.flush_zones, self._many)
        self._exact &= result.complete and self._table.is_whole(without=self._many)
        return milliseconds, result.strategy
