"""``nlct load``."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import click

from nlct.cli.app import Command, Failure
from nlct.cli.options import files, json_option, netns_option
from nlct.cli.output import duration, errnos_word, flows_word, named, print_json, say
from nlct.cli.places import Place, in_each
from nlct.cli.progress import Bar
from nlct.cli.streams import require_open
from nlct.conntrack import Conntrack
from nlct.errors import errno_names
from nlct.load import LoadResult
from nlct.saved import read_flows
from nlct.table import FlowTable

STANDARD_INPUT = "standard input"


@click.command("load", cls=Command)
@click.argument("file", shell_complete=files)
@click.option(
    "--if-absent",
    is_flag=True,
    help="A flow that is there already, or whose tuple another flow has, is no failure; it stays "
    "as it is.",
)
@netns_option
@json_option
def command(file: str, if_absent: bool, places: tuple[Place, ...], as_json: bool) -> None:
    """Create the flows of FILE, which a dump or --save wrote; - is standard input.

    The content of FILE tells its format: the lines of conntrack -o save, a JSON object a line,
    Arrow or Parquet. All of FILE is read first; if a line cannot be read, nothing is created.
    A flow with 0 seconds left has ended and is left out.

    \b
    Examples:
      nlct dump --json --output flows.json && nlct load --netns blue flows.json
      nlct dump --format save | ssh router nlct load -
      nlct delete --src 10.0.0.0/8 --save undo.json && nlct load undo.json
    """
    flows = _read(file)
    ended = _ended(flows)
    in_each(places, lambda place: _load(place, flows, ended, if_absent, as_json))


def _read(file: str) -> FlowTable:
    bar = Bar("reading", None)
    name = STANDARD_INPUT if file == "-" else file
    try:
        with bar.shown(), named(name):
            if file != "-":
                return read_flows(file, progress=bar.at)
            require_open(0)
            return read_flows(sys.stdin.buffer, progress=bar.at)
    except (ImportError, ValueError) as exc:
        raise Failure(f"{name}: {exc}") from exc


def _ended(flows: FlowTable) -> int:
    """Return how many have 0 seconds left, by the bare column: files may be large."""
    if "timeout" not in flows:
        return 0
    there = flows.valid("timeout") or b"\1" * len(flows)
    return sum(is_there and not left for left, is_there in zip(flows.column("timeout"), there))


class _Outcome(NamedTuple):
    """What to tell.

    ``existed``: flows that were there already, if that is no failure. ``ended``: flows that had no
    seconds left.
    """

    existed: int
    ended: int
    failed: Mapping[int, int]
    dropped: Mapping[str, int]


def _load(place: Place, flows: FlowTable, ended: int, if_absent: bool, as_json: bool) -> None:
    with Conntrack(place.netns) as ct, Bar("loading", len(flows)).shown() as bar:
        result = ct.load(flows, progress=bar.at)
    outcome = _outcome(result, ended, if_absent)
    _tell(place, result, outcome, as_json)
    troubles = []
    if outcome.failed:
        troubles.append("flows not created: " + errnos_word(outcome.failed))
    if outcome.dropped:
        lost = ", ".join(f"{name} of {flows_word(n)}" for name, n in outcome.dropped.items())
        troubles.append(f"the kernel dropped {lost}")
    if troubles:
        raise Failure("; ".join(troubles))


def _outcome(result: LoadResult, ended: int, if_absent: bool) -> _Outcome:
    failed = Counter(result.failed)
    # A flow that is over need not be created; load() refuses each.
    failed[errno.EINVAL] -= ended
    existed = failed.pop(errno.EEXIST, 0) if if_absent else 0
    return _Outcome(existed, ended, +failed, result.dropped or {})


def _tell(place: Place, result: LoadResult, outcome: _Outcome, as_json: bool) -> None:
    if as_json:
        told = {
            "created": result.created,
            "existed": outcome.existed,
            "ended": outcome.ended,
            "failed": errno_names(outcome.failed),
            "dropped": result.dropped,
            "seconds": result.seconds,
        }
        print_json(told, place.name)
        return
    there = f", {outcome.existed:,} already there" if outcome.existed else ""
    over = f", {outcome.ended:,} had ended" if outcome.ended else ""
    say(
        f"{flows_word(result.created)} created{there}{over} ({duration(result.seconds)})",
        place.name,
    )
