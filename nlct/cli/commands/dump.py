"""``nlct dump``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Callable

import click

from nlct.cli import formats
from nlct.cli.app import Command
from nlct.cli.filters import filter_options, meant
from nlct.cli.options import Once, file_names, files, json_option, names_in, netns_option, offer
from nlct.cli.output import STANDARD_OUTPUT, NamedOutput
from nlct.cli.places import Place, flows_in, in_each, tell_missing
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.filter import Filter
from nlct.table import COLUMNS


def _columns(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...] | None:
    return names_in(given, COLUMNS) or None


@click.command("dump", cls=Command)
@filter_options
@click.option(
    "--format",
    "format_",
    cls=Once,
    type=click.Choice(["text", "json", "save", "arrow", "parquet"]),
    help="text, the default: the lines of conntrack -L. json: like --json. save: the lines of "
    "conntrack -o save, which lack helper, master, labels and more. arrow and parquet need "
    "nlct[parquet].",
)
@click.option(
    "--columns",
    metavar="NAME[,NAME...]",
    multiple=True,
    callback=_columns,
    shell_complete=offer(COLUMNS),
    help="Only these columns, in this order: zone, src, dst, proto, sport, dport, mark, ... Text "
    "separates them with tabs.",
)
@click.option(
    "--output",
    cls=Once,
    metavar="FILE",
    default="-",
    callback=file_names,
    shell_complete=files,
    help="Write to FILE, not to standard output. FILE keeps what it holds until the dump is "
    "complete.",
)
@click.option(
    "--list",
    "unlisted",
    cls=Once,
    type=click.Choice(["dying", "unconfirmed"]),
    help="Not the table but the flows that wait to be destroyed, or whose first packet is under "
    "way; in text or JSON.",
)
@click.option(
    "--zero",
    is_flag=True,
    help="Set the counters of the flows that match to zero, and show them as they were before; in "
    "text or JSON.",
)
@click.option("--all", "everything", is_flag=True, help="With --zero: mean every flow.")
@netns_option
@json_option
def command(
    wanted: Filter,
    format_: str | None,
    columns: tuple[str, ...] | None,
    output: str,
    unlisted: str | None,
    zero: bool,
    everything: bool,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """List flows, as the kernel sends them.

    Text is the lines of conntrack -L, for both families; --json prints one object per line
    (NDJSON). A dump is not a snapshot: it may miss flows that appear while it runs.

    \b
    Examples:
      nlct dump --zone 7
      nlct dump --src 10.0.0.0/8 --dport 53,853 --columns src,dport,mark
      nlct dump --json | jq -r 'select(.mark == 0) | .orig.src' | sort | uniq -c
      nlct dump --format parquet --output flows.parquet
      nlct dump --format save --output flows.save   (nlct load and conntrack -R read it)
      nlct dump --zone 7 --zero --json
    """
    if len(places) > 1 and format_ in ("save", "arrow", "parquet"):
        raise click.UsageError(f"--format {format_} takes only one --netns")
    if format_ == "save" and columns is not None:
        raise click.UsageError("--format save has no columns: it writes whole flows")
    if (unlisted or zero) and (columns or format_ not in (None, "text", "json")):
        raise click.UsageError("--list and --zero show whole flows, as text or JSON")
    write = _writer(format_, as_json, output)
    if unlisted or zero or everything:
        if unlisted and zero:
            raise click.UsageError("--list and --zero contradict each other")
        write = _special(write is formats.ndjson, unlisted, output)
        wanted = _to_zero(wanted, zero, everything)

    def dump_to(out: NamedOutput) -> None:
        in_each(places, lambda place: _dump(place, write, wanted, columns, out))

    if output == "-":
        require_output()
        dump_to(NamedOutput(sys.stdout.buffer, STANDARD_OUTPUT))
        return
    from nlct.cli.files import written  # noqa: PLC0415 - few dumps need it

    # Each table must be readable before a file that is written to directly is emptied.
    in_each(places, flows_in)
    with written(output) as out:
        dump_to(out)


def _dump(
    place: Place,
    write: Callable[[formats.Job], None],
    wanted: Filter,
    columns: tuple[str, ...] | None,
    out: NamedOutput,
) -> None:
    with Conntrack(place.netns) as ct:
        tell_missing(place, ct, {*(columns or ()), *wanted.fields})
        bar = Bar("listing", expected(ct, wanted), beside=out)
        with bar.shown():
            write(formats.Job(ct, wanted, columns, out, bar, place.name))


def _writer(format_: str | None, as_json: bool, output: str) -> Callable[[formats.Job], None]:
    """Choose what writes the format."""
    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} contradict each other")
    if format_ in ("arrow", "parquet"):
        return _arrow_writer(format_, output)
    if format_ == "save":
        return formats.save
    return formats.ndjson if as_json or format_ == "json" else formats.text


def _to_zero(wanted: Filter, zero: bool, everything: bool) -> Filter:
    """Refuse to zero every flow that nobody meant."""
    if zero:
        return meant(wanted, everything, "zero the counters of every flow with --all")
    if everything:
        raise click.UsageError("--all is for --zero")
    return wanted


def _special(as_json: bool, unlisted: str | None, output: str) -> Callable[[formats.Job], None]:
    """Choose what writes flows that are not just those of the table."""
    from nlct.cli import special  # noqa: PLC0415 - few dumps need it

    if unlisted:
        return partial(special.unlisted, as_json, unlisted)
    if output != "-":
        # A file keeps what it holds unless all goes well; what was zeroed is never to be lost.
        raise click.UsageError("--zero writes to standard output alone: redirect that")
    return partial(special.zeroed, as_json)


def _arrow_writer(format_: str, output: str) -> Callable[[formats.Job], None]:
    if format_ == "parquet" and output == "-":
        raise click.UsageError("parquet cannot go to standard output: add --output FILE")
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("arrow cannot go to a terminal: add --output FILE, or use a pipe")
    # Before a file is opened and emptied.
    formats.require_arrow()
    if format_ == "parquet":
        return formats.parquet
    return formats.arrow_stream if output == "-" else formats.arrow_file
