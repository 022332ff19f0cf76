"""``nlct fill``."""

from __future__ import annotations

import click

from nlct.cli.app import Command, Failure
from nlct.cli.options import json_option, netns_option, number_option
from nlct.cli.output import duration, errnos_word, flows_word, print_json, say
from nlct.cli.places import Place, in_each
from nlct.cli.progress import Bar
from nlct.conntrack import Conntrack
from nlct.errors import errno_names
from nlct.fill import MAX_FLOWS, fill
from nlct.netns import inhabited


@click.command("fill", cls=Command)
@number_option("--flows", 1, MAX_FLOWS, "How many flows.", required=True)
@number_option("--zones", 1, 65535, "In how many zones.", required=True)
@click.option(
    "--yes-in-this-namespace",
    is_flag=True,
    help="Fill even the table of your own namespace, or that of process 1.",
)
@netns_option
@json_option
def command(
    flows: int,
    zones: int,
    yes_in_this_namespace: bool,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Create flows to try things on.

    They are UDP flows in zones 1, 2, ... in turn, and live for a day.

    \b
    Examples:
      ip netns add lab
      nlct fill --netns lab --flows 100000 --zones 100
    """
    homes = inhabited()
    at_home = any(at.netns is None or at.netns.identity in homes for at in places)
    if at_home and not yes_in_this_namespace:
        raise click.UsageError(
            "name a --netns other than your own and that of process 1, or add "
            "--yes-in-this-namespace"
        )
    in_each(places, lambda place: _fill(place, flows, zones, as_json))


def _fill(place: Place, flows: int, zones: int, as_json: bool) -> None:
    with Conntrack(place.netns) as ct:
        _require_room(ct, flows)
        with Bar("filling", flows).shown() as bar:
            result = fill(ct, flows, zones, progress=bar.at)
    if as_json:
        failed = errno_names(result.failed)
        told = {"created": result.created, "failed": failed, "seconds": result.seconds}
        print_json(told, place.name)
    else:
        say(
            f"{flows_word(result.created)} created in {zones:,} zone{'' if zones == 1 else 's'} "
            f"({duration(result.seconds)})",
            place.name,
        )
    if result.failed:
        raise Failure("flows not created: " + errnos_word(result.failed))


def _require_room(ct: Conntrack, flows: int) -> None:
    there, limit = ct.count(), ct.limit
    # 0 is no limit.
    if limit and there + flows > limit:
        from nlct.cli.limit import how_to_raise  # noqa: PLC0415 - few need it

        raise Failure(
            f"{flows_word(flows)} do not fit: nf_conntrack_max is {limit:,}, and the table holds "
            f"{flows_word(there)}; as root, outside of any namespace: {how_to_raise(there + flows)}"
        )
