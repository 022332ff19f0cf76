"""What people and programs are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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

import nlct

# Fields of a tuple in the order in which conntrack(8) shows them.
_TUPLE_WORDS = {
    "src": "src",
    "dst": "dst",
    "sport": "sport",
    "dport": "dport",
    "icmp_type": "type",
    "icmp_code": "code",
    "icmp_id": "id",
}


class Console(rich.console.Console):
    """Standard output, whose reader may go away."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Leave the matter to whoever runs the command."""
        raise BrokenPipeError


def print_json(value: Any) -> None:
    """Print one object, on one line."""
    sys.stdout.write(json.dumps(value) + "\n")


def table(title: str | None = None) -> Table:
    """Make an empty table in our style."""
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")


def duration(seconds: float) -> str:
    """Say how long, in three digits or so."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def flows_word(count: int) -> str:
    """Say how many flows."""
    return f"{count:,} flow{'' if count == 1 else 's'}"


# One flow ----------------------------------------------------------------------------------------


def proto_name(proto: int | None) -> str | None:
    """Return a protocol's name; its number where it has none here."""
    if proto is None:
        return None
    try:
        return nlct.Proto(proto).name.lower()
    except ValueError:
        return str(proto)


def status_names(status: nlct.Status) -> list[str]:
    """Return the names of the bits that are set; a bit without a name as a number."""
    bits = (1 << number for number in range(32) if status & 1 << number)
    return [(nlct.Status(bit).name or hex(bit)).lower() for bit in bits]


def flow_json(flow: nlct.Flow) -> dict[str, Any]:
    """Return a flow for JSON.

    Every field is there, null where it is absent; a tuple holds only what it has.
    """
    return {
        "protocol": proto_name(flow.orig.proto),
        "orig": _tuple_json(flow.orig),
        "reply": None if flow.reply is None else _tuple_json(flow.reply),
        "zone": flow.zone,
        "status": None if flow.status is None else status_names(flow.status),
        "timeout": flow.timeout,
        "mark": flow.mark,
        "id": flow.id,
        "use": flow.use,
    }


def _tuple_json(one: nlct.Tuple) -> dict[str, Any]:
    return {
        name: str(value) if name in ("src", "dst") else value
        for name, value in one._asdict().items()
        if value is not None
    }


def flow_line(flow: nlct.Flow) -> str:
    """Return a flow as one line, in the columns of ``conntrack -L``."""
    status = nlct.Status(0) if flow.status is None else flow.status
    flags = [name for name in ("ASSURED", "OFFLOAD", "HW_OFFLOAD") if status & nlct.Status[name]]
    directional = any(one is not None and one.zone is not None for one in (flow.orig, flow.reply))
    proto = flow.orig.proto
    words = [
        f"{proto_name(proto) or '-':<8} {'-' if proto is None else proto}",
        "-" if flow.timeout is None else str(flow.timeout),
        *_tuple_words(flow.orig, "zone-orig"),
        *(() if status & nlct.Status.SEEN_REPLY else ("[UNREPLIED]",)),
        *(() if flow.reply is None else _tuple_words(flow.reply, "zone-reply")),
        *(f"[{flag}]" for flag in flags),
        *(() if flow.mark is None else (f"mark={flow.mark}",)),
        *((f"zone={flow.zone}",) if flow.zone and not directional else ()),
        *(() if flow.use is None else (f"use={flow.use}",)),
    ]
    return " ".join(words)


def _tuple_words(one: nlct.Tuple, zone_word: str) -> Iterator[str]:
    for name, word in _TUPLE_WORDS.items():
        value = getattr(one, name)
        if value is not None:
            yield f"{word}={value}"
    if one.zone is not None:
        yield f"{zone_word}={one.zone}"


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
        console = rich.console.Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            auto_refresh=ticking,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task(what, total=total)

    def at(self, done: int) -> None:
        """Show that so much is done."""
        self._progress.update(self._task, completed=done)

    def step(self, what: str) -> None:
        """Show that one more step is done, and what comes next."""
        self._progress.update(self._task, advance=1, description=what, refresh=True)

    @contextmanager
    def shown(self) -> Iterator[Bar]:
        """Show it meanwhile."""
        # Old versions of rich end even what they do not show with an empty line.
        with nullcontext() if self._progress.disable else self._progress:
            yield self
