"""Two namespaces filled alike: ``conntrack`` works in one, ``nlct`` in the other."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest

import nlct
from nlct import Flow, Tuple
from tests.support import tool
from tests.support.command import nlct_
from tests.support.namespaces import scratch

# What two tables of the same flows may differ in. Timeouts are compared apart.
OWN = ("id", "use", "timestamp_start", "timeout")


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def inside(netns: nlct.Netns, *command: str, given: str | None = None) -> Said:
    """Run a command in a namespace."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{netns.fileno()}", "--", *command],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        pass_fds=(netns.fileno(),),
    )
    return Said(done.returncode, done.stdout, done.stderr)


class Job(NamedTuple):
    """One job, as arguments of either command.

    ``codes``: how they exit. ``says``: a pattern for what nlct prints on standard error.
    """

    tool: str
    ours: str
    codes: tuple[int, int] = (0, 0)
    says: str = ""

    def __str__(self) -> str:
        return self.tool


# The names of options that nlct spells otherwise where one flow is named.
SPELT = {
    "-I": "create",
    "-A": "create --if-absent",
    "-G": "get",
    "-t": "--timeout",
    "-w": "--zone",
    "--reply-port-src": "--reply-sport",
    "--reply-port-dst": "--reply-dport",
    "--srckey": "--sport",
    "--dstkey": "--dport",
    "--icmpv6-type": "--icmp-type",
    "--icmpv6-code": "--icmp-code",
    "--icmpv6-id": "--icmp-id",
    "-p": "--proto",
    "-n": "--snat",
    "-g": "--dnat",
}


def spelt(arguments: str, codes: tuple[int, int] = (0, 0), says: str = "") -> Job:
    """A job that nlct takes in the same words, but for the names of some options."""
    ours = (SPELT.get(word, word) for word in arguments.split())
    return Job(arguments, " ".join(w.lower() if w.isupper() else w for w in ours), codes, says)


# A network and a far network of each family; in 10.0.0.0/8 and fd00::/8 is nothing else.
NEAR = {4: "10.0.0.{}", 6: "fd00::{}"}
FAR = {4: "192.0.2.{}", 6: "fd01::{}"}
ICMP = {4: ("icmp", 8), 6: ("icmpv6", 128)}


def _reply(orig: Tuple, **changes: Any) -> Tuple:
    fields = {
        "src": orig.dst,
        "dst": orig.src,
        "proto": orig.proto,
        "sport": orig.dport,
        "dport": orig.sport,
    }
    return Tuple(**{**fields, **changes})


def _of_family(version: int) -> Iterator[Flow]:
    near, far = NEAR[version].format, FAR[version].format
    seen = nlct.Status.SEEN_REPLY | nlct.Status.ASSURED

    def made(host: int, proto: str | int, *ports: int) -> Tuple:
        return Tuple(near(host), far(1), proto, *ports)

    web = made(1, "tcp", 1000, 80)
    yield Flow(web, tcp_state="established", status=seen, mark=0x11)
    yield Flow(made(2, "tcp", 1001, 80), tcp_state="syn_sent")
    yield Flow(made(1, "tcp", 1002, 21), tcp_state="established", helper="ftp")
    yield Flow(made(1, "udp", 1000, 53), mark=0x12)
    yield Flow(made(3, "udp", 1000, 53), status=seen, mark=0xFFFFFFFF)
    yield Flow(made(3, "udp", 1000, 54), labels=1 << 5 | 1 << 127)
    yield Flow(made(3, "udp", 1000, 55), labels=1 << 5)
    yield Flow(made(4, "udp", 1000, 56), master=web, status=nlct.Status.EXPECTED)
    yield Flow(made(1, "udplite", 1000, 53))
    yield Flow(made(1, "dccp", 1000, 53), dccp_state="open", dccp_role=1)
    sctp = made(1, "sctp", 1000, 53)
    yield Flow(sctp, sctp_state="established", sctp_vtag_orig=0x1234, sctp_vtag_reply=0x5678)
    yield Flow(made(1, "gre", 0x10, 0x20))
    name, echo = ICMP[version]
    yield Flow(Tuple(near(1), far(1), name, icmp_id=7, icmp_type=echo, icmp_code=0))
    yield Flow(made(1, 50))
    yield Flow(made(1, 99))
    for zone in (7, 65535):
        yield Flow(made(1, "udp", 1000, 53), zone=zone)
        yield Flow(web, zone=zone, tcp_state="established")
    yield Flow(Tuple(near(8), far(1), "udp", 8, 8, zone=8))
    orig = made(9, "udp", 9, 9)
    yield Flow(orig, _reply(orig, zone=9))
    orig = made(20, "udp", 20, 20)
    source, destination = nlct.Status.SRC_NAT, nlct.Status.DST_NAT
    yield Flow(orig, _reply(orig, dst=far(20)), status=source)
    orig = made(21, "tcp", 21, 22)
    yield Flow(orig, _reply(orig, src=near(99)), tcp_state="established", status=destination)
    orig = made(22, "udp", 22, 22)
    reply = _reply(orig, src=near(98), sport=2222, dst=far(22), dport=3333)
    yield Flow(orig, reply, status=source | destination)


FLOWS = [flow.replace(timeout=3600) for version in (4, 6) for flow in _of_family(version)]


class Pair:
    """The two namespaces."""

    def __init__(self, theirs: nlct.Netns, ours: nlct.Netns) -> None:
        self.theirs = theirs
        self.ours = ours

    def fill(self) -> None:
        """Make both tables what they were at first."""
        for netns in (self.theirs, self.ours):
            with nlct.Conntrack(netns) as ct:
                ct.flush_all()
                ct.load(FLOWS)

    def tool(self, arguments: str, netns: nlct.Netns | None = None, given: str = "") -> Said:
        """Run ``conntrack``, which knows labels by their numbers."""
        netns = netns or self.theirs
        command = ("conntrack", *shlex.split(arguments))
        # The file of labels takes a namespace of mounts, and time.
        if "-l" in arguments or "label" in arguments:
            command = ("unshare", "--mount", "sh", "-c", tool.WITH_LABELS, "sh", *command)
        return inside(netns, *command, given=given)

    def nlct(self, arguments: str, netns: nlct.Netns | None = None, given: str = "") -> Said:
        """Run ``nlct``, in this process."""
        netns = netns or self.ours
        where = f"--netns=/proc/self/fd/{netns.fileno()}"
        done = nlct_(*shlex.split(arguments), where, given=given)
        return Said(done.exit_code, done.stdout, done.stderr)

    def both(self, job: Job, given: str = "") -> tuple[Said, Said]:
        """Run a job by both, each in its namespace; they must exit as it says."""
        theirs, ours = self.tool(job.tool, given=given), self.nlct(job.ours, given=given)
        assert (theirs.code, ours.code) == job.codes, (job.tool, theirs, ours)
        return theirs, ours

    def tables(self, *without: str) -> tuple[list[str], list[str]]:
        """Every entry of either table; ``without``: names of fields to leave out."""
        return entries(self.theirs, *without), entries(self.ours, *without)


def entries(netns: nlct.Netns, *without: str) -> list[str]:
    """Every entry of a table, without what is its own."""
    found = []
    with nlct.Conntrack(netns) as ct:
        for flow in ct.dump():
            left_out = (*OWN, *without)
            said = {name: value for name, value in flow.to_dict().items() if name not in left_out}
            # A second more or less is no difference; those that are set are apart by more.
            said["minutes"] = None if flow.timeout is None else (flow.timeout + 30) // 60
            found.append(json.dumps(said))
    return sorted(found)


LABEL_RULES = """
table inet labels {
    chain output {
        type filter hook output priority 0
        udp sport 1 ct label set 5
        udp sport 2 ct label set 127
    }
}
"""


@contextmanager
def pair() -> Iterator[Pair]:
    """Make the namespaces, filled; labels are used by a rule there. Skips without the tool."""
    if not shutil.which("nsenter") or tool.version() < tool.WHOLE:
        pytest.skip("MISSING: conntrack 1.4.7 and nsenter")
    with ExitStack() as stack:
        made = Pair(*(stack.enter_context(scratch()) for _ in range(2)))
        for netns in (made.theirs, made.ours):
            tool.run(netns, "nft", "-f", "-", given=LABEL_RULES)
        made.fill()
        yield made
