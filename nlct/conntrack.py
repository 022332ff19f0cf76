"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

from nlct import _check
from nlct._ffi import ffi, lib
from nlct._kernel import Kernel, Progress, own
from nlct.errors import InterruptedDumpError, TableFullError
from nlct.filter import Filter, Zones, zone_set
from nlct.flow import Flow, Tuple, flows_from, to_c
from nlct.flush import FlushResult, Tally, flush
from nlct.netns import Netns, NetnsLike
from nlct.table import FlowTable

ROWS = 1024
# Rows given to the core at once: some 20 ms of creating.
LOAD_ROWS = 4096


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
        where = None if netns is None else Netns.open(netns)
        self._kernel = Kernel(where, kernel_filter)

    def close(self) -> None:
        """Let go of sockets and namespace.

        May be called again; every other call then raises ValueError.
        """
        self._kernel.close()

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
        if hasattr(self, "_kernel"):
            self.close()

    # Looking ---------------------------------------------------------------------------------

    def count(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Return the number of flows.

        Without a filter this is the kernel's own counter (``conntrack -C``), which may include
        flows that are just being destroyed; with one the table is walked, and ``progress`` is
        called now and then with the number of flows scanned so far.
        """
        wanted = _filter(filter, zone)
        if wanted == Filter():
            return self._kernel.stats()[0]
        return self._kernel.look(wanted, progress=progress).matched

    def count_by(
        self,
        what: str,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[int, int]:
        """Return the number of flows for each value of a field, in one pass.

        ``what``: "zone". Values without a flow are left out. ``progress``: see count().
        """
        if what != "zone":
            raise ValueError(f"count_by() counts by 'zone', not {what!r}")
        counts = ffi.new("uint64_t[65536]")

        def sink() -> ffi.CData:
            ffi.memmove(counts, bytes(ffi.sizeof(counts)), ffi.sizeof(counts))
            return own(lib.nlct_zones_new(counts))

        self._kernel.look(_filter(filter, zone), sink, progress)
        view = memoryview(ffi.buffer(counts)).cast("Q")
        return {value: count for value, count in enumerate(view) if count}

    def dump(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, streaming, in constant memory (``conntrack -L``).

        A dump is no snapshot: flows that appear meanwhile may be missed. Raises
        InterruptedDumpError at the end if the table was resized on the way.
        """
        wanted = _filter(filter, zone)
        self._kernel.require(wanted)
        return self._dump(wanted)

    def _dump(self, wanted: Filter) -> Iterator[Flow]:
        rows = ffi.new("struct nlct_flow[]", ROWS)
        sink = own(lib.nlct_rows_new(rows, ROWS))
        size = ffi.sizeof("struct nlct_flow")
        with self._kernel.walk(wanted) as walk:
            for _ in walk.steps(sink):
                count = lib.nlct_rows_take(sink)
                yield from flows_from(ffi.buffer(rows, count * size)[:])
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        Raises NotFoundError.
        """
        return self._kernel.get(Flow(tuple, zone=zone))

    @property
    def limit(self) -> int:
        """How many flows the namespace may hold (``nf_conntrack_max``)."""
        return self._kernel.stats()[1]

    @property
    def buckets(self) -> int | None:
        """Size of the kernel's hash table, shared by all namespaces (``nf_conntrack_buckets``).

        None where it cannot be read.
        """
        return self._kernel.buckets

    # Creating --------------------------------------------------------------------------------

    def create(self, flow: Flow) -> None:
        """Create a flow (``conntrack -I``).

        The kernel wants both addresses, the protocol with its ports or ICMP fields, and a timeout.
        Raises ExistsError, TableFullError, InvalidRequestError.
        """
        with self._kernel.pool.lend() as sock:
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
        _check.function("progress", progress)
        self._kernel.pool.check_open()
        table = flows if isinstance(flows, FlowTable) else FlowTable.from_flows(flows)
        columns, keep = table.to_c()
        tally = Tally()
        for first in range(0, len(table), LOAD_ROWS):
            last = min(first + LOAD_ROWS, len(table))
            with self._kernel.pool.lend() as sock:
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
        """Delete every flow of these zones and nothing else.

        One pass serves the whole set; where the kernel is faster, it gets a flush for each zone.

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
        return flush(
            self._kernel, Filter(zone=zone_set(zones)), strategy, dry_run, passes, progress
        )

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
        return flush(self._kernel, Filter(), strategy, dry_run, passes, progress)


def _filter(filter: Filter | None, zone: Zones | None) -> Filter:
    if filter is None:
        return Filter(zone=zone)
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    if zone is not None:
        raise TypeError("give the zone in the Filter, not beside it")
    return filter
