"""What people and programs are shown.

Drawing takes rich, whose import takes longer than a small dump: see draw.py.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import nlct
from nlct.flow import status_names


def print_json(value: Any) -> None:
    """Print one object, on one line."""
    sys.stdout.write(json.dumps(value) + "\n")


def duration(seconds: float) -> str:
    """Say how long, in three digits or so."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def flows_word(count: int) -> str:
    """Say how many flows."""
    return f"{count:,} flow{'' if count == 1 else 's'}"


# Values of fields --------------------------------------------------------------------------------

# Members of enumerations are none of these.
_PLAIN = (int, str, list)


def plain(value: Any) -> Any:
    """Return a field's value for JSON, as Flow.to_dict() has it."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, nlct.Status):
        return list(status_names(int(value)))
    if isinstance(value, enum.IntEnum):
        return value.name.lower()
    if isinstance(value, dict):
        return {str(kind): payload.hex() for kind, payload in value.items()}
    return value.hex() if isinstance(value, bytes) else str(value)


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

    ``total``: None where nobody knows. ``quiet``: show nothing on a terminal either.
    ``ticking``: redraw by itself; without, only when told, so that it takes no time from
    what is being measured.
    """

    def __init__(
        self, what: str, total: int | None, *, quiet: bool = False, ticking: bool = True
    ) -> None:
        self._progress: Any = None
        if not quiet and sys.stderr.isatty():
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
