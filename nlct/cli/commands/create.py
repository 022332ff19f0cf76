"""``nlct create``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import click

from nlct import _reasons
from nlct.cli.app import Command, Failure
from nlct.cli.naming import (
    Named,
    as_usage,
    label_bits,
    make,
    name_options,
    require_whole,
    status_bits,
    value_option,
    words,
    zone_of,
)
from nlct.cli.options import LAST_ZONE, integer, json_option, netns_option, number_option
from nlct.cli.output import print_json, say
from nlct.cli.places import Place, in_each
from nlct.conntrack import Conntrack
from nlct.enums import Proto, Status
from nlct.errors import ExistsError
from nlct.flow import Flow, Tuple, reverse

_bits = status_bits(_reasons.SETTABLE_BITS)
_STATES: dict[Any, str] = {
    Proto.TCP: "tcp_state",
    Proto.SCTP: "sctp_state",
    Proto.DCCP: "dccp_state",
}
# Selective acknowledgements and liberal tracking: nlct saw no SYN, so the kernel knows no window.
_TCP_FLAGS = 0x0A
_ENDS = ("src", "dst", "sport", "dport")


def _endpoint(text: str) -> tuple[str, int | None]:
    """Read ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    match = re.fullmatch(r"\[([^]]*)\](?::(\d+))?|([^:]+)(?::(\d+))?", text)
    address, port = text, None
    if match is not None:
        address, port = match[1] or match[3] or "", match[2] or match[4]
    try:
        ip_address(address)
    except ValueError:
        raise click.BadParameter(
            f"must be an IPv4 or IPv6 address, not {address!r}; of IPv6 with a port [ADDRESS]:PORT"
        ) from None
    return address, None if port is None else integer(port, 65535)


@click.command("create", cls=Command)
@name_options
@number_option("--orig-zone", 0, LAST_ZONE, "Zone of the original direction alone.")
@number_option("--reply-zone", 0, LAST_ZONE, "Zone of the replies alone.")
@number_option("--timeout -t", 1, 2**32 - 1, "Seconds to live.", required=True)
@value_option("--mark -m", "mark", "MARK", "Mark; 0x for hexadecimal.", integer)
@value_option("--status -u", "status", "BIT", "Bits: seen_reply, assured.", _bits, many=True)
@value_option("--state", "state", "STATE", "State of TCP, SCTP or DCCP; TCP needs it.", str)
@value_option(
    "--orig-vtag",
    "vtag_orig",
    "N",
    "SCTP's tag of the original direction.",
    integer,
    aliases="--sctp-vtag-orig",
)
@value_option(
    "--reply-vtag",
    "vtag_reply",
    "N",
    "SCTP's tag of the replies.",
    integer,
    aliases="--sctp-vtag-reply",
)
@value_option("--label -l", "labels", "LABEL", "Labels: 0 to 127, or names.", label_bits, many=True)
@value_option("--helper", "helper", "NAME", "Helper: ftp, sip, ...", str)
@value_option(
    "--snat -n",
    "snat",
    "ADDRESS[:PORT]",
    "Translate the source to this.",
    _endpoint,
    aliases="--src-nat",
)
@value_option(
    "--dnat -g",
    "dnat",
    "ADDRESS[:PORT]",
    "Translate the destination.",
    _endpoint,
    aliases="--dst-nat",
)
@click.option("--if-absent", is_flag=True, help="A flow that exists is no failure; it stays.")
@netns_option
@json_option
def command(
    named: Named,
    orig_zone: int | None,
    reply_zone: int | None,
    snat: tuple[str, int | None] | None,
    dnat: tuple[str, int | None] | None,
    if_absent: bool,
    places: tuple[Place, ...],
    as_json: bool,
    **values: Any,
) -> None:
    """Create a flow; exit code 1 if it exists.

    The replies are the reverse of the original tuple, but for what the options say of them.

    \b
    Examples:
      nlct create -s 10.0.0.1 -d 192.0.2.1 -p udp --sport 1024 --dport 53 --timeout 60 --zone 7
      nlct create -s 10.0.0.1 -d 192.0.2.1 -p tcp --sport 1024 --dport 80 --timeout 600 \\
        --state established --status seen_reply,assured --snat 198.51.100.1:4000 --if-absent
    """
    zones = (named.zone, orig_zone, reply_zone)
    if sum(zone is not None for zone in zones) > 1:
        raise click.UsageError("give one of --zone, --orig-zone and --reply-zone")
    if not named.orig:
        raise click.UsageError("name the original tuple: --src, --dst, ...")
    orig = make(Tuple, **named.orig, **({} if orig_zone is None else {"zone": orig_zone}))
    require_whole(orig)
    flow = _flow(named, orig, reply_zone, snat, dnat, values)
    in_each(places, lambda place: _create(place, flow, if_absent, as_json))


def _flow(
    named: Named,
    orig: Tuple,
    reply_zone: int | None,
    snat: tuple[str, int | None] | None,
    dnat: tuple[str, int | None] | None,
    values: dict[str, Any],
) -> Flow:
    state, proto = values.pop("state"), orig.proto
    if state is None and proto == Proto.TCP:
        raise click.UsageError("a TCP flow needs --state")
    if state is not None and proto not in _STATES:
        raise click.UsageError("--state is for TCP, SCTP and DCCP")
    if state is not None:
        values[_STATES[proto]] = state
    if proto == Proto.TCP:
        values.update(tcp_flags_orig=_TCP_FLAGS, tcp_flags_reply=_TCP_FLAGS)
    values["sctp_vtag_orig"], values["sctp_vtag_reply"] = (
        values.pop("vtag_orig"),
        values.pop("vtag_reply"),
    )
    changes = {name: named.reply[name] for name in _ENDS if name in named.reply}
    for option, end, (address, port), bit in (
        ("--snat", "dst", snat or ("", None), Status.SRC_NAT),
        ("--dnat", "src", dnat or ("", None), Status.DST_NAT),
    ):
        if not address:
            continue
        if Tuple(dst=address).family != orig.family:
            raise click.UsageError(f"{option} {address} is of another family than the flow")
        changes[end] = address
        if port is not None:
            changes[f"{end[0]}port"] = port
        values["status"] = (values["status"] or 0) | int(bit)
    if reply_zone is not None:
        changes["zone"] = reply_zone
    reply = None
    if changes:
        make(Flow, orig)
        reply = make(make(reverse, orig).replace, **changes)
    known = {name: value for name, value in values.items() if value is not None}
    flow: Flow = make(Flow, orig, reply, zone=named.zone, **known)
    return flow


def _create(place: Place, flow: Flow, if_absent: bool, as_json: bool) -> None:
    created = True
    with Conntrack(place.netns) as ct:
        try:
            with as_usage():
                ct.create(flow)
        except ExistsError as exc:
            if not if_absent:
                raise Failure(
                    f"there is a flow with the tuples of {words(flow.orig, zone_of(flow))} already"
                ) from exc
            created = False
    if as_json:
        print_json({"created": int(created)}, place.name)
    else:
        say("created" if created else "there already", place.name)
