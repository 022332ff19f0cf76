"""A scratch namespace and its tables."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

import nlct
from bench.machine import Settings
from nlct import fill
from nlct.capabilities import require_empty
from nlct.cli.measure import SyntheticTable


@contextmanager
def written(lines: Iterable[str]) -> Iterator[Path]:
    """Yield a file of these lines."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.writelines(lines)
        file.flush()
        yield Path(file.name)


class Shares(SyntheticTable):
    """A zone for each of ``shares``, in percent, from zone 1 on, and one for the rest."""

    def __init__(self, ct: nlct.Conntrack, flows: int, shares: tuple[float, ...]) -> None:
        super().__init__(ct, flows, len(shares) + 1)
        whole = next(fill.tables(flows, 1, rows=flows))
        begin = 0
        for zone, share in enumerate((*shares, 100 - sum(shares)), start=1):
            end = flows if zone == self.zones else begin + round(flows * share / 100)
            self._made[zone] = [_in_zone(whole[begin:end], zone)]
            begin = end

    def tables(self) -> Iterable[nlct.FlowTable]:  # noqa: D102
        return [table for made in self._made.values() for table in made]


class Sources(SyntheticTable):
    """So many flows of each source, which differ by their port and their zone."""

    def __init__(self, ct: nlct.Conntrack, flows: int, zones: int, each: int) -> None:
        super().__init__(ct, flows, zones)
        self._whole = []
        for table in fill.tables(flows, zones):
            begin = sum(map(len, self._whole))
            numbers = range(begin, begin + len(table))
            sources = (IPv4Address(fill.FIRST_SOURCE + number // each) for number in numbers)
            columns = {
                **{name: table.column(name) for name in table.names},
                "src": b"".join(source.packed.ljust(16, b"\0") for source in sources),
                "sport": array("H", [1024 + number % each for number in numbers]),
            }
            self._whole.append(nlct.FlowTable(columns))

    def tables(self) -> Iterable[nlct.FlowTable]:  # noqa: D102
        return self._whole


class Counted(SyntheticTable):
    """Flows with counters. ``inside``: the command that runs another one in their namespace."""

    def __init__(self, ct: nlct.Conntrack, flows: int, zones: int, inside: tuple[str, ...]) -> None:
        super().__init__(ct, flows, zones)
        self._inside = inside

    def fill(self) -> None:  # noqa: D102
        self._count(1)
        super().fill()
        # A flow keeps its counters; the next table has none.
        self._count(0)

    def _count(self, on: int) -> None:
        command = f"echo {on} > /proc/sys/net/netfilter/nf_conntrack_acct"
        subprocess.run([*self._inside, "sh", "-c", command], check=True)


def _in_zone(table: nlct.FlowTable, zone: int) -> nlct.FlowTable:
    columns = {name: table.column(name) for name in table.names}
    return nlct.FlowTable({**columns, "zone": array("H", (zone,)) * len(table)})


class Lab:
    """A namespace of our own. ``inside``: the command that runs another one in it."""

    def __init__(self, settings: Settings) -> None:
        self.netns = nlct.Netns.scratch()
        self.ct = nlct.Conntrack(self.netns)
        require_empty(self.ct.count())
        self.inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.netns.fileno()}"]
        self.settings = settings
        self._table = SyntheticTable(self.ct, 0, 1)
        self._held: object = None
        self._impossible: dict[object, str] = {}

    def hold(self, kind: type[SyntheticTable], *arguments: Any, buckets: int = 0) -> None:
        """Have this table here and nothing else; make it unless it is here already.

        Skips if the kernel has no room for it. ``buckets``: the size of the hash table, 0 for what
        it was.
        """
        wanted = (kind, arguments, buckets)
        if wanted in self._impossible:
            pytest.skip(self._impossible[wanted])
        if wanted == self._held:
            return
        self.forget()
        # Resizing is quick while the hash table is empty.
        self.ct.flush_all()
        self.settings.set_buckets(buckets)
        self._table = kind(self.ct, *arguments)
        self.settings.make_room(self._table.flows)
        try:
            self._table.fill()
        except nlct.TableFullError as exc:
            self._impossible[wanted] = f"no room in {self.ct.buckets or 0:,} buckets: {exc}"
            pytest.skip(self._impossible[wanted])
        self._held = wanted

    def put_back(self, *zones: int) -> None:
        """Bring back zones that were flushed; fail if more or less was flushed."""
        for zone in zones:
            assert self._table.put_back(zone), f"zone {zone} was not flushed, or is not taken back"
        assert self.ct.count() >= self._table.flows, "flows of other zones are gone"

    def fill_up(self, gone: int) -> None:
        """Bring back ``gone`` flows of any zones; fail if another number is gone."""
        assert self.ct.count() == self._table.flows - gone, "others were deleted than should be"
        self._table.fill()

    def empty(self, created: int) -> None:
        """Flush ``created`` flows; fail if another number was created."""
        assert self.ct.count() == created, "others were created than should be"
        self.ct.flush_all()

    def pass_by(self, flows: int, rate: float = math.inf) -> None:
        """Create flows beside those here, and flush them. ``rate``: of events a second, at most."""
        zone = self._table.zones + 2
        whole = _in_zone(next(fill.tables(flows, 1, rows=flows)), zone)
        step = int(min(flows, rate / 100))
        begun = time.monotonic()
        for begin in range(0, flows, step):
            self.ct.load(whole[begin : begin + step])
            time.sleep(max(0, begun + begin / rate - time.monotonic()))
        self.ct.flush_zone(zone, strategy="scan")

    def forget(self) -> None:
        """Make the next table anew, since this one may be broken."""
        self._held = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.ct.flush_all()
        self.ct.close()
        self.netns.close()
