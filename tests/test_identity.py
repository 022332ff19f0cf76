"""A table, a descriptor and a process are the ones that were meant, or there is an error."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest

import nlct
from nlct import _handle
from nlct import capabilities as probing
from nlct import netns as namespaces
from nlct._ffi import ffi, lib
from tests.support import flows, oracle
from tests.support.descriptors import descriptors
from tests.support.processes import Script

# A process that leaves for a namespace of its own.
MOVE = """
import ctypes, errno, ipaddress, os, sys, threading, nlct
from tests.support import flows, oracle
libc = ctypes.CDLL(None)
NEWUSER, NEWNET = 0x10000000, 0x40000000
def move():
    return libc.unshare(NEWNET) == 0 or libc.unshare(NEWUSER | NEWNET) == 0
if not move():
    print("MISSING: a network namespace")
    sys.exit()
home = nlct.Netns.open(nlct.Netns.current())
"""


def said_by(script: Script, code: str) -> str:
    """Run it after MOVE."""
    said = script(MOVE + code)
    if said.startswith("MISSING"):
        pytest.skip(said)
    return said


# Namespaces ---------------------------------------------------------------------------------------


def test_a_thread_that_moved_makes_a_new_object(script: Script) -> None:
    """Conntrack() is the table of the namespace in which it was made, and of no other."""
    code = """
old = nlct.Conntrack()
old.create(flows.udp(1, 7))
old.close()
old, flusher = nlct.Conntrack(), nlct.Flusher()
assert move()
with nlct.Conntrack() as new:
    new.load([flows.udp(number, 7) for number in range(10)])
    for call in (lambda: old.flush_zone(7), old.flush_all, old.count, lambda: list(old.dump()),
                 lambda: flusher.flush_zone(7), lambda: old.delete(nlct.Filter(zone=7))):
        try:
            call()
        except nlct.Error as exc:
            assert exc.errno == errno.EXDEV, exc
            assert "new object" in str(exc), exc
        else:
            raise AssertionError("it went on")
    assert new.count() == 10
    print(len(oracle.dump(home)))
"""
    assert said_by(script, code) == "1"


def test_a_socket_that_was_kept_stays_where_it_is(script: Script) -> None:
    """A socket of the old namespace may serve a thread that has moved: it is of the table meant."""
    code = """
old = nlct.Conntrack()
old.load([flows.udp(number, 7) for number in range(10)])
assert move()
with nlct.Conntrack() as new:
    new.load([flows.udp(number, 7) for number in range(5)])
    assert old.get(flows.udp(1).orig, zone=7).zone == 7
    old.delete_flow(flows.udp(1, 7))
    assert new.count() == 5
print(len(oracle.dump(home)))
"""
    assert said_by(script, code) == "9"


def test_a_number_that_leads_elsewhere_by_now_is_refused(
    ct: nlct.Conntrack, netns: nlct.Netns
) -> None:
    """Somebody closed our descriptor, and another namespace took its number."""
    with nlct.Netns.scratch() as other, nlct.Conntrack(other) as theirs:
        theirs.create(flows.udp(1, 7))
        victim = nlct.Conntrack(netns)
        os.dup2(other.fileno(), victim._handle._netns.fileno(), inheritable=False)
        for call in (lambda: victim.flush_zone(7), victim.flush_all, victim.count):
            with pytest.raises(nlct.Error) as caught:
                call()
            assert caught.value.errno == errno.EXDEV
        victim.close()
        assert theirs.count() == 1
    assert ct.count() == 0


def test_a_scratch_namespace_is_one_that_was_not_there(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of our own that the kernel hands out as new, which no kernel does: PermissionError."""

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def nlct_netns_new(self, made: Any) -> Any:
            return lib.nlct_netns_at(made, netns.fileno())

    before = descriptors()
    monkeypatch.setattr(namespaces, "lib", Lib())
    with pytest.raises(nlct.PrivilegeError, match="scratch") as caught:
        nlct.Netns.scratch()
    assert caught.value.reason == "the kernel made none"
    assert descriptors() == before


def test_the_namespaces_of_the_thread_and_of_process_1_are_inhabited() -> None:
    """As /proc names them."""
    own = os.stat("/proc/thread-self/ns/net")
    found = namespaces.inhabited()
    assert (own.st_dev, own.st_ino) in found
    try:
        first = os.stat("/proc/1/ns/net")
    except OSError:
        assert len(found) == 1
    else:
        assert found == {(own.st_dev, own.st_ino), (first.st_dev, first.st_ino)}


def test_a_table_with_flows_is_nobodys_scratch(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe deletes nothing in a namespace that holds a flow."""
    ct.create(flows.udp(1, 1))
    monkeypatch.setattr(nlct.Netns, "scratch", lambda: nlct.Netns.open(netns))
    with pytest.raises(nlct.Error, match=r"scratch.*1 flows are there") as caught:
        probing.measure("this one")
    assert caught.value.reason == "1 flows are there already"
    assert oracle.by_zone(oracle.dump(netns)) == {1: 1}


# Descriptors --------------------------------------------------------------------------------------


def test_many_who_close_at_once_close_once() -> None:
    """What takes the number while others still close stays open."""
    strangers: list[int] = []
    try:
        for _ in range(200):
            netns = nlct.Netns.scratch()
            start = threading.Barrier(3)

            def close(netns: nlct.Netns = netns, start: threading.Barrier = start) -> None:
                start.wait()
                netns.close()

            threads = [threading.Thread(target=close) for _ in range(2)]
            for thread in threads:
                thread.start()
            start.wait()
            strangers.append(os.open("/dev/null", os.O_RDONLY))
            for thread in threads:
                thread.join()
            os.fstat(strangers[-1])
    except PermissionError as exc:
        pytest.skip(f"MISSING: no network namespace can be had here: {exc}")
    finally:
        for fd in strangers:
            os.close(fd)


def test_a_watch_that_cannot_be_kept_is_an_error(script: Script) -> None:
    """Without a descriptor for nf_conntrack_buckets no dump begins; a missing file may be."""
    code = """
import resource
from nlct import _handle
ct = nlct.Conntrack()
ct.create(flows.udp(1, 7))
before = resource.getrlimit(resource.RLIMIT_NOFILE)
for call in (lambda: ct.flush_zone(7, strategy="scan"), lambda: list(ct.dump()), ct.table):
    # With one socket at hand, and no further descriptor.
    assert ct.count() == 1
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        call()
    except nlct.Error as exc:
        assert exc.errno == errno.EMFILE and "nf_conntrack_buckets" in str(exc), exc
    else:
        raise AssertionError("it dumped on")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
_handle.BUCKETS = "/proc/sys/net/netfilter/nlct-no-such-file"
assert ct.buckets is None
print(ct.flush_zone(7, strategy="scan").deleted)
"""
    assert said_by(script, code) == "1"


@pytest.mark.parametrize(
    ("path", "number"),
    [("/", errno.EISDIR), ("/dev/null", errno.EBADMSG), ("/proc/version", errno.EBADMSG)],
)
def test_a_watch_that_tells_no_size_is_an_error(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, path: str, number: int
) -> None:
    """It cannot be read, is empty, or holds no number."""
    monkeypatch.setattr(_handle, "BUCKETS", path)
    with pytest.raises(nlct.Error, match=f"read {path}") as caught:
        _ = ct.buckets
    assert caught.value.errno == number
    assert type(caught.value) is type(nlct.errors.error(number, ""))
    # Where a strategy is chosen it is not known.
    assert ct._handle.buckets is None


def test_a_watch_that_is_opened_while_another_closes_is_let_go_of(
    netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close() comes while the file is opened: nobody keeps its descriptor."""
    ct = nlct.Conntrack(netns)

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def nlct_netns_file(self, *arguments: Any) -> Any:
            rc = lib.nlct_netns_file(*arguments)
            ct.close()
            return rc

    before = descriptors()
    monkeypatch.setattr(_handle, "lib", Lib())
    with pytest.raises(ValueError, match="closed"):
        _ = ct.buckets
    # That of the namespace went, and none came.
    assert descriptors() == before - 1


def test_what_was_not_measured_is_not_remembered(script: Script) -> None:
    """A probe that lacks descriptors goes by the release; the next one measures."""
    code = """
import logging, resource
before = resource.getrlimit(resource.RLIMIT_NOFILE)
for spare in range(8):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + spare, before[1]))
    found = nlct.probe()
    if found.evidence["zone_flush"] == "measured":
        break
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
else:
    raise AssertionError("never enough descriptors")
assert spare > 0
resource.setrlimit(resource.RLIMIT_NOFILE, before)
assert nlct.probe() is found
print(set(found.evidence.values()) == {"measured"})
"""
    said = said_by(script, code.replace("3 + spare", "home.fileno() + 1 + spare"))
    assert said == "True"


def test_zones_are_known_where_no_namespace_is_to_be_had(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container one look-up in its own table tells, and changes nothing."""
    ct.create(flows.udp(1, 1))
    measured = probing.measure("this one").zones

    def none() -> nlct.Netns:
        raise nlct.PrivilegeError(errno.EPERM, "make a scratch network namespace")

    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(nlct.Netns, "scratch", none)
    monkeypatch.setattr(nlct.Netns, "current", lambda: nlct.Netns.open(netns))
    found = nlct.probe()
    assert (found.zones, found.evidence["zones"]) == (measured, "measured")
    assert (found.zone_flush, found.evidence["zone_flush"]) == (False, "release")
    assert oracle.by_zone(oracle.dump(netns)) == {1: 1}


# Forks --------------------------------------------------------------------------------------------

# Parent and child are process 1, each of a pid namespace of its own.
BOTH_FIRST = """
NEWPID = 0x20000000
def first(work):
    if libc.unshare(NEWPID) != 0:
        print("MISSING: a pid namespace")
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        assert os.getpid() == 1
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_child_with_the_same_process_id_has_its_own_sockets(script: Script) -> None:
    """Both are process 1; neither takes what the other was sent, and a dump is not inherited."""
    code = f"""{BOTH_FIRST}
def parent():
    ct = nlct.Conntrack()
    ct.load([flows.udp(number, 7) for number in range(3000)])
    dump = ct.dump()
    next(dump)
    flusher = nlct.Flusher(ct)
    mine = {{sock._slot for sock in ct._handle.pool._own().sockets}}
    def child():
        assert ct.count() == 3000
        assert not mine & {{sock._slot for sock in ct._handle.pool._own().sockets}}
        try:
            for _ in dump:
                pass
        except RuntimeError as exc:
            assert "fork" in str(exc)
        else:
            raise AssertionError("the dump was inherited")
        assert flusher.flush_zone(7).complete
    first(child)
    dump.close()
    # The kernel counts one more for as long as a dump stands there.
    print(len(oracle.dump(nlct.Netns.current())))
first(parent)
"""
    assert said_by(script, code) == "0"


def test_a_child_has_none_of_its_parents_threads(script: Script) -> None:
    """Receiving ahead ends without a word in a child that is process 1 like its parent."""
    code = f"""{BOTH_FIRST}
def parent():
    ct = nlct.Conntrack()
    ct.load([flows.udp(number, number % 5) for number in range(20000)])
    dump = ct.dump()
    for _ in range(5000):
        next(dump)
    def child():
        dump.close()
        assert len(list(ct.dump())) == 20000
    first(child)
    print(5000 + len(list(dump)))
first(parent)
"""
    assert said_by(script, code) == "20000"


def test_a_fork_behind_pythons_back_is_noticed(script: Script) -> None:
    """By a raw clone(2), of which Python knows nothing, with the same process id."""
    code = f"""{BOTH_FIRST}
import platform, signal
CLONE = {{"x86_64": 56, "aarch64": 220}}.get(platform.machine())
if CLONE is None:
    print("MISSING: the number of clone(2) here")
    sys.exit()
def parent():
    ct = nlct.Conntrack()
    ct.load([flows.udp(number, 7) for number in range(20000)])
    dump = ct.dump()
    for _ in range(5000):
        next(dump)
    pid = libc.syscall(CLONE, NEWPID | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        code = 1
        try:
            for _ in dump:
                pass
        except RuntimeError:
            code = 0 if ct.count() == 20000 else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    print(5000 + len(list(dump)))
first(parent)
"""
    assert said_by(script, code) == "20000"


# Numbers that a program closed -------------------------------------------------------------------


def test_a_socket_that_somebody_closed_is_not_used(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Its number is the socket of another namespace by now, or nothing that is ours."""
    with nlct.Netns.scratch() as other, nlct.Conntrack(other) as theirs:
        for table in (ct, theirs):
            table.create(flows.udp(1, 7))
        (mine,) = ct._handle.pool._own().sockets
        strange = nlct.Conntrack(other)
        assert strange.count() == 1
        (its,) = strange._handle.pool._own().sockets
        os.dup2(descriptor_of(its), descriptor_of(mine), inheritable=False)
        assert ct.flush_all().complete
        assert (ct.count(), theirs.count()) == (0, 1)
        strange.close()
    assert oracle.dump(netns) == {}


def descriptor_of(sock: Any) -> int:
    """The number of a netlink socket, which begins its structure."""
    return int(ffi.cast("int *", sock.handle)[0])


def test_what_took_a_number_stays_open(script: Script) -> None:
    """A daemon that begins closes all descriptors, and opens its log."""
    code = """
ct = nlct.Conntrack()
ct.create(flows.udp(1, 7))
ct.flush_zone(7, strategy="scan")
other = nlct.Conntrack(home)
other.count()
pid = os.fork()
if pid == 0:
    os.closerange(3, 64)
    logs = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    fine = nlct.Conntrack().count() == 0 == ct.count()
    other.close()
    ct.close()
    del home
    for log in logs:
        os.fstat(log)
    os._exit(0 if fine else 1)
print(os.waitpid(pid, 0)[1])
"""
    assert said_by(script, code) == "0"
