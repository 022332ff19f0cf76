"""Conntrack: the object people hold."""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, overload

from nlct import _check, _lookup, _missing, _reasons, stats
from nlct._dump import Progress, dump, require, undisturbed
from nlct._ffi import ffi, lib, new_sink
from nlct._handle import LIMIT, Bytes, Handle, Holder
from nlct._values import Values
from nlct.counts import Counts
from nlct.enums import EventKind, Status
from nlct.errors import Error, InterruptedDumpError, NotFoundError, UnsupportedError, error
from nlct.events import Events
from nlct.expect import Expectations
from nlct.filter import Filter, Zones, to_delete, to_update, to_zero, zone_set
from nlct.flow import Flow, Lines, Tuple, flows_from, to_c
from nlct.flush import delete_flows, flush
from nlct.load import LoadResult, load
from nlct.netns import NetnsLike
from nlct.observers import watched
from nlct.result import FlushResult
from nlct.table import ArrowStream, Columns, FlowTable, column_names, column_set
from nlct.update import Change, Masked, MaskedNames, Names, UpdateResult, update_all
from nlct.zero import Zeroing, zeroing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nlct.flow import FlowChanges

ROWS = 1024
TEXT_BYTES = 262144
ALL_ROWS = sys.maxsize
_UNSEEN = "the flow was created, but could not be looked at"


class Conntrack(Holder):
    """The connection tracking table of one network namespace.

    ``netns``: a name, path, process id or descriptor, see Netns.open(). None is the namespace that
    the thread is in when it makes the object. The object holds the namespace until close(); the
    calling thread never enters it. A thread that has moved to another namespace needs a new
    object: this one never works elsewhere, and raises Error (EXDEV) when it needs a new socket.
    ``kernel_filter``: ask the kernel to leave out of a dump what is not wanted. nlct matches
    everything again either way, so this changes the time, never the result.

    Any number of threads may use one object at once: each operation has its own sockets. After a
    fork the child may go on using it, and opens new sockets. Long operations give way to signals
    every 5 ms, except while the kernel works on one request (a flush, or a dump in which it finds
    nothing).

    All operations need CAP_NET_ADMIN in the namespace, and raise PermissionError without it. A zone
    other than 0 raises UnsupportedError if the kernel was built without zones.
    """

    def __init__(self, netns: NetnsLike | None = None, *, kernel_filter: bool = True) -> None:
        self._handle = Handle.open(netns, kernel_filter)

    def close(self) -> None:
        """Close the sockets and let go of the namespace.

        You may call it again; every other call then raises ValueError.
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

        Without a filter this reads the kernel's own counter (``conntrack -C``), which may include
        flows that are being destroyed. With a filter it dumps the table, and calls ``progress`` now
        and then with the number of flows scanned so far.

        Raises InterruptedDumpError if resizes of the hash table disturb one dump after another.
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

        ``fields``: up to three of "zone", "proto", "state" (that of TCP), "mark", "src", "dst",
        "status", or any other column of fixed size (nlct.table.COLUMNS). With several, the keys are
        tuples. Flows without the field count for None.

        Behind an address may stand the length of a prefix; the keys are then networks of
        ``ipaddress``. "src/24/64": IPv4 by 24 bits, IPv6 by 64. A number alone is for IPv4 up to
        32, for IPv6 from 33 on; addresses of the other family stay whole, as networks of one
        address.

        ``progress``: see count(). Raises TypeError unless there are one to three fields, ValueError
        for an unknown one or a prefix that is wrong, and InterruptedDumpError as count() does.
        """
        counter = Counts(fields)
        self._group("count_by", counter, filter, zone, progress)
        return counter.counts()

    @overload
    def sum_by(
        self,
        *fields: str,
        of: str,
        filter: Filter | None = None,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, int | None]: ...

    @overload
    def sum_by(
        self,
        *fields: str,
        of: tuple[str, ...] | list[str],
        filter: Filter | None = None,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, tuple[int | None, ...]]: ...

    def sum_by(
        self,
        *fields: str,
        of: str | tuple[str, ...] | list[str],
        filter: Filter | None = None,
        zone: Zones | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, Any]:
        """Return the sum of a counter for each value of a field, in one dump.

        ``fields``: as for count_by(). ``of``: "packets_orig", "bytes_orig", "packets_reply" or
        "bytes_reply" (``CTA_COUNTERS_ORIG``, ``CTA_COUNTERS_REPLY``); or several of them in a
        tuple, then the sums of a group are a tuple too. Sums are exact, however large.

        Flows have counters if the sysctl nf_conntrack_acct was on when they began. A flow without
        adds nothing, and where no flow of a group has any the sum is None, not 0; see missing().
        ``progress``: see count().

        Raises as count_by() does, and ValueError for a counter that is unknown or named twice.
        """
        if not isinstance(of, (str, tuple, list)) or not of:
            raise TypeError(f"of must be the name of a counter or a tuple of names, not {of!r}")
        counter = Counts(fields, (of,) if isinstance(of, str) else of)
        self._group("sum_by", counter, filter, zone, progress)
        sums = counter.sums()
        return {key: found[0] for key, found in sums.items()} if isinstance(of, str) else sums

    def _group(
        self,
        operation: str,
        counter: Counts,
        filter: Filter | None,
        zone: Zones | None,
        progress: Progress | None,
    ) -> None:
        wanted = self._wanted(filter, zone, progress)
        undisturbed(self._handle, wanted, operation, counter.make_sink, progress)

    def dump(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, one by one, in constant memory (``conntrack -L``).

        A dump is not a snapshot: it may miss flows that appear while it runs. Raises
        InterruptedDumpError at its end if the hash table was resized during the dump.
        """
        wanted = self._wanted(filter, zone)
        return self._dump(wanted)

    def dying(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that are out of the table and not destroyed yet (``-L dying``).

        They are those whose end could not be announced to a listener that wants to miss nothing,
        and which the kernel announces again later; they count for the limit. Otherwise this is like
        dump(), but nlct cannot tell a resize.
        """
        return self._dump(self._wanted(filter, zone), lib.NLCT_DYING)

    def unconfirmed(
        self, filter: Filter | None = None, *, zone: Zones | None = None
    ) -> Iterator[Flow]:
        """Yield the flows whose first packet is still under way (``-L unconfirmed``).

        Kernels since 5.19 keep no such list, and answer that there is none. Otherwise this is
        like dying().
        """
        return self._dump(self._wanted(filter, zone), lib.NLCT_UNCONFIRMED)

    def _dump(self, wanted: Filter, unlisted: int = 0) -> Iterator[Flow]:
        rows = ffi.new("struct nlct_flow[]", ROWS)
        data = Bytes()
        sink = new_sink(lib.nlct_rows_new, rows, ROWS, data.c)
        size = ffi.sizeof("struct nlct_flow")
        with dump(self._handle, wanted, unlisted) as made:
            for _ in made.steps(sink):
                count = lib.nlct_rows_take(sink[0])
                yield from flows_from(ffi.buffer(rows, count * size)[:], data.take())
            if made.disturbed:
                raise InterruptedDumpError(errno.EINTR, "dump")

    def dump_text(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
    ) -> Iterator[bytes]:
        """Yield the lines that ``conntrack -L`` prints, many at a time, ready for a file.

        ``columns``: names of nlct.table.COLUMNS; then a line is their values in this order with
        tabs between, each as JSON has it but without quotes: lists with commas, "-" where there is
        nothing. Otherwise this is like dump(), and several times as fast as str() of each flow.

        Raises ValueError for an unknown column.
        """
        wanted = self._wanted(filter, zone)
        named = column_names(columns)
        if named is None:
            return self._dump_lines(wanted, Lines(TEXT_BYTES, lib.NLCT_FORM_LIST), "dump_text")
        return self._dump_lines(wanted, Values(named, json=False), "dump_text")

    def dump_json(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
    ) -> Iterator[bytes]:
        """Yield lines of JSON, one object a flow, many at a time, ready for a file.

        An object is json.dumps() of Flow.to_dict(), many times as fast. ``columns``: names of
        nlct.table.COLUMNS; then an object is flat and has these keys in this order, null where a
        value is absent. Otherwise this is like dump().

        Raises ValueError for an unknown column.
        """
        wanted = self._wanted(filter, zone)
        return self._dump_lines(wanted, Values(column_names(columns), json=True), "dump_json")

    def dump_save(
        self, filter: Filter | None = None, *, zone: Zones | None = None
    ) -> Iterator[bytes]:
        """Yield the lines of ``conntrack -L -o save``, many at a time, for ``conntrack -R``.

        Otherwise this is like dump_text(). The lines lack what conntrack(8) has no option for:
        master, helper, labels, sequence adjustment, window scales and flags of TCP, translated
        ports; to_dict() and Arrow have all of it. Unlike conntrack(8), they have the mark. A flow
        that ``conntrack -R`` could not read is a comment: an offloaded one, which has no timeout,
        and SCTP in a heartbeat's state. read_flows() reads them.
        """
        wanted = self._wanted(filter, zone)
        return self._dump_lines(wanted, Lines(TEXT_BYTES, lib.NLCT_FORM_SAVE), "dump_save")

    def _dump_lines(self, wanted: Filter, lines: Lines | Values, operation: str) -> Iterator[bytes]:
        with dump(self._handle, wanted) as made:
            for _ in made.steps(lines.sink):
                yield lines.take()
            if made.disturbed:
                raise InterruptedDumpError(errno.EINTR, operation)

    def table(
        self,
        filter: Filter | None = None,
        *,
        zone: Zones | None = None,
        columns: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> FlowTable:
        """Return the flows that match as columns, in one dump.

        ``columns``: names of nlct.table.COLUMNS to keep, None for all; "family" and the zones are
        always kept. A plain flow takes some 110 bytes. If the hash table is resized during the
        dump, nlct dumps again. ``progress``: see count().

        Raises ValueError for an unknown column, and InterruptedDumpError as count() does.
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

        ``columns``: see table(). ``rows``: 1 to 2**32 - 1. Raises InterruptedDumpError at its end,
        as dump() does.
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

    def zero_counters(
        self,
        filter: Filter,
        *,
        columns: Iterable[str] | None = None,
        rows: int = 65536,
    ) -> Zeroing:
        """Set the counters of the flows that match to zero, and hand over what they were.

        For each flow the kernel reads and zeroes in one step, so no packet is lost or counted
        twice (``conntrack -L -z``, IPCTNL_MSG_CT_GET_CTRZERO). Read on and zero in a loop, a table
        of up to ``rows`` flows at a time, in constant memory; or all at once with run()::

            zeroing = ct.zero_counters(nlct.Filter(zone=7))
            try:
                for table in zeroing:
                    account(table)
            finally:
                account(zeroing.take())  # of a loop that was interrupted

        nlct dumps, and zeroes each match by name, after a look at its id. The dump that zeroes,
        which the kernel offers too, is not used: it zeroes what its filter does not understand
        (before Linux 6.8 that is zones), and forgets what it has read of a flow that does not fit
        into the rest of a datagram.

        ``filter``, also ``nlct.ALL``. ``columns``, ``rows``: see batches().

        Raises ValueError for a filter that matches everything, unless it is nlct.ALL.
        """
        wanted = self._wanted(to_zero(filter), None)
        return zeroing(self._handle, wanted, columns, rows)

    def missing(self, fields: Iterable[str]) -> dict[str, str]:
        """Say which of these fields flows do not get in this namespace, and how they would.

        ``fields``: columns (nlct.table.COLUMNS), such as Filter.fields. Counters and timestamps are
        absent while the sysctl nf_conntrack_acct or nf_conntrack_timestamp is 0, but in flows that
        are older; labels, where no flow has any, for which this dumps until it sees one. The result
        is empty if nothing is known to be missing.

        Raises ValueError for an unknown column.
        """
        return _missing.missing(self._handle, fields)

    def events(
        self,
        *kinds: str | EventKind,
        filter: Filter | None = None,
        zone: Zones | None = None,
        buffer: int | None = None,
    ) -> Events:
        """Listen to what happens to flows (``conntrack -E``): a stream of Event and Overrun.

        ``kinds``: "new", "update", "destroy" (``-e``); without any, "new" and "destroy". The kernel
        announces a new flow before its first packet goes on.
        ``filter``, ``zone``: only events of such flows. The kernel drops the others as far as it
        can tell: by zone, protocol, mark, single addresses and ports.
        ``buffer``: bytes that the kernel queues before it drops events, 4,096 to 2**30 - 1; an
        event takes some 1,200. None is 16 MiB, or what ``net.core.rmem_max`` allows without
        CAP_NET_ADMIN in the initial user namespace; to insist on a size then raises
        PermissionError.

        The stream stays open when this object is closed. While anybody on the host listens, every
        new flow costs more, in every namespace.

        Raises UnsupportedError if the sysctl nf_conntrack_events is 0, which hides every event.
        """
        return Events(self._handle, kinds, self._wanted(filter, zone), buffer)

    def get(self, tuple: Tuple, zone: int | None = None) -> Flow:
        """Return the flow with this tuple, original or reply, in this zone (``conntrack -G``).

        ``zone``: 0 to 65535, in whichever direction it applies. None means the zone of the tuple,
        as a dump gives it, or, if it has none, a look-up without a zone.

        Raises NotFoundError if there is no such flow, and InvalidRequestError for a tuple that
        cannot name one, such as TCP without ports.
        """
        if not isinstance(tuple, Tuple):
            raise TypeError(f"tuple must be a Tuple, not {tuple!r}")
        return _lookup.find_tuple(self._handle, tuple, zone)

    def stats(self) -> stats.Stats:
        """Return what the kernel counts, of each processor and summed (``conntrack -S``).

        It takes no dump.
        """
        return stats.read(self._handle)

    @property
    def expectations(self) -> Expectations:
        """The flows that helpers expect: a table of its own (``conntrack -L expect``)."""
        return Expectations(self._handle)

    @property
    def limit(self) -> int:
        """How many flows each namespace may hold, 0 for any number (``nf_conntrack_max``).

        One number is for the whole machine, and only the initial network namespace can set it:
        ``ct.limit = 500_000``, 0 to 2**31 - 1. A limit below the number of flows deletes none, but
        no new ones come in.

        Setting it raises ValueError for another number, PrivilegeError without privilege, and
        UnsupportedError in any other namespace.
        """
        return self._handle.stats()[1]

    @limit.setter
    def limit(self, flows: int) -> None:
        number = _check.integer("limit", flows, 0, 2**31 - 1)
        operation = f"set nf_conntrack_max to {number}"
        try:
            self._handle.write_number(LIMIT, number, operation)
        except Error as exc:
            # Root, too, is told EACCES where the kernel lets nobody write.
            if exc.errno == errno.EACCES and not self._handle.may_write(LIMIT):
                why = "the limit belongs to the initial network namespace; any other only reads it"
                raise UnsupportedError(errno.EOPNOTSUPP, operation, reason=why) from None
            raise

    @property
    def buckets(self) -> int | None:
        """Buckets of the hash table that all namespaces share (``nf_conntrack_buckets``).

        None if the kernel has no such file. It cannot be set here: the table is the whole
        machine's, and a resize spoils every dump that is under way in any namespace.
        """
        return self._handle.read_buckets()

    # Changing --------------------------------------------------------------------------------

    def create(self, flow: Flow) -> None:
        """Create a flow (``conntrack -I``).

        The kernel needs both addresses, the protocol with its ports or ICMP fields, and a timeout
        of at least a second; it shortens a timeout above 8,589,934 seconds to that. SCTP needs the
        state with both tags, or none of them. With SRC_NAT or DST_NAT in the status the flow
        translates to what the reply says. Labels need a rule in the namespace that uses labels.

        nlct leaves out what only the kernel gives, so that you can create a flow from a dump: id,
        use, counters, timestamps, security context, unknown attributes, TCP flags except 0x01, 0x02
        and 0x08, window scales unless both directions have one and flag 0x01, and in the status
        SEQ_ADJUST, NAT_DONE, TEMPLATE, UNTRACKED and OFFLOAD.

        Raises ValueError for a timeout of 0; ExistsError, TableFullError, InvalidRequestError;
        NotFoundError if its master is missing; UnsupportedError for a helper that the kernel does
        not have, and for what crashes many kernels, a GRE flow with a master and helper_info, which
        update() can set; Error (EBUSY) for a status with DYING, or with EXPECTED and no master. If
        the kernel dropped a field, nlct deletes the flow again and raises Error (ENOSPC) for
        labels, UnsupportedError for another field. If it cannot look the flow up to tell, the flow
        stays, and the error says so. ``reason`` of an error names the field.
        """
        row, data = to_c(flow)
        if flow.timeout == 0:
            raise ValueError("timeout must be from 1 to 4294967295 for a new flow, not 0")
        with _reasons.explained(flow, new=True):
            self._handle.create(row, data)
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

        ``flow`` names the flow by its tuple, its zone and, if given, its id. Its other fields do
        not matter, so it may be an old one. Name what changes: ``timeout`` (0 ends the flow; the
        kernel shortens more than 8,589,934 seconds to that), ``mark``, ``status``, ``tcp_state``,
        ``tcp_wscale_orig`` and ``_reply``, ``tcp_flags_orig`` and ``_reply``, ``sctp_state`` with
        ``sctp_vtag_orig`` and ``_reply``, ``dccp_state`` with ``dccp_role``,
        ``dccp_handshake_seq``, ``labels``, ``helper``, ``helper_info``, ``seqadj_...``,
        ``synproxy_...``; see Flow. Everything else stays.

        ``status`` is the whole status (CONFIRMED may be left out): it can set SEEN_REPLY, ASSURED,
        FIXED_TIMEOUT and HELPER, and clear nothing. The TCP flags 0x01, 0x02 and 0x08 can be set
        and cleared; window scales go together, in a flow with flag 0x01 in both directions. A
        helper can be set again, as helper_info needs it, but a flow without one cannot get one. It
        cannot be taken away: kernels do that while the helper looks at a packet, and some crash.

        Without names, it sets all that ``flow`` holds:
        ``ct.update(Flow(tuple, zone=7, mark=7))``.

        Raises ValueError if nothing would change, for ``helper=""``, for TCP flags that a request
        cannot change, and, without names, for a flow with a master or with fields that only the
        kernel gives (use, counters, timestamps). Raises NotFoundError; InvalidRequestError for what
        the kernel would drop in silence, such as the state of another protocol or another reply;
        Error with EBUSY for a status that the kernel would not set, EPERM for a fixed timeout,
        ENOSPC for labels that no rule uses; UnsupportedError for a helper. ``reason`` names the
        field. If the kernel itself refused the request, it may have changed the flow in part.
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
        row, data = to_c(request)
        with _reasons.explained(change):
            self._handle.update(row, data)
        if change.seqadj_orig_pos is not None or change.seqadj_reply_pos is not None:
            self._check_seqadj(change, name)

    def update_all(
        self,
        filter: Filter,
        *,
        mark: Masked | None = None,
        timeout: int | None = None,
        labels: MaskedNames | None = None,
        status: Names | None = None,
        helper: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> UpdateResult:
        """Change every flow that matches, in one dump, in batches (``conntrack -U``).

        ``mark``: a value, 0 to 2**32 - 1, or a pair (value, mask): the bits of the mask become
        those of the value, and the others stay (``CTA_MARK_MASK``, ``-m VALUE/MASK``).
        ``labels``: likewise, 0 to 2**128 - 1; bit n is label n (``CTA_LABELS_MASK``,
        ``--label-add``, ``--label-del``). A name, which nlct.labels looks up, or a list or set of
        names: sets these labels, and the others stay.
        ``timeout``: seconds, 1 to 2**32 - 1; the kernel shortens more than 8,589,934 to that
        (``CTA_TIMEOUT``, ``-t``). With 0 the kernel would end the flows: delete() does that.
        ``status``: bits to set beside those that are set, as a Status, by name, or a list or set of
        names: SEEN_REPLY, ASSURED, FIXED_TIMEOUT and HELPER (``CTA_STATUS``, ``-u``). No bit can be
        cleared.
        ``helper``: its name, of 1 to 15 bytes (``CTA_HELP_NAME``); a flow without one cannot get
        one.
        ``dry_run``: count what would be looked at, change nothing.
        ``progress``: called now and then with the number of flows scanned so far.

        The kernel changes a flow by its tuple and its zone, and ignores its id. So a flow that has
        ended and was born again since it was seen is changed. A flow whose own zone applies to one
        direction is looked up first. One case is left: where such a flow has the original tuple of
        a plain flow for its reply, the kernel may change it in the place of the plain one.

        A flow that the kernel refuses does not stop the rest; UpdateResult counts it. A request
        that changes several fields may have changed some of them before it was refused.

        Raises ValueError if nothing would change, for a value with bits outside of its mask, for
        status bits that cannot be set, for names that are not known, for ``helper=""``, and for a
        filter that matches everything, unless it is nlct.ALL; see Filter.restricts_nothing.
        """
        wanted = to_update(filter)
        change = Change(mark, timeout, labels, status, helper)
        return update_all(self._handle, wanted, change, dry_run, progress)

    def _check_seqadj(self, change: Flow, name: Flow) -> None:
        """Most flows that packets made have no room for it, and the kernel does not say so."""
        found = _lookup.request(self._handle, name, "look at a changed flow")
        for field in ("seqadj_orig_pos", "seqadj_reply_pos"):
            if getattr(change, field) is not None and getattr(found, field) is None:
                why = f"{field} was dropped: the flow was made without sequence adjustment"
                raise error(errno.EINVAL, "update a flow", reason=why)

    def delete_flow(self, flow: Flow) -> None:
        """Delete this very flow, by its tuple, its zone and its id.

        nlct looks it up first. Raises NotFoundError if it is gone, if a new flow with another id
        has its tuple by now, or if it is in another zone.
        """
        to_c(flow)
        # Looked up even where its id is known: by a tuple that its zone does not apply to, the
        # kernel would find a flow of another zone.
        self._delete(_lookup.find(self._handle, flow, "find the flow to delete")[0])

    def _delete(self, flow: Flow) -> None:
        with _reasons.explained(flow):
            self._handle.delete(to_c(flow)[0])

    def delete_flows(
        self, flows: Iterable[Flow], *, each: Callable[[Flow, int], None] | None = None
    ) -> FlushResult:
        """Delete these very flows and nothing else, in batches.

        ``flows``: flows as a dump, get(), an event or a table gave them; also a FlowTable with its
        ids, or a generator, of which a thousand flows are in memory at a time. The kernel deletes a
        flow only by its own tuple, zone and id. A flow that is gone by now, or made way for another
        one, counts as already gone; so does a flow that is given again, and one of which both
        tuples lead to other flows.

        Unlike delete_flow() this does not look the flows up first, so it costs one request a flow,
        and hundreds go at once. Nothing is dumped: in the result ``scanned`` and ``passes`` are 0,
        ``matched`` is the number of flows given, and ``strategy`` is "flows". A flow that cannot be
        deleted does not stop the rest.

        nlct calls ``each``, if given, with each flow and what became of it: 0 if it is deleted, the
        errno if not (ENOENT: already gone).

        Raises TypeError for anything but flows, and ValueError for a flow without an id or without
        an address: before anything is sent, but of an iterator the flows before it are deleted.
        """
        return watched("delete_flows", None, lambda: delete_flows(self._handle, flows, each))

    def load(
        self, flows: FlowTable | ArrowStream | Iterable[Flow], *, progress: Progress | None = None
    ) -> LoadResult:
        """Create many flows, in batches, as create() does. A refused flow does not stop the rest.

        ``flows``: a FlowTable, flows, or a table of any library that speaks Arrow, of which
        FlowTable.from_arrow() says what it must be.

        Flows that are there already stay as they are: LoadResult counts them in
        ``failed[errno.EEXIST]``, with those whose tuple another flow has. get() tells which.

        Flows with a master come after their masters. A flow from which the kernel dropped a field
        stays; LoadResult counts it. nlct calls ``progress`` now and then with the number of flows
        done so far.

        Raises TypeError for anything but flows, such as the name of a file, of which read_flows()
        makes a table, and ValueError for an Arrow table of anything else.
        """
        return load(self._handle, flows, progress)

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
        ``strategy``: "scan" dumps the table once and deletes each match by tuple, zone and id; it
        is safe on every kernel. "kernel" sends the kernel one flush a zone; the kernel does not say
        how many flows it deleted. "auto" scans, with one dump for each of a few zones if that is
        faster, and lets the kernel do the rest if that should be clearly faster (a zone that holds
        much, or a sparse table in a large hash table) and more than 20 ms are left.
        ``dry_run``: count what would be deleted, delete nothing.
        ``passes``: dump up to 1 to 1000 times, until a dump finds nothing. A dump may miss flows
        that appear while it runs.
        ``progress``: called now and then with the number of flows scanned so far.

        Raises UnsupportedError for strategy="kernel", before anything is sent, unless this very
        kernel has been seen to honour the filter for each of these zones; TypeError or ValueError
        for an argument of another type or out of its range.
        """
        # Never Filter(zone=None) here: that is every flow.
        wanted = Filter(zone=zone_set(zones))
        return self._flush("flush", wanted, strategy, dry_run, passes, progress)

    def flush_all(
        self,
        *,
        strategy: str = "auto",
        dry_run: bool = False,
        passes: int = 1,
        progress: Progress | None = None,
    ) -> FlushResult:
        """Delete every flow in the namespace (``conntrack -F``).

        The arguments are those of flush_zones(). With "auto" the kernel does it.
        """
        return self._flush("flush", Filter(), strategy, dry_run, passes, progress)

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

        The arguments are those of flush_zones(), but "auto" always scans, so that it can count,
        even with nlct.ALL; flush_all() is faster and does not count.

        Raises ValueError for a filter that matches everything, unless it is nlct.ALL; see
        Filter.restricts_nothing.
        """
        return self._flush("delete", to_delete(filter), strategy, dry_run, passes, progress)

    def _flush(
        self,
        operation: str,
        wanted: Filter,
        way: str,
        dry_run: bool,
        passes: int,
        progress: Progress | None,
    ) -> FlushResult:
        def work() -> FlushResult:
            return flush(self._handle, wanted, way, dry_run, passes, progress, operation)

        return work() if dry_run else watched(operation, wanted.zone, work)


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
