"""Settings of the machine, which every namespace shares: put back whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = Path("/proc/sys/net/netfilter")
LIMIT = SETTINGS / "nf_conntrack_max"
BUCKETS = SETTINGS / "nf_conntrack_buckets"
# The hash table fills whole pages; so many sizes differ from one another.
STEP, SIZES = 512, 20


def read(path: Path) -> int:
    """Read a setting."""
    return int(path.read_text())


def write(path: Path, value: int) -> bool:
    """Write a setting; False where that is not for us to do."""
    try:
        path.write_text(f"{value}\n")
    except OSError:
        return False
    return True


@contextmanager
def limit(flows: int) -> Iterator[None]:
    """Let the table hold so many flows and no more, until the end of the block."""
    before = read(LIMIT)
    try:
        if before != flows and write(LIMIT, flows):
            print(f"nf_conntrack_max is {flows} for the time of the soak, it was {before}")
        yield
    finally:
        # Whoever changed it meanwhile had a reason.
        if before != flows and read(LIMIT) == flows and write(LIMIT, before):
            print(f"nf_conntrack_max is {before} again")


class Resizer:
    """Makes the hash table about half as large, and as large as it was, again and again."""

    def __init__(self, dice: random.Random, wanted: bool) -> None:
        self._dice = dice
        self._before = self._now = read(BUCKETS)
        self._turn = 0
        # Writing what is there changes nothing.
        self.able = wanted and write(BUCKETS, self._before)

    def resize(self) -> None:
        """Resize."""
        self._turn += 1
        # A dump that two resizes fall into at once tells by the size: it must not be the old one.
        size = self._before // (1 + self._turn % 2) + self._turn % SIZES * STEP
        if write(BUCKETS, size):
            self._now = read(BUCKETS)

    def put_back(self) -> None:
        """Have it as it was, unless somebody else has changed it meanwhile."""
        if self.able and read(BUCKETS) == self._now:
            write(BUCKETS, self._before)
