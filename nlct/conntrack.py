"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Callable, NamedTuple

from nlct import capabilities, flush
from nlct._ffi import ffi, lib
from nlct._pass import NOTHING, Descriptor, Pass
from nlct._socket import Socket, SocketPool
from nlct.errors import NotFoundError, TableFullError, UnsupportedError, error
from nlct.filter import Filter, Zones, zone_set
from nlct.flow import Flow, Tuple, flows_from, to_c
from nlct.flush import FlushResult, Tally
from nlct.netns import Netns, NetnsLike
from nlct.table import FlowTable

BUCKETS = "/proc/sys/net/netfilter/nf_conntrack_buckets"
ROWS = 1024
# Rows given to the core at once: some 40 ms of creating.
LOAD_ROWS = 8192
# A table that is resized again and again is walked this often before we say so.
MAX_PASSES = 10

Progress = Callable[[int], None]


class LoadResult(NamedTuple):
    """What a load did.

    ``created``: flows that are new. ``failed``: how many were refused, by errno (EEXIST: it was
    there; ENOMEM: the table is full). ``seconds``: what it took.
    """

    created: int
    failed: Mapping[int, int]
    seconds: float


class Conntrack:
    """The connection tracking table of one network namespace.

    ``netns``: None for the caller's own namespace, or a name, path, process id or descriptor, see
    Netns.open(). The namespace is held until close(); the calling thread never enters it.
    ``kernel_filter``: let the kernel leave out of a dump what was not asked for, where it can.
    Everything is matched again either way, so this changes the time, never the result.

    Any number of threads may use one object at once: each operation has sockets of its own. After
    a fork the child may go on using it: it opens new sockets. Long operations give way to
    signals every 20 ms, except while the kernel itself walks (one request to flush, or a dump in
    which it finds nothing).

    All operations need CAP_NET_ADMIN in the namespace, and raise PermissionError without it.
    """

    def __init__(self, netns: NetnsLike | None = None, *, kernel_filter: bool = True) -> None:
        self._netns = None if netns is None else Netns.open(netns)
        self._pool = SocketPool(self._netns)
        self._kernel_filter = kernel_filter
        # Is the kernel built with zones? None until it is asked.
        self._has_zones: bool | None = None
        self._buckets = NOTHING

    def close(self) -> None:
        """Let go of sockets and namespace.

        May be called again; every other call then raises ValueError.
        """
        self._pool.close()
        # Walks that are under way hold it, too.
        self._buckets = NOTHING
        if self._netns is not None:
            self._netns.close()

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_buckets"):
            self.close()

    # Looking ---------------------------------------------------------------------------------

    def count(self, filter: Filter | None = None, *, zone: Zones | None = None) -> int:
        """Return the number of flows.

        Without a filter this is the kernel's own counter (``conntrack -C``), which may include
        flows that are just being destroyed; with one the table is walked.
        """
        wanted = _filter(filter, zone)
        if wanted == Filter():
            return self._stats()[0]
        return self._look(wanted, lambda: ffi.NULL).matched

    def count_by(
        self, what: str, filter: Filter | None = None, *, zone: Zones | None = None
    ) -> dict[int, int]:
        """Return the number of flows for each value of a field, in one pass.

        ``what``: "zone". Values without a flow are left out.
        """
        if what != "zone":
            raise ValueError(f"count_by() counts by 'zone', not {what!r}")
        counts = ffi.new("uint64_t[65536]")

        def sink() -> ffi.CData:
            ffi.memmove(counts, bytes(ffi.sizeof(counts)), ffi.sizeof(counts))
            return _own(lib.nlct_zones_new(counts))

        self._look(_filter(filter, zone), sink)
        view = memoryview(ffi.buffer(counts)).cast("Q")
        return {value: count for value, count in enumerate(view) if count}

    def dump(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, streaming, in constant memory (``conntrack -L``).

        A dump is no snapshot: flows that appear meanwhile may be missed. Raises
        InterruptedDumpError at the end if the table was resized on the way.
        """
        wanted = _filter(filter, zone)
        self._require(wanted)
        return self._dump(wanted)

    def _dump(self, wanted: Filter) -> Iterator[Flow]:
        rows = ffi.new("struct nlct_flow[]", ROWS)
        sink = _own(lib.nlct_rows_new(rows, ROWS))
        size = ffi.sizeof("struct nlct_flow")
        with self._pool.lend() as sock:
            walk = self._pass(sock, wanted)
            for _ in walk.steps(sink):
                count = lib.nlct_rows_take(sink)
                yield from flows_from(ffi.buffer(rows, count * size)[:])
            if walk.disturbed:
                raise error(errno.EINTR, "dump")

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        Raises NotFoundError.
        """
        found = ffi.new("struct nlct_flow *")
        with self._pool.lend() as sock:
            rc = lib.nlct_get(sock.handle, to_c(Flow(tuple, zone=zone)), found)
            sock.check(rc, "get a flow")
        return next(flows_from(ffi.buffer(found)[:]))

    @property
    def limit(self) -> int:
        """How many flows the namespace may hold (``nf_conntrack_max``)."""
        return self._stats()[1]

    @property
    def buckets(self) -> int | None:
        """Size of the kernel's hash table, shared by all namespaces (``nf_conntrack_buckets``).

        None where it cannot be read.
        """
        fd = self._open_buckets().fd
        return None if fd < 0 else int(os.pread(fd, 32, 0))

    def _open_buckets(self) -> Descriptor:
        """Open the file at need: it appears when the kernel loads conntrack."""
        self._pool.check_open()
        if self._buckets.fd < 0:
            where = -1 if self._netns is None else self._netns.fileno()
            self._buckets = Descriptor(lib.nlct_netns_file(where, BUCKETS.encode(), os.O_RDONLY))
        return self._buckets

    def _stats(self) -> tuple[int, int]:
        entries = ffi.new("uint32_t *")
        limit = ffi.new("uint32_t *")
        with self._pool.lend() as sock:
            sock.check(lib.nlct_stats(sock.handle, entries, limit), "read the counters")
        return entries[0], limit[0]

    def _look(
        self,
        wanted: Filter,
        make_sink: Callable[[], ffi.CData],
        progress: Progress | None = None,
    ) -> Pass:
        """Walk over the table until a walk was not disturbed."""
        self._require(wanted)
        for _pass in range(MAX_PASSES):
            sink = make_sink()
            with self._pool.lend() as sock:
                walk = self._pass(sock, wanted)
                for _ in walk.steps(sink):
                    if progress is not None:
                        progress(walk.scanned)
            if not walk.disturbed:
                return walk
        raise error(errno.EINTR, "count")

    def _pass(self, sock: Socket, wanted: Filter) -> Pass:
        ask = self._kernel_filter and self._has_zones is not False
        return Pass(sock, wanted, ask, self._open_buckets())

    def _require(self, wanted: Filter) -> None:
        """Refuse zones where the kernel was built without them."""
        self._pool.check_open()
        if not wanted.zone:
            return
        if self._has_zones is None:
            self._has_zones = self._ask_for_zones()
        if not self._has_zones and wanted.zone != {0}:
            raise UnsupportedError(
                errno.EOPNOTSUPP, f"use zone {max(wanted.zone)}", "built without conntrack zones"
            )

    def _ask_for_zones(self) -> bool:
        anything = Tuple(src="192.0.2.1", dst="192.0.2.2", proto="udp", sport=1, dport=1)
        try:
            self.get(anything, zone=1)
        except NotFoundError:
            return True
        except UnsupportedError:
            return False
        return True

    # Creating --------------------------------------------------------------------------------

    def create(self, flow: Flow) -> None:
        """Create a flow (``conntrack -I``).

        The kernel wants both addresses, the protocol with its ports or ICMP fields, and a timeout.
        Raises ExistsError, TableFullError, InvalidRequestError.
        """
        with self._pool.lend() as sock:
            rc = lib.nlct_create(sock.handle, to_c(flow))
            if rc == -errno.ENOMEM:
                raise TableFullError(errno.ENOMEM, "create a flow")
            sock.check(rc, "create a flow")

    def load(
        self, flows: FlowTable | Iterable[Flow], *, progress: Progress | None = None
    ) -> LoadResult:
        """Create many flows, in batches. A refused flow does not stop the rest.

        ``progress`` is called now and then with the number of flows done so far.
        """
        started = time.monotonic()
        self._pool.check_open()
        table = flows if isinstance(flows, FlowTable) else FlowTable.from_flows(flows)
        columns, keep = table.to_c()
        tally = Tally()
        for first in range(0, len(table), LOAD_ROWS):
            last = min(first + LOAD_ROWS, len(table))
            with self._pool.lend() as sock:
                rc = lib.nlct_load(sock.handle, columns, len(columns), first, last, tally.c)
                sock.check(rc, "create flows")
            if progress is not None:
                progress(last)
        del keep
        return LoadResult(tally.done, tally.refused(), time.monotonic() - started)

    # Flushing --------------------------------------------------------------------------------

    def flush_zone(
        self,
        zone: int,
        *,
        strategy: str = "auto",
        dry_run: bool = False,
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow of one zone and nothing else (``conntrack -D -w``).

        See flush_zones() for the arguments.
        """
        if isinstance(zone, Iterable):
            raise TypeError(f"zone must be an integer from 0 to 65535, not {zone!r}")
        return self.flush_zones(
            zone, strategy=strategy, dry_run=dry_run, passes=passes, progress=progress
        )

    def flush_zones(
        self,
        zones: Zones,
        *,
        strategy: str = "auto",
        dry_run: bool = False,
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow of these zones and nothing else, in one pass for the whole set.

        ``zones``: ids from 0 to 65535. A zone matches by its id whichever direction it applies to.
        ``strategy``: "scan" walks over the table and deletes each match by tuple, zone and id, safe
        on every kernel; "kernel" sends the kernel one flush a zone; "auto" takes the faster.
        ``dry_run``: count what would be deleted, delete nothing.
        ``passes``: walk up to so many times, until a walk finds nothing; for tables that
        change meanwhile, since what appears during a pass may be missed by it.
        ``progress`` is called now and then with the number of flows scanned so far.

        Raises UnsupportedError for strategy="kernel" where this very kernel has not been seen to
        honour the filter for each of these zones; nothing is sent then.
        """
        # Never Filter(zone=None) here: that is every flow.
        return self._flush(Filter(zone=zone_set(zones)), strategy, dry_run, passes, progress)

    def flush_all(
        self,
        *,
        strategy: str = "auto",
        dry_run: bool = False,
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow in the namespace (``conntrack -F``).

        The arguments are those of flush_zones(); "auto" lets the kernel do it.
        """
        return self._flush(Filter(), strategy, dry_run, passes, progress)

    def _flush(
        self,
        wanted: Filter,
        strategy: str,
        dry_run: bool,
        passes: int,
        progress: Progress | None,
    ) -> FlushResult:
        flush.check_strategy(strategy)
        flush.check_passes(passes)
        started = time.monotonic()
        self._require(wanted)
        if wanted.zone == frozenset():
            result = FlushResult(0, 0, 0, 0, {}, passes=0)
        elif dry_run:
            walk = self._look(wanted, lambda: ffi.NULL, progress)
            result = FlushResult(walk.scanned, walk.matched, 0, 0, {})
        elif self._by_kernel(wanted, strategy):
            result = self._flush_by_kernel(wanted, passes)
        else:
            result = self._flush_by_scan(wanted, strategy, passes, progress)
        return result._replace(seconds=time.monotonic() - started)

    def _by_kernel(self, wanted: Filter, strategy: str) -> bool:
        """Decide who does it. Never sends anything to this table."""
        if strategy == "scan":
            return False
        if wanted == Filter():
            return True
        assert wanted.zone is not None
        if strategy == "kernel":
            found = capabilities.probe()
            if not flush.kernel_is_allowed(wanted, found):
                zones = "zone 0" if wanted.zone == {0} else "zones"
                raise UnsupportedError(
                    errno.EOPNOTSUPP,
                    f"flush {zones} with strategy='kernel': Linux {found.release} has not been "
                    "seen to honour the filter",
                )
            return True
        flows, buckets, count = self._stats()[0], self.buckets, len(wanted.zone)
        if buckets is None or not self._kernel_filter:
            return False
        if flush.kernel_cost(count, flows, buckets) >= flush.scan_cost(count, flows, buckets):
            return False
        return flush.kernel_is_allowed(wanted, capabilities.probe())

    def _flush_by_kernel(self, wanted: Filter, passes: int) -> FlushResult:
        zones = [None] if wanted.zone is None else sorted(wanted.zone)
        with self._pool.lend() as sock:
            for zone in zones * passes:
                if zone is None:
                    sock.check(lib.nlct_flush_all(sock.handle), "flush everything")
                else:
                    sock.check(lib.nlct_flush_zone(sock.handle, zone), f"flush zone {zone}")
        walks = len(zones) * passes
        return FlushResult(None, None, None, 0, {}, strategy="kernel", passes=walks)

    def _flush_by_scan(
        self, wanted: Filter, strategy: str, passes: int, progress: Progress | None
    ) -> FlushResult:
        tally = Tally()
        scanned = matched = walks = 0
        looking = True
        while looking:
            done_before = tally.done
            with self._pool.lend() as sock, self._pool.lend() as own:
                sink = _own(lib.nlct_deleter_new(own.handle, tally.c))
                walk = self._pass(sock, wanted)
                for _ in walk.steps(sink):
                    if progress is not None:
                        progress(scanned + walk.scanned)
                    hand_over = strategy == "auto" and not walk.ended
                    if hand_over and self._kernel_ends_it_faster(wanted, tally.done):
                        self._flush_by_kernel(wanted, 1)
                        return _result(tally, None, None, "scan+kernel", walks + 2, True)
            walks += 1
            scanned += walk.scanned
            matched += walk.matched
            # To the kernel "already gone" and "no such zone or id" are one answer, so a walk that
            # hit nothing it aimed at is not believed: the next one shows what is left.
            missed = walk.matched > 0 and tally.done == done_before
            wanted_again = walks < passes and walk.matched > 0
            unsure = walk.disturbed or missed
            looking = wanted_again or (unsure and walks < MAX_PASSES)
        return _result(tally, scanned, matched, "scan", walks, not unsure)

    def _kernel_ends_it_faster(self, wanted: Filter, deleted: int) -> bool:
        """Decide, in the middle of a scan, whether to let the kernel flush the rest.

        A zone that takes so many deletes holds a good part of the table, where a flush wins.
        """
        if not deleted or not self._kernel_filter or self.buckets is None:
            return False
        assert wanted.zone is not None
        flows, buckets = self._stats()[0], self.buckets
        flush_costs = flush.kernel_cost(len(wanted.zone), flows + deleted, buckets)
        found = capabilities.known()
        if found is None and deleted * flush.DELETE > 2 * flush_costs:
            found = capabilities.probe()
        return (
            found is not None
            and deleted * flush.DELETE > flush_costs / 2
            and flush.kernel_is_allowed(wanted, found)
        )


def _filter(filter: Filter | None, zone: Zones | None) -> Filter:
    if filter is None:
        return Filter(zone=zone)
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    if zone is not None:
        raise TypeError("give the zone in the Filter, not beside it")
    return filter


def _own(sink: ffi.CData) -> ffi.CData:
    if sink == ffi.NULL:
        raise MemoryError
    return ffi.gc(sink, lib.nlct_sink_free)


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
