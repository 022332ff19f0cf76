"""The size of the hash table, by which a resize is told: the kernel does not speak of it."""

from __future__ import annotations

import errno
import os

from nlct._ffi import descriptor, ffi, lib
from nlct.errors import check, error
from nlct.netns import Netns

PATH = "/proc/sys/net/netfilter/nf_conntrack_buckets"
# What a resize has disturbed is done so often before we say so.
MAX_PASSES = 10


def watch(netns: Netns) -> ffi.CData:
    """Open the file of a namespace, a ``struct nlct_fd *`` without a descriptor if there is none.

    It appears when the kernel loads conntrack.
    """
    held = descriptor()
    rc = lib.nlct_netns_file(netns.to_c(), PATH.encode(), os.O_RDONLY, held)
    if rc != -errno.ENOENT:
        check(rc, f"open {PATH}, which tells of a resize")
    return held


def read(held: ffi.CData) -> int | None:
    """Return the size, None where the kernel has no file of it."""
    if held.fd < 0:
        return None
    operation = f"read {PATH}"
    try:
        said = os.pread(held.fd, 32, 0)
    except OSError as exc:
        raise error(exc.errno or 0, operation) from exc
    try:
        return int(said)
    except ValueError:
        reason = f"it must hold a number, not {said!r}"
        raise error(errno.EBADMSG, operation, reason=reason) from None
