"""How far a command is, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Callable, Union

from nlct.cli.output import NamedOutput
from nlct.cli.streams import shares_terminal
from nlct.conntrack import Conntrack
from nlct.filter import Filter

# None where nobody knows; a function is called only if the bar is shown.
Total = Union[int, None, Callable[[], Union[int, None]]]


class Bar:
    """A progress bar on standard error, if that is a terminal; otherwise nothing.

    ``total``: how much there is to do. ``beside``: what is written to meanwhile; if it may end up
    on the same terminal, nothing is shown, as the two would spoil each other. ``ticking``: redraw
    by itself; without, only when told, so that it takes no time from what is being measured.
    """

    def __init__(
        self,
        what: str,
        total: Total,
        *,
        beside: NamedOutput | None = None,
        ticking: bool = True,
    ) -> None:
        self._progress: Any = None
        shown = sys.stderr.isatty() and not (beside and shares_terminal(beside.fileno()))
        if shown:
            # Only here: importing rich takes longer than a small dump.
            from nlct.cli.draw import progress  # noqa: PLC0415

            self._progress = progress(ticking)
            known = total() if callable(total) else total
            self._task = self._progress.add_task(what, total=known)

    @property
    def active(self) -> bool:
        """True if the bar is shown."""
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


def expected(ct: Conntrack, wanted: Filter) -> Total:
    """Return how many flows a dump will be sent; None where the kernel leaves some out."""
    many_zones = wanted.is_zones and len(wanted.zone or ()) > 1
    return ct.count if wanted.matches_everything or many_zones else None
