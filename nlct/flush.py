"""Flushing: the result, and which strategy is the fastest."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, NamedTuple

from nlct import _check
from nlct._ffi import ffi
from nlct.filter import Filter

STRATEGIES = ("auto", "scan", "kernel")


class FlushResult(NamedTuple):
    """What a flush did.

    ``scanned``: flows that the kernel sent to be looked at.
    ``matched``: flows among them that were meant.
    ``deleted``: flows that the kernel confirmed to have deleted.
    ``already_gone``: flows that had vanished by themselves in between, or had made way for a new
    flow with another id, which stays. The kernel makes the id of the entry's place in memory and
    its tuple, so a flow that is reborn with the same tuple in the very same place cannot be told
    from the old one.
    ``failed``: how many could not be deleted, by errno.
    ``strategy``: "scan" (dump, match, delete by id), "kernel" (one request a zone), or
    "scan+kernel" where a scan met so much that the kernel was asked to do the rest.
    ``passes``: walks over the table. ``seconds``: what it took.
    ``complete``: every flow that matched is gone: nothing failed, and no walk that counts
    was disturbed by a resize of the table.

    The kernel's own flush says nothing but that it is done: there ``scanned``, ``matched`` and
    ``deleted`` are None.
    """

    scanned: int | None
    matched: int | None
    deleted: int | None
    already_gone: int
    failed: Mapping[int, int]
    strategy: str = "scan"
    passes: int = 1
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        named = {errno.errorcode.get(number, str(number)): n for number, n in self.failed.items()}
        return {**self._asdict(), "failed": named}


class Tally:
    """What became of requests sent in batches."""

    def __init__(self) -> None:
        self.c = ffi.new("struct nlct_tally *")

    @property
    def done(self) -> int:
        """Requests that succeeded."""
        return int(self.c.done)

    def refused(self) -> dict[int, int]:
        """Return how many did not, by errno."""
        counts = memoryview(ffi.buffer(self.c.refused)).cast("Q")
        if not any(counts):
            return {}
        return {number: count for number, count in enumerate(counts) if count}


def check_strategy(strategy: str) -> str:
    """Refuse a strategy that does not exist."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    return strategy


def check_passes(passes: int) -> int:
    """Refuse a senseless number of walks."""
    return _check.integer("passes", passes, 1, 1000)


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


def scan_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate a scan that finds nothing: one zone is filtered by the kernel, more are not."""
    cost = FILTERED_DUMP.bucket * buckets + FILTERED_DUMP.flow * flows
    return cost if zones == 1 else cost + FILTERED_DUMP.sent * flows


def kernel_cost(zones: int, flows: int, buckets: int) -> float:
    """Estimate kernel flushes, one a zone."""
    return zones * (KERNEL_FLUSH.bucket * buckets + KERNEL_FLUSH.flow * flows)


def kernel_is_allowed(filter: Filter, capabilities: Any) -> bool:
    """Tell if this kernel has been seen to flush each of these zones, and nothing more."""
    if not filter.zone or filter.family is not None:
        return False
    seen = capabilities.evidence
    return all(
        (capabilities.zone_flush if zone else capabilities.zone0_flush)
        and seen["zone_flush" if zone else "zone0_flush"] == "measured"
        for zone in filter.zone
    )
