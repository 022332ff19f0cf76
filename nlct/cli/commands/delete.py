"""``nlct delete``."""

from __future__ import annotations

import click

from nlct.cli.app import Command
from nlct.cli.deleting import (
    all_options,
    confirm,
    delete_known,
    dry_run_option,
    passes_option,
    print_each,
    refuse_beside_save,
    save_option,
    tell,
)
from nlct.cli.filters import filter_options, meant
from nlct.cli.options import json_option, netns_option
from nlct.cli.places import Place, in_each, tell_missing
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.filter import ALL, Filter


@click.command("delete", cls=Command)
@filter_options
@all_options
@dry_run_option
@passes_option
@save_option
@click.option(
    "--print",
    "print_",
    is_flag=True,
    help="Print each flow that is deleted, as conntrack -D does; the count goes to standard error.",
)
@netns_option
@json_option
def command(
    wanted: Filter,
    everything: bool,
    yes: bool,
    dry_run: bool,
    passes: int,
    save: str | None,
    print_: bool,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Delete the flows that match and nothing else.

    A flow must match every option you give. The values of one option, repeated or in a list with
    commas, are alternatives; --status and --label want all of theirs.

    \b
    Examples:
      nlct delete --src 10.0.0.0/8 --proto udp --dport 53,5353
      nlct delete --dst @blocked.txt --dry-run
      nlct delete --zone 7 --proto tcp --state syn_sent --timeout 0-60
      nlct delete --mark 0x100/0xff00 --status-none assured --json
      nlct delete --src 10.0.0.9 --save undo.json && nlct load undo.json
    """
    chosen = meant(wanted, everything, "delete every flow with --all --yes")
    if save is not None or print_:
        refuse_beside_save(places, dry_run, passes)
    if print_ and as_json:
        raise click.UsageError("--print and --json contradict each other")
    if dry_run or print_:
        require_output()
    if everything and not (yes or dry_run) and not confirm(places, yes, as_json):
        return
    if save is not None or print_:
        _delete_known(places[0], chosen, save, print_, as_json)
        return
    in_each(places, lambda place: _delete(place, chosen, dry_run, passes, as_json))


def _delete_known(
    place: Place, wanted: Filter, save: str | None, print_: bool, as_json: bool
) -> None:
    with Conntrack(place.netns) as ct:
        meant = None if wanted is ALL else wanted
        result = delete_known(ct, meant, save, print_each if print_ else None)
    tell(place, result, None, False, as_json, aside=print_)


def _delete(place: Place, wanted: Filter, dry_run: bool, passes: int, as_json: bool) -> None:
    with Conntrack(place.netns) as ct:
        tell_missing(place, ct, wanted.fields)
        what = "counting" if dry_run else "deleting"
        with Bar(what, expected(ct, wanted)).shown() as bar:
            result = ct.delete(wanted, dry_run=dry_run, passes=passes, progress=bar.at)
    tell(place, result, None, dry_run, as_json)
