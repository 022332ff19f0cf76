"""What every dump needs: the kernel's filter, a refusal of zones, repeating, progress."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from nlct import capabilities
from nlct._ffi import NO_SINK, ffi, lib
from nlct._handle import NOTHING, Dump, Handle
from nlct.errors import InterruptedDumpError, UnsupportedError
from nlct.filter import Filter

Progress = Callable[[int], None]

# How often a dump is made, before it counts as failed because resizes disturb it.
MAX_DUMPS = 10


def require(handle: Handle, zones: frozenset[int] | None) -> None:
    """Refuse zones where the kernel was built without them. Raises ValueError after close().

    Every dump does so when it begins; a caller that is to raise before that does it itself.
    """
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
def dump(handle: Handle, wanted: Filter, unlisted: int = 0) -> Iterator[Dump]:
    """Begin a dump, on a socket of its own. ``unlisted``: see Dump."""
    require(handle, wanted.zone)
    if unlisted:
        asked = wanted.to_c(), ffi.NULL, NOTHING
        with handle.pool.lend() as sock, Dump(sock, *asked, unlisted=unlisted) as begun:
            yield begun
        return
    kernel_filter = ffi.NULL
    if handle.kernel_filter:
        zoned = handle.has_zones is not False
        zone_request = capabilities.zone_request() if zoned else lib.NLCT_ZONE_UNASKED
        kernel_filter = wanted.kernel_filter(zone_request)
    matching, buckets = wanted.to_c(), handle.open_buckets()
    with handle.pool.lend() as sock, Dump(sock, matching, kernel_filter, buckets) as begun:
        yield begun


def undisturbed(
    handle: Handle,
    wanted: Filter,
    operation: str,
    make_sink: Callable[[], ffi.CData] = lambda: NO_SINK,
    progress: Progress | None = None,
) -> Dump:
    """Dump until no resize disturbs the dump, with a new sink each time.

    Raises InterruptedDumpError, which names the operation, if every dump is disturbed.
    """
    for _ in range(MAX_DUMPS):
        with dump(handle, wanted) as made:
            for _ in made.steps(make_sink()):
                if progress is not None:
                    progress(made.scanned)
        if not made.disturbed:
            return made
    raise InterruptedDumpError(errno.EINTR, operation)
