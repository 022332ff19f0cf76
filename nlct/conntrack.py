"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nlct import _check, _lookup, _reasons
from nlct._dump import Progress, dump, require, undisturbed
from nlct._ffi import ffi, lib, new_sink
from nlct._handle import Handle, Heap, Holder
from nlct.counts import Counts
from nlct.enums import Status
from nlct.errors import Error, InterruptedDumpError, NotFoundError, error
from nlct.filter import Filter, Zones, to_delete, zone_set
from nlct.flow import Flow, Tuple, flows_from, to_c
from nlct.flush import FlushResult, flush
from nlct.load import LoadResult, load
from nlct.netns import NetnsLike
from nlct.table import Columns, FlowTable, column_set

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nlct.flow import FlowChanges

ROWS = 1024
TEXT_BYTES = 262144
ALL_ROWS = sys.maxsize
_UNSEEN = "the flow was created, but could not be looked at"


class Conntrack(Holder):
    """The connection tracking table of one network namespace.

    ``netns``: None for the caller's own namespace, or a name, path, process id or descriptor, see
    Netns.open(). The namespace is held until close(); the calling thread never enters it.
    With None it is the namespace in which the thread that makes the object is at that time. A
    thread that has moved elsewhere makes a new object: there this one raises Error (EXDEV) as soon
    as it needs a new socket, and works in no other namespace.
    ``kernel_filter``: let the kernel leave out of a dump what was not asked for, where it can.
    Everything is matched again either way, so this changes the time, never the result.

    Any number of threads may use one object at once: each operation has sockets of its own. After
    a fork the child may go on using it: it opens new sockets. Long operations give way to
    signals every 5 ms, except while the kernel works on one request (to flush, or to dump what it
    does not find).

    All operations need CAP_NET_ADMIN in the namespace, and raise PermissionError without it.
    """

    def __init__(self, netns: NetnsLike | None = None, *, kernel_filter: bool = True) -> None:
        self._handle = Handle.open(netns, kernel_filter)

    def close(self) -> None:
        """Let go of sockets and namespace.

        May be called again; every other call then raises ValueError.
        """
        self._handle.close()

    def _wanted(
        self, filter: Filter | None, zone: Zones | None, progress: Progress | None = None
    ) -> Filter:
        """Return what a dump is for. Refuses a zone where the kernel was built without."""
        _check.function("progress", progress)
        if filter is None:
            meant = Filter(zone=zone)
        elif not isinstance(filter, Filter):
            raise TypeError(f"filter must be a Filter, not {filter!r}")
        elif zone is not None:
            raise TypeError("give the zone in the Filter, not beside it")
        else:
            meant = filter
        require(self._handle, meant.zone)
        return meant

    # Dumping ---------------------------------------------------------------------------------

    def count(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Return the number of flows.

        Without a filter this is the kernel's own counter (``conntrack -C``), which may include
        flows that are just being destroyed; with one the table is dumped, and ``progress`` is
        called now and then with the number of flows scanned so far.
        """
        wanted = self._wanted(filter, zone, progress)
        if wanted.matches_everything:
            return self._handle.stats()[0]
        return undisturbed(self._handle, wanted, "count", progress=progress).matched

    def count_by(
        self,
        *fields: str,
        filter: Filter | None = None,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, int]:
        """Return the number of flows for each value of a field, in one dump.

        ``fields``: one or two of "zone", "proto", "state" (that of TCP), "mark", "src", "dst",
        "status", or any other column (nlct.table.COLUMNS) but those without a fixed size. With
        two, the keys are pairs. Flows without the field count for None; values without a flow are
        left out. ``progress``: see count().
        """
        counter = Counts(fields)
        wanted = self._wanted(filter, zone, progress)
        undisturbed(self._handle, wanted, "count_by", counter.make_sink, progress)
        return counter.counts()

    def dump(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, streaming, in constant memory (``conntrack -L``).

        A dump is no snapshot: flows that appear meanwhile may be missed. Raises
        InterruptedDumpError at the end if the table was resized on the way.
        """
        wanted = self._wanted(filter, zone)
        return self._dump(wanted)

    def _dump(self, wanted: Filter) -> Iterator[Flow]:
        rows = ffi.new("struct nlct_flow[]", ROWS)
        heap = Heap()
        sink = new_sink(lib.nlct_rows_new, rows, ROWS, heap.c)
        size = ffi.sizeof("struct nlct_flow")
        with dump(self._handle, wanted) as made:
            for _ in made.steps(sink):
                count = lib.nlct_rows_take(sink[0])
                yield from flows_from(ffi.buffer(rows, count * size)[:], heap.take())
            if made.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def dump_text(
        self, filter: Filter | None = None, *, zone: Zones | None = None
    ) -> Iterator[bytes]:
        """Yield the lines that ``conntrack -L`` prints, many at a time, as they go to a file.

        Otherwise like dump(), and several times as fast as the text of each flow.
        """
        wanted = self._wanted(filter, zone)
        return self._dump_text(wanted)

    def _dump_text(self, wanted: Filter) -> Iterator[bytes]:
        buffer = ffi.new("char[]", TEXT_BYTES)
        sink = new_sink(lib.nlct_text_new, buffer, TEXT_BYTES)
        with dump(self._handle, wanted) as made:
            for _ in made.steps(sink):
                yield bytes(ffi.buffer(buffer, lib.nlct_text_take(sink[0])))
            if made.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump_text")

    def table(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> FlowTable:
        """Return the flows that match as columns, in one dump.

        ``columns``: names of nlct.table.COLUMNS to keep, None for all; "family" and the zones
        always are.
        Some 110 bytes a flow. Where the table is resized meanwhile it is dumped again.
        ``progress``: see count().
        """
        wanted = column_set(columns)
        collector = Columns(wanted, ALL_ROWS)

        def make_sink() -> ffi.CData:
            nonlocal collector
            collector = Columns(wanted, ALL_ROWS)
            return collector.sink

        meant = self._wanted(filter, zone, progress)
        undisturbed(self._handle, meant, "table", make_sink, progress)
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
        kept = column_set(columns)
        _check.integer("rows", rows, 1, _check.U32)
        wanted = self._wanted(filter, zone)
        return self._batches(wanted, kept, rows)

    def _batches(
        self, wanted: Filter, columns: frozenset[str] | None, rows: int
    ) -> Iterator[FlowTable]:
        collector = Columns(columns, rows)
        with dump(self._handle, wanted) as made:
            for _ in made.steps(collector.sink):
                if made.ended or collector.full:
                    batch = collector.take()
                    if len(batch):
                        yield batch
            if made.disturbed:
                raise InterruptedDumpError(errno.EINTR, "batches")

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        ``zone``: 0 to 65535, in whichever direction of the flow it applies. Without one it is that
        of the tuple, as a dump gives it, or else the flow is looked up where no zone is said.

        Raises NotFoundError, InvalidRequestError.
        """
        if not isinstance(tuple, Tuple):
            raise TypeError(f"tuple must be a Tuple, not {tuple!r}")
        return _lookup.find_tuple(self._handle, tuple, zone)

    @property
    def limit(self) -> int:
        """How many flows the namespace may hold (``nf_conntrack_max``)."""
        return self._handle.stats()[1]

    @property
    def buckets(self) -> int | None:
        """Size of the kernel's hash table, shared by all namespaces (``nf_conntrack_buckets``).

        None where the kernel has no such file.
        """
        return self._handle.read_buckets()

    # Changing --------------------------------------------------------------------------------

    def create(self, flow: Flow) -> None:
        """Create a flow (``conntrack -I``).

        The kernel wants both addresses, the protocol with its ports or ICMP fields, and a timeout
        of at least a second; of one above 8,589,934 seconds it makes that many. For SCTP it wants
        the state with both tags, or none of them. With SRC_NAT or DST_NAT in the status the flow
        translates to what the reply says. Labels want a rule that uses labels in the namespace.

        What is the kernel's own to give is left out, so that a dumped flow can be created: id, use,
        counters, timestamps, security context, what is unknown, TCP flags but 0x01, 0x02 and 0x08,
        window scales but of two directions with flag 0x01, and in the status SEQ_ADJUST, NAT_DONE,
        TEMPLATE, UNTRACKED and OFFLOAD.

        Raises ValueError for a timeout of 0, with which the kernel makes no flow. Raises
        ExistsError, TableFullError, InvalidRequestError; NotFoundError without its master;
        UnsupportedError for a helper that the kernel does not have; Error with EBUSY for a status
        with DYING, or with EXPECTED and no master. Raises Error with ENOSPC for labels that the
        kernel dropped, and UnsupportedError for what else it dropped; the flow is then taken away
        again. Where it could not be looked at for that the flow stays, and the error says so.
        ``reason`` of an error names the field.
        """
        row, heap = to_c(flow)
        if flow.timeout == 0:
            raise ValueError("timeout must be from 1 to 4294967295 for a new flow, not 0")
        with _reasons.explained(flow, new=True):
            self._handle.create(row, heap)
        if _reasons.may_be_dropped(flow):
            self._check_created(flow)

    def _check_created(self, flow: Flow) -> None:
        """Take a new flow away again where the kernel dropped something of it."""
        try:
            found = _lookup.find_new(self._handle, flow)
        except Error as exc:
            reason = f"{_UNSEEN}: {exc.reason}" if exc.reason else _UNSEEN
            raise error(exc.errno or 0, "create a flow", exc.kernel_message, reason) from exc
        lost = [] if found is None else _reasons.dropped(flow, found)
        if found is None or not lost:
            return
        reason = _reasons.why_dropped(lost)
        try:
            self._delete(found)
        except NotFoundError:
            pass
        except Error as exc:
            reason += f"; the flow was created without it and is still there: {exc}"
        number = errno.ENOSPC if "labels" in lost else errno.EOPNOTSUPP
        raise error(number, "create a flow", reason=reason)

    def update(self, flow: Flow, **changes: Unpack[FlowChanges]) -> None:
        """Change a flow (``conntrack -U``): ``ct.update(flow, mark=7)``.

        ``flow`` names it, by its tuple, its zone and, if given, its id; what else it holds does not
        matter, so it may be an old one. What changes is given by name: ``timeout`` (0 ends the
        flow; of what is above 8,589,934 seconds the kernel makes that many), ``mark``, ``status``,
        ``tcp_state``, ``tcp_wscale_orig`` and ``_reply``, ``tcp_flags_orig`` and ``_reply``,
        ``sctp_state`` with ``sctp_vtag_orig`` and ``_reply``, ``dccp_state`` with ``dccp_role``,
        ``dccp_handshake_seq``, ``labels``, ``helper``, ``helper_info``, ``seqadj_...``,
        ``synproxy_...``; see Flow. Everything else stays.

        ``status`` is all of it (CONFIRMED need not be given): bits can be set, SEEN_REPLY, ASSURED,
        FIXED_TIMEOUT and HELPER, none can be cleared. Of the TCP flags 0x01, 0x02 and 0x08 can be
        set and cleared; window scales go together, in a flow with flag 0x01 in both directions.
        A helper can be given again or taken away (""), but no flow gets one that has none.

        Without names, all that the flow holds is set: ``ct.update(Flow(tuple, zone=7, mark=7))``.

        Raises ValueError where nothing is to change, for TCP flags that a request cannot change,
        and, without names, for a flow that holds what only the kernel gives (use, counters,
        timestamps) or a master. Raises NotFoundError; InvalidRequestError for what the kernel would
        drop in silence, such as the state of another protocol or another reply; Error with EBUSY
        for such a status, EPERM for a timeout that is fixed, ENOSPC for labels where no rule uses
        labels; UnsupportedError for a helper. ``reason`` names the field. What was refused only by
        the kernel may be changed in part.
        """
        to_c(flow)
        wanted = _reasons.changes(flow, changes)
        change = Flow(flow.orig, zone=flow.zone, **wanted)
        found, name = _lookup.find(self._handle, flow, "find the flow to update")
        if not changes and flow.reply is not None and not _lookup.has_reply(found, flow):
            wrong = "reply cannot be changed; the flow has another"
            raise error(errno.EINVAL, "update a flow", reason=wrong)
        _refuse(change, wanted, found)
        request = change if name == change else Flow(name.orig, zone=name.zone, **wanted)
        row, heap = to_c(request)
        with _reasons.explained(change):
            self._handle.update(row, heap)
        if change.seqadj_orig_pos is not None or change.seqadj_reply_pos is not None:
            self._check_seqadj(change, name)

    def _check_seqadj(self, change: Flow, name: Flow) -> None:
        """Most flows that packets made have no room for it, and the kernel does not say so."""
        found = _lookup.request(self._handle, name, "look at a changed flow")
        for field in ("seqadj_orig_pos", "seqadj_reply_pos"):
            if getattr(change, field) is not None and getattr(found, field) is None:
                why = f"{field} was dropped: the flow was made without sequence adjustment"
                raise error(errno.EINVAL, "update a flow", reason=why)

    def delete_flow(self, flow: Flow) -> None:
        """Delete this very flow: its tuple, its zone and its id.

        It is looked up first. Raises NotFoundError, also where another flow with another id has the
        tuple by now, or where the flow is in another zone.
        """
        to_c(flow)
        # Looked up even where its id is known: by a tuple that its zone does not apply to, the
        # kernel would find a flow of another zone.
        self._delete(_lookup.find(self._handle, flow, "find the flow to delete")[0])

    def _delete(self, flow: Flow) -> None:
        with _reasons.explained(flow):
            self._handle.delete(to_c(flow)[0])

    def load(
        self, flows: FlowTable | Iterable[Flow], *, progress: Progress | None = None
    ) -> LoadResult:
        """Create many flows, in batches, as create() does. A refused flow does not stop the rest.

        Flows with a master come last, after their masters. Flows from which the kernel dropped
        something stay, see LoadResult. ``progress`` is called now and then with the number of flows
        done so far.
        """
        return load(
            self._handle, flows, lambda flow: _lookup.find_new(self._handle, flow), progress
        )

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

        ``zones``: ids from 0 to 65535. A zone matches by its id whichever direction it applies to.
        ``strategy``: "scan" dumps the table once and deletes each match by tuple, zone and id, safe
        on every kernel; "kernel" sends the kernel one flush a zone, and does not learn how many
        flows that were; "auto" scans, with one dump for each of a few zones where that is faster,
        and leaves the rest to the kernel where the deletes to come should take longer, and more
        than 20 ms.
        ``dry_run``: count what would be deleted, delete nothing.
        ``passes``: dump up to so many times (1 to 1000), until a dump finds nothing; for tables
        that change meanwhile, since what appears during a dump may be missed by it.
        ``progress`` is called now and then with the number of flows scanned so far.

        Raises UnsupportedError for strategy="kernel" where this very kernel has not been seen to
        honour the filter for each of these zones; nothing is sent then.
        """
        # Never Filter(zone=None) here: that is every flow.
        return flush(
            self._handle, Filter(zone=zone_set(zones)), strategy, dry_run, passes, progress
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
        return flush(self._handle, Filter(), strategy, dry_run, passes, progress)

    def delete(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        strategy: str = "auto",
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow that matches and nothing else, in one dump (``conntrack -D``).

        The arguments are those of flush_zones(), but that "auto" always scans, so that the flows
        are counted; also with nlct.ALL, where flush_all() is faster and does not count. A filter
        that matches everything is refused with ValueError, unless it is nlct.ALL;
        Filter.restricts_nothing says how that is told.
        """
        return flush(self._handle, to_delete(filter), strategy, dry_run, passes, progress, "delete")


def _refuse(change: Flow, wanted: Collection[str], found: Flow) -> None:
    """Raise for what the kernel would not do to this flow, or accept and not do."""
    operation = "update a flow"
    unfit = "; ".join(_reasons.unfit(change, wanted, found))
    if unfit:
        raise error(errno.EINVAL, operation, reason=unfit)
    status = _reasons.refused_status(change, found)
    if status:
        raise error(errno.EBUSY, operation, reason=status)
    if change.timeout is not None and (found.status or 0) & Status.FIXED_TIMEOUT:
        # Not what EPERM raises else: no privilege helps.
        raise Error(errno.EPERM, operation, reason="timeout: the status has fixed_timeout")
