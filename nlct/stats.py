"""The kernel's counters, of each processor and together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nlct._handle import Handle


class FlowCounters(NamedTuple):
    """What happened to packets and flows of a namespace since it was made (``conntrack -S``).

    Each is a 32-bit counter of the kernel's, which begins again after 2**32 - 1. None: this kernel
    does not send it. The attributes are ``CTA_STATS_...`` with the names in capitals.

    ``found``: look-ups, beside those of packets, that found a flow, such as a clash with a free
    port wanted for NAT. ``invalid``: packets that could not be tracked. ``insert``: flows that a
    request made. ``insert_failed``: flows that were not inserted since one with the same tuple was
    there. ``drop``: packets dropped since no flow could be had: the table was full, memory ran out,
    or two packets made one flow at the same moment. ``early_drop``: flows dropped to make room in a
    full table. ``error``: malformed packets of ICMP and others. ``search_restart``: look-ups that
    began again since the table was resized or changed. ``clash_resolve`` (since Linux 5.10): of
    clashing flows, those whose packets could go on. ``chaintoolong`` (CTA_STATS_CHAIN_TOOLONG,
    since 5.15): flows not inserted since their chain in the hash table was too long.
    ``ignore`` (before 5.10), ``searched``, ``new``, ``delete``, ``delete_list``: of older kernels.
    ``unknown``: what a newer kernel adds, by the number of its attribute.
    """

    found: int | None = None
    invalid: int | None = None
    insert: int | None = None
    insert_failed: int | None = None
    drop: int | None = None
    early_drop: int | None = None
    error: int | None = None
    search_restart: int | None = None
    clash_resolve: int | None = None
    chaintoolong: int | None = None
    ignore: int | None = None
    searched: int | None = None
    new: int | None = None
    delete: int | None = None
    delete_list: int | None = None
    unknown: Mapping[int, int] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return what the kernel sent, for JSON."""
        return _to_dict(self._asdict())


class ExpectationCounters(NamedTuple):
    """What happened to expectations since the namespace was made (``conntrack -S expect``).

    The attributes are ``CTA_STATS_EXP_...``. ``new``: flows that came as expected. ``create``:
    expectations that were made. ``delete``: those that have ended. ``unknown``: see FlowCounters.
    """

    new: int | None = None
    create: int | None = None
    delete: int | None = None
    unknown: Mapping[int, int] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return what the kernel sent, for JSON."""
        return _to_dict(self._asdict())


class Stats(NamedTuple):
    """What the kernel counts in a namespace.

    ``entries``: flows, also those that are not in the table yet or no more (``conntrack -C``).
    ``limit``: how many there may be, 0 for any number (``nf_conntrack_max``).
    ``flows``, ``expectations``: the counters of all processors together. ``cpus``,
    ``expectation_cpus``: those of each, by its number. The kernel reads one processor after the
    other while they count, so that a sum is of no one moment.
    """

    entries: int
    limit: int
    flows: FlowCounters
    expectations: ExpectationCounters
    cpus: Mapping[int, FlowCounters]
    expectation_cpus: Mapping[int, ExpectationCounters]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, without what this kernel does not send."""
        return {
            "entries": self.entries,
            "limit": self.limit,
            "flows": self.flows.to_dict(),
            "expectations": self.expectations.to_dict(),
            "cpus": {
                str(cpu): {
                    "flows": counters.to_dict(),
                    "expectations": self.expectation_cpus.get(cpu, ExpectationCounters()).to_dict(),
                }
                for cpu, counters in self.cpus.items()
            },
        }


# enum ctattr_stats_cpu and ctattr_expect_stats.
_FLOWS = {
    1: "searched",
    2: "found",
    3: "new",
    4: "invalid",
    5: "ignore",
    6: "delete",
    7: "delete_list",
    8: "insert",
    9: "insert_failed",
    10: "drop",
    11: "early_drop",
    12: "error",
    13: "search_restart",
    14: "clash_resolve",
    15: "chaintoolong",
}
_EXPECTATIONS = {1: "new", 2: "create", 3: "delete"}

_Counters = Iterable[tuple[int, int, int]]


def _to_dict(values: dict[str, Any]) -> dict[str, Any]:
    unknown = {str(number): value for number, value in values.pop("unknown").items()}
    found = {name: value for name, value in values.items() if value is not None}
    return {**found, "unknown": unknown} if unknown else found


def _named(names: Mapping[int, str], values: Mapping[int, int]) -> dict[str, Any]:
    """Return arguments for the classes above."""
    named: dict[str, Any] = {names[each]: values[each] for each in names if each in values}
    named["unknown"] = {each: values[each] for each in values if each not in names}
    return named


def _by_cpu(counters: _Counters) -> tuple[dict[int, int], dict[int, dict[int, int]]]:
    """Return the sums by attribute, and the values of each processor."""
    sums: dict[int, int] = {}
    cpus: dict[int, dict[int, int]] = {}
    for cpu, attribute, value in counters:
        cpus.setdefault(cpu, {})[attribute] = value
        sums[attribute] = sums.get(attribute, 0) + value
    return sums, cpus


def read(handle: Handle) -> Stats:
    """Ask the kernel for all of its counters, see Conntrack.stats()."""
    entries, limit = handle.stats()
    flows, cpus = _by_cpu(handle.stats_cpu(False))
    expectations, expectation_cpus = _by_cpu(handle.stats_cpu(True))
    return Stats(
        entries,
        limit,
        FlowCounters(**_named(_FLOWS, flows)),
        ExpectationCounters(**_named(_EXPECTATIONS, expectations)),
        {cpu: FlowCounters(**_named(_FLOWS, values)) for cpu, values in cpus.items()},
        {
            cpu: ExpectationCounters(**_named(_EXPECTATIONS, values))
            for cpu, values in expectation_cpus.items()
        },
    )
