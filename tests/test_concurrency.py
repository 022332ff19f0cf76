"""Threads, forks, signals, and a table that changes meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import nlct
from nlct import _handle, _log, capabilities
from nlct._ffi import lib
from nlct.fill import fill
from tests.support import flows, netlink, oracle
from tests.support.core import Lib
from tests.support.processes import in_child

# In Python 3.12 and later a fork beside threads is worth a warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

# Longer than anything here takes on a busy machine, and shorter than the limit of a test.
LONG = 240

HOW = [("scan", True), ("scan", False), ("auto", True)]


@pytest.mark.parametrize("kernel_filter", [True, False])
def test_many_threads_flush_one_zone(netns: nlct.Netns, kernel_filter: bool) -> None:
    """Each flow is counted as deleted once, by one of them; the rest of the table is untouched."""
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct, ThreadPoolExecutor(8) as pool:
        fill(ct, 20_000, 2)
        before = oracle.dump(netns)
        barrier = threading.Barrier(8)

        def flush(_: int) -> nlct.FlushResult:
            barrier.wait(LONG)
            return ct.flush_zone(1, strategy="scan")

        results = list(pool.map(flush, range(8)))
        assert oracle.dump(netns) == oracle.outside(before, {1})
    assert sum(result.deleted or 0 for result in results) == 10_000
    for result in results:
        assert result.failed == {}
        assert result.matched == (result.deleted or 0) + result.already_gone


@pytest.mark.parametrize(("strategy", "kernel_filter"), HOW)
def test_many_threads_flush_zones_of_their_own(
    netns: nlct.Netns, strategy: str, kernel_filter: bool
) -> None:
    """Through one object, each exactly its own zone."""
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct, ThreadPoolExecutor(8) as pool:
        fill(ct, 20_000, 10)
        before = oracle.dump(netns)
        results = list(pool.map(lambda z: ct.flush_zone(z, strategy=strategy), range(1, 9)))
        assert oracle.dump(netns) == oracle.outside(before, range(1, 9))
    for result in results:
        assert result.deleted in (2000, None)
        assert result.failed == {}
        # A dump may repeat a flow while others delete (or resize the machine's hash table).
        assert result.already_gone < 20 or result.passes > 1


def test_many_threads_do_everything_at_once(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Answers never go to the wrong caller."""
    fill(ct, 4000, 4)

    def work(number: int) -> None:
        zone = 100 + number
        for turn in range(5):
            flow = flows.udp(number * 1000 + turn, zone)
            ct.create(flow)
            assert ct.get(flow.orig, zone=zone).zone == zone
            assert {f.zone for f in ct.dump(zone=zone)} == {zone}
            assert ct.count(zone=1 + number % 4) == 1000
            assert ct.count_by("zone")[zone] == 1
            assert ct.flush_zone(zone, strategy="scan").deleted == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert oracle.by_zone(oracle.dump(netns)) == dict.fromkeys(range(1, 5), 1000)


class Churn(threading.Thread):
    """Creates flows in a zone all the time and deletes every other one itself, by the oracle."""

    def __init__(self, netns: nlct.Netns, zone: int) -> None:
        super().__init__()
        self.created = 0
        self.deleted = 0
        self.failure: BaseException | None = None
        self._netns = netns
        self._zone = zone
        self._enough = threading.Event()

    def run(self) -> None:
        """Churn until stopped."""
        try:
            with nlct.Conntrack(self._netns) as ct:
                while not self._enough.is_set():
                    batch = range(self.created, self.created + 50)
                    made = [flows.udp(n, self._zone) for n in batch]
                    assert ct.load(made).created == 50
                    self.created += 50
                    self._take_away(ct, made[::5])
        except BaseException as exc:
            self.failure = exc

    def _take_away(self, ct: nlct.Conntrack, made: list[nlct.Flow]) -> None:
        for flow in made:
            with suppress(nlct.NotFoundError):
                key, entry = raw(ct.get(flow.orig, zone=self._zone))
                self.deleted += oracle.delete(self._netns, key, entry) == 0

    def stop(self) -> None:
        """Stop and raise what went wrong."""
        self._enough.set()
        self.join()
        if self.failure is not None:
            raise self.failure


def raw(flow: nlct.Flow) -> tuple[oracle.Key, oracle.Entry]:
    """What the oracle needs to delete a UDP flow, written by hand."""
    orig, part, nest = flow.orig, netlink.attr, netlink.NESTED
    assert orig.src is not None
    assert orig.dst is not None
    assert flow.id is not None
    addresses = part(1, orig.src.packed) + part(2, orig.dst.packed)
    ports = [part(n, p.to_bytes(2, "big")) for n, p in ((2, orig.sport or 0), (3, orig.dport or 0))]
    proto = part(1, bytes((17,))) + b"".join(ports)
    key = oracle.Key(2, flow.zone, part(1 | nest, addresses) + part(2 | nest, proto))
    return key, {
        oracle.ID: flow.id.to_bytes(4, "big"),
        oracle.ZONE: flow.zone.to_bytes(2, "big"),
    }


@contextmanager
def churning(netns: nlct.Netns, *zones: int) -> Iterator[list[Churn]]:
    """Zones that change all the time."""
    threads = [Churn(netns, zone) for zone in zones]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()


@pytest.mark.parametrize("kernel_filter", [True, False])
def test_a_table_that_changes_while_it_is_flushed(netns: nlct.Netns, kernel_filter: bool) -> None:
    """Others keep every flow; in the flushed zone each flow is deleted once, by one of us."""
    with nlct.Conntrack(netns, kernel_filter=kernel_filter) as ct:
        flows.populate(ct, (0, 1, 5, 65535))
        fill(ct, 5000, 1)
        still = oracle.dump(netns)
        deleted = flushes = 0
        with churning(netns, 7, 9) as (flushed, other):
            deadline = time.monotonic() + LONG
            while flushes < 20 or flushed.deleted < 5 or deleted < 5:
                assert time.monotonic() < deadline, "the churn does not come off"
                result = ct.flush_zone(7, strategy="scan")
                assert result.failed == {}
                deleted += result.deleted or 0
                flushes += 1
        last = ct.flush_zone(7, strategy="scan")
        deleted += last.deleted or 0
        assert last.already_gone == 0
        after = oracle.dump(netns)
    assert oracle.outside(after, {9}) == still
    assert len(oracle.inside(after, {9})) == other.created - other.deleted
    assert deleted == flushed.created - flushed.deleted


@pytest.mark.usefixtures("kernel_flush")
def test_the_kernel_flushes_a_table_that_changes(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The kernel's own flush, through auto and directly, leaves the other zones as well."""
    flows.populate(ct, (0, 1, 65535))
    still = oracle.dump(netns)
    with churning(netns, 7, 9) as (_, other):
        for _ in range(10):
            ct.flush_zone(7, strategy="kernel")
            ct.flush_zone(7, strategy="auto")
    ct.flush_zone(7)
    after = oracle.dump(netns)
    assert oracle.outside(after, {9}) == still
    assert len(oracle.inside(after, {9})) == other.created - other.deleted


# Fork ------------------------------------------------------------------------------------------


def test_a_child_keeps_back_nothing_for_its_parents_threads() -> None:
    """A new thread of the child may get the number of one of them, and must be heard."""
    kept, release = threading.Event(), threading.Event()

    def wait() -> None:
        with _log.keep([]):
            kept.set()
            release.wait()

    own: list[_log.Said] = []
    other = threading.Thread(target=wait)
    other.start()
    try:
        kept.wait()

        def child() -> None:
            assert list(_log._kept) == [threading.get_ident()]
            _log.say(_log.WARNING, "something")
            assert len(own) == 1

        with _log.keep(own):
            assert in_child(child) == 0
        assert other.ident in _log._kept
    finally:
        release.set()
        other.join()


def test_parent_and_child_go_on_after_a_fork(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Both use the one object at once, and neither gets the other's answers."""
    fill(ct, 20_000, 20)
    before = oracle.dump(netns)
    start, go = os.pipe()

    def child() -> None:
        os.read(start, 1)
        for zone in range(1, 9):
            assert ct.flush_zone(zone, strategy="scan").deleted == 1000
            assert ct.count(zone=20) == 1000

    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(in_child, child)
        os.write(go, b"x")
        for zone in range(9, 17):
            assert ct.flush_zone(zone, strategy="scan").deleted == 1000
            assert ct.count(zone=20) == 1000
        assert status.result() == 0
    os.close(start)
    os.close(go)
    assert oracle.dump(netns) == oracle.outside(before, range(1, 17))


def test_a_fork_in_the_middle_of_a_flush(netns: nlct.Netns) -> None:
    """From the callback and beside a thread that flushes: the child works, the parent goes on."""
    with nlct.Conntrack(netns, kernel_filter=False) as ct:
        fill(ct, 60_000, 60)
        before = oracle.dump(netns)
        statuses: list[int] = []
        half = threading.Event()

        def child() -> None:
            assert ct.count(zone=50) == 1000
            result = ct.flush_zone(51, strategy="scan")
            assert result.matched == (result.deleted or 0) + result.already_gone
            assert result.failed == {}
            ct.close()

        def on_progress(_scanned: int) -> None:
            if not half.is_set():
                half.set()
                statuses.append(in_child(child))

        def beside() -> None:
            half.wait(LONG)
            statuses.append(in_child(child))

        thread = threading.Thread(target=beside)
        thread.start()
        result = ct.flush_zones(range(1, 11), strategy="scan", progress=on_progress)
        thread.join()
        assert statuses == [0, 0]
        assert (result.deleted, result.already_gone) == (10_000, 0)
        assert oracle.dump(netns) == oracle.outside(before, {*range(1, 11), 51})
        assert ct.count(zone=20) == 1000


def test_a_dump_that_was_forked_does_not_spoil_the_childs_sockets(netns: nlct.Netns) -> None:
    """A child that goes on with a dump of its parent is refused, and takes nothing from it."""
    with nlct.Conntrack(netns) as ct:
        # More than one step of a dump holds.
        fill(ct, 6000, 3)
        dump = ct.dump(zone=1)
        next(dump)

        def child() -> None:
            ct.count()
            with pytest.raises(RuntimeError, match="fork"):
                list(dump)
            assert len(ct._handle.pool._own().sockets) == 1, (
                "the parent's socket is lent out in the child"
            )

        assert in_child(child) == 0
        assert len(list(dump)) == 1999


def threads() -> int:
    """Count the threads of this process, those of the core as well."""
    return len(os.listdir("/proc/self/task"))


def begin_a_long_dump(ct: nlct.Conntrack) -> Iterator[nlct.Flow]:
    """Dump until a thread of the core receives ahead, where there is a processor for it."""
    before = threads()
    dump = ct.dump()
    if len(os.sched_getaffinity(0)) > 1:
        for _ in dump:
            if threads() > before:
                return dump
        pytest.fail("nobody received ahead")
    return dump


def until_threads_are(count: int) -> None:
    """Wait for the kernel, which counts a thread until a moment after its end."""
    deadline = time.monotonic() + LONG
    while threads() != count:
        assert time.monotonic() < deadline, f"{threads()} threads in place of {count}"
        time.sleep(0.001)


@pytest.mark.parametrize("left", ["ended", "closed", "forgotten", "closed table"])
def test_no_thread_outlives_its_dump(netns: nlct.Netns, left: str) -> None:
    """However the dump ends; what was received ahead is let go of."""
    with nlct.Conntrack(netns) as ct:
        fill(ct, 20_000, 20)
        before = threads()
        dump = begin_a_long_dump(ct)
        if left == "ended":
            assert sum(1 for _ in dump) > 0
        elif left == "closed":
            dump.close()  # type: ignore[attr-defined]
        elif left == "closed table":
            ct.close()
        del dump
        until_threads_are(before)


def test_a_child_has_no_thread_of_its_parents_dump(netns: nlct.Netns) -> None:
    """It is refused to go on with the dump, and may let go of it; the parent goes on."""
    with nlct.Conntrack(netns) as ct:
        fill(ct, 20_000, 20)
        dump = begin_a_long_dump(ct)

        def child() -> None:
            nonlocal dump
            with pytest.raises(RuntimeError, match="fork"):
                list(dump)
            del dump
            assert threads() == 1
            assert sum(1 for _ in ct.dump()) == 20_000

        assert in_child(child) == 0
        rest = {flow.orig for flow in dump}
        assert 0 < len(rest) < 20_000
        assert {flow.orig for flow in ct.dump()} > rest


def test_a_fork_while_another_thread_measures_the_kernel(netns: nlct.Netns) -> None:
    """The child does not wait for a thread that it does not have."""
    del netns
    capabilities._known.clear()
    with capabilities._lock.real, ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_child, nlct.probe).result() == 0


def test_closing_beside_a_flush_is_clean(netns: nlct.Netns) -> None:
    """A flush either ends or says that the table is closed; never a crash, never another zone."""
    with nlct.Conntrack(netns) as helper:
        for _ in range(5):
            fill(helper, 10_000, 10)
            before = oracle.dump(netns)
            ct = nlct.Conntrack(netns, kernel_filter=False)
            started = threading.Barrier(5)

            def work(number: int, ct: nlct.Conntrack = ct, on: threading.Barrier = started) -> None:
                on.wait(LONG)
                with suppress(ValueError):
                    for _ in range(100):
                        ct.flush_zone(1 + number, strategy="scan")

            with ThreadPoolExecutor(4) as pool:
                done = [pool.submit(work, number) for number in range(4)]
                started.wait(LONG)
                time.sleep(0.01)
                ct.close()
                for future in done:
                    future.result(LONG)
            after = oracle.dump(netns)
            assert oracle.outside(after, range(1, 5)) == oracle.outside(before, range(1, 5))


def test_closing_while_the_size_is_being_opened_is_clean(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespace that a file is to be opened in goes away: that is said as at any other time."""
    ct = nlct.Conntrack(netns)

    def open_closed(*arguments: object) -> int:
        ct.close()
        return int(lib.nlct_netns_file(*arguments))

    monkeypatch.setattr(_handle, "lib", Lib(nlct_netns_file=open_closed))
    with pytest.raises(ValueError, match="this Conntrack is closed"):
        list(ct.dump())


def test_a_dump_that_outlives_its_table_is_not_called_resized(netns: nlct.Netns) -> None:
    """Closed in the middle, a dump ends or says that it is closed: no resize has happened."""
    with nlct.Conntrack(netns) as ct:
        fill(ct, 5000, 1)
        dump = ct.dump()
        next(dump)
        ct.close()
        with suppress(ValueError):
            assert sum(1 for _ in dump) == 4999


# Ctrl-C ----------------------------------------------------------------------------------------

INTERRUPTED = """
import os, sys, time, nlct
from nlct.fill import fill

with nlct.Netns.scratch() as netns, nlct.Conntrack(netns, kernel_filter=False) as ct:
    flows = min(int(os.environ.get("NLCT_TEST_FLOWS", "50000")), ct.limit) // 200 * 200
    assert fill(ct, flows, 200).failed == {}
    try:
        print("ready", flush=True)
        while True:
            WORK
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    # The object works on, and no zone but 7 was touched.
    counts = ct.count_by("zone")
    assert [z for z in range(1, 201) if counts.get(z) != flows // 200] in ([], [7]), counts
    assert ct.flush_zone(8, strategy="scan").deleted == flows // 200
    print("usable", flush=True)
"""


@pytest.mark.parametrize(
    "work",
    [
        "ct.flush_zones({7, 65535}, strategy='scan')",
        "for flow in ct.dump(): pass",
        "ct.count(zone={1, 2, 3})",
        "ct.count_by('zone')",
    ],
)
@pytest.mark.usefixtures("netns")
def test_ctrl_c_is_heard_in_the_middle_of_a_dump(
    work: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """KeyboardInterrupt comes out of a dump over a large table, and the object works on."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("WORK", work)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.33)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        latency = float(child.stdout.readline()) - sent
        assert child.stdout.readline() == "usable\n"
    with capsys.disabled():
        print(f" {latency * 1000:.0f} ms", end="")
    assert child.returncode == 0
    assert latency < 10
