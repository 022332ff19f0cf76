"""``nlct flush``."""

from __future__ import annotations

from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.deleting import (
    all_options,
    confirm,
    delete_known,
    dry_run_option,
    passes_option,
    refuse_beside_save,
    save_option,
    tell,
)
from nlct.cli.options import Once, json_option, netns_option, zone_names, zone_option
from nlct.cli.places import Place, in_each
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.filter import Filter


@click.command("flush", cls=Command)
@zone_option
@all_options
@dry_run_option
@click.option(
    "--strategy",
    cls=Once,
    type=click.Choice(("auto", "scan", "kernel")),
    default="auto",
    show_default=True,
    help="scan: dump the table and delete each match by its id; safe on every kernel. kernel: let "
    "the kernel flush; refused unless this kernel was seen to honour the zone. auto: scan, and let "
    "the kernel do the rest if that is safe and clearly faster.",
)
@passes_option
@save_option
@netns_option
@json_option
def command(
    zones: frozenset[int] | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    strategy: str,
    passes: int,
    save: str | None,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Delete the flows of zones, or all flows.

    With --zone, flush touches nothing but these zones. Without it, flush asks on a terminal, and
    needs --all --yes in a script.

    \b
    Examples:
      nlct flush --zone 7
      nlct flush --zone 10-20 --zone 30 --json
      nlct flush --zone 7 --dry-run
      nlct flush --all --yes --netns blue
      nlct flush --zone 7 --save undo.json && nlct load undo.json
    """
    if everything and zones is not None:
        raise click.UsageError("--all and --zone contradict each other")
    if save is not None:
        refuse_beside_save(places, dry_run, passes)
        if strategy == "kernel":
            raise click.UsageError("--save needs to see the flows: --strategy kernel does not")
    if dry_run:
        require_output()
    elif zones is None and not (everything and yes) and not confirm(places, yes, as_json):
        return
    if save is not None:
        _flush_saved(places[0], zones, save, as_json)
        return
    options: dict[str, Any] = {"strategy": strategy, "dry_run": dry_run, "passes": passes}
    in_each(places, lambda place: _flush(place, zones, options, as_json))


def _flush_saved(place: Place, zones: frozenset[int] | None, save: str, as_json: bool) -> None:
    with Conntrack(place.netns) as ct:
        result = delete_known(ct, None if zones is None else Filter(zone=zones), save)
    tell(place, result, _what(zones), False, as_json)


def _what(zones: frozenset[int] | None) -> str:
    return "all zones" if zones is None else zone_names(zones)


def _flush(
    place: Place, zones: frozenset[int] | None, options: dict[str, Any], as_json: bool
) -> None:
    strategy, dry_run = options["strategy"], options["dry_run"]
    with Conntrack(place.netns) as ct:
        # With "auto" each zone may have a dump of its own. The kernel's flush shows no progress.
        one_dump = dry_run or strategy == "scan"
        total = expected(ct, Filter(zone=zones)) if one_dump else None
        with Bar("counting" if dry_run else "flushing", total).shown() as bar:
            if zones is None:
                result = ct.flush_all(**options, progress=bar.at)
            else:
                result = ct.flush_zones(zones, **options, progress=bar.at)
    tell(place, result, _what(zones), dry_run, as_json)
