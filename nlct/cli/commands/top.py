"""``nlct top``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.filters import as_given, filter_options
from nlct.cli.options import Once, netns_option, number_option, offer, seconds_option
from nlct.cli.output import STANDARD_OUTPUT, named
from nlct.cli.places import Place
from nlct.cli.signals import stoppable
from nlct.cli.streams import require_output
from nlct.cli.top import LONGEST, SHORTEST, SORTS, View, read_fields
from nlct.conntrack import Conntrack
from nlct.counts import FIXED
from nlct.filter import Filter


def _by(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return read_fields(",".join(given))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command("top", cls=Command)
@filter_options
@click.option(
    "--by",
    metavar="FIELD[,FIELD]",
    multiple=True,
    default=("zone",),
    callback=_by,
    shell_complete=offer(("state", *FIXED)),
    help="Count for each value of one or two fields, as `nlct count --by` does.  [default: zone]",
)
@click.option(
    "--sort",
    cls=Once,
    type=click.Choice(SORTS),
    default="flows",
    help="Sort by this column; key is the fields counted by.  [default: flows]",
)
@click.option("--reverse", is_flag=True, help="The smallest first; of keys, the last.")
@number_option("--top", 1, None, "Show only the first N rows.")
@seconds_option("--interval", SHORTEST, LONGEST, "Show anew so often.  [default: 2]", default=2.0)
@click.option(
    "--no-events",
    is_flag=True,
    help="Count by dumps alone: while anybody listens, new flows cost the kernel more.",
)
@number_option("--batch", 1, None, "Print N times, as plain text, and end; no terminal is needed.")
@click.option("--once", is_flag=True, help="The same as --batch 1: counts, but no rates.")
@click.option("--no-color", is_flag=True, help="Use no colours, as with NO_COLOR set.")
@netns_option
def command(
    wanted: Filter,
    places: tuple[Place, ...],
    batch: int | None,
    once: bool,
    no_color: bool,
    no_events: bool,
    **shown: Any,
) -> None:
    """Show who has the flows, live, on the whole screen.

    Events tell of flows that begin and end; dumps, a tenth of the time at most, tell what events
    do not. Press ? for the keys, q to quit.

    \b
    Examples:
      nlct top
      nlct top --by src/24,dport --proto tcp
      nlct top --by state --sort change
      nlct top --netns router-7 --by dst --interval 5
      nlct top --by zone --batch 2 --interval 10 --top 20
    """
    place, *others = places
    if others:
        raise click.UsageError("top takes only one --netns")
    if once and batch:
        raise click.UsageError("--once and --batch contradict each other")
    require_output()
    times = 1 if once else batch
    if times is None:
        _require_screen()
    view = View(most=shown.pop("top"), **shown)
    about = (place.given, as_given(click.get_current_context()))
    with stoppable(), Conntrack(place.netns) as ct:
        # Rich is slow to import: not for --help, and before anything is counted.
        from nlct.cli import frame  # noqa: F401, PLC0415
        from nlct.cli.live import Live  # noqa: PLC0415

        with closing(Live(ct, wanted, view.by, view.interval, not no_events)) as live:
            if times is None:
                _watch(view, live, about, no_color)
            else:
                _print(view, live, about, times)


def _require_screen() -> None:
    if not sys.stdout.isatty():
        raise click.UsageError(
            "standard output is not a terminal: add --once, or --batch N to print N times"
        )
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise click.UsageError(
            "this terminal has no screen to draw on (TERM is dumb or not set): add --batch N"
        )


def _watch(view: View, live: Any, about: tuple[str, str], no_color: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import

    from nlct.cli.frame import context, frame  # noqa: PLC0415
    from nlct.cli.screen import Screen  # noqa: PLC0415

    console = Console(no_color=no_color or None, highlight=False, width=sys.maxsize)
    began = time.monotonic()
    shown, fixed = None, context(*about)
    with Screen().shown() as screen:
        while not view.quit:
            up = time.monotonic() - began
            lines = frame(view, shown, live.scanned, up, fixed, screen.size)
            with console.capture() as captured:
                for line in lines:
                    console.print(line, soft_wrap=True)
            with named(STANDARD_OUTPUT):
                screen.draw(captured.get().split("\n"), [line.cell_len for line in lines])
            ready, keys = screen.wait(live)
            for key in keys:
                view.press(key)
            live.ask(view.by, view.interval)
            if ready or keys:
                latest = live.take()
                if latest is None or not view.held or shown is None:
                    shown = latest


def _print(view: View, live: Any, about: tuple[str, str], times: int) -> None:
    import select  # noqa: PLC0415

    from nlct.cli.frame import context, page  # noqa: PLC0415 - rich is slow to import

    began = time.monotonic()
    fixed, before = context(*about), None
    while times:
        select.select((live,), (), ())
        shown = live.take()
        if shown is None or shown is before:
            continue
        lines = page(view, shown, time.monotonic() - began, fixed)
        with named(STANDARD_OUTPUT):
            sys.stdout.write("\n".join(line.plain.rstrip() for line in lines) + "\n")
            times -= 1
            sys.stdout.write("\n" if times else "")
            sys.stdout.flush()
        before = shown
