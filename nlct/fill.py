"""Synthetic tables: many UDP flows in many zones, to try things on."""

from __future__ import annotations

import ipaddress
import socket
import sys
from array import array
from collections.abc import Iterator
from typing import Callable

from nlct import _check
from nlct.conntrack import Conntrack, LoadResult
from nlct.table import ADDRESS_SIZE, FlowTable

TIMEOUT = 86400
ROWS = 65536
# 10.0.0.0/8 has an address for each flow; all of them talk to one port of one server.
FIRST_SOURCE = int(ipaddress.IPv4Address("10.0.0.0"))
MAX_FLOWS = 2**24
SERVER = ipaddress.IPv4Address("192.0.2.1")


def _addresses(first: int, count: int) -> bytearray:
    """IPv4 addresses in a row, 16 bytes each."""
    numbers = array("I", range(first, first + count))
    if sys.byteorder == "little":
        numbers.byteswap()
    packed = bytearray(ADDRESS_SIZE * count)
    memoryview(packed).cast("I")[:: ADDRESS_SIZE // 4] = memoryview(numbers)
    return packed


def tables(flows: int, zones: int, *, rows: int = ROWS) -> Iterator[FlowTable]:
    """Yield UDP flows, a table of up to ``rows`` at a time: zones 1 to ``zones`` in turn, timeout
    one day.

    ``flows``: 0 to 16,777,216. ``zones``: 1 to 65535.
    """
    _check.integer("flows", flows, 0, MAX_FLOWS)
    _check.integer("zones", zones, 1, _check.U16)
    for first in range(0, flows, rows):
        count = min(rows, flows - first)
        turn = array("H", range(1, zones + 1))
        begin = first % zones
        yield FlowTable(
            {
                "family": bytes((socket.AF_INET,)) * count,
                "zone": (turn * (count // zones + 2))[begin : begin + count],
                "timeout": array("I", (TIMEOUT,)) * count,
                "src": _addresses(FIRST_SOURCE + first, count),
                "dst": SERVER.packed.ljust(ADDRESS_SIZE, b"\0") * count,
                "proto": bytes((socket.IPPROTO_UDP,)) * count,
                "sport": array("H", (1024,)) * count,
                "dport": array("H", (53,)) * count,
            }
        )


def fill(
    conntrack: Conntrack,
    flows: int,
    zones: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> LoadResult:
    """Create the flows of tables(). Flows that exist count as failed with EEXIST."""
    created = 0
    failed: dict[int, int] = {}
    seconds = 0.0
    done = 0
    for table in tables(flows, zones):
        result = conntrack.load(table)
        created += result.created
        seconds += result.seconds
        for number, count in result.failed.items():
            failed[number] = failed.get(number, 0) + count
        done += len(table)
        if progress is not None:
            progress(done)
    return LoadResult(created, failed, seconds)
