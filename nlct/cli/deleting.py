"""What ``nlct flush`` and ``nlct delete`` share: options, the question and the result."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Callable

import click

from nlct.cli.app import Failure
from nlct.cli.options import Command, Once, file_names, files, number_option
from nlct.cli.output import duration, errnos_word, flows_word, note, print_json, say
from nlct.cli.places import Place, flows_in, in_each
from nlct.cli.progress import Bar
from nlct.conntrack import Conntrack
from nlct.filter import Filter
from nlct.flow import Flow
from nlct.result import FlushResult, nothing_to_do
from nlct.table import FlowTable

passes_option = number_option(
    "--passes", 1, 1000, "Dump the table up to N times, until a dump finds no match.", default=1
)


def all_options(command: Command) -> Command:
    """Take --all and --yes."""
    yes = click.option("--yes", "-y", is_flag=True, help="Do not ask; a script needs it for --all.")
    everything = click.option(
        "--all", "everything", is_flag=True, help="Delete every flow of the namespace."
    )
    return everything(yes(command))


def dry_run_option(command: Command) -> Command:
    """Take --dry-run. It has no short form: -n selects flows, in delete as in conntrack(8)."""
    return click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")(
        command
    )


def save_option(command: Command) -> Command:
    """Take --save."""
    return click.option(
        "--save",
        cls=Once,
        metavar="FILE",
        callback=file_names,
        shell_complete=files,
        help="Write the flows to FILE before they are deleted, as JSON objects: nlct load brings "
        "them back. Only flows that are in FILE are deleted.",
    )(command)


def refuse_beside_save(places: tuple[Place, ...], dry_run: bool, passes: int) -> None:
    """Refuse what contradicts --save or --print, which delete the flows of one dump."""
    if len(places) > 1:
        raise click.UsageError("--save and --print take only one --netns")
    if dry_run:
        raise click.UsageError("--dry-run deletes nothing to save or print")
    if passes > 1:
        raise click.UsageError("--save and --print work on one dump: leave out --passes")


def delete_known(
    ct: Conntrack,
    wanted: Filter | None,
    save: str | None,
    each: Callable[[Flow, int], None] | None = None,
) -> FlushResult:
    """Delete the flows that one dump finds, by their ids, once they are all in the file ``save``.

    ``wanted``: None for every flow. ``each``: is told of each flow, see Conntrack.delete_flows().
    """
    started = time.monotonic()
    with Bar("listing", ct.count if wanted is None else None).shown() as bar:
        scanned = 0

        def at(done: int) -> None:
            nonlocal scanned
            scanned = done
            bar.at(done)

        table = ct.table(wanted, progress=at)
    if save is not None:
        _save(table, save)
    result = ct.delete_flows(table, each=each)
    took = time.monotonic() - started
    return result._replace(scanned=scanned, strategy="scan", passes=1, seconds=took)


def _save(table: FlowTable, file: str) -> None:
    """Write a JSON object for each flow; the file holds all of them when this returns."""
    import json  # noqa: PLC0415 - few deletes need it

    from nlct.cli.files import written  # noqa: PLC0415

    with written(file) as out, Bar("saving", len(table), beside=out).shown() as bar:
        for done, flow in enumerate(table, 1):
            out.write(json.dumps(flow.to_dict()).encode() + b"\n")
            if done % 1000 == 0:
                bar.at(done)


def print_each(flow: Flow, error: int) -> None:
    """Print a flow that was deleted; say of the others, on standard error, that they were not."""
    if not error:
        say(str(flow))
    else:
        why = "already gone" if error == errno.ENOENT else os.strerror(error)
        note(f"not deleted ({why}): {flow}")


def confirm(places: tuple[Place, ...], yes: bool, as_json: bool) -> bool:
    """Ask before everything is deleted. Without any flow, say so and return False."""
    if yes:
        raise click.UsageError("--yes alone flushes nothing: add --all, or name a --zone")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("without a terminal, deleting everything needs --all --yes")
    counts: list[int] = []
    in_each(places, lambda place: counts.append(flows_in(place)))
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


def _tell_of_nothing(place: Place, as_json: bool) -> None:
    if as_json:
        print_json({**nothing_to_do().to_dict(), "dry_run": False}, place.name)
    else:
        say("there is nothing to delete", place.name)


def tell(
    place: Place,
    result: FlushResult,
    what: str | None,
    dry_run: bool,
    as_json: bool,
    *,
    aside: bool = False,
) -> None:
    """Print the result, and fail if it is not complete.

    ``aside``: print it on standard error, because flows are on standard output.
    """
    if aside:
        note(_outcome(result, dry_run))
    elif as_json:
        print_json({**result.to_dict(), "dry_run": dry_run}, place.name)
    else:
        say(("" if what is None else f"{what}: ") + _outcome(result, dry_run), place.name)
    if not (result.complete or dry_run):
        raise Failure("not complete: " + _trouble(result))


def _outcome(result: FlushResult, dry_run: bool) -> str:
    took = duration(result.seconds)
    if dry_run:
        return f"{flows_word(result.matched or 0)} would be deleted ({took})"
    if result.deleted is None:
        return f"flushed by the kernel, which does not count ({result.strategy}, {took})"
    gone = f", {result.already_gone:,} already gone" if result.already_gone else ""
    passes = "" if result.passes == 1 else f", {result.passes} passes"
    return (
        f"{flows_word(result.deleted)} deleted{gone} "
        f"({result.strategy}, {result.scanned:,} scanned{passes}, {took})"
    )


def _trouble(result: FlushResult) -> str:
    if result.failed:
        return "flows not deleted: " + errnos_word(result.failed)
    return "the table kept changing, so some flows may be left"
