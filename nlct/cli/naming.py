"""The options that name one flow, and the values that a flow is given."""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, NamedTuple

import click

from nlct import _reasons, labels
from nlct._fields import status_names
from nlct.cli.options import (
    LAST_ZONE,
    Aliased,
    Command,
    Once,
    integer,
    number_option,
    refuse_leading_zeros,
    split,
)
from nlct.enums import Proto, Status
from nlct.errors import InvalidRequestError
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
# What conntrack(8) calls them as well.
_ALIASES = {
    "--src": "--orig-src",
    "--dst": "--orig-dst",
    "--sport": "--orig-port-src --srckey --orig-key-src",
    "--dport": "--orig-port-dst --dstkey --orig-key-dst",
    "--reply-sport": "--reply-port-src --reply-key-src",
    "--reply-dport": "--reply-port-dst --reply-key-dst",
    "--icmp-type": "--icmpv6-type",
    "--icmp-code": "--icmpv6-code",
    "--icmp-id": "--icmpv6-id",
}


def masked(text: str) -> tuple[int, int]:
    """Read VALUE or VALUE/MASK."""
    value, slash, mask = text.partition("/")
    return integer(value), integer(mask) if slash else 2**32 - 1


def status_bits(able: int) -> Callable[[tuple[str, ...]], int]:
    """Return what reads bits of the status, by name or number; ``able``: those that can be set."""

    def read(texts: tuple[str, ...]) -> int:
        bits = 0
        known = ", ".join(status_names(able))
        for text in split(texts):
            named = Status.__members__.get(text.upper())
            if named is None and not text[:1].isdigit():
                raise click.BadParameter(f"{text!r} is not one of {known}, nor a number")
            bit = integer(text) if named is None else int(named)
            if bit & ~able:
                raise click.BadParameter(f"{text} cannot be set, only {known}")
            bits |= bit
        return bits

    return read


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
    aliases: str = "",
) -> Callable[[Command], Command]:
    """Take a value, None if it is not given; ``many``: or a list of them."""

    def given(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> Any:
        # Once takes the one of a tuple.
        if not many:
            return tuple(map(read, texts))
        return read(texts) if texts else None

    attributes: dict[str, Any] = {"cls": Aliased, "multiple": True} if many else {"cls": Once}
    return click.option(
        *(*names.split(), to),
        metavar=metavar,
        callback=given,
        help=help,
        required=required,
        aliases=aliases,
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

    decorated: Any = number_option(
        "--zone -z", 0, LAST_ZONE, "Zone of both directions.", aliases="-w"
    )(with_name)
    for name, (own, back, metavar, says) in reversed(_NAMES.items()):
        if back:
            replies = f"{says.split(';')[0].rstrip('.')} of the replies."
            decorated = _end_option(back, f"reply_{name}", metavar, replies)(decorated)
        decorated = _end_option(own, name, metavar, says)(decorated)
    proto = value_option(
        *("--proto -p", "proto", "PROTO", "Protocol: tcp, udp, ... or its number.", _protocol),
        aliases="--protonum",
        required=True,
    )
    return proto(decorated)  # type: ignore[no-any-return]


def _protocol(text: str) -> str:
    refuse_leading_zeros(text)
    return text


def _end_option(names: str, to: str, metavar: str, help: str) -> Callable[[Command], Command]:
    read = str if metavar == "ADDRESS" else integer
    aliases = _ALIASES.get(names.partition(" ")[0], "")
    return value_option(names, to, metavar, help, read, aliases=aliases)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def make(kind: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    """Make a Tuple or a Flow; what is wrong with a value is wrong usage."""
    try:
        return kind(*arguments, **values)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


def require_whole(one: Tuple, *, replies: bool = False) -> None:
    """Refuse a tuple that names no flow, by the options that are missing."""
    missing = _reasons.missing(one)
    options = [_NAMES[name][replies].partition(" ")[0] for name in missing]
    if not all(options):
        raise click.UsageError("a flow of ICMP is named by its original tuple: --src, --dst, ...")
    if options:
        raise click.UsageError(f"the name of the flow is not whole: add {', '.join(options)}")
    if known := _reasons.icmp_types(one):
        raise click.UsageError(f"--icmp-type must be one of {known}, not {one.icmp_type}")


@contextmanager
def as_usage() -> Iterator[None]:
    """Make wrong usage of a request that the kernel finds malformed."""
    try:
        yield
    except InvalidRequestError as exc:
        # That is an answer.
        if exc.errno == errno.EBADMSG:
            raise
        raise click.UsageError(exc.strerror or "") from exc


def words(tuple: Tuple, zone: int | None) -> str:
    """Say which flow."""
    values = tuple.to_dict()
    own = values.pop("zone", None)
    if tuple.proto in list(Proto):
        values["proto"] = Proto(tuple.proto).name.lower()
    said = " ".join(f"{name}={value}" for name, value in values.items())
    where = f"zone {zone or 0}" if own is None else f"zone {own} of one direction"
    return f"{said} in {where}"


def zone_of(flow: Flow) -> int | None:
    """Return the zone, None for 0, to say which flow."""
    return flow.zone or None
