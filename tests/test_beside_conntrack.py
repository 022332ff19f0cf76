"""``conntrack`` and ``nlct`` do the same job on two namespaces filled alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support import beside, tool
from tests.support.beside import FLOWS, Job, Pair


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two namespaces, for all jobs."""
    with beside.pair() as made:
        yield made


def test_the_tables_hold_what_the_kernel_knows(pair: Pair) -> None:
    """And are alike."""
    pair.fill()
    theirs, ours = pair.tables()
    assert theirs == ours
    said = "\n".join(ours)
    assert len(ours) >= len(FLOWS) - 4, "a kernel may not know DCCP and UDPlite"
    for word in ("tcp", "udp", "sctp", "gre", "icmp", "icmpv6", "esp", "99"):
        assert f'"protocol": "{word}"' in said, word
    for word in ("helper", "master", "labels", "dst_nat"):
        assert word in said, word


# Selecting ----------------------------------------------------------------------------------------


def filters() -> list[Job]:
    """What selects flows: options of ``conntrack -L`` and of ``nlct dump``."""
    return [
        *(Job("", ""), Job("-f ipv4", "--family ipv4"), Job("-f ipv6", "--family ipv6")),
        *(Job(f"-p {one}", f"--proto {one}") for one in ("tcp", "udp", "sctp", "gre", "99")),
        *(Job(f"-s {one}", f"--src {one}") for one in ("10.0.0.1", "10.0.0.0/30", "fd00::1")),
        Job("-s fd00::/127", "--src fd00::/127"),
        Job("-d 192.0.2.1 -s 10.0.0.3", "--dst 192.0.2.1 --src 10.0.0.3"),
        Job("-d fd01::/64", "--dst fd01::/64"),
        Job("-s 10.0.0.0 --mask-src 255.0.0.0", "--src 10.0.0.0/8"),
        Job("-d 192.0.2.0 --mask-dst 255.255.255.0", "--dst 192.0.2.0/24"),
        Job("-r 192.0.2.1", "--reply-src 192.0.2.1"),
        Job("-q fd00::1", "--reply-dst fd00::1"),
        Job("-p udp --sport 1000", "--proto udp --sport 1000"),
        Job("-p tcp --dport 80 --sport 1001", "--proto tcp --dport 80 --sport 1001"),
        Job("-p udp --reply-port-src 2222", "--proto udp --reply-sport 2222"),
        Job("-p udp --reply-port-dst 3333", "--proto udp --reply-dport 3333"),
        Job("-p tcp --state ESTABLISHED", "--state established"),
        Job("-p tcp --state SYN_SENT", "--state syn_sent"),
        Job("-p sctp --state ESTABLISHED", "--proto sctp --state established"),
        Job("-p icmp --icmp-type 8 --icmp-code 0", "--proto icmp --icmp-type 8 --icmp-code 0"),
        Job("-p icmpv6 --icmpv6-id 7", "--proto icmpv6 --icmp-id 7"),
        *(Job(f"-m {mark}", f"--mark {mark}") for mark in ("17", "0x10/0xf0", "0/1", "4294967295")),
        *(Job(f"-u {bit}", f"--status {bit.lower()}") for bit in ("ASSURED", "SEEN_REPLY")),
        Job("-u EXPECTED", "--status expected"),
        Job("-u ASSURED,SEEN_REPLY", "--status assured,seen_reply"),
        *(Job(f"-w {zone}", f"--zone {zone}") for zone in (7, 65535)),
        *(Job("-n", "--src-nat"), Job("-g", "--dst-nat"), Job("-j", "--any-nat")),
        *(Job("-n 192.0.2.20", "--src-nat 192.0.2.20"), Job("-g 10.0.0.99", "--dst-nat 10.0.0.99")),
        *(Job(f"-l {label}", f"--label {label}") for label in ("5", "5,127", "9")),
        Job("-p tcp -s 10.0.0.1 -w 7 -m 0", "--proto tcp --src 10.0.0.1 --zone 7 --mark 0"),
    ]


FILTERS = filters()
# One of each kind, for what takes longer.
TELLING = [
    job
    for job in FILTERS
    if job.tool
    in (
        "-f ipv6",
        "-p sctp",
        "-s 10.0.0.0/30",
        "-d fd01::/64",
        "-q fd00::1",
        "-p icmpv6 --icmpv6-id 7",
        "-p tcp --state SYN_SENT",
        "-m 0x10/0xf0",
        "-u ASSURED",
        "-w 7",
        "-n 192.0.2.20",
        "-l 5",
    )
]


@pytest.mark.parametrize("job", FILTERS, ids=str)
def test_list(pair: Pair, job: Job) -> None:
    """The same flows are listed, in the same words."""
    theirs = pair.tool(f"-L {job.tool}", pair.ours)
    ours = pair.nlct(f"dump {job.ours}")
    assert (theirs.code, ours.code) == job.codes, (theirs, ours)
    # The tool shows labels when it knows their names.
    wanted, found = (
        sorted(
            re.sub(r" labels=\S+", "", tool.without_clocks(line)) for line in said.out.splitlines()
        )
        for said in (theirs, ours)
    )
    assert found == wanted
    assert found or job.tool == "-l 9"


def test_count(pair: Pair) -> None:
    """Of all, and of what a list would show."""
    assert pair.nlct("count").out == pair.tool("-C", pair.ours).out
    shown = pair.tool("-L -p tcp", pair.ours).err
    assert pair.nlct("count --proto tcp").out.strip() in shown.split()


# Deleting -----------------------------------------------------------------------------------------


# Beyond the telling ones, more of the same.
@pytest.mark.parametrize(
    "job",
    [
        job if job in TELLING else pytest.param(job, marks=pytest.mark.exhaustive)
        for job in FILTERS
        # The tool deletes by either only.
        if job.tool not in ("", "-j")
    ],
    ids=str,
)
def test_delete(pair: Pair, job: Job) -> None:
    """The same flows are left, and as many are said to be deleted."""
    pair.fill()
    some = job.tool != "-l 9"
    # Nothing to delete is an error to the tool alone.
    delete = Job(f"-D {job.tool}", f"delete --json {job.ours}", (0 if some else 1, 0))
    theirs, ours = pair.both(delete)
    wanted, found = pair.tables()
    assert found == wanted
    deleted = json.loads(ours.out)["deleted"]
    assert f" {deleted} flow entries have been deleted" in theirs.err
    assert bool(deleted) == some


@pytest.mark.parametrize(
    "job",
    [
        Job("-F", "flush --all --yes"),
        Job("-F", "delete --all --yes"),
        Job("-D", "delete --all --yes"),
        Job("-D -w 7", "flush --zone 7"),
        Job("-D -w 7", "flush --zone 7 --strategy kernel"),
        Job("-D -w 65535", "flush --zone 65535 --strategy scan"),
    ],
    ids=lambda job: job.ours,
)
def test_flush(pair: Pair, job: Job) -> None:
    """All of it, or a zone."""
    pair.fill()
    pair.both(job)
    wanted, found = pair.tables()
    assert found == wanted
    assert ("-w" in job.tool) == bool(found)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job",
    [
        Job("-D -s 10.9.9.9", "delete --src 10.9.9.9", (1, 0)),
        Job("-D -s 10.0.0.0.1", "delete --src 10.0.0.0.1", (2, 2), "--src.*'10.0.0.0.1'"),
        Job("-D -s 10.0.0.1 -d ::1", "delete --src 10.0.0.1 --dst ::1", (2, 2), "IPv4 and IPv6"),
        Job("-D -p tpc", "delete --proto tpc", (2, 2), "'tpc'"),
        Job("-L -p tcp --state OPEN", "dump --state open", (2, 2), "'open'"),
        Job("-L -u NONSENSE", "dump --status nonsense", (2, 2), "nonsense"),
        Job("-L -f ipx", "dump --family ipx", (2, 2), "ipv4 or ipv6"),
        Job("-L -l none", "dump --label none", (2, 2), "'none'"),
        Job("-L --nonsense", "dump --nonsense", (2, 2), "--nonsense"),
        # The tool takes these for something else: 10.0.0.0, 0, 0, 0.
        Job("-D -s 10.0.0", "delete --src 10.0.0", (1, 2), "'10.0.0'"),
        Job("-L -p tcp --sport 65536", "dump --sport 65536", (0, 2), "0 to 65535, not 65536"),
        Job("-L -w 65536", "dump --zone 65536", (0, 2), "65536"),
        Job("-L -m x", "dump --mark x", (0, 2), "'x'"),
    ],
    ids=str,
)
def test_errors(pair: Pair, job: Job) -> None:
    """What is wrong is named, and nothing is touched."""
    before = pair.tables()
    _, ours = pair.both(job)
    assert re.search(job.says, ours.err), ours
    assert pair.tables() == before
