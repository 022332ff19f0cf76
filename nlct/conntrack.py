"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import itertools
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nlct import _check, _reasons
from nlct._closing import Closing
from nlct._ffi import ffi, lib, new_sink
from nlct._fields import TUPLE_FIELDS
from nlct._handle import Handle, Heap, Progress
from nlct.counts import Counts
from nlct.enums import Status
from nlct.errors import (
    Error,
    InterruptedDumpError,
    InvalidRequestError,
    NotFoundError,
    TableFullError,
    error,
)
from nlct.filter import Filter, Zones, to_delete, zone_set
from nlct.flow import Flow, Tuple, flows_from, to_c
from nlct.flush import FlushResult, Tally, flush
from nlct.netns import Netns, NetnsLike
from nlct.table import Columns, FlowTable, column_set

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nlct.flow import FlowChanges

ROWS = 1024
TEXT_BYTES = 262144
ALL_ROWS = sys.maxsize
# Rows given to the core at once: some 20 ms of creating.
LOAD_ROWS = 4096
# Flows that are looked for after a load, where the first ones are gone already.
SAMPLES = 100
_UNSEEN = "the flow was created, but could not be looked at"


class LoadResult(NamedTuple):
    """What a load did.

    ``created``: flows that are new. ``failed``: how many were refused, by errno (EEXIST: it was
    there; ENOMEM: the table is full; EINVAL: a flow that create() would refuse, among them those
    with a timeout of 0 and those without any). ``seconds``: what it took. ``dropped``: from how
    many of the created flows the kernel dropped a field, by its name, as one of them shows that was
    looked up afterwards: labels where no rule uses labels, and what this kernel was built without;
    None where no look-up was possible afterwards.
    """

    created: int
    failed: Mapping[int, int]
    seconds: float
    dropped: Mapping[str, int] | None


class Conntrack(Closing):
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
    signals every 5 ms, except while the kernel itself walks (one request to flush, or a dump in
    which it finds nothing).

    All operations need CAP_NET_ADMIN in the namespace, and raise PermissionError without it.
    """

    def __init__(self, netns: NetnsLike | None = None, *, kernel_filter: bool = True) -> None:
        where = Netns.current() if netns is None else Netns.open(netns)
        self._handle = Handle(where, kernel_filter)

    def close(self) -> None:
        """Let go of sockets and namespace.

        May be called again; every other call then raises ValueError.
        """
        self._handle.close()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
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
            return self._handle.stats()[0]
        return self._handle.look(wanted, "count", progress=progress).matched

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
        counter = Counts(fields)
        self._handle.look(_filter(filter, zone), "count_by", counter.make_sink, progress)
        return counter.counts()

    def dump(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, streaming, in constant memory (``conntrack -L``).

        A dump is no snapshot: flows that appear meanwhile may be missed. Raises
        InterruptedDumpError at the end if the table was resized on the way.
        """
        wanted = _filter(filter, zone)
        self._handle.require(wanted)
        return self._dump(wanted)

    def _dump(self, wanted: Filter) -> Iterator[Flow]:
        rows = ffi.new("struct nlct_flow[]", ROWS)
        heap = Heap()
        sink = new_sink(lib.nlct_rows_new, rows, ROWS, heap.c)
        size = ffi.sizeof("struct nlct_flow")
        with self._handle.walk(wanted) as walk:
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
        self._handle.require(wanted)
        return self._dump_text(wanted)

    def _dump_text(self, wanted: Filter) -> Iterator[bytes]:
        buffer = ffi.new("char[]", TEXT_BYTES)
        sink = new_sink(lib.nlct_text_new, buffer, TEXT_BYTES)
        with self._handle.walk(wanted) as walk:
            for _ in walk.steps(sink):
                yield bytes(ffi.buffer(buffer, lib.nlct_text_take(sink[0])))
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump_text")

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

        self._handle.look(_filter(filter, zone), "table", make_sink, progress)
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
        self._handle.require(wanted)
        return self._batches(wanted, kept, rows)

    def _batches(
        self, wanted: Filter, columns: frozenset[str] | None, rows: int
    ) -> Iterator[FlowTable]:
        collector = Columns(columns, rows)
        with self._handle.walk(wanted) as walk:
            for _ in walk.steps(collector.sink):
                if walk.ended or collector.full:
                    batch = collector.take()
                    if len(batch):
                        yield batch
            if walk.disturbed:
                raise InterruptedDumpError(errno.EINTR, "batches")

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        ``zone``: 0 to 65535, in whichever direction of the flow it applies. Without one it is that
        of the tuple, as a dump gives it, or else the flow is looked up where no zone is said.

        Raises NotFoundError, InvalidRequestError.
        """
        if not isinstance(tuple, Tuple):
            raise TypeError(f"tuple must be a Tuple, not {tuple!r}")
        key = Flow(tuple, zone=zone)
        if zone is not None or tuple.zone is not None:
            return self._find(key, "get a flow")[0]
        with _reasons.explained(key):
            found = self._handle.get(key)
        if not _is_named(found, tuple):
            raise NotFoundError(errno.ENOENT, "get a flow")
        return found

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
        with _reasons.explained(flow, new=True), self._handle.pool.lend() as sock:
            rc = lib.nlct_create(sock.handle, row, heap)
            if rc == -errno.ENOMEM:
                raise TableFullError(errno.ENOMEM, "create a flow")
            sock.check(rc, "create a flow")
        if _reasons.may_be_dropped(flow):
            self._check_created(flow)

    def _check_created(self, flow: Flow) -> None:
        """Take a new flow away again where the kernel dropped something of it."""
        try:
            found = self._look_at(flow)
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

    def _look_at(self, flow: Flow) -> Flow | None:
        """Return a flow that was just created, None if it is gone; it may have lost its ports."""
        for found, _ in self._candidates(flow, "look at a new flow"):
            if _is_named(found, flow.orig, but_for=_reasons.PORTS):
                return found
        return None

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
        found, name = self._find(flow, "find the flow to update")
        if not changes and flow.reply is not None and not _is_reply(found, flow):
            wrong = "reply cannot be changed; the flow has another"
            raise error(errno.EINVAL, "update a flow", reason=wrong)
        _refuse(change, wanted, found)
        request = change if name == change else Flow(name.orig, zone=name.zone, **wanted)
        row, heap = to_c(request)
        with _reasons.explained(change), self._handle.pool.lend() as sock:
            sock.check(lib.nlct_update(sock.handle, row, heap), "update a flow")
        if change.seqadj_orig_pos is not None or change.seqadj_reply_pos is not None:
            self._check_seqadj(change, name)

    def _check_seqadj(self, change: Flow, name: Flow) -> None:
        """Most flows that packets made have no room for it, and the kernel does not say so."""
        found = self._handle.get(name, "look at a changed flow")
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
        self._delete(self._find(flow, "find the flow to delete")[0])

    def _delete(self, flow: Flow) -> None:
        with _reasons.explained(flow), self._handle.pool.lend() as sock:
            sock.check(lib.nlct_delete(sock.handle, to_c(flow)[0]), "delete a flow")

    def _find(self, flow: Flow, operation: str) -> tuple[Flow, Flow]:
        """Look a flow up, of which perhaps only tuple and zone are known.

        Returns it, and what leads the kernel to it: original tuple and zone of a Flow. What the
        flow does not say may be either way; of several that fit the first is taken.
        """
        fitting = None
        for found, name in self._candidates(flow, operation):
            if flow.id not in (None, found.id) or not _is_named(found, flow.orig):
                continue
            if _is_alike(found, flow):
                return found, name
            fitting = fitting or (found, name)
        if fitting is None:
            raise NotFoundError(errno.ENOENT, operation)
        return fitting

    def _candidates(self, flow: Flow, operation: str) -> Iterator[tuple[Flow, Flow]]:
        """Yield flows of this zone that its tuples lead to, each with what did.

        A zone that holds for one direction does not count when the flow is looked up by the tuple
        of the other, and one tuple may lead to a flow of another zone.
        """
        for name, is_reply in _names(flow):
            try:
                with _reasons.explained(name):
                    found = self._handle.get(name, operation)
            except NotFoundError:
                continue
            except InvalidRequestError:
                # Of a translated flow the reply need not be whole.
                if is_reply:
                    continue
                raise
            if found.zone == flow.zone:
                yield found, name

    def load(
        self, flows: FlowTable | Iterable[Flow], *, progress: Progress | None = None
    ) -> LoadResult:
        """Create many flows, in batches, as create() does. A refused flow does not stop the rest.

        Flows with a master come last, after their masters. Flows from which the kernel dropped
        something stay, see LoadResult. ``progress`` is called now and then with the number of flows
        done so far.
        """
        started = time.monotonic()
        _check.function("progress", progress)
        self._handle.pool.check_open()
        table = flows if isinstance(flows, FlowTable) else FlowTable.from_flows(flows)
        tally = Tally()
        done = 0
        created = bytearray(len(table))
        has_children = any(name.startswith("master_") for name in table.names)
        for children in (False, True)[: 1 + has_children]:
            for first in range(0, len(table), LOAD_ROWS):
                last = min(first + LOAD_ROWS, len(table))
                self._load(table, range(first, last), children, tally, created)
                answered = tally.done + sum(tally.refused().values())
                if progress is not None and answered != done:
                    done = answered
                    progress(done)
        dropped = self._dropped(table, created) if tally.done else {}
        return LoadResult(tally.done, tally.refused(), time.monotonic() - started, dropped)

    def _load(
        self, table: FlowTable, rows: range, children: bool, tally: Tally, created: bytearray
    ) -> None:
        columns, heap = table.to_c()
        with self._handle.pool.lend() as sock:
            rc = lib.nlct_load(
                *(sock.handle, columns, len(columns), heap, len(table.heap)),
                *(rows.start, rows.stop, children, tally.c, ffi.from_buffer(created)),
            )
            sock.check(rc, "create flows")

    def _dropped(self, table: FlowTable, created: bytearray) -> dict[str, int] | None:
        """Return how many of the created flows lost a field, None where that cannot be told."""
        try:
            return self._lost(table, created)
        except Error:
            # They are created all the same, and counted.
            return None

    def _lost(self, table: FlowTable, created: bytearray) -> dict[str, int]:
        """Return how many of the created flows lost a field, as one of each kind shows."""
        lost: dict[str, int] = {}
        for name, proto in _reasons.AT_RISK:
            for row in itertools.islice(_reasons.rows_with(table, name, proto, created), SAMPLES):
                flow = table[row]
                found = self._look_at(flow)
                if found is None:
                    continue
                if name in _reasons.dropped(flow, found):
                    count = sum(1 for _ in _reasons.rows_with(table, name, proto, created))
                    lost[name] = lost.get(name, 0) + count
                break
        return lost

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
        on every kernel; "kernel" sends the kernel one flush a zone, and does not learn how many
        flows that were; "auto" takes the faster, but scans, and counts, where that should take no
        longer than 20 ms.
        ``dry_run``: count what would be deleted, delete nothing.
        ``passes``: walk up to so many times, until a walk finds nothing; for tables that
        change meanwhile, since what appears during a pass may be missed by it.
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
        """Delete every flow that matches and nothing else, in one pass (``conntrack -D``).

        The arguments are those of flush_zones(), but that "auto" always scans, so that the flows
        are counted; also with nlct.ALL, where flush_all() is faster and does not count. A filter
        that matches everything is refused with ValueError, unless it is nlct.ALL;
        Filter.restricts_nothing says how that is told.
        """
        return flush(self._handle, to_delete(filter), strategy, dry_run, passes, progress, "delete")


def _names(flow: Flow) -> Iterator[tuple[Flow, bool]]:
    """Yield what may lead the kernel to a flow, and whether that is its reply tuple."""
    for one, is_reply in ((flow.orig, False), (flow.reply, True)):
        if one is None or (is_reply and one.family is None):
            continue
        plain = one if one.zone is None else one.replace(zone=None)
        for zone in (flow.zone, 0) if flow.zone else (0,):
            yield Flow(plain, zone=zone), is_reply


def _is_named(found: Flow, tuple: Tuple, but_for: Iterable[str] = ()) -> bool:
    """Tell if this is the flow's original tuple or reply: the kernel ignores some fields."""
    return any(one is not None and _has(one, tuple, but_for) for one in (found.orig, found.reply))


def _has(one: Tuple, tuple: Tuple, but_for: Iterable[str] = ()) -> bool:
    if tuple == one:
        return True
    names = [name for name in TUPLE_FIELDS if name not in but_for]
    return all(getattr(tuple, name) in (None, getattr(one, name)) for name in names)


def _is_reply(found: Flow, flow: Flow) -> bool:
    """Tell if the reply that a flow holds is the tuple beside its original one."""
    orig, reply = found.orig, found.reply
    if reply is None or flow.reply is None:
        return False
    ways = ((orig, reply), (reply, orig))
    return any(_has(one, flow.orig) and _has(other, flow.reply) for one, other in ways)


def _is_alike(found: Flow, flow: Flow) -> bool:
    """Tell if its zone applies to the direction that ``flow`` says, or that says none."""
    said, its = ([one.orig.zone, one.reply and one.reply.zone] for one in (flow, found))
    if not _has(found.orig, flow.orig):
        its.reverse()
    return said in ([None, None], its)


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


def _filter(filter: Filter | None, zone: Zones | None) -> Filter:
    if filter is None:
        return Filter(zone=zone)
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    if zone is not None:
        raise TypeError("give the zone in the Filter, not beside it")
    return filter
