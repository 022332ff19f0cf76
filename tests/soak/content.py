"""What the table holds: flows that nobody may touch, and those that everybody does."""

from __future__ import annotations

import ipaddress
import random
from array import array
from collections.abc import Iterator

import nlct
from nlct import Filter, Flow, FlowTable, Status, Tuple, fill
from tests.support import flows, oracle

# Nobody may flush these; they hold flows of every kind.
KEPT = flows.ZONES
# Connections that must go on talking, each client in a zone of its own.
TALKING = (11, 12)
# Connections that come and go, and that anybody may flush.
STRANGERS = (21, 22)
# Everybody creates and flushes here.
CHURN = range(100, 148)
FLUSHED = (*CHURN, *STRANGERS)
# Each process fills so many zones from here on that nobody else touches; they hold few flows.
FIRST_OWN, EACH_OWN = 200, 3
OWN_MARKS, OWN_MOST = 4, 40

# A full table gives up those that are not assured in favour of new ones.
ASSURED = Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED
DAY = 86400
# Of random flows; no kept flow has one of these.
FIRST_SOURCE = ipaddress.IPv4Address("172.16.0.0")
KEPT_MARK = 9
EACH_KEPT = 100


def kept_flows() -> Iterator[Flow]:
    """Flows of every kind that live longer than any soak, and that no full table gives up."""
    for flow in flows.menagerie(KEPT):
        yield flow.replace(status=ASSURED, timeout=30 * DAY)
    for zone in KEPT:
        for number in range(EACH_KEPT):
            flow = flows.udp(number, zone, 30 * DAY)
            yield flow.replace(status=ASSURED, mark=KEPT_MARK)


def ids(table: oracle.Table) -> dict[int, list[int]]:
    """The ids in each zone."""
    found: dict[int, list[int]] = {}
    for key, entry in table.items():
        found.setdefault(key.zone, []).append(int.from_bytes(entry[oracle.ID], "big"))
    return found


def _source(number: int) -> str:
    return str(FIRST_SOURCE + number)


def random_flow(dice: random.Random) -> Flow:
    """Any of many flows; two are the same now and then."""
    number = dice.randrange(1 << 18)
    if dice.random() < 0.8:
        source, target = (
            f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
            "192.0.2.1",
        )
    else:
        source, target = f"fd16::{number >> 16:x}:{number & 65535:x}", "fd00::1"
    orig = Tuple(source, target, dice.choice(("udp", "tcp")), dice.randrange(1, 65536), 53)
    status = ASSURED if dice.random() < 0.5 else Status.CONFIRMED
    mark = 1000 + dice.randrange(1000)
    return Flow(orig, zone=dice.choice(CHURN), timeout=DAY, mark=mark, status=status)


def random_filter(dice: random.Random) -> Filter:
    """A filter that no kept flow matches, by its zones or by anything else."""
    first, port = dice.randrange(1 << 18), dice.randrange(60000)
    zones = dice.sample(CHURN, dice.randrange(1, 8))
    choices = (
        Filter(zone=zones, proto="udp"),
        Filter(zone=zones, src=f"10.{dice.randrange(4)}.0.0/16"),
        Filter(zone=zones, status=Status.ASSURED) & ~Filter(sport=range(port, port + 5000)),
        Filter(zone=range(100, 124)) & Filter(sport=range(port, port + 5000)),
        Filter(src=f"172.{16 + (first >> 16)}.{first >> 8 & 255}.0/24"),
        Filter(
            src=[f"172.{16 + n % 4}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + 999)]
        ),
        Filter(mark=range(1000 + first % 1000, 2000)),
        Filter(family="ipv6", src="fd16::/64") | Filter(zone=zones[0]),
    )
    return dice.choice(choices)


def own_zones(process: int) -> range:
    """The zones of a process."""
    first = FIRST_OWN + EACH_OWN * process
    return range(first, first + EACH_OWN)


def own_flows(dice: random.Random, zone: int) -> Iterator[Flow]:
    """Some flows for a zone of one's own, which neither a full table nor random filters take."""
    for number in dice.sample(range(OWN_MOST), dice.randrange(1, OWN_MOST)):
        flow = flows.udp(number, zone, DAY)
        yield flow.replace(status=ASSURED, mark=number % OWN_MARKS)


def own_filter(dice: random.Random, zone: int) -> Filter:
    """A filter for some of them: by what a mirror keeps, or by what it must look up."""
    choices = (
        Filter(zone=zone, src=f"10.0.0.{dice.randrange(OWN_MOST)}"),
        Filter(zone=zone) & ~Filter(src=f"10.0.0.{dice.randrange(OWN_MOST)}"),
        Filter(zone=zone, mark=dice.randrange(OWN_MARKS)),
    )
    return dice.choice(choices)


def zone_table(total: int, zone: int) -> FlowTable:
    """The flows that fill one of the CHURN zones when all of them hold so many."""
    number = 1 + CHURN.index(zone)
    ((table),) = fill.tables(total, len(CHURN), zone=number, rows=total)
    columns = {name: table.column(name) for name in table.names}
    status = ASSURED if zone % 2 else Status.CONFIRMED
    return FlowTable(
        {
            **columns,
            "zone": array("H", (zone,)) * len(table),
            "status": array("I", (status,)) * len(table),
        }
    )


def make_room(ct: nlct.Conntrack) -> None:
    """Flush CHURN zones until there is some room.

    Of a table that is full to 95 % the kernel gives up what is not assured by itself, at any time.
    """
    for zone in CHURN:
        if not ct.limit or ct.count() < 0.9 * ct.limit:
            return
        ct.flush_zone(zone)


def fill_up(ct: nlct.Conntrack, total: int) -> None:
    """Fill the CHURN zones, as far as there is room."""
    for zone in CHURN:
        ct.load(zone_table(total, zone))
