"""What several commands take."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Callable, TypeVar

import click
from click.shell_completion import CompletionItem

import nlct
from nlct.netns import NAMED

Command = TypeVar("Command", bound=Callable[..., Any])
LAST_ZONE = 65535


def zone_range(value: str) -> range:
    """Read "7" or "10-20"."""
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a zone (7) or a range of zones (10-20)")
    first, last = (int(end) for end in (match[1], match[2] or match[1]))
    if max(first, last) > LAST_ZONE:
        raise click.BadParameter(f"a zone is from 0 to {LAST_ZONE}, not {max(first, last)}")
    if last < first:
        raise click.BadParameter(f"{value!r} begins after its end")
    return range(first, last + 1)


def open_netns(ctx: click.Context, _param: click.Parameter, value: str | None) -> nlct.Netns | None:
    """Open a network namespace, to be closed with the command."""
    if value is None or ctx.resilient_parsing:
        return None
    try:
        netns = nlct.Netns.open(value)
    except nlct.NotFoundError as exc:
        raise click.BadParameter(f"there is no network namespace {value!r}") from exc
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    ctx.call_on_close(netns.close)
    return netns


def netns_names(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str | CompletionItem]:
    """Offer the names that ``ip netns`` shows."""
    names = sorted(os.listdir(NAMED)) if os.path.isdir(NAMED) else []
    return [name for name in names if name.startswith(incomplete)]


def netns_option(command: Command) -> Command:
    """Take --netns."""
    return click.option(
        "--netns",
        metavar="NAME",
        callback=open_netns,
        shell_complete=netns_names,
        help="Work in this network namespace: a name as `ip netns` shows it, or a path such as "
        "/proc/PID/ns/net.",
    )(command)


def json_option(command: Command) -> Command:
    """Take --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON and nothing else on standard output."
    )(command)


def zone_option(command: Command) -> Command:
    """Take --zone, any number of times."""
    return click.option(
        "--zone",
        "-z",
        "zones",
        type=zone_range,
        metavar="ZONE[-ZONE]",
        multiple=True,
        callback=lambda _ctx, _param, ranges: zone_set(ranges),
        help="Only this zone, from 0 to 65535, or these, as in 10-20. May be repeated.",
    )(command)


def zone_set(ranges: Iterable[range]) -> frozenset[int] | None:
    """Return the zones of all ranges, or None where none was given."""
    return frozenset(zone for zones in ranges for zone in zones) or None


def zone_names(zones: Iterable[int]) -> str:
    """Say which zones: "zone 7", "zones 1-3, 9"."""
    runs: list[list[int]] = []
    for zone in sorted(zones):
        if runs and runs[-1][-1] == zone - 1:
            runs[-1] = [runs[-1][0], zone]
        else:
            runs.append([zone])
    if len(runs) > 8:
        return f"{len(set(zones)):,} zones"
    text = ", ".join("-".join(map(str, run)) for run in runs)
    return f"zones {text}" if "-" in text or "," in text else f"zone {text}"
