"""What commands share that show a stream of events."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable, TypeVar, Union

import click

from nlct.cli.options import Command, json_option, netns_option, number_option, seconds_option
from nlct.cli.output import STANDARD_OUTPUT, NamedOutput, note
from nlct.cli.places import Place
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.stream import LEAST_BUFFER, MOST_BUFFER, Overrun, Stream

# A signal that comes between Python's last check and a wait does not end it.
LONGEST_WAIT = 0.5

# Whole lines, of one event or of many.
Found = Union[bytes, Overrun]
Events = TypeVar("Events", bound=Stream[Any])


OPTIONS = (
    number_option("--count", 1, None, "End after N events."),
    seconds_option("--timeout", 0, None, "End after so many seconds."),
    number_option(
        "--buffer",
        LEAST_BUFFER,
        MOST_BUFFER,
        "Bytes of events that the kernel queues before it drops some; an event takes some 1,200. "
        "Without it 16 MiB, or what net.core.rmem_max allows.",
    ),
    netns_option,
    json_option,
)


def follow_options(command: Command) -> Command:
    """Take --buffer and what show() wants."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def show(
    begin: Callable[[Conntrack], Events],
    read: Callable[[Events, bool], Iterator[Found]],
    *,
    places: tuple[Place, ...],
    count: int | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Show what comes until the count is reached or the time is over.

    ``begin``: begins the stream.
    ``read``: yields what is queued, as JSON or as text, and does not wait.
    """
    place, *others = places
    if others:
        raise click.UsageError("events takes only one --netns")
    require_output()
    out = NamedOutput(sys.stdout.buffer, STANDARD_OUTPUT)
    losses = _Losses(out if as_json else None)
    with Conntrack(place.netns) as ct, begin(ct) as events:
        try:
            queued = _follow(events, lambda: read(events, as_json), timeout, out)
            _write(queued, count, out, losses)
        finally:
            losses.sum_up()


# Reading -----------------------------------------------------------------------------------------


def _follow(
    events: Stream[Any],
    read: Callable[[], Iterator[Found]],
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
        for found in read():
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


def json_line(item: Any) -> bytes:
    """Return an event or an overrun as a line of JSON."""
    import json  # noqa: PLC0415 - text does without

    return json.dumps(item.to_dict()).encode() + b"\n"


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
            self._out.write(json_line(overrun))
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
