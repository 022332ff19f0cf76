"""The wire layer: what the core reads and writes, against an encoder and a decoder of our own."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nlct
from nlct._ffi import ffi, lib

from . import encoder

NETLINK_NETFILTER = 12
GUARD = b"\xa5" * 64

FLOW_BITS = {name: getattr(lib, f"NLCT_FLOW_{name.upper()}") for name in encoder.FLOW}
TUPLE_BITS = {
    name: getattr(lib, f"NLCT_TUPLE_{name.upper()}")
    for name in ("zone", *encoder.IP[socket.AF_INET], *encoder.PORTS, *encoder.ICMP[1])
}
PARTS = {"orig": lib.NLCT_FLOW_ORIG, "reply": lib.NLCT_FLOW_REPLY}


# The core, seen through the encoder's dicts -------------------------------------------------------


def from_c(row: Any) -> dict[str, Any]:
    """Read a ``struct nlct_flow``."""
    flow = {name: getattr(row, name) for name, bit in FLOW_BITS.items() if row.present & bit}
    flow["family"] = row.family
    for part, part_bit in PARTS.items():
        inner = getattr(row, part)
        if not row.present & part_bit:
            continue
        flow[part] = {}
        for name, bit in TUPLE_BITS.items():
            if inner.present & bit:
                flow[part][name] = getattr(inner, name)
                if name in ("src", "dst"):
                    size = 4 if row.family == socket.AF_INET else 16
                    flow[part][name] = bytes(ffi.buffer(getattr(inner, name)))[:size]
    return flow


def to_c(flow: dict[str, Any]) -> Any:
    """Make a ``struct nlct_flow``."""
    row = ffi.new("struct nlct_flow *", {"family": flow["family"]})
    for name, bit in FLOW_BITS.items():
        if name in flow:
            setattr(row, name, flow[name])
            row.present |= bit
    for part, part_bit in PARTS.items():
        if part not in flow:
            continue
        row.present |= part_bit
        inner = getattr(row, part)
        for name, value in flow[part].items():
            inner.present |= TUPLE_BITS[name]
            if isinstance(value, bytes):
                ffi.memmove(getattr(inner, name), value, len(value))
            else:
                setattr(inner, name, value)
    return row


def parse(data: bytes) -> dict[str, Any] | None:
    """Let the core parse; None where it says that the message is malformed."""
    row = ffi.new("struct nlct_flow *")
    rc = lib.nlct_flow_parse(ffi.new("uint8_t[]", data), len(data), row)
    assert rc in (0, -errno.EBADMSG)
    return from_c(row) if rc == 0 else None


def expected(data: bytes) -> dict[str, Any] | None:
    """Parse without the core."""
    try:
        return encoder.decode(data)
    except encoder.MalformedError:
        return None


def build(flow: dict[str, Any]) -> bytes:
    """Let the core build."""
    room = ffi.new("uint8_t[1024]")
    size = lib.nlct_flow_build(to_c(flow), room, 1024)
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
    request = encoder.message(
        encoder.CT_GET, encoder.NLM_F_REQUEST | encoder.NLM_F_DUMP, encoder.general(0)
    )
    with nlct.Conntrack(netns) as ct:
        ct.flush_all()
        ct.create(flow)
    with netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.settimeout(5)
        sock.send(request)
        (shown,) = encoder.messages(sock.recv(65536))
    return shown


@pytest.fixture(scope="module")
def recorded() -> dict[str, bytes]:
    """Messages of this kernel, one for each kind of flow."""
    try:
        scratch = nlct.Netns.scratch()
    except PermissionError as exc:
        pytest.skip(f"MISSING: no network namespace can be had here: {exc}")
    with scratch:
        return {name: record(scratch, flow) for name, flow in KINDS.items()}


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
    directional = "zone" in found["orig"] or "zone" in found["reply"]
    assert found.get("zone", 0) == (0 if directional else created.zone)
    assert found["mark"] == (created.mark or 0)
    assert found["status"] & (created.status or 0) == (created.status or 0)
    assert 590 <= found["timeout"] <= 600
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

AF_INET = socket.AF_INET
AF_INET6 = socket.AF_INET6
NESTED = encoder.NESTED
SRC = encoder.attr(1, b"\x0a\0\0\1")
DST = encoder.attr(2, b"\x0a\0\0\2")
IP = encoder.attr(1 | NESTED, SRC + DST)
NUMBER = encoder.attr(1, b"\x11")
SPORT = encoder.attr(2, b"\0\1")
PROTO = encoder.attr(2 | NESTED, NUMBER + SPORT)
ORIG = encoder.attr(1 | NESTED, IP + PROTO)
ZONE = encoder.attr(18, b"\0\7")
GOOD = encoder.flow_message(AF_INET, ORIG, ZONE)


def in_ip(*attributes: bytes) -> bytes:
    """Put attributes into the addresses of the original tuple."""
    return in_tuple(encoder.attr(1 | NESTED, b"".join(attributes)))


def in_proto(*attributes: bytes) -> bytes:
    """Put attributes into the protocol of the original tuple."""
    return in_tuple(encoder.attr(2 | NESTED, b"".join(attributes)))


def in_tuple(*attributes: bytes) -> bytes:
    """Put attributes into the original tuple."""
    return at_top(encoder.attr(1 | NESTED, b"".join(attributes)))


def at_top(*attributes: bytes) -> bytes:
    """Put attributes into a message."""
    return encoder.flow_message(AF_INET, *attributes)


LEVELS = {"top": at_top, "tuple": in_tuple, "addresses": in_ip, "protocol": in_proto}

MALFORMED = {
    "nothing": b"",
    "header alone": encoder.message(encoder.CT_NEW, 0, b""),
    "half a netfilter header": encoder.message(encoder.CT_NEW, 0, b"\2\0"),
    "message length 0": b"\0\0\0\0" + GOOD[4:],
    "message length 15": b"\x0f\0\0\0" + GOOD[4:],
    "message longer than it is": (len(GOOD) + 1).to_bytes(4, sys.byteorder) + GOOD[4:],
    "message shorter than it is": (len(GOOD) - 8).to_bytes(4, sys.byteorder) + GOOD[4:],
    "bytes after the message": GOOD + b"\0\0\0\0",
    "a second message": GOOD + GOOD,
    "family of other addresses": encoder.flow_message(AF_INET6, ORIG),
    "addresses of another family": in_ip(encoder.attr(3, bytes(16))),
    "a tuple that is a number": at_top(encoder.attr(1, b"\0\0\0\7")),
    "a tuple inside a tuple": in_tuple(ORIG),
    "addresses twice": in_tuple(IP, IP),
    "addresses in two pieces": in_tuple(
        encoder.attr(1 | NESTED, SRC), encoder.attr(1 | NESTED, DST)
    ),
    "protocol in two pieces": in_tuple(
        encoder.attr(2 | NESTED, NUMBER), encoder.attr(2 | NESTED, SPORT)
    ),
    "an attribute overruns its nest": at_top(
        encoder.attr(1 | NESTED, encoder.attr(1 | NESTED, SRC, length=24)), ZONE
    ),
    "a nest ends inside an attribute": at_top(
        encoder.attr(1 | NESTED, IP + PROTO, length=4 + len(IP) + 6), ZONE
    ),
    **{
        f"attribute length {length}, {level}": put(encoder.attr(9, b"four", length=length))
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
    "zone of a tuple twice": in_tuple(encoder.attr(3, b"\0\7"), encoder.attr(3, b"\0\7")),
    **{
        f"{name} of {wrong} bytes": at_top(encoder.attr(kind, bytes(wrong)))
        for name, (kind, size) in encoder.FLOW.items()
        for wrong in {0, 1, 2, 3, 4, 5, 8} - {size}
    },
    **{
        f"{name} of {wrong} bytes": in_proto(encoder.attr(kind, bytes(wrong)))
        for name, (kind, size) in {**encoder.PORTS, **encoder.ICMP[1]}.items()
        for wrong in {0, 1, 2, 3, 4} - {size}
    },
    **{
        f"IPv4 {name} of {wrong} bytes": in_ip(encoder.attr(kind, bytes(wrong)))
        for name, (kind, size) in encoder.IP[AF_INET].items()
        for wrong in {0, 3, 5, 8, 16} - {size}
    },
    **{
        f"zone of a tuple of {wrong} bytes": in_tuple(encoder.attr(3, bytes(wrong)))
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
@pytest.mark.parametrize("flags", [0, NESTED, encoder.NET_BYTEORDER])
def test_unknown_attributes_are_skipped(level: str, flags: int) -> None:
    """Attributes of newer kernels, of any size and content, do no harm at any level."""
    put = LEVELS[level]
    without = parse(put())
    assert without is not None
    for kind in (30, 31, 32, 33, 255, 0x3FFF):
        for payload in (b"", b"x", bytes(1000), b"\xff" * 7, ORIG):
            unknown = encoder.attr(kind | flags, payload)
            assert parse(put(unknown)) == without


def test_flags_of_an_attribute_do_not_change_its_type() -> None:
    """The nesting and byte order flags belong to no type."""
    flagged = encoder.flow_message(
        AF_INET,
        encoder.attr(1, IP + PROTO),
        encoder.attr(18 | encoder.NET_BYTEORDER, b"\0\7"),
    )
    assert parse(flagged) == parse(GOOD)


def test_padding_is_not_read() -> None:
    """The last attribute may come without padding, and padding may hold anything."""
    unpadded = encoder.message(encoder.CT_NEW, 0, (encoder.general(AF_INET) + ORIG + ZONE)[:-2])
    assert parse(unpadded) == parse(GOOD)
    assert parse(unpadded + b"\xff\xff") == parse(GOOD)


# Properties ---------------------------------------------------------------------------------------


def numbers(table: dict[str, tuple[int, int]]) -> dict[str, st.SearchStrategy[int]]:
    """Any value for each field."""
    return {name: st.integers(0, 256**size - 1) for name, (_, size) in table.items()}


def tuples(family: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any tuple, with any of its fields missing."""
    addresses = {
        name: st.binary(min_size=size, max_size=size)
        for name, (_, size) in encoder.IP[AF_INET if family == AF_INET else AF_INET6].items()
    }
    others = {**addresses, **numbers({"zone": (0, 2), "sport": (2, 2), "dport": (3, 2)})}
    plain = st.fixed_dictionaries(
        {},
        optional={**others, "proto": st.integers(0, 255).filter(lambda n: n not in encoder.ICMP)},
    )
    icmp = st.fixed_dictionaries(
        {"proto": st.sampled_from(sorted(encoder.ICMP))},
        optional={**others, **numbers(encoder.ICMP[1])},
    )
    return st.one_of(plain, icmp)


def flows_of(family: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any flow of a family, with anything but the original tuple missing."""
    return st.fixed_dictionaries(
        {"family": st.just(family), "orig": tuples(family)},
        optional={"reply": tuples(family), **numbers(encoder.FLOW)},
    )


flows = st.sampled_from([int(AF_INET), int(AF_INET6)]).flatmap(flows_of)
often = settings(deadline=None, max_examples=300)


@often
@given(flows)
def test_what_the_encoder_writes_the_core_reads(flow: dict[str, Any]) -> None:
    """Any flow encoded without the core is read by it unchanged."""
    assert parse(encoder.encode(flow)) == flow


@often
@given(flows)
def test_what_the_core_writes_the_decoder_reads(flow: dict[str, Any]) -> None:
    """Any flow built by the core says just what may be created, and the reverse as its reply."""
    request = build(flow)
    kind = int.from_bytes(request[4:6], sys.byteorder)
    flags = int.from_bytes(request[6:8], sys.byteorder)
    assert kind == encoder.CT_NEW
    assert flags == encoder.NLM_F_REQUEST | encoder.NLM_F_CREATE | encoder.NLM_F_EXCL
    assert len(request) % 4 == 0
    wanted = {name: value for name, value in flow.items() if name not in ("id", "use")}
    wanted.setdefault("reply", encoder.reverse(flow["orig"]))
    assert encoder.decode(request) == wanted


def test_icmp_fields_follow_the_protocol() -> None:
    """ICMPv6 over IPv4 is odd, but the kernel has it; a protocol without ICMP gets none of it."""
    for proto in encoder.ICMP:
        for family in (AF_INET, AF_INET6):
            flow = {"family": int(family), "orig": {"proto": proto, "icmp_id": 7, "icmp_type": 8}}
            assert parse(encoder.encode(flow)) == flow
            assert encoder.decode(build(flow))["orig"] == flow["orig"]
    other = {"family": int(AF_INET), "orig": {"proto": 17, "icmp_id": 7}}
    assert encoder.decode(build(other))["orig"] == {"proto": 17}


@often
@given(flows)
def test_building_and_parsing_round_trips(flow: dict[str, Any]) -> None:
    """What the core builds it parses, and builds again to the same bytes."""
    request = build(flow)
    again = parse(request)
    assert again is not None
    assert build(again) == request


@settings(deadline=None, max_examples=50)
@given(flows)
def test_building_keeps_to_its_capacity(flow: dict[str, Any]) -> None:
    """In every room that is too small the answer is -EMSGSIZE, and no byte beyond it is touched."""
    row = to_c(flow)
    whole = build(flow)
    for capacity in range(len(whole) + 1):
        room = ffi.new("uint8_t[]", len(whole) + len(GUARD))
        ffi.memmove(room + capacity, GUARD, len(GUARD))
        size = lib.nlct_flow_build(row, room, capacity)
        assert size == (len(whole) if capacity == len(whole) else -errno.EMSGSIZE)
        assert bytes(ffi.buffer(room + capacity, len(GUARD))) == GUARD


@pytest.mark.parametrize("family", [0, 1, 7, 255])
def test_building_refuses_other_families(family: int) -> None:
    """A flow of an unknown family, or without an original tuple, is -EINVAL."""
    room = ffi.new("uint8_t[1024]")
    assert lib.nlct_flow_build(to_c({"family": family, "orig": {}}), room, 1024) == -errno.EINVAL
    assert lib.nlct_flow_build(to_c({"family": AF_INET}), room, 1024) == -errno.EINVAL


def raw_attr(kind: int, flags: int, payload: bytes, wrong: int) -> bytes:
    """Encode an attribute with a length that may be wrong."""
    return encoder.attr(kind | flags, payload, length=max(0, 4 + len(payload) + wrong))


def soup(payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Mix a few attributes, most of a known type and most of a true length."""
    return st.lists(
        st.builds(
            raw_attr,
            st.one_of(st.integers(1, 9), st.sampled_from([11, 12, 18, 0, 31, 40])),
            st.sampled_from([0, NESTED, encoder.NET_BYTEORDER]),
            payload,
            st.sampled_from([0] * 12 + [1, -1, 4, 60000]),
        ),
        max_size=4,
    ).map(b"".join)


values = st.one_of(st.sampled_from([1, 2, 4, 16]).map(bytes), st.binary(max_size=9))
soups = soup(st.one_of(values, soup(st.one_of(values, soup(values)))))


@settings(deadline=None, max_examples=1000)
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
    """The recorded messages between them hold every attribute that the core knows."""
    seen: set[str] = set()
    for data in recorded.values():
        flow = encoder.decode(data)
        seen |= flow.keys() | {f"{part}.{name}" for part in PARTS for name in flow[part]}
    tuple_names = {f"{part}.{name}" for part in PARTS for name in TUPLE_BITS}
    assert seen >= {"family", *FLOW_BITS, *PARTS, *tuple_names}
