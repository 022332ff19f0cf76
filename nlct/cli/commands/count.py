"""``nlct count``."""

from __future__ import annotations

import sys
from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.filters import filter_options
from nlct.cli.options import json_option, names_in, netns_option, number_option, offer
from nlct.cli.output import of_limit, print_json, say, word
from nlct.cli.places import Place, in_each, tell_missing
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.filter import Filter
from nlct.table import COLUMNS

FIELDS = ("zone", "proto", "state", "mark", "src", "dst", "status")

Counts = list[tuple[tuple[Any, ...], int]]


def _by(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    fields = names_in(given, FIELDS)
    if len(fields) > 2:
        raise click.BadParameter(f"give one or two fields, not {', '.join(fields)}")
    return fields


@click.command("count", cls=Command)
@filter_options
@click.option(
    "--by",
    metavar="FIELD[,FIELD]",
    multiple=True,
    callback=_by,
    shell_complete=offer(FIELDS),
    help=f"Count for each value of one or two of {', '.join(FIELDS)}.",
)
@number_option("--top", 1, None, "Show only the N largest counts, the largest first.")
@netns_option
@json_option
def command(
    wanted: Filter,
    by: tuple[str, ...],
    top: int | None,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Count flows.

    Without --by and without options that select flows, this reads the kernel's own counter and
    needs no dump.

    \b
    Examples:
      nlct count
      nlct count --zone 7 --zone 10-20
      nlct count --proto tcp --state established --dport 443
      nlct count --by zone --json | jq '.counts["7"]'
      nlct count --by src,proto --top 10
    """
    if top is not None and not by:
        raise click.UsageError("--top needs --by")
    require_output()
    in_each(places, lambda place: _count(place, wanted, by, top, as_json))


def _count(
    place: Place, wanted: Filter, by: tuple[str, ...], top: int | None, as_json: bool
) -> None:
    with Conntrack(place.netns) as ct, Bar("counting", expected(ct, wanted)).shown() as bar:
        tell_missing(place, ct, {*by, *wanted.fields} & set(COLUMNS))
        if not by:
            counts, total = {}, ct.count(wanted, progress=bar.at)
        else:
            counts = ct.count_by(*by, filter=wanted, progress=bar.at)
            total = sum(counts.values())
        # Only people are told how full the table is.
        limit = ct.limit if sys.stdout.isatty() and wanted.matches_everything else 0
    if top is not None:
        counts = dict(sorted(counts.items(), key=lambda item: -item[1])[:top])
    # One field's values are not tuples.
    rows = [((key,) if len(by) == 1 else key, flows) for key, flows in counts.items()]
    if as_json:
        print_json(_to_dict(total, by, rows), place.name)
    elif by:
        _draw(place.name, total, by, rows)
    else:
        say(of_limit(total, limit) if limit else str(total), place.name)


def _to_dict(total: int, by: tuple[str, ...], rows: Counts) -> dict[str, Any]:
    if not by:
        return {"count": total}
    counts: dict[str, Any] = {}
    for key, flows in rows:
        *outer, last = ("null" if value is None else word(value) for value in key)
        inner = counts
        for value in outer:
            inner = inner.setdefault(value, {})
        inner[last] = flows
    return {"count": total, "by": by[0] if len(by) == 1 else by, "counts": counts}


def _draw(title: str | None, total: int, by: tuple[str, ...], rows: Counts) -> None:
    from nlct.cli.draw import Console, table  # noqa: PLC0415 - rich is slow to import

    drawn = table(title)
    for column in (*by, "flows", "share"):
        # Cut nothing off on a narrow terminal.
        drawn.add_column(column, justify="right", overflow="fold")
    for key, flows in rows:
        drawn.add_row(*map(word, key), f"{flows:,}", f"{flows / total:.1%}")
    drawn.add_section()
    drawn.add_row("all", *("" for _ in by[1:]), f"{total:,}", "")
    Console().print(drawn)
