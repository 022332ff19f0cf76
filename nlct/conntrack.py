"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from nlct import _check
from nlct._closing import Closing
from nlct._ffi import ffi, lib, new_sink
from nlct._kernel import Heap, Kernel, Progress
from nlct.errors import InterruptedDumpError, NotFoundError, TableFullError
from nlct.filter import Filter, Zones, to_delete, zone_set
from nlct.flow import Flow, Tuple, flows_from, to_c
from nlct.flush import FlushResult, Tally, flush
from nlct.groups import Groups
from nlct.netns import Netns, NetnsLike
from nlct.table import Columns, FlowTable, column_set

ROWS = 1024
TEXT_BYTES = 262144
ALL_ROWS = sys.maxsize
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


class Conntrack(Closing):
    """The connection tracking table of one network namespace.

    ``netns``: None for the caller's own namespace, or a name, path, process id or descriptor, see
    Netns.open(). The namespace is held until close(); the calling thread never enters it.
    With None it is the namespace in which the thread that makes the object is at that time. A
    thread that has moved elsewhere makes a new object: this one raises Error (EXDEV) there.
    ``kernel_filter``: let the kernel leave out of a dump what was not asked for, where it can.
    Everything is matched again either way, so this changes the time, never the result.

    Any number of threads may use one object at once: each operation has sockets of its own. After
    a fork the child may go on using it: it opens new sockets. Long operations give way to
    signals every 5 ms, except while the kernel itself walks (one request to flush, or a dump in
    which it finds nothing).

    All operations need CAP_NET_ADMIN in the namespace, and raise PermissionError without it.
    """

    def __init__(self, netns: NetnsLike | None = None, *, kernel_filter: bool = True) -> None:
        where = Netns.current() if netns is None else Netns.open(netns)
        self._kernel = Kernel(where, kernel_filter)

    def close(self) -> None:
        """Let go of sockets and namespace.

        May be called again; every other call then raises ValueError.
        """
        self._kernel.close()

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
        if wanted.matches_everything:
            return self._kernel.stats()[0]
        return self._kernel.look(wanted, progress=progress).matched

    def count_by(
        self,
        *fields: str,
        filter: Filter | None = None,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, int]:
        """Return the number of flows for each value of a field, in one pass.

        ``fields``: one or two of "zone", "proto", "state" (that of TCP), "mark", "src", "dst",
        "status", or any other column (nlct.table.COLUMNS) but those without a fixed size. With
        two, the keys are pairs. Flows without the field count for None; values without a flow are
        left out. ``progress``: see count().
        """
        counter = Groups(fields)
        self._kernel.look(_filter(filter, zone), counter.make_sink, progress)
        return counter.counts()

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
        heap = Heap()
        sink = new_sink(lib.nlct_rows_new, rows, ROWS, heap.c)
        size = ffi.sizeof("struct nlct_flow")
        with self._kernel.walk(wanted) as walk:
            for _ in walk.steps(sink):
                count = lib.nlct_rows_take(sink[0])
                yield from flows_from(ffi.buffer(rows, count * size)[:], heap.take())
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def dump_text(
        self, filter: Filter | None = None, *, zone: Zones | None = None
    ) -> Iterator[bytes]:
        """Yield the lines that ``conntrack -L`` prints, many at a time, as they go to a file.

        Otherwise like dump(), and several times as fast as the text of each flow.
        """
        wanted = _filter(filter, zone)
        self._kernel.require(wanted)
        return self._dump_text(wanted)

    def _dump_text(self, wanted: Filter) -> Iterator[bytes]:
        buffer = ffi.new("char[]", TEXT_BYTES)
        sink = new_sink(lib.nlct_lines_new, buffer, TEXT_BYTES)
        with self._kernel.walk(wanted) as walk:
            for _ in walk.steps(sink):
                yield bytes(ffi.buffer(buffer, lib.nlct_lines_take(sink[0])))
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def table(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> FlowTable:
        """Return the flows that match as columns, in one pass.

        ``columns``: names of nlct.table.COLUMNS to keep, None for all; "family" and the zones
        always are.
        Some 110 bytes a flow. Where the table is resized meanwhile it is walked again.
        ``progress``: see count().
        """
        wanted = column_set(columns)
        collector = Columns(wanted, ALL_ROWS)

        def make_sink() -> ffi.CData:
            nonlocal collector
            collector = Columns(wanted, ALL_ROWS)
            return collector.sink

        self._kernel.look(_filter(filter, zone), make_sink, progress)
        return collector.take()

    def batches(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
        rows: int = 65536,
    ) -> Iterator[FlowTable]:
        """Yield the flows that match as tables of up to ``rows`` each, in constant memory.

        ``columns``: see table(). Like dump() it raises InterruptedDumpError at the end if the table
        was resized on the way.
        """
        wanted = _filter(filter, zone)
        kept = column_set(columns)
        _check.integer("rows", rows, 1, _check.U32)
        self._kernel.require(wanted)
        return self._batches(wanted, kept, rows)

    def _batches(
        self, wanted: Filter, columns: frozenset[str] | None, rows: int
    ) -> Iterator[FlowTable]:
        collector = Columns(columns, rows)
        with self._kernel.walk(wanted) as walk:
            for _ in walk.steps(collector.sink):
                if walk.ended or collector.full:
                    batch = collector.take()
                    if len(batch):
                        yield batch
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        Without a zone it is looked up in zone 0, or in that of the tuple.

        Raises NotFoundError.
        """
        found = self._kernel.get(Flow(tuple, zone=zone))
        # A zone of one direction does not count for the look-up of the other.
        if zone is not None and found.zone != zone:
            raise NotFoundError(errno.ENOENT, f"get a flow in zone {zone}")
        return found

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

    # Changing --------------------------------------------------------------------------------

    def create(self, flow: Flow) -> None:
        """Create a flow (``conntrack -I``).

        The kernel wants both addresses, the protocol with its ports or ICMP fields, and a timeout.
        Counters, timestamps, id, use and what is unknown are its own to give. With SRC_NAT or
        DST_NAT in the status it translates to what the reply says. Labels want a rule that uses
        labels in the namespace, or they are dropped silently.

        Raises ExistsError, TableFullError, InvalidRequestError; NotFoundError without its master;
        UnsupportedError for a helper that the kernel does not have.
        """
        with self._kernel.pool.lend() as sock:
            rc = lib.nlct_create(sock.handle, *to_c(flow))
            if rc == -errno.ENOMEM:
                raise TableFullError(errno.ENOMEM, "create a flow")
            sock.check(rc, "create a flow")

    def update(self, flow: Flow) -> None:
        """Change a flow, named by its tuple, its zone and, if given, its id (``conntrack -U``).

        What else the flow holds is set: timeout, mark, status, states of its protocol, labels,
        helper, sequence adjustment, synproxy. To change the mark alone, give it alone:
        ``ct.update(Flow(flow.orig, zone=flow.zone, mark=7))``. Bits of the status can be set, never
        cleared, and NAT cannot be changed.

        Raises NotFoundError; Error with EBUSY for such a status, with ENOSPC for labels where no
        rule uses labels; UnsupportedError for a helper that the kernel does not have.
        """
        self._find(flow, "update")
        with self._kernel.pool.lend() as sock:
            sock.check(lib.nlct_update(sock.handle, *to_c(flow)), "update a flow")

    def delete_flow(self, flow: Flow) -> None:
        """Delete this very flow: its tuple, its zone and its id.

        Without an id the flow is looked up first. Raises NotFoundError, also where another flow
        with another id has the tuple by now.
        """
        row, _heap = to_c(flow)
        if flow.id is None:
            row, _heap = to_c(flow.replace(id=self._find(flow, "delete").id))
        with self._kernel.pool.lend() as sock:
            sock.check(lib.nlct_delete(sock.handle, row), "delete a flow")

    def _find(self, flow: Flow, what: str) -> Flow:
        """Look a flow up that is to be changed: the kernel may lead to one of another zone."""
        operation = f"find the flow to {what}"
        found = self._kernel.get(flow, operation)
        if found.zone != flow.zone or flow.id not in (None, found.id):
            raise NotFoundError(errno.ENOENT, operation)
        return found

    def load(
        self, flows: FlowTable | Iterable[Flow], *, progress: Progress | None = None
    ) -> LoadResult:
        """Create many flows, in batches, as create() does. A refused flow does not stop the rest.

        Flows with a master come last, after their masters. ``progress`` is called now and then
        with the number of flows done so far.
        """
        started = time.monotonic()
        _check.function("progress", progress)
        self._kernel.pool.check_open()
        table = flows if isinstance(flows, FlowTable) else FlowTable.from_flows(flows)
        tally = Tally()
        done = 0
        has_children = any(name.startswith("master_") for name in table.names)
        for children in (False, True)[: 1 + has_children]:
            for first in range(0, len(table), LOAD_ROWS):
                last = min(first + LOAD_ROWS, len(table))
                self._load(table, first, last, children, tally)
                answered = tally.done + sum(tally.refused().values())
                if progress is not None and answered != done:
                    done = answered
                    progress(done)
        return LoadResult(tally.done, tally.refused(), time.monotonic() - started)

    def _load(self, table: FlowTable, first: int, last: int, children: bool, tally: Tally) -> None:
        columns, heap = table.to_c()
        with self._kernel.pool.lend() as sock:
            rc = lib.nlct_load(
                *(sock.handle, columns, len(columns), heap, len(table.heap)),
                *(first, last, children, tally.c),
            )
            sock.check(rc, "create flows")

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

    def delete(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        strategy: str = "auto",
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow that matches and nothing else, in one pass (``conntrack -D``).

        The arguments are those of flush_zones(). A filter that matches everything is refused with
        ValueError, unless it is nlct.ALL.
        """
        return flush(self._kernel, to_delete(filter), strategy, dry_run, passes, progress)


def _filter(filter: Filter | None, zone: Zones | None) -> Filter:
    if filter is None:
        return Filter(zone=zone)
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    if zone is not None:
        raise TypeError("give the zone in the Filter, not beside it")
    return filter
