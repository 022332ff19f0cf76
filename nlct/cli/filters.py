"""The options that select flows, the same for every command that takes them.

Each has a form that excludes, --not-src beside --src, and --or begins an alternative.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

import click

from nlct import labels
from nlct._fields import FIELDS
from nlct.cli.app import given
from nlct.cli.options import Command, integer, number_range, refuse_leading_zeros, split, zone_set
from nlct.enums import Proto, Status
from nlct.filter import (
    ALL,
    STATUS_NAMES,
    UNREPLIED,
    Filter,
    read_network,
    read_target,
    too_wide,
)

# The value of a NAT option that is given without an address.
_TRANSLATED = "any"
_FAMILIES = ("ipv4", "ipv6")

Texts = tuple[str, ...]

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
        marks.append((integer(value), integer(mask)) if slash else integer(value))
    return marks


def _bits(texts: Texts) -> int:
    """Read bits of the status."""
    bits = functools.reduce(operator.or_, map(_bit, split(texts)))
    # Every flow has all of no bits.
    if not bits:
        raise click.BadParameter("0 has no bits, and conntrack's unset means 0; see unreplied")
    return bits


def _bit(text: str) -> int:
    # As conntrack(8) calls no bits at all.
    if text.lower() == "unset":
        return 0
    try:
        return Status[text.upper()]
    except KeyError:
        if text[:1].isdigit():
            return integer(text)
        raise click.BadParameter(f"{text!r} is not one of {STATUS_NAMES}, nor a number") from None


def _status(texts: Texts) -> Any:
    """Read bits that must all be set; "unreplied" is one that must not."""
    names = list(split(texts))
    rest = tuple(name for name in names if name.lower() != "unreplied")
    if len(rest) == len(names):
        return _bits(texts)
    bits = functools.reduce(operator.or_, map(_bit, rest), 0)
    if bits & UNREPLIED[1]:
        raise click.BadParameter("a flow is either seen_reply or unreplied")
    return bits, bits | UNREPLIED[1]


def _labels(texts: Texts) -> Any:
    """Read labels that must all be set: numbers, names, and values of bits with their masks."""
    value = mask = 0
    for text in split(texts):
        one_value, one_mask = _label(text)
        if (value ^ one_value) & mask & one_mask:
            raise click.BadParameter(f"{text!r} excludes what is given before it")
        value |= one_value
        mask |= one_mask
    return value if value == mask else (value, mask)


def _label(text: str) -> tuple[int, int]:
    """Return the bits of a label, and which bits count."""
    value, slash, mask = text.partition("/")
    if slash:
        return _label_bits(value), _label_bits(mask)
    try:
        label = integer(text) if text[:1].isdigit() else labels.number(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    if label > labels.MOST:
        raise click.BadParameter(f"a label is from 0 to {labels.MOST}, not {label}")
    return 1 << label, 1 << label


def _label_bits(text: str) -> int:
    """Read a number of 128 bits."""
    if re.fullmatch("0[xX][0-9a-fA-F]{1,32}", text):
        return int(text, 16)
    return integer(text)


def _addresses(texts: Texts, read: Callable[[str], Any] = read_network) -> list[Any]:
    """Read lists and files of addresses; ``read`` reads one."""
    found: dict[Any, None] = {}
    for text in texts:
        if text == "@-":
            _take_standard_input()
        if text.startswith("@"):
            found.update((_read(read, line, where), None) for line, where in _lines_of(text[1:]))
        else:
            found.update((_read(read, item), None) for item in text.split(","))
    return list(found)


def _take_standard_input() -> None:
    """Refuse to read it for two options: the second would get nothing, and match nothing."""
    read = click.get_current_context().meta
    if read.get(__name__):
        raise click.BadParameter("standard input (@-) can be read for one option only")
    read[__name__] = True


def _lines_of(path: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file and where they stand, without empty ones and what follows a #."""
    try:
        with click.open_file(path) as lines:
            for number, line in enumerate(lines, 1):
                text = line.partition("#")[0].strip()
                if text:
                    yield text, f"{path}:{number}: "
    except (OSError, UnicodeDecodeError) as exc:
        raise click.BadParameter(f"cannot read {path!r}: {exc}") from None


def _read(read: Callable[[str], Any], text: str, where: str = "") -> Any:
    try:
        return read(text)
    except ValueError as exc:
        raise click.BadParameter(f"{where}{exc}") from None


def _translated(texts: Texts) -> Any:
    return True if _TRANSLATED in texts else _addresses(texts, read_target)


# The options -------------------------------------------------------------------------------------


class _Option(NamedTuple):
    """What selects flows: its names, the field of Filter, what it takes and how that is read.

    ``aliases``: names that conntrack(8) has, which --help does not list.
    ``alone``: the value of an option without one. ``proto``: the protocol that it implies.
    """

    names: str
    field: str
    metavar: str
    read: Callable[[Texts], Any]
    help: str
    aliases: str = ""
    alone: str | None = None
    proto: Proto | None = None


def _address_option(names: str, field: str, help: str, aliases: str = "") -> _Option:
    return _Option(names, field, "ADDRESS", _addresses, help, aliases)


def _range_option(
    names: str, field: str, help: str, aliases: str = "", metavar: str = "N[-N]"
) -> _Option:
    return _Option(names, field, metavar, _ranges(field), help, aliases)


def _port_option(names: str, field: str, help: str, aliases: str = "") -> _Option:
    return _range_option(names, field, help, aliases, "PORT[-PORT]")


def _count_option(names: str, field: str, help: str) -> _Option:
    return _range_option(names, field, help, metavar="N[-[N]]")


def _key_option(names: str, field: str, help: str) -> _Option:
    return _Option(names, field, "KEY[-KEY]", _ranges(field), help, proto=Proto.GRE)


def _nat_option(names: str, field: str, help: str, aliases: str) -> _Option:
    return _Option(names, field, "[ADDRESS][:PORT]", _translated, help, aliases, _TRANSLATED)


_OPTIONS = (
    _Option(
        "--zone -z", "zone", "ZONE[-ZONE]", zone_set, "Zone, 0 to 65535, as in 7 or 10-20.", "-w"
    ),
    _range_option("--orig-zone", "orig_zone", "Zone of the original direction alone."),
    _range_option("--reply-zone", "reply_zone", "Zone of the replies alone."),
    _Option("--family -f", "family", "FAMILY", _families, "ipv4 or ipv6."),
    _Option(
        *("--proto -p", "proto", "PROTO", _names, "Protocol: tcp, udp, ... or its number."),
        aliases="--protonum",
    ),
    _address_option(
        "--src -s", "src", "Source: an address, a network, or @FILE with one a line.", "--orig-src"
    ),
    _address_option("--dst -d", "dst", "Destination.", "--orig-dst"),
    _port_option("--sport", "sport", "Source port; for GRE the key.", "--orig-port-src"),
    _port_option("--dport", "dport", "Destination port.", "--orig-port-dst"),
    _address_option("--reply-src -r", "reply_src", "Source of the replies."),
    _address_option("--reply-dst -q", "reply_dst", "Destination of the replies."),
    _port_option("--reply-sport", "reply_sport", "Source port of the replies.", "--reply-port-src"),
    _port_option(
        "--reply-dport", "reply_dport", "Destination port of the replies.", "--reply-port-dst"
    ),
    _address_option("--address", "address", "Any of these four addresses."),
    _key_option("--srckey", "sport", "Source key of GRE, as in 0x10."),
    _key_option("--dstkey", "dport", "Destination key of GRE."),
    _range_option("--icmp-type", "icmp_type", "Type of ICMP or ICMPv6."),
    _range_option("--icmp-code", "icmp_code", "Code of ICMP or ICMPv6."),
    _range_option("--icmp-id", "icmp_id", "Id of ICMP or ICMPv6."),
    _Option("--mark -m", "mark", "MARK[/MASK]", _marks, "Mark; 0x for hexadecimal."),
    _Option("--status -u", "status", "BIT", _status, "All of these: assured, unreplied, ..."),
    _Option("--status-none", "status_none", "BIT", _bits, "None of these bits of the status."),
    _Option(
        "--state", "state", "STATE", _names, "State: established, ...; of TCP without --proto."
    ),
    _range_option("--sctp-vtag-orig", "sctp_vtag_orig", "Verification tag of SCTP.", "--orig-vtag"),
    _range_option("--sctp-vtag-reply", "sctp_vtag_reply", "That of the replies.", "--reply-vtag"),
    _Option(
        *("--label -l", "labels", "LABEL", _labels),
        "All of these labels: 0 to 127, a name in connlabel.conf, or bits as 0x1/0x3.",
    ),
    _Option("--helper", "helper", "NAME", lambda t: list(split(t)), "Helper: ftp, sip, ..."),
    _count_option("--timeout -t", "timeout", "Seconds left: 60, 0-60, 60-."),
    _nat_option("--snat -n", "snat", "Source is translated, to this if given.", "--src-nat"),
    _nat_option("--dnat -g", "dnat", "Destination is translated, likewise.", "--dst-nat"),
    _nat_option("--any-nat -j", "any_nat", "Either is translated, likewise.", ""),
    _range_option("--id", "id", "The kernel's id of the flow.", metavar="ID"),
    _count_option("--use", "use", "References to the flow."),
    _count_option("--packets-orig", "packets_orig", "Packets counted: 10, 0-10, 10-."),
    _count_option("--packets-reply", "packets_reply", "Packets of the replies."),
    _count_option("--bytes-orig", "bytes_orig", "Bytes counted."),
    _count_option("--bytes-reply", "bytes_reply", "Bytes of the replies."),
    _count_option("--timestamp-start", "timestamp_start", "Nanoseconds since 1970 at its start."),
    _count_option("--timestamp-stop", "timestamp_stop", "The same at its end."),
    _address_option("--master-src", "master_src", "Source of the flow that expected this one."),
    _address_option("--master-dst", "master_dst", "Destination of the master."),
    _Option("--master-proto", "master_proto", "PROTO", _names, "Protocol of the master."),
    _port_option("--master-sport", "master_sport", "Source port of the master."),
    _port_option("--master-dport", "master_dport", "Destination port of the master."),
    _range_option("--master-icmp-type", "master_icmp_type", "ICMP type of the master."),
    _range_option("--master-icmp-code", "master_icmp_code", "ICMP code of the master."),
    _range_option("--master-icmp-id", "master_icmp_id", "ICMP id of the master."),
    _range_option("--master-zone", "master_zone", "Zone of the master, where it is told."),
)


class _Unlisted(click.Option):
    """An option that the shell completes, but that --help does not list."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:  # noqa: ARG002
        """Return nothing."""
        return None


class _Excluding(_Unlisted):
    """The first of those stands for all in --help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe all of them once."""
        first = next(param for param in ctx.command.params if isinstance(param, _Excluding))
        if self is not first:
            return None
        return "--not-...", "Not what the option means: --not-src, --not-zone, for each above."


# How an option is given: as it is listed, by another name, or to exclude.
_WAYS = {"only": click.Option, "also": _Unlisted, "not": _Excluding}
_OR = "or_else"


def _names_of(option: _Option, way: str) -> list[str]:
    names = (option.names if way == "only" else option.aliases).split()
    if way == "not":
        long = (option.names + " " + option.aliases).split()
        names = [f"--not-{name[2:]}" for name in long if name.startswith("--")]
    return names


class _Term(NamedTuple):
    """An option as it was given: what it restricts, or excludes."""

    option: _Option
    excludes: bool
    param: click.Parameter
    value: Any


def _alternatives(
    ctx: click.Context, options: Sequence[_Option], texts: dict[str, Texts]
) -> list[list[_Term]]:
    """Return what was given, split at each --or."""
    known = {_name(option, way): (option, way) for option in options for way in _WAYS}
    left = {name: iter(values) for name, values in texts.items()}
    found: list[dict[tuple[_Option, bool], tuple[click.Parameter, list[str]]]] = [{}]
    for param in given(ctx):
        name = param.name or ""
        if name == _OR:
            if not found[-1]:
                raise click.UsageError("--or must stand between options that select flows", ctx)
            found.append({})
        elif name in known:
            option, way = known[name]
            found[-1].setdefault((option, way == "not"), (param, []))[1].append(next(left[name]))
    if len(found) > 1 and not found[-1]:
        raise click.UsageError("--or must be followed by an option that selects flows", ctx)
    return [
        [
            _Term(option, excludes, param, _value(ctx, option, param, tuple(values), excludes))
            for (option, excludes), (param, values) in sorted(
                terms.items(), key=lambda term: (term[0][1], options.index(term[0][0]))
            )
        ]
        for terms in found
    ]


def _value(
    ctx: click.Context, option: _Option, param: click.Parameter, texts: Texts, excludes: bool
) -> Any:
    try:
        value = option.read(texts)
    except click.BadParameter as exc:
        exc.ctx, exc.param = ctx, param
        raise
    # An empty file of flows to spare would spare none of them.
    if excludes and value == []:
        raise click.BadParameter("it names nothing to exclude", ctx, param)
    return value


def _filter(ctx: click.Context, terms: list[_Term]) -> Filter:
    """Make one filter of all options; an error names the option that causes it."""
    try:
        return _filter_of(terms)
    except ValueError:
        for end, term in enumerate(terms, 1):
            try:
                _filter_of(terms[:end])
            except ValueError as exc:
                raise click.BadParameter(str(exc), ctx, term.param) from None
        raise


def _filter_of(terms: Sequence[_Term]) -> Filter:
    """Join what restricts and what excludes."""
    fields = {
        term.option.field: term.value for term in terms if not (term.excludes or term.option.proto)
    }
    families = fields.pop("family", ())
    if len(families) == 1:
        fields["family"] = next(iter(families))
    parts = [Filter(**fields)]
    if len(families) > 1:
        parts.append(_any_family(families))
    for option, excludes, _, value in terms:
        if option.proto or excludes:
            part = _part(option, value, fields.get("proto"), excludes)
            parts.append(~part if excludes else part)
    return functools.reduce(operator.and_, parts)


def _any_family(families: Iterable[str]) -> Filter:
    return functools.reduce(operator.or_, (Filter(family=family) for family in families))


def _part(option: _Option, value: Any, proto: Any, excludes: bool) -> Filter:
    """Make the filter of an option that cannot go with the others; ``proto``: that of --proto."""
    if option.field == "family":
        return _any_family(value)
    if option.field == "state":
        return Filter(proto=proto, state=value)
    if option.proto is None:
        return Filter(**{option.field: value})
    implied = Filter(proto=option.proto)
    if not (excludes or proto is None or Filter(proto=proto) == implied):
        raise ValueError(f"{option.names} implies --proto {option.proto.name.lower()}")
    return implied & Filter(**{option.field: value})


def _name(option: _Option, way: str) -> str:
    return f"{way}_{option.names.split()[0][2:].replace('-', '_')}"


def as_given(ctx: click.Context) -> str:
    """Return the options that select flows as they were given, to show what is shown."""
    words: list[str] = []
    left: dict[str, Iterator[str]] = {}
    for param in given(ctx):
        name = param.name or ""
        if name == _OR:
            words.append("--or")
        elif name.partition("_")[0] in _WAYS:
            text = next(left.setdefault(name, iter(ctx.params[name])))
            words += [next(one for one in param.opts if one[:2] == "--"), text]
    return " ".join(words)


def meant(wanted: Filter, everything: bool, otherwise: str) -> Filter:
    """Return what --all and the options mean; ALL for every flow, which nothing else means.

    ``otherwise``: what to do instead of selecting flows.
    """
    if everything and not wanted.matches_everything:
        raise click.UsageError("--all and options that select flows contradict each other")
    reason = None if everything else too_wide(wanted)
    if reason is not None:
        raise click.UsageError(
            f"the filter {reason}: select flows, for example with --src ADDRESS, or {otherwise}"
        )
    return ALL if everything else wanted


def filter_options(command: Command) -> Command:
    """Take the options; the command gets one filter of them all as ``wanted``."""
    return _take(_OPTIONS, command)


def event_filter_options(command: Command) -> Command:
    """Take all of them but --timeout, which ends a stream of events."""
    return _take([option for option in _OPTIONS if option.field != "timeout"], command)


def _take(options: Sequence[_Option], command: Command) -> Command:
    named = {_name(option, way) for option in options for way in _WAYS if _names_of(option, way)}

    @functools.wraps(command)
    def with_filter(**arguments: Any) -> Any:
        ctx = click.get_current_context()
        arguments.pop(_OR)
        texts = {name: arguments.pop(name) for name in named}
        each = [_filter(ctx, terms) for terms in _alternatives(ctx, options, texts)]
        return command(wanted=functools.reduce(operator.or_, each), **arguments)

    decorated: Any = with_filter
    decorated = click.option(
        "--or", _OR, is_flag=True, help="Or: the options before it, or those after it."
    )(decorated)
    for way in reversed(_WAYS):
        for option in reversed(options):
            if _names_of(option, way):
                decorated = _one_option(option, way)(decorated)
    return decorated  # type: ignore[no-any-return]


def _one_option(option: _Option, way: str) -> Callable[[Command], Command]:
    alone = {} if option.alone is None else {"is_flag": False, "flag_value": option.alone}
    return click.option(
        *_names_of(option, way),
        _name(option, way),
        cls=_WAYS[way],
        metavar=option.metavar,
        multiple=True,
        help=option.help,
        **alone,
    )
