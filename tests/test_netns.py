"""Reaching into other network namespaces, and staying where one is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nlct
from nlct import netns as namespaces
from tests.support import flows, oracle
from tests.support.descriptors import descriptors
from tests.support.namespaces import scratch, where_am_i
from tests.support.processes import WALL, Script


def identity(fd: int) -> str:
    """What a namespace is called in /proc."""
    return f"net:[{os.fstat(fd).st_ino}]"


@pytest.fixture
def named(root: None) -> Iterator[str]:  # noqa: ARG001
    """A named namespace, as ip(8) makes them."""
    if not shutil.which("ip"):
        pytest.skip("MISSING: iproute2")
    name = f"nlct-test-{os.getpid()}-{threading.get_ident() & 0xFFFF}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def process() -> Iterator[int]:
    """A process in a namespace of its own."""
    if not shutil.which("unshare"):
        pytest.skip("MISSING: unshare")
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--net"]
    with subprocess.Popen(
        ["unshare", *options, "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            pytest.skip("MISSING: a network namespace for a process")
        yield child.pid
        child.kill()


def is_there(spec: namespaces.NetnsLike, expected: str) -> None:
    """A table, sockets and files of the namespace; the thread has not moved."""
    before = where_am_i()
    with nlct.Conntrack(spec) as ct, namespaces.Netns.open(spec) as opened:
        assert identity(opened.fileno()) == expected != before[0]
        ct.create(flows.udp(1, 7))
        assert oracle.by_zone(oracle.dump(opened)) == {7: 1}
        assert ct.flush_zone(7, strategy="scan").deleted == 1
        sock = opened.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock, pytest.raises(OSError, match="unreachable"):
            sock.connect(("192.0.2.1", 9))
        os.close(opened.open_file("/proc/sys/net/netfilter/nf_conntrack_count"))
    assert where_am_i() == before


def test_by_name_and_path(named: str) -> None:
    """As ip-netns(8) calls it, and by any path, text or object."""
    path = Path("/run/netns") / named
    expected = f"net:[{path.stat().st_ino}]"
    for spec in (named, str(path), path):
        is_there(spec, expected)


def test_by_process(process: int) -> None:
    """By process id, and by its path in /proc."""
    expected = os.readlink(f"/proc/{process}/ns/net")
    is_there(process, expected)
    is_there(f"/proc/{process}/ns/net", expected)


def test_by_descriptor(netns: nlct.Netns) -> None:
    """By descriptor, and by an object that has one; both stay the caller's."""
    is_there(netns, identity(netns.fileno()))
    is_there(netns.fileno(), identity(netns.fileno()))
    copy = os.dup(netns.fileno())
    with open(copy, closefd=False) as file:
        is_there(file, identity(netns.fileno()))
    os.close(copy)


def test_a_table_outlives_the_object_it_was_opened_with() -> None:
    """Conntrack holds the namespace by itself, and lets go of it."""
    netns = scratch()
    ct = nlct.Conntrack(netns)
    netns.close()
    ct.create(flows.udp(1))
    assert ct.count() == 1
    ct.close()


def test_none_is_the_callers_own(script: Script) -> None:
    """Without netns= it is the namespace of the calling thread."""
    code = """
import ctypes, os, threading, nlct
from tests.support import flows, oracle
with nlct.Netns.scratch() as netns:
    def inside():
        if os.geteuid() == 0:
            assert ctypes.CDLL(None).setns(netns.fileno(), 0x40000000) == 0
            with nlct.Conntrack() as ct:
                ct.create(flows.udp(1, 7))
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    print(len(oracle.dump(netns)))
"""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root")
    assert script(code) == "1"


def test_two_namespaces_are_two_tables(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """The same flow in both; a flush of one leaves the other."""
    with nlct.Netns.scratch() as other, nlct.Conntrack(other) as twin:
        for table in (ct, twin):
            table.create(flows.udp(1, 7))
        before = oracle.dump(netns)
        assert twin.flush_all(strategy="scan").deleted == 1
        assert oracle.dump(netns) == before
        assert oracle.dump(other) == {}


def test_a_scratch_namespace_is_gone_with_its_holders() -> None:
    """No descriptor is left behind, and the thread that made it has not moved."""
    before = where_am_i(), descriptors()
    with scratch() as netns, nlct.Conntrack(netns) as ct:
        ct.create(flows.udp(1))
        ct.flush_all()
        list(ct.dump())
    assert (where_am_i(), descriptors()) == before


def test_no_child_and_no_signal_is_left(netns: nlct.Netns) -> None:
    """Reaching into a namespace leaves no process to reap and raises no SIGCHLD."""
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _frame: heard.append(number))
    try:
        for _ in range(50):
            with nlct.Conntrack(netns) as ct, nlct.Netns.scratch():
                ct.count()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heard == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | WALL)


# A race: the first times already have signals in each step.
@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_signals_arrive_while_namespaces_are_entered(netns: nlct.Netns, times: int) -> None:
    """A timer that fires all the time neither breaks a call nor runs its handler elsewhere."""
    pids: set[int] = set()
    before = signal.signal(signal.SIGALRM, lambda *_: pids.add(os.getpid()))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(times):
            with nlct.Conntrack(netns) as ct:
                ct.create(flows.udp(1, 7))
                assert ct.flush_zone(7, strategy="scan").deleted == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pids == {os.getpid()}


def test_many_threads_enter_at_once(netns: nlct.Netns) -> None:
    """Each works in the other namespace and stays in its own."""
    home = where_am_i()
    moved: list[object] = []

    def work(number: int) -> None:
        for turn in range(20):
            with nlct.Conntrack(netns) as ct:
                ct.create(flows.udp(number * 100 + turn, number))
            moved.append(where_am_i())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moved == [home] * 160
    assert oracle.by_zone(oracle.dump(netns)) == dict.fromkeys(range(8), 20)


def test_descriptors_are_not_inherited(netns: nlct.Netns) -> None:
    """What was opened there does not leak into programs that are started."""
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not os.get_inheritable(sock.fileno())
    assert not os.get_inheritable(netns.fileno())


def test_everything_works_without_root(script: Script) -> None:
    """An unprivileged user makes a namespace, fills it, flushes a zone and measures the kernel."""
    if os.geteuid() == 0 and int(Path("/proc/sys/user/max_user_namespaces").read_text()) == 0:
        pytest.skip("MISSING: user namespaces")
    code = """
with nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
    kinds = ("net", "user")
    home = [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in kinds]
    tests.support.flows.populate(ct)
    before = tests.support.oracle.dump(netns)
    for zone, strategy in ((0, "scan"), (5, "auto"), (7, "kernel")):
        if strategy != "kernel" or nlct.probe().zone_flush:
            ct.flush_zone(zone, strategy=strategy)
        else:
            ct.flush_zone(zone)
    assert tests.support.oracle.dump(netns) == tests.support.oracle.outside(before, {0, 5, 7})
    assert set(nlct.probe().evidence.values()) == {"measured"}
    assert home == [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in kinds]
    print(os.geteuid() != 0)
"""
    assert script(code, nobody=True) == "True"


@pytest.mark.skipif(not shutil.which("setpriv"), reason="MISSING: setpriv")
def test_where_no_namespace_is_allowed_it_says_so() -> None:
    """Without privilege and without user namespaces: PermissionError; the probe goes by release."""
    code = (
        "import nlct\n"
        "try: nlct.Netns.scratch()\n"
        "except PermissionError: print('denied', nlct.probe().evidence['zone_flush'])"
    )
    shell = (
        "echo 0 > /proc/sys/user/max_user_namespaces || exit 77; exec setpriv --no-new-privs"
        ' --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$0" -c "$1"'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", shell, sys.executable, code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("MISSING: the right to forbid user namespaces inside one")
    assert done.stdout == "denied release\n", done.stderr


def test_what_is_not_there_is_not_found() -> None:
    """A name, a path or a process that does not exist."""
    with subprocess.Popen(["true"]) as child:
        pass
    for spec in ("nlct-no-such-namespace", "/run/netns/nlct/none", 2**22 + 1, child.pid):
        with pytest.raises(nlct.NotFoundError) as caught:
            nlct.Conntrack(spec)
        assert "namespace" in caught.value.operation


@pytest.mark.parametrize("spec", ["/dev/null", "/proc/self/ns/user", "/", "/proc/self/status"])
def test_what_is_no_network_namespace_is_refused(spec: str) -> None:
    """A path that leads to something else, another kind of namespace included."""
    with pytest.raises(ValueError, match="network namespace"):
        nlct.Conntrack(spec)


def test_a_descriptor_of_something_else_is_refused() -> None:
    """A descriptor that is no namespace is not taken for a process by accident."""
    with open("/dev/null") as null, pytest.raises(ValueError, match="network namespace"):
        nlct.Conntrack(null)


def test_a_null_byte_does_not_end_a_path(netns: nlct.Netns) -> None:
    """What C would take for another path is refused."""
    with pytest.raises(ValueError, match="null byte"):
        nlct.Conntrack("/proc/self/ns/net\0-of-somebody-else")
    with pytest.raises(ValueError, match="null byte"):
        netns.open_file("/proc/sys/net\0")


@pytest.mark.parametrize("spec", [True, 1.5, b"name", ("a",), object()])
def test_other_types_are_refused(spec: object) -> None:
    """TypeError, before anything is opened."""
    with pytest.raises(TypeError, match="netns"):
        nlct.Conntrack(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [-1, 2**40, ""])
def test_impossible_values_are_refused(spec: object) -> None:
    """Neither a process nor a descriptor nor a name."""
    with pytest.raises((ValueError, nlct.NotFoundError)):
        nlct.Conntrack(spec)  # type: ignore[arg-type]


def test_a_closed_namespace_says_so(netns: nlct.Netns) -> None:
    """Every call is a ValueError, and close() may be called again."""
    netns.close()
    netns.close()
    for call in (netns.fileno, lambda: netns.open_file("/"), lambda: netns.socket(2, 2)):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        nlct.Conntrack(netns)
