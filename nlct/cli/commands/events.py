"""``nlct events``."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from typing import Callable, Union

import click

from nlct.cli.app import Command
from nlct.cli.filters import event_filter_options
from nlct.cli.options import Once, json_option, netns_option, number_option
from nlct.cli.output import STANDARD_OUTPUT, NamedOutput, note
from nlct.cli.places import Place
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.events import Events
from nlct.filter import Filter
from nlct.stream import KINDS, LEAST_BUFFER, MOST_BUFFER, Overrun

# A signal that comes between Python's last check and a wait does not end it.
LONGEST_WAIT = 0.5

# Whole lines, of one event or of many.
Found = Union[bytes, Overrun]


def _seconds(
    _ctx: click.Context, _param: click.Parameter, given: tuple[float, ...]
) -> tuple[float, ...]:
    for seconds in given:
        # Nor is it "nan".
        if not seconds >= 0:
            raise click.BadParameter(f"it is 0 or more seconds, not {seconds:g}")
    return given


@click.command("events", cls=Command)
@event_filter_options
@click.option("--new", is_flag=True, help="Flows that begin.")
@click.option("--update", is_flag=True, help="Flows that change.")
@click.option("--destroy", is_flag=True, help="Flows that end.")
@number_option("--count", 1, None, "End after N events.")
@click.option(
    "--timeout",
    cls=Once,
    type=float,
    metavar="SECONDS",
    callback=_seconds,
    help="End after so many seconds.",
)
@number_option(
    "--buffer",
    LEAST_BUFFER,
    MOST_BUFFER,
    "Bytes of events that the kernel queues before it drops some; an event takes some 1,200. "
    "Without it 16 MiB, or what net.core.rmem_max allows.",
)
@netns_option
@json_option
def command(
    wanted: Filter,
    new: bool,
    update: bool,
    destroy: bool,
    count: int | None,
    timeout: float | None,
    buffer: int | None,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Show what happens to flows, as it happens.

    Text is the lines of conntrack -E, for both families; --json prints one object per line
    (NDJSON). Without --new, --update and --destroy it shows all three. If events come faster than
    they are read, the kernel drops some; a line on standard error, or an object, says how many.

    \b
    Examples:
      nlct events
      nlct events --zone 7 --new --destroy
      nlct events --proto tcp --dport 443 --timeout 60
      nlct events --json --count 1000 | jq -r .event | sort | uniq -c
    """
    place, *others = places
    if others:
        raise click.UsageError("events takes only one --netns")
    require_output()
    kinds = [kind for kind, asked in zip(KINDS, (new, update, destroy)) if asked] or KINDS
    read = _objects if as_json else _lines
    out = NamedOutput(sys.stdout.buffer, STANDARD_OUTPUT)
    losses = _Losses(out if as_json else None)
    with Conntrack(place.netns) as ct, ct.events(*kinds, filter=wanted, buffer=buffer) as events:
        try:
            _write(_follow(events, read, timeout, out), count, out, losses)
        finally:
            losses.sum_up()


# Reading -----------------------------------------------------------------------------------------


def _lines(events: Events) -> Iterator[Found]:
    """Yield what is queued as text."""
    return events.text(timeout=0)


def _objects(events: Events) -> Iterator[Found]:
    """Yield what is queued as JSON."""
    return events.json(timeout=0)


def _object(item: Overrun) -> bytes:
    import json  # noqa: PLC0415 - text does without

    return json.dumps(item.to_dict()).encode() + b"\n"


def _follow(
    events: Events,
    read: Callable[[Events], Iterator[Found]],
    timeout: float | None,
    out: NamedOutput,
) -> Iterator[Found]:
    """Yield what comes until the time is over. All of it is written out before we wait."""
    end = float("inf") if timeout is None else time.monotonic() + timeout
    waiting = select.poll()
    waiting.register(events, select.POLLIN)
    # A reader that goes away is noticed without an event to write.
    waiting.register(out, 0)
    while True:
        for found in read(events):
            yield found
            # They may come all the time.
            if time.monotonic() >= end:
                return
        out.flush()
        left = end - time.monotonic()
        if left <= 0:
            return
        for fd, _ in waiting.poll(1 + int(1000 * min(left, LONGEST_WAIT))):
            if fd == out.fileno():
                raise BrokenPipeError


# Writing -----------------------------------------------------------------------------------------


class _Losses:
    """Tells of overruns: at once, and of all at the end.

    ``out``: where each is an object; None if each is a line on standard error.
    """

    def __init__(self, out: NamedOutput | None) -> None:
        self._out = out
        self._overruns = 0
        self._lost = 0
        self._exact = True

    def add(self, overrun: Overrun) -> None:
        """Tell of one."""
        self._overruns += 1
        self._lost += overrun.lost or 0
        self._exact &= overrun.lost is not None
        if self._out is not None:
            self._out.write(_object(overrun))
        elif overrun.lost is None:
            note("nlct: events lost; the kernel does not say how many")
        else:
            note(f"nlct: {_events_word(overrun.lost)} lost")

    def sum_up(self) -> None:
        """Tell of all, if there were any."""
        if self._overruns:
            least = "" if self._exact else "at least "
            plural = "" if self._overruns == 1 else "s"
            note(
                f"nlct: {least}{_events_word(self._lost)} lost in {self._overruns:,} "
                f"overrun{plural}"
            )


def _events_word(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _write(found: Iterator[Found], count: int | None, out: NamedOutput, losses: _Losses) -> None:
    """Write it, or the first ``count`` events of it."""
    left = count
    for lines in found:
        if isinstance(lines, Overrun):
            losses.add(lines)
            continue
        if left is None:
            out.write(lines)
            continue
        first = lines.splitlines(keepends=True)[:left]
        out.write(b"".join(first))
        left -= len(first)
        if not left:
            return
