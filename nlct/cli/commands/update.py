"""``nlct update``."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import click

from nlct import _reasons, labels, update
from nlct.cli.app import Command, Failure
from nlct.cli.filters import filter_options, meant
from nlct.cli.naming import label_bits, masked, status_bits, value_option
from nlct.cli.options import json_option, netns_option, number_option
from nlct.cli.output import duration, flows_word, print_json, say
from nlct.cli.places import Place, in_each, tell_missing
from nlct.cli.progress import Bar, expected
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.filter import Filter

_bits = status_bits(int(update.SETTABLE_BITS))
_EVERY_LABEL = 2 ** (labels.MOST + 1) - 1


def _cleared(texts: tuple[str, ...]) -> int:
    return _EVERY_LABEL if texts == ("all",) else label_bits(texts)


@click.command("update", cls=Command)
@filter_options
@value_option("--set-mark", "mark", "VALUE[/MASK]", "The bits of MASK become VALUE's.", masked)
@number_option("--set-timeout", 1, 2**32 - 1, "Seconds to live.")
@value_option("--set-status", "status", "BIT", "Set bits: assured, ...", _bits, many=True)
@value_option(
    "--set-label", "added", "LABEL", "Set labels: 0 to 127, names.", label_bits, many=True
)
@value_option("--clear-label", "cleared", "LABEL", "Clear labels, or all.", _cleared, many=True)
@value_option("--set-helper", "helper", "NAME", "Set the helper again.", str)
@click.option("--all", "everything", is_flag=True, help="Change every flow of the namespace.")
@click.option("--yes", "-y", is_flag=True, help="Needed for --all.")
@click.option("--dry-run", is_flag=True, help="Only count what would be updated.")
@netns_option
@json_option
def command(
    wanted: Filter,
    set_timeout: int | None,
    added: int | None,
    cleared: int | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    places: tuple[Place, ...],
    as_json: bool,
    **changes: Any,
) -> None:
    """Change every flow that matches and nothing else.

    \b
    Examples:
      nlct update --zone 7 --set-mark 0x10/0xf0
      nlct update --src 10.0.0.0/8 --set-timeout 600 --set-status assured
      nlct update --all --yes --clear-label all
    """
    chosen = meant(wanted, everything, "change every flow with --all --yes")
    if everything and not (yes or dry_run):
        raise click.UsageError("changing every flow needs --all --yes")
    if added is not None or cleared is not None:
        changes["labels"] = (added or 0, (added or 0) | (cleared or 0))
    changes["timeout"] = set_timeout
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        raise click.UsageError("nothing to change: give --set-mark, --set-timeout, ...")
    if dry_run:
        require_output()
    in_each(places, lambda place: _update(place, chosen, changes, dry_run, as_json))


def _update(
    place: Place, wanted: Filter, changes: dict[str, Any], dry_run: bool, as_json: bool
) -> None:
    with Conntrack(place.netns) as ct:
        tell_missing(place, ct, wanted.fields)
        with Bar("updating", expected(ct, wanted)).shown() as bar:
            try:
                result = ct.update_all(wanted, **changes, dry_run=dry_run, progress=bar.at)
            except ValueError as exc:
                raise click.UsageError(str(exc)) from None
    if as_json:
        print_json({**result.to_dict(), "dry_run": dry_run}, place.name)
    else:
        say(_outcome(result, dry_run), place.name)
    if not (result.complete or dry_run):
        raise Failure("not complete: " + _trouble(result, changes))


def _outcome(result: update.UpdateResult, dry_run: bool) -> str:
    took = duration(result.seconds)
    if dry_run:
        return f"{flows_word(result.matched)} would be updated ({took})"
    gone = f", {result.already_gone:,} already gone" if result.already_gone else ""
    return (
        f"{flows_word(result.updated)} updated, {result.unchanged:,} unchanged{gone} "
        f"({result.scanned:,} scanned, {took})"
    )


def _trouble(result: update.UpdateResult, changes: Collection[str]) -> str:
    if result.failed:
        each = (
            f"{count:,} {os.strerror(number)}"
            + (f" ({reason})" if (reason := _reasons.refused_change(number, changes)) else "")
            for number, count in result.failed.items()
        )
        return "flows not updated: " + ", ".join(each)
    if result.dropped:
        lost = ", ".join(f"{count:,} without a {name}" for name, count in result.dropped.items())
        return f"flows that cannot get it: {lost}"
    return "the table kept changing, so some flows may be left"
