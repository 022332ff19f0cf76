"""What is asked of the figures: the one place where the targets stand.

A case gives a figure its value by the key, `section.figure(KEY, ...)`. A target never decides
more than a word in the report.
"""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """What a figure should be. ``unit``: "" for a ratio."""

    says: str
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}{self.unit}"
        return f"at most {self.at_most:g}{self.unit}"

    def missed(self, value: float) -> bool:
        """Tell if a value misses it."""
        if self.at_least is not None:
            return value < self.at_least
        return self.at_most is not None and value > self.at_most


TARGETS = {
    "zone/kernel": Target("flush of a zone, to the kernel's own flush", 0.5),
    "zone/ovs": Target("flush of a zone, to Open vSwitch's", 0.5),
    "empty/kernel": Target("flush of an empty zone, to the kernel's own flush", 0.5),
    "empty/ovs": Target("flush of an empty zone, to Open vSwitch's", 0.5),
    "zone/floor": Target("flush of a zone, to receiving that zone in a bare loop", 1.1),
    "shares/better": Target(
        "flush of a zone of 0 to 100 % of the table, to the better of scan (which it is within "
        "20 ms) and kernel: the worst",
        1.3,
    ),
    "grid/better": Target("the same, whatever the flows and buckets: the worst", 1.3),
    "several/better": Target("flush of several zones, to the better of scan and kernel", 1.3),
    "old/ovs": Target("flush of a zone as on an old kernel, to Open vSwitch's loop", 0.80),
    "old/floor": Target("the same, to the bare receive loop", 1.08),
    "storm/kernel": Target("storm of 200 zones, to 200 kernel flushes one after another", 0.03),
    "storm/ovs": Target("storm of 200 zones, to 200 flushes by Open vSwitch", 0.03),
    "storm/ovs-old": Target("the same as on an old kernel, to Open vSwitch's loop", 0.01),
    "dump/table-floor": Target("table() with all columns, to the bare receive loop", 1.20),
    "dump/table-pyroute2": Target("pyroute2's dump, to table()", at_least=50),
    "dump/count-floor": Target('count_by("zone"), to the bare receive loop', 1.05),
    "dump/loop-floor": Target("a loop over dump(), to the bare receive loop", 3),
    "dump/loop-pyroute2": Target("pyroute2's dump, to a loop over dump()", at_least=20),
    "dump/arrow": Target("table() to a pyarrow table, beyond table(), to table()", 0.10),
    "text/conntrack": Target("conntrack -L to a file, to nlct dump to a file", at_least=1.5),
    "delete/floor": Target("delete of 10,000 addresses' flows, to the bare receive loop", 1.3),
    "create/floor": Target("load(), to a bare C loop that creates", 1.3),
    "memory/batches": Target("memory of batches(), over the import", 16, unit=" MiB"),
    "memory/stream": Target("memory that any other streaming pass adds: the most", 4, unit=" MiB"),
    "memory/table": Target("memory of table()'s columns, a flow", 160, unit=" bytes"),
    "startup/import": Target("import nlct, beyond bare Python", 30, unit=" ms"),
}
