"""Flows as ctnetlink messages, written and read in plain Python, to judge the core by.

Written from the kernel's headers, knowing nothing of the core. A flow is a dict: "family", "orig",
"reply" and "master" (dicts of numbers, with addresses as bytes), "zone", and the names in FIELDS.
Most are numbers; labels are one of which bit n is label n; "helper", "helper_info" and "secctx" are
bytes, and "unknown" holds the attributes in which something is not known, as they are. What is
absent is not in the dict; but the zone is always there when a flow is decoded.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Container, Iterator
from typing import Any, NamedTuple, Union

from tests.support.netlink import (
    BODY,
    CT_NEW,
    HEADER,
    NESTED,
    MalformedError,
    attr,
    attributes,
    general,
    message,
    messages,
    whole_attributes,
)

TUPLES = {"orig": 1, "reply": 2, "master": 14}
TUPLE_IP = 1
TUPLE_PROTO = 2
TUPLE_ZONE = 3
# By name: the attribute's type and the size of its value.
IP = {
    socket.AF_INET: {"src": (1, 4), "dst": (2, 4)},
    socket.AF_INET6: {"src": (3, 16), "dst": (4, 16)},
}
PORTS = {"proto": (1, 1), "sport": (2, 2), "dport": (3, 2)}
# By protocol, whatever the family: ICMP, ICMPv6.
ICMP = {
    1: {"icmp_id": (4, 2), "icmp_type": (5, 1), "icmp_code": (6, 1)},
    58: {"icmp_id": (7, 2), "icmp_type": (8, 1), "icmp_code": (9, 1)},
}
_KNOWN = {TUPLE_IP: range(1, 5), TUPLE_PROTO: range(1, 10)}
# Types of addresses: in a message of another family they are out of place.
ADDRESSES = {1, 2, 3, 4}
# Top-level types that ctnetlink may have given out; none of them comes twice.
TOP_LEVEL_TYPES = range(1, 32)

ICMP_PAIRS = {
    1: ((8, 0), (13, 14), (15, 16), (17, 18)),
    58: ((128, 129), (139, 140)),
}


class Field(NamedTuple):
    """A value: a number of ``size`` bytes, or of another kind.

    "flags": bits, and which of them are meant. "text": up to 15 bytes before a null byte.
    "context": text of any size. "labels", "bytes".
    """

    name: str
    size: int = 0
    kind: str = "number"


# By type; None is padding.
Table = dict[int, Union[Field, "Table", None]]


def _numbers(prefix: str, *names: str, size: int, suffix: str = "") -> Table:
    """Numbers of one size, of the types 1, 2, ..."""
    return {n: Field(f"{prefix}{name}{suffix}", size) for n, name in enumerate(names, 1)}


def _counters(suffix: str) -> Table:
    # 3 and 4 are counters of 32 bits, which kernels no longer send.
    return {**_numbers("", "packets", "bytes", size=8, suffix=suffix), 5: None}


_TCP: Table = {
    **_numbers("tcp_", "state", "wscale_orig", "wscale_reply", size=1),
    4: Field("tcp_flags_orig", kind="flags"),
    5: Field("tcp_flags_reply", kind="flags"),
}
_DCCP: Table = {
    **_numbers("dccp_", "state", "role", size=1),
    3: Field("dccp_handshake_seq", 8),
    4: None,
}
_SCTP: Table = {
    1: Field("sctp_state", 1),
    2: Field("sctp_vtag_orig", 4),
    3: Field("sctp_vtag_reply", 4),
}
ATTRIBUTES: Table = {
    3: Field("status", 4),
    4: {1: _TCP, 2: _DCCP, 3: _SCTP},
    5: {1: Field("helper", kind="text"), 2: Field("helper_info", kind="bytes")},
    7: Field("timeout", 4),
    8: Field("mark", 4),
    9: _counters("_orig"),
    10: _counters("_reply"),
    11: Field("use", 4),
    12: Field("id", 4),
    15: _numbers("seqadj_orig_", "pos", "before", "after", size=4),
    16: _numbers("seqadj_reply_", "pos", "before", "after", size=4),
    18: Field("zone", 2),
    19: {1: Field("secctx", kind="context")},
    20: {**_numbers("timestamp_", "start", "stop", size=8), 3: None},
    22: Field("labels", 16, "labels"),
    24: _numbers("synproxy_", "isn", "its", "tsoff", size=4),
    27: Field("timestamp_event", 8),
}
# How a request asks for a translation: type, what of the reply it sets, and its address and port.
NAT = {6: ("dst", "dport"), 13: ("src", "sport")}
NAT_ADDRESS = {socket.AF_INET: 1, socket.AF_INET6: 4}
NAT_PROTO = 3
NAT_PORT = 1


def _flat(table: Table, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Field]]:
    for kind, entry in table.items():
        if isinstance(entry, Field):
            yield (*path, kind), entry
        elif entry is not None:
            yield from _flat(entry, (*path, kind))


# Every field outside of the tuples, by name; and the types that lead to it.
FIELDS = {field.name: field for _, field in _flat(ATTRIBUTES)}
PATHS = {field.name: path for path, field in _flat(ATTRIBUTES)}

STATUS_CONFIRMED = 1 << 3
# What a request says of TCP's flags: window scaling, selective acknowledgements, liberal tracking.
TCP_FLAGS = 0x01 | 0x02 | 0x08
STATUS_EXPECTED = 1 << 0
STATUS_NAT = {1 << 4: 6, 1 << 5: 13}
# What the kernel counts, measures or gives out by itself: a request does not say it.
KERNEL_OWN = {
    "id",
    "use",
    "secctx",
    "unknown",
    *(name for name in FIELDS if name.startswith(("packets_", "bytes_", "timestamp_"))),
}


# Encoding ----------------------------------------------------------------------------------------


def flow_message(family: int, *attributes: bytes) -> bytes:
    """Encode a flow message of these attributes."""
    return message(CT_NEW, 0, general(family) + b"".join(attributes))


def _values(table: dict[str, tuple[int, int]], values: dict[str, Any]) -> bytes:
    encoded = b""
    for name, (kind, size) in table.items():
        if name in values:
            value = values[name]
            encoded += attr(
                kind, value if isinstance(value, bytes) else value.to_bytes(size, "big")
            )
    return encoded


def tuple_attr(kind: int, family: int, values: dict[str, Any]) -> bytes:
    """Encode a tuple."""
    inner = attr(TUPLE_IP | NESTED, _values(IP[family], values))
    table = {**PORTS, **ICMP.get(values.get("proto"), {})}
    inner += attr(TUPLE_PROTO | NESTED, _values(table, values))
    inner += _values({"zone": (TUPLE_ZONE, 2)}, values)
    return attr(kind | NESTED, inner)


def _pack(field: Field, value: Any) -> bytes:
    if field.kind == "number":
        return int(value).to_bytes(field.size, "big")
    if field.kind == "labels":
        return struct.pack("=QQ", value & 2**64 - 1, value >> 64)
    if field.kind == "flags":
        return bytes([value, 0xFF])
    return bytes(value) if field.kind == "bytes" else value + b"\0"


def _encode_table(table: Table, flow: dict[str, Any]) -> bytes:
    encoded = b""
    for kind, entry in table.items():
        if isinstance(entry, Field):
            if entry.name in flow:
                encoded += attr(kind, _pack(entry, flow[entry.name]))
        elif entry is not None:
            inner = _encode_table(entry, flow)
            encoded += attr(kind | NESTED, inner) if inner else b""
    return encoded


def nest(path: tuple[int, ...], payload: bytes) -> bytes:
    """Encode an attribute inside nests, whose types come first."""
    for kind in reversed(path[1:]):
        payload = attr(kind, payload)
        path = path[:-1]
    return attr(path[0], payload)


def encode(flow: dict[str, Any]) -> bytes:
    """Encode a flow as the kernel would send it."""
    tuples = [
        tuple_attr(kind, flow["family"], flow[name])
        for name, kind in TUPLES.items()
        if name in flow
    ]
    said = dict(flow)
    if not said.get("zone") or "zone" in flow["orig"] or "zone" in flow.get("reply", {}):
        said.pop("zone", None)
    rest = _encode_table(ATTRIBUTES, said) + flow.get("unknown", b"")
    return flow_message(flow["family"], *tuples, rest)


# Decoding ----------------------------------------------------------------------------------------


def _unique(data: bytes, once: Container[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for kind, payload in attributes(data):
        if kind in found and kind in once:
            raise MalformedError("an attribute comes twice")
        found[kind] = payload
    return found


def _decode_values(table: dict[str, tuple[int, int]], found: dict[int, bytes]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (kind, size) in table.items():
        if kind not in found:
            continue
        payload = found[kind]
        if len(payload) != size:
            raise MalformedError(f"size of {name}")
        values[name] = payload if name in ("src", "dst") else int.from_bytes(payload, "big")
    return values


def decode_tuple(data: bytes, family: int) -> tuple[dict[str, Any], bool]:
    """Return the tuple, and whether something in it is not known."""
    found = _unique(data, (TUPLE_IP, TUPLE_PROTO, TUPLE_ZONE))
    values = _decode_values({"zone": (TUPLE_ZONE, 2)}, found)
    addresses = _unique(found.get(TUPLE_IP, b""), _KNOWN[TUPLE_IP])
    table = IP.get(family, {})
    if ADDRESSES & (addresses.keys() - {number for number, _ in table.values()}):
        raise MalformedError("an address of another family")
    values.update(_decode_values(table, addresses))
    proto = _unique(found.get(TUPLE_PROTO, b""), _KNOWN[TUPLE_PROTO])
    values.update(_decode_values(PORTS, proto))
    # Both kinds of ICMP mean the same fields: of two, the later one stands.
    for kind, payload in proto.items():
        for fields in ICMP.values():
            for name, (number, size) in fields.items():
                if number == kind:
                    values.update(_decode_values({name: (number, size)}, {kind: payload}))
    unknown = (
        found.keys() - {TUPLE_IP, TUPLE_PROTO, TUPLE_ZONE}
        or addresses.keys() - set(_KNOWN[TUPLE_IP])
        or proto.keys() - set(_KNOWN[TUPLE_PROTO])
    )
    return values, bool(unknown)


def _unpack(field: Field, payload: bytes) -> Any:
    if field.kind == "bytes":
        return payload
    if field.kind == "context":
        return payload[:-1] if payload.endswith(b"\0") else payload
    if field.kind == "text":
        text = payload.partition(b"\0")[0]
        if len(text) > 15:
            raise MalformedError(f"size of {field.name}")
        return text
    if len(payload) != (2 if field.kind == "flags" else field.size):
        raise MalformedError(f"size of {field.name}")
    if field.kind == "flags":
        return payload[0]
    if field.kind == "labels":
        low, high = struct.unpack("=QQ", payload)
        return low | high << 64
    return int.from_bytes(payload, "big")


def _decode_table(table: Table, data: bytes, flow: dict[str, Any]) -> bool:
    """Add to the flow what is in a nest. Return whether something in it is not known."""
    unknown = False
    for kind, payload in _unique(data, table).items():
        unknown |= kind not in table or _decode_entry(table[kind], payload, flow)
    return unknown


def _decode_entry(entry: Field | Table | None, payload: bytes, flow: dict[str, Any]) -> bool:
    if isinstance(entry, Field):
        flow[entry.name] = _unpack(entry, payload)
    elif entry is not None:
        return _decode_table(entry, payload, flow)
    return False


def _decode_nat(kind: int, payload: bytes, flow: dict[str, Any]) -> bool:
    """Translate the reply, as far as it has what a request for translation sets."""
    reply = flow.get("reply", {})
    address, port = NAT[kind]
    if "icmp_id" in reply:
        port = "icmp_id"
    found = _unique(payload, (*NAT_ADDRESS.values(), NAT_PROTO))
    inner = _unique(found.get(NAT_PROTO, b""), (NAT_PORT,))
    unknown = bool(found.keys() - {*NAT_ADDRESS.values(), NAT_PROTO} or inner.keys() - {NAT_PORT})
    for family, number in NAT_ADDRESS.items():
        if number in found and (
            family != flow["family"] or len(found[number]) != IP[family]["src"][1]
        ):
            raise MalformedError("address of a translation")
        if number in found and address in reply:
            reply[address] = found[number]
        unknown |= number in found and address not in reply
    if NAT_PORT in inner and len(inner[NAT_PORT]) != 2:
        raise MalformedError("port of a translation")
    if NAT_PORT in inner and port in reply:
        reply[port] = int.from_bytes(inner[NAT_PORT], "big")
    unknown |= NAT_PORT in inner and port not in reply
    return unknown


def decode(data: bytes) -> dict[str, Any]:
    """Decode a flow message, and nothing but one. Raises MalformedError."""
    found_messages = list(messages(data))
    if len(found_messages) != 1:
        raise MalformedError("not one message")
    (found,) = found_messages
    if len(found) < BODY:
        raise MalformedError("no netfilter header")
    flow: dict[str, Any] = {"family": found[HEADER.size]}
    tuples = {kind: name for name, kind in TUPLES.items()}
    unknown = set()
    # Translations come after the tuples that they translate.
    for kind, payload in sorted(_unique(found[BODY:], TOP_LEVEL_TYPES).items()):
        if kind in tuples:
            flow[tuples[kind]], strange = decode_tuple(payload, flow["family"])
        elif kind in NAT:
            strange = _decode_nat(kind, payload, flow)
        else:
            strange = kind not in ATTRIBUTES or _decode_entry(ATTRIBUTES[kind], payload, flow)
        if strange:
            unknown.add(kind)
    if unknown:
        flow["unknown"] = b"".join(
            whole for kind, _, whole in whole_attributes(found[BODY:]) if kind in unknown
        )
    flow.setdefault("zone", zone_of(flow))
    return flow


def zone_of(flow: dict[str, Any]) -> int:
    """Return the zone that a tuple has by itself; 0 where there is none."""
    zones = [flow.get(name, {}).get("zone") for name in ("orig", "reply")]
    return int(next((zone for zone in zones if zone is not None), 0))


# What a flow implies -----------------------------------------------------------------------------


def reverse(values: dict[str, Any]) -> dict[str, Any]:
    """Return the tuple of the other direction; a zone stays with its direction."""
    turned = {"src": "dst", "dst": "src", "sport": "dport", "dport": "sport"}
    reply = {turned.get(name, name): value for name, value in values.items() if name != "zone"}
    if "icmp_type" in reply:
        pairs = ICMP_PAIRS[reply["proto"]]
        other = {**dict(pairs), **{answer: request for request, answer in pairs}}
        reply["icmp_type"] = other.get(reply["icmp_type"], reply["icmp_type"])
    return reply


def _translated(reply: dict[str, Any], wanted: dict[str, Any], status: int) -> dict[str, Any]:
    """Return the reply with what of ``wanted`` the status says is translated."""
    for bit, kind in STATUS_NAT.items():
        address, port = NAT[kind]
        names = [address, "icmp_id" if "icmp_id" in wanted else port]
        if status & bit:
            reply.update({name: wanted[name] for name in names if name in wanted and name in reply})
    return reply


def created(flow: dict[str, Any]) -> dict[str, Any]:
    """Return what a request that creates the flow says, decoded."""
    said = {name: value for name, value in flow.items() if name not in KERNEL_OWN}
    reply, status = flow.get("reply"), flow.get("status", 0)
    if reply is None or (status & sum(STATUS_NAT) and {"src", "dst"} <= reply.keys()):
        plain = reverse(flow["orig"])
        if reply is not None:
            plain.update({"zone": reply["zone"]} if "zone" in reply else {})
            plain = _translated(plain, reply, status)
        said["reply"] = plain
    for name in ("tcp_flags_orig", "tcp_flags_reply"):
        if name in said:
            said[name] &= TCP_FLAGS
    if "status" in said:
        said["status"] |= STATUS_CONFIRMED
        if "master" in said:
            said["status"] &= ~STATUS_EXPECTED
    return said
