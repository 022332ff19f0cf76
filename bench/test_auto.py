"""The choice of the way.

Zones from 0 to 100 % of the table, each flushed by nlct in each of its ways: as it chooses
("auto"), by scanning, and by the kernel's own flush; "first" is its choice in the first call of a
process. The choice is compared with the better of scan and kernel, round by round; a scan that
takes no longer than 20 ms is the better one, because it counts.

The grid is the same with few and many flows in small and large hash tables. The size of the hash
table is the whole machine's; it is put back. Where the chains would be longer than the kernel
allows, the flows do not fit and the row is left out, by name.

Several zones are flushed by flush_zones() as it chooses, in one scan, and by a kernel flush for
each zone; where these would take too long, the scan is the better one.
"""

from collections.abc import Iterable

from bench.lab import Shares
from bench.turn import Sizes, Turn, case
from nlct.cli.measure import SyntheticTable

SHARES = (0, 0.2, 1, 5, 10, 20, 50, 100)
FLOWS = Sizes((10_000, 100_000, 500_000, 2_000_000), quick=(10_000,))
# 0 leaves the size as it is.
BUCKETS = Sizes((16_384, 65_536, 262_144, 1_048_576), quick=(0,))
ZONES = Sizes((2, 3, 5, 10, 50, 200, 500), quick=(2, 20))
# A kernel flush for each of more than these takes too long.
MOST_BY_KERNEL = 50
WAYS = ("nlct.scan", "nlct.kernel", "nlct.auto", "nlct.first")


@case(*WAYS, limit=50, share=SHARES)
def test_shares(turn: Turn, share: float) -> None:
    """Flush of a zone that is a share of the table, in percent."""
    flush_share(turn, turn.scale.flows, 0, share)


@case(*WAYS, limit=5, buckets=BUCKETS, flows=FLOWS, share=SHARES)
def test_grid(turn: Turn, buckets: int, flows: int, share: float) -> None:
    """The same, by buckets and flows."""
    flush_share(turn, flows, buckets, share)


@case(*WAYS[:-1], limit=15, zones=ZONES)
def test_several(turn: Turn, zones: int) -> None:
    """Flush of several zones in one call."""
    turn.even()
    if turn.does == "kernel":
        turn.at_most(MOST_BY_KERNEL, zones)
    flush(turn, range(1, zones + 1), "flush_zones", 1, zones)


def flush_share(turn: Turn, flows: int, buckets: int, share: float) -> None:
    """Flush a zone in one of the ways."""
    shares = tuple(each for each in SHARES if 0 < each < 100)
    if share == 100:
        turn.lab.hold(SyntheticTable, flows, 1, buckets=buckets)
        zone = 1
    else:
        turn.lab.hold(Shares, flows, shares, buckets=buckets)
        # One more holds the rest, and the next one nothing.
        zone = shares.index(share) + 1 if share else len(shares) + 2
    flush(turn, [zone], "flush_zone", zone)


def flush(turn: Turn, zones: Iterable[int], operation: str, *arguments: object) -> None:
    """Flush zones in one of the ways, and put them back."""
    if turn.does == "kernel":
        # Skips if the kernel has none: nlct would refuse it.
        turn.peers.get("kernel")
    if turn.does == "first":
        with turn.fresh("--cold") as worker:
            turn.record(lambda: worker.run(operation, *arguments, "auto"))
    else:
        turn.run(operation, *arguments, turn.does)
    turn.lab.put_back(*zones)
