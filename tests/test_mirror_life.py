"""A mirror from its first thread to its end: forks, signals, threads, exits, and thieves."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest

import nlct
from nlct import Filter, _keeper, _threads
from nlct import mirror as mirroring
from nlct._ffi import lib
from nlct.mirror import Mirror
from tests.support import flows, hidden, interrupts, oracle, seccomp
from tests.support.examples import telling
from tests.support.hidden import until
from tests.support.processes import Script, in_child
from tests.support.threads import own_threads

# In Python 3.12 and later a fork beside threads is worth a warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LONG = hidden.LONG
# Between how many calls a signal comes: there are some hundreds.
ANYWHERE = pytest.mark.parametrize("step", telling([1, 23], {23}))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever happened to a mirror, its thread has ended with it."""
    yield
    gc.collect()
    until(lambda: not own_threads(), LONG)


@pytest.fixture
def mirror(netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror in step, which tries again soon when it is not."""
    monkeypatch.setattr(_keeper, "LONGEST_DELAY", 0.1)
    with Mirror(netns, index=("zone", "address")) as made:
        assert made.wait(LONG)
        yield made


def fill(ct: nlct.Conntrack, zone: int, many: int = 10) -> None:
    """Put so many flows into a zone."""
    ct.load([flows.udp(number, zone) for number in range(many)])


def zones(netns: nlct.Netns) -> dict[int, int]:
    """How many flows each zone has."""
    return oracle.by_zone(oracle.dump(netns))


def descriptors() -> dict[int, str]:
    """What is open, by number."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def works(mirror: Mirror, netns: nlct.Netns, zone: int = 1) -> None:
    """See to it that a mirror is as good as new, or will be in time."""
    with nlct.Conntrack(netns) as ct:
        fill(ct, zone)
        fill(ct, 99)
        before = zones(netns)
        result = mirror.flush_zone(zone)
        assert result.deleted in (before[zone], None)
        del before[zone]
        assert zones(netns) == before
        assert mirror.wait(LONG)
        fill(ct, zone)
        assert mirror.count(zone=zone) == 10
        assert sum(1 for _ in mirror.flows(zone=zone)) == 10
        assert mirror.flush_zone(zone).strategy == "mirror"
        assert zones(netns) == before


# Forks --------------------------------------------------------------------------------------------


def test_a_child_begins_anew(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """It listens by itself, and its end takes nothing away from its parent."""
    fill(ct, 1)
    fill(ct, 2)
    dumps = mirror.state.dumps

    def child() -> None:
        assert mirror.flush_zone(1).deleted in (10, None)
        works(mirror, netns, 3)
        mirror.close()
        assert not own_threads()

    assert in_child(child) == 0
    assert zones(netns) == {2: 10, 99: 10}
    # Told of everything, also of what the child did.
    assert mirror.count_by("zone") == {2: 10, 99: 10}
    assert mirror.flush_zone(2).strategy == "mirror"
    assert mirror.state.dumps == dumps


def test_a_child_that_does_not_use_it(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """It does not hold what the parent listens with; and may end in any way."""
    streams = mirror._keeper._events, mirror._keeper._anchor
    mine = {descriptors()[lib.nlct_events_fd(stream[0])] for stream in streams}
    assert len(mine) == 2

    def child() -> None:
        assert not mine & set(descriptors().values())
        assert not own_threads()

    assert in_child(child) == 0
    assert in_child(lambda: os._exit(0)) == 0
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)) == -signal.SIGKILL
    assert in_child(mirror.close) == 0
    fill(ct, 1)
    assert mirror.flush_zone(1).strategy == "mirror"
    assert mirror.state.dumps == 1
    assert zones(netns) == {}


def test_threads_of_a_child_begin_together(netns: nlct.Netns, mirror: Mirror) -> None:
    """One thread listens for all of them."""
    old = mirror._keeper

    def child() -> None:
        barrier = threading.Barrier(8)

        def use(_number: int) -> object:
            barrier.wait()
            mirror.count()
            return mirror._keeper

        with ThreadPoolExecutor(8) as pool:
            keepers = set(pool.map(use, range(8)))
        assert len(keepers) == 1
        assert old not in keepers
        assert len(own_threads()) == 1
        works(mirror, netns)

    assert in_child(child) == 0


@contextlib.contextmanager
def held_by_another(lock: _threads.Lock) -> Iterator[None]:
    """Have a thread hold a lock, as it does in the middle of something."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.real:
            taken.set()
            done.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(LONG)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_what_was_under_way_does_not_outlive_a_fork(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror
) -> None:
    """A generator of flows says so in the child, which hangs neither then nor when it goes."""
    fill(ct, 1, 600)
    begun, other = mirror.flows(zone=1), mirror.flows()
    next(begun)
    next(other)
    kept = [begun, other]

    def child() -> None:
        with pytest.raises(RuntimeError, match="fork"):
            sum(1 for _ in begun)
        kept.clear()
        gc.collect()
        works(mirror, netns, 2)

    with held_by_another(mirror._keeper.lock):
        assert in_child(child, LONG) == 0
    assert 1 + sum(1 for _ in begun) == 600
    assert 1 + sum(1 for _ in other) == 600


def test_a_fork_in_the_middle_of_a_dump(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the thread's, which holds the lock; the child does not miss it, the parent goes on."""
    fill(ct, 1, 100)
    keeper = mirror._keeper
    here, on = threading.Event(), threading.Event()
    drain = keeper.drain

    def held() -> bool:
        if threading.get_ident() == keeper._ident and not here.is_set():
            here.set()
            assert on.wait(LONG)
        return drain()

    begin = keeper.memory.begin

    def begin_held(audit: bool = False) -> None:
        monkeypatch.setattr(keeper, "drain", held)
        begin(audit)

    monkeypatch.setattr(keeper.memory, "begin", begin_held)
    with keeper.lock.real:
        keeper.lose("a test says so")
    assert here.wait(LONG)
    assert not keeper.lock.real.acquire(blocking=False)

    def child() -> None:
        on.set()
        works(mirror, netns, 2)
        assert mirror.count(zone=1) == 100

    assert in_child(child) == 0
    on.set()
    assert mirror.wait(LONG)
    assert mirror.flush_zone(1).deleted == 100


@ANYWHERE
def test_a_fork_by_a_signal_handler(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, step: int
) -> None:
    """Wherever it interrupts a flush: the parent gets an answer, the child one or an error."""
    parent = os.getpid()
    children: list[int] = []

    def work() -> None:
        try:
            mirror.flush_zones({1, 2})
        except RuntimeError as exc:
            if os.getpid() == parent or "fork" not in str(exc):
                raise

    def fork() -> None:
        children.append(os.fork())
        if os.getpid() != parent:
            signal.alarm(int(LONG))

    for point in interrupts.everywhere(work, fork, step):
        if os.getpid() != parent:
            status = 1
            with contextlib.suppress(BaseException):
                mirror.flush_zone(1)
                assert mirror.count(zone=1) == 0
                status = 0
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1])
        assert status == 0, f"interrupted behind call {point}"
    assert os.getpid() == parent
    works(mirror, netns)
    assert mirror.state.dumps == 1
    assert ct.count(zone=1) == 0


# Signals ------------------------------------------------------------------------------------------


@ANYWHERE
def test_interrupted_anywhere(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, step: int
) -> None:
    """A call that is given up leaves no lock held, no walk begun and no answer to be misread."""
    works: dict[str, Callable[[], object]] = {
        "flush": lambda: mirror.flush_zones({1, 2}),
        "look up": lambda: mirror.delete(Filter(zone=1, mark=0, src="10.0.0.0/30")),
        "flows": lambda: list(mirror.flows(zone=3)),
        "state": lambda: mirror.state,
    }
    fill(ct, 3)
    keeper = mirror._keeper
    for name, work in works.items():
        times = 0
        for point in interrupts.everywhere(work, step=step):
            said = f"{name}, behind call {point}"
            gc.collect()
            assert not keeper.lock.real._is_owned(), said
            assert len(keeper.memory._walks) <= times, said
            keeper.memory._walks.clear()
            if times % 7 == 0:
                ct.create(flows.udp(50, 1))
                result = mirror.flush_zone(1)
                assert (result.strategy, result.deleted) == ("mirror", 1), said
            times += 1
        assert times > 1
    assert zones(netns) == {3: 10}
    assert mirror.state.dumps == 1


@ANYWHERE
@pytest.mark.parametrize("what", ["flush", "close"])
def test_a_signal_handler_anywhere(
    netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror, what: str, step: int
) -> None:
    """It flushes, or it closes what it interrupts: neither waits for ever."""
    made: list[Mirror] = [mirror]
    outcomes = set()

    def work() -> None:
        try:
            outcomes.add(made[0].flush_zones({1, 2}).strategy)
        except ValueError as exc:
            outcomes.add("closed" if "closed" in str(exc) else str(exc))

    def flush() -> None:
        result = made[0].delete(Filter(src="10.0.0.1"))
        assert result.deleted in (0, 1)
        assert result.strategy == "mirror"

    def prepare() -> None:
        if what == "close":
            made[:] = [Mirror(ct)]
        ct.load([flows.udp(number, 1) for number in range(3)])

    prepare()

    def close() -> None:
        made[0].close()

    for point in interrupts.everywhere(work, flush if what == "flush" else close, step):
        if what == "flush":
            assert zones(netns) == {}, f"interrupted behind call {point}"
        else:
            ct.flush_zone(1, strategy="scan")
        prepare()
    made[0].close()
    assert outcomes - {"scan", "mirror"} == ({"closed"} if what == "close" else set())


def test_ctrl_c_while_it_waits(netns: nlct.Netns, mirror: Mirror) -> None:
    """wait() ends; the mirror is as it was."""
    with mirror._keeper.lock.real:
        mirror._keeper.lose("a test says so")
        mirror._keeper._earn_at = float("inf")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        mirror.wait()
    timer.join()
    mirror._keeper._earn_at = 0.0
    works(mirror, netns)


# The end ------------------------------------------------------------------------------------------


BEGIN = """
import contextlib, os, signal, sys, threading, time
import nlct
from nlct.mirror import Mirror
from tests.support import flows
netns = nlct.Netns.scratch()
ct = nlct.Conntrack(netns)
ct.load([flows.udp(number, number % 4) for number in range(2000)])
mirror = Mirror(netns)
"""

AT_EXIT = {
    "unclosed": "mirror.wait(); print('end')",
    "not in step": "print('end')",
    "a generator": "mirror.wait(); left = mirror.flows(); next(left); print('end')",
    "from a thread": """
def work():
    mine = Mirror(netns)
    assert mine.wait(60) and mine.flush_zone(1).deleted == 500
    print("end")
threading.Thread(target=work).start()
""",
    "daemons that never stop": """
def forever(zone):
    with contextlib.suppress(ValueError): # it is closed in the end
        while True:
            mirror.flush_zone(zone)
            for flow in mirror.flows():
                pass
mirror.wait()
for zone in (1, 2):
    threading.Thread(target=forever, args=(zone,), daemon=True).start()
time.sleep(0.05)
print("end")
""",
    "a handler that flushes": """
import atexit
atexit.register(lambda: print("end" if mirror.flush_zone(1).deleted == 500 else "no"))
mirror.wait()
""",
    "a cycle": """
mirror.myself = mirror
mirror.wait()
del mirror
print("end")
""",
    "sys.exit in a signal handler": """
mirror.wait()
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
print("end", flush=True)
while True:
    mirror.flush_zone(1)
""",
    "os._exit": "mirror.wait(); print('end', flush=True); os._exit(0)",
}


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("case", AT_EXIT)
def test_the_interpreter_ends(case: str) -> None:
    """Without a word on standard error, also in development mode."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + AT_EXIT[case]],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("end", "", 0)


def listeners(netns: nlct.Netns) -> int:
    """How many sockets of a namespace listen to groups of netfilter."""
    with open(netns.open_file("/proc/net/netlink")) as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[1] == "12" and row[2] != "0" and int(row[3], 16) != 0 for row in rows)


def test_kill_9(netns: nlct.Netns) -> None:
    """The kernel lets go of what it held."""
    ready, told = os.pipe()

    def child() -> None:
        made = Mirror(netns)
        assert made.wait(LONG)
        os.write(told, b"1")
        signal.pause()

    pid = os.fork()
    if pid == 0:
        child()
        os._exit(1)
    assert os.read(ready, 1) == b"1"
    assert listeners(netns) == 2
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert listeners(netns) == 0
    os.close(ready)
    os.close(told)


def test_one_that_is_dropped(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Without close(): its thread ends, its sockets are closed, the caller does not wait."""
    fill(ct, 1)
    for unfinished in (False, True):
        made: Mirror | None = Mirror(ct)
        assert made is not None
        assert made.wait(LONG)
        left = made.flows() if unfinished else None
        if left is not None:
            next(left)
        gone = weakref.ref(made)
        # What collects it may hold anything that its thread waits for.
        with ct._handle.pool._own().lock.real, made._keeper.lock.real:
            made = left = None
            gc.collect()
        assert gone() is None
        until(lambda: not own_threads())
        until(lambda: not listeners(netns))


def test_one_that_its_own_thread_drops(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its thread may be the one that collects garbage."""
    made = [Mirror(ct)]
    assert made[0].wait(LONG)
    gone = weakref.ref(made[0])
    turn = made[0]._keeper._turn

    def drop() -> None:
        made.clear()
        gc.collect()
        turn()

    monkeypatch.setattr(made[0]._keeper, "_turn", drop)
    until(lambda: gone() is None)
    until(lambda: not own_threads())
    assert listeners(netns) == 0


def test_close_beside_everything(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Calls in other threads end, with an answer or an error that says so; nothing crashes."""
    for turn in range(5):
        fill(ct, 1, 500)
        close_beside(Mirror(ct, index=("zone", "address")), 0.01 * turn)
        assert not own_threads()
        assert listeners(netns) == 0


def close_beside(made: Mirror, seconds: float) -> None:
    """Close a mirror some seconds after many have begun to use it."""
    assert made.wait(LONG)
    calls: list[Callable[[], object]] = [
        lambda: made.flush_zone(1),
        lambda: sum(1 for _ in made.flows()),
        lambda: made.delete(Filter(src="10.0.0.0/24", mark=0)),
        lambda: made.count_by("zone"),
        lambda: made.state,
        lambda: made.wait(1),
        lambda: made.flush_zone(1, dry_run=True),
    ]
    begun = threading.Barrier(len(calls) + 1)

    def use(call: Callable[[], object]) -> None:
        begun.wait()
        with pytest.raises(ValueError, match="closed"):
            collections.deque(iter(call, begun), maxlen=0)

    with ThreadPoolExecutor(len(calls)) as pool:
        done = [pool.submit(use, call) for call in calls]
        begun.wait()
        time.sleep(seconds)
        made.close()
        for each in done:
            each.result(LONG)


def test_closed_in_the_middle_of_its_work(netns: nlct.Netns, ct: nlct.Conntrack) -> None:
    """Between a look-up and the delete, and in a generator; the Conntrack stays open."""
    fill(ct, 1, 600)
    made = Mirror(ct, index=("address",))
    assert made.wait(LONG)
    left = made.flows()
    next(left)
    find = mirroring._lookup.find

    def close_first(*arguments: object) -> object:
        made.close()
        return find(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirroring._lookup, "find", close_first)
        with pytest.raises(ValueError, match="closed"):
            made.delete(Filter(src="10.0.0.1", mark=0))
    with pytest.raises(ValueError, match="closed"):
        sum(1 for _ in left)
    assert ct.count() == 600
    never = Mirror(ct)
    assert never.wait(LONG)
    begun = never.flows()
    next(begun)
    never.close()
    memory = never._keeper.memory
    assert memory._walks
    begun.close()  # type: ignore[attr-defined]
    assert not memory._walks
    calls: tuple[Callable[[], object], ...] = (
        lambda: never.flush_zone(1),
        never.count,
        lambda: never.state,
        lambda: len(never),
    )
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    never.close()
    assert listeners(netns) == 0


# Thieves and other troubles -----------------------------------------------------------------------


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_descriptors_that_the_program_closes(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    """Each of them, by itself and all at once: it opens others, and closes nobody else's."""
    monkeypatch.setattr(_keeper, "LONGEST_DELAY", 0.1)
    before = descriptors()
    with Mirror(ct) as mirror:
        assert mirror.wait(LONG)
        fill(ct, 5)
        assert mirror.flush_zone(5).deleted == 10
        held: list[int] = []
        for which in itertools.count():
            mine = sorted(set(descriptors()) - set(before) - set(held))
            stolen = mine if which == len(mine) else mine[which : which + 1]
            if not stolen:
                break
            for fd in stolen:
                os.close(fd)
                if reused:
                    null = os.open("/dev/null", os.O_RDONLY)
                    if null != fd:
                        os.dup2(null, fd)
                        os.close(null)
                    held.append(fd)
            works(mirror, netns)
            until(lambda: mirror.state.in_step)
        assert which >= 4
    for fd in held:
        assert descriptors()[fd] == "/dev/null"
        os.close(fd)


def test_where_no_thread_can_be_had(
    netns: nlct.Netns, ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and leaves nothing behind; a child of a fork can try again."""

    def refuse(_thread: _threads.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Mirror(ct) as mirror:
        assert mirror.wait(LONG)
        before = descriptors()

        def child() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_threads.Thread, "start", refuse)
                for _ in range(2):
                    with pytest.raises(RuntimeError, match="thread"):
                        mirror.flush_zone(1)
            works(mirror, netns)

        assert in_child(child) == 0
        with monkeypatch.context() as patch:
            patch.setattr(_threads.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="thread"):
                Mirror(ct)
        gc.collect()
        assert descriptors() == before


def test_whatever_the_thread_meets(
    netns: nlct.Netns, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It survives, and says so; also where there is no memory to say it with."""
    keeper = mirror._keeper
    turn, say = keeper._turn, keeper._say
    failures: list[BaseException] = []
    told: list[str] = []

    def fail() -> None:
        if failures:
            raise failures.pop()
        turn()

    def short(*_: object) -> None:
        told.append(keeper.reason)
        raise MemoryError

    monkeypatch.setattr(keeper, "_turn", fail)
    for exc, reason in (
        (OSError(5, "no luck"), "[Errno 5] no luck"),
        (MemoryError(), "MemoryError"),
        (KeyError("x"), "'x'"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(keeper, "_say", lambda *_: (told.append(keeper.reason), say(*_)))
            failures.append(exc)
            until(lambda: told)
        assert told.pop() == reason
        works(mirror, netns)
    monkeypatch.setattr(keeper, "_say", short)
    failures.append(MemoryError())
    until(lambda: told)
    assert not keeper.in_step
    monkeypatch.setattr(keeper, "_say", say)
    works(mirror, netns)


def test_cancelled_tasks(netns: nlct.Netns, ct: nlct.Conntrack, mirror: Mirror) -> None:
    """What was begun is done; the others are not disturbed."""
    for zone in range(1, 21):
        fill(ct, zone, 20)

    async def run() -> int:
        tasks = [asyncio.ensure_future(mirror.aflush_zone(zone)) for zone in range(1, 21)]
        tasks.append(asyncio.ensure_future(mirror.adelete(Filter(zone=21))))
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])
        return sum(one.deleted for one in done[1::2])  # type: ignore[union-attr,misc]

    assert asyncio.run(run()) == 200
    assert not set(range(2, 21, 2)) & set(zones(netns))
    works(mirror, netns, 50)


WITHOUT_MEMBARRIER = """
import errno, os
import nlct
from nlct.mirror import Mirror
from tests.support import flows, seccomp
netns = nlct.Netns.scratch()
seccomp.enter("membarrier", errno.EPERM)
with nlct.Conntrack(netns) as ct, Mirror(ct) as mirror:
    assert mirror.wait(60)
    ct.create(flows.udp(1, 1))
    assert mirror.flush_zone(1).deleted == 1
print("end")
"""


@pytest.mark.usefixtures("netns")
def test_without_membarrier(script: Script) -> None:
    """It waits a little in its place."""
    seccomp.required()
    assert script(WITHOUT_MEMBARRIER) == "end"


UNPRIVILEGED = """
import pathlib, time
import nlct
from nlct.mirror import Mirror
from tests.support import flows, oracle
try:
    netns = nlct.Netns.scratch()
except PermissionError as exc:
    print(f"MISSING: no network namespace can be had here: {exc}")
    raise SystemExit
most = int(pathlib.Path("/proc/sys/net/core/rmem_max").read_text())
ct = nlct.Conntrack(netns)
with Mirror(ct, buffer=1 << 29) as mirror:
    assert mirror.state.buffer <= most, (mirror.state, most)
with Mirror(ct, buffer=4096) as mirror:
    assert mirror.wait(60)
    for zone in range(1, 4):
        with mirror._keeper.lock.real:
            ct.load([flows.udp(number, zone) for number in range(2000)])
        before = oracle.by_zone(oracle.dump(netns))
        assert before[zone] == 2000
        result = mirror.flush_zone(zone)
        assert result.deleted in (2000, None), result
        del before[zone]
        assert oracle.by_zone(oracle.dump(netns)) == before
        ct.create(flows.udp(1, zone))
    assert mirror.state.overruns
    assert mirror.wait(60)
    assert mirror.count_by("zone") == oracle.by_zone(oracle.dump(netns))
    assert mirror.state.buffer <= most
print("end")
"""


@pytest.mark.usefixtures("netns")
def test_without_privilege(script: Script) -> None:
    """A small buffer is all that a user may have: overruns, but never a wrong answer."""
    said = script(UNPRIVILEGED, nobody=True)
    if said.startswith("MISSING"):
        pytest.skip(said)
    assert said == "end"


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EBADMSG, errno.EIO])
def test_an_event_that_cannot_be_taken(
    netns: nlct.Netns,
    ct: nlct.Conntrack,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """For want of memory, or for whatever reason: it loses step, says why, and earns it again."""
    failures = [-number]

    class Failing:
        """The core, but for one call that fails."""

        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def nlct_events_take(self, *arguments: object) -> int:
            return failures.pop() if failures else lib.nlct_events_take(*arguments)

    fill(ct, 1)
    with mirror._keeper.lock.real:
        monkeypatch.setattr(_keeper, "lib", Failing())
        ct.create(flows.udp(20, 1))
        result = mirror.flush_zone(1)
        assert not failures
    assert result.strategy != "mirror"
    assert result.deleted in (11, None)
    assert zones(netns) == {}
    works(mirror, netns)
    assert mirror.state.dumps > 1
