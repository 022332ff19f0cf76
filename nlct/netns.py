"""Network namespaces: scratch ones, and reaching into named ones.

The calling thread never leaves its own namespace.
"""

from __future__ import annotations

import os
import socket as socketlib
from typing import Protocol, Union

from nlct import _check
from nlct._closing import Closing
from nlct._ffi import lib
from nlct.errors import check

NAMED = "/run/netns"


class HasFileno(Protocol):
    """Anything with a descriptor of a network namespace."""

    def fileno(self) -> int:
        """Return the descriptor."""


NetnsLike = Union[str, "os.PathLike[str]", int, HasFileno]


def _path(spec: str) -> str:
    return spec if "/" in spec else f"{NAMED}/{spec}"


def _c_path(path: str) -> bytes:
    """A path for C, where a null byte would end it early."""
    if "\0" in path:
        raise ValueError(f"a path must not contain a null byte, as {path!r} does")
    return os.fsencode(path)


class Netns(Closing):
    """A network namespace, held by a descriptor. A context manager."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def scratch(cls) -> Netns:
        """Make an empty namespace that is gone with this object and its sockets.

        Needs no privilege where user namespaces are allowed: it then comes with one of its own.
        Raises PermissionError where neither is to be had.
        """
        return cls(check(lib.nlct_netns_new(), "make a scratch network namespace"))

    @classmethod
    def open(cls, spec: NetnsLike) -> Netns:
        """Open a namespace.

        ``spec`` is a name under /run/netns (as ``ip netns`` makes them), a path, an open
        descriptor of a namespace or an object that has one, or a process id. An integer that is
        a namespace's descriptor is taken as that; write a process as "/proc/PID/ns/net" where
        the two could be mistaken.

        Raises NotFoundError where there is none, TypeError or ValueError for anything else.
        """
        if isinstance(spec, (str, os.PathLike)):
            return cls._open_path(_path(os.fspath(spec)), f"open network namespace {spec!r}")
        if not isinstance(spec, int) and hasattr(spec, "fileno"):
            fd = _check.integer("netns", spec.fileno(), 0, 2**31 - 1)
            if not lib.nlct_netns_is(fd):
                raise ValueError(f"netns must be a network namespace, and {spec!r} is not")
            return cls(os.dup(fd))
        if isinstance(spec, bool) or not isinstance(spec, int):
            raise TypeError(
                f"netns must be a name, a path, a process id or a descriptor, not {spec!r}"
            )
        number = _check.integer("netns", spec, 0, 2**31 - 1)
        if lib.nlct_netns_is(number):
            return cls(os.dup(number))
        return cls._open_path(f"/proc/{number}/ns/net", f"open network namespace of {number}")

    @classmethod
    def _open_path(cls, path: str, operation: str) -> Netns:
        # Without O_NONBLOCK a FIFO would keep us waiting for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK
        fd = check(lib.nlct_netns_file(-1, _c_path(path), flags), operation)
        if not lib.nlct_netns_is(fd):
            os.close(fd)
            raise ValueError(f"netns must be a network namespace, and {path!r} is not")
        return cls(fd)

    def fileno(self) -> int:
        """Return the descriptor; ValueError after close()."""
        if self._fd < 0:
            raise ValueError("the network namespace is closed")
        return self._fd

    def socket(self, family: int, kind: int, proto: int = 0) -> socketlib.socket:
        """Open a socket inside the namespace."""
        fd = lib.nlct_netns_socket(self.fileno(), family, kind, proto)
        return socketlib.socket(fileno=check(fd, "open a socket in a network namespace"))

    def open_file(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file inside the namespace: what lies under /proc/sys/net is its own."""
        return check(lib.nlct_netns_file(self.fileno(), _c_path(path), flags), f"open {path}")

    def close(self) -> None:
        """Let go of the namespace. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __repr__(self) -> str:
        return f"<nlct.Netns fd={self._fd}>"
