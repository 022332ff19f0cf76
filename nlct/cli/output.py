"""What people and programs are shown.

Drawing takes rich, whose import takes longer than a small dump: see draw.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO

import click

from nlct._fields import plain
from nlct.cli.streams import give_up, has_output, shares_terminal

STANDARD_OUTPUT = "standard output"


@contextmanager
def named(file: str) -> Iterator[None]:
    """Let what goes wrong with a file say which it was."""
    try:
        yield
    except OSError as exc:
        exc.filename = file
        raise


class NamedOutput:
    """What bytes are written to: what goes wrong says its name."""

    # Asked for by Arrow.
    closed = False

    def __init__(self, out: BinaryIO, name: str) -> None:
        self._out = out
        self._name = name

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._out.fileno()

    def writable(self) -> bool:
        """Say that it is."""
        return True

    def write(self, data: Any) -> int:
        """Write all of it."""
        # Not named(), as this may be done for each flow.
        try:
            return self._out.write(data)
        except OSError as exc:
            exc.filename = self._name
            raise

    def flush(self) -> None:
        """Hand on what was held back."""
        with named(self._name):
            self._out.flush()


def say(line: str, netns: str | None = None) -> None:
    """Print a line, of one of several namespaces; nothing where there is no standard output.

    Whoever prints and does nothing else asks for one beforehand: streams.require_output().
    """
    _print(line if netns is None else f"{netns}: {line}")


def print_json(value: dict[str, Any], netns: str | None = None) -> None:
    """Print one object, on one line; otherwise like say()."""
    _print(json.dumps(value if netns is None else {"netns": netns, **value}))


def _print(line: str) -> None:
    if has_output():
        with named(STANDARD_OUTPUT):
            sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Print a line on standard error, where there is one that takes it."""
    try:
        click.echo(line, err=True)
    except OSError:
        give_up(sys.stderr)


def duration(seconds: float) -> str:
    """Say how long, in three digits or so."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def flows_word(count: int) -> str:
    """Say how many flows."""
    return f"{count:,} flow{'' if count == 1 else 's'}"


def word(value: Any) -> str:
    """Return a field's value as one word; "-" where it is absent."""
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)


# Progress ----------------------------------------------------------------------------------------


class Bar:
    """A progress bar on standard error, if that is a terminal; otherwise nothing.

    ``total``: None where nobody knows. ``beside``: what is written to meanwhile; if it may end up
    on the same terminal, nothing is shown, as the two would spoil each other. ``ticking``: redraw
    by itself; without, only when told, so that it takes no time from what is being measured.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        beside: NamedOutput | None = None,
        ticking: bool = True,
    ) -> None:
        self._progress: Any = None
        shown = sys.stderr.isatty() and not (beside and shares_terminal(beside.fileno()))
        if shown:
            from nlct.cli.draw import progress  # noqa: PLC0415 - see above

            self._progress = progress(ticking)
            self._task = self._progress.add_task(what, total=total)

    @property
    def active(self) -> bool:
        """True if there is anything to be seen."""
        return self._progress is not None

    def at(self, done: int) -> None:
        """Show that so much is done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done)

    def step(self, what: str) -> None:
        """Show that one more step is done, and what comes next."""
        if self._progress is not None:
            self._progress.update(self._task, advance=1, description=what, refresh=True)

    @contextmanager
    def shown(self) -> Iterator[Bar]:
        """Show it meanwhile."""
        with self._progress or nullcontext():
            yield self
