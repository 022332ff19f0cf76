"""Several zones in one call.

flush_zones() of more and more zones, in each of nlct's ways: as it chooses ("auto"), in one scan,
and by a kernel flush for each zone. The better of the last two, round by round, is what "auto"
is held against; where the kernel's flushes would take too long, the scan.
"""

from __future__ import annotations

from bench.test_shares import flush
from bench.turn import Sizes, Turn, case

ZONES = Sizes((2, 3, 5, 10, 50, 200, 500), quick=(2, 20))
# A kernel flush for each of more than these takes too long.
MOST_BY_KERNEL = 50


@case("nlct.scan", "nlct.kernel", "nlct.auto", limit=15, zones=ZONES)
def test_several(turn: Turn, zones: int) -> None:
    """Flush of several zones."""
    turn.even()
    if turn.does == "kernel":
        turn.at_most(MOST_BY_KERNEL, zones)
    flush(turn, list(range(1, zones + 1)), "flush_zones", 1, zones)
