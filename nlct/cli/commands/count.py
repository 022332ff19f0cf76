"""``nlct count``."""

from __future__ import annotations

import sys
from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.filters import filter_options
from nlct.cli.options import json_option, names_in, netns_option, number_option, offer, split
from nlct.cli.output import of_limit, print_json, say, word
from nlct.cli.places import Place, in_each, tell_missing
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.counts import COUNTERS, FIXED, GROUPS, Group
from nlct.filter import Filter
from nlct.table import COLUMNS

# A group's values as words, with its count or its sums.
Rows = list[tuple[tuple[str, ...], Any]]


def _by(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    fields = tuple(split(given))
    try:
        for field in fields:
            Group.read(field)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    if len(fields) > GROUPS or len(set(fields)) < len(fields):
        raise click.BadParameter(f"give up to {GROUPS} different fields, not {', '.join(fields)}")
    return fields


def _sum(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return names_in(given, COUNTERS)


@click.command("count", cls=Command)
@filter_options
@click.option(
    "--by",
    metavar="FIELD[,FIELD...]",
    multiple=True,
    callback=_by,
    shell_complete=offer(("state", *FIXED)),
    help=f"Count for each value of up to {GROUPS} of zone, proto, state, mark, src, dst, dport, "
    "status, or other columns; of networks: src/24, dst/24/64 (IPv4/IPv6).",
)
@click.option(
    "--sum",
    "summed",
    metavar="COUNTER[,COUNTER]",
    multiple=True,
    callback=_sum,
    shell_complete=offer(COUNTERS),
    help=f"With --by, add up counters instead: {', '.join(COUNTERS)}.",
)
@number_option("--top", 1, None, "Show only the N largest, the largest first.")
@netns_option
@json_option
def command(
    wanted: Filter,
    by: tuple[str, ...],
    summed: tuple[str, ...],
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
      nlct count --by src/24,proto,dport --top 10
      nlct count --by src --sum bytes_orig,bytes_reply --top 10
    """
    for option, value in (("--top", top), ("--sum", summed)):
        if value and not by:
            raise click.UsageError(f"{option} needs --by")
    require_output()
    if summed:
        in_each(places, lambda place: _add_up(place, wanted, by, summed, top, as_json))
    else:
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
    rows = _rows(by, counts)
    if not by:
        if as_json:
            print_json({"count": total}, place.name)
        else:
            say(of_limit(total, limit) if limit else str(total), place.name)
    elif as_json:
        found = {"count": total, "by": by[0] if len(by) == 1 else by, "counts": _nested(rows)}
        print_json(found, place.name)
    else:
        shown = [(key, (f"{flows:,}", f"{flows / total:.1%}")) for key, flows in rows]
        _draw(place.name, by, ("flows", "share"), shown, (f"{total:,}", ""))


def _add_up(
    place: Place,
    wanted: Filter,
    by: tuple[str, ...],
    summed: tuple[str, ...],
    top: int | None,
    as_json: bool,
) -> None:
    with Conntrack(place.netns) as ct, Bar("adding up", expected(ct, wanted)).shown() as bar:
        tell_missing(place, ct, {*by, *summed, *wanted.fields} & set(COLUMNS))
        sums = ct.sum_by(*by, of=summed, filter=wanted, progress=bar.at)
    total = tuple(map(_total, zip(*sums.values()))) or (None,) * len(summed)
    if top is not None:
        sums = dict(sorted(sums.items(), key=lambda item: -(item[1][0] or 0))[:top])
    rows = _rows(by, sums)
    if as_json:
        named = [(key, dict(zip(summed, found))) for key, found in rows]
        print_json(
            {
                "by": by[0] if len(by) == 1 else by,
                "total": dict(zip(summed, total)),
                "sums": _nested(named),
            },
            place.name,
        )
    else:
        shown = [(key, _amounts(summed, found)) for key, found in rows]
        _draw(place.name, by, summed, shown, _amounts(summed, total))


def _total(sums: tuple[int | None, ...]) -> int | None:
    """Add up what is there."""
    there = [one for one in sums if one is not None]
    return sum(there) if there else None


def _rows(by: tuple[str, ...], found: dict[Any, Any]) -> Rows:
    """Put the values that flows were grouped by in words; "null" is none."""
    fields = [Group.read(one).field for one in by]
    return [
        (
            tuple(
                "null" if value is None else word(field.plain(value))
                # One field's values are not tuples.
                for field, value in zip(fields, (key,) if len(by) == 1 else key)
            ),
            value,
        )
        for key, value in found.items()
    ]


def _nested(rows: Rows) -> dict[str, Any]:
    """Return an object of objects, one a field."""
    outermost: dict[str, Any] = {}
    for (*outer, last), found in rows:
        inner = outermost
        for value in outer:
            inner = inner.setdefault(value, {})
        inner[last] = found
    return outermost


def _amounts(summed: tuple[str, ...], found: tuple[int | None, ...]) -> tuple[str, ...]:
    from rich.filesize import decimal  # noqa: PLC0415 - rich is slow to import

    return tuple(
        "-" if value is None else decimal(value) if name.startswith("bytes") else f"{value:,}"
        for name, value in zip(summed, found)
    )


def _draw(
    title: str | None,
    by: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Rows,
    last: tuple[str, ...],
) -> None:
    from nlct.cli.draw import Console, table  # noqa: PLC0415 - rich is slow to import

    drawn = table(title)
    for column in (*by, *columns):
        # Cut nothing off on a narrow terminal.
        drawn.add_column(column, justify="right", overflow="fold")
    for key, found in rows:
        drawn.add_row(*("-" if one == "null" else one for one in key), *found)
    drawn.add_section()
    drawn.add_row("all", *("" for _ in by[1:]), *last)
    Console().print(drawn)
