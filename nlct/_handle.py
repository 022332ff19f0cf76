"""One namespace's table as the kernel offers it: sockets, walks, counters."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from nlct import _buckets, _check, capabilities
from nlct._dump import NOTHING, Dump
from nlct._ffi import NO_SINK, ffi, lib, slot
from nlct._socket import SocketPool
from nlct.errors import Error, InterruptedDumpError, UnsupportedError
from nlct.filter import Filter
from nlct.flow import Flow, flows_from, to_c
from nlct.netns import Netns

Progress = Callable[[int], None]


class Heap:
    """Where the core puts what has no fixed size."""

    def __init__(self) -> None:
        self.c = slot("struct nlct_bytes *", lib.nlct_bytes_free)

    def take(self) -> bytes:
        """Return what is there, and start anew."""
        taken = b"" if not self.c.size else bytes(ffi.buffer(self.c.data, self.c.size))
        self.c.size = 0
        return taken


class Handle:
    """The table of one namespace.

    ``kernel_filter``: let the kernel leave out of a walk what it can.
    """

    def __init__(self, netns: Netns, kernel_filter: bool) -> None:
        self._netns = netns
        self.pool = SocketPool(netns)
        self.kernel_filter = kernel_filter
        # Is the kernel built with zones? None until it is asked.
        self._has_zones: bool | None = None
        self._buckets = NOTHING

    def close(self) -> None:
        """Let go of sockets and namespace."""
        self.pool.close()
        # Walks that are under way hold it, too.
        self._buckets = NOTHING
        self._netns.close()

    def stats(self) -> tuple[int, int]:
        """Return the number of entries and their limit."""
        entries = ffi.new("uint32_t *")
        limit = ffi.new("uint32_t *")
        with self.pool.lend() as sock:
            sock.check(lib.nlct_stats(sock.handle, entries, limit), "read the counters")
        return entries[0], limit[0]

    @property
    def buckets(self) -> int | None:
        """Size of the hash table, None where it cannot be told."""
        try:
            return self.read_buckets()
        except Error:
            return None

    def read_buckets(self) -> int | None:
        """Return the size of the hash table, None where the kernel has no file of it."""
        # Held while it is read: close() may come from another thread.
        held = self._open_buckets()
        return _buckets.read(held)

    def _open_buckets(self) -> ffi.CData:
        """Open the file at need."""
        self.pool.check_open()
        held = self._buckets
        # Somebody may have closed our number.
        if held.fd < 0 or not lib.nlct_fd_is(held):
            held = _buckets.watch(self._netns)
            self._buckets = held
            # Only now: a close() that comes later lets go of what is kept.
            try:
                self.pool.check_open()
            except ValueError:
                self._buckets = NOTHING
                raise
        return held

    def get(self, key: Flow, operation: str = "get a flow") -> Flow:
        """Return the flow with this original tuple and zone. Raises NotFoundError."""
        row, _heap = to_c(key)
        found = ffi.new("struct nlct_flow *")
        heap = Heap()
        with self.pool.lend() as sock:
            sock.check(lib.nlct_get(sock.handle, row, found, heap.c), operation)
        return next(flows_from(ffi.buffer(found)[:], heap.take()))

    def require(self, wanted: Filter) -> None:
        """Refuse zones where the kernel was built without them."""
        self.pool.check_open()
        if not wanted.zone:
            return
        if self._has_zones is None:
            with self.pool.lend() as sock:
                self._has_zones = capabilities.has_zones(sock)
        if not self._has_zones and wanted.zone != {0}:
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                f"use zone {max(wanted.zone)}",
                reason="the kernel was built without conntrack zones",
            )

    @contextmanager
    def walk(self, wanted: Filter) -> Iterator[Dump]:
        """Begin a walk over the table, on a socket of its own."""
        ask = None
        if self.kernel_filter:
            zoned = self._has_zones is not False
            ask = capabilities.zone_request() if zoned else lib.NLCT_ZONE_UNASKED
        with self.pool.lend() as sock:
            walk = Dump(sock, wanted, ask, self._open_buckets())
            try:
                yield walk
            finally:
                walk.close()

    def look(
        self,
        wanted: Filter,
        operation: str,
        make_sink: Callable[[], ffi.CData] = lambda: NO_SINK,
        progress: Progress | None = None,
    ) -> Dump:
        """Walk over the table until a walk was not disturbed, with a new sink each time.

        Raises InterruptedDumpError of the operation where none was.
        """
        _check.function("progress", progress)
        self.require(wanted)
        for _pass in range(_buckets.MAX_PASSES):
            with self.walk(wanted) as walk:
                for _ in walk.steps(make_sink()):
                    if progress is not None:
                        progress(walk.scanned)
            if not walk.disturbed:
                return walk
        raise InterruptedDumpError(errno.EINTR, operation)
