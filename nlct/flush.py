"""Flushing: by scanning or by the kernel, with an honest result."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from nlct import _buckets, _check
from nlct._ffi import ffi, lib, new_sink
from nlct._handle import Handle, Progress
from nlct.capabilities import zone_request
from nlct.errors import Error
from nlct.filter import Filter
from nlct.strategy import (
    Scan,
    by_kernel,
    check_strategy,
    experience,
    kernel_ends_it_faster,
    zone_by_zone,
)


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
    ``complete``: every flow that matched is gone: nothing failed, and the last walk was not
    disturbed by a resize of the table. After a dry run it is only so if nothing matched.

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


def flush(
    handle: Handle,
    wanted: Filter,
    strategy: str,
    dry_run: bool,
    passes: int,
    progress: Progress | None,
    operation: str = "flush",
) -> FlushResult:
    """Delete what is wanted; with an empty filter, everything.

    ``operation``: "flush" or "delete". A delete counts: with "auto" the kernel does none of it.
    """
    check_strategy(strategy)
    passes = _check.integer("passes", passes, 1, 1000)
    _check.function("progress", progress)
    way = "scan" if (strategy, operation) == ("auto", "delete") else strategy
    started = time.monotonic()
    handle.require(wanted)
    if wanted.matches_nothing:
        result = FlushResult(0, 0, 0, 0, {}, passes=0)
    elif dry_run:
        walk = handle.look(wanted, operation, progress=progress)
        result = FlushResult(walk.scanned, walk.matched, 0, 0, {}, complete=walk.matched == 0)
    elif by_kernel(handle, wanted, way):
        flows, began = handle.stats()[0], time.monotonic_ns()
        result = _by_kernel(handle, wanted, passes)
        _learn_flush(handle, wanted, flows, (time.monotonic_ns() - began) / passes)
    elif strategy == "auto" and zone_by_zone(handle, wanted):
        assert wanted.zone is not None
        result = _by_scans(handle, sorted(wanted.zone), way, passes, progress)
    else:
        result = _by_scan(handle, wanted, way, passes, progress)
    return result._replace(seconds=time.monotonic() - started)


def _by_kernel(handle: Handle, wanted: Filter, passes: int) -> FlushResult:
    """Let the kernel flush some zones, or everything. It knows no other filter to be trusted."""
    if wanted.matches_everything:
        _flush_all(handle, passes)
        walks = passes
    elif wanted.is_zones and wanted.zone is not None:
        _flush_zones(handle, sorted(wanted.zone) * passes)
        walks = len(wanted.zone) * passes
    else:
        raise ValueError(f"the kernel must not flush {wanted!r}")
    return FlushResult(None, None, None, 0, {}, strategy="kernel", passes=walks)


def _flush_all(handle: Handle, passes: int) -> None:
    with handle.pool.lend() as sock:
        for _ in range(passes):
            sock.check(lib.nlct_flush_all(sock.handle), "flush everything")


def _flush_zones(handle: Handle, zones: list[int]) -> None:
    with handle.pool.lend() as sock:
        for zone in zones:
            rc = lib.nlct_flush_zone(sock.handle, zone, zone_request())
            sock.check(rc, f"flush zone {zone}")


def _learn_flush(handle: Handle, wanted: Filter, flows: int, nanoseconds: float) -> None:
    """Note what kernel flushes took, without what deleting itself did."""
    buckets = handle.buckets
    if not wanted.zone or buckets is None:
        return
    # What is done is done, whether or not there is something to learn from it.
    with suppress(Error):
        deleted = max(flows - handle.stats()[0], 0)
        experience.learn_flush(len(wanted.zone), flows, buckets, deleted, nanoseconds)


def _by_scan(
    handle: Handle, wanted: Filter, strategy: str, passes: int, progress: Progress | None
) -> FlushResult:
    tally = Tally()
    scanned = matched = walks = 0
    looking = True
    while looking:
        done_before = tally.done
        zones = len(wanted.zone) if wanted.is_zones and wanted.zone else 0
        scan = Scan(zones, handle.stats()[0], handle.buckets or 0, 0, 0, 0)
        handed_over = False
        started = time.monotonic_ns()
        with handle.walk(wanted) as walk, handle.pool.lend() as sock:
            for _ in walk.steps(new_sink(lib.nlct_deleter_new, sock.handle, tally.c)):
                if progress is not None:
                    progress(scanned + walk.scanned)
                scan = scan._replace(
                    scanned=walk.scanned,
                    deleted=tally.done - done_before,
                    nanoseconds=time.monotonic_ns() - started,
                )
                handed_over = (
                    strategy == "auto"
                    and not walk.ended
                    and kernel_ends_it_faster(handle, wanted, scan)
                )
                if handed_over:
                    break
        if handed_over:
            rest = _by_kernel(handle, wanted, max(1, passes - walks))
            return _result(tally, None, None, "scan+kernel", walks + 1 + rest.passes, True)
        if zones and scan.buckets and handle.kernel_filter:
            experience.learn_scan(scan)
        walks += 1
        scanned += walk.scanned
        matched += walk.matched
        # To the kernel "already gone" and "no such zone or id" are one answer, so a walk that
        # hit nothing it aimed at is not believed: the next one shows what is left.
        missed = walk.matched > 0 and tally.done == done_before
        wanted_again = walks < passes and walk.matched > 0
        unsure = walk.disturbed or missed
        looking = wanted_again or (unsure and walks < _buckets.MAX_PASSES)
    return _result(tally, scanned, matched, "scan", walks, not unsure)


def _by_scans(
    handle: Handle, zones: list[int], strategy: str, passes: int, progress: Progress | None
) -> FlushResult:
    """Scan for one zone after the other, as long as the kernel leaves out all others."""
    results: list[FlushResult] = []
    scanned = 0

    def go_on(done: int) -> None:
        if progress is not None:
            progress(scanned + done)

    while zones:
        one = _by_scan(handle, Filter(zone=zones.pop(0)), strategy, passes, go_on)
        results.append(one)
        scanned += one.scanned or 0
        if one.scanned != one.matched and zones:
            results.append(_by_scan(handle, Filter(zone=zones), strategy, passes, go_on))
            break
    return _sum(results)


def _sum(results: list[FlushResult]) -> FlushResult:
    """One result of several; what one of them does not know is not known."""

    def total(name: str) -> int | None:
        values = [getattr(result, name) for result in results]
        return None if None in values else sum(values)

    failed: dict[int, int] = {}
    for result in results:
        for number, count in result.failed.items():
            failed[number] = failed.get(number, 0) + count
    return FlushResult(
        scanned=total("scanned"),
        matched=total("matched"),
        deleted=total("deleted"),
        already_gone=sum(result.already_gone for result in results),
        failed=failed,
        strategy=max((result.strategy for result in results), key=len),
        passes=sum(result.passes for result in results),
        complete=all(result.complete for result in results),
    )


def _result(
    tally: Tally,
    scanned: int | None,
    matched: int | None,
    strategy: str,
    passes: int,
    certain: bool,
) -> FlushResult:
    failed = tally.refused()
    gone = failed.pop(errno.ENOENT, 0)
    return FlushResult(
        scanned=scanned,
        matched=matched,
        deleted=None if matched is None else tally.done,
        already_gone=gone,
        failed=failed,
        strategy=strategy,
        passes=passes,
        complete=certain and not failed,
    )
