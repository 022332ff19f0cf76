"""What the flushes and deletes of this process did."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nlct._closing import Closing
from nlct.observers import Flushed, observe

OPERATIONS = ("flush", "delete", "delete_flows")
# From an empty zone of a mirror to a large table.
SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class FlushCollector(Collector, Closing):
    """Counts the flushes and deletes of this process, from now on: a collector for any registry.

    ``buckets``: upper bounds of the histogram of seconds. See nlct.observe() for what is counted.
    Every object counts by itself; close() ends it.
    """

    def __init__(self, buckets: Sequence[float] = SECONDS) -> None:
        kind = ["operation", "strategy"]
        self._flushes = _counter("flushes", "Flushes and deletes.", [*kind, "outcome"])
        self._deleted = _counter(
            "flush_deleted_flows", "Flows deleted, but by the kernel's own flushes.", kind
        )
        self._gone = _counter(
            "flush_already_gone_flows", "Flows that vanished before they were deleted.", kind
        )
        self._failed = _counter(
            "flush_failed_flows", "Flows that could not be deleted.", [*kind, "errno"]
        )
        self._errors = _counter(
            "flush_errors", "Flushes and deletes that raised an error.", ["operation", "errno"]
        )
        self._seconds = Histogram(
            "nlct_flush_duration_seconds",
            "How long callers waited for a flush or delete.",
            ["operation"],
            registry=None,
            buckets=buckets,
        )
        # A series that begins with its first error has no increase to alert on.
        for operation in OPERATIONS:
            self._flushes.labels(operation, "none", "error")
        self._observation = observe(self._count)

    def _count(self, flushed: Flushed) -> None:
        self._seconds.labels(flushed.operation).observe(flushed.seconds)
        result = flushed.result
        if result is None:
            self._flushes.labels(flushed.operation, "none", "error").inc()
            self._errors.labels(flushed.operation, _name(flushed.errno)).inc()
            return
        kind = flushed.operation, result.strategy
        outcome = "complete" if result.complete else "incomplete"
        self._flushes.labels(*kind, outcome).inc()
        # The kernel does not say how many its own flush has deleted.
        if result.deleted is not None:
            self._deleted.labels(*kind).inc(result.deleted)
        self._gone.labels(*kind).inc(result.already_gone)
        for number, count in result.failed.items():
            self._failed.labels(*kind, _name(number)).inc(count)

    def describe(self) -> list[Metric]:
        """Name nothing: register() would collect otherwise."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        for metric in (self._flushes, self._deleted, self._gone, self._failed, self._errors):
            yield from metric.collect()
        yield from self._seconds.collect()

    def close(self) -> None:
        """Count no more. May be called again."""
        self._observation.close()


def _counter(name: str, help: str, labels: list[str]) -> Counter:
    return Counter(f"nlct_{name}", help, labels, registry=None)


def _name(number: int | None) -> str:
    return errno.errorcode.get(number or 0, str(number))
