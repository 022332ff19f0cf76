"""An independent reader of the kernel's table: raw netlink in plain Python.

It shares no code with nlct but the opening of a socket inside a namespace, and it never asks the
kernel to filter, so what it says can be held against what nlct says.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nlct
from tests.support import netlink

TUPLE_ORIG, TUPLE_REPLY, TIMEOUT, USE, ID, ZONE = 1, 2, 7, 11, 12, 18
TUPLE_ZONE = 3
BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")


class Key(NamedTuple):
    """What names an entry: its tuple as the kernel wrote it, its zone, and where the zone applies.

    The same original tuple may be there in zone 5 and with zone 5 for its reply alone.
    """

    family: int
    zone: int
    orig: bytes
    applies: int = ZONE


# The other attributes by number, as the kernel wrote them; those that change by themselves are out.
Entry = dict[int, bytes]
Table = dict[Key, Entry]


def _zone(attrs: dict[int, bytes]) -> tuple[int, int]:
    """Return the zone, and the attribute that has it: the flow's own, or that of one direction."""
    if ZONE in attrs:
        return int.from_bytes(attrs[ZONE], "big"), ZONE
    for direction in (TUPLE_ORIG, TUPLE_REPLY):
        for kind, data in netlink.attributes(attrs[direction]):
            if kind == TUPLE_ZONE:
                return int.from_bytes(data, "big"), direction
    return 0, ZONE


def messages(netns: nlct.Netns) -> list[bytes]:
    """Read the whole table, again if the machine's hash table was resized meanwhile."""
    while True:
        before = BUCKETS.read_text()
        found = list(_messages(netns))
        if BUCKETS.read_text() == before:
            return found


def _messages(netns: nlct.Netns) -> Iterator[bytes]:
    with netlink.connect(netns) as sock:
        sock.send(netlink.request(netlink.CT_GET, netlink.NLM_F_DUMP, socket.AF_UNSPEC))
        for kind, message in netlink.answer(sock):
            assert kind in (netlink.CT_NEW, netlink.NLMSG_DONE), f"the dump failed: {message!r}"
            if kind == netlink.CT_NEW:
                yield message


def dump(netns: nlct.Netns) -> Table:
    """Read the whole table."""
    table: Table = {}
    for message in messages(netns):
        attrs = dict(netlink.attributes(message[netlink.BODY :]))
        zone, applies = _zone(attrs)
        key = Key(message[netlink.HEADER.size], zone, attrs[TUPLE_ORIG], applies)
        table[key] = {k: v for k, v in attrs.items() if k not in (TIMEOUT, USE)}
    return table


def deletion(key: Key, entry: Entry, flags: int = 0) -> bytes:
    """Write the request that deletes one entry."""
    attrs = [netlink.attr(TUPLE_ORIG | netlink.NESTED, key.orig)]
    attrs += [netlink.attr(kind, entry[kind]) for kind in (ZONE, ID) if kind in entry]
    return netlink.request(netlink.CT_DELETE, flags, key.family, *attrs)


def delete(netns: nlct.Netns, key: Key, entry: Entry) -> int:
    """Delete one entry. Returns 0 or the errno."""
    with netlink.connect(netns) as sock:
        sock.send(deletion(key, entry, netlink.NLM_F_ACK))
        ((_, verdict),) = netlink.answer(sock)
        return netlink.error(verdict)


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
