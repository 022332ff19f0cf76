"""Under seccomp policies that kill, refuse or pretend, nothing acts on a table that was not meant.

Each case runs in a process of its own, whose namespace stands for the production one: descriptor
0, free in a daemon without standard input, leads to it. A child enters the policy and works; its
parent then looks at both tables.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

import pytest

from tests.support import seccomp
from tests.support.examples import telling
from tests.support.processes import Script

HOME = """
import ctypes, errno, ipaddress, logging, os, signal, sys, nlct
from tests.support import flows, oracle, seccomp
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET = 0x10000000, 0x40000000
if libc.unshare(NEWNET) != 0 and libc.unshare(NEWUSER | NEWNET) != 0:
    print("MISSING: a network namespace")
    sys.exit()
os.close(0)
home = nlct.Netns.open("/proc/self/ns/net")
assert home.fileno() == 0
other = nlct.Netns.scratch()
for netns in (home, other):
    with nlct.Conntrack(netns) as ct:
        ct.load([flows.udp(number, number % 4) for number in range(200)])

def outcome(call, answer, work):
    before = [oracle.dump(netns) for netns in (home, other)]
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            seccomp.enter(call, answer)
            work()
            code = 0
        except nlct.UnsupportedError:
            code = 2
        except nlct.Error as exc:
            print(exc, file=sys.stderr)
            code = 1
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    after = [oracle.dump(netns) for netns in (home, other)]
    lost = [sorted({key.zone for key in old.keys() - new.keys()})
            for old, new in zip(before, after)]
    for netns in (home, other):
        with nlct.Conntrack(netns) as ct:
            ct.load([flows.udp(number, 3) for number in range(3, 200, 4)])
    assert all(new.keys() <= old.keys() for old, new in zip(before, after)), "flows were made"
    ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    print(ended, lost[0], lost[1])
"""
# Kernels before 5.16 end a process with a child that shares its memory.
ENDS_WITH_CHILD = tuple(map(int, os.uname().release.split(".")[:2])) < (5, 16)
WORKS = {
    "probe": "lambda: nlct.probe()",
    "scratch": "lambda: nlct.Netns.scratch().close()",
    "open": "lambda: nlct.Conntrack(other).count()",
    "flush another": "lambda: nlct.Conntrack(other).flush_zone(3, strategy='kernel')",
    "scan another": "lambda: nlct.Conntrack(other).flush_zone(3, strategy='scan')",
    "flush own": "lambda: nlct.Conntrack().flush_zone(3, strategy='kernel')",
}
# What a work may delete: zone 3 of the table that it names.
MAY_LOSE = {
    "flush another": ("[]", "[3]"),
    "scan another": ("[]", "[3]"),
    "flush own": ("[3]", "[]"),
}


@dataclass
class Outcome:
    """How the child ended, and the zones in which the two tables lost flows."""

    ended: str
    home: str
    other: str


def run(script: Script, call: str, answer: int | None) -> dict[str, Outcome]:
    """Do each work under a policy, and see to it that nothing was lost that was not named."""
    seccomp.required()
    steps = "\n".join(f"outcome({call!r}, {answer!r}, {work})" for work in WORKS.values())
    said = script(f"{HOME}\n{steps}")
    if said.startswith("MISSING"):
        pytest.skip(said)
    found = {}
    for work, line in zip(WORKS, said.splitlines(keepends=False)):
        *ended, home, other = line.split(" ")
        found[work] = Outcome(" ".join(ended), home, other)
        may_home, may_other = MAY_LOSE.get(work, ("[]", "[]"))
        assert home in ("[]", may_home), work
        assert other in ("[]", may_other), work
    assert found.keys() == WORKS.keys()
    return found


# What containers do; a policy that kills, or knows no call, is rare.
@pytest.mark.parametrize("answer", telling([None, errno.EPERM, errno.ENOSYS], {errno.EPERM}))
@pytest.mark.parametrize("call", ["unshare", "setns", "clone", "socket", "openat"])
def test_nothing_else_is_touched(script: Script, call: str, answer: int | None) -> None:
    """An error, or the end of the process that the policy wants; never another table's flows."""
    for work, found in run(script, call, answer).items():
        # What the process itself is not to do ends it; what its helper is not to do, the helper.
        if ENDS_WITH_CHILD or (answer is None and call in ("clone", "socket", "openat")):
            assert found.ended in ("0", "1", "2", "signal 31", "signal 9"), work
        else:
            assert found.ended in ("0", "1", "2"), work
        if found.ended != "0":
            assert (found.home, found.other) == ("[]", "[]"), work


@pytest.mark.parametrize("call", ["unshare", "setns"])
def test_a_success_that_does_nothing_is_none(script: Script, call: str) -> None:
    """A policy that answers 0 in the place of the kernel."""
    found = run(script, call, 0)
    if call == "setns":
        assert found["flush another"] == Outcome("1", "[]", "[]")
        assert found["scan another"] == found["open"] == Outcome("1", "[]", "[]")
    else:
        assert found["scratch"].ended == "1"
        assert found["flush own"] == found["flush another"] == Outcome("2", "[]", "[]")


def test_the_reason_is_told(script: Script) -> None:
    """What ended the child that works in the other namespace stands in the error."""
    seccomp.required()
    code = f"""{HOME}
pid = os.fork()
if pid == 0:
    os.dup2(1, 2)
    seccomp.enter("setns", None)
    try:
        nlct.Conntrack(other).count()
    except nlct.Error as exc:
        assert exc.reason in str(exc) and exc.kernel_message == "", exc
        print(type(exc).__name__, errno.errorcode[exc.errno], exc.reason)
        sys.stdout.flush()
    os._exit(0)
status = os.waitpid(pid, 0)[1]
if os.WIFSIGNALED(status):
    print("signal", os.WTERMSIG(status))
"""
    said = script(code)
    if said.startswith("MISSING"):
        pytest.skip(said)
    if ENDS_WITH_CHILD:
        assert said.startswith("signal ")
        return
    assert said.startswith("Error ECHILD")
    assert "SIGSYS" in said
    assert "seccomp" in said
