"""Every public call, over and over: memory and descriptors stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import enum
import gc
import inspect
import io
import itertools
import json
import mmap
import os
import pickle
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable

import pytest

import nlct
from nlct import capabilities, strategy
from nlct._ffi import ffi, lib
from tests.support import namespaces
from tests.support.examples import telling
from tests.support.memory import TELLS, allocated, resident

FLOWS = 40
ZONES = 4
# So many, since what libraries keep for later grows through several rounds, too.
ROUNDS = 10
WARM_UP = 10
# Calls that dump the table have shorter rounds: the hash table is all namespaces'.
DUMPS = 15


# Watching -----------------------------------------------------------------------------------------

# How to measure, and the least that a leak takes with each call.
MEMORY: dict[str, tuple[Callable[[], int], int]] = {
    "blocks of Python": (sys.getallocatedblocks, 1),
    "bytes of malloc": (allocated, 16),
    "resident KiB": (resident, 4),
}


def descriptors() -> list[str]:
    """Return what the open descriptors of this process lead to."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
    return sorted(found)


def repeat(call: Callable[[], object], times: int) -> None:
    """Call it, and let go of what it leaves in cycles."""
    for _ in itertools.repeat(None, times):
        call()
    gc.collect()


def find_leak(call: Callable[[], object], times: int) -> str | None:
    """Say what a call leaks, if anything. What leaks takes more in every single round."""
    repeat(call, WARM_UP)
    open_before = descriptors()
    suspects = set(MEMORY)
    for _ in range(ROUNDS):
        before = {name: measure() for name, (measure, _) in MEMORY.items()}
        repeat(call, times)
        grown = {name: measure() - before[name] for name, (measure, _) in MEMORY.items()}
        if descriptors() != open_before:
            return f"descriptors: {open_before} became {descriptors()}"
        suspects &= {name for name, (_, least) in MEMORY.items() if grown[name] > least * times / 2}
        if not suspects:
            return None
    return f"memory: {grown} in {times} calls"


# Calling ------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What the calls work on."""

    netns: nlct.Netns
    ct: nlct.Conntrack
    closed: nlct.Conntrack
    flows: list[nlct.Flow]
    table: nlct.FlowTable
    mirror: nlct.Mirror | None = None


Call = Callable[[Bench], object]
CASES: dict[str, tuple[Call, int]] = {}
COVERED: set[str] = set()


def covers(*names: str, times: int = 200) -> Callable[[Call], Call]:
    """Make a leak test of a function, for these public names."""

    def add(call: Call) -> Call:
        CASES[call.__name__] = call, times
        COVERED.update(names)
        return call

    return add


def flow(number: int, **fields: int) -> nlct.Flow:
    """Return a flow that no other number has."""
    orig = nlct.Tuple(src=f"10.0.0.{number}", dst="192.0.2.1", proto="udp", sport=1, dport=53)
    return nlct.Flow(orig, zone=number % ZONES, timeout=600).replace(**fields)


@covers("Conntrack", "Conntrack.close", times=60)
def open_and_close(bench: Bench) -> None:
    """Every way to let go of a Conntrack."""
    with nlct.Conntrack(bench.netns) as ct:
        ct.count()
    ct.close()
    dropped = nlct.Conntrack(bench.netns.fileno())
    dropped.count()
    del dropped
    nlct.Conntrack(f"/proc/self/fd/{bench.netns.fileno()}").close()
    nlct.Conntrack().close()


@covers("Conntrack", times=60)
def open_in_vain(bench: Bench) -> None:  # noqa: ARG001
    """Namespaces that do not exist."""
    for netns, kind in (
        ("no-such-netns", nlct.NotFoundError),
        ("/dev/null", ValueError),
        (True, TypeError),
        (-1, ValueError),
        (2**31 - 1, nlct.NotFoundError),
    ):
        with pytest.raises(kind):
            nlct.Conntrack(netns)


@covers("Conntrack")
def use_when_closed(bench: Bench) -> None:
    """Calls on a closed Conntrack."""
    for call in (
        bench.closed.count,
        bench.closed.flush_all,
        lambda: bench.closed.create(bench.flows[0]),
        lambda: list(bench.closed.dump()),
        lambda: bench.closed.flush_zone(1),
        lambda: bench.closed.limit,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


@covers("Conntrack.count", times=DUMPS)
def count(bench: Bench) -> None:
    """The kernel's counter, and a dump."""
    assert bench.ct.count() == FLOWS
    assert bench.ct.count(zone=1) == FLOWS // ZONES
    assert bench.ct.count(nlct.Filter(family="ipv6")) == 0
    with pytest.raises(TypeError):
        bench.ct.count(nlct.Filter(), zone=1)


@covers("Conntrack.count_by", times=DUMPS)
def count_by(bench: Bench) -> None:
    """The histogram."""
    assert len(bench.ct.count_by("zone")) == ZONES
    assert len(bench.ct.count_by("src", "mark")) == FLOWS
    with pytest.raises(ValueError, match="zone"):
        bench.ct.count_by("weather")


@covers("Conntrack.sum_by", times=DUMPS)
def sum_by(bench: Bench) -> None:
    """By networks, ports and zones."""
    found = bench.ct.sum_by("src/24", "dport", "zone", of=("bytes_orig", "packets_reply"))
    assert len(found) >= ZONES
    with pytest.raises(ValueError, match="bytes_orig"):
        bench.ct.sum_by("zone", of="weather")


@covers("Conntrack.table", "Conntrack.batches", times=DUMPS)
def columns(bench: Bench) -> None:
    """The table at once, in batches, and left half-way."""
    assert len(bench.ct.table(columns=["src", "labels"])) == FLOWS
    assert sum(map(len, bench.ct.batches(rows=7))) == FLOWS
    next(bench.ct.batches(rows=7))
    with pytest.raises(ValueError, match="column"):
        bench.ct.table(columns=["weather"])


@covers("Conntrack.dump_text", "Conntrack.dump_json", times=DUMPS)
def dump_text(bench: Bench) -> None:
    """All lines, of every kind, and none."""
    for dump in (bench.ct.dump_text, bench.ct.dump_json):
        assert b"".join(dump()).count(b"\n") == FLOWS
        assert b"".join(dump(columns=["src", "proto"])).count(b"\n") == FLOWS
        dump(zone=1)
        with pytest.raises(ValueError, match="column"):
            dump(columns=["weather"])


@covers("Conntrack.dump_save", "read_flows", "Flow.from_dict", times=DUMPS)
def save_and_read(bench: Bench) -> None:
    """Saved and read, as lines and as objects; what cannot be read."""
    lines = b"".join(bench.ct.dump_save())
    assert len(nlct.read_flows(io.BytesIO(lines))) == FLOWS
    objects = "".join(json.dumps(flow.to_dict()) + "\n" for flow in bench.table)
    assert len(nlct.read_flows(io.BytesIO(objects.encode()))) == FLOWS
    for wrong in (lines + b"-A -t x\n", lines[:-1], b"{}\n"):
        with pytest.raises(ValueError, match="line"):
            nlct.read_flows(io.BytesIO(wrong))


@covers("Conntrack.update", "Conntrack.delete_flow", "Conntrack.delete", "ALL", times=DUMPS)
def change_and_delete(bench: Bench) -> None:
    """A flow changed and deleted, by itself and by a filter, and what is refused."""
    other = flow(202, zone=202)
    bench.ct.create(other)
    bench.ct.update(nlct.Flow(other.orig, zone=202, mark=5))
    assert bench.ct.delete(nlct.Filter(mark=5) & nlct.Filter(zone=202)).deleted == 1
    bench.ct.create(other)
    bench.ct.delete_flow(other)
    for call in (bench.ct.update, bench.ct.delete_flow):
        with pytest.raises(nlct.NotFoundError):
            call(other)
    with pytest.raises(ValueError, match="ALL"):
        bench.ct.delete(nlct.Filter())
    assert bench.ct.delete(nlct.ALL, dry_run=True).matched == FLOWS


@covers("Conntrack.delete_flows", times=DUMPS)
def delete_flows(bench: Bench) -> None:
    """Flows that are there, that are gone, that name no entry, and an iterator that raises."""
    new = [flow(number, zone=200) for number in range(200, 204)]
    bench.ct.load(new)
    found = list(bench.ct.dump(zone=200))
    assert bench.ct.delete_flows(iter(found)).deleted == len(new)
    assert bench.ct.delete_flows(found).already_gone == len(new)
    with pytest.raises(ValueError, match="id"):
        bench.ct.delete_flows([*found, new[0]])
    with pytest.raises(TypeError):
        bench.ct.delete_flows([None])  # type: ignore[list-item]
    with pytest.raises(ZeroDivisionError):
        bench.ct.delete_flows(one for one in found if 1 // 0)


@covers("Conntrack.update_all", "UpdateResult", "UpdateResult.to_dict", times=DUMPS)
def update_all(bench: Bench) -> None:
    """Flows that change, that are so already, that are refused, and what makes no sense."""
    assert bench.ct.update_all(nlct.Filter(zone=1), mark=(1, 1)).to_dict()["matched"]
    assert not bench.ct.update_all(nlct.Filter(zone=1), mark=(0, 1), progress=int).failed
    assert bench.ct.update_all(nlct.ALL, labels=1).failed
    assert bench.ct.update_all(nlct.ALL, mark=1, dry_run=True).matched == FLOWS
    with pytest.raises(ValueError, match="mask"):
        bench.ct.update_all(nlct.ALL, mark=(1, 2))
    with pytest.raises(ZeroDivisionError):
        bench.ct.update_all(nlct.ALL, mark=0, progress=lambda done: done // 0)


@covers("Conntrack.dump", times=DUMPS)
def dump(bench: Bench) -> None:
    """A whole dump, and one of a zone."""
    assert len(list(bench.ct.dump())) == FLOWS
    assert len(list(bench.ct.dump(zone={1, 2}))) == 2 * FLOWS // ZONES


@covers("Conntrack.dump", times=DUMPS)
def dump_left_half_way(bench: Bench) -> None:
    """A dump that is closed, one that is dropped, one that never begins."""
    flows = bench.ct.dump()
    next(flows)
    flows.close()
    next(bench.ct.dump(zone=1))
    bench.ct.dump()


@covers("Conntrack.dump", times=DUMPS)
def dump_ended_by_an_error(bench: Bench) -> None:
    """An exception in the body of a loop."""
    with pytest.raises(ZeroDivisionError):
        sum(1 // 0 for _ in bench.ct.dump())


@covers("Conntrack.get")
def get(bench: Bench) -> None:
    """A flow that is there, and one that is not."""
    assert bench.ct.get(bench.flows[1].orig, zone=1).id is not None
    with pytest.raises(nlct.NotFoundError):
        bench.ct.get(bench.flows[1].orig, zone=99)
    with pytest.raises(nlct.InvalidRequestError):
        bench.ct.get(nlct.Tuple(src="10.0.0.1"))


@covers("Conntrack.limit", "Conntrack.buckets")
def limits(bench: Bench) -> None:
    """The numbers of the table; the limit is not this namespace's to set."""
    assert bench.ct.limit > 0
    with pytest.raises(nlct.Error, match="nf_conntrack_max"):
        bench.ct.limit = bench.ct.limit
    assert bench.ct.buckets is None or bench.ct.buckets > 0


@covers(
    *("Conntrack.stats", "Stats", "Stats.to_dict"),
    *("FlowCounters", "FlowCounters.to_dict"),
    *("ExpectationCounters", "ExpectationCounters.to_dict"),
)
def statistics(bench: Bench) -> None:
    """What the kernel counts."""
    found = bench.ct.stats()
    assert found.entries == FLOWS
    assert found.to_dict()["flows"] == found.flows.to_dict()


@covers("Conntrack.dying", "Conntrack.unconfirmed")
def other_lists(bench: Bench) -> None:
    """The lists beside the table."""
    assert not list(bench.ct.dying())
    assert not list(bench.ct.unconfirmed(zone=1))


@covers(
    *("Conntrack.zero_counters", "Zeroing", "Zeroing.run", "Zeroing.take", "Zeroing.close"),
    *(f"Zeroing.{name}" for name in ("scanned", "zeroed", "already_gone", "replaced", "failed")),
    *("Zeroing.lost", "Zeroing.disturbed", "Zeroing.complete"),
    times=DUMPS,
)
def zeroing(bench: Bench) -> None:
    """Counters zeroed at once, in batches, and left half-way."""
    zeroed = bench.ct.zero_counters(nlct.Filter(zone=1))
    assert len(zeroed.run()) == zeroed.zeroed == FLOWS // ZONES
    assert (zeroed.already_gone, zeroed.replaced, zeroed.failed, zeroed.lost) == (0, 0, {}, 0)
    assert zeroed.scanned
    assert zeroed.complete is not zeroed.disturbed
    assert sum(map(len, bench.ct.zero_counters(nlct.ALL, rows=7))) == FLOWS
    with bench.ct.zero_counters(nlct.ALL, rows=7) as half:
        next(half)
    with pytest.raises(ValueError, match="ALL"):
        bench.ct.zero_counters(nlct.Filter())


@covers("Conntrack.missing", "Filter.fields", times=DUMPS)
def missing(bench: Bench) -> None:
    """What flows lack here."""
    assert "labels" in bench.ct.missing({"labels", *nlct.Filter(bytes_orig=1).fields})
    with pytest.raises(ValueError, match="column"):
        bench.ct.missing(["weather"])


@covers("Conntrack.create", times=DUMPS)
def create(bench: Bench) -> None:
    """A new flow, one that is there, and one that the kernel refuses."""
    with pytest.raises(nlct.ExistsError):
        bench.ct.create(bench.flows[0])
    with pytest.raises(nlct.InvalidRequestError):
        bench.ct.create(nlct.Flow(nlct.Tuple(src="10.0.0.1")))
    bench.ct.create(flow(200, zone=200))
    bench.ct.flush_zone(200, strategy="scan")


@covers("Conntrack.load", "LoadResult", times=60)
def load(bench: Bench) -> None:
    """Flows that are refused, from a table and from an iterable."""
    assert bench.ct.load(bench.table, progress=int).failed
    assert bench.ct.load(iter(bench.flows[:2])).created == 0
    with pytest.raises(ZeroDivisionError):
        bench.ct.load(bench.table, progress=lambda done: done // 0)


@covers("Conntrack.flush_zone", "Conntrack.flush_zones", "FlushResult", times=DUMPS)
def flush_by_scan(bench: Bench) -> None:
    """A zone with flows, several, none, and a dry run."""
    bench.ct.load([flow(200, zone=200), flow(201, zone=201)])
    assert bench.ct.flush_zone(200, strategy="scan", progress=int).deleted == 1
    assert bench.ct.flush_zones({200, 201}, strategy="auto", passes=2).complete
    assert bench.ct.flush_zones([]).scanned == 0
    assert bench.ct.flush_zone(1, dry_run=True).matched == FLOWS // ZONES


@covers("Conntrack.flush_zone", times=DUMPS)
def flush_ended_by_an_error(bench: Bench) -> None:
    """Bad arguments, and an exception in the middle of a dump."""
    for arguments in ({"zone": -1}, {"zone": 1, "strategy": "x"}, {"zone": 1, "passes": 0}):
        with pytest.raises(ValueError, match="must be"):
            bench.ct.flush_zone(**arguments)
    with pytest.raises(ZeroDivisionError):
        bench.ct.flush_zone(200, strategy="scan", progress=lambda done: done // 0)


@covers("Conntrack.flush_zone", times=DUMPS)
def flush_by_kernel(bench: Bench) -> None:
    """The kernel's own flush, or its refusal."""
    with contextlib.suppress(nlct.UnsupportedError):
        bench.ct.flush_zone(200, strategy="kernel")


@covers("Conntrack.flush_all", times=DUMPS)
def flush_all(bench: Bench) -> None:
    """Everything, in each way."""
    with nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
        for strategy in ("scan", "kernel", "auto"):
            ct.create(bench.flows[0])
            ct.flush_all(strategy=strategy)
        assert ct.flush_all(dry_run=True).matched == 0


@covers(
    *("Conntrack.events", "Events", "Events.close", "Events.get", "Events.fileno"),
    *("Events.mode", "Events.buffer", "Events.received"),
    *("Event", "Event.to_dict", "Overrun", "Overrun.to_dict", "EventKind"),
    times=60,
)
def events(bench: Bench) -> None:
    """Streams that are read, closed, dropped half-way, and refused; and an overrun."""
    other = flow(203, zone=203)
    with bench.ct.events(filter=nlct.Filter(zone=203), buffer=4096) as stream:
        for _ in range(6):
            bench.ct.create(other)
            bench.ct.delete_flow(other)
        found = list(iter(lambda: stream.get(timeout=0), None))
        assert isinstance(found[-1], nlct.Overrun)
        assert stream.received == len(found) - 1
        assert stream.mode
        assert stream.buffer == 4096
        assert [item.to_dict()["event"] for item in found[:2]] == ["new", "destroy"]
        stream.fileno()
        bench.ct.create(other)
    with pytest.raises(ValueError, match="closed"):
        stream.get()
    dropped = bench.ct.events("destroy")
    bench.ct.delete_flow(other)
    assert next(dropped).kind == "destroy"
    del dropped
    for arguments in ({"buffer": 1}, {"zone": -1}):
        with pytest.raises(ValueError, match="must be"):
            bench.ct.events(**arguments)


@covers("Events.batches", "Events.text", "Events.json", times=60)
def event_batches(bench: Bench) -> None:
    """Tables and lines of events, left half-way."""
    other = flow(203, zone=203)
    with bench.ct.events("new", "update") as stream:
        bench.ct.create(other)
        bench.ct.update(other.replace(mark=7))
        assert len(next(stream.batches(rows=1))) == 1
        assert len(next(stream.batches(columns=["labels", "unknown"]))) == 1
        bench.ct.update(other.replace(mark=8))
        assert len(list(stream.text(timeout=0))) == 1
    bench.ct.delete_flow(other)


@covers("Events", times=60)
def event_tasks(bench: Bench) -> None:
    """Tasks that wait: one gets an event, one is cancelled, one is woken by close()."""
    other = flow(203, zone=203)

    async def main() -> None:
        async with bench.ct.events("new") as stream:
            tasks = [asyncio.ensure_future(stream.__anext__()) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.sleep(0)
            bench.ct.create(other)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while not (tasks[0].done() or tasks[1].done()):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    # See flusher_tasks.
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(main())
    bench.ct.delete_flow(other)


@covers("Flusher", "Flusher.close", times=DUMPS)
def flusher_open_and_close(bench: Bench) -> None:
    """Every way to let go of a Flusher."""
    with nlct.Flusher(bench.netns) as flusher:
        flusher.flush_zone(200)
    flusher.close(wait=False)
    with pytest.raises(ValueError, match="closed"):
        flusher.flush_zone(1)
    dropped = nlct.Flusher(bench.ct)
    dropped.flush_zone(200)
    del dropped


@covers("Flusher.flush_zone", "Flusher.delete", "Flusher.passes", times=DUMPS)
def flusher_shared(bench: Bench) -> None:
    """A shared dump, and arguments that are refused."""
    bench.ct.load([flow(200, zone=200), flow(201, zone=201)])
    with nlct.Flusher(bench.ct) as flusher, ThreadPoolExecutor(4) as pool:
        done = [pool.submit(flusher.flush_zone, zone) for zone in (200, 201, 202)]
        done.append(pool.submit(flusher.delete, nlct.Filter(zone={200, 201}, proto="udp")))
        assert all(future.result().complete for future in done)
        assert flusher.passes
        with pytest.raises(ValueError, match="zone"):
            flusher.flush_zone(-1)
        with pytest.raises(ValueError, match="filter"):
            flusher.delete(nlct.Filter())


@covers("Flusher.aflush_zone", "Flusher.adelete", times=DUMPS)
def flusher_tasks(bench: Bench) -> None:
    """Tasks, one of them cancelled."""

    async def main() -> None:
        with nlct.Flusher(bench.ct) as flusher:
            gone = asyncio.ensure_future(flusher.aflush_zone(200))
            kept = asyncio.ensure_future(flusher.adelete(nlct.Filter(zone=201, proto="udp")))
            await asyncio.sleep(0)
            gone.cancel()
            assert (await kept).complete

    # asyncio.run() handles SIGINT, and to say so Python writes down the task, in names that a cache
    # of its own keeps: a few hundred, the more of them the less two runs are alike.
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(main())


MIRRORS = 5


@covers(
    *("Mirror", "Mirror.close", "Mirror.wait", "Mirror.state", "MirrorState"),
    times=MIRRORS,
)
def mirror_open_and_close(bench: Bench) -> None:
    """Every way to let go of a Mirror, with a generator that is not at its end."""
    with nlct.Mirror(bench.netns, index=("zone", "address")) as mirror:
        assert mirror.wait(60)
        assert mirror.state.flows == FLOWS
        left = mirror.flows()
        next(left)
    mirror.close()
    with pytest.raises(ValueError, match="closed"):
        mirror.flush_zone(1)
    dropped = nlct.Mirror(bench.ct)
    keeper = dropped._keeper
    del dropped
    keeper._thread.join()
    for options in ({"buffer": 1}, {"index": "zone"}, {"audit_interval": 0.5}):
        with pytest.raises((ValueError, TypeError)):
            nlct.Mirror(bench.ct, **options)  # type: ignore[arg-type]


@covers("Mirror.flush_zone", "Mirror.flush_zones", "Mirror.delete", "Mirror.delete_flows")
def mirror_flush(bench: Bench) -> None:
    """Out of memory, flow by flow, in vain, and refused."""
    mirror = the_mirror(bench)
    bench.ct.load([flow(200, zone=200), flow(201, zone=201), flow(202, zone=200, mark=7)])
    assert mirror.flush_zone(200, dry_run=True).matched == 2
    assert mirror.delete(nlct.Filter(zone=200, mark=7)).deleted == 1
    assert mirror.flush_zones({200, 201}).deleted == 2
    assert mirror.flush_zone(200).deleted == 0
    assert mirror.delete_flows([]).deleted == 0
    for call in (lambda: mirror.flush_zone(-1), lambda: mirror.delete(nlct.Filter())):
        with pytest.raises(ValueError, match=r"zone|filter"):
            call()


@covers("Mirror.flush_zone", times=DUMPS)
def mirror_verify(bench: Bench) -> None:
    """With a scan afterwards."""
    bench.ct.create(flow(200, zone=200))
    assert the_mirror(bench).flush_zone(200, verify=True).deleted == 1


@covers("Mirror.aflush_zone", "Mirror.adelete", times=DUMPS)
def mirror_tasks(bench: Bench) -> None:
    """Tasks, one of them cancelled."""
    mirror = the_mirror(bench)

    async def main() -> None:
        gone = asyncio.ensure_future(mirror.aflush_zone(200))
        kept = asyncio.ensure_future(mirror.adelete(nlct.Filter(zone=201)))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await kept).deleted == 0

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())


@covers("Mirror.count", "Mirror.count_by", "Mirror.flows")
def mirror_looks(bench: Bench) -> None:
    """What it counts and yields out of memory, to the end and not."""
    mirror = the_mirror(bench)
    assert len(mirror) == mirror.count() == FLOWS
    assert mirror.count(nlct.Filter(src="10.0.0.1")) == 1
    assert len(mirror.count_by("zone")) == ZONES
    assert len(mirror.count_by("src")) == FLOWS
    assert sum(1 for _ in mirror.flows(zone=1)) == FLOWS // ZONES
    next(mirror.flows())
    mirror.flows()


def the_mirror(bench: Bench) -> nlct.Mirror:
    """The one that is used throughout, in step."""
    if bench.mirror is None:
        bench.mirror = nlct.Mirror(bench.ct, index=("zone", "address"), audit_interval=86400)
    assert bench.mirror.wait(60)
    return bench.mirror


@covers("probe", "Capabilities", times=10)
def probe(bench: Bench) -> None:  # noqa: ARG001
    """The measuring itself, not what is remembered of it."""
    assert capabilities.measure("any release").zones
    assert not capabilities.by_release("any release").zones
    assert nlct.probe() == capabilities.known()


@covers(
    *("Netns", "Netns.scratch", "Netns.close", "Netns.fileno"),
    *("Netns.current", "Netns.identity", "Netns.to_c"),
    times=20,
)
def scratch(bench: Bench) -> None:
    """A scratch namespace that is closed, and one that is dropped."""
    with nlct.Netns.scratch() as netns:
        repr(netns)
    netns.close()
    with pytest.raises(ValueError, match="closed"):
        netns.fileno()
    nlct.Netns.scratch().fileno()
    with nlct.Netns.current() as here:
        assert here.identity != bench.netns.identity
        here.to_c()


@covers("Netns.open")
def open_netns(bench: Bench) -> None:
    """Every way to open one, also in vain."""
    nlct.Netns.open(os.getpid()).close()
    nlct.Netns.open(bench.netns).close()
    nlct.Netns.open(bench.netns.fileno())
    for spec in ("no-such-netns", "/proc/self/ns/mnt", "/dev/null"):
        with pytest.raises((nlct.NotFoundError, ValueError)):
            nlct.Netns.open(spec)


@covers("Netns.socket", "Netns.open_file")
def reach_into_netns(bench: Bench) -> None:
    """Sockets and files of a namespace, also in vain."""
    bench.netns.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    os.close(bench.netns.open_file("/proc/self/net/dev"))
    with pytest.raises(nlct.NotFoundError):
        bench.netns.open_file("/no/such/file")
    with pytest.raises(nlct.Error):
        bench.netns.socket(-1, socket.SOCK_DGRAM)


@covers(
    *("FlowTable", "FlowTable.from_flows", "FlowTable.of_core", "FlowTable.to_c"),
    *("FlowTable.column", "FlowTable.valid", "FlowTable.names", "FlowTable.nbytes"),
    "FlowTable.schema",
    times=40,
)
def tables(bench: Bench) -> None:
    """A table made, read, and refused."""
    table = nlct.FlowTable.from_flows(bench.flows)
    assert list(table) == bench.flows
    assert len(table.column("zone")) == FLOWS
    table.to_c()
    assert list(table[3:5]) == bench.flows[3:5]
    assert table.valid("zone") is None
    assert table.nbytes > FLOWS * len(table.names)
    assert table.schema["zone"] == "uint16"
    assert list(table["dport"]) == [53] * FLOWS
    assert len(pickle.loads(pickle.dumps(table))) == FLOWS
    for wrong in (table.column, table.__getitem__):
        with pytest.raises(KeyError):
            wrong("weather")
    with pytest.raises(IndexError):
        table[FLOWS]
    for columns in ({}, {"weather": b""}, {"family": b"\2", "zone": b"\0\0\0\0"}):
        with pytest.raises(ValueError, match="column"):
            nlct.FlowTable(columns)


@covers("FlowTable.arrow", times=20)
def arrow(bench: Bench) -> None:
    """A table that Arrow's libraries take, kept and dropped."""
    pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow")
    bench.table.__arrow_c_schema__()
    bench.table.__arrow_c_stream__()
    bench.table.arrow(addresses="bytes", enums="dictionary").__arrow_c_stream__()


@covers("FlowTable.from_arrow", "FlowTable.to_pandas", "FlowTable.to_polars", times=10)
def frames(bench: Bench) -> None:
    """A table to other libraries and back, also in vain."""
    for name in ("nanoarrow", "numpy", "pandas", "polars", "pyarrow"):
        pytest.importorskip(name, reason=f"MISSING: {name}")
    bench.table["dport"].numpy()
    for frame in (bench.table.to_pandas(), bench.table.to_polars()):
        assert len(nlct.FlowTable.from_arrow(frame)) == FLOWS
    with pytest.raises(ValueError, match="weather"):
        nlct.FlowTable.from_arrow(bench.table.to_polars().rename({"zone": "weather"}))


@covers(
    *("Filter", "Filter.to_c", "Filter.kernel_filter", "Filter.zone", "Filter.is_zones"),
    *("Filter.matches_everything", "Filter.restricts_nothing", "Filter.matches_nothing"),
    *("Filter.matches", "Filter.only", "Filter.within"),
)
def filters(bench: Bench) -> None:
    """Filters made, joined, compiled, asked, and refused."""
    wanted = nlct.Filter(zone=range(100), family="ipv4") | ~nlct.Filter(src={"::1", "10.0.0.0/8"})
    wanted.to_c()
    wanted.kernel_filter(lib.NLCT_ZONE_PLAIN)
    assert wanted.matches(bench.flows[0])
    with pytest.raises(TypeError):
        wanted.matches(None)  # type: ignore[arg-type]
    assert nlct.Filter(zone=7).zone == {7}
    both = nlct.Filter(zone=7, mark=1)
    assert both.only("zone") == ((7, 7),)
    assert both.within({"zone"}) == (nlct.Filter(zone=7), False)
    assert nlct.Filter(zone=7).is_zones
    assert nlct.Filter().matches_everything
    assert (~nlct.Filter(src=[])).restricts_nothing
    assert nlct.Filter(mark=[]).matches_nothing
    for zone in (-1, 65536, [1, 65536]):
        with pytest.raises(ValueError, match="zone"):
            nlct.Filter(zone=zone)


def properties(of: type) -> list[str]:
    """The names of what can be read."""
    return [name for name, value in vars(of).items() if isinstance(value, property)]


@covers(
    *(f"{of.__name__}.{name}" for of in (nlct.Flow, nlct.Tuple) for name in properties(of)),
    *("Flow.to_dict", "Tuple.to_dict", "Tuple.replace"),
)
def fields(bench: Bench) -> None:
    """Everything that can be read of a flow, and what it is written as."""
    whole = bench.flows[0].replace(helper="ftp", labels=3, secctx="x", unknown={40: b"1"})
    for one in (whole, whole.orig.replace(zone=None)):
        for name in properties(type(one)):
            getattr(one, name)
        one.to_dict()
        str(one)
        repr(one)
        sorted([one, one])


@covers(
    *("Flow", "Flow.replace", "Tuple"),
    *("Proto", "Status", "TcpState", "SctpState", "DccpState"),
)
def flows(bench: Bench) -> None:
    """Flows made, changed, copied, and refused."""
    changed = bench.flows[0].replace(mark=1, status=int(nlct.Status.CONFIRMED))
    assert changed.family == changed.orig.family == socket.AF_INET
    assert changed.orig.proto == nlct.Proto.UDP
    assert copy.deepcopy(changed) == pickle.loads(pickle.dumps(changed)) == changed
    with pytest.raises(ValueError, match="mark"):
        bench.flows[0].replace(mark=-1)
    with pytest.raises(ValueError, match="src"):
        nlct.Tuple(src="weather")


@covers("Expectations.events", "ExpectationEvents", "ExpectationEvent", times=60)
@covers(*(f"ExpectationEvents.{name}" for name in ("close", "get", "fileno")), times=60)
@covers(*(f"ExpectationEvents.{name}" for name in ("mode", "buffer", "received")), times=60)
@covers("ExpectationEvent.to_dict", times=60)
def expectation_events(bench: Bench) -> None:
    """A stream that hears of one, where there is the helper of FTP, and is left or closed."""
    found = bench.ct.expectations
    with found.events(buffer=4096) as stream:
        assert (stream.mode > 0, stream.buffer, stream.fileno() >= 0) == (True, 4096, True)
        orig = nlct.Tuple("10.0.0.1", "10.0.0.2", "tcp", 40_001, 21)
        with suppress(nlct.Error):
            bench.ct.create(nlct.Flow(orig, timeout=600, helper="ftp"))
            wanted = nlct.Tuple("10.0.0.2", "10.0.0.1", "tcp", 0, 50_001)
            found.create(nlct.Expectation(wanted, master=orig))
        while (item := stream.get(timeout=0)) is not None:
            item.to_dict()
        assert stream.received >= 0
    with suppress(nlct.Error):
        bench.ct.delete_flow(bench.ct.get(orig))
    found.events("destroy")
    with pytest.raises(ValueError, match="buffer"):
        found.events(buffer=1)


@covers("FlushResult.to_dict", times=DUMPS)
def results(bench: Bench) -> None:
    """The result of a flush, for JSON."""
    assert bench.ct.flush_zone(300).to_dict()["deleted"] in (0, None)


@covers(
    *(
        name
        for name in nlct.__all__
        if inspect.isclass(getattr(nlct, name)) and issubclass(getattr(nlct, name), OSError)
    )
)
def errors(bench: Bench) -> None:  # noqa: ARG001
    """Exceptions raised, shown, and pickled."""
    for kind in (nlct.Error, *nlct.Error.__subclasses__()):
        with pytest.raises(kind, match="try"):
            raise pickle.loads(pickle.dumps(kind(1, "try", "no")))


# The tests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A namespace with a few flows in a few zones."""
    made = [flow(number) for number in range(FLOWS)]
    with namespaces.scratch() as netns, nlct.Conntrack(netns) as ct:
        closed = nlct.Conntrack(netns)
        closed.close()
        table = nlct.FlowTable.from_flows(made)
        ct.load(table)
        bench = Bench(netns, ct, closed, made, table)
        yield bench
        if bench.mirror is not None:
            bench.mirror.close()


def public_names() -> Iterator[str]:
    """Yield the public names of nlct, and those of its classes as "Class.name"."""
    for name in nlct.__all__:
        yield name
        thing = getattr(nlct, name)
        if not inspect.isclass(thing) or issubclass(thing, enum.Enum):
            continue
        ours = [cls for cls in thing.__mro__ if cls.__module__.startswith("nlct")]
        for attribute, value in ((a, v) for cls in ours for a, v in vars(cls).items()):
            is_call = callable(value) or isinstance(value, (property, classmethod, staticmethod))
            if is_call and not attribute.startswith("_"):
                yield f"{name}.{attribute}"


EXPECTED = tuple(nlct.Expectation(nlct.Tuple("::1")).to_dict())


@covers(
    "Conntrack.expectations", "Expectations", "Expectations.dump", "Expectations.count", times=60
)
@covers("Expectations.get", "Expectations.create", "Expectations.delete", times=60)
@covers("Expectations.flush_all", "Expectation", "Expectation.to_dict", "Expectation.replace")
@covers("ExpectFlags", "Expectation.family", *(f"Expectation.{name}" for name in EXPECTED))
def expectations(bench: Bench) -> None:
    """What is refused, and what is found, if there is the helper of FTP."""
    found = bench.ct.expectations
    orig = nlct.Tuple("10.1.0.1", "10.1.0.2", "tcp", 1, 21)
    one = nlct.Expectation(
        nlct.Tuple("10.1.0.2", "10.1.0.1", "tcp", 0, 9),
        master=orig,
        flags=nlct.ExpectFlags.INACTIVE,
    )
    for call in (lambda: found.create(one), lambda: found.delete(one.replace(id=1))):
        with contextlib.suppress(nlct.NotFoundError):
            call()
    with contextlib.suppress(nlct.UnsupportedError):
        bench.ct.create(nlct.Flow(orig, timeout=600, helper="ftp", status=nlct.Status.SEEN_REPLY))
        found.create(one)
        assert found.count(zone=0) == 1
        for made in found.dump(zone=0):
            assert (made.family, made.to_dict()["helper"]) == (socket.AF_INET, "ftp")
            found.delete(found.get(made.tuple, zone=0))
        bench.ct.delete_flow(bench.ct.get(orig))
    found.flush_all()


@covers("observe", "Observation", "Observation.close", "Flushed", "Flushed.strategy")
def observers(bench: Bench) -> None:
    """Told, and forgotten."""
    told: list[nlct.Flushed] = []
    with nlct.observe(told.append):
        bench.ct.flush_zone(9, strategy="scan")
    assert [flushed.strategy for flushed in told] == ["scan"]


def test_every_public_name_has_a_leak_test() -> None:
    """Whoever adds a public name adds a leak test, and whoever takes one away takes it away."""
    assert set(public_names()) == COVERED


# What all calls go through: requests, dumps, namespaces, threads. The rest is Python on top of it.
THROUGH_ALL = {
    *("create", "get", "load", "columns", "dump", "flush_by_scan", "delete_flows"),
    "save_and_read",
    *("reach_into_netns", "flusher_shared", "filters", "events", "event_tasks", "mirror_flush"),
}


@pytest.mark.parametrize("case", telling(CASES, THROUGH_ALL))
def test_no_leak(case: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling this over and over leaves memory and descriptors as they were."""
    # Which way auto goes hangs on what dumps took, and on that how many sockets are kept idle.
    choose = strategy.choose
    monkeypatch.setattr(strategy, "choose", lambda facts: choose(facts)._replace(kernel=False))
    call, times = CASES[case]
    assert find_leak(lambda: call(bench), times) is None


def test_a_leak_of_python_is_found() -> None:
    """A call that keeps one small object is caught."""
    hoard: list[object] = []
    # Threads of earlier tests may let go of a few hundred meanwhile.
    assert "memory" in (find_leak(lambda: hoard.append(object()), 1000) or "")


@pytest.mark.skipif(not TELLS, reason="MISSING: mallinfo2")
def test_a_leak_of_the_core_is_found() -> None:
    """A sink that is not freed, of a few bytes, is caught."""
    rows = ffi.new("struct nlct_flow[1]")
    hoard = ffi.new("struct nlct_sink *[]", 10000)
    at = itertools.count()

    def leak() -> None:
        assert lib.nlct_rows_new(hoard + next(at), rows, 1, ffi.NULL) == 0

    try:
        assert "bytes of malloc" in (find_leak(leak, 100) or "")
    finally:
        for number in range(len(hoard)):
            lib.nlct_sink_free(hoard + number)


def test_a_leak_of_mappings_is_found() -> None:
    """A page that stays mapped is caught."""
    hoard: list[mmap.mmap] = []

    def leak() -> None:
        hoard.append(mmap.mmap(-1, mmap.PAGESIZE))
        hoard[-1][0] = 1

    try:
        assert "memory" in (find_leak(leak, 100) or "")
    finally:
        for mapping in hoard:
            mapping.close()


def test_a_leak_of_descriptors_is_found() -> None:
    """A call that keeps a descriptor open is caught."""
    hoard: list[int] = []
    try:
        assert "descriptors" in (find_leak(lambda: hoard.append(os.dup(0)), 5) or "")
    finally:
        for fd in hoard:
            os.close(fd)
