"""Tables to try things on: one entry of every kind, in zones of every kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import nlct
from nlct import Flow, Tuple

# The ends of the range, and ids that a wrong byte order or a missing attribute would mix up.
ZONES = (0, 1, 5, 7, 256, 65535)
# Zone 5 has entries of one direction beside whole ones.
DIRECTIONAL = 5

_TUPLES = (
    Tuple("10.0.0.1", "10.0.0.2", "udp", 1000, 53),
    Tuple("10.0.0.1", "10.0.0.2", "tcp", 1000, 80),
    Tuple("10.0.0.1", "10.0.0.2", "icmp", icmp_id=7, icmp_type=8, icmp_code=0),
    Tuple("10.0.0.1", "10.0.0.2", "gre", 0, 0),
    Tuple("fd00::1", "fd00::2", "udp", 1000, 53),
    Tuple("fd00::1", "fd00::2", "tcp", 1000, 80),
    Tuple("fd00::1", "fd00::2", "icmpv6", icmp_id=7, icmp_type=128, icmp_code=0),
)


def reverse(orig: Tuple, zone: int | None = None) -> Tuple:
    """The reply of a flow with ports."""
    return Tuple(orig.dst, orig.src, orig.proto, orig.dport, orig.sport, zone=zone)


def udp(number: int, zone: int = 0, timeout: int = 3600) -> Flow:
    """One of 2**24 UDP flows."""
    source = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Flow(Tuple(source, "192.0.2.1", "udp", 1024, 53), zone=zone, timeout=timeout)


def directional(zone: int) -> Iterator[Flow]:
    """Flows whose zone applies to the original direction alone, or to the reply alone."""
    for prefix in ("10.9.9.", "fd09::"):
        orig = Tuple(f"{prefix}1", f"{prefix}2", "udp", 1, 2, zone=zone)
        yield Flow(orig, timeout=3600)
        orig = Tuple(f"{prefix}3", f"{prefix}4", "tcp", 3, 4)
        yield Flow(orig, reverse(orig, zone), timeout=3600)


def menagerie(zones: Iterable[int] = ZONES) -> Iterator[Flow]:
    """The same tuples in each zone, and the directional ones where zone 5 is among them."""
    for zone in zones:
        for number, orig in enumerate(_TUPLES):
            yield Flow(orig, zone=zone, timeout=3600, mark=number)
        if zone == DIRECTIONAL:
            yield from directional(zone)


def populate(conntrack: nlct.Conntrack, zones: Iterable[int] = ZONES) -> None:
    """Create the menagerie."""
    for flow in menagerie(zones):
        conntrack.create(flow)
