"""Synthetic tables: many UDP flows in many zones, to try things on."""

from __future__ import annotations

import ipaddress
import socket
import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Callable, Protocol

from nlct import _check
from nlct._fields import ADDRESS_SIZE
from nlct.load import LoadResult
from nlct.table import FlowTable

TIMEOUT = 86400
ROWS = 65536
# 10.0.0.0/8 has an address for each flow; all of them talk to one port of one server.
FIRST_SOURCE = int(ipaddress.IPv4Address("10.0.0.0"))
MAX_FLOWS = 2**24
SERVER = ipaddress.IPv4Address("192.0.2.1")


def _addresses(numbers: range) -> bytearray:
    """IPv4 sources, 16 bytes each."""
    words = array(
        "I", range(FIRST_SOURCE + numbers.start, FIRST_SOURCE + numbers.stop, numbers.step)
    )
    if sys.byteorder == "little":
        words.byteswap()
    packed = bytearray(ADDRESS_SIZE * len(words))
    memoryview(packed).cast("I")[:: ADDRESS_SIZE // 4] = memoryview(words)
    return packed


def tables(
    flows: int, zones: int, *, zone: int | None = None, rows: int = ROWS
) -> Iterator[FlowTable]:
    """Yield UDP flows, a table of up to ``rows`` at a time.

    They live for a day, in zones 1 to ``zones`` in turn, each from its own address.
    ``flows``: 0 to 16,777,216. ``zones``: 1 to 65535. ``zone``: yield only the flows of this zone.
    """
    _check.integer("flows", flows, 0, MAX_FLOWS)
    _check.integer("zones", zones, 1, _check.U16)
    numbers = range(flows)
    if zone is not None:
        numbers = range(_check.integer("zone", zone, 1, zones) - 1, flows, zones)
    for begin in range(0, len(numbers), rows):
        part = numbers[begin : begin + rows]
        yield FlowTable(
            {
                "family": bytes((socket.AF_INET,)) * len(part),
                "zone": array("H", [1 + number % zones for number in part]),
                "timeout": array("I", (TIMEOUT,)) * len(part),
                "src": _addresses(part),
                "dst": SERVER.packed.ljust(ADDRESS_SIZE, b"\0") * len(part),
                "proto": bytes((socket.IPPROTO_UDP,)) * len(part),
                "sport": array("H", (1024,)) * len(part),
                "dport": array("H", (53,)) * len(part),
            }
        )


class Loads(Protocol):
    """What loads flows: a Conntrack."""

    def load(self, flows: FlowTable, /) -> LoadResult:
        """Create many flows."""


def fill(
    conntrack: Loads,
    flows: int,
    zones: int,
    *,
    zone: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> LoadResult:
    """Create the flows of tables(). A flow that exists counts as failed with EEXIST.

    ``progress``: called after each table, with the number of flows done so far.
    """
    created = 0
    failed: dict[int, int] = {}
    seconds = 0.0
    dropped: dict[str, int] | None = {}
    done = 0
    for table in tables(flows, zones, zone=zone):
        result = conntrack.load(table)
        created += result.created
        seconds += result.seconds
        for number, count in result.failed.items():
            failed[number] = failed.get(number, 0) + count
        dropped = _sum(dropped, result.dropped)
        done += len(table)
        if progress is not None:
            progress(done)
    return LoadResult(created, failed, seconds, dropped)


def _sum(one: Mapping[str, int] | None, other: Mapping[str, int] | None) -> dict[str, int] | None:
    """Add up counts by name; what is not known stays so."""
    if one is None or other is None:
        return None
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
