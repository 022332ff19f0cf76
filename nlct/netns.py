"""Network namespaces: scratch ones, and reaching into named ones.

The calling thread never leaves its own namespace.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Callable, Protocol, Union

from nlct import _check
from nlct._closing import Closing
from nlct._ffi import descriptor, ffi, lib, slot
from nlct.errors import Error, InvalidRequestError, PrivilegeError, check

if TYPE_CHECKING:
    import socket as socketlib

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


# A device and an inode of the kernel's nsfs.
Identity = tuple[int, int]

# What the Netns objects of this process hold, by the object's id().
_held: dict[int, Identity] = {}


class Netns(Closing):
    """A network namespace, held by a descriptor. A context manager."""

    def __init__(self) -> None:
        self._c = slot("struct nlct_netns *", lib.nlct_netns_close, {"fd": {"fd": -1}})

    @classmethod
    def scratch(cls) -> Netns:
        """Make an empty namespace that is gone with this object and its sockets.

        nlct proves that it is new: it is not the calling thread's, not that of process 1 if that
        can be seen, and none that an object of this process holds.

        This needs no privilege if user namespaces are allowed: the namespace then has a user
        namespace of its own. Raises PermissionError if neither can be made.
        """
        operation = "make a scratch network namespace"
        made = cls()
        check(lib.nlct_netns_new(made._c), operation)
        if made.identity in {*inhabited(), *list(_held.values())}:
            made.close()
            raise PrivilegeError(errno.EPERM, operation, reason="the kernel made none")
        return made._hold()

    @classmethod
    def current(cls) -> Netns:
        """Return the namespace of the calling thread.

        Only that thread may use its socket() and open_file(). They raise Error (EXDEV) once the
        thread has moved to another namespace. Conntrack() makes such an object by itself.
        """
        return cls._opened(lib.nlct_netns_here, operation="find the network namespace of a thread")

    @classmethod
    def open(cls, spec: NetnsLike) -> Netns:
        """Open a namespace.

        ``spec``: a name under /run/netns (as ``ip netns`` makes them), a path, an open descriptor
        of a namespace or an object that has one, or a process id. An integer that is an open
        descriptor of a namespace means that namespace; write "/proc/PID/ns/net" to be sure that
        a process is meant.

        Raises NotFoundError if there is no such namespace or process, TypeError or ValueError if
        ``spec`` is anything else, and PermissionError without the right to open it.
        """
        if isinstance(spec, (str, os.PathLike)):
            return cls._open_path(_path(os.fspath(spec)), f"open network namespace {spec!r}")
        if not isinstance(spec, int) and hasattr(spec, "fileno"):
            fd = _check.integer("netns", spec.fileno(), 0, 2**31 - 1)
            found = cls._open_descriptor(fd)
            if found is None:
                raise ValueError(f"netns must be a network namespace, and {spec!r} is not")
            # Its number may lead elsewhere by now, if another thread has closed it.
            if isinstance(spec, Netns) and found.identity != spec.identity:
                found.close()
                raise ValueError("the network namespace is closed")
            return found
        if isinstance(spec, bool) or not isinstance(spec, int):
            raise TypeError(
                f"netns must be a name, a path, a process id or a descriptor, not {spec!r}"
            )
        number = _check.integer("netns", spec, 0, 2**31 - 1)
        return cls._open_descriptor(number) or cls._open_path(
            f"/proc/{number}/ns/net", f"open network namespace of {number}"
        )

    @classmethod
    def _open_descriptor(cls, fd: int) -> Netns | None:
        try:
            return cls._opened(lib.nlct_netns_at, fd, operation="open a network namespace")
        except Error as exc:
            if exc.errno in (errno.EBADF, errno.EINVAL):
                return None
            raise

    @classmethod
    def _open_path(cls, path: str, operation: str) -> Netns:
        try:
            return cls._opened(lib.nlct_netns_path, _c_path(path), operation=operation)
        except InvalidRequestError:
            raise ValueError(f"netns must be a network namespace, and {path!r} is not") from None

    @classmethod
    def _opened(cls, open_it: Callable[..., int], *arguments: Any, operation: str) -> Netns:
        new = cls()
        check(open_it(new._c, *arguments), operation)
        return new._hold()

    def _hold(self) -> Netns:
        _held[id(self)] = self.identity
        return self

    @property
    def identity(self) -> Identity:
        """Device and inode: no other namespace has the same while this object holds it."""
        return self._c.fd.device, self._c.fd.inode

    def to_c(self) -> ffi.CData:
        """Return the ``struct nlct_netns *``; ValueError after close()."""
        self.fileno()
        return self._c

    def fileno(self) -> int:
        """Return the descriptor; ValueError after close()."""
        fd = int(self._c.fd.fd)
        if fd < 0:
            raise ValueError("the network namespace is closed")
        return fd

    def socket(self, family: int, kind: int, proto: int = 0) -> socketlib.socket:
        """Open a socket inside the namespace. The arguments are those of ``socket.socket``.

        Raises Error as ``socket.socket`` raises OSError, and ValueError after close().
        """
        # Imported when it is needed, to start quickly.
        import socket as socketlib  # noqa: PLC0415

        fd = descriptor()
        rc = lib.nlct_netns_socket(self.to_c(), family, kind, proto, fd)
        check(rc, "open a socket in a network namespace")
        # Between two owners: as with any number in Python, an interrupt just here loses it.
        return socketlib.socket(fileno=lib.nlct_fd_take(fd))

    def open_file(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file inside the namespace, which has its own /proc/sys/net.

        Returns a descriptor, which the caller closes. Raises Error if the file cannot be opened,
        and ValueError after close().
        """
        fd = descriptor()
        check(lib.nlct_netns_file(self.to_c(), _c_path(path), flags, fd), f"open {path}")
        return int(lib.nlct_fd_take(fd))

    def close(self) -> None:
        """Let go of the namespace. May be called again, from any thread."""
        # Not the other way round: another thread may get a new namespace with the same identity.
        _held.pop(id(self), None)
        lib.nlct_netns_close(self._c)

    def __del__(self) -> None:
        if hasattr(self, "_c"):
            self.close()

    def __repr__(self) -> str:
        return f"<nlct.Netns fd={self._c.fd.fd}>"


def inhabited() -> set[Identity]:
    """Namespaces that are somebody's home: the calling thread's and, where seen, process 1's."""
    with Netns.current() as here:
        found = {here.identity}
    try:
        with Netns.open("/proc/1/ns/net") as first:
            found.add(first.identity)
    except Error as exc:
        if exc.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
            raise
    return found
