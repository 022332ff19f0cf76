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


def number_range(text: str, high: int, *, open_end: bool = False) -> range:
    """Read "7" or "10-20"; where the end may be open, also "10-"."""
    match = re.fullmatch(r"([0-9]{1,20})(?:(-)([0-9]{0,20}))?", text)
    if match is None or (match[2] and not match[3] and not open_end):
        raise click.BadParameter(f"{text!r} is not a number (7) or a range (10-20)")
    first = int(match[1])
    last = int(match[3] or high) if match[2] else first
    if max(first, last) > high:
        raise click.BadParameter(f"from 0 to {high}, not {max(first, last)}")
    if last < first:
        raise click.BadParameter(f"{text!r} begins after its end")
    return range(first, last + 1)


def zone_set(texts: Iterable[str]) -> frozenset[int]:
    """Read zones: numbers and ranges, and lists of them with commas."""
    items = (item for text in texts for item in text.split(","))
    return frozenset(zone for item in items for zone in number_range(item, LAST_ZONE))


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


def offer(names: Iterable[str]) -> Callable[..., list[str | CompletionItem]]:
    """Return what offers these names behind every comma of a list."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[str | CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in names if name.startswith(last)]

    return complete


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
        metavar="ZONE[-ZONE]",
        multiple=True,
        callback=lambda _ctx, _param, texts: zone_set(texts) or None,
        help="Only this zone, from 0 to 65535, or these, as in 10-20. May be repeated.",
    )(command)


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
