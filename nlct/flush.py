"""Flushing: one engine that scans for one target or many, and the kernel's own flush.

And deleting flows that are given.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Callable, TypeVar

from nlct import _check, _log, capabilities, strategy
from nlct._dump import MAX_DUMPS, Progress, dump, require, undisturbed
from nlct._ffi import ffi, lib, new_sink
from nlct._handle import Dump, Handle, Socket
from nlct.errors import UnsupportedError
from nlct.filter import Filter
from nlct.flow import Flow, row_to_delete
from nlct.result import FlushResult, nothing_to_do


class Target:
    """What a caller wants deleted, and the outcome so far.

    ``zone``: the zones that it is restricted to, None if it is not.
    ``zones``: the same if it restricts nothing else, else None.
    """

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.zone = wanted.zone
        self.zones = self.zone if wanted.is_zones else None
        self._scanned = self._matched = self._deleted = 0
        # Dumps so far, and flushes of the kernel.
        self.passes = 0
        self._refused: Counter[int] = Counter()
        # The latest dump saw the whole table and deleted something of what it matched.
        self._certain = self._found_some = False
        # How many of these were flushes of the kernel, which does not say what it deleted.
        self._by_kernel = 0

    @property
    def single(self) -> int | None:
        """The zone, if the target is one zone and nothing else."""
        return next(iter(self.zones)) if self.zones and len(self.zones) == 1 else None

    @property
    def sent_alone(self) -> bool:
        """True if the kernel has sent nothing else so far."""
        return self._scanned == self._matched

    def add(self, made: Dump, matched: int, deleted: int, refused: dict[int, int]) -> None:
        """Add what a dump did."""
        self._scanned += made.scanned
        self._matched += matched
        self._deleted += deleted
        self._refused.update(refused)
        self.passes += 1
        # The kernel answers "already gone" and "no such zone or id" alike. So a dump that deletes
        # nothing of what it matches proves nothing: the next one shows what is left.
        self._certain = not (made.disturbed or (matched > 0 and deleted == 0))
        self._found_some = matched > 0

    def add_kernel(self, flushes: int) -> None:
        """Add flushes of the kernel, which do what was left."""
        self.passes += flushes
        self._by_kernel += flushes
        self._certain = True
        self._found_some = False

    def add_part(self, part: Target) -> None:
        """Add the outcome of a part. The whole is as certain as its least certain part."""
        self._certain = part._certain and (self._certain or not self.passes)
        self._scanned += part._scanned
        self._matched += part._matched
        self._deleted += part._deleted
        self._refused.update(part._refused)
        self.passes += part.passes
        self._by_kernel += part._by_kernel

    def wants_more(self, passes: int) -> bool:
        """Tell if to dump again."""
        asked = self._found_some and self.passes < passes
        return asked or (not self._certain and self.passes < MAX_DUMPS)

    @property
    def _strategy(self) -> str:
        if not self._by_kernel:
            return "scan"
        return "kernel" if self._by_kernel == self.passes else "scan+kernel"

    def result(self) -> FlushResult:
        """Return the outcome so far."""
        failed = dict(self._refused)
        gone = failed.pop(errno.ENOENT, 0)
        return FlushResult(
            scanned=None if self._by_kernel else self._scanned,
            matched=None if self._by_kernel else self._matched,
            deleted=None if self._by_kernel else self._deleted,
            already_gone=gone,
            failed=failed,
            strategy=self._strategy,
            passes=self.passes,
            complete=self._certain and not failed,
        )


AnyTarget = TypeVar("AnyTarget", bound=Target)


# Scanning ----------------------------------------------------------------------------------------


class _Sink:
    """Deletes what any of the targets wants, of the flows that a dump lets through.

    ``matched``: the filter that the dump matches by. A target with this very filter takes all of
    these flows; for any other each flow is matched here.
    """

    def __init__(self, sock: Socket, targets: Sequence[Target], matched: Filter) -> None:
        # They hold the filters.
        self._targets = targets
        rows = ffi.new("struct nlct_target[]", len(targets))
        for row, target in zip(rows, targets):
            if target.wanted is matched:
                row.wants = lib.NLCT_WANTS_ALL
            elif target.single is not None:
                # One look-up finds the target of any zone; each filter is tried in turn.
                row.wants, row.zone = lib.NLCT_WANTS_ZONE, target.single
            else:
                row.wants, row.filter = lib.NLCT_WANTS_FILTER, target.wanted.to_c()[0]
        self.c = new_sink(lib.nlct_deletes_new, sock.handle, rows, len(targets))

    def outcome(self, number: int) -> tuple[int, int]:
        """Return how many flows a target matched so far, and how many of them are deleted."""
        outcome = lib.nlct_deletes_get(self.c[0])[number]
        return int(outcome.matched), int(outcome.deleted)

    def account(self, made: Dump) -> None:
        """Tell each target what the dump did for it."""
        refused = self._refused()
        for number, target in enumerate(self._targets):
            own = {error: counts[number] for error, counts in refused.items() if counts[number]}
            target.add(made, *self.outcome(number), own)

    def _refused(self) -> dict[int, ffi.CData]:
        """Return how many were refused, by errno, then by target."""
        error = ffi.new("int *")
        refused: dict[int, ffi.CData] = {}
        while True:
            counts = lib.nlct_deletes_refused(self.c[0], len(refused), error)
            if counts == ffi.NULL:
                return refused
            refused[error[0]] = counts


class Auto:
    """Decides, for one call, which way is the fastest.

    ``counts``: the result must count, so the kernel may do none of it.
    """

    def __init__(self, handle: Handle, counts: bool) -> None:
        self._handle = handle
        self._facts = strategy.Facts(
            zones=0,
            flows=handle.stats()[0],
            buckets=handle.buckets,
            filtered=handle.kernel_filter and capabilities.known().zone_dump,
        )
        self._kernel = not counts and handle.kernel_filter and self._facts.buckets is not None

    def plan(self, targets: Iterable[Target]) -> strategy.Plan:
        """Plan the dumps for these targets: one for each of their zones, or one for all."""
        zones = [target.zones for target in targets]
        together = frozenset[int]().union(*(each or () for each in zones))
        return strategy.choose(self._about(frozenset() if None in zones else together))

    def _about(self, zones: frozenset[int]) -> strategy.Facts:
        facts = self._facts._replace(zones=len(zones), dump_seconds=self._handle.dump_seconds)
        if not self._kernel:
            return facts
        questions = capabilities.unasked(zones)
        may = None if questions else capabilities.may_flush(zones)
        return facts._replace(kernel=may, questions=questions)

    def may_flush(self, zones: frozenset[int]) -> bool:
        """Tell if the kernel may flush these zones. Asks the probe what is not known yet."""
        self._kernel = self._kernel and capabilities.may_flush(zones)
        return self._kernel

    def is_for_kernel(
        self, zones: frozenset[int], alone: bool, made: Dump, sink: _Sink, seconds: float
    ) -> bool:
        """Decide, in the middle of a dump, whether the kernel shall flush all of these zones.

        ``alone``: the dump asks for one of them alone, and what the kernel sends shows whether it
        honours that, whatever its release promises. If the answer of the probe is missing and worth
        its time, this asks for it.
        """
        matched, deleted = sink.outcome(0)
        # A kernel that sends other zones as well would flush them, too.
        self._kernel = self._kernel and not (alone and made.scanned != matched)
        if not self._kernel:
            return False
        facts = self._about(zones)._replace(each=alone, seconds=seconds, scanned=made.scanned)
        plan = strategy.choose(facts._replace(matched=matched, deleted=deleted))
        if not plan.kernel:
            return False
        if self.may_flush(zones):
            _log.say(
                _log.DEBUG,
                "kernel: after %d deletes the scan should take %.1f ms more, a kernel flush %.1f",
                *(deleted, plan.scan_seconds * 1e3, plan.kernel_seconds * 1e3),
            )
        return self._kernel


# Tells, in the middle of a dump, whether to leave the rest to the kernel.
Leave = Callable[[Dump, _Sink, float], bool]


class Scan:
    """Scans a table for what targets want.

    ``passes``: the most dumps; a dump that finds nothing is the last.
    ``watch``: called after each step with the flows scanned so far; may raise to end the scan.
    """

    def __init__(self, handle: Handle, passes: int, watch: Callable[[int], object]) -> None:
        self._handle = handle
        self._passes = passes
        self._watch = watch
        self._scanned = 0

    def run(self, target: Target) -> None:
        """Dump for one target until it is done."""
        while target.wants_more(self._passes):
            self._dump([target])

    def run_auto(self, target: Target, auto: Auto) -> None:
        """Flush a target of zones in the way that ``auto`` expects to be the fastest."""
        left = sorted(target.zones or ())
        each, by_kernel, *_ = auto.plan([target])
        by_kernel = by_kernel and auto.may_flush(frozenset(left))
        if by_kernel:
            self._flush_zones(target, left)
            return
        if not each or len(left) == 1:
            self._run_zones(target, left, auto)
            return
        while left and not by_kernel:
            part = Target(Filter(zone=left[:1] if each else left))
            by_kernel = self._run_zones(part, left, auto)
            target.add_part(part)
            # The kernel may send other zones as well: then one dump does the rest.
            each = part.sent_alone
            left = left[len(part.zones or ()) :]

    def _run_zones(self, target: Target, left: list[int], auto: Auto) -> bool:
        """Dump until the target is done or the kernel flushes all zones left; tell if so."""
        alone = target.single is not None
        while target.wants_more(self._passes):
            if self._dump([target], partial(auto.is_for_kernel, frozenset(left), alone)):
                self._flush_zones(target, left)
                return True
        return False

    def _flush_zones(self, target: Target, left: list[int]) -> None:
        """Let the kernel flush all zones left, as often as dumps may still be made."""
        flushes = left * max(1, self._passes - target.passes + bool(target.passes))
        _flush_zones(self._handle, flushes)
        target.add_kernel(len(flushes))

    def run_all(self, targets: list[AnyTarget]) -> Iterator[AnyTarget]:
        """Dump once for all targets, and again for those that need it; yield each that is done."""
        while targets:
            self._dump(targets)
            yield from (target for target in targets if not target.wants_more(self._passes))
            targets = [target for target in targets if target.wants_more(self._passes)]

    def _dump(self, targets: Sequence[Target], leave: Leave | None = None) -> bool:
        """Dump once, and tell if the rest is left to the kernel."""
        only = targets[0] if len(targets) == 1 else None
        # For several targets the kernel sends everything: no one filter fits all.
        wanted = only.wanted if only else Filter()
        began = time.monotonic()
        with dump(self._handle, wanted) as made, self._handle.pool.lend() as sock:
            sink = _Sink(sock, targets, wanted)
            for _ in made.steps(sink.c):
                self._watch(self._scanned + made.scanned)
                seconds = time.monotonic() - began
                if leave is not None and not made.ended and leave(made, sink, seconds):
                    break
        self._scanned += made.scanned
        sink.account(made)
        if made.ended and only and only.single is not None:
            self._learn(made, sink, seconds)
        return not made.ended

    def _learn(self, made: Dump, sink: _Sink, seconds: float) -> None:
        """Learn from a dump of one zone how long a dump takes here, if only that zone was sent."""
        matched, deleted = sink.outcome(0)
        if made.scanned == matched:
            before = self._handle.dump_seconds
            self._handle.dump_seconds = strategy.learned(seconds, deleted, before)


# Flushing ----------------------------------------------------------------------------------------


def flush(
    handle: Handle,
    wanted: Filter,
    way: str,
    dry_run: bool,
    passes: int,
    progress: Progress | None,
    operation: str = "flush",
) -> FlushResult:
    """Delete the flows that match; with an empty filter, everything.

    ``way``: one of strategy.STRATEGIES.
    ``operation``: "flush" or "delete". A delete must count: with "auto" the kernel does none of it.
    """
    strategy.check(way)
    passes = _check.integer("passes", passes, 1, 1000)
    _check.function("progress", progress)
    started = time.monotonic()
    target = Target(wanted)
    require(handle, target.zone)
    counts = operation == "delete"
    if wanted.matches_nothing:
        result = nothing_to_do()
    elif dry_run:
        made = undisturbed(handle, wanted, operation, progress=progress)
        result = FlushResult(made.scanned, made.matched, 0, 0, {}, complete=made.matched == 0)
    elif way != "scan" and wanted.matches_everything and not (counts and way == "auto"):
        for _ in range(passes):
            handle.flush_all()
        result = _by_kernel(passes)
    elif way == "kernel":
        zones = _kernels_own(target) * passes
        _flush_zones(handle, zones)
        result = _by_kernel(len(zones))
    else:
        scan = Scan(handle, passes, progress or _ignore)
        if way == "auto" and target.zones:
            scan.run_auto(target, Auto(handle, counts))
        else:
            scan.run(target)
        result = target.result()
    return result._replace(seconds=time.monotonic() - started)


def _ignore(_scanned: int) -> None:
    """Do nothing, for a caller that wants no progress."""


def _by_kernel(flushes: int) -> FlushResult:
    return FlushResult(None, None, None, 0, {}, strategy="kernel", passes=flushes)


def _kernels_own(target: Target) -> list[int]:
    """Return the zones of a target that the kernel may flush by itself.

    Raises UnsupportedError if the target is not zones alone, or if this kernel has not been seen to
    honour them.
    """
    if target.zones is None:
        raise UnsupportedError(
            errno.EOPNOTSUPP,
            "delete with strategy='kernel'",
            reason="the kernel flushes zones or everything, no more",
        )
    if not capabilities.may_flush(target.zones):
        zones = "zone 0" if target.zones == {0} else "zones"
        release = capabilities.known().release
        raise UnsupportedError(
            errno.EOPNOTSUPP,
            f"flush {zones} with strategy='kernel'",
            reason=f"Linux {release} has not been seen to honour the filter",
        )
    return sorted(target.zones)


def _flush_zones(handle: Handle, zones: Iterable[int]) -> None:
    for zone in zones:
        handle.flush_zone(zone, capabilities.zone_request())


# Flows that are given ----------------------------------------------------------------------------

# Given to the core at once: a few milliseconds of deleting.
ROWS = 1024


def delete_flows(
    handle: Handle, flows: Iterable[Flow], each: Callable[[Flow, int], None] | None = None
) -> FlushResult:
    """Delete these very flows, see Conntrack.delete_flows()."""
    _check.function("each", each)
    if isinstance(flows, Flow):
        raise TypeError(f"flows must be an iterable of Flow objects, not {flows!r}")
    started = time.monotonic()
    handle.pool.check_open()
    if isinstance(flows, Collection) and len(flows) > ROWS:
        # Nothing is sent if the last one is wrong. An iterator can be gone through only once.
        for _ in _chunks(handle, flows):
            pass
    results: Counter[int] = Counter()
    for rows, chunk in _chunks(handle, flows):
        said = ffi.new("int[]", len(chunk))
        given = ffi.from_buffer("struct nlct_flow[]", rows)
        handle.run("delete flows", lib.nlct_delete_flows, given, len(chunk), said)
        answers = ffi.unpack(said, len(chunk))
        results.update(answers)
        if each is not None:
            for flow, answer in zip(chunk, answers):
                each(flow, -answer)
    failed = {-result: count for result, count in results.items() if result}
    gone = failed.pop(errno.ENOENT, 0)
    return FlushResult(
        scanned=0,
        matched=sum(results.values()),
        deleted=results[0],
        already_gone=gone,
        failed=failed,
        strategy="flows",
        passes=0,
        seconds=time.monotonic() - started,
        complete=not failed,
    )


def _chunks(handle: Handle, flows: Iterable[Flow]) -> Iterator[tuple[bytes, list[Flow]]]:
    """Yield the rows of flows that may be deleted, many at a time, and the flows."""
    left = iter(flows)
    while chunk := list(islice(left, ROWS)):
        rows = b"".join(map(row_to_delete, chunk))
        if not handle.has_zones:
            require(handle, frozenset(flow.zone for flow in chunk) - {0})
        yield rows, chunk
