"""One namespace's table as the kernel offers it: sockets, requests, dumps of messages, counters.

It knows neither filters nor what a kernel can do: that stands above.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from nlct import _threads
from nlct._closing import Closing
from nlct._ffi import NO_SINK, descriptor, ffi, lib, slot, text
from nlct._forks import process
from nlct.errors import Error, NotFoundError, TableFullError, check, error
from nlct.netns import Netns, NetnsLike

# The size of the hash table, by which a resize is told: the kernel does not speak of it.
BUCKETS = "/proc/sys/net/netfilter/nf_conntrack_buckets"
# Which flows have events: 0 for none, 1 for all, 2 for those made while somebody listens.
EVENTS = "/proc/sys/net/netfilter/nf_conntrack_events"
# How many flows every namespace may hold: one number for the whole machine.
LIMIT = "/proc/sys/net/netfilter/nf_conntrack_max"
MAX_IDLE = 4
STEP_MILLISECONDS = 5
# No descriptor of a file.
NOTHING = descriptor()


class Bytes:
    """Bytes that the core fills: what has no fixed size goes to their end."""

    def __init__(self) -> None:
        self.c = slot("struct nlct_bytes *", lib.nlct_bytes_free)

    def take(self) -> bytes:
        """Return what is there, and start anew."""
        taken = self.copy()
        self.c.size = 0
        return taken

    def copy(self) -> bytes:
        """Return what is there."""
        return b"" if not self.c.size else bytes(ffi.buffer(self.c.data, self.c.size))


# Sockets -----------------------------------------------------------------------------------------


class Socket:
    """A netlink socket that is proved to be in a namespace, for one thread at a time."""

    def __init__(self, netns: Netns) -> None:
        self._slot = slot("struct nlct_socket **", lib.nlct_socket_close)
        check(lib.nlct_socket_open(self._slot, netns.to_c()), "open a netlink socket")
        self.handle = self._slot[0]
        self.process = process()
        # False while an answer is still under way.
        self.clean = True

    def close(self) -> None:
        """Close the socket now."""
        self.handle = ffi.NULL
        ffi.release(self._slot)

    def check(self, rc: int, operation: str) -> int:
        """Return what the core returned, or raise it with the kernel's own words."""
        if rc < 0:
            raise error(-rc, operation, text(lib.nlct_socket_text(self.handle)))
        return rc


class _Idle:
    """The sockets that one process has to lend.

    The lock is reentrant: a signal handler may begin an operation in the middle of a loan.
    """

    def __init__(self) -> None:
        self.lock = _threads.Lock()
        self.sockets: list[Socket] = []


class SocketPool:
    """Lends a socket to each operation, so that any thread may begin one at any time.

    A socket comes back only if its exchange with the kernel was completed; after a fork the
    child leaves the parent's sockets alone and opens its own.
    """

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        # By process: in a child, a thread that is not there may hold the parent's lock.
        self._idle = {process(): _Idle()}
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[Socket]:
        """Lend a socket. An exception inside closes it."""
        sock = self._take()
        try:
            yield sock
        except BaseException:
            sock.close()
            raise
        self._give(sock)

    def close(self) -> None:
        """Close the idle sockets; lent ones are closed when they come back.

        After that no socket is opened any more, so the namespace may be let go of.
        """
        idle = self._own()
        with idle.lock.real:
            self._closed = True
            sockets, idle.sockets = idle.sockets, []
        for sock in sockets:
            sock.close()

    def check_open(self) -> None:
        """Raise ValueError after close()."""
        if self._closed:
            raise ValueError("this Conntrack is closed")

    def _own(self) -> _Idle:
        """Return what this process has to lend, one and the same for all of its threads."""
        now = process()
        own = self._idle.get(now)
        if own is None:
            own = self._idle.setdefault(now, _Idle())
            for other in list(self._idle):
                if other != now:
                    self._idle.pop(other, None)
        return own

    def _take(self) -> Socket:
        idle = self._own()
        with idle.lock.real:
            self.check_open()
            while idle.sockets:
                kept = idle.sockets.pop()
                # The program may have closed all descriptors, and reused its number.
                if lib.nlct_socket_is(kept.handle):
                    return kept
            return Socket(self._netns)

    def _give(self, sock: Socket) -> None:
        idle = self._own()
        with idle.lock.real:
            of_us = not self._closed and sock.process == process()
            if of_us and sock.clean and len(idle.sockets) < MAX_IDLE:
                idle.sockets.append(sock)
                return
        sock.close()


# Dumps -------------------------------------------------------------------------------------------


def refused(counted: ffi.CData) -> dict[int, int]:
    """Return how many were refused, by errno; ``counted``: a struct that has ``refused``."""
    counts = memoryview(ffi.buffer(counted.refused)).cast("Q")
    return {number: count for number, count in enumerate(counts) if count}


def everything() -> ffi.CData:
    """Make a ``struct nlct_filter **`` that lets every flow through."""
    made = slot("struct nlct_filter **", lib.nlct_filter_free)
    check(lib.nlct_filter_new(made, ffi.NULL, 0), "make a filter")
    return made


class Dump(Closing):
    """One dump that feeds a sink, in steps short enough for Ctrl-C.

    ``matching``: the ``struct nlct_filter **`` that flows must pass to reach the sink.
    ``kernel_filter``: the ``struct nlct_kernel_filter *``, what the kernel is asked to leave out
    for speed alone; NULL asks for the whole table.
    ``buckets``: a descriptor of BUCKETS, NOTHING where there is no such file.
    ``insist``: raise where the kernel refuses that filter, instead of asking for the whole table.
    ``unlisted``: one of ``lib.NLCT_DYING`` and ``NLCT_UNCONFIRMED``, which the kernel is asked for
    instead of the table; it filters none of them.
    """

    def __init__(
        self,
        sock: Socket,
        matching: ffi.CData,
        kernel_filter: ffi.CData,
        buckets: ffi.CData,
        insist: bool = False,
        unlisted: int = 0,
    ) -> None:
        self._sock = sock
        self._matching = matching
        self._kernel_filter = kernel_filter
        self._buckets = buckets
        self._insist = insist
        self._unlisted = unlisted
        self._progress = ffi.new("struct nlct_progress *")
        self._start()

    def _start(self) -> None:
        self._dump = slot("struct nlct_dump **", lib.nlct_dump_free)
        sock = self._sock
        sock.clean = self.ended = False
        asked = self._dump, sock.handle, self._matching[0]
        if self._unlisted:
            rc = lib.nlct_dump_start_unlisted(*asked, self._unlisted)
        else:
            rc = lib.nlct_dump_start(*asked, self._kernel_filter, self._buckets.fd)
        sock.check(rc, "ask for the table")

    def _refused(self, rc: int) -> bool:
        """Tell if the kernel will not be asked for less than everything."""
        return (
            not self._insist
            and rc in (-errno.EINVAL, -errno.EOPNOTSUPP)
            and self._kernel_filter != ffi.NULL
        )

    def receive_alone(self) -> None:
        """Make the caller receive by itself: for a dump that takes its time. Before steps()."""
        lib.nlct_dump_alone(self._dump[0])

    def steps(
        self, sink: ffi.CData = NO_SINK, milliseconds: int = STEP_MILLISECONDS
    ) -> Iterator[None]:
        """Go on for some milliseconds at a time, yielding after each step, also after the last."""
        more = 1
        while more:
            if self._sock.process != process():
                raise RuntimeError("a dump does not outlive a fork: begin a new one")
            rc = lib.nlct_dump_next(self._dump[0], sink[0], milliseconds)
            if self._refused(rc) and not self.scanned:
                self._kernel_filter = ffi.NULL
                self._start()
                continue
            lib.nlct_dump_progress(self._dump[0], self._progress)
            more = self._sock.check(rc, "dump the table")
            self._sock.clean = self.ended = not more
            yield

    def close(self) -> None:
        """Stop receiving. Before the socket is closed or used again."""
        ffi.release(self._dump)

    @property
    def scanned(self) -> int:
        """Flows that the kernel sent so far."""
        return int(self._progress.scanned)

    @property
    def matched(self) -> int:
        """Flows among them that reached the sink."""
        return int(self._progress.matched)

    @property
    def disturbed(self) -> bool:
        """True if the table was resized, so that flows may be missing or repeated."""
        return bool(self._progress.resized or self._progress.interrupted)


# The table of a namespace ------------------------------------------------------------------------


class Handle(Closing):
    """The table of one namespace.

    ``kernel_filter``: let the kernel leave out of a dump what it can.
    """

    def __init__(self, netns: Netns, kernel_filter: bool = True) -> None:
        self._netns = netns
        self.pool = SocketPool(netns)
        self.kernel_filter = kernel_filter
        # The kernel was built with zones. None until it is asked.
        self.has_zones: bool | None = None
        # Seconds that a dump takes here in which the kernel sends nothing. None until one was seen.
        self.dump_seconds: float | None = None
        # Descriptors of files of this namespace, by path.
        self._files: dict[str, ffi.CData] = {}

    @classmethod
    def open(cls, netns: NetnsLike | None, kernel_filter: bool) -> Handle:
        """Hold a namespace, that of the calling thread for None; see Netns.open()."""
        where = Netns.current() if netns is None else Netns.open(netns)
        return cls(where, kernel_filter)

    def close(self) -> None:
        """Let go of sockets and namespace. May be called again."""
        self.pool.close()
        # Dumps that are under way hold one, too.
        self._files = {}
        self._netns.close()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    # Requests ------------------------------------------------------------------------------

    def run(self, operation: str, request: Callable[..., int], *arguments: Any) -> None:
        """Let the core make a request on a socket, and raise what it says of it."""
        with self.pool.lend() as sock:
            sock.check(request(sock.handle, *arguments), operation)

    def stats(self) -> tuple[int, int]:
        """Return the number of entries and their limit (``CTA_STATS_GLOBAL_...``)."""
        entries = ffi.new("uint32_t *")
        limit = ffi.new("uint32_t *")
        self.run("read the counters", lib.nlct_stats, entries, limit)
        return entries[0], limit[0]

    def stats_cpu(self, expectations: bool) -> list[tuple[int, int, int]]:
        """Return (processor, attribute, value) of each counter that the kernel keeps."""
        data = Bytes()
        what = "expectations" if expectations else "flows"
        self.run(f"read the counters of {what}", lib.nlct_stats_cpu, expectations, data.c)
        packed = data.take()
        counters = ffi.from_buffer("struct nlct_counter[]", packed)
        return [(each.cpu, each.attribute, each.value) for each in counters]

    def get(self, key: ffi.CData, operation: str) -> tuple[bytes, bytes]:
        """Return the flow with the original tuple and zone of ``key``, as a row and its bytes.

        Raises NotFoundError (``IPCTNL_MSG_CT_GET``).
        """
        row = ffi.new("struct nlct_flow *")
        data = Bytes()
        with self.pool.lend() as sock:
            rc = lib.nlct_get(sock.handle, key, row, data.c)
            # That there is none is an answer like any other: the socket is kept.
            if rc != -errno.ENOENT:
                sock.check(rc, operation)
        if rc == -errno.ENOENT:
            raise NotFoundError(errno.ENOENT, operation)
        return ffi.buffer(row)[:], data.take()

    def create(self, row: ffi.CData, data: ffi.CData) -> None:
        """Create a flow (``IPCTNL_MSG_CT_NEW``). Raises TableFullError, ExistsError."""
        operation = "create a flow"
        with self.pool.lend() as sock:
            rc = lib.nlct_create(sock.handle, row, data)
            if rc == -errno.ENOMEM:
                raise TableFullError(errno.ENOMEM, operation)
            sock.check(rc, operation)

    def update(self, row: ffi.CData, data: ffi.CData) -> None:
        """Change the flow with the tuple and zone of a row to what else is in it."""
        self.run("update a flow", lib.nlct_update, row, data)

    def delete(self, row: ffi.CData) -> None:
        """Delete the flow with the tuple, zone and id of a row (``IPCTNL_MSG_CT_DELETE``)."""
        self.run("delete a flow", lib.nlct_delete, row)

    def flush_all(self) -> None:
        """Let the kernel flush everything."""
        self.run("flush everything", lib.nlct_flush_all)

    def flush_zone(self, zone: int, zone_request: int) -> None:
        """Let the kernel flush one zone. DANGER: only where it has been seen to honour it."""
        self.run(f"flush zone {zone}", lib.nlct_flush_zone, zone, zone_request)

    def open_socket(self) -> Socket:
        """Open a socket that the caller keeps, and closes."""
        self.pool.check_open()
        return Socket(self._netns)

    # Events ------------------------------------------------------------------------------------

    def open_events(
        self,
        events: ffi.CData,
        kinds: int,
        matching: ffi.CData,
        kernel_filter: ffi.CData,
        buffer: int,
    ) -> None:
        """Begin to listen, in a ``struct nlct_events **``; see nlct_events_open()."""
        self.pool.check_open()
        arguments = self._netns.to_c(), kinds, matching[0], kernel_filter, buffer
        check(lib.nlct_events_open(events, *arguments), "listen to events")

    def open_expect_events(self, events: ffi.CData, kinds: int, buffer: int) -> None:
        """Begin to listen to events of expectations; see nlct_expect_events_open()."""
        self.pool.check_open()
        arguments = self._netns.to_c(), kinds, buffer
        check(lib.nlct_expect_events_open(events, *arguments), "listen to events")

    # Sysctls -----------------------------------------------------------------------------------

    @property
    def buckets(self) -> int | None:
        """Size of the hash table, None where it cannot be told."""
        try:
            return self.read_buckets()
        except Error:
            return None

    def read_buckets(self) -> int | None:
        """Return the size of the hash table, None where the kernel has no file of it."""
        return self.read_number(BUCKETS)

    def open_buckets(self) -> ffi.CData:
        """Return a descriptor of that file; see open_file()."""
        return self.open_file(BUCKETS)

    def read_number(self, path: str) -> int | None:
        """Return the number in a file of this namespace, None where the kernel has none."""
        # Held while it is read: close() may come from another thread.
        held = self.open_file(path)
        if held.fd < 0:
            return None
        operation = f"read {path}"
        try:
            said = os.pread(held.fd, 32, 0)
        except OSError as exc:
            raise error(exc.errno or 0, operation) from exc
        try:
            return int(said)
        except ValueError:
            reason = f"it must hold a number, not {said!r}"
            raise error(errno.EBADMSG, operation, reason=reason) from None

    def write_number(self, path: str, number: int, operation: str) -> None:
        """Write a number into a file of this namespace."""
        self.pool.check_open()
        held = descriptor()
        check(lib.nlct_netns_file(self._netns.to_c(), path.encode(), os.O_WRONLY, held), operation)
        try:
            os.write(held.fd, str(number).encode())
        except OSError as exc:
            raise error(exc.errno or 0, operation) from exc

    def may_write(self, path: str) -> bool:
        """Tell if a file of this namespace is for anybody to write."""
        held = self.open_file(path)
        return held.fd >= 0 and bool(os.fstat(held.fd).st_mode & 0o222)

    def open_file(self, path: str) -> ffi.CData:
        """Open a file at need, and hold it. Without a descriptor until conntrack is loaded."""
        self.pool.check_open()
        held = self._files.get(path, NOTHING)
        # Somebody may have closed our number.
        if held.fd < 0 or not lib.nlct_fd_is(held):
            # The same file may get the same number again: the old owner must not close that.
            lib.nlct_fd_take(held)
            held = self._open_new(path)
            self._files[path] = held
            # Only now: a close() that comes later lets go of what is kept.
            try:
                self.pool.check_open()
            except ValueError:
                self._files = {}
                raise
        return held

    def _open_new(self, path: str) -> ffi.CData:
        held = descriptor()
        rc = lib.nlct_netns_file(self._netns.to_c(), path.encode(), os.O_RDONLY, held)
        if rc not in (0, -errno.ENOENT):
            # Perhaps because another thread has closed the namespace meanwhile.
            self.pool.check_open()
            check(rc, f"open {path}")
        return held


class Holder(Closing):
    """What has the handle of a table: a Conntrack, with which others may work."""

    _handle: Handle


def borrow(netns: NetnsLike | Holder | None, kernel_filter: bool) -> tuple[Handle, bool]:
    """Return the handle of a Conntrack, or else a new one, and whether it is new."""
    if not isinstance(netns, Holder):
        return Handle.open(netns, kernel_filter), True
    if not kernel_filter:
        raise ValueError("kernel_filter is for the Conntrack to say")
    return netns._handle, False
