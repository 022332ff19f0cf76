"""A terminal as a screen: taken over, read key by key, and given back whatever happens."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import click

# The alternate screen, no cursor, no wrapping at the right edge; and back.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# What is left of a line, and of the screen.
_REST_OF_LINE, _REST = "\x1b[K", "\x1b[J"
# A terminal that takes nothing for so many seconds has stopped for good.
_PATIENCE = 1.0
# The rest of a key's sequence comes within so many seconds.
_SEQUENCE = 0.05
_KEYS = {
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x15": "clear",
    "\x0c": "redraw",
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "[5~": "page up",
    "[6~": "page down",
}
_SEQUENCES = re.compile(r"\x1b[\[O]([0-9;]*)([A-Za-z~])|\x1b[\[O]?[0-9;]*\Z|.", re.DOTALL)


def keys_in(typed: str) -> tuple[list[str], str]:
    """Return the keys that were typed, by name or character, and the begin of one more."""
    keys: list[str] = []
    for found in _SEQUENCES.finditer(typed):
        text = found[0]
        if found[2] is not None:
            keys += filter(None, [_KEYS.get(f"[{found[1]}{found[2]}")])
        elif text[0] == "\x1b" and found.end() == len(typed):
            return keys, text
        elif text in _KEYS or text.isprintable():
            keys.append(_KEYS.get(text, text))
    return keys, ""


class Screen:
    """The terminal that is standard output; keys come from standard input if it is one, too.

    Use shown() around all the rest.
    """

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self._in: int | None = 0 if os.isatty(0) else None
        self._before: list[Any] | None = None
        self._typed = b""
        self._shown = False
        # Signals make one end readable, so that a wait ends.
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._out)
            if columns > 0 and lines > 0:
                return columns, lines
        return 80, 24

    @contextmanager
    def shown(self) -> Iterator[Screen]:
        """Take the terminal, and give it back at the end; also while the program is stopped."""
        before = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda *_: None),
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._stop),
            # All is drawn again.
            signal.SIGCONT: signal.signal(signal.SIGCONT, lambda *_: None),
        }
        wake = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            self._enter()
            yield self
        finally:
            self._leave()
            signal.set_wakeup_fd(wake)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._woken)
            os.close(self._wake)

    def _enter(self) -> None:
        while self._in is not None:
            try:
                # In the background the kernel stops us here. Only in front is it set for us.
                termios.tcflow(self._in, termios.TCOON)
                self._shown = True
                self._before = termios.tcgetattr(self._in)
                # Ctrl-C and Ctrl-Z still are signals.
                tty.setcbreak(self._in, termios.TCSANOW)
                break
            except termios.error as exc:
                # SIGCONT, after which we may be in front.
                if exc.args[0] != errno.EINTR:
                    raise OSError(*exc.args) from exc
        self._shown = True
        self._write(_ENTER)

    def _leave(self) -> None:
        """Give the terminal back, if it is still there."""
        if not self._shown:
            return
        self._shown = False
        # A terminal that hung up, or that stopped, must not hold us.
        with suppress(OSError):
            if select.select((), (self._out,), (), _PATIENCE)[1]:
                self._write(_LEAVE)
        # In the background it is set for another one; to change it would only stop us.
        if self._in is not None and self._before is not None and self._is_in_front():
            with suppress(termios.error):
                termios.tcsetattr(self._in, termios.TCSANOW, self._before)

    def _is_in_front(self) -> bool:
        with suppress(OSError):
            return self._in is not None and os.tcgetpgrp(self._in) == os.getpgrp()
        # It controls no job of ours.
        return True

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._leave()
        # It returns when we go on. If another signal is to end us then, it raises.
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]

    def draw(self, lines: Iterable[str], widths: Iterable[int]) -> None:
        """Show these lines, which fit, and nothing else. ``widths``: their columns."""
        columns, _ = self.size
        shown = [
            f"\x1b[{at};1H{line}{_REST_OF_LINE if width < columns else ''}"
            for at, (line, width) in enumerate(zip(lines, widths), 1)
        ]
        rest = f"\x1b[{len(shown) + 1};1H{_REST}" if len(shown) < self.size[1] else ""
        self._write("".join((*shown, rest)).encode("utf-8", "replace"))

    def wait(self, live: Any) -> tuple[bool, list[str]]:
        """Wait; return whether ``live`` is ready, and the keys that were pressed."""
        waiting = [live, self._woken, *(() if self._in is None else (self._in,))]
        ready, _, _ = select.select(waiting, (), (), _SEQUENCE if self._typed else None)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        keys: list[str] = []
        if self._in in ready:
            keys = self._read()
        elif self._typed:
            # Nothing came behind it.
            self._typed, keys = b"", ["escape"]
        return live in ready, keys

    def _read(self) -> list[str]:
        assert self._in is not None
        typed = os.read(self._in, 4096)
        if not typed:
            raise click.exceptions.Exit(0)
        keys, rest = keys_in((self._typed + typed).decode("utf-8", "replace"))
        self._typed = rest.encode()
        return keys
