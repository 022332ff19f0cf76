"""The commands."""

# ruff: noqa: D301 - click wants the real character: what follows is not to be wrapped

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

import nlct
from nlct.cli.app import App, Failure
from nlct.cli.demo import run as run_demo
from nlct.cli.limit import how_to_raise
from nlct.cli.options import json_option, netns_option, zone_names, zone_option
from nlct.cli.output import (
    Bar,
    Console,
    duration,
    flow_json,
    flow_line,
    flows_word,
    print_json,
    table,
)
from nlct.cli.report import show
from nlct.fill import MAX_FLOWS, fill

WAYS = ("auto", "scan", "kernel")
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
    """List, count and flush Linux conntrack entries, zone by zone, exactly and fast.

    \b
    Examples:
      nlct probe                      what can this kernel do?
      nlct count --by zone            flows per zone
      nlct dump --zone 7 --json       the flows of zone 7, one JSON object a line
      nlct flush --zone 7             delete zone 7 and nothing else
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
def probe(netns: nlct.Netns | None, as_json: bool) -> None:  # noqa: ARG001 - see the help
    """Say what this kernel can do with zones.

    Measured in a scratch network namespace; no table but that one is touched. The answers are
    the kernel's, alike in every --netns.

    \b
    Examples:
      nlct probe
      nlct probe --json | jq .zone_flush
    """
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


@cli.command()
@zone_option
@click.option("--by", type=click.Choice(["zone"]), help="Count the flows of each zone.")
@netns_option
@json_option
def count(
    zones: frozenset[int] | None, by: str | None, netns: nlct.Netns | None, as_json: bool
) -> None:
    """Count flows.

    Without --zone and --by this is the kernel's own counter, which takes no walk over the table.

    \b
    Examples:
      nlct count
      nlct count --zone 7 --zone 10-20
      nlct count --by zone --json | jq '.counts["7"]'
    """
    with nlct.Conntrack(netns) as ct:
        if by is None:
            with Bar("counting", _expected(ct, zones)).shown() as bar:
                total = ct.count(zone=zones, progress=bar.at)
            if as_json:
                print_json({"count": total})
            else:
                click.echo(total)
            return
        with Bar("counting", _expected(ct, zones)).shown() as bar:
            counts = ct.count_by(by, zone=zones, progress=bar.at)
    total = sum(counts.values())
    if as_json:
        print_json({"count": total, "by": by, "counts": counts})
        return
    rows = table()
    rows.add_column(by, justify="right")
    rows.add_column("flows", justify="right")
    rows.add_column("share", justify="right")
    for value, flows in counts.items():
        rows.add_row(str(value), f"{flows:,}", f"{flows / total:.1%}")
    rows.add_section()
    rows.add_row("all", f"{total:,}", "")
    Console().print(rows)


@cli.command()
@zone_option
@netns_option
@json_option
def dump(zones: frozenset[int] | None, netns: nlct.Netns | None, as_json: bool) -> None:
    """List flows, one a line, as the kernel sends them.

    A line begins with the protocol, its number and the seconds left. With --json each line is an
    object (NDJSON). A dump is no snapshot: flows that appear meanwhile may be missing.

    \b
    Examples:
      nlct dump --zone 7
      nlct dump --json | jq -r 'select(.mark == 0) | .orig.src' | sort | uniq -c
    """
    with nlct.Conntrack(netns) as ct:
        # A bar and the flows on one terminal would spoil each other.
        bar = Bar("listing", _expected(ct, zones), quiet=sys.stdout.isatty())
        with bar.shown():
            for done, flow in enumerate(ct.dump(zone=zones), 1):
                line = json.dumps(flow_json(flow)) if as_json else flow_line(flow)
                sys.stdout.write(line + "\n")
                if done % 1000 == 0:
                    bar.at(done)


@cli.command()
@zone_option
@click.option("--all", "everything", is_flag=True, help="Every flow of the namespace.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; --all needs it in a script.")
@click.option("--dry-run", "-n", is_flag=True, help="Only count what would be deleted.")
@click.option(
    "--strategy",
    type=click.Choice(WAYS),
    default="auto",
    show_default=True,
    help="scan: walk, and delete each match by id, safe on every kernel. kernel: let the kernel "
    "flush, refused where it has not been seen to honour the zone. auto: the faster one.",
)
@click.option(
    "--passes",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Walk up to so many times, until a walk finds nothing.",
)
@netns_option
@json_option
def flush(
    zones: frozenset[int] | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    strategy: str,
    passes: int,
    netns: nlct.Netns | None,
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
    with nlct.Conntrack(netns) as ct:
        if zones is None and not dry_run and not (everything and yes):
            _confirm(ct, yes)
        options: dict[str, Any] = {"strategy": strategy, "dry_run": dry_run, "passes": passes}
        # What the kernel does by itself can be waited for, not watched.
        by_scan = strategy == "scan" or (strategy == "auto" and zones is not None)
        watched = dry_run or by_scan
        total = _expected(ct, zones) if watched else None
        with Bar("counting" if dry_run else "flushing", total).shown() as bar:
            if zones is None:
                result = ct.flush_all(**options, progress=bar.at)
            else:
                result = ct.flush_zones(zones, **options, progress=bar.at)
    if as_json:
        print_json({**result.to_dict(), "dry_run": dry_run})
    else:
        what = "all zones" if zones is None else zone_names(zones)
        click.echo(f"{what}: {_outcome(result, dry_run)}")
    if not (result.complete or dry_run):
        raise Failure("not complete: " + _trouble(result))


def _confirm(ct: nlct.Conntrack, yes: bool) -> None:
    """Never flush everything by accident."""
    if yes:
        raise click.UsageError("--yes alone flushes nothing: add --all, or name a --zone")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("flushing everything needs --all --yes where nobody can be asked")
    question = f"Delete all {flows_word(ct.count())} of this namespace?"
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise
    if not agreed:
        raise Failure("nothing was deleted")


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
@click.option("--flows", type=click.IntRange(1, MAX_FLOWS), required=True, help="How many.")
@click.option("--zones", type=click.IntRange(1, 65535), required=True, help="In so many zones.")
@click.option(
    "--yes-in-this-namespace", is_flag=True, help="Fill the table of the namespace you are in."
)
@netns_option
@json_option
def fill_command(
    flows: int,
    zones: int,
    yes_in_this_namespace: bool,
    netns: nlct.Netns | None,
    as_json: bool,
) -> None:
    """Make flows to try things on.

    UDP flows in zones 1, 2, ... in turn, which live for a day.

    \b
    Examples:
      ip netns add lab
      nlct fill --netns lab --flows 100000 --zones 100
    """
    if netns is None and not yes_in_this_namespace:
        raise click.UsageError("name a --netns to fill, or give --yes-in-this-namespace")
    with nlct.Conntrack(netns) as ct:
        there, limit = ct.count(), ct.limit
        # A limit of 0 is none.
        if limit and there + flows > limit:
            raise Failure(
                f"{flows_word(flows)} do not fit: nf_conntrack_max is {limit:,} and "
                f"{flows_word(there)} {'is' if there == 1 else 'are'} there; as root, "
                f"outside of any namespace: {how_to_raise(there + flows)}"
            )
        with Bar("filling", flows).shown() as bar:
            result = fill(ct, flows, zones, progress=bar.at)
    if as_json:
        failed = {errno.errorcode.get(n, str(n)): refused for n, refused in result.failed.items()}
        print_json({"created": result.created, "failed": failed, "seconds": result.seconds})
    else:
        click.echo(
            f"{flows_word(result.created)} created in {zones:,} zone{'' if zones == 1 else 's'} "
            f"({duration(result.seconds)})"
        )
    if result.failed:
        raise Failure("flows not created: " + _errnos(result.failed))


@cli.command()
@click.option(
    "--flows",
    type=click.IntRange(1, MAX_FLOWS),
    default=500_000,
    show_default=True,
    help="Flows in the table.",
)
@click.option(
    "--zones",
    type=click.IntRange(1, 65534),
    default=500,
    show_default=True,
    help="Zones that they are spread over.",
)
@click.option(
    "--samples",
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
    report = run_demo(flows, zones, samples)
    if as_json:
        print_json(report.to_dict())
    else:
        show(report, Console())
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
    click.echo(script(cli, {}, "nlct", "_NLCT_COMPLETE").source())


def _expected(ct: nlct.Conntrack, zones: frozenset[int] | None) -> int | None:
    """How many flows a walk will be sent; nobody knows where the kernel sends one zone alone."""
    return None if zones is not None and len(zones) == 1 else ct.count()
