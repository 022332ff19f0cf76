"""What a worker does, over and over, in random order."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, NamedTuple

import nlct
from nlct import Filter, FlushResult
from tests.soak import content
from tests.soak.content import CHURN, FLUSHED, KEPT, STRANGERS
from tests.soak.tally import Tally

# Seconds within which a mirror of a soak has audited everything.
AUDIT_INTERVAL = 4
# How long a worker rests after an operation, at most: others want to run, too.
REST = 0.02


@dataclass
class Place:
    """What the workers of one process share.

    ``kept``: the ids of the kept flows by zone. ``own``: zones that only this process touches;
    ``buffer``: of its mirror.
    """

    netns: nlct.Netns
    total: int
    kept: dict[int, list[int]]
    tally: Tally
    own: Iterable[int]
    buffer: int

    def __post_init__(self) -> None:
        self.ct = nlct.Conntrack(self.netns)
        self.flusher = nlct.Flusher(self.ct)
        self.mirror = nlct.Mirror(
            self.netns,
            index=("zone", "address"),
            buffer=self.buffer,
            audit_interval=AUDIT_INTERVAL,
        )
        # Each is out of here while somebody works in it; None stands for what nobody knows.
        self.idle: list[tuple[int, set[int | None] | None]] = [(zone, None) for zone in self.own]

    @cached_property
    def tables(self) -> dict[int, nlct.FlowTable]:
        """What fills each zone."""
        return {zone: content.zone_table(self.total, zone) for zone in CHURN}

    @cached_property
    def kept_ids(self) -> set[int]:
        """The ids of all kept flows."""
        return set(itertools.chain.from_iterable(self.kept.values()))

    def close(self) -> None:
        """Let go of everything."""
        self.tally.count("events", "overruns of mirrors", self.mirror.state.overruns)
        self.mirror.close()
        self.flusher.close()
        self.ct.close()


class Worker(threading.Thread):
    """Does operations until stopped: those of ``first``, then random ones, as the seed says."""

    def __init__(
        self, place: Place, seed: str, stop: threading.Event, first: Collection[str] = ()
    ) -> None:
        super().__init__(name=f"worker {seed}", daemon=True)
        self.place, self.ct, self.flusher = place, place.ct, place.flusher
        self.tally = place.tally
        self.dice = random.Random(seed)
        self.enough = stop
        self._first = first

    def run(self) -> None:
        """Work."""
        for operation in self._operations():
            if self.enough.is_set():
                return
            self.do(operation)
            self.enough.wait(self.dice.random() * REST)

    def _operations(self) -> Iterator[Operation]:
        yield from (each for each in OPERATIONS if each.name in self._first)
        weights = [each.weight for each in OPERATIONS]
        while True:
            yield from self.dice.choices(OPERATIONS, weights)

    def do(self, operation: Operation) -> None:
        """Do one, and account for whatever comes of it."""
        try:
            operation.call(self)
        except Exception as exc:
            self.tally.error(operation.name, exc)
        self.tally.count("operations", operation.name)

    # What operations use ---------------------------------------------------------------------

    def zone(self) -> int:
        """A zone that may be flushed."""
        zone: int = self.dice.choice(FLUSHED)
        return zone

    def zones(self, most: int) -> list[int]:
        """Some of them."""
        return self.dice.sample(FLUSHED, self.dice.randrange(1, most))

    def strategy(self, *zones: int) -> str:
        """A strategy that this kernel has been seen to be safe with."""
        found = nlct.probe()
        able = found.zone_flush and (found.zone0_flush or 0 not in zones)
        return self.dice.choice(("auto", "scan", "kernel") if able else ("auto", "scan"))

    def flushed(self, name: str, *results: FlushResult) -> None:
        """Account for flushes."""
        for result in results:
            self.tally.count("flows", "deleted", result.deleted or 0)
            self.tally.count("events", "passes", result.passes)
            for number, count in result.failed.items():
                self.tally.error(name, number, count)
            if not result.complete and not result.failed:
                self.tally.count("errors", f"{name}: incomplete")

    def mirrored(self, name: str, result: FlushResult) -> None:
        """Account for a flush by a mirror."""
        self.tally.count("events", f"by {result.strategy}")
        self.flushed(name, result)

    def loaded(self, name: str, result: nlct.LoadResult) -> None:
        """Account for a load."""
        self.tally.count("flows", "created", result.created)
        for number, count in result.failed.items():
            self.tally.error(name, number, count)

    def saw(self, ids: Iterable[int | None], zone: int | None = None) -> None:
        """Check that a dump that nothing disturbed has seen every kept flow."""
        wanted = self.place.kept_ids if zone is None else set(self.place.kept[zone])
        missing = wanted.difference(ids)
        assert not missing, f"{len(missing)} of {len(wanted)} kept flows were not seen"


# Creating ----------------------------------------------------------------------------------------


def create(worker: Worker) -> None:
    """One flow."""
    worker.ct.create(content.random_flow(worker.dice))
    worker.tally.count("flows", "created")


def load(worker: Worker) -> None:
    """Many, in many zones."""
    many = [content.random_flow(worker.dice) for _ in range(worker.dice.randrange(1, 300))]
    worker.loaded("load", worker.ct.load(many))


def refill(worker: Worker) -> None:
    """All that a few zones can hold."""
    for zone in worker.dice.sample(CHURN, 8):
        worker.loaded("refill", worker.ct.load(worker.place.tables[zone]))


def change(worker: Worker) -> None:
    """A flow from its creation to its end."""
    flow = content.random_flow(worker.dice)
    worker.ct.create(flow)
    worker.tally.count("flows", "created")
    found = worker.ct.get(flow.orig, zone=flow.zone)
    assert found.orig == flow.orig, f"asked for {flow!r}, got {found!r}"
    worker.ct.update(
        nlct.Flow(flow.orig, zone=flow.zone, mark=worker.dice.randrange(1 << 16, 1 << 17))
    )
    worker.ct.delete_flow(found)
    worker.tally.count("flows", "deleted")


# Flushing ----------------------------------------------------------------------------------------


def flush_zone(worker: Worker) -> None:
    """One zone, in any way."""
    zone, passes = worker.zone(), worker.dice.choice((1, 1, 3))
    result = worker.ct.flush_zone(zone, strategy=worker.strategy(zone), passes=passes)
    worker.flushed("flush zone", result)


def flush_zones(worker: Worker) -> None:
    """Several, in any way."""
    zones = worker.zones(10)
    worker.flushed("flush zones", worker.ct.flush_zones(zones, strategy=worker.strategy(*zones)))


def delete(worker: Worker) -> None:
    """By a filter."""
    worker.flushed("delete", worker.ct.delete(content.random_filter(worker.dice)))


def delete_flows(worker: Worker) -> None:
    """The flows that a dump saw, as they come and once more: the second time they are gone."""
    zones = worker.zones(5)
    found = list(worker.ct.dump(zone=zones))
    given: Iterable[nlct.Flow] = iter(found) if worker.dice.random() < 0.5 else found
    result = worker.ct.delete_flows(given)
    worker.flushed("delete flows", result)
    assert result.matched == len(found), f"{result.matched} of {len(found)} flows are accounted for"
    again = worker.ct.delete_flows(found)
    worker.flushed("delete flows", again)


def dry_run(worker: Worker) -> None:
    """It deletes nothing, not even of the kept."""
    result = worker.ct.delete(Filter(zone=KEPT), dry_run=True)
    assert result.deleted == 0, "a dry run has deleted"
    assert (result.matched or 0) >= len(worker.place.kept_ids), "a dry run has missed kept flows"


def storm(worker: Worker) -> None:
    """Many threads, each for a zone or a filter of its own."""
    zones = worker.zones(30)
    filters = [content.random_filter(worker.dice) for _ in range(worker.dice.randrange(5))]
    with ThreadPoolExecutor(len(zones) + len(filters)) as pool:
        futures = [pool.submit(worker.flusher.flush_zone, zone) for zone in zones]
        futures += [pool.submit(worker.flusher.delete, each) for each in filters]
    worker.flushed("storm", *(each.result() for each in futures))


def async_storm(worker: Worker) -> None:
    """The same with asyncio; some do not wait for the end."""
    zones = worker.zones(30)
    impatient = worker.dice.sample(range(len(zones)), len(zones) // 4)
    patience = worker.dice.random() * 0.02

    async def run() -> None:
        tasks = [asyncio.ensure_future(worker.flusher.aflush_zone(zone)) for zone in zones]
        await asyncio.sleep(patience)
        for number in impatient:
            tasks[number].cancel()
        for number, task in enumerate(tasks):
            try:
                worker.flushed("async storm", await task)
            except asyncio.CancelledError:
                assert number in impatient, "a task was cancelled that nobody has cancelled"
                worker.tally.count("events", "storm tasks cancelled")

    asyncio.run(run())


def close(worker: Worker) -> None:
    """A Flusher that is closed while some wait: they get an answer or an error that says so."""
    with ThreadPoolExecutor(4) as pool:
        flusher = nlct.Flusher(worker.place.netns)
        futures = [pool.submit(flusher.flush_zone, worker.zone()) for _ in range(4)]
        worker.enough.wait(worker.dice.random() * 0.02)
        flusher.close(wait=worker.dice.random() < 0.5)
    for future in futures:
        exc = future.exception()
        if exc is not None:
            worker.tally.error("close", exc)
        else:
            worker.flushed("close", future.result())


# By the mirror -----------------------------------------------------------------------------------


def mirror_flush(worker: Worker) -> None:
    """Zones, or by a filter."""
    mirror, verify = worker.place.mirror, worker.dice.random() < 0.2
    if worker.dice.random() < 0.3:
        result = mirror.delete(content.random_filter(worker.dice), verify=verify)
    else:
        result = mirror.flush_zones(worker.zones(10), verify=verify)
    worker.mirrored("mirror flush", result)


def mirror_own(worker: Worker) -> None:
    """In a zone that nobody else touches, exactly what was named goes."""
    if not worker.place.idle:
        return
    zone, known = worker.place.idle.pop()
    try:
        known = _in_own_zone(worker, worker.place.mirror, zone, known)
    except BaseException:
        # A dump that a resize has disturbed, say.
        known = None
        raise
    finally:
        worker.place.idle.append((zone, known))


def _in_own_zone(
    worker: Worker, mirror: nlct.Mirror, zone: int, known: set[int | None] | None
) -> set[int | None]:
    """Fill, delete, and look with another Conntrack; return the ids of what is there."""
    dice, ct = worker.dice, worker.ct
    found = {flow.id for flow in ct.dump(zone=zone)}
    assert known in (None, found), f"somebody was in zone {zone}: {known} became {found}"
    loaded = ct.load(content.own_flows(dice, zone))
    worker.loaded("mirror own", loaded)
    before = list(ct.dump(zone=zone))
    assert len(before) == len(found) + loaded.created, f"{len(before)} flows in zone {zone}"
    count = mirror.count(zone=zone)
    assert count >= len(before), f"the mirror counts {count} of {len(before)} in zone {zone}"
    verify = dice.random() < 0.2
    if dice.random() < 0.5:
        wanted, result = Filter(zone=zone), mirror.flush_zone(zone, verify=verify)
    else:
        wanted = content.own_filter(dice, zone)
        result = mirror.delete(wanted, verify=verify)
    worker.mirrored("mirror own", result)
    stay = {flow.id for flow in before if not wanted.matches(flow)}
    left = {flow.id for flow in ct.dump(zone=zone)}
    assert stay <= left, f"{len(stay - left)} are gone that were not named: {result}"
    # A scan of a table that is resized may leave some, and says so.
    if result.complete or result.strategy.startswith("mirror"):
        assert left == stay, f"{len(left - stay)} of {len(before)} are left: {result}"
    return left


def mirror_count(worker: Worker) -> None:
    """Never less than what was announced, which the kept flows were."""
    mirror, kept = worker.place.mirror, worker.place.kept
    zone = worker.dice.choice(KEPT)
    assert mirror.count(zone=zone) >= len(kept[zone])
    assert len(mirror) >= len(worker.place.kept_ids)
    counts = mirror.count_by("zone")
    assert all(counts.get(zone, 0) >= len(ids) for zone, ids in kept.items()), counts
    worker.saw((flow.id for flow in mirror.flows(zone=zone)), zone)
    result = mirror.delete(Filter(zone=zone), dry_run=True)
    assert result.deleted == 0, "a dry run has deleted"


def mirror_reopen(worker: Worker) -> None:
    """A mirror that lives for one flush, in step or not."""
    with nlct.Mirror(worker.place.netns) as mirror:
        if worker.dice.random() < 0.5:
            mirror.wait(worker.dice.random() * 0.5)
        worker.mirrored("mirror reopen", mirror.flush_zone(worker.zone()))


# Looking -----------------------------------------------------------------------------------------


def dump(worker: Worker) -> None:
    """To the end, or so far."""
    flows = worker.ct.dump(zone=KEPT)
    if worker.dice.random() < 0.5:
        worker.saw(flow.id for flow in flows)
    else:
        for _ in itertools.islice(worker.ct.dump(), worker.dice.randrange(2000)):
            pass


def dump_text(worker: Worker) -> None:
    """A line for each."""
    zone = worker.dice.choice(KEPT)
    lines = b"".join(worker.ct.dump_text(zone=zone)).count(b"\n")
    assert lines >= len(worker.place.kept[zone]), f"{lines} lines of zone {zone}"


def table(worker: Worker) -> None:
    """All columns of everything, or some of a zone."""
    if worker.dice.random() < 0.3:
        worker.saw(worker.ct.table().column("id"))
    else:
        zone = worker.dice.choice(KEPT)
        worker.saw(worker.ct.table(zone=zone, columns=["id"]).column("id"), zone)


def batches(worker: Worker) -> None:
    """Tables of any size."""
    rows = worker.dice.choice((1000, 65536))
    seen: set[int] = set()
    for batch in worker.ct.batches(columns=["id", "zone"], rows=rows):
        assert 0 < len(batch) <= rows, f"a batch of {len(batch)} rows"
        seen.update(batch.column("id"))
    worker.saw(seen)


def count_by(worker: Worker) -> None:
    """Flows of each zone."""
    counts = worker.ct.count_by("zone")
    for zone, kept in worker.place.kept.items():
        assert counts.get(zone, 0) >= len(kept), f"{counts.get(zone)} of {len(kept)} in zone {zone}"
    assert sum(worker.ct.count_by("proto", "state", zone=KEPT).values()) >= len(
        worker.place.kept_ids
    )


def count(worker: Worker) -> None:
    """Kept flows by zone, and all of them by the kernel's counter."""
    zone = worker.dice.choice(KEPT)
    assert worker.ct.count(zone=zone) >= len(worker.place.kept[zone])
    assert worker.ct.count() >= len(worker.place.kept_ids)
    assert worker.ct.limit > 0
    assert worker.ct.buckets


def reopen(worker: Worker) -> None:
    """A Conntrack and a Flusher that live for one flush."""
    netns = worker.place.netns
    kernel_filter = worker.dice.random() < 0.5
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct, nlct.Flusher(ct) as flusher:
        worker.flushed("reopen", ct.flush_zone(worker.dice.choice(STRANGERS)))
        worker.flushed("reopen", flusher.flush_zone(worker.zone()))


class Operation(NamedTuple):
    """Something to do, and how often beside the others."""

    name: str
    call: Callable[[Worker], None]
    weight: int = 10


OPERATIONS = (
    # What fills the table must outweigh what empties it, or it would never be at its limit.
    *(Operation("create", create, 40), Operation("change", change, 40)),
    *(Operation("load", load, 40), Operation("refill", refill, 80)),
    *(Operation("flush zone", flush_zone, 20), Operation("flush zones", flush_zones)),
    *(Operation("delete", delete), Operation("delete flows", delete_flows)),
    *(Operation("mirror flush", mirror_flush, 20), Operation("mirror own", mirror_own, 40)),
    *(Operation("mirror count", mirror_count), Operation("mirror reopen", mirror_reopen, 2)),
    Operation("dry run", dry_run, 4),
    *(Operation("storm", storm, 6), Operation("async storm", async_storm, 6)),
    *(Operation("close", close, 4), Operation("reopen", reopen)),
    *(Operation("dump", dump), Operation("dump text", dump_text), Operation("table", table)),
    *(Operation("batches", batches, 6), Operation("count by", count_by), Operation("count", count)),
)
