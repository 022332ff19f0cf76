"""``nlct expect``: list, create, delete, flush and events, beside the real tool."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

import nlct
from nlct import Expectation
from tests.support import expectations, ftp, listeners, tool
from tests.support.command import NLCT, in_shell, nlct_, process, refused

MASTER = "--master-src 10.0.0.1 --master-dst 10.0.0.2 --master-sport {} --master-dport 21"


def create(where: str, number: int, *more: str) -> tuple[str, ...]:
    """The command that makes the expectation of a master."""
    one = f"--proto tcp --src 10.0.0.2 --dst 10.0.0.1 --dport {50_000 + number}"
    master = MASTER.format(40_000 + number)
    return ("expect", "create", where, *one.split(), *master.split(), *more)


def test_from_create_to_flush(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Each does what it says to the one that it names, and says what it did."""
    for zone in (0, 7):
        expectations.masters(ct, 4, zone)
    assert nlct_(*create(where, 0)).stdout == "1 expectation created\n"
    assert "File exists" in refused(nlct_(*create(where, 0)), 1)
    assert "master: there is no such flow in zone 0" in refused(nlct_(*create(where, 5)), 1)
    nat = "--nat-src 10.9.9.9 --nat-sport 5 --nat-direction reply --flags permanent,inactive"
    made = nlct_(*create(where, 1, "--json", *nat.split()))
    assert json.loads(made.stdout) == {"created": 1}
    assert nlct_(*create(where, 0, "--zone", "7")).exit_code == 0
    said = tool.run(netns, "conntrack", "-L", "expect", "-f", "ipv4").splitlines()
    listed = nlct_("expect", "list", where).stdout.splitlines()
    assert [line.split()[1:] for line in listed] == [line.split()[1:] for line in said]
    objects = [json.loads(x) for x in nlct_("expect", "list", where, "--json").stdout.splitlines()]
    (second,) = (one for one in objects if one["tuple"]["dport"] == 50_001)
    assert (second["nat"]["src"], second["nat"]["sport"], second["nat_direction"]) == (
        *("10.9.9.9", 5),
        1,
    )
    assert second["flags"] == ["permanent", "inactive"]
    zoned = nlct_("expect", "list", where, "--zone", "7").stdout
    assert " zone=7 " in zoned
    assert zoned.count("\n") == 1
    # Nothing goes that is not named, or that is named like another.
    before = expectations.dump(netns)
    for words, said_so, code in (
        ("--dst 10.0.0.1", "2 expectations of zone 0 match", 1),
        ("--dport 50001 --zone 7", "no such expectation in zone 7", 1),
        ("--id 1", "no such expectation", 1),
        ("--dport 50000 --src 10.0.0.9", "no such expectation", 1),
        ("", "name the expectation", 2),
        ("--dst here", "dst must be", 2),
    ):
        assert said_so in refused(nlct_("expect", "delete", where, *words.split()), code)
    for words in ("", "--yes", "--all"):
        refused(nlct_("expect", "flush", where, *words.split()), 2)
    for words in ("--proto tcp", "--proto tcp --dst 10.0.0.1", "--proto tcp --dst ::1 --flags x"):
        refused(nlct_("expect", "create", where, *words.split()), 2)
    for more, said_so, code in (
        (("--function", "nat-follow-master"), "--function goes only with --nat-src", 2),
        (("--helper", "sip"), "helper must be that of the master, 'ftp'", 1),
    ):
        assert said_so in refused(nlct_(*create(where, 3, *more)), code)
    gre = (word.replace("tcp", "gre") for word in create(where, 3))
    assert "tuple: GRE cannot be expected" in refused(nlct_(*gre), 4)
    assert expectations.dump(netns) == before
    assert nlct_("expect", "delete", where, "--dport", "50000", "--zone", "7").exit_code == 0
    gone = nlct_("expect", "delete", where, "--dport", "50000", "--json").stdout
    assert json.loads(gone)["zone"] == 0
    assert len(expectations.dump(netns)) == 1
    flushed = nlct_("expect", "flush", where, "--all", "--yes", "--json").stdout
    assert json.loads(flushed) == {"flushed": True}
    assert expectations.dump(netns) == {}


# Events ------------------------------------------------------------------------------------------


def test_events_of_ftp_are_the_lines_of_the_tool(tmp_path: Path) -> None:
    """An expectation that the kernel's helper makes, and that a transfer fulfils."""
    with ExitStack() as stack:
        there = stack.enter_context(ftp.forwarding())
        theirs, ours, ends = (
            stack.enter_context(listeners.listening(there.router, tmp_path / name, *words))
            for name, words in {
                "theirs": ("conntrack", "-E", "expect"),
                "ours": (*NLCT, "expect", "events", "--count", "2"),
                "ends": (*NLCT, "expect", "events", "--destroy", "--count", "1"),
            }.items()
        )
        ftp.Session(there, True, stack).transfer()
        assert [each.process.wait(timeout=listeners.PATIENCE) for each in (ours, ends)] == [0, 0]
        listeners.wait_until(lambda: len(theirs.lines()) == 2, "the tool's lines")
        assert ours.lines() == theirs.lines()
        assert [line.split()[0] for line in ours.lines()] == ["[NEW]", "[DESTROY]"]
        assert ends.lines() == ours.lines()[1:]


def test_events_as_objects_with_overruns(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Of the kind that is asked for; what the small queue has no room for is counted."""
    before = listeners.count(netns)
    with process("expect", "events", where, *["--new", "--json", "--buffer", "4096"]) as begun:
        try:
            listeners.wait_until(lambda: listeners.count(netns) > before, "it listens")
            (master,) = expectations.masters(ct, 1)
            begun.send_signal(signal.SIGSTOP)
            os.waitpid(begun.pid, os.WUNTRACED)
            # Each drops the one before, which "destroy" would tell.
            for place in range(40):
                made = Expectation(expectations.expected(place), master=master)
                ct.expectations.create(made)
            begun.send_signal(signal.SIGCONT)
            assert begun.stdout is not None
            shown = [json.loads(begun.stdout.readline())]
            while shown[-1]["event"] != "overrun":
                shown.append(json.loads(begun.stdout.readline()))
            begun.send_signal(signal.SIGINT)
            output, error = begun.communicate(timeout=240)
        finally:
            begun.kill()
    *events, overrun = shown
    assert (begun.returncode, output) == (130, b"")
    assert error.decode().strip() == f"nlct: {overrun['lost']} events lost in 1 overrun"
    assert overrun == {"event": "overrun", "lost": 40 - len(events)}
    assert [(one["event"], one["tuple"]["dport"]) for one in events] == [
        ("new", 50_000 + place) for place in range(len(events))
    ]
    (listed,) = map(json.loads, nlct_("expect", "list", where, "--json").stdout.splitlines())
    assert list(events[0]) == ["event", *listed]


@pytest.mark.usefixtures("ct", "root")
def test_events_that_cannot_be_shown(netns: nlct.Netns, where: str) -> None:
    """Wrong usage is 2, a closed output 1, a kernel that makes no events 4."""
    with nlct.Netns.scratch() as other:
        also = f"--netns=/proc/{os.getpid()}/fd/{other.fileno()}"
        for words, said in (
            *((["--update"], "--update"), (["--count", "0"], "--count"), ([also], "one --netns")),
            *((["--timeout", "nan"], "--timeout"), (["--buffer", "1"], "--buffer")),
        ):
            assert said in refused(nlct_("expect", "events", where, *words), 2)
    closed = in_shell(">&-", "expect", "events", where)
    assert closed == (1, "", "nlct: standard output is closed\n")
    fd = netns.open_file("/proc/sys/net/netfilter/nf_conntrack_events", os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)
    assert "nf_conntrack_events is 0" in refused(nlct_("expect", "events", where), 4)
