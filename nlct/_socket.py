"""Netlink sockets, kept for the next call where they are clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nlct import _threads
from nlct._ffi import ffi, lib, slot, text
from nlct._forks import process
from nlct.errors import check, error
from nlct.netns import Netns

MAX_IDLE = 4


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


class SocketPool:
    """Lends a socket to each operation, so that any thread may begin one at any time.

    A socket comes back only if its exchange with the kernel was completed; after a fork the
    child leaves the parent's sockets alone and opens its own.
    """

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        # Reentrant: a signal handler may begin an operation in the middle of a loan.
        self._lock = _threads.Lock()
        self._idle: list[Socket] = []
        self._process = process()
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
        with self._guard():
            self._closed = True
            idle, self._idle = self._idle, []
        for sock in idle:
            sock.close()

    def check_open(self) -> None:
        """Raise ValueError after close()."""
        if self._closed:
            raise ValueError("this Conntrack is closed")

    def _guard(self) -> Any:
        if self._process != process():
            # The lock may have been held by a thread that does not exist here.
            self._lock = _threads.Lock()
            self._idle = []
            self._process = process()
        return self._lock.real

    def _take(self) -> Socket:
        with self._guard():
            self.check_open()
            while self._idle:
                kept = self._idle.pop()
                # Its number may be somebody else's by now, who was told to close all of them.
                if lib.nlct_socket_is(kept.handle):
                    return kept
            return Socket(self._netns)

    def _give(self, sock: Socket) -> None:
        with self._guard():
            of_us = not self._closed and sock.process == self._process
            if of_us and sock.clean and len(self._idle) < MAX_IDLE:
                self._idle.append(sock)
                return
        sock.close()
