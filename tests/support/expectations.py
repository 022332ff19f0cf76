"""Expectations by raw netlink in plain Python: requests of the kernel, to judge nlct by."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

import nlct
from nlct import Flow, Status, Tuple
from tests.support import encoder, netlink

NEW, GET, DELETE = 0x200, 0x201, 0x202
MASTER, TUPLE, MASK, TIMEOUT, ID, HELPER, ZONE, FLAGS, CLASS, NAT, FUNCTION = range(1, 12)

# As the kernel wrote them, by the attributes' numbers.
Found = dict[int, bytes]


def masters(ct: nlct.Conntrack, count: int, zone: int = 0, family: int = 4) -> list[Tuple]:
    """Make flows with the helper of FTP. It allows each but one expectation."""
    client, server = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    made = [Tuple(client, server, "tcp", 40_000 + number, 21) for number in range(count)]
    try:
        for orig in made:
            state: dict[str, Any] = {"tcp_state": "established", "status": Status.SEEN_REPLY}
            ct.create(Flow(orig, zone=zone, timeout=600, helper="ftp", **state))
    except nlct.UnsupportedError:
        pytest.skip("MISSING: the helper of FTP")
    return made


def expected(number: int, family: int = 4) -> Tuple:
    """The tuple that a master's expectation has: data from the server, from any port."""
    server, client = ("10.0.0.2", "10.0.0.1") if family == 4 else ("fd00::2", "fd00::1")
    return Tuple(server, client, "tcp", 0, 50_000 + number)


def attr(kind: int, one: Tuple) -> bytes:
    """Encode a tuple."""
    values = {
        "src": ipaddress.ip_address(str(one.src)).packed,
        "dst": ipaddress.ip_address(str(one.dst)).packed,
        **{"proto": one.proto, "sport": one.sport, "dport": one.dport},
    }
    return encoder.tuple_attr(kind, one.family or 0, values)


def number(kind: int, value: int, size: int = 4) -> bytes:
    """Encode a number."""
    return netlink.attr(kind, value.to_bytes(size, "big"))


def ask(
    netns: nlct.Netns, kind: int, *attributes: bytes, flags: int = 0, family: int = socket.AF_INET
) -> tuple[int, list[Found]]:
    """Send a request; return the errno, and what came before it."""
    found: list[Found] = []
    with netlink.connect(netns) as sock:
        sock.send(netlink.request(kind, netlink.NLM_F_ACK | flags, family, *attributes))
        for answer, message in netlink.answer(sock):
            if answer in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                return netlink.error(message), found
            found.append(dict(netlink.attributes(message[netlink.BODY :])))
    raise AssertionError


def dump(netns: nlct.Netns) -> dict[bytes, Found]:
    """Read the whole table, by id; what changes by itself is out."""
    failed, found = ask(netns, GET, flags=netlink.NLM_F_DUMP, family=socket.AF_UNSPEC)
    assert not failed
    return {one[ID]: {k: v for k, v in one.items() if k != TIMEOUT} for one in found}


def create(netns: nlct.Netns, master: Tuple, one: Tuple, *more: bytes) -> int:
    """Create one whose source port may be any. Returns the errno."""
    bits = 32 if one.family == socket.AF_INET else 128
    every = (2**bits - 1).to_bytes(bits // 8, "big")
    mask = {"src": every, "dst": every, "proto": 6, "sport": 0, "dport": 0xFFFF}
    attributes = (
        *(attr(MASTER, master), attr(TUPLE, one)),
        *(encoder.tuple_attr(MASK, one.family or 0, mask), *more),
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    return ask(netns, NEW, *attributes, flags=flags, family=one.family or 0)[0]
