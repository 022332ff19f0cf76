"""The wire layer: what the core reads and writes, against an encoder and a decoder of our own."""

from __future__ import annotations

import errno
import json
import pickle
import socket
import struct
import sys
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nlct
from nlct._ffi import ffi, lib
from nlct._fields import FIELDS, Field, column_reader
from nlct._values import Values
from nlct.cli.output import word
from nlct.flow import flows_from
from nlct.flow import to_c as flow_to_c
from tests.support import encoder, netlink
from tests.support.examples import examples
from tests.support.namespaces import scratch

GUARD = b"\xa5" * 64
ROOM = 4096
# Headers of two nests, one in the other.
NESTS = 8

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)
NESTED = netlink.NESTED

FLOW_BITS = {name: getattr(lib, f"NLCT_FLOW_{name.upper()}") for name in encoder.FIELDS}
TUPLE_BITS = {
    name: getattr(lib, f"NLCT_TUPLE_{name.upper()}")
    for name in ("zone", *encoder.IP[socket.AF_INET], *encoder.PORTS, *encoder.ICMP[1])
}
PARTS = {name: getattr(lib, f"NLCT_FLOW_{name.upper()}") for name in encoder.TUPLES}
SPANS = ("helper_info", "secctx", "unknown")


# The core, seen through the encoder's dicts -------------------------------------------------------


def has(one: Any, bit: int) -> bool:
    """Return whether a flow or a tuple has this field."""
    return bool(one.present >> bit & 1)


def from_c(row: Any, heap: bytes) -> dict[str, Any]:
    """Read a ``struct nlct_flow``."""
    flow: dict[str, Any] = {"family": row.family}
    for name, bit in {**FLOW_BITS, "unknown": lib.NLCT_FLOW_UNKNOWN}.items():
        value = getattr(row, name)
        if not has(row, bit):
            continue
        if name in SPANS:
            value = heap[value.at : value.at + value.size]
        elif name == "labels":
            value = value[0] | value[1] << 64
        flow[name] = ffi.string(value) if name == "helper" else value
    for part, bit in PARTS.items():
        if has(row, bit):
            assert getattr(row, part).family == row.family
            flow[part] = tuple_from_c(getattr(row, part))
    return flow


def tuple_from_c(one: Any) -> dict[str, Any]:
    """Read a ``struct nlct_tuple``."""
    values: dict[str, Any] = {}
    for name, bit in TUPLE_BITS.items():
        value = getattr(one, name)
        raw = bytes(ffi.buffer(value)) if name in ("src", "dst") else value
        if not has(one, bit):
            # What is absent is zero.
            assert not raw if isinstance(raw, int) else raw == bytes(16)
        elif isinstance(raw, bytes):
            values[name] = raw[:4] if one.family == AF_INET else raw
        else:
            values[name] = raw
    return values


def to_c(flow: dict[str, Any]) -> tuple[Any, Any]:
    """Make a ``struct nlct_flow`` and its heap."""
    heap = b""
    row = ffi.new("struct nlct_flow *", {"family": flow["family"]})
    for name, bit in FLOW_BITS.items():
        if name not in flow:
            continue
        row.present |= 1 << bit
        value = flow[name]
        if name in SPANS:
            span = getattr(row, name)
            span.at, span.size = len(heap), len(value)
            heap += value
        elif name == "labels":
            row.labels = [value & 2**64 - 1, value >> 64]
        else:
            setattr(row, name, value)
    for part, bit in PARTS.items():
        if part in flow:
            row.present |= 1 << bit
            set_tuple(getattr(row, part), flow["family"], flow[part])
    return row, ffi.new("uint8_t[]", heap or b"\0")


def set_tuple(one: Any, family: int, values: dict[str, Any]) -> None:
    """Fill a ``struct nlct_tuple``."""
    one.family = family
    for name, value in values.items():
        one.present |= 1 << TUPLE_BITS[name]
        if isinstance(value, bytes):
            ffi.memmove(getattr(one, name), value, len(value))
        else:
            setattr(one, name, value)


def parse(data: bytes) -> dict[str, Any] | None:
    """Let the core parse; None where it says that the message is malformed."""
    row = ffi.new("struct nlct_flow *")
    heap = ffi.gc(ffi.new("struct nlct_bytes *"), lib.nlct_bytes_free)
    rc = lib.nlct_flow_parse(ffi.new("uint8_t[]", data), len(data), row, heap)
    assert rc in (0, -errno.EBADMSG)
    kept = bytes(ffi.buffer(heap.data, heap.size)) if heap.size else b""
    return from_c(row, kept) if rc == 0 else None


def expected(data: bytes) -> dict[str, Any] | None:
    """Parse without the core."""
    try:
        return encoder.decode(data)
    except netlink.MalformedError:
        return None


def build(flow: dict[str, Any]) -> bytes:
    """Let the core build."""
    row, heap = to_c(flow)
    room = ffi.new("uint8_t[]", ROOM)
    size = lib.nlct_flow_build(row, heap, room, ROOM)
    assert size > 0
    return bytes(ffi.buffer(room, size))


# Recorded messages --------------------------------------------------------------------------------

V4 = {"src": "10.1.2.3", "dst": "192.0.2.4"}
V6 = {"src": "fd00::1", "dst": "2001:db8::2"}
PORTS = {"sport": 40000, "dport": 53}
ECHO = {"icmp_id": 4660, "icmp_code": 0}

KINDS = {
    "udp": nlct.Flow(nlct.Tuple(**V4, **PORTS, proto="udp"), timeout=600),
    "tcp": nlct.Flow(nlct.Tuple(**V4, **PORTS, proto="tcp"), timeout=600),
    "icmp": nlct.Flow(nlct.Tuple(**V4, **ECHO, icmp_type=8, proto="icmp"), timeout=600),
    "udp6": nlct.Flow(nlct.Tuple(**V6, **PORTS, proto="udp"), timeout=600),
    "tcp6": nlct.Flow(nlct.Tuple(**V6, **PORTS, proto="tcp"), timeout=600),
    "icmpv6": nlct.Flow(nlct.Tuple(**V6, **ECHO, icmp_type=128, proto="icmpv6"), timeout=600),
    "zone": nlct.Flow(nlct.Tuple(**V4, **PORTS, proto="udp"), zone=65535, timeout=600),
    "zone of the original": nlct.Flow(
        nlct.Tuple(**V4, sport=1, dport=2, proto="udp", zone=5), timeout=600
    ),
    "zone of the reply": nlct.Flow(
        nlct.Tuple(**V4, sport=3, dport=4, proto="udp"),
        nlct.Tuple(src=V4["dst"], dst=V4["src"], sport=4, dport=3, proto="udp", zone=6),
        timeout=600,
    ),
    "mark and status": nlct.Flow(
        nlct.Tuple(**V6, sport=5, dport=6, proto="udp"),
        zone=9,
        timeout=600,
        mark=0xDEADBEEF,
        status=nlct.Status.CONFIRMED | nlct.Status.SEEN_REPLY | nlct.Status.ASSURED,
    ),
}


def record(netns: nlct.Netns, flow: nlct.Flow) -> bytes:
    """Create a flow, and return the message in which the kernel shows it."""
    request = netlink.message(
        netlink.CT_GET, netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP, netlink.general(0)
    )
    with nlct.Conntrack(netns) as ct:
        ct.flush_all()
        ct.create(flow)
    with netlink.connect(netns) as sock:
        sock.send(request)
        (shown,) = netlink.messages(sock.recv(65536))
    return shown


@pytest.fixture(scope="module")
def recorded() -> dict[str, bytes]:
    """Messages of this kernel, one for each kind of flow."""
    with scratch() as netns:
        return {name: record(netns, flow) for name, flow in KINDS.items()}


@pytest.fixture(params=KINDS)
def shown(request: pytest.FixtureRequest, recorded: dict[str, bytes]) -> bytes:
    """One recorded message."""
    return recorded[request.param]


def plain(flow: nlct.Flow, part: str) -> dict[str, Any]:
    """Turn a tuple of a flow into a dict of the encoder."""
    values = {name: getattr(getattr(flow, part), name) for name in TUPLE_BITS}
    return {
        name: value.packed if name in ("src", "dst") else int(value)
        for name, value in values.items()
        if value is not None
    }


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_messages_parse_to_what_was_created(kind: str, recorded: dict[str, bytes]) -> None:
    """What the kernel shows parses, with and without the core, to the flow that was created."""
    created = KINDS[kind]
    found = parse(recorded[kind])
    assert found is not None
    assert found == expected(recorded[kind])
    assert found["orig"] == plain(created, "orig")
    reply = encoder.reverse(found["orig"])
    assert found["reply"] == (plain(created, "reply") if created.reply else reply)
    assert found["zone"] == created.zone
    assert found["mark"] == (created.mark or 0)
    assert found["status"] & (created.status or 0) == (created.status or 0)
    assert 540 < found["timeout"] <= 600
    assert "id" in found
    assert "use" in found


def test_every_truncation(shown: bytes) -> None:
    """A message cut anywhere is malformed, whatever its header says of its length."""
    for size in range(len(shown)):
        cut = shown[:size]
        assert parse(cut) is None
        if size >= 16:
            cut = size.to_bytes(4, sys.byteorder) + cut[4:]
            assert parse(cut) == expected(cut)


def test_every_bit_flip(shown: bytes) -> None:
    """A message with one bit flipped parses to what it says now, or is malformed."""
    for bit in range(8 * len(shown)):
        flipped = bytearray(shown)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse(bytes(flipped)) == expected(bytes(flipped)), f"bit {bit}"


# Malformed and unknown ----------------------------------------------------------------------------

SRC = netlink.attr(1, b"\x0a\0\0\1")
DST = netlink.attr(2, b"\x0a\0\0\2")
IP = netlink.attr(1 | NESTED, SRC + DST)
NUMBER = netlink.attr(1, b"\x11")
SPORT = netlink.attr(2, b"\0\1")
PROTO = netlink.attr(2 | NESTED, NUMBER + SPORT)
ORIG = netlink.attr(1 | NESTED, IP + PROTO)
REPLY = netlink.attr(2 | NESTED, IP + PROTO)
ZONE = netlink.attr(18, b"\0\7")
GOOD = encoder.flow_message(AF_INET, ORIG, ZONE)


def in_ip(*attributes: bytes) -> bytes:
    """Put attributes into the addresses of the original tuple."""
    return in_tuple(netlink.attr(1 | NESTED, b"".join(attributes)))


def in_proto(*attributes: bytes) -> bytes:
    """Put attributes into the protocol of the original tuple."""
    return in_tuple(netlink.attr(2 | NESTED, b"".join(attributes)))


def in_tuple(*attributes: bytes) -> bytes:
    """Put attributes into the original tuple."""
    return at_top(netlink.attr(1 | NESTED, b"".join(attributes)))


def at_top(*attributes: bytes) -> bytes:
    """Put attributes into a message."""
    return encoder.flow_message(AF_INET, *attributes)


def wrong_sizes(field: encoder.Field) -> set[int]:
    """Sizes that a field does not have."""
    if field.kind in ("bytes", "context"):
        return set()
    if field.kind == "text":
        return {16, 17, 100}
    return {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20} - {right_size(field.name)}


def right_size(name: str) -> int:
    """A size that a field may have."""
    field = encoder.FIELDS[name]
    return {"flags": 2, "text": 4, "context": 4, "bytes": 4}.get(field.kind, field.size)


LEVELS = {"top": at_top, "tuple": in_tuple, "addresses": in_ip, "protocol": in_proto}

MALFORMED = {
    "nothing": b"",
    "header alone": netlink.message(netlink.CT_NEW, 0, b""),
    "half a netfilter header": netlink.message(netlink.CT_NEW, 0, b"\2\0"),
    "message length 0": b"\0\0\0\0" + GOOD[4:],
    "message length 15": b"\x0f\0\0\0" + GOOD[4:],
    "message longer than it is": (len(GOOD) + 1).to_bytes(4, sys.byteorder) + GOOD[4:],
    "message shorter than it is": (len(GOOD) - 8).to_bytes(4, sys.byteorder) + GOOD[4:],
    "bytes after the message": GOOD + b"\0\0\0\0",
    "a second message": GOOD + GOOD,
    "family of other addresses": encoder.flow_message(AF_INET6, ORIG),
    "addresses of another family": in_ip(netlink.attr(3, bytes(16))),
    "a tuple that is a number": at_top(netlink.attr(1, b"\0\0\0\7")),
    "a tuple inside a tuple": in_tuple(ORIG),
    "addresses twice": in_tuple(IP, IP),
    "addresses in two pieces": in_tuple(
        netlink.attr(1 | NESTED, SRC), netlink.attr(1 | NESTED, DST)
    ),
    "protocol in two pieces": in_tuple(
        netlink.attr(2 | NESTED, NUMBER), netlink.attr(2 | NESTED, SPORT)
    ),
    "an attribute overruns its nest": at_top(
        netlink.attr(1 | NESTED, netlink.attr(1 | NESTED, SRC, length=24)), ZONE
    ),
    "a nest ends inside an attribute": at_top(
        netlink.attr(1 | NESTED, IP + PROTO, length=4 + len(IP) + 6), ZONE
    ),
    **{
        f"attribute length {length}, {level}": put(netlink.attr(9, b"four", length=length))
        for length in (0, 1, 2, 3, 9, 0xFFFF)
        for level, put in LEVELS.items()
    },
    **{
        f"{left} bytes left over, {level}": put(NUMBER if put is in_proto else b"", bytes(left))
        for left in (1, 2, 3)
        for level, put in LEVELS.items()
    },
    **{f"{name} twice": at_top(part, part) for name, part in (("tuple", ORIG), ("zone", ZONE))},
    "source twice": in_ip(SRC, SRC),
    "port twice": in_proto(SPORT, SPORT),
    "zone of a tuple twice": in_tuple(netlink.attr(3, b"\0\7"), netlink.attr(3, b"\0\7")),
    **{
        f"{name} of {wrong} bytes": at_top(encoder.nest(path, b"x" * wrong))
        for name, path in encoder.PATHS.items()
        for wrong in wrong_sizes(encoder.FIELDS[name])
    },
    **{
        f"{name} twice": at_top(
            encoder.nest(path[:-1], 2 * netlink.attr(path[-1], bytes(right_size(name))))
            if path[:-1]
            else 2 * netlink.attr(path[-1], bytes(right_size(name)))
        )
        for name, path in encoder.PATHS.items()
    },
    **{
        f"translation of {what}": at_top(ORIG, REPLY, netlink.attr(kind, inner))
        for kind in encoder.NAT
        for what, inner in {
            f"short address, {kind}": netlink.attr(1, bytes(3)),
            f"long address, {kind}": netlink.attr(1, bytes(16)),
            f"two addresses, {kind}": 2 * netlink.attr(1, bytes(4)),
            f"another family, {kind}": netlink.attr(4, bytes(16)),
            f"long port, {kind}": netlink.attr(3, netlink.attr(1, bytes(4))),
            f"two ports, {kind}": netlink.attr(3, 2 * netlink.attr(1, bytes(2))),
            f"two protocols, {kind}": 2 * netlink.attr(3, netlink.attr(1, bytes(2))),
        }.items()
    },
    **{
        f"{name} of {wrong} bytes": in_proto(netlink.attr(kind, bytes(wrong)))
        for name, (kind, size) in {**encoder.PORTS, **encoder.ICMP[1]}.items()
        for wrong in {0, 1, 2, 3, 4} - {size}
    },
    **{
        f"IPv4 {name} of {wrong} bytes": in_ip(netlink.attr(kind, bytes(wrong)))
        for name, (kind, size) in encoder.IP[AF_INET].items()
        for wrong in {0, 3, 5, 8, 16} - {size}
    },
    **{
        f"zone of a tuple of {wrong} bytes": in_tuple(netlink.attr(3, bytes(wrong)))
        for wrong in (0, 1, 3, 4)
    },
}


def test_the_well_formed_message_parses() -> None:
    """What the malformed messages are made from is itself good."""
    assert parse(GOOD) == {
        "family": AF_INET,
        "zone": 7,
        "orig": {"src": b"\x0a\0\0\1", "dst": b"\x0a\0\0\2", "proto": 17, "sport": 1},
    }


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_messages_are_refused(kind: str) -> None:
    """Each malformed message is -EBADMSG, and our own decoder thinks so too."""
    assert expected(MALFORMED[kind]) is None
    assert parse(MALFORMED[kind]) is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("flags", [0, NESTED, netlink.NET_BYTEORDER])
def test_unknown_attributes_are_skipped_and_kept(level: str, flags: int) -> None:
    """Attributes of newer kernels, of any size and content, do no harm at any level."""
    put = LEVELS[level]
    without = parse(put())
    assert without is not None
    for kind in (0, 28, 30, 31, 32, 33, 255, 0x3FFF):
        for payload in (b"", b"x", bytes(1000), b"\xff" * 7, ORIG):
            data = put(netlink.attr(kind | flags, payload))
            # At the top as it is; else with all that it lies in.
            assert parse(data) == {**without, "unknown": data[20:]}


@pytest.mark.parametrize("name", encoder.PATHS)
def test_unknown_attributes_beside_known_ones(name: str) -> None:
    """In whatever nest something unknown lies, what is known there is still read."""
    path = encoder.PATHS[name]
    known = netlink.attr(path[-1], b"\1" * right_size(name))
    for kind in (0, 50, 0x3FFF):
        unknown = netlink.attr(kind, b"new")
        top = known + unknown
        for outer in reversed(path[:-1]):
            top = netlink.attr(outer | NESTED, top)
        data = at_top(ORIG, top)
        kept = unknown if len(path) == 1 else top
        found = parse(data)
        assert found is not None
        assert found == expected(data)
        assert found["unknown"] == kept
        assert name in found


def test_flags_of_an_attribute_do_not_change_its_type() -> None:
    """The nesting and byte order flags belong to no type."""
    flagged = encoder.flow_message(
        AF_INET,
        netlink.attr(1, IP + PROTO),
        netlink.attr(18 | netlink.NET_BYTEORDER, b"\0\7"),
    )
    assert parse(flagged) == parse(GOOD)


def test_padding_is_not_read() -> None:
    """The last attribute may come without padding, and padding may hold anything."""
    unpadded = netlink.message(netlink.CT_NEW, 0, (netlink.general(AF_INET) + ORIG + ZONE)[:-2])
    assert parse(unpadded) == parse(GOOD)
    assert parse(unpadded + b"\xff\xff") == parse(GOOD)


def test_the_zone_is_where_it_is_said() -> None:
    """The zone is that of the flow, of the original direction or of the reply; else it is 0."""
    zone = netlink.attr(3, b"\1\2")
    orig, reply = (netlink.attr(kind | NESTED, IP + PROTO + zone) for kind in (1, 2))
    for data, found in {
        at_top(ORIG): 0,
        at_top(ORIG, ZONE): 7,
        at_top(orig): 258,
        at_top(ORIG, reply): 258,
        at_top(orig, ZONE): 7,
    }.items():
        flow = parse(data)
        assert flow is not None
        assert flow == expected(data)
        assert flow["zone"] == found


# Properties ---------------------------------------------------------------------------------------


def value_of(field: encoder.Field) -> st.SearchStrategy[Any]:
    """Any value of a field."""
    if field.kind == "text":
        return st.binary(max_size=15).filter(lambda text: b"\0" not in text)
    if field.kind in ("bytes", "context"):
        return st.binary(max_size=40)
    return st.integers(0, 256 ** (1 if field.kind == "flags" else field.size) - 1)


def numbers(table: dict[str, tuple[int, int]]) -> dict[str, st.SearchStrategy[int]]:
    """Any value for each field of a tuple."""
    return {name: st.integers(0, 256**size - 1) for name, (_, size) in table.items()}


ANY_VALUE = {name: value_of(field) for name, field in encoder.FIELDS.items()}
# By type; in the places of attributes that the kernel may give out, and beyond.
UNKNOWN = st.dictionaries(
    st.sampled_from([0, 28, 31, 32, 99, 0x3FFF]), st.binary(max_size=9), min_size=1, max_size=3
)


UNKNOWN_BYTES = UNKNOWN.map(
    lambda found: b"".join(netlink.attr(kind | NESTED, data) for kind, data in found.items())
)


def tuples(family: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any tuple, with any of its fields missing."""
    addresses = {
        name: st.binary(min_size=size, max_size=size)
        for name, (_, size) in encoder.IP[AF_INET if family == AF_INET else AF_INET6].items()
    }
    others = {**addresses, **numbers({"sport": (2, 2), "dport": (3, 2)})}
    plain = st.fixed_dictionaries(
        {},
        optional={**others, "proto": st.integers(0, 255).filter(lambda n: n not in encoder.ICMP)},
    )
    icmp = st.fixed_dictionaries(
        {"proto": st.sampled_from(sorted(encoder.ICMP))},
        optional={**others, **numbers(encoder.ICMP[1])},
    )
    return st.one_of(plain, icmp)


def in_one_zone(flow: dict[str, Any], where: str, zone: int) -> dict[str, Any]:
    """Put a flow into a zone, in one direction or in both."""
    if where == "both" or where not in flow:
        return {**flow, "zone": zone}
    return {**flow, "zone": zone, where: {**flow[where], "zone": zone}}


def flows_of(family: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any flow of a family, with anything but the original tuple missing; without NAT."""
    others = {name: value for name, value in ANY_VALUE.items() if name != "zone"}
    others["status"] = others["status"].map(lambda status: status & ~sum(encoder.STATUS_NAT))
    flow = st.fixed_dictionaries(
        {"family": st.just(family), "orig": tuples(family)},
        optional={
            "reply": tuples(family),
            "master": tuples(family),
            "unknown": UNKNOWN_BYTES,
            **others,
        },
    )
    where = st.sampled_from(["both", "orig", "reply"])
    return st.builds(in_one_zone, flow, where, st.one_of(st.just(0), st.integers(0, 65535)))


def translated(flow: dict[str, Any], to: dict[str, Any], nat: int) -> dict[str, Any]:
    """Have a flow translated to this tuple."""
    reply = encoder.reverse(flow["orig"])
    for bit, kind in encoder.STATUS_NAT.items():
        if nat & bit:
            names = {*encoder.NAT[kind], "icmp_id"}
            reply.update({name: to[name] for name in names if name in to and name in reply})
    if "zone" in flow.get("reply", {}):
        reply["zone"] = flow["reply"]["zone"]
    return {**flow, "reply": reply, "status": flow.get("status", 0) | nat}


def has_addresses(flow: dict[str, Any]) -> bool:
    """Only what has addresses can be translated."""
    return {"src", "dst"} <= flow["orig"].keys()


families = st.sampled_from([AF_INET, AF_INET6])
flows = families.flatmap(flows_of)
translated_flows = families.flatmap(
    lambda family: st.builds(
        translated,
        flows_of(family).filter(has_addresses),
        tuples(family),
        st.sampled_from([16, 32, 48]),
    )
)
often = examples(300)


@often
@given(flows)
def test_what_the_encoder_writes_the_core_reads(flow: dict[str, Any]) -> None:
    """Any flow encoded without the core is read by it unchanged."""
    assert parse(encoder.encode(flow)) == flow


@often
@given(st.one_of(flows, translated_flows))
def test_what_the_core_writes_the_decoder_reads(flow: dict[str, Any]) -> None:
    """Any flow built by the core says just what may be created, and the reverse as its reply."""
    request = build(flow)
    kind = int.from_bytes(request[4:6], sys.byteorder)
    flags = int.from_bytes(request[6:8], sys.byteorder)
    assert kind == netlink.CT_NEW
    assert flags == netlink.NLM_F_REQUEST | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    assert len(request) % 4 == 0
    assert encoder.decode(request) == encoder.created(flow)


@often
@given(translated_flows)
def test_translations_are_asked_for_with_the_reverse(flow: dict[str, Any]) -> None:
    """The request shows the kernel a reply that is just the reverse, and what to make of it."""
    request = build(flow)
    top = dict(netlink.attributes(request[20:]))
    reply, _ = encoder.decode_tuple(top[encoder.TUPLES["reply"]], flow["family"])
    own_zone = {"zone": flow["reply"]["zone"]} if "zone" in flow["reply"] else {}
    assert reply == {**encoder.reverse(flow["orig"]), **own_zone}
    wanted = {kind for bit, kind in encoder.STATUS_NAT.items() if flow["status"] & bit}
    # The source's is always said, or the kernel may choose another port where the reply is taken.
    source = {encoder.STATUS_NAT[nlct.Status.SRC_NAT]} if wanted else set()
    assert top.keys() & encoder.NAT.keys() == wanted | source


def test_icmp_fields_follow_the_protocol() -> None:
    """ICMPv6 over IPv4 is odd, but the kernel has it; a protocol without ICMP gets none of it."""
    for proto in encoder.ICMP:
        for family in (AF_INET, AF_INET6):
            orig = {"proto": proto, "icmp_id": 7, "icmp_type": 8}
            flow = {"family": family, "orig": orig, "zone": 0}
            assert parse(encoder.encode(flow)) == flow
            assert encoder.decode(build(flow))["orig"] == flow["orig"]
    other = {"family": AF_INET, "orig": {"proto": 17, "icmp_id": 7}}
    assert encoder.decode(build(other))["orig"] == {"proto": 17}


@often
@given(st.one_of(flows, translated_flows))
def test_building_and_parsing_round_trips(flow: dict[str, Any]) -> None:
    """What the core builds it parses, to the same flow, and builds again to the same bytes."""
    request = build(flow)
    again = parse(request)
    assert again == encoder.created(flow)
    assert build(again) == request


@examples(50)
@given(st.one_of(flows, translated_flows))
def test_building_keeps_to_its_capacity(flow: dict[str, Any]) -> None:
    """In a room that is too small the answer is -EMSGSIZE, and no byte beyond it is touched."""
    row, heap = to_c(flow)
    whole = build(flow)
    for capacity in range(len(whole) + NESTS + 1):
        room = ffi.new("uint8_t[]", capacity + len(GUARD))
        ffi.memmove(room + capacity, GUARD, len(GUARD))
        size = lib.nlct_flow_build(row, heap, room, capacity)
        fits = {len(whole)} if capacity >= len(whole) else set()
        # A nest that turns out to be empty needs room until then.
        assert size in fits | ({-errno.EMSGSIZE} if capacity < len(whole) + NESTS else set())
        assert bytes(ffi.buffer(room + capacity, len(GUARD))) == GUARD


@pytest.mark.parametrize("family", [0, 1, 7, 255])
def test_building_refuses_other_families(family: int) -> None:
    """A flow of an unknown family, or without an original tuple, is -EINVAL."""
    room = ffi.new("uint8_t[]", ROOM)
    for flow in ({"family": family, "orig": {}}, {"family": AF_INET}):
        row, heap = to_c(flow)
        assert lib.nlct_flow_build(row, heap, room, ROOM) == -errno.EINVAL


def raw_attr(kind: int, flags: int, payload: bytes, wrong: int) -> bytes:
    """Encode an attribute with a length that may be wrong."""
    return netlink.attr(kind | flags, payload, length=max(0, 4 + len(payload) + wrong))


def soup(payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Mix a few attributes, most of a known type and most of a true length."""
    return st.lists(
        st.builds(
            raw_attr,
            st.one_of(st.integers(1, 9), st.integers(0, 28), st.sampled_from([31, 40])),
            st.sampled_from([0, NESTED, netlink.NET_BYTEORDER]),
            payload,
            st.sampled_from([0] * 12 + [1, -1, 4, 60000]),
        ),
        max_size=4,
    ).map(b"".join)


values = st.one_of(st.sampled_from([1, 2, 4, 8, 16]).map(bytes), st.binary(max_size=9))
soups = soup(st.one_of(values, soup(st.one_of(values, soup(values)))))


@examples(1000)
@given(st.sampled_from([2, 10, 0, 7]), soups, st.binary(max_size=3))
def test_soups_of_attributes(family: int, attributes: bytes, rest: bytes) -> None:
    """Whatever attributes come in whatever order, the core and the decoder agree on them."""
    data = encoder.flow_message(family, attributes, rest)
    assert parse(data) == expected(data)


@often
@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    """Bytes of no meaning never do harm."""
    assert parse(data) == expected(data)


def test_recording_is_complete(recorded: dict[str, bytes]) -> None:
    """The recorded messages between them hold every attribute that any kernel sends at once."""
    seen: set[str] = set()
    parts = ("orig", "reply")
    for data in recorded.values():
        flow = encoder.decode(data)
        seen |= flow.keys() | {f"{part}.{name}" for part in parts for name in flow[part]}
    always = {"family", "zone", "status", "timeout", "mark", "id", "use", "tcp_state", *parts}
    assert seen >= always | {f"{part}.{name}" for part in parts for name in TUPLE_BITS}


# Flow, the Python object --------------------------------------------------------------------------

# Names of what is not read as a number; all other fields are.
OF_TUPLE = tuple(TUPLE_BITS)
OF_FLOW = (*encoder.FIELDS, "unknown")


def of_python(flow: dict[str, Any]) -> dict[str, Any]:
    """Turn a dict of the encoder into arguments of nlct.Flow."""
    given = {name: value for name, value in flow.items() if name != "family"}
    for part in PARTS:
        if part in flow:
            given[part] = nlct.Tuple(
                **{
                    name: ip_address(value) if isinstance(value, bytes) else value
                    for name, value in flow[part].items()
                }
            )
    return given


def with_addresses(flow: dict[str, Any]) -> dict[str, Any]:
    """Give each tuple a source: in Python, a family comes from addresses."""
    size = 4 if flow["family"] == AF_INET else 16
    tuples = {part: {"src": bytes(size), **flow[part]} for part in PARTS if part in flow}
    return {**flow, **tuples}


def with_text(flow: dict[str, Any], helper: str, secctx: str) -> dict[str, Any]:
    """Put text where the wire has bytes."""
    texts = {"helper": helper, "secctx": secctx}
    return {name: texts.get(name, value) for name, value in flow.items()}


def with_dict(flow: dict[str, Any], unknown: dict[int, bytes]) -> dict[str, Any]:
    """Put a dict where the wire has attributes."""
    return {**flow, "unknown": unknown} if "unknown" in flow else flow


NAMES = st.text(max_size=15).filter(lambda text: len(text.encode()) <= 15 and "\0" not in text)
CONTEXTS = st.text(max_size=40).filter(lambda text: "\0" not in text)
dicts = st.builds(
    with_dict, st.builds(with_text, flows.map(with_addresses), NAMES, CONTEXTS), UNKNOWN
)
python_flows = dicts.map(lambda flow: nlct.Flow(**of_python(flow)))
some = examples(100)


def everything(flow: nlct.Flow) -> dict[str, Any]:
    """Return every field of a flow, as Python shows it."""
    return {name: getattr(flow, name) for name in ("family", "state", *PARTS, *OF_FLOW)}


@often
@given(dicts)
def test_a_flow_says_what_it_was_given(flow: dict[str, Any]) -> None:
    """Each field is there as it was given, and each that was not is None."""
    given = of_python(flow)
    made = nlct.Flow(**given)
    assert made.family == flow["family"]
    for name in (*PARTS, *OF_FLOW):
        assert getattr(made, name) == given.get(name), name
    for part in PARTS:
        for name in OF_TUPLE:
            if part in flow:
                value = flow[part].get(name)
                wanted = ip_address(value) if isinstance(value, bytes) else value
                assert getattr(getattr(made, part), name) == wanted
    states = [flow.get(f"{proto}_state") for proto in ("tcp", "sctp", "dccp")]
    assert made.state == next((state for state in states if state is not None), None)


def on_the_wire(flow: dict[str, Any]) -> dict[str, Any]:
    """Turn text and dicts into bytes."""
    encoded = {
        name: value.encode() if isinstance(value, str) else value for name, value in flow.items()
    }
    if "unknown" in flow:
        pieces = (netlink.attr(kind | NESTED, data) for kind, data in flow["unknown"].items())
        encoded["unknown"] = b"".join(pieces)
    return encoded


def received(data: bytes) -> nlct.Flow:
    """Make the flow that a message of the kernel's becomes."""
    row = ffi.new("struct nlct_flow *")
    heap = ffi.gc(ffi.new("struct nlct_bytes *"), lib.nlct_bytes_free)
    assert lib.nlct_flow_parse(ffi.new("uint8_t[]", data), len(data), row, heap) == 0
    kept = bytes(ffi.buffer(heap.data, heap.size)) if heap.size else b""
    (flow,) = flows_from(bytes(ffi.buffer(row)), kept)
    return flow


# Whatever bytes there may be where text is meant, and words that few flows have.
ODD_FLOWS = st.builds(
    lambda flow, rest: {**flow, **rest},
    flows,
    st.fixed_dictionaries(
        {},
        optional={
            "helper": st.binary(max_size=15).map(lambda name: name.partition(b"\0")[0]),
            "secctx": st.one_of(
                st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode())
            ).map(lambda context: context.rstrip(b"\0")),
            "status": st.integers(0, 2**32 - 1),
            "labels": st.integers(0, 2**128 - 1),
            "tcp_state": st.integers(0, 255),
        },
    ),
)
TEXTS = (
    b"",
    b"\xed\xa0\x80!",
    b"\xf4\x8f\xbf\xbf\xf4\x90",
    b"\xe0\x80",
    b'\x7f"\\\b\f\n\r\t\0\x1f<',
)
MAPPED = (b"\0" * 10 + b"\xff\xff\1\2\3\4", b"\0" * 12 + b"\1\2\3\4", b"\0" * 15 + b"\1")


FORMS = {
    "flow": Values(json=True),
    "event": Values(json=True, event=True),
    "columns": Values(FIELDS, json=True),
    "words": Values(FIELDS, json=False),
}


def line(one: nlct.Flow, form: str) -> str:
    """The line that the core writes of a flow."""
    FORMS[form].add(one)
    return FORMS[form].take().decode()


@often
@given(st.one_of(flows, ODD_FLOWS))
@example({"family": AF_INET6, "zone": 0, "orig": {"src": MAPPED[0], "dst": MAPPED[1]}})
@example({"family": AF_INET6, "zone": 0, "orig": {"src": MAPPED[2], "proto": 6}, "labels": 0})
@example({"family": AF_INET, "zone": 0, "orig": {}, "secctx": TEXTS[0], "helper_info": b""})
@example({"family": AF_INET, "zone": 0, "orig": {}, "secctx": TEXTS[1], "status": 0})
@example({"family": AF_INET, "zone": 0, "orig": {}, "secctx": TEXTS[2], "helper": b"\xff"})
@example({"family": AF_INET, "zone": 0, "orig": {}, "secctx": TEXTS[3]})
@example({"family": AF_INET, "zone": 0, "orig": {}, "secctx": TEXTS[4]})
def test_lines_of_values_are_what_python_says(flow: dict[str, Any]) -> None:
    """JSON of a flow, of an event and of columns, and columns as words, each byte for byte."""
    found = received(encoder.encode(flow))
    assert line(found, "flow") == json.dumps(found.to_dict()) + "\n"
    assert line(found, "event") == json.dumps(found.to_dict()) + "\n"
    row = {name: one.plain(column_reader(name)(found)) for name, one in FIELDS.items()}
    assert line(found, "columns") == json.dumps(row) + "\n"
    assert line(found, "words") == "\t".join(map(word, row.values())) + "\n"


def test_lines_of_an_event_begin_with_it() -> None:
    """As Event.to_dict() has it."""
    row = ffi.new("struct nlct_flow *", {"family": AF_INET, "event": lib.NLCT_EVENT_DESTROY})
    row.present = 1 << lib.NLCT_FLOW_EVENT | 1 << lib.NLCT_FLOW_ZONE | 1 << lib.NLCT_FLOW_ORIG
    (flow,) = flows_from(bytes(ffi.buffer(row)), b"")
    expected = nlct.Event("destroy", flow).to_dict()
    assert line(flow, "event") == json.dumps(expected) + "\n"
    assert json.loads(line(flow, "flow")) == expected


@often
@given(dicts)
def test_flows_made_and_flows_received_are_alike(flow: dict[str, Any]) -> None:
    """A flow of a message is in nothing different from one that a caller makes."""
    made = nlct.Flow(**of_python(flow))
    found = received(encoder.encode(on_the_wire(flow)))
    assert found == made
    assert hash(found) == hash(made)
    assert found.to_dict() == made.to_dict()
    assert repr(found) == repr(made)
    assert str(found) == str(made)
    assert found.orig == made.orig


@often
@given(dicts)
def test_a_flow_is_asked_for_as_it_is(flow: dict[str, Any]) -> None:
    """The request that would create a flow says what the flow says."""
    row, heap = flow_to_c(nlct.Flow(**of_python(flow)))
    room = ffi.new("uint8_t[]", ROOM)
    size = lib.nlct_flow_build(row, heap, room, ROOM)
    assert size > 0
    assert encoder.decode(bytes(ffi.buffer(room, size))) == encoder.created(on_the_wire(flow))


@some
@given(python_flows)
def test_replace(flow: nlct.Flow) -> None:
    """A copy has everything; what is replaced by None is gone, and nothing else."""
    fields = everything(flow)
    assert everything(flow.replace()) == fields
    for name in ("reply", "master", *OF_FLOW):
        # The zone of a direction goes with its tuple.
        if name == "zone" or (name == "reply" and flow.reply and flow.reply.zone is not None):
            continue
        changed = {**fields, name: None}
        if name.endswith("_state"):
            changed["state"] = flow.replace(**{name: None}).state
        assert everything(flow.replace(**{name: None})) == changed
    assert flow.replace(mark=7, helper="x", unknown={9: b"y"}).to_dict() == {
        **flow.to_dict(),
        "mark": 7,
        "helper": "x",
        "unknown": {"9": "79"},
    }
    for name in OF_TUPLE:
        assert getattr(flow.orig.replace(**{name: None}), name) is None
    assert flow.orig.replace() == flow.orig
    assert everything(flow) == fields


@some
@given(python_flows)
def test_pickle(flow: nlct.Flow) -> None:
    """A flow survives pickling, with everything."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(flow, protocol))
        assert again == flow
        assert everything(again) == everything(flow)


@some
@given(python_flows)
def test_repr_is_how_to_make_it(flow: nlct.Flow) -> None:
    """What repr() shows makes the same flow; it names what is there and nothing else."""
    shown = repr(flow)
    for name in (*PARTS, *OF_FLOW):
        assert (f"{name}=" in shown) or getattr(flow, name) is None
    plain = flow.replace(status=None)
    again = eval(repr(plain), {name: getattr(nlct, name) for name in nlct.__all__})
    assert everything(again) == everything(plain)
    bare = nlct.Flow(nlct.Tuple("10.0.0.1", proto="udp"))
    assert repr(bare) == "Flow(orig=Tuple(src='10.0.0.1', proto=Proto.UDP), zone=0)"


@some
@given(python_flows)
def test_to_dict_is_json(flow: nlct.Flow) -> None:
    """What to_dict() gives survives JSON, and has a key for what is there."""
    said = flow.to_dict()
    assert json.loads(json.dumps(said)) == said
    always = {"protocol", "orig", "reply", "zone", "status", "timeout", "mark", "id", "use"}
    present = {name for name in (*PARTS, *OF_FLOW) if getattr(flow, name) is not None}
    assert said.keys() == always | present
    for part in PARTS:
        one = getattr(flow, part)
        if one is not None:
            assert said[part] == {
                name: str(value) if name in ("src", "dst") else int(value)
                for name, value in ((name, getattr(one, name)) for name in OF_TUPLE)
                if value is not None
            }
    if flow.labels is not None:
        assert sum(1 << number for number in said["labels"]) == flow.labels


def test_to_dict_uses_words() -> None:
    """States, bits of the status and the protocol have names; what has none is a number."""
    orig = nlct.Tuple("10.0.0.1", "10.0.0.2", "tcp", 1, 2)
    flow = nlct.Flow(orig, status=nlct.Status.ASSURED | 1 << 20, tcp_state="time_wait", labels=5)
    said = flow.to_dict()
    assert said["protocol"] == "tcp"
    assert said["status"] == ["assured", "0x100000"]
    assert said["tcp_state"] == "time_wait"
    assert said["labels"] == [0, 2]
    assert flow.replace(tcp_state=77).to_dict()["tcp_state"] == "77"
    assert nlct.Flow(orig.replace(proto=253)).to_dict()["protocol"] == "253"


def names(flow: nlct.Flow) -> tuple[object, ...]:
    """What names an entry: a zone that holds for the reply alone is another one."""
    return flow.orig, flow.zone, flow.reply is not None and flow.reply.zone is not None


@some
@given(st.lists(python_flows, max_size=6), st.randoms(use_true_random=False))
def test_flows_sort_by_what_names_them(some_flows: list[nlct.Flow], random: Any) -> None:
    """Order is total and says the same as equality; what else is in a flow does not count."""
    shuffled = [flow.replace(mark=7, status=8, unknown=None) for flow in some_flows]
    random.shuffle(shuffled)
    assert sorted(shuffled) == sorted(some_flows)
    assert set(shuffled) == set(some_flows)
    for one in some_flows:
        for other in some_flows:
            same = names(one) == names(other)
            assert (one == other) == same
            assert (one < other) + (one > other) + same == 1
            assert (one <= other) == (not one > other)


def test_tuples_sort_as_one_reads_them() -> None:
    """By family, addresses, protocol and ports."""
    ordered = [
        nlct.Tuple("9.0.0.1", "10.0.0.2", "tcp", 1, 2),
        nlct.Tuple("10.0.0.1", "9.0.0.2", "udp", 1, 2),
        nlct.Tuple("10.0.0.1", "10.0.0.2", "tcp", 1, 2),
        nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 3),
        nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", 2, 1),
        nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", 256, 1),
        nlct.Tuple("::1", "::2", "tcp", 1, 2),
        nlct.Tuple("fd00::1", "::2", "tcp", 1, 2),
    ]
    assert sorted(ordered[3:] + ordered[:3]) == ordered
    # What is absent comes before zero.
    assert nlct.Tuple("10.0.0.1") < nlct.Tuple("10.0.0.1", sport=0)
    with pytest.raises(TypeError):
        sorted([ordered[0], 7])  # type: ignore[list-item]
    assert ordered[0] != 7
    assert nlct.Flow(ordered[0]) != ordered[0]


def test_flows_are_immutable() -> None:
    """No field can be set or deleted, and none can be added."""
    one = nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)
    flow = nlct.Flow(one, one, master=one, mark=7)
    for thing, names in ((one, OF_TUPLE), (flow, (*PARTS, *OF_FLOW, "family", "state", "new"))):
        for name in names:
            with pytest.raises(AttributeError):
                setattr(thing, name, getattr(thing, name, 1))
            with pytest.raises(AttributeError):
                delattr(thing, name)


# FlowTable ----------------------------------------------------------------------------------------


def value_in(flow: nlct.Flow, name: str) -> Any:
    """Return the value of a column in a flow."""
    part, _, rest = name.partition("_")
    if part in PARTS and rest in OF_TUPLE:
        one = getattr(flow, part)
        return getattr(one, rest) if one else None
    return getattr(flow.orig if name in OF_TUPLE and name != "zone" else flow, name)


@some
@given(st.lists(python_flows, max_size=8))
def test_tables_give_back_their_flows(some_flows: list[nlct.Flow]) -> None:
    """The rows of a table are the flows that it was made of, spans included."""
    wanted = [flow.to_dict() for flow in some_flows]
    table = nlct.FlowTable.from_flows(iter(some_flows))
    assert len(table) == len(wanted)
    assert [flow.to_dict() for flow in table] == wanted
    assert [table[row].to_dict() for row in range(len(table))] == wanted
    assert [table[row].to_dict() for row in range(-len(table), 0)] == wanted
    again = nlct.FlowTable.from_flows(table)
    assert [flow.to_dict() for flow in again] == wanted
    for first in range(len(wanted) + 1):
        for last in range(first, len(wanted) + 2):
            part = table[first:last]
            assert [flow.to_dict() for flow in part] == wanted[first:last]
            assert [flow.to_dict() for flow in part[1:]] == wanted[first:last][1:]
    assert len(table[3:2]) == 0


@some
@given(st.lists(python_flows, min_size=1, max_size=8))
def test_columns_hold_one_value_a_row(some_flows: list[nlct.Flow]) -> None:
    """Each column says what its flows say, in the layout that the documentation promises."""
    table = nlct.FlowTable.from_flows(some_flows)
    for name, field in FIELDS.items():
        values = [value_in(flow, name) for flow in some_flows]
        assert list(table[name]) == values
        assert (name in table) == (name in table.names)
        assert (name in table) == any(value is not None for value in values), name
        if name not in table:
            with pytest.raises(KeyError):
                table.column(name)
            continue
        column, valid = table.column(name), table.valid(name)
        assert column.nbytes == field.size * len(some_flows)
        flags = [value is not None for value in values]
        assert all(flags) if valid is None else list(valid) == flags
        for row, value in enumerate(values):
            raw = bytes(column.cast("B")[row * field.size : (row + 1) * field.size])
            assert raw == raw_value(value, field, table.heap, raw)
        if field.kind == lib.NLCT_NUMBER:
            assert column.itemsize == field.size
            assert list(column) == [int(value or 0) for value in values]
        else:
            assert column.itemsize == 1


def raw_value(value: Any, field: Field, heap: memoryview, span: bytes) -> bytes:
    """Lay a value out as a column does; a span is as it is where it points to the value."""
    if value is None:
        return bytes(field.size)
    if field.kind == lib.NLCT_ADDRESS:
        return bytes(value.packed).ljust(16, b"\0")
    if field.kind == lib.NLCT_LABELS:
        return (value & 2**64 - 1).to_bytes(8, sys.byteorder) + (value >> 64).to_bytes(
            8, sys.byteorder
        )
    if field.kind == lib.NLCT_TEXT:
        return bytes(value.encode()).ljust(16, b"\0")
    if field.kind == lib.NLCT_SPAN:
        at, size = struct.unpack("=II", span)
        data = bytes(heap[at : at + size])
        if isinstance(value, dict):
            assert dict(netlink.attributes(data)) == value
        else:
            assert data == (value.encode() if isinstance(value, str) else value)
        return span
    return int(value).to_bytes(field.size, sys.byteorder)


def test_tables_refuse_what_they_cannot_hold() -> None:
    """Columns must be known, of one length, and spans must lie in the heap."""
    family = bytes([AF_INET] * 2)
    spans = struct.pack("=IIII", 0, 4, 2, 2)
    good = nlct.FlowTable({"family": family, "secctx": spans}, heap=b"text")
    assert [flow.secctx for flow in good] == ["text", "xt"]
    for columns, valid, heap in (
        ({}, {}, b""),
        ({"family": family, "colour": family}, {}, b""),
        ({"family": family, "zone": b"\0\0"}, {}, b""),
        ({"family": family, "zone": b"\0\0\0"}, {}, b""),
        ({"family": family}, {"zone": b"\1\1"}, b""),
        ({"family": family}, {"family": b"\1"}, b""),
        ({"family": family, "secctx": spans}, {}, b"tex"),
    ):
        with pytest.raises(ValueError, match=r"column|valid"):
            nlct.FlowTable(columns, valid, heap)
    with pytest.raises(TypeError):
        nlct.FlowTable.from_flows([7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="steps of one"):
        good[::2]
