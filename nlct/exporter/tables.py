"""What the kernel counts of each table, and what a thread of our own counts now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nlct import _check, _log
from nlct._closing import Closing
from nlct.exporter.families import Families
from nlct.exporter.flows import Breakdown, Counts, count
from nlct.exporter.mirrors import add_mirror
from nlct.exporter.places import Place, Places
from nlct.stats import Stats

TOP = 50
INTERVAL = 15.0

_ENTRIES = "Flows, also those that are not in the table yet or no more."
_LIMIT = "Flows there may be, 0 for any number."
_COUNTED_AT = "When the flows_by metrics were counted."
_COUNTING = "How long it took to count the flows_by metrics."

# Counters of each processor, as FlowCounters and ExpectationCounters have them.
_FLOWS = {
    "found": "Look-ups beside those of packets that found a flow.",
    "invalid": "Packets that could not be tracked.",
    "insert": "Flows that a request made.",
    "insert_failed": "Flows not inserted since one with the same tuple was there.",
    "drop": "Packets dropped since no flow could be had.",
    "early_drop": "Flows dropped to make room in a full table.",
    "error": "Malformed packets.",
    "search_restart": "Look-ups that began again since the table was changed.",
    "clash_resolve": "Clashing flows whose packets could go on.",
    "chaintoolong": "Flows not inserted since their chain was too long.",
    "ignore": "Packets that needed no tracking (before Linux 5.10).",
    "searched": "Look-ups in the table (older kernels).",
    "new": "Flows that began (older kernels).",
    "delete": "Flows that ended (older kernels).",
    "delete_list": "Flows put on the list of the dying (older kernels).",
}
_EXPECTATIONS = {
    "new": "Flows that came as expected.",
    "create": "Expectations made.",
    "delete": "Expectations ended.",
}


class TableCollector(Collector, Closing):
    """The tables of one or more network namespaces: a collector for any registry.

    ``netns``: names as ``ip netns`` shows them, or paths such as "/proc/PID/ns/net"; a single
    string is one of them. Without any, the namespace of the calling thread, whose label ``netns``
    is empty. One that is not there has ``nlct_up`` 0 until it comes.
    ``all_netns``: the own namespace and each that has a name under /run/netns, as they come and go.
    ``by``: breakdowns of the flows, such as "zone" or "zone,mark", see Breakdown. A thread of the
    object's own counts them by a dump every ``interval`` seconds, 1 or more.
    ``top``: series of each breakdown and namespace, 1 to 1,000,000; the rest is "other".
    ``mirror``: keep a Mirror of each namespace, show its state, and count by zone out of it
    while it is in step.

    A scrape asks the kernel for its counters, which takes no dump; everything else was counted
    before. Make the object after a fork, and close() it in the end.

    Raises PrivilegeError if a namespace that is there may not be entered or read, and TypeError or
    ValueError for a bad argument.
    """

    def __init__(
        self,
        netns: str | Iterable[str] = (),
        *,
        all_netns: bool = False,
        by: Iterable[str] = (),
        top: int = TOP,
        interval: float = INTERVAL,
        mirror: bool = False,
    ) -> None:
        if isinstance(by, str):
            raise TypeError(f"by must be a list of breakdowns, not {by!r}")
        self._breakdowns = tuple(dict.fromkeys(Breakdown.read(text) for text in by))
        self._top = _check.integer("top", top, 1, 1_000_000)
        self._interval = _check.seconds("interval", interval, least=1)
        self._mirror = mirror
        self._stopped = threading.Event()
        self._places = Places((netns,) if isinstance(netns, str) else netns, all_netns)
        try:
            self._places.require_privilege()
        except BaseException:
            self._places.close()
            raise
        self._worker = threading.Thread(target=self._work, name="nlct-exporter", daemon=True)
        self._worker.start()

    @property
    def absent(self) -> tuple[str, ...]:
        """The namespaces that were named and are not there, or cannot be opened."""
        return tuple(name for name, place in self._places.look().items() if place is None)

    # Scraping --------------------------------------------------------------------------------

    def describe(self) -> list[Metric]:
        """Name nothing: register() would collect otherwise."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families. It takes no dump, and waits for none."""
        families = Families()
        buckets = None
        for name, place in self._places.look().items():
            found = None
            try:
                if place is not None:
                    found = place.ct.stats()
                    buckets = place.ct.buckets if buckets is None else buckets
            except (OSError, ValueError) as exc:
                # ValueError: it was closed meanwhile.
                _log.say(_log.DEBUG, "network namespace %r: %s", name, exc)
            families.add("up", "1 if the table could be read.", found is not None, netns=name)
            if place is not None and found is not None:
                _add_stats(families, found, name)
                self._add_counted(families, place)
        if buckets is not None:
            families.add("buckets", "Buckets of the hash table of all namespaces.", buckets)
        yield from families

    def _add_counted(self, families: Families, place: Place) -> None:
        name = place.name
        if self._mirror:
            add_mirror(families, place.mirror, name)
        for one, samples in place.samples.items():
            one.add(families, samples)
        if place.counted_at is not None:
            at, seconds = place.counted_at, place.counting_seconds
            families.add("flows_counted_timestamp_seconds", _COUNTED_AT, at, netns=name)
            families.add("flows_counting_seconds", _COUNTING, seconds, netns=name)

    # Counting --------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopped.is_set():
            for place in self._places.look().values():
                if place is not None and not self._stopped.is_set():
                    self._count(place)
            self._places.release()
            self._stopped.wait(min(self._interval, threading.TIMEOUT_MAX))

    def _count(self, place: Place) -> None:
        failures = []
        # Whatever fails, the rest goes on: dumps where no mirror can be, the other namespaces.
        for work in (self._keep_mirror, self._keep_samples):
            try:
                work(place)
            except Exception as exc:
                failures.append(str(exc))
        failure = "; ".join(failures)
        # If the namespace is gone, that is no news.
        if failure and not place.closed and failure != place.failure:
            _log.say(_log.WARNING, "namespace %r is not counted in full: %s", place.name, failure)
        place.failure = failure

    def _keep_mirror(self, place: Place) -> None:
        if self._mirror:
            place.keep_mirror()

    def _keep_samples(self, place: Place) -> None:
        if self._breakdowns:
            began = time.monotonic()
            counts = self._counted(place)
            # Made here once, not in each scrape.
            place.samples = {
                one: one.samples(found, self._top, place.name) for one, found in counts.items()
            }
            place.counting_seconds = time.monotonic() - began
            place.counted_at = time.time()

    def _counted(self, place: Place) -> dict[Breakdown, Counts]:
        zones = Breakdown(("zone",))
        known: dict[Breakdown, Counts] = {}
        left = list(self._breakdowns)
        if zones in left and place.mirror is not None and place.mirror.state.in_step:
            left.remove(zones)
            known[zones] = {(zone,): flows for zone, flows in place.mirror.count_by("zone").items()}
        return {**known, **count(place.ct, left)}

    def close(self) -> None:
        """Let go of all namespaces. May be called again."""
        self._stopped.set()
        self._places.close()
        self._worker.join()


def _add_stats(families: Families, found: Stats, netns: str) -> None:
    families.add("entries", _ENTRIES, found.entries, netns=netns)
    families.add("entries_limit", _LIMIT, found.limit, netns=netns)
    for prefix, helps, cpus in (
        ("stat", _FLOWS, found.cpus),
        ("stat_expect", _EXPECTATIONS, found.expectation_cpus),
    ):
        for cpu, counters in cpus.items():
            for field, said in helps.items():
                value = getattr(counters, field)
                # None: this kernel does not send it.
                if value is not None:
                    name = f"{prefix}_{field}_total"
                    families.add(name, said, value, netns=netns, cpu=str(cpu))
