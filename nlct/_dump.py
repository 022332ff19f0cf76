"""What every dump needs: the kernel's filter, zones where there are none, repeating, progress."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from nlct import capabilities
from nlct._ffi import NO_SINK, ffi, lib
from nlct._handle import Dump, Handle
from nlct.errors import InterruptedDumpError, UnsupportedError
from nlct.filter import Filter

Progress = Callable[[int], None]

# A dump that a resize has disturbed is made so often before we say so.
MAX_DUMPS = 10


def require(handle: Handle, zones: frozenset[int] | None) -> None:
    """Refuse zones where the kernel was built without them. Raises ValueError after close()."""
    handle.pool.check_open()
    if not zones:
        return
    if handle.has_zones is None:
        handle.has_zones = capabilities.has_zones(handle)
    if not handle.has_zones and zones != {0}:
        raise UnsupportedError(
            errno.EOPNOTSUPP,
            f"use zone {max(zones)}",
            reason="the kernel was built without conntrack zones",
        )


@contextmanager
def dump(handle: Handle, wanted: Filter) -> Iterator[Dump]:
    """Begin a dump, on a socket of its own. First require() what it is about."""
    asked = ffi.NULL
    if handle.kernel_filter:
        zoned = handle.has_zones is not False
        asked = wanted.ask(capabilities.zone_request() if zoned else lib.NLCT_ZONE_UNASKED)
    matching, buckets = wanted.to_c(), handle.open_buckets()
    with handle.pool.lend() as sock, Dump(sock, matching, asked, buckets) as begun:
        yield begun


def undisturbed(
    handle: Handle,
    wanted: Filter,
    operation: str,
    make_sink: Callable[[], ffi.CData] = lambda: NO_SINK,
    progress: Progress | None = None,
) -> Dump:
    """Dump until a dump was not disturbed by a resize, with a new sink each time.

    Raises InterruptedDumpError of the operation where none was.
    """
    for _ in range(MAX_DUMPS):
        with dump(handle, wanted) as made:
            for _ in made.steps(make_sink()):
                if progress is not None:
                    progress(made.scanned)
        if not made.disturbed:
            return made
    raise InterruptedDumpError(errno.EINTR, operation)
