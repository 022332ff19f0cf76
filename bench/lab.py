"""A scratch namespace, and the tables that are made in it again and again."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterable, Sequence

import nlct
from nlct import fill
from nlct.capabilities import require_empty


class TableError(Exception):
    """The table does not hold what it should, so what is measured would not be true."""


class NoRoomError(TableError):
    """The kernel does not take all flows."""


class Content:
    """UDP flows in zones."""

    def __init__(self, flows: int) -> None:
        self.flows = flows

    def tables(self) -> Iterable[nlct.FlowTable]:
        """Return all of them."""
        raise NotImplementedError

    def zone(self, zone: int) -> Sequence[nlct.FlowTable]:
        """Return those of one zone."""
        raise NotImplementedError


class Even(Content):
    """In zones 1 to ``zones`` in turn."""

    def __init__(self, flows: int, zones: int) -> None:
        super().__init__(flows)
        self._zones = zones
        self._made: dict[int, list[nlct.FlowTable]] = {}

    def tables(self) -> Iterable[nlct.FlowTable]:  # noqa: D102
        return fill.tables(self.flows, self._zones)

    def zone(self, zone: int) -> Sequence[nlct.FlowTable]:  # noqa: D102
        if zone > self._zones:
            return []
        if zone not in self._made:
            self._made[zone] = list(fill.tables(self.flows, self._zones, zone=zone))
        return self._made[zone]


class Shares(Content):
    """A zone for each share of 100, from zone 1 on; what they leave is in one more zone."""

    def __init__(self, flows: int, shares: Sequence[float]) -> None:
        super().__init__(flows)
        self._zones: list[nlct.FlowTable] = []
        whole = next(fill.tables(flows, 1, rows=flows))
        begin = 0
        for share in (*shares, 100 - sum(shares)):
            end = min(begin + round(flows * share / 100), flows)
            self._zones.append(_in_zone(whole[begin:end], len(self._zones) + 1))
            begin = end
        self.flows = begin

    def tables(self) -> Iterable[nlct.FlowTable]:  # noqa: D102
        return self._zones

    def zone(self, zone: int) -> Sequence[nlct.FlowTable]:  # noqa: D102
        return self._zones[zone - 1 : zone]


def _in_zone(table: nlct.FlowTable, zone: int) -> nlct.FlowTable:
    columns = {name: table.column(name) for name in table.names}
    return nlct.FlowTable({**columns, "zone": array("H", (zone,)) * len(table)})


class Lab:
    """A namespace of our own. ``inside``: what leads a command into it."""

    def __init__(self) -> None:
        self.netns = nlct.Netns.scratch()
        self.ct = nlct.Conntrack(self.netns)
        require_empty(self.ct.count())
        self.inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.netns.fileno()}"]
        self._content: Content = Even(0, 1)

    def hold(self, content: Content) -> None:
        """Have this in the table and nothing else. Raises NoRoomError if it does not fit."""
        self._content = content
        self.ct.flush_all()
        self.fill_up()

    def even(self, flows: int, zones: int) -> None:
        """The same with so many flows in so many zones in turn."""
        self.hold(Even(flows, zones))

    def fill_up(self) -> None:
        """Bring back whatever was flushed."""
        failed: dict[int, int] = {}
        for table in self._content.tables():
            failed.update(self.ct.load(table).failed)
            if failed.keys() - {errno.EEXIST}:
                break
        there = self.ct.count()
        if there != self._content.flows:
            reasons = ", ".join(map(os.strerror, failed)) or "others are there"
            raise NoRoomError(
                f"the kernel holds {there:,} flows in place of {self._content.flows:,}: {reasons}"
            )

    def put_back(self, *zones: int) -> None:
        """Bring back zones that were flushed. Raises TableError if more or less than they were."""
        for zone in zones:
            for table in self._content.zone(zone):
                left = len(table) - self.ct.load(table).created
                if left:
                    raise TableError(f"{left:,} of {len(table):,} flows of zone {zone} were left")
        gone = self._content.flows - self.ct.count()
        if gone > 0:
            raise TableError(f"{gone:,} flows of other zones are gone")

    def close(self) -> None:
        """Leave nothing behind."""
        self.ct.flush_all()
        self.ct.close()
        self.netns.close()
