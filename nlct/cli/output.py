"""What nlct tells people and programs: lines, and JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import click

from nlct._fields import plain
from nlct.cli.streams import give_up, has_output

STANDARD_OUTPUT = "standard output"


@contextmanager
def named(file: str) -> Iterator[None]:
    """Add the name of a file to its errors."""
    try:
        yield
    except OSError as exc:
        exc.filename = file
        raise


class NamedOutput:
    """An output for bytes; its errors have its name."""

    # Arrow reads it.
    closed = False

    def __init__(self, out: BinaryIO, name: str) -> None:
        self._out = out
        self._name = name

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._out.fileno()

    def writable(self) -> bool:
        """Say that it is writable."""
        return True

    def write(self, data: Any) -> int:
        """Write all of it."""
        # Without named(), which is slow: this may be called for each flow.
        try:
            return self._out.write(data)
        except OSError as exc:
            exc.filename = self._name
            raise

    def flush(self) -> None:
        """Write what is buffered."""
        with named(self._name):
            self._out.flush()


def say(line: str, netns: str | None = None) -> None:
    """Print a line, with the name of its namespace; nothing without a standard output.

    A command that only prints calls streams.require_output() first.
    """
    _print(line if netns is None else f"{netns}: {line}")


def print_json(value: dict[str, Any], netns: str | None = None) -> None:
    """Print one object, on one line; otherwise like say()."""
    import json  # noqa: PLC0415 - text does without

    _print(json.dumps(value if netns is None else {"netns": netns, **value}))


def _print(line: str) -> None:
    if has_output():
        with named(STANDARD_OUTPUT):
            sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Print a line on standard error, if there is one that takes it."""
    try:
        click.echo(line, err=True)
    except OSError:
        give_up(sys.stderr)


def duration(seconds: float) -> str:
    """Say how long, in about three digits."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def flows_word(count: int) -> str:
    """Say how many flows."""
    return f"{count:,} flow{'' if count == 1 else 's'}"


def of_limit(flows: int, limit: int) -> str:
    """Say how full a table is."""
    return f"{flows:,} of {limit:,} ({100 * flows / limit:.1f} %)"


def errnos_word(failed: Mapping[int, int]) -> str:
    """Say how many failed, and why."""
    return ", ".join(f"{count:,} {os.strerror(number)}" for number, count in failed.items())


def word(value: Any) -> str:
    """Return a field's value as one word; "-" if it is absent."""
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    if not isinstance(value, dict):
        return str(value)
    import json  # noqa: PLC0415 - rare

    return json.dumps(value, separators=(",", ":"))
