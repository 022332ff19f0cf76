"""Which strategy flushes the fastest, and which may be used at all."""

from __future__ import annotations

import errno
from collections import deque
from typing import NamedTuple

from nlct import _log
from nlct._dump import STEP_MILLISECONDS
from nlct._handle import Handle
from nlct.capabilities import MEASURED, Capabilities, known, probe
from nlct.errors import UnsupportedError
from nlct.filter import Filter

STRATEGIES = ("auto", "scan", "kernel")

# Zones of a scan: whatever number above one, for the kernel then sends the whole table.
MANY = 2


def _explain(text: str, *values: object) -> None:
    """Say why, to the log at debug level."""
    _log.say(_log.DEBUG, text, *values)


def check_strategy(strategy: str) -> None:
    """Refuse a strategy that does not exist."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")


class Cost(NamedTuple):
    """Nanoseconds that one walk costs: a bucket, a flow there, a flow that is sent."""

    bucket: float
    flow: float
    sent: float


# Measured on two machines, with 10,000 to 1,000,000 flows in 65,536 to 1,048,576 buckets. A kernel
# flush cost 250 and 400 a flow there, a dump 200 on both, but far more a bucket: so a flush wins on
# sparse tables, a filtered dump on filled ones, here from about 0.4 flows a bucket. A flow costs
# less where the table fits the caches, and more where other namespaces have flows as well, so this
# is only where to begin: see Experience.
FILTERED_DUMP = Cost(bucket=40, flow=200, sent=1000)
KERNEL_FLUSH = Cost(bucket=5, flow=290, sent=0)
# What a flow adds that is deleted: to a scan for one zone, for it is sent as well; to one for many,
# where it is deleted while the kernel writes the next ones; and to a kernel flush.
DELETE_ONE = 2000
DELETE_MANY = 300
FLUSHED = 400


# What a scan should do in so many nanoseconds is left to it, however fast the kernel would be: a
# scan counts, and keeps nobody waiting.
COUNTED = 20e6


def _scan_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate a scan that finds nothing: one zone is filtered by the kernel, more are not."""
    cost = FILTERED_DUMP.bucket * buckets + FILTERED_DUMP.flow * flows
    return cost if zones == 1 else cost + FILTERED_DUMP.sent * flows


def _kernel_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate kernel flushes, one a zone."""
    return zones * (KERNEL_FLUSH.bucket * buckets + KERNEL_FLUSH.flow * flows)


def _estimate(way: str, zones: int, flows: int, buckets: int) -> float:
    cost = _scan_cost if way == "scan" else _kernel_cost
    return max(cost(zones, flows, buckets), 1)


class Scan(NamedTuple):
    """A scan under way: the table it began with, and how far it is."""

    zones: int
    flows: int
    buckets: int
    scanned: int
    deleted: int
    nanoseconds: float

    def share(self) -> float:
        """Estimate how much of the table it has seen."""
        if self.zones > 1:
            seen, most = self.scanned / max(self.flows, 1), 1.0
        else:
            walked = self.nanoseconds - experience.deleting(self)
            seen = walked / experience.cost("scan", 1, self.flows, self.buckets)
            most = MOST_SEEN
        return min(max(seen, 0.05), most)


class Experience:
    """How wrong the estimates were in this process, for tables of about this size.

    The decision is between two estimates, each times what it was wrong by lately: the least of the
    last times, for whatever disturbs a walk makes it longer. A way that has hardly been tried yet
    is tried where it might be the better one.
    """

    # Times that are remembered, and those that are enough.
    LAST, ENOUGH = 3, 2

    # Estimates that are wrong by more than this are not worth a try.
    HOPE = 3

    # Where both take about as long, the kernel: a scan that meets more than it was thought to
    # hands over a step or two late, and costs several times as much where the table is small.
    SLOWER = 1.2

    def __init__(self) -> None:
        self._factors: dict[tuple[str, bool, int, int], deque[float]] = {}
        self._deletes: dict[bool, float] = {True: DELETE_ONE, False: DELETE_MANY}

    @staticmethod
    def _key(way: str, zones: int, flows: int, buckets: int) -> tuple[str, bool, int, int]:
        return way, zones == 1, flows.bit_length(), buckets

    def learn(self, way: str, zones: int, flows: int, buckets: int, nanoseconds: float) -> None:
        """Note what a walk, or the flushes, of this kind took."""
        factor = min(max(nanoseconds / _estimate(way, zones, flows, buckets), 0.1), 10)
        key = self._key(way, zones, flows, buckets)
        self._factors.setdefault(key, deque(maxlen=self.LAST)).append(factor)

    def learn_flush(
        self, zones: int, flows: int, buckets: int, deleted: int, nanoseconds: float
    ) -> None:
        """Note what walking took in kernel flushes, as far as that can be told."""
        self._learn_walk("kernel", zones, flows, buckets, nanoseconds, deleted * FLUSHED)

    def _learn_walk(
        self, way: str, zones: int, flows: int, buckets: int, took: float, deleting: float
    ) -> bool:
        """Learn where little was deleted; from the first times even where that was more."""
        size = (zones, flows, buckets)
        few = 1 if self.is_new(way, *size) else 1 / 8
        told = deleting < self.cost(way, *size) * few
        if told:
            self.learn(way, *size, took - deleting)
        return told

    def learn_scan(self, scan: Scan) -> None:
        """Note what walking took in a scan, as far as that can be told, or else deleting."""
        size = (scan.zones, scan.flows, scan.buckets)
        if not self._learn_walk("scan", *size, scan.nanoseconds, self.deleting(scan)):
            single = scan.zones == 1
            first = DELETE_ONE if single else DELETE_MANY
            each = (scan.nanoseconds - self.cost("scan", *size)) / scan.deleted
            each = min(max(each, first / 4), first * 4)
            self._deletes[single] = (self._deletes[single] + each) / 2

    def deleting(self, scan: Scan) -> float:
        """Estimate the nanoseconds that its deletes took."""
        return scan.deleted * self._deletes[scan.zones == 1]

    def cost(self, way: str, zones: int, flows: int, buckets: int) -> float:
        """Estimate the nanoseconds, as experience says."""
        factors = self._factors.get(self._key(way, zones, flows, buckets), (1,))
        return min(factors) * _estimate(way, zones, flows, buckets)

    def is_new(self, way: str, zones: int, flows: int, buckets: int) -> bool:
        """Tell if that has hardly been tried yet."""
        return len(self._factors.get(self._key(way, zones, flows, buckets), ())) < self.ENOUGH

    def prefers_kernel(self, zones: int, flows: int, buckets: int) -> bool:
        """Decide for the kernel's flush or against it."""
        scan, kernel = (self.cost(way, zones, flows, buckets) for way in ("scan", "kernel"))
        if self.is_new("kernel", zones, flows, buckets):
            return kernel < scan * self.HOPE
        if self.is_new("scan", zones, flows, buckets):
            return kernel * self.HOPE < scan
        return kernel < min(scan * self.SLOWER, scan + STEP_MILLISECONDS * 1e6)


experience = Experience()


def zone_by_zone(handle: Handle, wanted: Filter) -> bool:
    """Decide whether to scan for each zone by itself, filtered by the kernel.

    Good for a few: a flow that is not sent costs a sixth of one that is.
    """
    if not wanted.is_zones or not wanted.zone:
        return False
    buckets = handle.buckets
    found = known()
    zones = len(wanted.zone)
    if zones == 1 or buckets is None or not handle.kernel_filter:
        return False
    if found is not None and not found.zone_dump:
        return False
    flows = handle.stats()[0]
    one, all_of_them = (experience.cost("scan", n, flows, buckets) for n in (1, zones))
    return zones * one < all_of_them


def _allowed(wanted: Filter, found: Capabilities) -> bool:
    """Tell if this kernel has been seen to flush each of these zones, and nothing more."""
    if not wanted.zone or not wanted.is_zones:
        return False
    return all(
        (found.zone_flush if zone else found.zone0_flush)
        and found.evidence["zone_flush" if zone else "zone0_flush"] == MEASURED
        for zone in wanted.zone
    )


def by_kernel(handle: Handle, wanted: Filter, strategy: str) -> bool:
    """Decide who flushes. Never sends anything to this table but a look at its counters.

    Raises UnsupportedError where the kernel is asked for and has not been seen to do it right.
    """
    if strategy == "scan":
        return False
    if wanted.matches_everything:
        return True
    if strategy == "kernel":
        if not wanted.is_zones or wanted.zone is None:
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                "delete with strategy='kernel': the kernel flushes zones or everything, no more",
            )
        found = probe()
        if not _allowed(wanted, found):
            zones = "zone 0" if wanted.zone == {0} else "zones"
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                f"flush {zones} with strategy='kernel': Linux {found.release} has not been "
                "seen to honour the filter",
            )
        return True
    if not wanted.is_zones or not wanted.zone:
        return False
    flows, buckets, count = handle.stats()[0], handle.buckets, len(wanted.zone)
    if buckets is None or not handle.kernel_filter:
        _explain("scan: the costs of a kernel flush are not known here")
        return False
    if _scan_cost(count, flows, buckets) < COUNTED:
        _explain("scan: %d flows in %d buckets are soon scanned, and counted", flows, buckets)
        return False
    scan, flush = (experience.cost(way, count, flows, buckets) for way in ("scan", "kernel"))
    if known() is None and not _worth_knowing(scan - flush, flows, buckets):
        _explain("scan: it is not worth a probe yet whether the kernel may flush")
        return False
    chosen = experience.prefers_kernel(count, flows, buckets) and _allowed(wanted, probe())
    _explain(
        "%s: for %d zones, %d flows, %d buckets a scan should take %.1f ms, kernel flushes %.1f",
        *("kernel" if chosen else "scan", count, flows, buckets, scan / 1e6, flush / 1e6),
    )
    return chosen


# Nanoseconds that scans have cost this process beyond what the kernel's flush would have.
_lost = 0.0


def _worth_knowing(gain: float, flows: int, buckets: int) -> bool:
    """Tell if to probe: it walks the table three times, too much for the sake of one flush."""
    global _lost  # noqa: PLW0603
    _lost += max(gain, 0)
    return _lost > 3 * _kernel_cost(1, flows, buckets)


# How far a scan for one zone is can only be told by what it took. While it goes on, some of the
# table is left: to hand over too late costs a fifth more, not to hand over many times as much.
MOST_SEEN = 0.75
# A few deletes say nothing about the rest.
ENOUGH_DELETES = 256


def kernel_ends_it_faster(handle: Handle, wanted: Filter, scan: Scan) -> bool:
    """Decide, in the middle of a scan, whether to let the kernel flush the rest.

    The more of the table a zone holds, the better: a flush deletes at a quarter of the cost. What
    is left to delete is guessed from what was there so far.
    """
    if scan.deleted < ENOUGH_DELETES or not handle.kernel_filter or not scan.buckets:
        return False
    if not wanted.is_zones or wanted.zone is None:
        return False
    seen = scan.share()
    left, more = 1 - seen, (1 - seen) / seen
    size = (scan.zones, scan.flows, scan.buckets)
    scan_left = left * experience.cost("scan", *size) + more * experience.deleting(scan)
    kernel_left = experience.cost("kernel", *size) + more * scan.deleted * FLUSHED
    gain = scan_left - kernel_left
    if scan_left < COUNTED or gain <= 0:
        return False
    if known() is None and gain < 3 * _kernel_cost(1, *size[1:]):
        return False
    if not _allowed(wanted, probe()):
        return False
    _explain(
        "kernel: after %d deletes the scan should take %.1f ms more, a kernel flush %.1f",
        *(scan.deleted, scan_left / 1e6, kernel_left / 1e6),
    )
    return True
