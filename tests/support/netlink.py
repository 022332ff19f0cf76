"""Netlink messages and attributes in plain Python: the bytes, and sending and receiving them.

Written from the kernel's headers. It shares no code with nlct but the opening of a socket inside a
namespace, so that what the core writes and reads can be held against it. What the attributes of a
flow mean is in encoder.py.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

import nlct

NETLINK_NETFILTER = 12

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

HEADER = struct.Struct("=IHHII")
ATTR = struct.Struct("=HH")
# Where a message's attributes begin: after the headers of netlink and netfilter.
BODY = HEADER.size + 4


class MalformedError(Exception):
    """The message breaks the rules."""


# Writing -----------------------------------------------------------------------------------------


def attr(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Encode an attribute; ``length`` overrides what its header says."""
    size = ATTR.size + len(payload) if length is None else length
    return ATTR.pack(size, kind) + payload + bytes(-len(payload) % 4)


def message(
    kind: int, flags: int, body: bytes, *, sequence: int = 0, length: int | None = None
) -> bytes:
    """Encode a netlink message; ``length`` overrides what its header says."""
    size = HEADER.size + len(body) if length is None else length
    return HEADER.pack(size, kind, flags, sequence, 0) + body


def general(family: int) -> bytes:
    """Encode the header that every netfilter message has."""
    return struct.pack("=BBH", family, 0, 0)


def request(kind: int, flags: int, family: int, *attributes: bytes) -> bytes:
    """Encode a request of these attributes."""
    body = general(family) + b"".join(attributes)
    return message(kind, NLM_F_REQUEST | flags, body, sequence=1)


# Reading -----------------------------------------------------------------------------------------


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each attribute."""
    at, end = 0, len(data)
    while at < end:
        if end - at < ATTR.size:
            raise MalformedError("leftovers")
        length, kind = ATTR.unpack_from(data, at)
        if not ATTR.size <= length <= end - at:
            raise MalformedError("length of an attribute")
        yield kind & TYPE_MASK, data[at + ATTR.size : at + length]
        at += (length + 3) & ~3


def whole_attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield type, payload and all bytes of each attribute, the padding as zeros."""
    at = 0
    for kind, payload in attributes(data):
        length = ATTR.size + len(payload)
        yield kind, payload, data[at : at + length] + bytes(-length % 4)
        at += (length + 3) & ~3


def messages(data: bytes) -> Iterator[bytes]:
    """Yield each message of a datagram."""
    at = 0
    while at < len(data):
        if len(data) - at < HEADER.size:
            raise MalformedError("leftovers")
        length, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size or length > len(data) - at:
            raise MalformedError("length of a message")
        yield data[at : at + length]
        at += length + -length % 4


# Asking the kernel -------------------------------------------------------------------------------


def connect(netns: nlct.Netns) -> socket.socket:
    """Open a socket to conntrack inside a namespace."""
    sock = netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.settimeout(60)  # the kernel answers at once, but on a busy machine we may not run
    return sock


def answer(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of each message of an answer, up to and with its verdict."""
    while True:
        for received in messages(sock.recv(65536)):
            _, kind, *_ = HEADER.unpack_from(received)
            yield kind, received
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                return


def error(verdict: bytes) -> int:
    """Return the errno of a verdict, 0 where there is none."""
    return -int.from_bytes(verdict[HEADER.size :][:4], sys.byteorder, signed=True)
