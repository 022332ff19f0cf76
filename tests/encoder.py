"""An encoder and a decoder of ctnetlink messages in plain Python, to judge the core by.

Written from the kernel's headers, knowing nothing of the core. A flow is a dict: "family", and as
far as they are there "zone", "status", "timeout", "mark", "id", "use" (numbers), "orig" and "reply"
(dicts of numbers, with addresses as bytes). What is absent is not in the dict.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Container, Iterator
from typing import Any

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
CT_NEW = 0x100
CT_GET = 0x101
CT_DELETE = 0x102

NESTED = 0x8000
NET_BYTEORDER = 0x4000
TYPE_MASK = 0x3FFF

# By name: the attribute's type and the size of its value.
FLOW = {
    "status": (3, 4),
    "timeout": (7, 4),
    "mark": (8, 4),
    "use": (11, 4),
    "id": (12, 4),
    "zone": (18, 2),
}
TUPLES = {"orig": 1, "reply": 2}
TUPLE_IP = 1
TUPLE_PROTO = 2
TUPLE_ZONE = 3
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
TOP_LEVEL_TYPES = range(32)

ICMP_PAIRS = {
    1: ((8, 0), (13, 14), (15, 16), (17, 18)),
    58: ((128, 129), (139, 140)),
}


class MalformedError(Exception):
    """The message breaks the rules."""


# Encoding ----------------------------------------------------------------------------------------


def attr(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Encode an attribute; ``length`` overrides what its header says."""
    size = 4 + len(payload) if length is None else length
    return struct.pack("=HH", size, kind) + payload + bytes(-len(payload) % 4)


def message(
    kind: int, flags: int, body: bytes, *, sequence: int = 0, length: int | None = None
) -> bytes:
    """Encode a netlink message; ``length`` overrides what its header says."""
    size = 16 + len(body) if length is None else length
    return struct.pack("=IHHII", size, kind, flags, sequence, 0) + body


def general(family: int) -> bytes:
    """Encode the header that every netfilter message has."""
    return struct.pack("=BBH", family, 0, 0)


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


def encode(flow: dict[str, Any]) -> bytes:
    """Encode a flow as the kernel would send it."""
    tuples = [
        tuple_attr(kind, flow["family"], flow[name])
        for name, kind in TUPLES.items()
        if name in flow
    ]
    return flow_message(flow["family"], *tuples, _values(FLOW, flow))


# Decoding ----------------------------------------------------------------------------------------


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each attribute."""
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise MalformedError("leftovers")
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or length > len(data) - at:
            raise MalformedError("length of an attribute")
        yield kind & TYPE_MASK, data[at + 4 : at + length]
        at += length + -length % 4


def messages(data: bytes) -> Iterator[bytes]:
    """Yield each message of a datagram."""
    at = 0
    while at < len(data):
        if len(data) - at < 16:
            raise MalformedError("leftovers")
        (length,) = struct.unpack_from("=I", data, at)
        if length < 16 or length > len(data) - at:
            raise MalformedError("length of a message")
        yield data[at : at + length]
        at += length + -length % 4


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


def _decode_tuple(data: bytes, family: int) -> dict[str, Any]:
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
    return values


def decode(data: bytes) -> dict[str, Any]:
    """Decode a flow message, and nothing but one. Raises MalformedError."""
    found_messages = list(messages(data))
    if len(found_messages) != 1:
        raise MalformedError("not one message")
    body = found_messages[0][16:]
    if len(body) < 4:
        raise MalformedError("no netfilter header")
    family = body[0]
    found = _unique(body[4:], TOP_LEVEL_TYPES)
    flow = {"family": family, **_decode_values(FLOW, found)}
    for name, kind in TUPLES.items():
        if kind in found:
            flow[name] = _decode_tuple(found[kind], family)
    return flow


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
