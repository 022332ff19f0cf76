"""A program on a terminal of its own, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable

import pytest

from tests.support.command import NLCT

# Longer than anything takes that comes at all.
PATIENCE = 60.0
# What says how to draw.
_SPEAK = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM")


class Terminal:
    """A terminal and the program on it. ``screen`` is what pyte makes of all that was printed."""

    def __init__(self, words: tuple[str, ...], columns: int, lines: int, **more: Any) -> None:
        pyte = pytest.importorskip("pyte", reason="MISSING: pyte, a terminal in Python")
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.printed = b""
        self.end, other = pty.openpty()
        self._size(columns, lines)
        self.before = termios.tcgetattr(self.end)
        env = {name: value for name, value in os.environ.items() if name not in _SPEAK}
        env.update({"TERM": "xterm-256color", "PYTHONUTF8": "1", **more.pop("env", {})})
        self.process = subprocess.Popen(
            words,
            **{"stdin": other, "stdout": other, "stderr": other, **more},
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(other, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(other)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Do what a window does that is made larger or smaller."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.end, keys.encode())

    def pump(self, seconds: float = 0.05) -> bool:
        """Show what was printed; False when nobody is left at the other end."""
        if select.select([self.end], [], [], seconds)[0]:
            try:
                printed = os.read(self.end, 65536)
            except OSError:
                return False
            self.printed += printed
            self._stream.feed(printed)
        return True

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without spaces at their ends."""
        return [line.rstrip() for line in self.screen.display]

    def wait(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for something that must come."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < end, f"{what} did not come: " + "\n".join(self.lines)
            self.pump()

    def shows(self, pattern: str) -> None:
        """Wait for a line that matches."""
        self.wait(lambda: any(re.search(pattern, line) for line in self.lines), pattern)

    def row(self, first: str) -> list[str]:
        """The words of the line that begins with one; none if there is no such line."""
        rows = [line.split() for line in self.lines if line.split()[:1] == [first]]
        return rows[0] if rows else []

    def exit_code(self) -> int:
        """Read all that is printed, and wait for the end."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            self.pump()
        with suppress(OSError):
            while select.select([self.end], [], [], 0)[0] and self.pump(0):
                pass
        return self.process.returncode

    def is_restored(self) -> bool:
        """Tell if the terminal is as it was: what it does with input, its screen, its cursor."""
        left = self.printed.rpartition(b"\x1b[?1049h")[2]
        back = b"\x1b[?1049l" in left and left.rfind(b"\x1b[?25h") > left.rfind(b"\x1b[?25l")
        return back and termios.tcgetattr(self.end) == self.before


@contextmanager
def on_terminal(
    *args: str, size: tuple[int, int] = (80, 24), words: tuple[str, ...] = NLCT, **more: Any
) -> Iterator[Terminal]:
    """Run a command there; kill it if it is still running at the end."""
    terminal = Terminal((*words, *args), *size, **more)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        with suppress(OSError):
            os.close(terminal.end)
