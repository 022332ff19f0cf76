"""What mirrors know of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nlct.exporter.families import Families
from nlct.mirror import Mirror

# Of a MirrorState: the metric and what it says, by field.
_STATE = {
    "since": ("since_timestamp_seconds", "When the mirror last came into or fell out of step."),
    "events": ("events_total", "Events received."),
    "overruns": ("overruns_total", "Times that the kernel dropped events."),
    "lost": ("lost_events_total", "Events that the kernel dropped, as far as it says."),
    "dumps": ("dumps_total", "Complete dumps after which the mirror was in step."),
    "audits": ("audits_total", "Complete rounds of the audit."),
    "hidden": ("hidden_flows_total", "Flows found by an audit that were never announced."),
    "ghosts": ("ghost_flows_total", "Flows forgotten since a dump no longer showed them."),
    "exact": ("exact", "1 if the latest audit found nothing amiss."),
    "flows": ("flows", "Flows that the mirror knows."),
    "memory": ("memory_bytes", "Memory for these flows."),
    "buffer": ("buffer_bytes", "Bytes of events that the kernel may queue."),
}


def add_mirror(families: Families, mirror: Mirror | None, netns: str) -> None:
    """Add what a mirror says; None is one that could not be made, and so is not in step."""
    try:
        state = None if mirror is None else mirror.state
    except ValueError:
        # It was closed meanwhile.
        return
    in_step = state is not None and state.in_step
    said = "1 if the mirror has every flow that the kernel has announced."
    families.add("mirror_in_step", said, in_step, netns=netns)
    if state is None:
        return
    for field, (name, said) in _STATE.items():
        families.add(f"mirror_{name}", said, getattr(state, field), netns=netns)


class MirrorCollector(Collector):
    """The state of your own mirrors: a collector for any registry.

    ``mirrors``: each by the value of its label ``netns``; "" is the namespace that you are in. A
    mirror that is closed has no series any more.
    """

    def __init__(self, mirrors: Mapping[str, Mirror]) -> None:
        self._mirrors = dict(mirrors)

    def describe(self) -> list[Metric]:
        """Name nothing: register() would collect otherwise."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        families = Families()
        for netns, mirror in self._mirrors.items():
            add_mirror(families, mirror, netns)
        yield from families
