"""The options that select flows, the same for every command that takes them."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

import click

from nlct._fields import FIELDS
from nlct.cli.options import Command, number_range, refuse_leading_zeros, split, zone_set
from nlct.enums import Status
from nlct.filter import STATUS_NAMES, Filter, read_network

# The value of a NAT option that is given without an address.
_TRANSLATED = "any"
_FAMILIES = ("ipv4", "ipv6")
_LABELS = 128

Texts = tuple[str, ...]


def _number(text: str) -> int:
    """Read a number that may be hexadecimal, as marks and bits are."""
    refuse_leading_zeros(text)
    if re.fullmatch(r"[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}", text) is None:
        raise click.BadParameter(f"{text!r} is not a number")
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


# Readers: from the texts of an option to what Filter takes ----------------------------------------


def _ranges(field: str) -> Callable[[Texts], list[range]]:
    high = FIELDS[field].highest
    return lambda texts: [number_range(text, high, open_end=True) for text in split(texts)]


def _names(texts: Texts) -> list[Any]:
    for text in split(texts):
        refuse_leading_zeros(text)
    return [int(text) if re.fullmatch("[0-9]{1,20}", text) else text for text in split(texts)]


def _families(texts: Texts) -> set[str]:
    families = {text.lower() for text in split(texts)}
    if not families <= set(_FAMILIES):
        raise click.BadParameter("it is ipv4 or ipv6")
    return families


def _marks(texts: Texts) -> list[Any]:
    marks: list[Any] = []
    for text in split(texts):
        value, slash, mask = text.partition("/")
        marks.append((_number(value), _number(mask)) if slash else _number(value))
    return marks


def _bits(texts: Texts) -> int:
    """Read bits that must all be set."""
    bits = functools.reduce(operator.or_, map(_bit, split(texts)))
    # Every flow has all of no bits.
    if not bits:
        raise click.BadParameter("0 has no bits")
    return bits


def _bit(text: str) -> int:
    try:
        return Status[text.upper()]
    except KeyError:
        if text[:1].isdigit():
            return _number(text)
        raise click.BadParameter(f"{text!r} is not one of {STATUS_NAMES}, nor a number") from None


def _labels(texts: Texts) -> int:
    """Read labels that must all be set."""
    labels = [_number(text) for text in split(texts)]
    if max(labels) >= _LABELS:
        raise click.BadParameter(f"a label is from 0 to {_LABELS - 1}, not {max(labels)}")
    return functools.reduce(operator.or_, (1 << label for label in labels))


def _addresses(texts: Texts) -> set[Any]:
    found: set[Any] = set()
    for text in texts:
        if text == "@-":
            _take_standard_input()
        if text.startswith("@"):
            found.update(_addresses_in(text[1:]))
        else:
            found.update(map(_address, text.split(",")))
    return found


def _take_standard_input() -> None:
    """Refuse to read it for two options: the second would get nothing, and match nothing."""
    read = click.get_current_context().meta
    if read.get(__name__):
        raise click.BadParameter("standard input (@-) can be read for one option only")
    read[__name__] = True


def _addresses_in(path: str) -> Iterator[Any]:
    """Yield the addresses in a file, without empty lines and what follows a #."""
    try:
        with click.open_file(path) as lines:
            for number, line in enumerate(lines, 1):
                text = line.partition("#")[0].strip()
                if text:
                    yield _address(text, f"{path}:{number}: ")
    except (OSError, UnicodeDecodeError) as exc:
        raise click.BadParameter(f"cannot read {path!r}: {exc}") from None


def _address(text: str, where: str = "") -> Any:
    try:
        return read_network(text)
    except ValueError as exc:
        raise click.BadParameter(f"{where}{exc}") from None


def _translated(texts: Texts) -> Any:
    return True if _TRANSLATED in texts else _addresses(texts)


# The options -------------------------------------------------------------------------------------


class _Option(NamedTuple):
    """One option: its names, the field of Filter, what it takes and how that is read."""

    names: str
    field: str
    metavar: str
    read: Callable[[Texts], Any]
    help: str
    alone: str | None = None


def _address_option(names: str, field: str, help: str) -> _Option:
    return _Option(names, field, "ADDRESS", _addresses, help)


def _range_option(names: str, field: str, help: str, metavar: str = "N[-N]") -> _Option:
    return _Option(names, field, metavar, _ranges(field), help)


def _port_option(names: str, field: str, help: str) -> _Option:
    return _range_option(names, field, help, "PORT[-PORT]")


def _count_option(names: str, field: str, help: str) -> _Option:
    return _range_option(names, field, help, "N[-[N]]")


def _nat_option(names: str, field: str, help: str) -> _Option:
    return _Option(names, field, "[ADDRESS]", _translated, help, _TRANSLATED)


_OPTIONS = (
    _Option("--zone -z", "zone", "ZONE[-ZONE]", zone_set, "Zone, 0 to 65535, as in 7 or 10-20."),
    _Option("--family -f", "family", "FAMILY", _families, "ipv4 or ipv6."),
    _Option("--proto -p", "proto", "PROTO", _names, "Protocol: tcp, udp, ... or its number."),
    _address_option("--src -s", "src", "Source: an address, a network, or @FILE with one a line."),
    _address_option("--dst -d", "dst", "Destination."),
    _port_option("--sport", "sport", "Source port; for GRE the key."),
    _port_option("--dport", "dport", "Destination port."),
    _address_option("--reply-src -r", "reply_src", "Source of the replies."),
    _address_option("--reply-dst -q", "reply_dst", "Destination of the replies."),
    _port_option("--reply-sport", "reply_sport", "Source port of the replies."),
    _port_option("--reply-dport", "reply_dport", "Destination port of the replies."),
    _range_option("--icmp-type", "icmp_type", "Type of ICMP or ICMPv6."),
    _range_option("--icmp-code", "icmp_code", "Code of ICMP or ICMPv6."),
    _range_option("--icmp-id", "icmp_id", "Id of ICMP or ICMPv6."),
    _Option("--mark -m", "mark", "MARK[/MASK]", _marks, "Mark; 0x for hexadecimal."),
    _Option("--status -u", "status", "BIT", _bits, "All of these: assured, seen_reply, ..."),
    _Option("--status-none", "status_none", "BIT", _bits, "None of these bits of the status."),
    _Option(
        "--state", "state", "STATE", _names, "State: established, ...; of TCP without --proto."
    ),
    _Option("--label -l", "labels", "LABEL", _labels, "All of these labels, 0 to 127."),
    _Option("--helper", "helper", "NAME", lambda t: list(split(t)), "Helper: ftp, sip, ..."),
    _count_option("--timeout -t", "timeout", "Seconds left: 60, 0-60, 60-."),
    _nat_option("--src-nat", "snat", "Source is translated, to this address if one is given."),
    _nat_option("--dst-nat -g", "dnat", "Destination is translated, likewise."),
    _nat_option("--any-nat -j", "any_nat", "Either is translated, likewise."),
    _range_option("--id", "id", "The kernel's id of the flow.", "ID"),
    _count_option("--packets-orig", "packets_orig", "Packets counted: 10, 0-10, 10-."),
    _count_option("--packets-reply", "packets_reply", "Packets of the replies."),
    _count_option("--bytes-orig", "bytes_orig", "Bytes counted."),
    _count_option("--bytes-reply", "bytes_reply", "Bytes of the replies."),
)


def _filter(given: dict[str, Any]) -> Filter:
    """Make one filter of all options; an error names the option that causes it."""
    try:
        return _filter_of(given)
    except ValueError:
        so_far: dict[str, Any] = {}
        for field, value in given.items():
            so_far[field] = value
            try:
                _filter_of(so_far)
            except ValueError as exc:
                ctx = click.get_current_context()
                raise click.BadParameter(str(exc), ctx, _param(ctx, field)) from None
        raise


def _filter_of(given: dict[str, Any]) -> Filter:
    families = given.get("family", ())
    if len(families) < 2:
        return Filter(**{**given, "family": next(iter(families), None)})
    each = (Filter(family=family) for family in families)
    return Filter(**{**given, "family": None}) & functools.reduce(operator.or_, each)


def _name(field: str) -> str:
    return f"only_{field}"


def _param(ctx: click.Context, field: str) -> click.Parameter:
    return next(param for param in ctx.command.params if param.name == _name(field))


def filter_options(command: Command) -> Command:
    """Take the options; the command gets one filter of them all as ``wanted``."""
    return _take(_OPTIONS, command)


def event_filter_options(command: Command) -> Command:
    """Take all of them but --timeout, which ends a stream of events."""
    return _take([option for option in _OPTIONS if option.field != "timeout"], command)


def _take(options: Sequence[_Option], command: Command) -> Command:
    @functools.wraps(command)
    def with_filter(**arguments: Any) -> Any:
        values = {option.field: arguments.pop(_name(option.field)) for option in options}
        given = {field: value for field, value in values.items() if value is not None}
        return command(wanted=_filter(given), **arguments)

    decorated: Any = with_filter
    for option in reversed(options):
        decorated = click.option(
            *option.names.split(),
            _name(option.field),
            metavar=option.metavar,
            multiple=True,
            callback=lambda _ctx, _param, texts, option=option: (
                option.read(texts) if texts else None
            ),
            help=option.help,
            **({} if option.alone is None else {"is_flag": False, "flag_value": option.alone}),
        )(decorated)
    return decorated  # type: ignore[no-any-return]
