"""``nlct get``."""

from __future__ import annotations

import click

from nlct.cli.app import Command, Failure
from nlct.cli.naming import Named, as_usage, make, name_options, require_whole, words
from nlct.cli.options import LAST_ZONE, json_option, netns_option, number_option
from nlct.cli.output import print_json, say
from nlct.cli.places import Place, in_each
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.errors import NotFoundError
from nlct.flow import Tuple


@click.command("get", cls=Command)
@name_options
@number_option("--orig-zone", 0, LAST_ZONE, "Zone of the original direction alone.")
@number_option("--reply-zone", 0, LAST_ZONE, "Zone of the replies alone.")
@netns_option
@json_option
def command(
    named: Named,
    orig_zone: int | None,
    reply_zone: int | None,
    places: tuple[Place, ...],
    as_json: bool,
) -> None:
    """Show one flow, by its tuple; exit code 1 if there is none.

    Name it by the original tuple, or by that of the replies. Without --zone it is looked for as a
    flow without a zone.

    \b
    Examples:
      nlct get --src 10.0.0.1 --dst 192.0.2.1 --proto udp --sport 1024 --dport 53 --zone 7
      nlct get --reply-src 192.0.2.1 --reply-dst 10.0.0.1 -p udp --reply-sport 53 \\
        --reply-dport 1024 --json
    """
    if named.orig and named.reply:
        raise click.UsageError("name it by the original tuple or by that of the replies, not both")
    zones = (named.zone, orig_zone, reply_zone)
    if sum(zone is not None for zone in zones) > 1:
        raise click.UsageError("give one of --zone, --orig-zone and --reply-zone")
    if (reply_zone if named.orig else orig_zone) is not None:
        raise click.UsageError("a zone of one direction goes with the tuple of that direction")
    own = orig_zone if named.orig else reply_zone
    wanted = make(Tuple, **(named.orig or named.reply), zone=own)
    require_whole(wanted, replies=not named.orig)
    require_output()
    in_each(places, lambda place: _get(place, wanted, named.zone, as_json))


def _get(place: Place, wanted: Tuple, zone: int | None, as_json: bool) -> None:
    with Conntrack(place.netns) as ct:
        try:
            with as_usage():
                flow = ct.get(wanted, zone)
        except NotFoundError as exc:
            raise Failure(f"there is no flow {words(wanted, zone)}") from exc
    if as_json:
        print_json(flow.to_dict(), place.name)
    else:
        say(str(flow), place.name)
