"""One walk over the table, in steps short enough for Ctrl-C."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from nlct._ffi import NO_SINK, descriptor, ffi, lib, slot
from nlct._forks import process
from nlct._socket import Socket
from nlct.filter import Filter

STEP_MILLISECONDS = 5


# No descriptor of nf_conntrack_buckets.
NOTHING = descriptor()


class Dump:
    """One walk over the table that feeds a sink.

    ``zone_request``: the kernel is asked to leave out what it can, and for a zone in this way
    (``lib.NLCT_ZONE_...``); it is matched again all the same. None asks for the whole table.
    ``buckets``: a descriptor of nf_conntrack_buckets, NOTHING where there is no such file.
    """

    def __init__(
        self, sock: Socket, filter: Filter, zone_request: int | None, buckets: ffi.CData
    ) -> None:
        self._sock = sock
        self._filter = filter.to_c()
        self._buckets = buckets
        self._progress = ffi.new("struct nlct_progress *")
        self._ask = ffi.NULL if zone_request is None else filter.ask(zone_request)
        self._start()

    def _start(self) -> None:
        self._dump = slot("struct nlct_dump **", lib.nlct_dump_free)
        sock = self._sock
        sock.clean = self.ended = False
        rc = lib.nlct_dump_start(
            self._dump, sock.handle, self._filter[0], self._ask, self._buckets.fd
        )
        sock.check(rc, "ask for the table")

    def _refused(self, rc: int) -> bool:
        """Tell if the kernel will not be asked for less than everything."""
        return rc in (-errno.EINVAL, -errno.EOPNOTSUPP) and self._ask != ffi.NULL

    def steps(self, sink: ffi.CData = NO_SINK) -> Iterator[None]:
        """Walk on, yielding after each step, also after the last."""
        more = 1
        while more:
            if self._sock.process != process():
                raise RuntimeError("a walk does not outlive a fork: begin a new one")
            rc = lib.nlct_dump_next(self._dump[0], sink[0], STEP_MILLISECONDS)
            if self._refused(rc) and not self.scanned:
                self._ask = ffi.NULL
                self._start()
                continue
            lib.nlct_dump_progress(self._dump[0], self._progress)
            more = self._sock.check(rc, "walk over the table")
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
        """Flows among them that matched."""
        return int(self._progress.matched)

    @property
    def disturbed(self) -> bool:
        """True if the table was resized, so that flows may be missing or repeated."""
        return bool(self._progress.resized or self._progress.interrupted)
