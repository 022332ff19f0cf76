"""The options that name one flow, and the values that a flow is given."""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple

import click

from nlct import labels
from nlct.cli.options import (
    LAST_ZONE,
    Command,
    Once,
    integer,
    number_option,
    refuse_leading_zeros,
    split,
)
from nlct.enums import Status
from nlct.flow import Flow, Tuple

# The arguments of Tuple, each with the options of both directions.
_NAMES = {
    "src": ("--src -s", "--reply-src -r", "ADDRESS", "Source."),
    "dst": ("--dst -d", "--reply-dst -q", "ADDRESS", "Destination."),
    "sport": ("--sport", "--reply-sport", "PORT", "Source port; for GRE the key."),
    "dport": ("--dport", "--reply-dport", "PORT", "Destination port."),
    "icmp_type": ("--icmp-type", "", "N", "Type of ICMP or ICMPv6."),
    "icmp_code": ("--icmp-code", "", "N", "Code of ICMP or ICMPv6."),
    "icmp_id": ("--icmp-id", "", "N", "Id of ICMP or ICMPv6."),
}


def masked(text: str) -> tuple[int, int]:
    """Read VALUE or VALUE/MASK."""
    value, slash, mask = text.partition("/")
    return integer(value), integer(mask) if slash else 2**32 - 1


def status_bits(texts: tuple[str, ...]) -> int:
    """Read bits of the status, by name or number."""
    bits = 0
    for text in split(texts):
        named = Status.__members__.get(text.upper())
        if named is None and not text[:1].isdigit():
            known = ", ".join(name.lower() for name in Status.__members__)
            raise click.BadParameter(f"{text!r} is not one of {known}, nor a number")
        bits |= integer(text) if named is None else int(named)
    return bits


def label_bits(texts: tuple[str, ...]) -> int:
    """Read labels, by number or by their name in connlabel.conf; each is a bit."""
    return functools.reduce(lambda bits, text: bits | 1 << _label(text), split(texts), 0)


def _label(text: str) -> int:
    if text[:1].isdigit():
        return integer(text, labels.MOST)
    try:
        return labels.number(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def value_option(
    names: str,
    to: str,
    metavar: str,
    help: str,
    read: Callable[[Any], Any],
    *,
    many: bool = False,
    required: bool = False,
) -> Callable[[Command], Command]:
    """Take a value, None if it is not given; ``many``: or a list of them."""

    def given(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> Any:
        # Once takes the one of a tuple.
        if not many:
            return tuple(map(read, texts))
        return read(texts) if texts else None

    attributes: dict[str, Any] = {"multiple": True} if many else {"cls": Once}
    return click.option(
        *(*names.split(), to),
        metavar=metavar,
        callback=given,
        help=help,
        required=required,
        **attributes,
    )


# Tuples and zones ---------------------------------------------------------------------------------


class Named(NamedTuple):
    """What the options say of one flow."""

    orig: dict[str, Any]
    reply: dict[str, Any]
    zone: int | None


def name_options(command: Command) -> Command:
    """Take them; the command gets a Named as ``named``."""

    @functools.wraps(command)
    def with_name(**given: Any) -> Any:
        orig = {name: given.pop(name) for name in _NAMES}
        reply = {name: given.pop(f"reply_{name}") for name in _NAMES if _NAMES[name][1]}
        proto = given.pop("proto")
        found = Named(_known(orig), _known(reply), given.pop("zone"))
        for one in (found.orig, found.reply):
            if one:
                one["proto"] = proto
        if not (found.orig or found.reply):
            raise click.UsageError("name the flow: --src, --dst, --sport, --dport, ...")
        return command(named=found, **given)

    decorated: Any = number_option("--zone", 0, LAST_ZONE, "Zone of both directions.")(with_name)
    for name, (own, back, metavar, says) in reversed(_NAMES.items()):
        plain = str if name in ("src", "dst") else integer
        if back:
            replies = f"{says.split(';')[0].rstrip('.')} of the replies."
            decorated = value_option(back, f"reply_{name}", metavar, replies, plain)(decorated)
        decorated = value_option(own, name, metavar, says, plain)(decorated)
    proto = value_option(
        *("--proto -p", "proto", "PROTO", "Protocol: tcp, udp, ... or its number.", _protocol),
        required=True,
    )
    return proto(decorated)  # type: ignore[no-any-return]


def _protocol(text: str) -> str:
    refuse_leading_zeros(text)
    return text


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def make(kind: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    """Make a Tuple or a Flow; what is wrong with a value is wrong usage."""
    try:
        return kind(*arguments, **values)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


def words(tuple: Tuple, zone: int | None) -> str:
    """Say which flow."""
    said = " ".join(f"{name}={value}" for name, value in tuple.to_dict().items() if name != "zone")
    return said if zone is None else f"{said} in zone {zone}"


def zone_of(flow: Flow) -> int | None:
    """Return the zone, None for 0, to say which flow."""
    return flow.zone or None
