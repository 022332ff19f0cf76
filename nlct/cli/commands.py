"""The commands."""

# ruff: noqa: D301 - click wants the real character: what follows is not to be wrapped
# ruff: noqa: PLC0415 - what one command needs is not to slow down the others

from __future__ import annotations

import errno
import os
import sys
from typing import Any, Callable

import click
from click.shell_completion import get_completion_class

import nlct
from nlct.cli import formats
from nlct.cli.app import App, Failure
from nlct.cli.files import written
from nlct.cli.filters import filter_options
from nlct.cli.options import Once, json_option, netns_option, offer, zone_names, zone_option
from nlct.cli.output import (
    STANDARD_OUTPUT,
    Bar,
    NamedOutput,
    duration,
    flows_word,
    print_json,
    say,
    word,
)
from nlct.cli.places import Place, in_each
from nlct.cli.streams import require_output
from nlct.fill import MAX_FLOWS, fill
from nlct.filter import too_wide
from nlct.netns import inhabited
from nlct.table import COLUMNS

WAYS = ("auto", "scan", "kernel")
FIELDS_TO_COUNT = ("zone", "proto", "state", "mark", "src", "dst", "status")
CAPABILITIES = {
    "zones": "flows may have a zone",
    "zone_filter": "has the explicit zone filter",
    "zone_dump": "dumps one zone when asked for one",
    "zone_flush": "flushes one zone and nothing else",
    "zone0_flush": "the same for zone 0",
}


@click.group(
    name="nlct",
    cls=App,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(nlct.__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """List, count and delete Linux conntrack entries, exactly and fast.

    \b
    Examples:
      nlct probe                      what can this kernel do?
      nlct count --by zone            flows per zone
      nlct dump --zone 7 --json       the flows of zone 7, one JSON object a line
      nlct flush --zone 7             delete zone 7 and nothing else
      nlct delete --src 10.0.0.0/8    delete the flows from there
      nlct demo                       measure it all, harming nothing

    \b
    Exit codes:
      0  done, also when nothing matched
      1  done in part, or failed
      2  wrong usage
      3  missing privilege (CAP_NET_ADMIN)
      4  not supported by this kernel
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(click.UsageError.exit_code)


@cli.command()
@netns_option
@json_option
def probe(places: tuple[Place, ...], as_json: bool) -> None:  # noqa: ARG001 - see the help
    """Say what this kernel can do with zones.

    Measured in a scratch network namespace; no table but that one is touched. The answers are
    the kernel's, alike in every --netns, so there is one for all of them.

    \b
    Examples:
      nlct probe
      nlct probe --json | jq .zone_flush
    """
    from nlct.cli.draw import Console, table

    require_output()
    found = nlct.probe()
    if as_json:
        print_json(found._asdict())
        return
    answers = table(f"Linux {found.release}")
    for column in ("capability", "answer", "evidence", "meaning"):
        answers.add_column(column)
    for name, meaning in CAPABILITIES.items():
        answer = "[green]yes[/]" if getattr(found, name) else "[yellow]no[/]"
        answers.add_row(name, answer, found.evidence[name], meaning)
    Console().print(answers)


def _by(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Read one or two fields, in a list with a comma or one by one."""
    fields = tuple(field for text in given for field in text.split(","))
    for field in fields:
        if field not in FIELDS_TO_COUNT:
            raise click.BadParameter(f"{field!r} is not one of {', '.join(FIELDS_TO_COUNT)}")
    if len(fields) > 2 or len(set(fields)) < len(fields):
        raise click.BadParameter("one or two different fields, not " + ", ".join(fields))
    return fields


@cli.command()
@filter_options
@click.option(
    "--by",
    metavar="FIELD[,FIELD]",
    multiple=True,
    callback=_by,
    shell_complete=offer(FIELDS_TO_COUNT),
    help=f"Count for each value of one or two of {', '.join(FIELDS_TO_COUNT)}.",
)
@click.option(
    "--top",
    cls=Once,
    type=click.IntRange(1),
    metavar="N",
    help="Only the N largest, the largest first.",
)
@netns_option
@json_option
def count(
    wanted: nlct.Filter,
    by: tuple[str, ...],
    top: int | None,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Count flows.

    Without --by and anything to select flows this is the kernel's own counter, which takes no
    walk over the table.

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
    place: Place, wanted: nlct.Filter, by: tuple[str, ...], top: int | None, as_json: bool
) -> None:
    with nlct.Conntrack(place.netns) as ct, Bar("counting", _expected(ct, wanted)).shown() as bar:
        if not by:
            counts, total = {}, ct.count(wanted, progress=bar.at)
        else:
            counts = ct.count_by(*by, filter=wanted, progress=bar.at)
            total = sum(counts.values())
    if top is not None:
        counts = dict(sorted(counts.items(), key=lambda item: -item[1])[:top])
    # One field's values are not tuples.
    rows = [((key,) if len(by) == 1 else key, flows) for key, flows in counts.items()]
    if as_json:
        print_json(_counts_for_json(total, by, rows), place.name)
    elif by:
        _draw_counts(place.name, total, by, rows)
    else:
        say(str(total), place.name)


Counts = list[tuple[tuple[Any, ...], int]]


def _counts_for_json(total: int, by: tuple[str, ...], rows: Counts) -> dict[str, Any]:
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


def _draw_counts(title: str | None, total: int, by: tuple[str, ...], rows: Counts) -> None:
    from nlct.cli.draw import Console, table

    drawn = table(title)
    for column in (*by, "flows", "share"):
        # On a narrow terminal nothing is cut off either.
        drawn.add_column(column, justify="right", overflow="fold")
    for key, flows in rows:
        drawn.add_row(*map(word, key), f"{flows:,}", f"{flows / total:.1%}")
    drawn.add_section()
    drawn.add_row("all", *("" for _ in by[1:]), f"{total:,}", "")
    Console().print(drawn)


def _columns(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Read names of columns, in lists with commas or one by one."""
    names = tuple(name for text in given for name in text.split(","))
    for name in names:
        if name not in COLUMNS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(COLUMNS)}")
    if len(set(names)) < len(names):
        raise click.BadParameter("it names a column twice")
    return names or None


def _named(_ctx: click.Context, _param: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what an unset variable of a script leaves."""
    if "" in files:
        raise click.BadParameter("an empty name is that of no file")
    return files


@cli.command()
@filter_options
@click.option(
    "--format",
    "format_",
    cls=Once,
    type=click.Choice(["text", "json", "arrow", "parquet"]),
    help="text, the lines of conntrack -L, if nothing is said; json, like --json; arrow and "
    "parquet need nlct[parquet].",
)
@click.option(
    "--columns",
    metavar="NAME[,NAME...]",
    multiple=True,
    callback=_columns,
    shell_complete=offer(COLUMNS),
    help="Only these, in this order: zone, src, dst, proto, sport, dport, mark, ... As text they "
    "have tabs between.",
)
@click.option(
    "--output",
    cls=Once,
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False, allow_dash=True),
    default="-",
    callback=_named,
    help="Write to this file, not to standard output. What is in it stands until all is written.",
)
@netns_option
@json_option
def dump(
    wanted: nlct.Filter,
    format_: str | None,
    columns: tuple[str, ...] | None,
    output: str,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """List flows, as the kernel sends them.

    As text these are the lines of conntrack -L, of both families; with --json each line is an
    object (NDJSON). A dump is no snapshot: flows that appear meanwhile may be missing.

    \b
    Examples:
      nlct dump --zone 7
      nlct dump --src 10.0.0.0/8 --dport 53,853 --columns src,dport,mark
      nlct dump --json | jq -r 'select(.mark == 0) | .orig.src' | sort | uniq -c
      nlct dump --format parquet --output flows.parquet
    """
    if len(places) > 1 and format_ in ("arrow", "parquet"):
        raise click.UsageError(f"{format_} has no place for the names of several --netns")
    write = _writer(format_, as_json, output)

    def dump_to(out: NamedOutput) -> None:
        in_each(places, lambda place: _dump(place, write, wanted, columns, out))

    if output == "-":
        require_output()
        dump_to(NamedOutput(sys.stdout.buffer, STANDARD_OUTPUT))
        return
    # Before what may have to be written to directly is emptied.
    in_each(places, _require_access)
    with written(output) as out:
        dump_to(out)


def _require_access(place: Place) -> None:
    """Fail as any work in the namespace would."""
    _flows_in(place)


def _dump(
    place: Place,
    write: Callable[[formats.Job], None],
    wanted: nlct.Filter,
    columns: tuple[str, ...] | None,
    out: NamedOutput,
) -> None:
    with nlct.Conntrack(place.netns) as ct:
        bar = Bar("listing", _expected(ct, wanted), beside=out)
        with bar.shown():
            write(formats.Job(ct, wanted, columns, out, bar, place.name))


def _writer(format_: str | None, as_json: bool, output: str) -> Callable[[formats.Job], None]:
    """Choose what writes the format."""
    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} contradict each other")
    if format_ in ("arrow", "parquet"):
        return _arrow_writer(format_, output)
    return formats.ndjson if as_json or format_ == "json" else formats.text


def _arrow_writer(format_: str, output: str) -> Callable[[formats.Job], None]:
    if format_ == "parquet" and output == "-":
        raise click.UsageError("parquet cannot go to standard output: give --output FILE")
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("arrow is not for a terminal: give --output FILE, or a pipe")
    # Before a file is opened, and what was in it is gone.
    formats.require_arrow()
    if format_ == "parquet":
        return formats.parquet
    return formats.arrow_stream if output == "-" else formats.arrow_file


passes_option = click.option(
    "--passes",
    cls=Once,
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Walk up to so many times, until a walk finds nothing.",
)


@cli.command()
@zone_option
@click.option("--all", "everything", is_flag=True, help="Every flow of the namespace.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; --all needs it in a script.")
@click.option("--dry-run", "-n", is_flag=True, help="Only count what would be deleted.")
@click.option(
    "--strategy",
    cls=Once,
    type=click.Choice(WAYS),
    default="auto",
    show_default=True,
    help="scan: walk, and delete each match by id, safe on every kernel. kernel: let the kernel "
    "flush, refused where it has not been seen to honour the zone. auto: the faster one.",
)
@passes_option
@netns_option
@json_option
def flush(
    zones: frozenset[int] | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    strategy: str,
    passes: int,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Delete the flows of zones, or all flows.

    With --zone nothing but these zones is touched. Without, it asks for confirmation on a
    terminal, and needs --all --yes in a script.

    \b
    Examples:
      nlct flush --zone 7
      nlct flush --zone 10-20 --zone 30 --json
      nlct flush --zone 7 --dry-run
      nlct flush --all --yes --netns blue
    """
    if everything and zones is not None:
        raise click.UsageError("--all and --zone contradict each other")
    if dry_run:
        require_output()
    elif zones is None and not (everything and yes) and not _confirm(places, yes, as_json):
        return
    options: dict[str, Any] = {"strategy": strategy, "dry_run": dry_run, "passes": passes}
    in_each(places, lambda place: _flush(place, zones, options, as_json))


def _flush(
    place: Place, zones: frozenset[int] | None, options: dict[str, Any], as_json: bool
) -> None:
    strategy, dry_run = options["strategy"], options["dry_run"]
    with nlct.Conntrack(place.netns) as ct:
        # What the kernel does by itself can be waited for, not watched.
        by_scan = strategy == "scan" or (strategy == "auto" and zones is not None)
        watched = dry_run or by_scan
        total = _expected(ct, nlct.Filter(zone=zones)) if watched else None
        with Bar("counting" if dry_run else "flushing", total).shown() as bar:
            if zones is None:
                result = ct.flush_all(**options, progress=bar.at)
            else:
                result = ct.flush_zones(zones, **options, progress=bar.at)
    _tell(place, result, "all zones" if zones is None else zone_names(zones), dry_run, as_json)


@cli.command()
@filter_options
@click.option("--all", "everything", is_flag=True, help="Every flow of the namespace.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; --all needs it in a script.")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@passes_option
@netns_option
@json_option
def delete(
    wanted: nlct.Filter,
    everything: bool,
    yes: bool,
    dry_run: bool,
    passes: int,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Delete the flows that match and nothing else.

    A flow must agree with every option that is given. What one option is given, once or more often
    or in lists with commas, are alternatives; but of --status and --label all must be set.

    \b
    Examples:
      nlct delete --src 10.0.0.0/8 --proto udp --dport 53,5353
      nlct delete --dst @blocked.txt --dry-run
      nlct delete --zone 7 --proto tcp --state syn_sent --timeout 0-60
      nlct delete --mark 0x100/0xff00 --status-none assured --json
    """
    reason = too_wide(wanted)
    if everything and not wanted.matches_everything:
        raise click.UsageError("--all contradicts what selects flows")
    if not (everything or reason is None):
        raise click.UsageError(
            f"the filter {reason}: say which flows, such as --src ADDRESS; "
            "every flow is --all --yes"
        )
    if dry_run:
        require_output()
    elif everything and not yes and not _confirm(places, yes, as_json):
        return
    # Only so is every flow meant.
    chosen = nlct.ALL if everything else wanted
    in_each(places, lambda place: _delete(place, chosen, dry_run, passes, as_json))


def _delete(place: Place, wanted: nlct.Filter, dry_run: bool, passes: int, as_json: bool) -> None:
    with nlct.Conntrack(place.netns) as ct:
        what = "counting" if dry_run else "deleting"
        with Bar(what, _expected(ct, wanted)).shown() as bar:
            result = ct.delete(wanted, dry_run=dry_run, passes=passes, progress=bar.at)
    _tell(place, result, None, dry_run, as_json)


def _confirm(places: tuple[Place, ...], yes: bool, as_json: bool) -> bool:
    """Never delete everything by accident; tell if there is anything to be deleted."""
    if yes:
        raise click.UsageError("--yes alone flushes nothing: add --all, or name a --zone")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("deleting everything needs --all --yes where nobody can be asked")
    counts: list[int] = []
    in_each(places, lambda place: counts.append(_flows_in(place)))
    if not any(counts):
        for place in places:
            _tell_of_nothing(place, as_json)
        return False
    where = "this namespace"
    if len(places) > 1:
        where = ", ".join(f"{place.name} ({flows:,})" for place, flows in zip(places, counts))
    try:
        agreed = click.confirm(f"Delete all {flows_word(sum(counts))} of {where}?", err=True)
    except click.Abort:
        click.echo(err=True)
        raise
    if not agreed:
        raise Failure("nothing was deleted")
    return True


def _flows_in(place: Place) -> int:
    with nlct.Conntrack(place.netns) as ct:
        return ct.count()


def _tell_of_nothing(place: Place, as_json: bool) -> None:
    if as_json:
        nothing = nlct.FlushResult(0, 0, 0, 0, {}, passes=0)
        print_json({**nothing.to_dict(), "dry_run": False}, place.name)
    else:
        say("there is nothing to delete", place.name)


def _tell(
    place: Place, result: nlct.FlushResult, what: str | None, dry_run: bool, as_json: bool
) -> None:
    """Print the result, and fail where it is not complete."""
    if as_json:
        print_json({**result.to_dict(), "dry_run": dry_run}, place.name)
    else:
        say(f"{what}: " * (what is not None) + _outcome(result, dry_run), place.name)
    if not (result.complete or dry_run):
        raise Failure("not complete: " + _trouble(result))


def _outcome(result: nlct.FlushResult, dry_run: bool) -> str:
    took = duration(result.seconds)
    if dry_run:
        return f"{flows_word(result.matched or 0)} would be deleted ({took})"
    if result.deleted is None:
        return f"flushed by the kernel, which does not count ({result.strategy}, {took})"
    gone = f", {result.already_gone:,} already gone" if result.already_gone else ""
    walks = "" if result.passes == 1 else f", {result.passes} passes"
    return (
        f"{flows_word(result.deleted)} deleted{gone} "
        f"({result.strategy}, {result.scanned:,} scanned{walks}, {took})"
    )


def _trouble(result: nlct.FlushResult) -> str:
    if result.failed:
        return "flows not deleted: " + _errnos(result.failed)
    return "the table did not hold still, so flows may be left"


def _errnos(failed: Any) -> str:
    return ", ".join(f"{count:,} {os.strerror(number)}" for number, count in failed.items())


@cli.command("fill")
@click.option(
    "--flows", cls=Once, type=click.IntRange(1, MAX_FLOWS), required=True, help="How many."
)
@click.option(
    "--zones", cls=Once, type=click.IntRange(1, 65535), required=True, help="In so many zones."
)
@click.option(
    "--yes-in-this-namespace",
    is_flag=True,
    help="Fill the table of the namespace you are in, or of that of process 1.",
)
@netns_option
@json_option
def fill_command(
    flows: int,
    zones: int,
    yes_in_this_namespace: bool,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Make flows to try things on.

    UDP flows in zones 1, 2, ... in turn, which live for a day.

    \b
    Examples:
      ip netns add lab
      nlct fill --netns lab --flows 100000 --zones 100
    """
    homes = inhabited()
    at_home = any(netns is None or netns.identity in homes for netns, _ in places)
    if at_home and not yes_in_this_namespace:
        raise click.UsageError(
            "name a --netns to fill, other than this one and that of process 1, or give "
            "--yes-in-this-namespace"
        )
    in_each(places, lambda place: _fill(place, flows, zones, as_json))


def _fill(place: Place, flows: int, zones: int, as_json: bool) -> None:
    with nlct.Conntrack(place.netns) as ct:
        there, limit = ct.count(), ct.limit
        # A limit of 0 is none.
        if limit and there + flows > limit:
            from nlct.cli.limit import how_to_raise

            raise Failure(
                f"{flows_word(flows)} do not fit: nf_conntrack_max is {limit:,} and "
                f"{flows_word(there)} {'is' if there == 1 else 'are'} there; as root, "
                f"outside of any namespace: {how_to_raise(there + flows)}"
            )
        with Bar("filling", flows).shown() as bar:
            result = fill(ct, flows, zones, progress=bar.at)
    if as_json:
        failed = {errno.errorcode.get(n, str(n)): refused for n, refused in result.failed.items()}
        told = {"created": result.created, "failed": failed, "seconds": result.seconds}
        print_json(told, place.name)
    else:
        say(
            f"{flows_word(result.created)} created in {zones:,} zone{'' if zones == 1 else 's'} "
            f"({duration(result.seconds)})",
            place.name,
        )
    if result.failed:
        raise Failure("flows not created: " + _errnos(result.failed))


@cli.command()
@click.option(
    "--flows",
    cls=Once,
    type=click.IntRange(1, MAX_FLOWS),
    default=500_000,
    show_default=True,
    help="Flows in the table.",
)
@click.option(
    "--zones",
    cls=Once,
    type=click.IntRange(1, 65534),
    default=500,
    show_default=True,
    help="Zones that they are spread over.",
)
@click.option(
    "--samples",
    cls=Once,
    type=click.IntRange(1, 10_000),
    default=25,
    show_default=True,
    help="Flushes of each kind.",
)
@json_option
def demo(flows: int, zones: int, samples: int, as_json: bool) -> None:
    """Measure every way to flush a zone.

    It fills a network namespace of its own; no other table is touched, and nothing is left
    behind. Needs no root where user namespaces are allowed. If nf_conntrack_max is too small for
    --flows, root raises it for the time of the demo and puts it back; others measure with as many
    flows as fit.

    \b
    Examples:
      nlct demo
      nlct demo --flows 100000 --zones 100 --samples 10 --json
    """
    from nlct.cli.demo import run

    require_output()
    report = run(flows, zones, samples)
    if as_json:
        print_json(report.to_dict())
    else:
        from nlct.cli.draw import Console
        from nlct.cli.report import show

        show(report, Console(width=80))
    if not report.exact:
        raise Failure("the zones that were not flushed did not keep all their flows")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    \b
    Examples:
      eval "$(nlct completion bash)"                               in ~/.bashrc
      eval "$(nlct completion zsh)"                                in ~/.zshrc
      nlct completion fish > ~/.config/fish/completions/nlct.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    require_output()
    say(script(cli, {}, "nlct", "_NLCT_COMPLETE").source())


def _expected(ct: nlct.Conntrack, wanted: nlct.Filter) -> int | None:
    """How many flows a walk will be sent; nobody knows where the kernel leaves some out."""
    many_zones = wanted.is_zones and len(wanted.zone or ()) > 1
    return ct.count() if wanted.matches_everything or many_zones else None
