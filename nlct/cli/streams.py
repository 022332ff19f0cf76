"""The standard streams. Each of them may be closed."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import TextIO, cast

# Major number of /dev/tty and /dev/console.
TTY_AUX_MAJOR = 5
NAMES = ("standard input", "standard output", "standard error")

# The numbers of those that open_closed() found closed.
_found_closed: set[int] = set()


class NoOutput(io.TextIOBase):
    """What stands for a closed standard output: printing fails."""

    encoding = "utf-8"
    errors = "strict"

    def writable(self) -> bool:
        """Say that it is, so that print() gets as far as write()."""
        return True

    def write(self, _text: str) -> int:
        """Fail."""
        raise _closed(1)


def open_closed() -> None:
    """Open /dev/null in the place of each that is closed.

    Otherwise a socket or a file would get its number, and output would go there.
    """
    # open() takes the lowest free number. Reading from 0 and writing to 1 must still fail.
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)
            _found_closed.add(number)
    # None says that Python found the stream closed.
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = cast(TextIO, NoOutput())
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def has_output() -> bool:
    """Tell if there is a standard output."""
    return not isinstance(sys.stdout, NoOutput)


def require_output() -> None:
    """Fail if nothing can be printed, before any work is done for nothing."""
    if not has_output():
        raise _closed(1)


def require_open(number: int) -> None:
    """Fail if this is the number of a standard stream that was closed."""
    if number in _found_closed:
        raise _closed(number)


def give_up(stream: TextIO) -> None:
    """Let the interpreter's last flush of standard output or error succeed."""
    if not isinstance(stream, NoOutput):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def shares_terminal(out: int) -> bool:
    """Tell if what is written to a descriptor may appear where standard error does."""
    kind = os.fstat(out)
    if stat.S_ISREG(kind.st_mode):
        return False
    # The reader of a pipe may print to any terminal.
    if not stat.S_ISCHR(kind.st_mode):
        return True
    # /dev/tty and /dev/console stand for other terminals.
    same = os.major(kind.st_rdev) == TTY_AUX_MAJOR or kind.st_rdev == os.fstat(2).st_rdev
    return os.isatty(out) and same


def _closed(number: int) -> OSError:
    return OSError(errno.EBADF, f"{NAMES[number]} is closed")
