"""An independent reader of the kernel's table: raw netlink in plain Python.

It shares no code with nlct but the opening of a socket inside a namespace, and it never asks the
kernel to filter, so what it says can be held against what nlct says.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nlct

NETLINK_NETFILTER = 12
NEW, GET, DELETE = 0x100, 0x101, 0x102
ERROR, DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
TUPLE_ORIG, TUPLE_REPLY, TIMEOUT, USE, ID, ZONE = 1, 2, 7, 11, 12, 18
TUPLE_ZONE = 3
BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")
HEADER = struct.Struct("=IHHII")
ATTR = struct.Struct("=HH")


class Key(NamedTuple):
    """What names an entry: its tuple as the kernel wrote it, and its zone."""

    family: int
    zone: int
    orig: bytes


# The other attributes by number, as the kernel wrote them; those that change by themselves are out.
Entry = dict[int, bytes]
Table = dict[Key, Entry]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in a row of them."""
    at = 0
    while at < len(data):
        size, kind = ATTR.unpack_from(data, at)
        assert 4 <= size <= len(data) - at, "a malformed attribute"
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def attribute(kind: int, data: bytes, nested: bool = False) -> bytes:
    """Write one attribute."""
    padding = bytes(-len(data) % 4)
    return ATTR.pack(4 + len(data), kind | 0x8000 * nested) + data + padding


def _request(kind: int, flags: int, family: int, body: bytes = b"") -> bytes:
    payload = bytes((family, 0, 0, 0)) + body
    return HEADER.pack(HEADER.size + len(payload), kind, REQUEST | flags, 1, 0) + payload


def _answer(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an answer, up to and with its verdict."""
    while True:
        data = sock.recv(65536)
        while data:
            size, kind, *_ = HEADER.unpack_from(data)
            yield kind, data[HEADER.size : size]
            if kind in (ERROR, DONE):
                return
            data = data[(size + 3) & ~3 :]


def _zone(attrs: dict[int, bytes]) -> int:
    if ZONE in attrs:
        return int.from_bytes(attrs[ZONE], "big")
    for direction in (TUPLE_ORIG, TUPLE_REPLY):
        for kind, data in attributes(attrs[direction]):
            if kind == TUPLE_ZONE:
                return int.from_bytes(data, "big")
    return 0


def dump(netns: nlct.Netns) -> Table:
    """Read the whole table, again if the machine's hash table was resized meanwhile."""
    while True:
        before = BUCKETS.read_text()
        table = _dump(netns)
        if BUCKETS.read_text() == before:
            return table


def _dump(netns: nlct.Netns) -> Table:
    table: Table = {}
    with netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.settimeout(20)
        sock.send(_request(GET, DUMP, socket.AF_UNSPEC))
        for kind, data in _answer(sock):
            assert kind in (NEW, DONE), f"the dump failed: {data!r}"
            if kind == NEW:
                attrs = dict(attributes(data[4:]))
                key = Key(data[0], _zone(attrs), attrs[TUPLE_ORIG])
                table[key] = {k: v for k, v in attrs.items() if k not in (TIMEOUT, USE)}
    return table


def delete(netns: nlct.Netns, key: Key, entry: Entry) -> int:
    """Delete one entry. Returns 0 or the errno."""
    body = attribute(TUPLE_ORIG, key.orig, nested=True)
    if ZONE in entry:
        body += attribute(ZONE, entry[ZONE])
    body += attribute(ID, entry[ID])
    with netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.settimeout(20)
        sock.send(_request(DELETE, ACK, key.family, body))
        ((_, data),) = _answer(sock)
        return -int(struct.unpack_from("=i", data)[0])


def has(netns: nlct.Netns, key: Key, entry: Entry) -> bool:
    """Return whether this very entry is still there."""
    return dump(netns).get(key, {}).get(ID) == entry[ID]


def inside(table: Table, zones: Iterable[int]) -> Table:
    """The entries of these zones."""
    wanted = set(zones)
    return {key: entry for key, entry in table.items() if key.zone in wanted}


def outside(table: Table, zones: Iterable[int]) -> Table:
    """The entries of all other zones."""
    wanted = set(zones)
    return {key: entry for key, entry in table.items() if key.zone not in wanted}


def by_zone(table: Table) -> dict[int, int]:
    """How many entries each zone has."""
    return dict(Counter(key.zone for key in table))
