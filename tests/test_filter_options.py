"""Options that select flows: exclusion, alternatives, other names, and what conntrack(8) has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import click

import nlct
from nlct import Filter, Flow, Status, Tuple, labels
from nlct.cli.commands import count as count_command
from nlct.cli.commands import delete as delete_command
from nlct.cli.commands import events as events_command
from tests.support import filters, tool
from tests.support.command import nlct_, refused
from tests.support.flows import reverse
from tests.support.namespaces import scratch


def nat(port: int, status: Status, to: str = "10.0.0.2", **changed: Any) -> Flow:
    """A translated flow."""
    orig = Tuple("10.0.0.1", to, "udp", port, 2)
    reply = reverse(orig).replace(**changed)
    return Flow(orig, reply, timeout=1000, status=status | Status.SEEN_REPLY)


FLOWS = [
    Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2), timeout=1000, zone=5),
    Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 2, 2, zone=5), timeout=1000),
    Flow(
        Tuple("10.0.0.1", "10.0.0.2", "udp", 3, 2),
        Tuple("10.0.0.2", "10.0.0.1", "udp", 2, 3, zone=5),
        timeout=1000,
    ),
    nat(4, Status.SRC_NAT, dst="192.0.2.1", dport=80),
    nat(5, Status.SRC_NAT, dst="192.0.2.1", dport=81),
    nat(80, Status.SRC_NAT, "10.0.0.3", dst="192.0.2.1"),
    nat(6, Status.DST_NAT, src="192.0.2.1", sport=80),
    Flow(Tuple("10.0.0.1", "10.0.0.2", "gre", 7, 16), timeout=1000),
    Flow(Tuple("10.0.0.9", "10.0.0.2", "udp", 9, 2), timeout=1000, mark=7, labels=1 << 1),
    Flow(Tuple("10.0.0.9", "10.0.0.2", "udp", 10, 2), timeout=1000, labels=1 << 1 | 1 << 5),
    Flow(
        Tuple("10.0.0.9", "10.0.0.2", "tcp", 11, 2),
        timeout=1000,
        tcp_state="established",
        status=Status.SEEN_REPLY | Status.ASSURED,
    ),
    Flow(
        Tuple("10.0.0.9", "10.0.0.2", "sctp", 12, 2),
        timeout=1000,
        sctp_state="established",
        sctp_vtag_orig=1,
        sctp_vtag_reply=2,
    ),
    Flow(
        Tuple("10.0.0.8", "10.0.0.2", "udp", 13, 2),
        timeout=1000,
        master=Tuple("10.0.0.9", "10.0.0.2", "tcp", 11, 2),
    ),
    Flow(Tuple("fd00::1", "fd00::2", "udp", 14, 2), timeout=1000),
]


@pytest.fixture(scope="module")
def netns() -> Iterator[nlct.Netns]:
    """A table of flows, each in some way different."""
    netns = scratch()
    with netns, nlct.Conntrack(netns) as ct:
        filters.prepare(netns)
        assert ct.load(FLOWS).created == len(FLOWS)
        yield netns


@pytest.fixture(scope="module")
def where(netns: nlct.Netns) -> str:
    """The option that names it."""
    return f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"


# Beside conntrack(8) -----------------------------------------------------------------------------

# What one says to both.
SAME = [
    *("--orig-zone 5", "--reply-zone 5", "--orig-zone 6"),
    *(
        "-n",
        "-n 192.0.2.1:81",
        "-g 192.0.2.1:80",
        "-j 192.0.2.1:81",
        "-g 192.0.2.1",
        "-j 192.0.2.1",
    ),
    *("-u UNREPLIED", "-u SEEN_REPLY", "-u ASSURED,UNSET", "-u HW_OFFLOAD", "-u EXPECTED"),
    *("-u FIXED_TIMEOUT", "-u OFFLOAD", "-l one", "-l one -l five", "-l one,five", "-l last"),
    *("-p gre --srckey 0x7", "-p gre --srckey 7 --dstkey 16", "-p gre --dstkey 0x10"),
    *("--orig-src 10.0.0.9", "--orig-dst 10.0.0.2", "--protonum 6", "-p sctp"),
    *("-p udp --orig-port-src 9", "-p tcp --orig-port-dst 2", "-p udp --reply-port-src 2"),
    *("-p udp --reply-port-dst 80", "-s 10.0.0.8/31", "-p tcp --state ESTABLISHED"),
]
# What it says, and what nlct says: its own spelling.
SPELT = {
    "-n 192.0.2.1": "--src-nat 192.0.2.1",
    "-s 10.0.0.9 --mask-src 255.255.255.254": "-s 10.0.0.8/255.255.255.254",
    # A flow has no zone of one direction, which is not zone 0.
    "--orig-zone 0": "--not-orig-zone 0-",
    "-w 0": "-w 0 --or --orig-zone 0- --or --reply-zone 0-",
    # It wants the port to be translated, too.
    "-n 192.0.2.1:80": "--snat 192.0.2.1:80 --not-sport 80",
}
CONNLABEL = """\
1 one
5 five
127 last
"""
# As tests/support/tool.py has it, with these names.
WITH_NAMES = r"""
set -e
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/xtables
cp "$1" /mnt/xtables/connlabel.conf
mount --move /mnt /etc
shift
for given in "$@"; do
    conntrack -L -o id $given 2>&1 | sed -n "s/.* id=\([0-9]*\).*/\1/p" | sort -n | tr "\n" " "
    echo
done
"""


def test_conntrack_lists_the_same(
    netns: nlct.Netns, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option by option."""
    file = tmp_path / "connlabel.conf"
    file.write_text(CONNLABEL)
    monkeypatch.setattr(labels, "PATH", str(file))
    both = {**{given: given for given in SAME}, **SPELT}
    script = ("unshare", "--mount", "sh", "-c", WITH_NAMES, "sh", str(file), *both)
    lines = tool.run(netns, *script).splitlines()
    assert len(lines) == len(both)
    for (theirs, ours), line in zip(both.items(), lines):
        said = nlct_("dump", where, "--columns", "id", *ours.split())
        assert said.exit_code == 0, said.stderr
        assert sorted(map(int, said.stdout.split())) == list(map(int, line.split())), theirs
    # Few of them are about nothing.
    assert sum(map(bool, map(str.strip, lines))) >= len(lines) - 7


# Exclusion and alternatives ----------------------------------------------------------------------

# By options: the filter that they mean.
JOINED = {
    "--not-src 10.0.0.9": ~Filter(src="10.0.0.9"),
    "--not-src 10.0.0.9 --not-orig-src 10.0.0.8": ~Filter(src=["10.0.0.9", "10.0.0.8"]),
    "--proto udp --not-dport 5-6,2": Filter(proto="udp") & ~Filter(dport=[range(5, 7), 2]),
    "--zone 0 --not-zone 0": Filter(zone=0) & ~Filter(zone=0),
    "--not-family ipv6": ~Filter(family="ipv6"),
    "--not-state established": ~Filter(state="established"),
    "--not-state established -p sctp": Filter(proto="sctp")
    & ~Filter(proto="sctp", state="established"),
    "--not-snat 192.0.2.1:80 --not-any-nat --mark 0": Filter(mark=0)
    & ~Filter(snat="192.0.2.1:80")
    & ~Filter(any_nat=True),
    "--not-status assured,unreplied": ~Filter(status=(4, 6)),
    "--not-status-none assured": ~Filter(status_none="assured"),
    "--not-src-nat": ~Filter(snat=True),
    "--src 10.0.0.1 --or --dst 10.0.0.1": Filter(src="10.0.0.1") | Filter(dst="10.0.0.1"),
    "-p udp --src 10.0.0.9 --or --sport 11 -p tcp --or --mark 7": Filter(
        proto="udp", src="10.0.0.9"
    )
    | Filter(proto="tcp", sport=11)
    | Filter(mark=7),
    "--not-mark 0 --or --not-proto udp,tcp --zone 0": ~Filter(mark=0)
    | Filter(zone=0) & ~Filter(proto=["udp", "tcp"]),
    "-s 10.0.0.1 --or -s 10.0.0.9 -s 10.0.0.8": Filter(src="10.0.0.1")
    | Filter(src=["10.0.0.9", "10.0.0.8"]),
    "--srckey 0x7": Filter(proto="gre") & Filter(sport=7),
    "--dstkey 16 --proto 47": Filter(proto="gre") & Filter(proto="gre") & Filter(dport=16),
    "--not-srckey 7": ~(Filter(proto="gre") & Filter(sport=7)),
    "--family ipv4,ipv6 --mark 7": Filter(mark=7),
}


@pytest.mark.parametrize("given", JOINED)
def test_what_options_mean_together(netns: nlct.Netns, where: str, given: str) -> None:
    """Each as the library has it; deletes count what dumps list."""
    with nlct.Conntrack(netns) as ct:
        meant = sorted(flow.id or 0 for flow in ct.dump(JOINED[given]))
    said = nlct_("dump", where, "--columns", "id", *given.split())
    assert sorted(map(int, said.stdout.split())) == meant
    dry = nlct_("delete", where, "--dry-run", *given.split())
    assert dry.stdout.startswith(f"{len(meant)} flow"), (dry.stdout, dry.stderr)


def test_each_option_excludes(where: str) -> None:
    """By every name that it has: what it means, and what it excludes, are all there is."""
    values = {"ADDRESS": "10.0.0.9", "[ADDRESS][:PORT]": "192.0.2.1:80", "BIT": "assured"}
    values |= {"PROTO": "udp", "FAMILY": "ipv4", "STATE": "established", "NAME": "ftp"}
    names = []
    for param in delete_command.command.params:
        if (param.name or "").startswith("not_") and isinstance(param, click.Option):
            value = values.get(str(param.metavar), "1")
            names += [(name, name.replace("--not-", "--"), value) for name in param.opts]
    assert len(names) > 50
    for excluding, option, value in names[:: len(names) // 12]:
        counts = [int(nlct_("count", where, name, value).stdout) for name in (option, excluding)]
        assert sum(counts) == len(FLOWS), option


WIDE = [
    *("--src 10.0.0.1 --or --not-src 10.0.0.1", "--not-mark 0 --or --mark 0"),
    *("--not-src 10.0.0.1 --or --not-src 10.0.0.9", "--zone 0- --or --mark 7"),
    *("--snat 192.0.2.1:80 --or --not-snat 192.0.2.1:80", "--family ipv4,ipv6 --or --mark 7"),
    *("--srckey 7 --or --not-srckey 7", "--not-address 10.0.0.1 --or --address 10.0.0.1"),
    "-p udp --dport 2 --or -p udp --not-dport 2 --or --not-proto udp",
    *("--status unreplied --or --status seen_reply", "--not-zone 5 --or --zone 5-6"),
]


def test_nothing_is_deleted_by_alternatives(netns: nlct.Netns, where: str) -> None:
    """Those that leave out nothing are refused, whatever they are made of; so is an empty one."""
    for given in WIDE:
        for more in ((), ("--dry-run",), ("--yes",), ("--all", "--yes")):
            refused(nlct_("delete", where, *given.split(), *more), 2)
    for given in ("--or", "--src 10.0.0.9 --or", "--or --src 10.0.0.9", "--mark 7 --or --or -z 1"):
        for command in ("delete", "count", "dump"):
            assert "--or must" in refused(nlct_(command, where, *given.split()), 2)
    with nlct.Conntrack(netns) as ct:
        assert ct.count() == len(FLOWS)


def test_what_is_wrong_is_named(where: str) -> None:
    """The option that was given, in the alternative in which it was."""
    for given, named, why in (
        ("--mark 7 --or --src 10.0.0.1 --dst fd00::1", "--dst", "must be of one family"),
        ("--src 10.0.0.1 --or --dst fd00::1 --not-mark 1/1,2", None, ""),
        ("--mark 7 --or --not-mark 2/1", "--not-mark", "within its mask"),
        ("--proto udp --srckey 7", "--srckey", "--srckey implies --proto gre"),
        ("--not-state cookie_wait", "--not-state", "must be from 0 to 255"),
        ("--orig-src 10.0.0", "--orig-src", "10.0.0"),
        ("--not-protonum x", "--not-proto", "proto must be"),
        ("--proto tcp --not-src @/dev/null", "--not-src", "names nothing to exclude"),
    ):
        said = nlct_("count", where, *given.split())
        if named is None:
            assert said.exit_code == 0
        else:
            assert re.search(f"{named}\\b.*{why}", refused(said, 2)), given


def test_help_stays_short_and_completion_has_all() -> None:
    """One line for all options that exclude, none for other names."""
    for module in (delete_command, count_command, events_command):
        command = module.command
        said = command.get_help(click.Context(command))
        assert len(re.findall(r"^  --not-\.\.\. ", said, re.MULTILINE)) == 1
        assert "--src-nat" not in said
        assert len(re.findall("--not-", said)) == 3
        context = click.Context(command)
        offered = {item.value for item in command.shell_complete(context, "--not-s")}
        assert {"--not-src", "--not-snat", "--not-src-nat", "--not-state"} <= offered
        assert {item.value for item in command.shell_complete(context, "--or")} >= {"--or"}
