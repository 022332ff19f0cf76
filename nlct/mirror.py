"""Mirror: told of each flow by the kernel, it flushes a zone for what the zone holds.

Every other way to flush a zone goes over the whole table. A process that stays can be told of each
new flow, and remember which zone it is in. It never deletes what it only believes: each delete
names tuple, zone and id, and the kernel has the last word.
"""

from __future__ import annotations

import atexit
import errno
import os
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple

from nlct import _check, _log, _lookup, _threads, capabilities, strategy
from nlct._closing import Closing
from nlct._dump import require
from nlct._ffi import ffi, lib
from nlct._fields import FIELDS, FLOW_SIZE
from nlct._forks import process
from nlct._handle import Handle
from nlct._keeper import Keeper
from nlct._memory import INDEXES, KEPT, Lists
from nlct.conntrack import Conntrack
from nlct.counts import Group, by_value
from nlct.errors import Error, NotFoundError
from nlct.filter import Filter, Zones, to_delete, zone_set
from nlct.flow import Flow, flows_from, row_to_delete
from nlct.flush import flush
from nlct.flusher import Flusher
from nlct.netns import NetnsLike
from nlct.observers import watched
from nlct.result import FlushResult, nothing_to_do
from nlct.stream import LEAST_BUFFER, MOST_BUFFER

BUFFER = 64 << 20
AUDIT_INTERVAL = 300.0
# What it takes to look up one flow, in seconds.
LOOK_UP = 20e-6
_NO_ERRORS = bytes(ffi.sizeof(ffi.new("struct nlct_tally *").refused))


class MirrorState(NamedTuple):
    """What a mirror knows of itself.

    ``in_step``: it has every flow that the kernel has announced. ``since``: when ``in_step`` last
    changed, in seconds since 1970. ``reason``: why it is not in step, "" while it is.
    ``events``: received so far. ``overruns``, ``lost``: how often the kernel dropped events, and
    how many, as far as it says.
    ``dumps``: complete dumps after which it was in step. ``audits``: complete rounds of the audit.
    ``hidden``: flows that an audit has found and that were never announced; ``hidden_zones``:
    theirs, which are scanned from then on. ``ghosts``: flows that it has forgotten because a dump
    did not show them any more: nobody announced their end.
    ``exact``: the last audit found nothing amiss, so counts are exact but for flows whose end is
    never announced; otherwise they are upper bounds of what was announced.
    ``flows``: how many it knows. ``memory``: bytes that it needs for them.
    ``buffer``: bytes of events that the kernel may queue.
    """

    in_step: bool
    since: float
    reason: str
    events: int
    overruns: int
    lost: int
    dumps: int
    audits: int
    hidden: int
    hidden_zones: frozenset[int]
    ghosts: int
    exact: bool
    flows: int
    memory: int
    buffer: int


class Mirror(Closing):
    """The flows of one table, as the kernel announces them.

    ``netns``: the namespace, as for Conntrack, or a Conntrack to work with, which stays open.
    ``index``: ("zone",) to flush zones for what they hold; ("zone", "address") to delete by
    addresses, too, for what matches. A flow of IPv4 takes 66 bytes, with addresses 146 and more.
    ``buffer``: bytes of events that the kernel may queue, 4,096 to 2**30 - 1. After a loss it
    grows, up to 512 MiB. Without CAP_NET_ADMIN in the initial user namespace the sysctl
    ``net.core.rmem_max`` bounds it.
    ``kernel_filter``: as for Conntrack.
    ``audit_interval``: seconds within which the audit finds a flow that was never announced, 1 or
    more.

    **What it promises.** It never deletes what it only believes: each delete names tuple, zone and
    id, and the kernel has the last word. Gone when a call returns is every flow that the kernel had
    announced before the call (it announces a flow before its first packet goes on), or that a dump
    or the audit has seen. Flows that the kernel never announces (under an event mask, made by BPF,
    held in a queue over the start) are found by a slow audit within ``audit_interval``; a zone in
    which one was found is scanned from then on, the others stay quick. ``verify=True`` scans
    afterwards. Being in step is earned: a complete dump after the latest join, loss or change of
    the sysctl; when it is lost, the methods do what Conntrack's would until it is earned again.
    Counts out of memory are upper bounds until the audit has gone round, and ``state`` says so.

    FlushResult.complete is False for a zone of which no audit has shown yet that its flows are
    announced, unless ``verify`` has scanned it. True is as far as the latest audit could see.
    ``strategy`` is "mirror", "mirror+walk" where no index helped, and "mirror+scan" where a part
    was scanned.

    Any number of threads and tasks may use one object. Its own thread listens; after a fork the
    child begins anew when it first uses the object. It needs CAP_NET_ADMIN in the namespace, and
    raises UnsupportedError if the sysctl nf_conntrack_events is 0.
    """

    def __init__(
        self,
        netns: NetnsLike | Conntrack | None = None,
        *,
        index: Iterable[str] = ("zone",),
        buffer: int = BUFFER,
        kernel_filter: bool = True,
        audit_interval: float = AUDIT_INTERVAL,
    ) -> None:
        self._addresses = "address" in _indexes(index)
        self._buffer = _check.integer("buffer", buffer, LEAST_BUFFER, MOST_BUFFER)
        self._interval = _check.seconds("audit_interval", audit_interval, least=1)
        if isinstance(netns, Conntrack) and not kernel_filter:
            raise ValueError("kernel_filter is for the Conntrack to say")
        self._owned = not isinstance(netns, Conntrack)
        self._ct = (
            netns if isinstance(netns, Conntrack) else Conntrack(netns, kernel_filter=kernel_filter)
        )
        self._handle: Handle = self._ct._handle
        self._closed = False
        # Only a forked child takes it.
        self._beginning = _threads.Lock()
        try:
            self._begin()
        except BaseException:
            self._closed = True
            if self._owned:
                self._ct.close()
            raise
        _mirrors.add(weakref.ref(self, _mirrors.discard))

    def _begin(self) -> None:
        """Begin to listen, and start the thread."""
        keeper = Keeper(self._handle, self._addresses, self._buffer, self._interval)
        try:
            keeper.start()
        except BaseException:
            keeper.stop()
            raise
        self._flusher = Flusher(self._ct)
        self._keeper = keeper

    def _current(self) -> Keeper:
        """Return what keeps the memory in step, in this process."""
        if self._closed:
            raise ValueError("this Mirror is closed")
        if self._keeper.process != process():
            with self._beginning.real:
                if self._keeper.process != process():
                    self._leave_behind()
                    self._begin()
        _log.say_all(self._keeper.said)
        return self._keeper

    def _leave_behind(self) -> None:
        """Let go, in a forked child, of what the parent's thread may have been using."""
        if self._keeper not in _left_behind:
            _left_behind.append(self._keeper)
            self._keeper.close_descriptors()

    # Knowing -----------------------------------------------------------------------------------

    @property
    def state(self) -> MirrorState:
        """What the mirror knows of itself."""
        keeper = self._current()
        with keeper.lock.real:
            if keeper.in_step:
                keeper.is_ready()
            counters = keeper.memory.counters()
            found = MirrorState(
                in_step=keeper.in_step,
                since=keeper.since,
                reason="" if keeper.in_step else keeper.reason,
                events=keeper.events(),
                overruns=keeper.overruns,
                lost=keeper.lost,
                dumps=keeper.dumps,
                audits=keeper.audits,
                hidden=keeper.hidden,
                hidden_zones=frozenset(keeper.hidden_zones),
                ghosts=counters.ghosts,
                exact=keeper.exact,
                flows=keeper.memory.count(),
                memory=keeper.memory.nbytes,
                buffer=keeper.room(),
            )
        # Returned in there, it would keep the lock if a signal handler raised just then.
        return found  # noqa: RET504

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mirror is in step; False if it is not within ``timeout`` seconds.

        ``timeout``: at least 0, None waits for as long as it takes. Raises ValueError after
        close().
        """
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + _check.seconds("timeout", timeout)
        while not self._current().in_step:
            self._handle.pool.check_open()
            if deadline is not None and time.monotonic() >= deadline:
                return False
            _threads.sleep(0.005)
        return True

    def __len__(self) -> int:
        """Return the number of flows; see Conntrack.count() where the mirror is not in step."""
        return self.count()

    def __bool__(self) -> bool:
        """An empty mirror is a mirror."""
        return True

    def count(self, filter: Filter | None = None, *, zone: Zones | None = None) -> int:
        """Return the number of flows, as Conntrack.count() does.

        It counts in memory what tuples, zones and ids tell, and dumps for anything else.
        """
        wanted = self._ct._wanted(filter, zone)
        lists = self._lists(wanted) if wanted.within(KEPT)[1] else None
        if lists is None:
            return self._ct.count(wanted)
        if wanted.matches_everything or (wanted.is_zones and lists.indexed):
            return lists.flows
        return sum(1 for _ in self._flows(lists, wanted))

    def count_by(
        self, *fields: str, filter: Filter | None = None, zone: Zones | None = None
    ) -> dict[Any, int]:
        """Return the number of flows for each value of a field, as Conntrack.count_by() does.

        By "zone", and by "src", "dst", "reply_src" or "reply_dst" with the index "address", it
        counts in memory if there is no filter; else it dumps the table.
        """
        wanted = self._ct._wanted(filter, zone)
        if len(fields) == 1 and wanted.matches_everything:
            keeper = self._current()
            counts = None
            if keeper.in_step:
                with keeper.lock.real:
                    ready = keeper.is_ready() and not keeper.hides(None)
                    counts = keeper.memory.counts_by(fields[0]) if ready else None
            if counts is not None:
                return by_value([Group(FIELDS[fields[0]])], counts)
        return self._ct.count_by(*fields, filter=wanted)

    def flows(self, filter: Filter | None = None, *, zone: Zones | None = None) -> Iterator[Flow]:
        """Yield the flows that match, with what the mirror keeps of them: tuples, zone and id.

        A filter that asks for more, or a mirror that is not in step, dumps the table.
        """
        wanted = self._ct._wanted(filter, zone)
        lists = self._lists(wanted) if wanted.within(KEPT)[1] else None
        return self._ct.dump(wanted) if lists is None else self._flows(lists, wanted)

    def _lists(self, wanted: Filter) -> Lists | None:
        """Return where to look in memory; None if it does not hold all that matches."""
        keeper = self._current()
        lists = None
        if keeper.in_step:
            with keeper.lock.real:
                if keeper.is_ready() and not keeper.hides(wanted.zone):
                    lists = keeper.memory.lists(wanted)
        return lists

    def _flows(self, lists: Lists, wanted: Filter) -> Iterator[Flow]:
        memory = self._current().memory
        for one in lists.lists:
            for rows in memory.rows(one, wanted):
                yield from flows_from(rows, b"")

    # Flushing ----------------------------------------------------------------------------------

    def flush_zone(self, zone: int, *, dry_run: bool = False, verify: bool = False) -> FlushResult:
        """Delete every flow of one zone and nothing else; see flush_zones()."""
        _check.integer("zone", zone, 0, _check.U16)
        return self.flush_zones(zone, dry_run=dry_run, verify=verify)

    def flush_zones(
        self, zones: Zones, *, dry_run: bool = False, verify: bool = False
    ) -> FlushResult:
        """Delete every flow of these zones and nothing else, for what they hold.

        ``zones``: ids from 0 to 65535, in whichever direction they apply. ``dry_run``: count what
        would be deleted, delete nothing. ``verify``: scan the table afterwards, and delete what the
        mirror did not know of; after a dry run, count what a dump shows.

        Where zones hold so much that the kernel's own flush is clearly faster, the kernel does it,
        if it is known to honour the zone; it does not count.

        Raises ValueError for a zone outside 0 to 65535, and after close().
        """
        return self._watched(Filter(zone=zone_set(zones)), "flush", dry_run, verify)

    def delete(self, filter: Filter, *, dry_run: bool = False, verify: bool = False) -> FlushResult:
        """Delete every flow that matches and nothing else, for what may match.

        The lists of zones and addresses narrow it down. What may have changed since a flow was
        announced (mark, status, state, timeout, counters, ...) is looked up, flow by flow, before
        the delete. Where no list helps, it goes through all flows in memory. If looking up would
        take longer than a dump of the table, it dumps the table.

        The arguments are those of flush_zones(). Raises ValueError for a filter that matches
        everything, unless it is nlct.ALL.
        """
        return self._watched(to_delete(filter), "delete", dry_run, verify)

    def delete_flows(self, flows: Iterable[Flow]) -> FlushResult:
        """Delete these very flows; see Conntrack.delete_flows()."""
        self._current()
        return self._ct.delete_flows(flows)

    async def aflush_zone(
        self, zone: int, *, dry_run: bool = False, verify: bool = False
    ) -> FlushResult:
        """Like flush_zone(), for asyncio. Once begun, it is done even if the task is cancelled."""
        return await _in_thread(lambda: self.flush_zone(zone, dry_run=dry_run, verify=verify))

    async def adelete(
        self, filter: Filter, *, dry_run: bool = False, verify: bool = False
    ) -> FlushResult:
        """Like delete(), for asyncio. Once begun, it is done even if the task is cancelled."""
        return await _in_thread(lambda: self.delete(filter, dry_run=dry_run, verify=verify))

    def _watched(self, wanted: Filter, operation: str, dry_run: bool, verify: bool) -> FlushResult:
        def work() -> FlushResult:
            return self._do(wanted, operation, dry_run, verify)

        return work() if dry_run else watched(operation, wanted.zone, work)

    def _do(self, wanted: Filter, operation: str, dry_run: bool, verify: bool) -> FlushResult:
        began = time.monotonic()
        keeper = self._current()
        require(self._handle, wanted.zone)
        if wanted.matches_nothing:
            return nothing_to_do()
        zones = wanted.zone if wanted.is_zones else None
        hidden = (zones or frozenset()) & keeper.hidden_zones
        result = None
        if keeper.in_step and hidden and zones and hidden < zones:
            # Only these need a scan.
            result = self._scan(Filter(zone=hidden), operation, dry_run)
            wanted = Filter(zone=zones - hidden)
        if verify and dry_run:
            # What is left is what a dump shows.
            rest = self._scan(wanted, operation, dry_run)
        else:
            rest = self._do_whole(keeper, wanted, operation, dry_run)
        if verify and not dry_run and rest.strategy.startswith("mirror"):
            scan = flush(self._handle, wanted, "scan", False, 1, None, operation)
            # The scan saw what is left, whether it was ever announced or not.
            rest = _sum(rest, scan)._replace(complete=scan.complete and not rest.failed)
        result = rest if result is None else _sum(rest, result)
        _log.say_all(keeper.said)
        return result._replace(seconds=time.monotonic() - began)

    def _do_whole(
        self, keeper: Keeper, wanted: Filter, operation: str, dry_run: bool
    ) -> FlushResult:
        narrow, exact = wanted.within(KEPT)
        lists = None
        # Only then: who must dump the table need not wait for who does so already.
        if keeper.in_step:
            with keeper.lock.real:
                if keeper.is_ready() and not keeper.hides(wanted.zone):
                    lists = keeper.memory.lists(narrow)
                    flows = keeper.memory.count()
                    known = keeper.knows(wanted.zone)
        if lists is None or (not exact and self._dumps_sooner(lists.flows, flows)):
            return self._scan(wanted, operation, dry_run)
        if operation == "flush" and not dry_run and self._is_for_kernel(lists, flows, wanted):
            return flush(self._handle, wanted, "kernel", False, 1, None)
        work = _Deletes(keeper, wanted, dry_run)
        for one in lists.lists:
            if exact:
                work.run(one)
            else:
                work.look_up(one, narrow)
        known = known and not work.has_left(lists, wanted)
        return work.result("mirror" if lists.indexed else "mirror+walk", known)

    def _scan(self, wanted: Filter, operation: str, dry_run: bool) -> FlushResult:
        """Do it as Conntrack would; callers at the same time share a dump."""
        if dry_run:
            return flush(self._handle, wanted, "auto", True, 1, None, operation)
        one_zone = operation == "flush" and wanted.zone is not None and len(wanted.zone) == 1
        # Not by a method that tells the observers, who are told of the whole.
        return self._flusher._ask(wanted, "flush" if one_zone else "delete")

    def _dumps_sooner(self, lookups: int, flows: int) -> bool:
        """Tell if a dump of the table takes less than to look up so many flows."""
        return LOOK_UP * lookups > strategy.whole_dump(flows, self._handle.buckets)

    def _is_for_kernel(self, lists: Lists, flows: int, wanted: Filter) -> bool:
        """Decide whether the kernel shall flush these zones, which hold so much."""
        handle, zones = self._handle, wanted.zone or frozenset()
        # Few flows: the kernel cannot win, however small the table, whose size need not be read.
        if not strategy.kernel_beats_mirror(0, lists.flows, 0, None, None):
            return False
        times = handle.buckets, handle.dump_seconds
        wins = strategy.kernel_beats_mirror(len(zones), lists.flows, flows, *times)
        return wins and handle.kernel_filter and capabilities.may_flush(zones)

    # Ending ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop listening, and forget everything. Every call from now on raises ValueError.

        Deletes that are under way in other threads end with ValueError, and may have done their
        work in part. May be called again.
        """
        self._end(wait=True)

    def _end(self, *, wait: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._keeper.process == process():
            self._keeper.stop(wait=wait)
            if wait:
                self._flusher.close()
        else:
            self._leave_behind()
        if self._owned:
            self._ct.close()

    def __del__(self) -> None:
        # Not to wait: whatever collects this may hold what the thread waits for.
        if hasattr(self, "_keeper"):
            self._end(wait=False)

    def __repr__(self) -> str:
        if self._closed:
            return "<nlct.Mirror: closed>"
        return f"<nlct.Mirror: {'in step' if self._keeper.in_step else 'not in step'}>"


# Deleting -----------------------------------------------------------------------------------------


class _Deletes:
    """Deletes flows that a memory knows, and counts what came of it.

    ``dry_run``: only counts.
    """

    def __init__(self, keeper: Keeper, wanted: Filter, dry_run: bool) -> None:
        self._keeper = keeper
        self._wanted = wanted
        self._dry_run = dry_run
        self._tally = ffi.new("struct nlct_tally *")
        self._looked_up = self._matched = 0
        self._refused: Counter[int] = Counter()

    def run(self, one: ffi.CData) -> None:
        """Delete what matches in a list."""
        memory = self._keeper.memory
        if self._dry_run:
            found = (len(rows) for rows in memory.rows(one, self._wanted))
            self._matched += sum(found) // FLOW_SIZE
            return
        try:
            for _ in memory.delete(one, self._wanted, self._keeper.deleting_socket, self._tally):
                pass
        except Error:
            self._keeper.renew_socket()
            raise

    def look_up(self, one: ffi.CData, narrow: Filter) -> None:
        """Delete what matches in a list, by what the kernel says of each flow now.

        ``narrow``: the part of the filter that memory can match.
        """
        for rows in self._keeper.memory.rows(one, narrow):
            matching = [flow for flow in flows_from(rows, b"") if self._matches(flow)]
            self._matched += len(matching)
            if matching and not self._dry_run:
                self._delete(matching)

    def _matches(self, flow: Flow) -> bool:
        self._looked_up += 1
        try:
            found = _lookup.find(self._keeper.handle, flow, "look up a flow")[0]
        except NotFoundError:
            return False
        return self._wanted.matches(found)

    def _delete(self, flows: list[Flow]) -> None:
        keeper = self._keeper
        said = ffi.new("int[]", len(flows))
        rows = ffi.from_buffer("struct nlct_flow[]", b"".join(map(row_to_delete, flows)))
        with keeper.lock.real:
            sock = keeper.deleting_socket()
            try:
                if not sock.handle:
                    raise RuntimeError("a delete does not outlive a fork: ask again")
                rc = lib.nlct_delete_flows(sock.handle, rows, len(flows), said)
                sock.check(rc, "delete flows")
                for flow, result in zip(flows, said):
                    if result == 0:
                        keeper.memory.remove(flow)
            except BaseException:
                # A signal handler, too, may leave flows in memory that are deleted.
                keeper.renew_socket()
                raise
        self._refused.update(-result for result in said)

    def has_left(self, lists: Lists, wanted: Filter) -> bool:
        """Tell if the kernel did not find a flow of which no event tells that it is gone.

        It may be there: its tuples may lead to other flows.
        """
        if self._dry_run or not self._not_found():
            return False
        keeper = self._keeper
        with keeper.lock.real:
            keeper.drain()
        narrow, _ = wanted.within(KEPT)
        return any(rows for one in lists.lists for rows in keeper.memory.rows(one, narrow))

    def _not_found(self) -> int:
        return int(self._tally.refused[errno.ENOENT]) + self._refused[errno.ENOENT]

    def result(self, way: str, known: bool) -> FlushResult:
        """Return the outcome. ``known``: nothing that matches is left, as far as can be known."""
        refused = self._refused
        counts = ffi.buffer(self._tally.refused)[:]
        # Nearly always there are none: to look at each takes longer than a small flush.
        if counts != _NO_ERRORS:
            refused += Counter(dict(enumerate(memoryview(counts).cast("Q"))))
        deleted = self._tally.done + refused.pop(0, 0)
        gone = refused.pop(errno.ENOENT, 0)
        failed = {number: count for number, count in refused.items() if count}
        if failed.get(errno.ENOBUFS):
            with self._keeper.lock.real:
                self._keeper.miss_answers()
        matched = self._matched or deleted + gone + sum(failed.values())
        return FlushResult(
            scanned=self._looked_up,
            matched=matched,
            deleted=deleted,
            already_gone=gone,
            failed=failed,
            strategy=way,
            passes=0,
            complete=known and not (failed or (self._dry_run and matched)),
        )


def _sum(one: FlushResult, other: FlushResult) -> FlushResult:
    """Return what came of two parts."""

    def both(name: str) -> int | None:
        parts = getattr(one, name), getattr(other, name)
        return None if None in parts else sum(parts)

    return one._replace(
        scanned=both("scanned"),
        matched=both("matched"),
        deleted=both("deleted"),
        already_gone=one.already_gone + other.already_gone,
        failed=dict(Counter(one.failed) + Counter(other.failed)),
        strategy="+".join(dict.fromkeys(f"{one.strategy}+{other.strategy}".split("+"))),
        passes=one.passes + other.passes,
        complete=one.complete and other.complete,
    )


async def _in_thread(work: Callable[[], FlushResult]) -> FlushResult:
    # Imported here: its caller has it already, and all others need not load it.
    import asyncio  # noqa: PLC0415

    return await asyncio.get_running_loop().run_in_executor(None, work)


def _indexes(index: Iterable[str]) -> set[str]:
    if isinstance(index, str) or not isinstance(index, Iterable):
        raise TypeError(f"index must be a list of names, not {index!r}")
    wanted = set(index)
    for name in wanted:
        if name not in INDEXES:
            raise ValueError(f"index must be of {', '.join(INDEXES)}, not {name!r}")
    return wanted


# Forks and the end --------------------------------------------------------------------------------

# Not a WeakSet: list() copies a plain set at once, whatever other threads do to it.
_mirrors: set[weakref.ref[Mirror]] = set()
# What a parent's threads may have been using when it forked: never touch it, nor free it.
_left_behind: list[Keeper] = []


def _open_mirrors() -> list[Mirror]:
    found = [reference() for reference in list(_mirrors)]
    return [mirror for mirror in found if mirror is not None]


def _after_fork() -> None:
    for mirror in _open_mirrors():
        mirror._beginning = _threads.Lock()
        mirror._leave_behind()


def _at_exit() -> None:
    for mirror in _open_mirrors():
        mirror.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
