"""``nlct expect``: list, create, delete and flush expectations, and show their events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Callable

import click

from nlct.cli.app import Command, Failure, Group
from nlct.cli.follow import Found, follow_options, json_line, show
from nlct.cli.naming import make
from nlct.cli.options import LAST_ZONE, Once, json_option, names_in, netns_option, number_option
from nlct.cli.output import print_json, say
from nlct.cli.places import Place, in_each
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.enums import ExpectFlags
from nlct.expect import Expectation, ExpectationEvents
from nlct.flow import Tuple
from nlct.stream import Overrun

Taking = Callable[[Any], Any]
DIRECTIONS = ("original", "reply")
FLAGS = tuple((flag.name or "").lower() for flag in ExpectFlags)


@click.group("expect", cls=Group)
def command() -> None:
    """List, create and delete expectations: the flows that helpers expect. Show their events.

    \b
    Examples:
      nlct expect list
      nlct expect delete --dport 50000 --zone 7
      nlct expect flush --all --yes
      nlct expect events --json
    """


zone_option = number_option(
    "--zone -z", 0, LAST_ZONE, "The zone, which is that of the master.", aliases="-w"
)


def _text_option(names: str, help: str, **attributes: Any) -> Taking:
    return click.option(*names.split(), cls=Once, metavar="VALUE", help=help, **attributes)


def _tuple_options(prefix: str, what: str) -> Taking:
    """Take a tuple: --src, --dst, --sport, --dport."""

    def take(decorated: Any) -> Any:
        for end in ("dst", "src"):
            decorated = number_option(f"--{prefix}{end[0]}port", 0, 65535, f"Port {what}.")(
                decorated
            )
            decorated = _text_option(f"--{prefix}{end}", f"Address {what}.")(decorated)
        return decorated

    return take


def _tuple_of(values: dict[str, Any], prefix: str, proto: str | None) -> Tuple | None:
    """Take a tuple out of the values of options, None where none of it is given."""
    given = {name: values.pop(f"{prefix}{name}", None) for name in ("src", "dst", "sport", "dport")}
    if not any(value is not None for value in given.values()):
        return None
    made: Tuple = make(Tuple, **given, proto=proto)
    return made


@command.command("list", cls=Command)
@zone_option
@netns_option
@json_option
def list_(zone: int | None, places: tuple[Place, ...], as_json: bool) -> None:
    """List expectations, of one zone or of all.

    Text is the lines of conntrack -L expect, for both families; --json prints one object per line.
    The kernel does not tell an expectation's zone: it is shown only with --zone.
    """
    require_output()

    def show(place: Place) -> None:
        with Conntrack(place.netns) as ct:
            for found in ct.expectations.dump(zone=zone):
                _tell(found, place, as_json)

    in_each(places, show)


def _flags(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> int | None:
    names = names_in(given, FLAGS)
    return sum(ExpectFlags[name.upper()] for name in names) if names else None


@command.command("create", cls=Command)
@_tuple_options("", "of the flow that is expected")
@_text_option("--proto -p", "Its protocol, and the master's: a name or a number.", required=True)
@_tuple_options("master-", "of the flow that it belongs to")
@_tuple_options("mask-", "as the bits that count; all that you give, without any mask")
@zone_option
@_text_option("--helper", "The helper, which must be the master's.")
@number_option("--class", 0, 2**32 - 1, "Which of the helper's kinds of expectation.")
@click.option(
    "--flags",
    metavar="FLAG[,FLAG]",
    multiple=True,
    callback=_flags,
    help=f"Some of {', '.join(FLAGS)}.",
)
@_text_option("--nat-src", "Translate the flow to this address.")
@number_option("--nat-sport", 0, 65535, "Translate it to this port.")
@click.option(
    "--nat-direction", cls=Once, type=click.Choice(DIRECTIONS), help="Translate which direction."
)
@_text_option("--function", "The kernel's name of what it does when the flow comes.")
@netns_option
@json_option
def create(places: tuple[Place, ...], as_json: bool, **values: Any) -> None:
    """Create an expectation, for a flow that has a helper.

    DANGER: a helper allows each flow only so many expectations, that of FTP one. One more, and the
    kernel drops the flow's oldest.

    \b
    Examples:
      nlct expect create --proto tcp --src 10.0.0.2 --dst 10.0.0.1 --dport 50000 \\
        --master-src 10.0.0.1 --master-dst 10.0.0.2 --master-sport 40000 --master-dport 21
    """
    made = _expectation_of(values)

    def create_in(place: Place) -> None:
        with Conntrack(place.netns) as ct:
            ct.expectations.create(made)
        if as_json:
            print_json({"created": 1}, place.name)
        else:
            say("1 expectation created", place.name)

    in_each(places, create_in)


def _expectation_of(values: dict[str, Any]) -> Expectation:
    proto = values.pop("proto")
    expected, master, mask = (_tuple_of(values, prefix, proto) for prefix in ("", *PREFIXES))
    if expected is None or expected.family is None:
        raise click.UsageError("an expectation needs --dst, the address that the flow goes to")
    if master is None or master.family is None:
        raise click.UsageError("name the master: --master-src, --master-dst and their ports")
    nat, sport, direction = (values.pop(f"nat_{name}") for name in ("src", "sport", "direction"))
    if (nat is None) != (direction is None) or (sport is not None and nat is None):
        raise click.UsageError("--nat-src and --nat-direction go together")
    if values["function"] is not None and nat is None:
        raise click.UsageError("--function goes only with --nat-src and --nat-direction")
    if nat is not None:
        # The kernel wants a whole tuple, of which only the source counts.
        any_address = "0.0.0.0" if ":" not in nat else "::"
        values["nat"] = _tuple_of(
            {"src": nat, "dst": any_address, "sport": sport or 0, "dport": 0}, "", proto
        )
        values["nat_direction"] = DIRECTIONS.index(direction)
    made: Expectation = make(
        Expectation, expected, mask, master, expect_class=values.pop("class"), **values
    )
    return made


PREFIXES = ("master_", "mask_")


@command.command("delete", cls=Command)
@_tuple_options("", "of the flow that is expected")
@_text_option("--proto -p", "Its protocol: a name or a number.")
@number_option("--id", 0, 2**32 - 1, "The expectation's id.")
@number_option(
    "--zone -z", 0, LAST_ZONE, "The zone, which is that of the master.", default=0, aliases="-w"
)
@netns_option
@json_option
def delete(
    places: tuple[Place, ...], as_json: bool, zone: int, id: int | None, **values: Any
) -> None:
    """Delete one expectation and nothing else.

    It must have every value you give, and be the only one of its zone that does.

    \b
    Examples:
      nlct expect delete --dst 10.0.0.1 --dport 50000
      nlct expect delete --dport 50000 --zone 7 --json
    """
    proto = values.pop("proto")
    wanted = _tuple_of(values, "", proto)
    if wanted is None and id is None:
        raise click.UsageError("name the expectation: --dst, --dport, ...; or see flush --all")
    named = {} if wanted is None else wanted.to_dict()

    def delete_in(place: Place) -> None:
        with Conntrack(place.netns) as ct:
            found = [
                one
                for one in ct.expectations.dump(zone=zone)
                if id in (None, one.id) and named.items() <= one.tuple.to_dict().items()
            ]
            if len(found) != 1:
                raise Failure(
                    f"{len(found)} expectations of zone {zone} match: name one"
                    if found
                    else f"no such expectation in zone {zone}"
                )
            ct.expectations.delete(found[0])
        _tell(found[0], place, as_json)

    in_each(places, delete_in)


@command.command("flush", cls=Command)
@click.option("--all", "everything", is_flag=True, help="Delete every expectation of all zones.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; a script needs it.")
@netns_option
@json_option
def flush(everything: bool, yes: bool, places: tuple[Place, ...], as_json: bool) -> None:
    """Delete all expectations of the namespace, in every zone.

    It asks on a terminal, and needs --all --yes in a script.
    """
    if not everything:
        raise click.UsageError("this deletes the expectations of every zone: add --all")
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError("without a terminal, deleting everything needs --all --yes")
        if not click.confirm("Delete all expectations?", err=True):
            raise Failure("nothing was deleted")

    def flush_in(place: Place) -> None:
        with Conntrack(place.netns) as ct:
            ct.expectations.flush_all()
        if as_json:
            print_json({"flushed": True}, place.name)
        else:
            say("flushed by the kernel, which does not count", place.name)

    in_each(places, flush_in)


@command.command("events", cls=Command)
@click.option("--new", is_flag=True, help="Expectations that a helper or a program makes.")
@click.option("--destroy", is_flag=True, help="Expectations that end, also by being fulfilled.")
@follow_options
def events(new: bool, destroy: bool, buffer: int | None, **following: Any) -> None:
    """Show what happens to expectations, as it happens.

    Text is the lines of conntrack -E expect, for both families; --json prints one object per line
    (NDJSON). Without --new and --destroy it shows both; no expectation is ever updated. If events
    come faster than they are read, the kernel drops some; a line on standard error, or an object,
    says how many.

    \b
    Examples:
      nlct expect events --new
      nlct expect events --json --count 10 | jq .tuple.dport
    """
    kinds = [kind for kind, asked in (("new", new), ("destroy", destroy)) if asked]
    show(lambda ct: ct.expectations.events(*kinds, buffer=buffer), _queued, **following)


def _queued(events: ExpectationEvents, as_json: bool) -> Iterator[Found]:
    while (item := events.get(timeout=0)) is not None:
        if isinstance(item, Overrun):
            yield item
        else:
            yield json_line(item) if as_json else f"{item}\n".encode()


def _tell(found: Expectation, place: Place, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict(), place.name)
    else:
        say(str(found), place.name)
