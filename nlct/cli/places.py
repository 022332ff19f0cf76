"""The network namespaces that a command works in."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Callable, NamedTuple

import click

from nlct.cli.app import BROKEN_PIPE, complain
from nlct.cli.output import STANDARD_OUTPUT, named, note
from nlct.conntrack import Conntrack
from nlct.netns import Netns


class Place(NamedTuple):
    """A network namespace to work in.

    ``netns``: None for our own. ``name``: what to call it; None for the only one, which need not be
    named. ``given``: how it was given, "" for our own.
    """

    netns: Netns | None
    name: str | None = None
    given: str = ""


def flows_in(place: Place) -> int:
    """Count the flows of a namespace; fail as any other work there would."""
    with Conntrack(place.netns) as ct:
        return ct.count()


def tell_missing(place: Place, ct: Conntrack, fields: Iterable[str]) -> None:
    """Print a line on standard error for each sysctl or rule that these fields would need."""
    where = "" if place.name is None else f"{place.name}: "
    for line in sorted(set(ct.missing(fields).values())):
        note(f"nlct: {where}{line}")


def in_each(places: tuple[Place, ...], work: Callable[[Place], object]) -> None:
    """Do the work in each namespace, whatever becomes of the others; fail as the worst did."""
    if len(places) == 1:
        work(places[0])
        return
    worst = 0
    for place in places:
        try:
            work(place)
            # Print what is done, whatever ends us in the next one.
            with named(STANDARD_OUTPUT):
                sys.stdout.flush()
        except click.UsageError:
            raise
        except BrokenPipeError:
            worst = max(worst, BROKEN_PIPE)
        except (click.ClickException, OSError) as exc:
            worst = max(worst, complain(exc, place.name))
    if worst:
        raise click.exceptions.Exit(worst)
