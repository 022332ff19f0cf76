"""One door from a negative errno to an exception."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping


class Error(OSError):
    """A request to the kernel that failed.

    ``errno``: the kernel's error number. ``operation``: what nlct asked for. ``reason``: the field
    that was wrong and why, or what else nlct knows of the cause; empty if it knows nothing.
    ``kernel_message``: the kernel's extended-ack text; empty if it sent none.
    """

    operation: str
    kernel_message: str
    reason: str

    def __init__(
        self, number: int, operation: str, kernel_message: str = "", reason: str = ""
    ) -> None:
        why = f": {reason}" if reason else ""
        hint = f" (kernel: {kernel_message})" if kernel_message else ""
        super().__init__(number, f"{operation}: {self._describe(number)}{why}{hint}")
        self.operation = operation
        self.kernel_message = kernel_message
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errno, self.operation, self.kernel_message, self.reason)

    def _describe(self, number: int) -> str:
        return _WORDS.get(number) or os.strerror(number)


# Where the C library's words would mislead.
_WORDS = {
    errno.ECHILD: "the child process that does this in another namespace did not finish",
    errno.EXDEV: "this is another network namespace than the one meant; a thread that has moved "
    "makes a new object",
}


class NotFoundError(Error):
    """No such flow, or no such network namespace (ENOENT)."""


class ExistsError(Error):
    """A flow with this tuple is already there (EEXIST)."""


class UnsupportedError(Error):
    """This kernel cannot do that, or has not been seen to do it safely (EOPNOTSUPP).

    EPROTONOSUPPORT and EAFNOSUPPORT: the kernel has no conntrack over netlink at all.
    """


class TableFullError(Error):
    """The table is at its limit, ``nf_conntrack_max`` (ENOMEM)."""


class InvalidRequestError(Error):
    """A request (EINVAL, ERANGE) or an answer of the kernel (EBADMSG) was malformed."""


class InterruptedDumpError(Error):
    """The table changed its size during a dump: flows may be missing or repeated (EINTR)."""

    def _describe(self, number: int) -> str:  # noqa: ARG002
        return "the table was resized while it was dumped"


class OverrunError(Error):
    """The kernel had no room to queue an answer, so some answers are lost (ENOBUFS)."""


class PrivilegeError(Error, PermissionError):
    """The capability CAP_NET_ADMIN is missing (EPERM, EACCES). Also a PermissionError."""

    def _describe(self, number: int) -> str:
        return (
            f"{os.strerror(number)}; this needs the capability CAP_NET_ADMIN, and to enter another "
            "namespace CAP_SYS_ADMIN, in the user namespace that owns the network namespace"
        )


_KINDS: dict[int, type[Error]] = {
    errno.ENOENT: NotFoundError,
    errno.EEXIST: ExistsError,
    errno.EOPNOTSUPP: UnsupportedError,
    errno.EPROTONOSUPPORT: UnsupportedError,
    errno.EAFNOSUPPORT: UnsupportedError,
    errno.EINVAL: InvalidRequestError,
    errno.ERANGE: InvalidRequestError,
    errno.EBADMSG: InvalidRequestError,
    errno.ENOBUFS: OverrunError,
    errno.EPERM: PrivilegeError,
    errno.EACCES: PrivilegeError,
}


def error(number: int, operation: str, kernel_message: str = "", reason: str = "") -> Error:
    """Make the exception for an errno."""
    return _KINDS.get(number, Error)(number, operation, kernel_message, reason)


# As nlct.h says: beyond it is the signal that ended a child.
_KILLED = 4096


def check(rc: int, operation: str) -> int:
    """Return what the core returned, or raise what it means."""
    if rc < -_KILLED:
        why = f"it was ended by {_signal_name(-rc - _KILLED)}"
        raise Error(errno.ECHILD, operation, reason=why)
    if rc < 0:
        raise error(-rc, operation)
    return rc


def errno_names(failed: Mapping[int, int]) -> dict[str, int]:
    """Return counts by the names of errnos, of counts by errno; for JSON."""
    return {errno.errorcode.get(number, str(number)): count for number, count in failed.items()}


def _signal_name(number: int) -> str:
    # Imported when it is needed, to keep `import nlct` quick.
    try:
        import signal  # noqa: PLC0415
    except (ImportError, OSError):
        # The process has changed its root since, or has no descriptor left.
        return f"signal {number}"

    names = {int(each): each.name for each in signal.Signals}
    name = names.get(number, f"signal {number}")
    return f"{name}, as by a seccomp policy" if number == signal.SIGSYS else name
