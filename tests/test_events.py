"""Events: which are told and to whom, what is lost and that it is said, and how a stream ends."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlct
from nlct import Event, EventKind, Filter, Flow, Overrun, Status
from nlct._ffi import ffi, lib
from nlct._handle import Handle
from tests.support import filters, flows, interrupts, netlink
from tests.support.descriptors import descriptors
from tests.support.examples import examples, telling
from tests.support.namespaces import where_am_i
from tests.support.processes import NOBODY, Script, in_child

# Without privilege the buffer has room for a hundred events.
pytestmark = pytest.mark.usefixtures("root")

ROOT = Path(__file__).parent.parent
Items = list[Any]
# What comes at once; a hang ends the test.
PATIENCE = 60


def queued(events: nlct.Events) -> Items:
    """Return all that is there."""
    return list(iter(lambda: events.get(timeout=0), None))


def numbered(first: int, last: int, zone: int = 7) -> list[Flow]:
    """Flows of successive numbers."""
    return [flows.udp(number, zone) for number in range(first, last)]


def told(items: Iterable[Any]) -> list[str]:
    """Return sources of the events, and the overruns."""
    return [str(item.flow.orig.src) if isinstance(item, Event) else str(item) for item in items]


def sources(made: Iterable[Flow]) -> list[str]:
    """Return the sources of flows."""
    return [str(flow.orig.src) for flow in made]


def lost(items: Iterable[Any]) -> int:
    """Return how many events the overruns speak of."""
    return sum(item.lost or 0 for item in items if isinstance(item, Overrun))


def heard(items: Iterable[Any]) -> int:
    """Return how many events there are."""
    return sum(isinstance(item, Event) for item in items)


# What is told -------------------------------------------------------------------------------------


def test_events_tell_what_happened(ct: nlct.Conntrack) -> None:
    """Of creates, changes and deletes, in their order, with the flow as it then is."""
    flow = flows.udp(1, 7)
    with ct.events("new", "update", "destroy") as events:
        ct.create(flow)
        ct.update(flow.replace(mark=5))
        ct.delete_flow(flow)
        found = queued(events)
    assert [item.kind for item in found] == ["new", "update", "destroy"]
    assert [item.flow.event for item in found] == list(EventKind)
    assert {item.flow.id for item in found} == {found[0].flow.id}
    assert {(item.flow.orig, item.flow.zone) for item in found} == {(flow.orig, 7)}
    assert [item.flow.mark or 0 for item in found] == [0, 5, 5]
    assert found[0].to_dict()["event"] == "new"
    assert str(found[0]).lstrip().startswith("[NEW]")


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ((), ["new", "destroy"]),
        (("new",), ["new"]),
        (("update",), ["update"]),
        (("destroy",), ["destroy"]),
        ((EventKind.UPDATE, "new", "new"), ["new", "update"]),
    ],
)
def test_kinds(ct: nlct.Conntrack, kinds: tuple[str | EventKind, ...], wanted: list[str]) -> None:
    """Those that are asked for, and without any the beginning and the end."""
    with ct.events(*kinds) as events:
        ct.create(flows.udp(1, 7))
        ct.update(flows.udp(1, 7).replace(mark=5))
        ct.flush_zone(7)
        assert [item.kind for item in queued(events)] == wanted
        assert events.received == len(wanted)


@pytest.mark.parametrize(
    ("kinds", "options", "says"),
    [
        (("weather",), {}, "new, update, destroy"),
        (("NEW",), {}, "new, update, destroy"),
        ((1,), {}, "new, update, destroy"),
        ((None,), {}, "new, update, destroy"),
        (([],), {}, "new, update, destroy"),
        ((), {"buffer": 4095}, "buffer"),
        ((), {"buffer": 2**30}, "buffer"),
        ((), {"buffer": True}, "buffer"),
        ((), {"buffer": 1e6}, "buffer"),
        ((), {"filter": "zone 7"}, "filter"),
        ((), {"zone": 65536}, "zone"),
        ((), {"zone": 7, "filter": Filter(mark=1)}, "Filter"),
    ],
)
def test_bad_arguments_open_nothing(
    ct: nlct.Conntrack,
    monkeypatch: pytest.MonkeyPatch,
    kinds: tuple[Any, ...],
    options: dict[str, Any],
    says: str,
) -> None:
    """They are told by name, before there is a socket."""
    monkeypatch.delattr(Handle, "open_events")
    with pytest.raises((ValueError, TypeError), match=says):
        ct.events(*kinds, **options)


@pytest.mark.parametrize("buffer", [4096, 2**30 - 1])
def test_the_buffer_is_what_was_asked_for(ct: nlct.Conntrack, buffer: int) -> None:
    """From the least to the most."""
    with ct.events(buffer=buffer) as events:
        assert events.buffer == buffer


# Reading ------------------------------------------------------------------------------------------


def test_get_waits_no_longer_than_it_is_told(ct: nlct.Conntrack) -> None:
    """Without an event there is None, now or later."""
    with ct.events() as events:
        assert events.get(timeout=0) is None
        assert events.get(timeout=0.01) is None
        ct.create(flows.udp(1))
        assert isinstance(events.get(timeout=PATIENCE), Event)
        ct.create(flows.udp(2))
        assert isinstance(events.get(), Event)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "1"])
def test_a_bad_timeout_is_told(ct: nlct.Conntrack, timeout: Any) -> None:
    """And takes no event."""
    with ct.events() as events:
        ct.create(flows.udp(1))
        with pytest.raises((ValueError, TypeError), match="timeout"):
            events.get(timeout)
        assert heard(queued(events)) == 1


def test_iterating(ct: nlct.Conntrack) -> None:
    """With for, by next(), left and begun again: each event comes once, until close()."""
    made = numbered(0, 600)
    with ct.events("new") as events:
        ct.load(made)
        found = [next(events), next(events)]
        for item in events:
            found.append(item)
            if len(found) == 300:
                break
        for item in events:
            found.append(item)
            if len(found) == 600:
                events.close()
        assert told(found) == sources(made)
        assert list(events) == []
        with pytest.raises(StopIteration):
            next(events)


def test_batches(ct: nlct.Conntrack) -> None:
    """Tables of what is queued, with what happened in a column."""
    with ct.events("new", "destroy") as events:
        ct.load(numbered(0, 5))
        ct.flush_zone(7)
        batches = events.batches(columns=["sport"], rows=4)
        found = [next(batches) for _ in range(3)]
        assert [len(batch) for batch in found] == [4, 4, 2]
        assert {batch.names for batch in found} == {("family", "zone", "sport", "event")}
        kinds = [number for batch in found for number in batch.column("event")]
        assert kinds == [EventKind.NEW] * 5 + [EventKind.DESTROY] * 5
        with pytest.raises(ValueError, match="column"):
            events.batches(columns=["weather"])
        with pytest.raises(ValueError, match="rows"):
            events.batches(rows=0)
        events.close()
        assert list(batches) == []


@pytest.mark.parametrize("way", ["select", "poll", "epoll"])
def test_its_descriptor_tells_when_there_is_something(ct: nlct.Conntrack, way: str) -> None:
    """For whoever has a loop of their own."""
    with ct.events() as events:
        if way == "select":

            def ready() -> bool:
                return bool(select.select([events], [], [], 0)[0])
        elif way == "poll":
            poll = select.poll()
            poll.register(events, select.POLLIN)

            def ready() -> bool:
                return bool(poll.poll(0))
        else:
            epoll = select.epoll()
            epoll.register(events, select.EPOLLIN)

            def ready() -> bool:
                return bool(epoll.poll(0))

        assert not ready()
        ct.create(flows.udp(1))
        assert ready()
        assert heard(queued(events)) == 1
        assert not ready()


def test_threads_share_a_stream(ct: nlct.Conntrack) -> None:
    """Each event goes to one of them, and close() ends them all, whatever they wait in."""
    made = numbered(0, 3000)
    found: Items = []

    def by_get() -> None:
        with suppress(ValueError):
            while True:
                found.append(events.get())

    def by_for() -> None:
        for item in events:
            found.append(item)

    events = ct.events("new")
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(work) for work in (by_get, by_for, by_get, by_for)]
        ct.load(made)
        until = time.monotonic() + PATIENCE
        # close() drops what nobody has asked for yet.
        while len(found) < len(made) and time.monotonic() < until:
            time.sleep(0.01)
        events.close()
        for reader in readers:
            reader.result(PATIENCE)
    assert sorted(told(found)) == sorted(sources(made))


# Asyncio ------------------------------------------------------------------------------------------


def run(main: Any) -> Any:
    """Run a coroutine in a loop of its own."""
    with closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))


def test_tasks_share_a_stream(ct: nlct.Conntrack) -> None:
    """Each event goes to one of them; close() by one of them ends them all."""
    made = numbered(0, 600)
    found: Items = []

    async def read() -> None:
        async for item in events:
            found.append(item)
            if len(found) == len(made):
                events.close()

    async def main() -> None:
        nonlocal events
        async with ct.events("new") as events:
            readers = [asyncio.ensure_future(read()) for _ in range(3)]
            for first in range(0, 600, 100):
                await asyncio.sleep(0)
                ct.load(made[first : first + 100])
            await asyncio.gather(*readers)
        with pytest.raises(ValueError, match="closed"):
            events.fileno()

    events: nlct.Events
    run(main())
    assert sorted(told(found)) == sorted(sources(made))


def test_a_task_that_takes_one_event_leaves_the_others_to_those_who_wait(
    ct: nlct.Conntrack,
) -> None:
    """Though it has received all that were queued."""

    async def main() -> None:
        with ct.events("new") as events:
            waiting = asyncio.ensure_future(events.__anext__())
            await asyncio.sleep(0)
            ct.load(numbered(0, 2))
            assert events.get(timeout=0) is not None
            assert isinstance(await waiting, Event)

    run(main())


def test_loops_of_several_threads_share_a_stream(ct: nlct.Conntrack) -> None:
    """Also where one receives what another waits for; close() from outside ends them."""
    made = numbered(0, 3000)
    found: Items = []

    async def read() -> None:
        async for item in events:
            found.append(item)

    events = ct.events("new")
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(run, read()) for _ in range(3)]
        for first in range(0, 3000, 50):
            ct.load(made[first : first + 50])
        until = time.monotonic() + PATIENCE
        # close() drops what nobody has asked for yet.
        while len(found) < len(made) and time.monotonic() < until:
            time.sleep(0.01)
        events.close()
        for reader in readers:
            reader.result(PATIENCE)
    assert sorted(told(found)) == sorted(sources(made))


def test_waiting_that_is_cancelled_loses_nothing(ct: nlct.Conntrack) -> None:
    """By asyncio.wait_for() in the middle of a storm."""
    made = numbered(0, 2000)

    async def main() -> Items:
        found: Items = []
        with ct.events("new") as events, ThreadPoolExecutor(1) as pool:
            storm = pool.submit(
                lambda: [ct.load(made[first : first + 20]) for first in range(0, 2000, 20)]
            )
            patience = 0.0
            while len(found) < len(made):
                patience = (patience + 0.0001) % 0.002
                with suppress(asyncio.TimeoutError):
                    found.append(await asyncio.wait_for(events.__anext__(), patience))
            storm.result()
            assert events.get(timeout=0) is None
        return found

    assert told(run(main())) == sources(made)


def test_a_loop_may_end_before_its_stream(ct: nlct.Conntrack) -> None:
    """With a task that still waits; the stream goes on, and no descriptor is left."""
    ct.create(flows.udp(2))
    before = descriptors()
    events = ct.events("new")

    async def main() -> None:
        task = asyncio.ensure_future(events.__anext__())
        await asyncio.sleep(0)
        kept.append(task)

    kept: Items = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    ct.create(flows.udp(1))
    assert isinstance(events.get(timeout=0), Event)
    events.close()
    kept[0]._log_destroy_pending = False
    kept.clear()
    del loop
    gc.collect()
    # One is that of the sysctl.
    assert descriptors() == before + 1


# Signals ------------------------------------------------------------------------------------------


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few events take several turns."""
    monkeypatch.setattr(nlct.events, "ROWS", 3)


@pytest.mark.usefixtures("small_room")
def test_a_signal_handler_may_read_in_the_middle(ct: nlct.Conntrack) -> None:
    """At any point: each event comes once, to the one or to the other."""
    made = numbered(0, 7)
    found: Items = []
    by_handler: Items = []
    with ct.events("new") as events:
        ct.load(made)
        work = interrupts.everywhere(
            lambda: found.extend(queued(events)), lambda: by_handler.extend(queued(events))
        )
        for _ in work:
            assert sorted(told(found + by_handler)) == sources(made)
            found.clear()
            by_handler.clear()
            ct.flush_all()
            ct.load(made)


@pytest.mark.usefixtures("small_room")
def test_a_signal_handler_that_raises_loses_at_most_what_is_handed_over(
    ct: nlct.Conntrack,
) -> None:
    """At any point: what was received stays for the next call."""
    made = numbered(0, 7)
    found: Items = []

    def read() -> None:
        while (item := events.get(timeout=0)) is not None:
            found.append(item)

    losses = 0
    with ct.events("new") as events:
        ct.load(made)
        for _ in interrupts.everywhere(read):
            read()
            lost_here = len(made) - len(found)
            assert lost_here <= 1
            assert told(found) == [src for src in sources(made) if src in told(found)]
            losses += lost_here
            found.clear()
            ct.flush_all()
            ct.load(made)
    # Behind each of the calls that hand it over.
    assert 0 < losses <= 3 * len(made)


def test_a_signal_handler_may_close_the_stream(ct: nlct.Conntrack) -> None:
    """At any point, and no descriptor is left."""
    ct.create(flows.udp(1))
    events = ct.events("new")

    def work() -> None:
        with suppress(ValueError):
            while events.get(timeout=0) is not None:
                pass

    def close() -> None:
        events.close()

    before = descriptors()
    for _ in interrupts.everywhere(work, close):
        assert descriptors(again=True) == before - 1
        events = ct.events("new")
        ct.create(flows.udp(2))
        ct.delete_flow(flows.udp(2))
    events.close()


BLOCKED = """
import signal, sys, nlct
with nlct.Conntrack(sys.argv[1]) as ct, ct.events("new") as events:
    try:
        print("ready", flush=True)
        {wait}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(events.get().kind)
"""


@pytest.mark.parametrize("wait", ["events.get()", "next(events)", "next(events.batches())"])
def test_ctrl_c_ends_a_wait(ct: nlct.Conntrack, where: str, wait: str) -> None:
    """And the stream is as it was."""
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED.format(wait=wait), where.split("=")[1]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        ct.create(flows.udp(1))
        assert process.stdout.read() == "new\n"


# Forks, descriptors and namespaces ----------------------------------------------------------------


def test_a_stream_does_not_outlive_a_fork(ct: nlct.Conntrack) -> None:
    """The child gets errors, also of what the parent has received; the parent goes on."""
    made = numbered(0, 3)

    async def wait() -> None:
        await events.__anext__()

    def child() -> None:
        for use in (
            lambda: events.get(timeout=0),
            lambda: next(events),
            lambda: next(iter(events)),
            lambda: next(events.batches()),
            lambda: run(wait()),
            lambda: events.received,
            events.fileno,
        ):
            with pytest.raises(RuntimeError, match="fork"):
                use()
        events.close()

    with ct.events("new") as events:
        ct.load(made)
        found = [events.get(timeout=0)]
        # Held by a thread that the child does not have.
        with events._lock.real, ThreadPoolExecutor(1) as pool:
            assert pool.submit(in_child, child).result() == 0
        assert in_child(lambda: None) == 0
        ct.create(flows.udp(3, 7))
        found += queued(events)
        assert told(found) == sources(numbered(0, 4))


def test_a_descriptor_that_was_closed_is_an_error(ct: nlct.Conntrack) -> None:
    """Not another's data: also where the number leads elsewhere by now, which stays open."""
    for reused in (False, True):
        events = ct.events("new")
        fd = events.fileno()
        ct.create(flows.udp(1, 7))
        other = ct.events("new")
        ct.create(flows.udp(2, 7))
        os.close(fd)
        if reused:
            os.dup2(other.fileno(), fd)
        for _ in range(2):
            with pytest.raises(nlct.Error, match="closed their descriptor") as raised:
                events.get(timeout=1)
            assert raised.value.errno == errno.EBADF
        with pytest.raises(nlct.Error, match="closed their descriptor"):
            next(events.batches())
        events.close()
        assert len(queued(other)) == 1
        other.close()
        if reused:
            os.close(fd)
        ct.flush_all()


def test_a_socket_that_took_the_number_is_left_alone(ct: nlct.Conntrack) -> None:
    """Neither its buffer nor what it hears is changed."""
    with ct.events("new", "destroy") as events, ct.events("destroy", buffer=65536) as other:
        stream, fd = events._events[0], events.fileno()
        os.dup2(other.fileno(), fd)
        size = ffi.new("size_t *")
        assert lib.nlct_events_resize(stream, 1 << 20) == -errno.EBADF
        assert lib.nlct_events_mute(stream, 1) == -errno.EBADF
        assert lib.nlct_events_buffer(stream, size) == -errno.EBADF
        assert lib.nlct_events_buffer(other._events[0], size) == 0
        assert size[0] == 65536
    os.close(fd)


def test_an_overrun_outlives_a_signal_handler_that_raises(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and told once, wherever the handler came in between."""
    with ct.events("new", buffer=4096) as events:
        for point in ("_feed", "_told"):
            before = events.received
            ct.load([flows.udp(number, 7) for number in range(300)])
            original = getattr(events, point)

            def interrupted(*arguments: Any, original: Any = original) -> Any:
                result = original(*arguments)
                if result is None or result[1] is not None:
                    raise KeyboardInterrupt
                return result

            with monkeypatch.context() as patched:
                patched.setattr(events, point, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    queued(events)
            told = [item.lost for item in queued(events) if isinstance(item, Overrun)]
            assert told == [300 - (events.received - before)], point
            ct.flush_all()


@pytest.mark.parametrize("way", ["path", "descriptor", "object"])
def test_another_namespace(ct: nlct.Conntrack, netns: nlct.Netns, way: str) -> None:
    """The thread stays where it is."""
    spec: Any = {
        "path": f"/proc/self/fd/{netns.fileno()}",
        "descriptor": netns.fileno(),
        "object": netns,
    }[way]
    before = where_am_i()
    with ExitStack() as stack:
        elsewhere = stack.enter_context(nlct.Netns.scratch())
        beside, other = (stack.enter_context(nlct.Conntrack(each)) for each in (elsewhere, spec))
        events = stack.enter_context(other.events("new"))
        assert where_am_i() == before
        beside.create(flows.udp(1, 7))
        ct.create(flows.udp(2, 7))
        assert told(queued(events)) == ["10.0.0.2"]
        assert where_am_i() == before


def test_a_stream_outlives_what_it_was_made_of(netns: nlct.Netns) -> None:
    """Its Conntrack, and the namespace for all that we have of it."""
    ct = nlct.Conntrack(netns)
    events = ct.events("new", filter=Filter(zone=7) | Filter(mark=1))
    ct.load(numbered(0, 300))
    ct.close()
    assert isinstance(events.get(timeout=0), Event)
    del ct
    netns.close()
    gc.collect()
    assert heard(queued(events)) == 299
    assert events.get(timeout=0.01) is None
    events.close()


def test_a_namespace_that_loses_its_name(netns: nlct.Netns) -> None:
    """Flows are made there as long as somebody holds it, and told; then nothing comes."""
    if shutil.which("ip") is None:
        pytest.skip("MISSING: iproute2")
    name = f"nlct-events-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ct = nlct.Conntrack(name)
        events = ct.events("new")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    with nlct.Conntrack(netns) as elsewhere:
        elsewhere.create(flows.udp(1))
    ct.create(flows.udp(2))
    ct.close()
    assert told(queued(events)) == ["10.0.0.2"]
    assert events.get(timeout=0.01) is None
    events.close()


def test_a_closed_conntrack_listens_to_nothing(ct: nlct.Conntrack) -> None:
    """It is closed."""
    ct.close()
    with pytest.raises(ValueError, match="closed"):
        ct.events()


AS_NOBODY = f"""
import ctypes, os, nlct
import nlct.stream
assert ctypes.CDLL(None).unshare(0x40000000) == 0
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
with nlct.Conntrack() as ct:
    try:
        ct.events()
    except nlct.PrivilegeError as exc:
        assert isinstance(exc, PermissionError)
        print(exc.operation)
"""


def test_listening_is_a_privilege(script: Script) -> None:
    """The kernel's, and it is said."""
    assert script(AS_NOBODY) == "listen to events"


UNPRIVILEGED = """
limit = int(open("/proc/sys/net/core/rmem_max").read())
with nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
    with ct.events() as events, ct.events(buffer=4096) as small:
        assert small.buffer == 4096
        assert events.buffer == min(limit, nlct.stream.BUFFER), events.buffer
        ct.create(tests.support.flows.udp(1))
        assert events.get(timeout=0).kind == "new"
    try:
        ct.events(buffer=limit + 1)
    except nlct.PrivilegeError as exc:
        print(exc)
"""


@pytest.mark.usefixtures("netns")
def test_the_buffer_of_who_lacks_privilege(script: Script) -> None:
    """As much as the sysctl allows; to insist on more is an error that names it."""
    try:
        said = script(UNPRIVILEGED, nobody=True)
    except AssertionError as exc:
        if "PermissionError" not in str(exc):
            raise
        pytest.skip("MISSING: user namespaces without privilege")
    assert "net.core.rmem_max" in said


# The sysctl ---------------------------------------------------------------------------------------


def mode(netns: nlct.Netns, number: int) -> None:
    """Set nf_conntrack_events."""
    try:
        filters.write(netns, "events", number)
    except OSError as exc:
        pytest.skip(f"MISSING: nf_conntrack_events={number}: {exc}")


def test_a_sysctl_that_hides_events_is_told(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """By name, and what was opened is closed again."""
    before = descriptors()
    with ct.events() as events:
        assert events.mode in (1, 2)
    mode(netns, 0)
    for _ in range(3):
        with pytest.raises(nlct.UnsupportedError, match="nf_conntrack_events is 0"):
            ct.events()
    # The sysctl's own descriptor stays.
    assert descriptors() <= before + 1


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("number", "kinds"), [(1, ["destroy"]), (2, [])])
def test_flows_from_before_the_first_listener(
    ct: nlct.Conntrack, netns: nlct.Netns, number: int, kinds: list[str]
) -> None:
    """They have events in mode 1 alone, and the mode is told."""
    mode(netns, number)
    ct.create(flows.udp(1, 7))
    with ct.events() as events:
        assert events.mode == number
        ct.flush_zone(7)
        found = [item.kind for item in queued(events)]
        if found and number == 2:
            pytest.skip("MISSING: a host on which nobody else listens to events")
        assert found == kinds
        ct.create(flows.udp(2, 7))
        ct.flush_zone(7)
        assert [item.kind for item in queued(events)] == ["new", "destroy"]


def test_the_sysctl_is_switched_meanwhile(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """What it hides is not told, also not later; then new flows are."""
    with ct.events() as events:
        before = events.mode
        mode(netns, 0)
        ct.create(flows.udp(1, 7))
        mode(netns, 1)
        ct.create(flows.udp(2, 7))
        ct.flush_zone(7)
        found = queued(events)
        assert [item.kind for item in found] == ["new", "destroy"]
        assert told(found) == ["10.0.0.2"] * 2
        assert events.mode == before


# Filters ------------------------------------------------------------------------------------------


@contextmanager
def both(netns: nlct.Netns, wanted: Filter) -> Iterator[tuple[nlct.Events, nlct.Events]]:
    """Two streams: one of which the kernel drops what it can, and one of all."""
    kinds = ("new", "update", "destroy")
    with ExitStack() as stack:
        ways = (nlct.Conntrack(netns, kernel_filter=each) for each in (True, False))
        conntracks = [stack.enter_context(each) for each in ways]
        streams = (each.events(*kinds, filter=wanted) for each in conntracks)
        dropped, whole = (stack.enter_context(each) for each in streams)
        yield dropped, whole


def play(ct: nlct.Conntrack, made: list[Flow]) -> None:
    """Create flows, change some, delete them."""
    ct.load(made)
    for number, flow in enumerate(made[::3]):
        with suppress(nlct.Error):
            ct.update(Flow(flow.orig, flow.reply, zone=flow.zone, mark=number % 4))
    ct.flush_all()


# How much of the menagerie, created and deleted, the kernel lets through.
DROPPED = [
    Filter(zone=7),
    Filter(zone=0),
    Filter(zone=5),
    Filter(zone=65535),
    Filter(proto="udp"),
    Filter(family="ipv6"),
    Filter(src="10.0.0.1"),
    Filter(dst="fd00::2"),
    Filter(src="fd09::1"),
    Filter(proto="udp", dport=53),
    Filter(mark=3),
    Filter(mark=(2, 2)),
    Filter(zone=256, proto="tcp", src="fd00::1", dst="fd00::2", dport=80, sport=1000, mark=5),
    Filter(zone=7) & Filter(proto="gre"),
    Filter(zone=1, family="ipv4"),
]
LET_THROUGH = [
    Filter(zone=1, family="ipv4") & ~Filter(proto="udp"),
    Filter(),
    Filter(zone={1, 7}),
    Filter(zone=range(4)),
    Filter(src="10.0.0.0/24"),
    Filter(src="10.0.0.1") | Filter(zone=7),
    ~Filter(zone=7),
    Filter(mark=0),
    Filter(status="confirmed"),
    Filter(status=(0, Status.ASSURED)),
    Filter(status="assured"),
    Filter(reply_src="10.0.0.2"),
    Filter(mark=(1, 3)) | Filter(src="::/0"),
    Filter(icmp_type=8),
    Filter(zone=[]),
]


@pytest.mark.parametrize("wanted", [*DROPPED, *LET_THROUGH], ids=repr)
def test_the_kernel_drops_nothing_that_matches(
    ct: nlct.Conntrack, netns: nlct.Netns, wanted: Filter
) -> None:
    """And what it can tell it does drop."""
    made = list(flows.menagerie())
    with both(netns, wanted) as (dropped, whole):
        play(ct, made)
        found = queued(dropped)
        assert found == queued(whole)
        assert whole.received >= 2 * len(made)
        if wanted in DROPPED:
            # An event without a mark is let through.
            markless = 2 * sum(not flow.mark for flow in made)
            slack = markless if "mark" in repr(wanted) else 0
            assert 0 < len(found) <= dropped.received <= len(found) + slack
            assert dropped.received < whole.received


def test_a_filter_sees_what_an_event_says(ct: nlct.Conntrack) -> None:
    """Of a flow that goes the kernel does not tell the helper."""
    flow = Flow(nlct.Tuple("10.0.0.1", "10.0.0.2", "tcp", 1, 2), timeout=60, helper="ftp")
    with ct.events(filter=Filter(helper="ftp")) as events:
        ct.create(flow)
        ct.flush_all()
        assert [item.kind for item in queued(events)] == ["new"]
        assert events.received == 2


@given(seed=st.integers(0, 2**16), spec=filters.specs())
@examples(60)
def test_random_filters(seed: int, spec: filters.Spec) -> None:
    """The kernel drops nothing that matches, whatever is asked for; a dump finds the same."""
    with ExitStack() as stack:
        netns = stack.enter_context(nlct.Netns.scratch())
        ct = stack.enter_context(nlct.Conntrack(netns))
        dropped, whole = stack.enter_context(both(netns, filters.build(spec)))
        made = filters.random_flows(seed, 30)
        ct.load(made)
        found = queued(dropped)
        # Of flows that are made by ctnetlink, events say whatever may be asked for.
        ids = [flow.id for flow in ct.dump(filters.build(spec))]
        assert sorted(item.flow.id for item in found) == sorted(ids)
        play(ct, made)
        assert found + queued(dropped) == queued(whole)


# Overruns -----------------------------------------------------------------------------------------


def test_an_overrun_comes_behind_all_that_was_queued(ct: nlct.Conntrack) -> None:
    """In the order of what happened, with how many are missing; then the stream goes on."""
    made = numbered(0, 2000)
    with ct.events("new", buffer=65536) as events:
        ct.load(made)
        found = queued(events)
        count = len(found) - 1
        assert 0 < count < len(made)
        assert told(found) == [*sources(made[:count]), f"Overrun(lost={len(made) - count})"]
        ct.create(flows.udp(5000))
        assert told(queued(events)) == ["10.0.19.136"]


def test_what_is_dropped_until_the_queue_is_empty_is_counted(ct: nlct.Conntrack) -> None:
    """Though there is room, and the kernel has said ENOBUFS before."""
    with ct.events("new", buffer=1 << 20) as events:
        ct.load(numbered(0, 3000))
        found = [events.get(timeout=0)]
        ct.load(numbered(3000, 3010))
        found += queued(events)
        assert told(found)[:-1] == sources(numbered(0, len(found) - 1))
        assert heard(found) + lost(found) == 3010
        assert isinstance(found[-1], Overrun)


@pytest.mark.parametrize("buffer", telling([4096, 65536, 1 << 20, 16 << 20], [4096, 1 << 20]))
def test_events_and_losses_are_what_was_sent(ct: nlct.Conntrack, buffer: int) -> None:
    """At the highest rate there is, read meanwhile; in batches as well."""
    made = nlct.FlowTable.from_flows(numbered(0, 20000))
    count = 0
    with ct.events("new", buffer=buffer) as events, ThreadPoolExecutor(1) as pool:
        for batches in (False, True):
            storm = pool.submit(ct.load, made)
            if batches:
                count += _count_batches(events, len(made))
            else:
                while count < len(made):
                    item = events.get()
                    count += 1 if isinstance(item, Event) else item.lost or 0
            assert storm.result().created == len(made)
            # The last loss may be counted before the kernel says that there was one.
            rest = queued(events)
            assert heard(rest) == lost(rest) == 0
            ct.flush_all()
    assert count == 2 * len(made)


def _count_batches(events: nlct.Events, sent: int) -> int:
    count = 0
    batches = events.batches(columns=["id"], rows=1000)
    while count < sent:
        item = next(batches)
        if isinstance(item, Overrun):
            count += item.lost or 0
        else:
            assert 0 < len(item) <= 1000
            assert set(item.column("event")) == {EventKind.NEW}
            count += len(item)
    return count


def test_with_room_enough_nothing_is_lost(ct: nlct.Conntrack) -> None:
    """Nobody reads meanwhile."""
    made = numbered(0, 10000)
    with ct.events("new") as events:
        ct.load(made)
        assert told(queued(events)) == sources(made)


def test_a_reader_that_is_too_slow_is_told_meanwhile(ct: nlct.Conntrack) -> None:
    """Not only when the writer pauses."""
    made = nlct.FlowTable.from_flows(numbered(0, 1000))
    stop = threading.Event()
    sent = 0

    def write() -> None:
        nonlocal sent
        while not stop.is_set():
            sent += ct.load(made).created
            ct.flush_all()

    found: Items = []
    with ct.events("new", buffer=65536) as events, ThreadPoolExecutor(1) as pool:
        storm = pool.submit(write)
        try:
            while sum(isinstance(item, Overrun) for item in found) < 3:
                found.append(events.get(PATIENCE))
        finally:
            stop.set()
        storm.result()
        found += queued(events)
    assert None not in found
    assert heard(found) + lost(found) == sent


STOPPED = """
import sys, nlct
with nlct.Conntrack(sys.argv[1]) as ct, ct.events("new", buffer=65536) as events:
    print("ready", flush=True)
    for item in events:
        kind = "lost" if isinstance(item, nlct.Overrun) else "event"
        print(kind, item.lost if kind == "lost" else 1, flush=True)
"""


def test_a_reader_that_was_stopped_goes_on(ct: nlct.Conntrack, where: str) -> None:
    """And is told how much it has missed."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, where.split("=")[1]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            ct.load(numbered(0, 3000))
            process.send_signal(signal.SIGCONT)
            count = {"event": 0, "lost": 0}
            while sum(count.values()) < 3000:
                word, number = process.stdout.readline().split()
                count[word] += int(number)
            assert count["event"]
            assert count["lost"]
        finally:
            process.kill()


def test_a_socket_of_somebody_else_may_overrun(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """What another listener loses is none of ours."""
    with netlink.connect(netns) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        other.setsockopt(270, 1, 1)
        with ct.events("new") as events:
            ct.load(numbered(0, 200))
            found = queued(events)
    assert heard(found) == 200
    assert lost(found) == 0


def test_its_repr(ct: nlct.Conntrack) -> None:
    """What it listens to, and whether it is open."""
    events = ct.events(zone=7)
    assert "zone=7" in repr(events)
    assert "mode" in repr(events)
    events.close()
    events.close()
    assert "closed" in repr(events)
