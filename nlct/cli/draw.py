"""Tables and progress bars, drawn by rich."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
from rich import box
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from nlct.cli.output import STANDARD_OUTPUT, named

# Only a terminal needs folded lines.
_WIDE = 1000


class Console(rich.console.Console):
    """Standard output, whose reader may go away.

    ``width``: in columns, where it is not a terminal.
    """

    def __init__(self, width: int = _WIDE) -> None:
        super().__init__(highlight=False, width=None if sys.stdout.isatty() else width)

    def print(self, *what: Any, **options: Any) -> None:
        """Print; an error names standard output."""
        with named(STANDARD_OUTPUT):
            super().print(*what, **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the caller."""
        raise BrokenPipeError


def table(title: str | None = None) -> Table:
    """Make an empty table in our style."""
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")


def progress(ticking: bool) -> Progress:
    """Make a progress bar on standard error."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
        auto_refresh=ticking,
    )
