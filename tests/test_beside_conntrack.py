"""``conntrack`` and ``nlct`` do the same job on two namespaces filled alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nlct
from tests.support import beside, expectations, tool
from tests.support.beside import FLOWS, Job, Pair, spelt

# conntrack tracks TCP liberally from each command that names a state, and from every update.
TCP_FLAGS = ("tcp_flags_orig", "tcp_flags_reply")


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


# A zone of one direction, which a flow of zone 7 does not have.
ZONES = (("--orig-zone", 8), ("--reply-zone", 9), ("--orig-zone", 7))

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
        *(Job(f"{name} {zone}", f"{name} {zone}") for name, zone in ZONES),
        *(Job("-n", "--src-nat"), Job("-g", "--dst-nat"), Job("-j", "--any-nat")),
        *(Job("-n 192.0.2.20", "--src-nat 192.0.2.20"), Job("-g 10.0.0.99", "--dst-nat 10.0.0.99")),
        *(Job(f"-l {label}", f"--label {label}") for label in ("5", "5,127", "9")),
        Job("-p tcp -s 10.0.0.1 -w 7 -m 0", "--proto tcp --src 10.0.0.1 --zone 7 --mark 0"),
    ]


FILTERS = filters()
# What matches no flow.
NONE = ("-l 9", "--orig-zone 7")
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
        "--orig-zone 8",
        "--reply-zone 9",
        "-n 192.0.2.20",
        "-l 5",
    )
]


def wide(jobs: list[Job]) -> list[object]:
    """The telling ones; beyond them, more of the same."""
    return [
        job if job in TELLING else pytest.param(job, marks=pytest.mark.exhaustive) for job in jobs
    ]


@pytest.mark.parametrize("job", wide(FILTERS), ids=str)
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
    assert found or job.tool in NONE


def test_count(pair: Pair) -> None:
    """Of all, and of what a list would show."""
    assert pair.nlct("count").out == pair.tool("-C", pair.ours).out
    shown = pair.tool("-L -p tcp", pair.ours).err
    assert pair.nlct("count --proto tcp").out.strip() in shown.split()


# One flow -----------------------------------------------------------------------------------------

V4, V6 = "-s 10.0.0.{} -d 192.0.2.1", "-s fd00::{} -d fd01::1"
ONE, SIX = V4.format(1), V6.format(1)


GET = [
    *(
        spelt(f"-G {names} -p {proto}")
        for names in (ONE, SIX)
        for proto in (
            *("udp --sport 1000 --dport 53", "tcp --sport 1000 --dport 80"),
            *("tcp --sport 1002 --dport 21", "udplite --sport 1000 --dport 53"),
            *("sctp --sport 1000 --dport 53", "gre --srckey 0x10 --dstkey 0x20", "50", "99"),
        )
    ),
    spelt(f"-G {ONE} -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7"),
    spelt(f"-G {SIX} -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7"),
    spelt(f"-G {V4.format(3)} -p udp --sport 1000 --dport 54"),
    spelt(f"-G {V6.format(4)} -p udp --sport 1000 --dport 56"),
    spelt(f"-G {V4.format(22)} -p udp --sport 22 --dport 22"),
    spelt(f"-G {V4.format(9)} -p udp --sport 9 --dport 9"),
]


def test_get(pair: Pair) -> None:
    """One flow, of every protocol, shown in the same words."""
    for job in GET:
        theirs, ours = pair.tool(job.tool, pair.ours), pair.nlct(job.ours)
        assert (theirs.code, ours.code) == job.codes, (job, theirs, ours)
        wanted, found = (tool.without_clocks(said.out) for said in (theirs, ours))
        assert found == re.sub(r" labels=\S+", "", wanted), job
        assert len(found.splitlines()) == 1


def test_get_in_a_zone(pair: Pair) -> None:
    """Of both directions or of the one that the tuple is of: the tool gets none of these."""
    udp = f"-G {ONE} -p udp --sport 1000 --dport 53"
    orig = f"-G {V6.format(8)} -p udp --sport 8 --dport 8"
    reply = "-G -r 192.0.2.1 -q 10.0.0.9 -p udp --reply-port-src 9 --reply-port-dst 9"
    for words, shown in (
        (f"{udp} -w 7", "zone=7"),
        (f"{udp} -w 65535", "zone=65535"),
        (f"{orig} -w 8", "zone-orig=8"),
        (f"{reply} -w 9", "zone-reply=9"),
    ):
        job = spelt(words, (2, 0))
        theirs, ours = pair.both(job)
        assert "--zone" in theirs.err
        assert f" {shown} " in ours.out, job
    # Nor by the tuple of the replies, translated or not.
    for end in (
        "192.0.2.1 -q 10.0.0.1 -p udp --reply-port-src 53 --reply-port-dst 1000",
        "10.0.0.98 -q 192.0.2.22 -p udp --reply-port-src 2222 --reply-port-dst 3333",
    ):
        _, ours = pair.both(spelt(f"-G -r {end}", (1, 0)))
        assert f" src={end.split()[0]} dst={end.split()[2]} " in ours.out


# Creating -----------------------------------------------------------------------------------------

_UDP = "-p udp --sport 9 --dport 53"
CREATE = [
    *(
        spelt(f"-I {names.format(host)} -p {what} -t 3600")
        for names in (V4, V6)
        for host, what in enumerate(
            (
                *("udp --sport 9 --dport 53 -m 0x11", "udplite --sport 9 --dport 53"),
                *("gre --srckey 16 --dstkey 32", "50", "99 -w 7"),
                "tcp --sport 9 --dport 80 --state SYN_SENT",
                "tcp --sport 9 --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -m 4294967295",
                *(f"udp --sport 9 --dport 53 {option} 7" for option in ("-w", "--orig-zone")),
                *("udp --sport 9 --dport 53 --reply-zone 7", "udp --sport 9 --dport 53 -w 65535"),
                *(f"udp --sport 9 --dport 53 -u {bit}" for bit in ("ASSURED", "FIXED_TIMEOUT")),
            ),
            start=100,
        )
    ),
    *(
        spelt(f"-I {V4.format(200 + host)} {_UDP} {nat} -t 3600")
        for host, nat in enumerate(
            (
                *("-n 192.0.2.30", "-n 192.0.2.31:4000", "-g 10.0.0.90", "-g 10.0.0.91:5353"),
                *("-n 192.0.2.30:4001 -g 10.0.0.90:99", "-n 192.0.2.30 -w 7"),
                *(
                    "-r 192.0.2.77 -q 10.0.0.77 --reply-port-src 1 --reply-port-dst 2",
                    "-n 192.0.2.32 --orig-zone 7",
                ),
            )
        )
    ),
    spelt(f"-I {V6.format(200)} {_UDP} -n fd01::30 -t 3600"),
    spelt(f"-I {V6.format(201)} {_UDP} -g [fd00::90]:5353 -t 3600"),
    *(
        spelt(f"-I {V4.format(host)} -p icmp --icmp-type {host} --icmp-code 0 --icmp-id 7 -t 3600")
        for host in (8, 13)
    ),
    spelt(f"-I {V6.format(1)} -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 9 -t 3600"),
    spelt(f"-A {V4.format(100)} {_UDP} -t 60"),
    spelt(f"-A {V4.format(250)} {_UDP} -t 3600"),
]


def test_create(pair: Pair) -> None:
    """Every protocol, zones of both kinds, translation, states, status."""
    for netns in (pair.theirs, pair.ours):
        with nlct.Conntrack(netns) as ct:
            ct.flush_all()
    for job in CREATE:
        _, ours = pair.both(job)
        exists = "-t 60" in job.tool
        assert ours.out == ("there already\n" if exists else "created\n"), job
    wanted, found = pair.tables()
    assert found == wanted
    assert len(found) == len(CREATE) - 1
    # The tool sends the tags of SCTP with their bytes reversed.
    sctp = spelt(f"-I {V4.format(1)} -p sctp --sport 1 --dport 2 --state ESTABLISHED -t 3600")
    theirs = f"{sctp.tool} --orig-vtag 16777216 --reply-vtag 33554432"
    pair.both(Job(theirs, f"{sctp.ours} --orig-vtag 1 --reply-vtag 2"))
    wanted, found = pair.tables()
    assert found == wanted
    # It has no labels here, and no helpers.
    pair.both(spelt(f"-I {V4.format(2)} {_UDP} -t 60 --label 5,127", (2, 0)))
    made = f"create {V4.format(3)} -p tcp --sport 1 --dport 21 --timeout 60 --state established"
    assert pair.nlct(f"{made} --helper ftp").code == 0
    more = [line for line in pair.tables()[1] if line not in found]
    assert ['"labels": [5, 127]' in line or '"helper": "ftp"' in line for line in more] == [
        True
    ] * 2


# Updating -----------------------------------------------------------------------------------------

# What the tool updates as well: flows of one family that have no zone and are not translated.
UPDATE = [
    Job("-U -f ipv4 -p sctp -m 9", "update --family ipv4 --proto sctp --set-mark 9"),
    Job("-U -f ipv6 -p gre -m 0x30/0xf0", "update -f ipv6 -p gre --set-mark 0x30/0xf0"),
    Job("-U -s 10.0.0.3 -m 0x0a00/0xff00", "update --src 10.0.0.3 --set-mark 0xa00/0xff00"),
    Job("-U -s fd00::3 -m 0/1", "update --src fd00::3 --set-mark 0/1"),
    Job("-U -s 10.0.0.1 -p icmp -m 1", "update --proto icmp --set-mark 1"),
    Job("-U -f ipv6 -p icmpv6 -m 1", "update --proto icmpv6 --set-mark 1"),
    Job("-U -s 10.0.0.1 -p 99 -m 1", "update --src 10.0.0.1 --proto 99 --set-mark 1"),
    Job("-U -s fd00::1 -p 50 -m 1", "update --src fd00::1 --proto esp --set-mark 1"),
    Job("-U -s 10.0.0.2 -p tcp -m 1", "update --src 10.0.0.2 --proto tcp --set-mark 1"),
    Job("-U -s fd00::2 -t 600", "update --src fd00::2 --set-timeout 600"),
    Job("-U -s 10.0.0.3 -t 1200 -m 3", "update --src 10.0.0.3 --set-timeout 1200 --set-mark 3"),
    Job("-U -s fd00::3 -p udp -u SEEN_REPLY", "update --src fd00::3 --set-status seen_reply"),
    Job("-U -s 10.0.0.4 -u ASSURED", "update --src 10.0.0.4 --set-status assured"),
    Job("-U -s 10.0.0.3 -u FIXED_TIMEOUT", "update --src 10.0.0.3 --set-status fixed_timeout"),
    Job("-U -s 10.0.0.3 --label-add 9", "update --src 10.0.0.3 --set-label 9"),
    Job("-U -s 10.0.0.3 --label-del 5", "update --src 10.0.0.3 --clear-label 5"),
    Job("-U -s fd00::3 --label-del", "update --src fd00::3 --clear-label all"),
    # None is an error to the tool alone.
    Job("-U -s 10.9.9.9 -m 5", "update --src 10.9.9.9 --set-mark 5", (1, 0)),
]


def test_update(pair: Pair) -> None:
    """Marks with masks, timeouts, status and labels, one after the other."""
    pair.fill()
    for job in UPDATE:
        before = beside.entries(pair.ours)
        pair.both(job)
        wanted, found = pair.tables(*TCP_FLAGS)
        assert found == wanted, job
        count = 0 if "10.9.9.9" in job.tool else len(set(beside.entries(pair.ours)) - set(before))
        updated = json.loads(pair.nlct(f"{job.ours} --json").out)
        # Again, there is nothing to change; but for timeouts.
        assert updated["updated"] == (0 if "timeout " not in job.ours else count), job
        assert bool(count) == ("10.9.9.9" not in job.tool), job


@pytest.mark.parametrize(
    "job",
    [
        # The tool takes a flow in a zone for the one without a zone that has its tuple, and
        # changes that, or stops if there is none.
        Job("-U -w 7 -m 77", "--zone 7", (2, 0)),
        Job("-U --orig-zone 8 -m 77", "--orig-zone 8", (2, 0)),
        Job("-U --reply-zone 9 -m 77", "--reply-zone 9", (2, 0)),
        Job("-U -f ipv4 -p udp -m 77", "--family ipv4 --proto udp"),
        # It cannot change what is translated, nor flows of both families at once.
        Job("-U -n 192.0.2.20 -m 77", "--snat 192.0.2.20"),
        Job("-U -g 10.0.0.99 -m 77", "--dnat 10.0.0.99"),
        Job("-U -p sctp -m 77", "--proto sctp", (1, 0)),
        Job("-U -m 77", "--all --yes", (1, 0)),
    ],
    ids=str,
)
def test_update_where_the_tool_fails(pair: Pair, job: Job) -> None:
    """What the filter lists is changed, and nothing else."""
    pair.fill()
    chosen = "" if "--all" in job.ours else job.ours
    listed = set(pair.nlct(f"dump {chosen} --columns id").out.split())
    theirs, ours = pair.both(job._replace(ours=f"update {job.ours} --set-mark 77 --json"))
    assert json.loads(ours.out)["updated"] == len(listed) > 0
    assert set(pair.nlct("dump --mark 77 --columns id").out.split()) == listed
    wanted, found = pair.tables("mark", *TCP_FLAGS)
    assert found == wanted
    assert "-w" in job.tool or theirs.err


# Saving -------------------------------------------------------------------------------------------


def test_load(pair: Pair, tmp_path: Path) -> None:
    """What either wrote, each reads: the tables are the same."""
    pair.fill()
    file = tmp_path / "saved"
    saved = {"ours": pair.nlct("dump --format save").out, "theirs": pair.tool("-L -o save").out}
    for whose, text in saved.items():
        # The tool cannot read its own lines of DCCP without ports, nor of a flow's whose master
        # is not there.
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if "-p dccp" not in line and "EXPECTED" not in line]
        file.write_text("".join(kept))
        for netns in (pair.theirs, pair.ours):
            with nlct.Conntrack(netns) as ct:
                ct.flush_all()
        _, ours = pair.both(Job(f"-R {file}", f"load {file}"))
        wanted, found = pair.tables(*TCP_FLAGS)
        # The tool loses ports that are translated together with both addresses.
        lost = [
            x.replace('"sport": 2222, "dport": 3333', '"sport": 22, "dport": 22') for x in found
        ]
        assert sorted(lost) == wanted != found, whose
        assert ours.out.startswith(f"{len(found)} flows created (")
        assert len(found) == len([line for line in kept if line[0] != "#"]) > 40
        # The tool's lines lack the mark.
        assert ('"mark": 17' in "".join(found)) == (whose == "ours")
    # Again: -A is no failure to the tool.
    before = pair.tables()
    pair.both(Job(f"-R {file}", f"load {file}", (0, 1), "File exists"))
    pair.both(Job(f"-R {file}", f"load --if-absent {file}"))
    assert pair.tables() == before


# Counters -----------------------------------------------------------------------------------------


def test_stats(pair: Pair) -> None:
    """The same numbers by the same names, for each processor."""
    said = json.loads(pair.nlct("stats --json").out)
    for table, name in (("", "flows"), ("expect", "expectations")):
        lines = pair.tool(f"-S {table}", pair.ours).out.splitlines()
        assert len(lines) == len(said["cpus"])
        for line in lines:
            cpu, *pairs = (word.split("=") for word in line.split())
            wanted = {key.replace("expect_", ""): int(value) for key, value in pairs}
            found = said["cpus"][cpu[1]][name]
            assert {key: found[key] for key in wanted} == wanted
    assert said["flows"]["insert"] > 0


# Packets of known sizes and ports, to nobody.
PACKETS = """
ip link set lo up
echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct
exec python3 -c '
import socket
for port in range(3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 40000 + port))
        for size in range(port + 1):
            sender.sendto(bytes(size), ("127.0.0.1", 50000 + port))
'
"""


def test_zero(pair: Pair) -> None:
    """Counters are shown as they were, and are zero thereafter; those of other flows stay."""
    for netns in (pair.theirs, pair.ours):
        with nlct.Conntrack(netns) as ct:
            ct.flush_all()
        tool.run(netns, "sh", "-c", PACKETS)
    wanted, found = pair.tables()
    assert found == wanted
    assert sorted(json.loads(line)["packets_orig"] for line in found) == [1, 2, 3]
    for job in (
        Job("-L -z", "dump --zero --dport 50001,50002"),
        Job("-L", "dump --dport 50001,50002"),
    ):
        theirs, ours = pair.both(job)
        # The tool zeroes all there is.
        kept = [line for line in theirs.out.splitlines() if " dport=50000 " not in line]
        wanted, found = (
            sorted(re.sub(r" use=\d+", "", tool.without_clocks(line)) for line in lines)
            for lines in (kept, ours.out.splitlines())
        )
        assert found == wanted
    assert ours.out.count(" packets=0 bytes=0 ") == 4
    assert " packets=1 bytes=28 " in pair.nlct("dump --dport 50000").out
    pair.both(Job("-L -z", "dump --zero --all"))
    wanted, found = pair.tables()
    assert found == wanted


# Expectations -------------------------------------------------------------------------------------

EXPECT = "{} {}-src 10.0.0.2 {}-dst 10.0.0.1"


def test_expectations(pair: Pair) -> None:
    """Listed in the same words; one that exists, or without its master; flushed."""
    masters = {}
    for netns in (pair.theirs, pair.ours):
        with nlct.Conntrack(netns) as ct:
            ct.flush_all()
            masters = {
                4: expectations.masters(ct, 2),
                6: expectations.masters(ct, 1, family=6),
            }
            for family, made in masters.items():
                for number, master in enumerate(made[-1:]):
                    one = expectations.expected(number, family)
                    asked = expectations.number(expectations.TIMEOUT, 30)
                    assert expectations.create(netns, master, one, asked) == 0
    # The tool leaves out the protocol of what is expected, and so its ports.
    theirs = (
        "-I expect -t 30 -p tcp --tuple-src 10.0.0.2 --tuple-dst 10.0.0.1 --tuple-port-src 0 "
        "--tuple-port-dst 50009 --mask-src 255.255.255.255 --mask-dst 255.255.255.255 "
        "--mask-port-src 0 --mask-port-dst 65535 -s 10.0.0.1 -d 10.0.0.2 --sport {} --dport 21"
    )
    ours = (
        "expect create --proto tcp --src 10.0.0.2 --dst 10.0.0.1 --sport 0 --dport 50009 "
        "--mask-src 255.255.255.255 --mask-dst 255.255.255.255 --mask-sport 0 --mask-dport 65535 "
        "--master-src 10.0.0.1 --master-dst 10.0.0.2 --master-sport {} --master-dport 21"
    )
    create = Job(theirs.format(40000), ours.format(40000))
    pair.both(create)
    for job in (
        create._replace(codes=(1, 1), says="File exists"),
        Job(theirs.format(4), ours.format(4), (1, 1), "No such file|File exists"),
        Job("-I expect -p tcp -t 9", "expect create --proto tcp", (2, 2), "needs --dst"),
    ):
        _, said = pair.both(job)
        assert re.search(job.says, said.err), said
    for netns in (pair.theirs, pair.ours):
        listed = pair.nlct("expect list", netns).out.splitlines()
        # The tool lists one family at a time.
        wanted = [
            line
            for family in ("ipv4", "ipv6")
            for line in pair.tool(f"-L expect -f {family}", netns).out.splitlines()
        ]
        # Without the seconds, which may pass in between.
        assert sorted(x.split(" ", 1)[1] for x in listed) == sorted(
            x.split(" ", 1)[1] for x in wanted
        )
        assert len(listed) == 3
        # Whatever timeout was asked for: the helper's.
        assert all(250 < int(line.split()[0]) <= 300 for line in listed)
    pair.both(Job("-F expect", "expect flush --all --yes"))
    assert not pair.nlct("expect list").out


# Deleting -----------------------------------------------------------------------------------------


# The tool deletes by either only.
@pytest.mark.parametrize(
    "job", wide([job for job in FILTERS if job.tool not in ("", "-j")]), ids=str
)
def test_delete(pair: Pair, job: Job) -> None:
    """The same flows are left, and as many are said to be deleted."""
    pair.fill()
    some = job.tool not in NONE
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


@pytest.fixture(scope="module")
def full(pair: Pair) -> None:
    """Both tables full; of ours, no error takes anything."""
    pair.fill()


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
        Job("-L --orig-zone 65536", "dump --orig-zone 65536", (0, 2), "65535, not 65536"),
        # Absent; in a zone that it is not in.
        spelt(f"-G {V4.format(5)} {_UDP}", (1, 1), "no flow src=10.0.0.5 .*dport=53"),
        spelt(f"-G {V4.format(8)} -p udp --sport 8 --dport 8", (1, 1), "no flow src=10.0.0.8"),
        spelt(f"-G {ONE} -p udp --sport 1000 --dport 53 -w 8", (2, 1), "in zone 8"),
        # Exists.
        spelt(f"-I {ONE} -p udp --sport 1000 --dport 53 -t 9", (1, 1), "src=10.0.0.1 .* already"),
        spelt(f"-I {ONE} -p udp --sport 1000 --dport 53 -t 9 -w 7", (1, 1), "in zone 7 already"),
        spelt(f"-I {SIX} -p 99 -t 9", (1, 1), "src=fd00::1 dst=fd01::1 proto=99 in zone 0 already"),
        # Not enough, or too much.
        spelt(f"-I {ONE} {_UDP}", (2, 2), "--timeout"),
        spelt(f"-I {ONE} -p tcp --sport 1 --dport 2 -t 9", (2, 2), "--state"),
        spelt(f"-I {ONE} -p udp -t 9", (2, 2), "--sport, --dport"),
        spelt(f"-I {ONE} -p icmp --icmp-type 8 -t 9", (2, 2), "--icmp-code"),
        spelt(f"-G {ONE}", (2, 2), "--proto"),
        spelt("-G -p udp", (2, 2), "name the flow"),
        spelt("-G -s 10.0.0.1 -p udp --sport 1 --dport 2", (2, 2), "--dst"),
        Job("-U -s 10.0.0.1", "update --src 10.0.0.1", (1, 2), "nothing to change"),
        # Bad values.
        spelt(f"-I -s 10.0.0.1 -d fd01::1 {_UDP} -t 9", (2, 2), "one family.*fd01::1"),
        spelt(f"-I -s 10.0.0.0.1 -d 192.0.2.1 {_UDP} -t 9", (2, 2), "src .*'10.0.0.0.1'"),
        spelt(f"-I {ONE} -p tpc --sport 1 --dport 2 -t 9", (2, 2), "proto .*'tpc'"),
        spelt(f"-I {ONE} {_UDP} -t 9 -w 65536", (0, 2), "--zone.*65536"),
        spelt(f"-I {ONE} {_UDP} -t 9 -n 10.0.0.0.1", (2, 2), "--snat.*'10.0.0.0.1'"),
        spelt(f"-I {V4.format(60)} {_UDP} -t 9 -g 10.0.0", (0, 2), "--dnat.*'10.0.0'"),
        spelt(f"-I {ONE} {_UDP} -t 9 -n 1.2.3.4:65536", (2, 2), "--snat.*65535, not 65536"),
        spelt(f"-I {ONE} {_UDP} -t 9 -u NONSENSE", (2, 2), "--status.*'nonsense' is not one of"),
        spelt(f"-I {ONE} -p tcp --sport 1 --dport 2 -t 9 --state OPEN", (2, 2), "'open'"),
        Job("-U -s 10.0.0.1 -m x", "update --src 10.0.0.1 --set-mark x", (0, 2), "--set-mark.*'x'"),
        Job("-U -s 10.0.0.3 -m 3/2", "update --src 10.0.0.3 --set-mark 3/2", (0, 2), "of its mask"),
        Job(
            "-U -s 10.0.0.3 -t x", "update --src 10.0.0.3 --set-timeout x", (1, 2), "-timeout.*'x'"
        ),
        Job("-U -s 10.0.0.1 -u DYING", "update -s 10.0.0.1 --set-status dying", (2, 2), "dying"),
        Job("-U -s 10.0.0.1 --label-add 128", "update -s 10.0.0.1 --set-label 128", (2, 2), "128"),
        Job("-R /nowhere", "load /nowhere", (2, 1), "/nowhere: No such file"),
        Job("-R -", "load -", (2, 1), "standard input: .*'nonsense"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("full")
def test_errors(pair: Pair, job: Job) -> None:
    """What is wrong is named, and nothing is touched."""
    before = beside.entries(pair.ours)
    _, ours = pair.both(job, given="nonsense\n")
    assert re.search(job.says, ours.err), ours
    assert beside.entries(pair.ours) == before
