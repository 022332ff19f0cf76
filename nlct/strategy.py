"""Which strategy flushes the fastest, and which may be used at all."""

from __future__ import annotations

import errno
import sys
from typing import NamedTuple

from nlct._kernel import Kernel
from nlct.capabilities import MEASURED, Capabilities, known, probe
from nlct.errors import UnsupportedError
from nlct.filter import Filter

STRATEGIES = ("auto", "scan", "kernel")


def _explain(text: str, *values: object) -> None:
    """Say why, to the log at debug level."""
    # Who has not imported logging does not read it.
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger("nlct").debug(text, *values)


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
# sparse tables, a filtered dump on filled ones, here from about 0.4 flows a bucket.
FILTERED_DUMP = Cost(bucket=40, flow=200, sent=1000)
KERNEL_FLUSH = Cost(bucket=5, flow=290, sent=0)
DELETE = 1700


def _scan_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate a scan that finds nothing: one zone is filtered by the kernel, more are not."""
    cost = FILTERED_DUMP.bucket * buckets + FILTERED_DUMP.flow * flows
    return cost if zones == 1 else cost + FILTERED_DUMP.sent * flows


def _kernel_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate kernel flushes, one a zone."""
    return zones * (KERNEL_FLUSH.bucket * buckets + KERNEL_FLUSH.flow * flows)


def zone_by_zone(kernel: Kernel, wanted: Filter) -> bool:
    """Decide whether to scan for each zone by itself, filtered by the kernel.

    Good for a few: a flow that is not sent costs a fifth of one that is.
    """
    if not wanted.is_zones or not wanted.zone:
        return False
    buckets = kernel.buckets
    found = known()
    zones = len(wanted.zone)
    if zones == 1 or buckets is None or not kernel.kernel_filter:
        return False
    if found is not None and not found.zone_dump:
        return False
    flows = kernel.stats()[0]
    return zones * _scan_cost(1, flows, buckets) < _scan_cost(zones, flows, buckets)


def _allowed(wanted: Filter, found: Capabilities) -> bool:
    """Tell if this kernel has been seen to flush each of these zones, and nothing more."""
    if not wanted.zone or not wanted.is_zones:
        return False
    return all(
        (found.zone_flush if zone else found.zone0_flush)
        and found.evidence["zone_flush" if zone else "zone0_flush"] == MEASURED
        for zone in wanted.zone
    )


def by_kernel(kernel: Kernel, wanted: Filter, strategy: str) -> bool:
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
    flows, buckets, count = kernel.stats()[0], kernel.buckets, len(wanted.zone)
    if buckets is None or not kernel.kernel_filter:
        _explain("scan: the costs of a kernel flush are not known here")
        return False
    scan, flush = _scan_cost(count, flows, buckets), _kernel_cost(count, flows, buckets)
    gain = scan - flush
    chosen = gain > 0 and _worth_knowing(gain, flows, buckets) and _allowed(wanted, probe())
    _explain(
        "%s: for %d zones, %d flows, %d buckets a scan should take %.1f ms, kernel flushes %.1f%s",
        *("kernel" if chosen else "scan", count, flows, buckets, scan / 1e6, flush / 1e6),
        "" if chosen or gain <= 0 else ", but has not been seen to be safe, or not worth a probe",
    )
    return chosen


# Nanoseconds that scans have cost this process beyond what the kernel's flush would have.
_lost = 0.0


def _worth_knowing(gain: float, flows: int, buckets: int) -> bool:
    """Tell if to probe: it walks the table three times, too much for the sake of one flush."""
    global _lost  # noqa: PLW0603
    if known() is not None:
        return True
    _lost += gain
    return _lost > 3 * _kernel_cost(1, flows, buckets)


def kernel_ends_it_faster(kernel: Kernel, wanted: Filter, deleted: int) -> bool:
    """Decide, in the middle of a scan, whether to let the kernel flush the rest.

    A zone that takes so many deletes holds a good part of the table, where a flush wins.
    """
    buckets = kernel.buckets
    if not deleted or not kernel.kernel_filter or buckets is None:
        return False
    if not wanted.is_zones or wanted.zone is None:
        return False
    spent = deleted * DELETE
    flush_costs = _kernel_cost(len(wanted.zone), kernel.stats()[0] + deleted, buckets)
    found = known()
    if found is None and spent > 2 * flush_costs:
        found = probe()
    if found is None or spent <= flush_costs / 2 or not _allowed(wanted, found):
        return False
    _explain("kernel: after %d deletes a flush of the rest should be faster", deleted)
    return True
