"""The command line: ``nlct stats``, how full the table is, ``dump --zero``, ``--list``, notes."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

import nlct
from tests.support.command import NLCT, at_terminal, nlct_, refused
from tests.support.flows import udp

NO_COUNTERS = "nf_conntrack_acct is 0, so new flows have no counters"
NO_LABELS = "no flow has labels"


@pytest.fixture
def full(ct: nlct.Conntrack) -> nlct.Conntrack:
    """Some flows in two zones."""
    for number in range(6):
        ct.create(udp(number, zone=number % 2))
    return ct


def test_stats(full: nlct.Conntrack, where: str) -> None:
    """As a table and as JSON, summed and by processor."""
    found = json.loads(nlct_("stats", where, "--json").stdout)
    assert found == json.loads(json.dumps(full.stats().to_dict()))
    text = nlct_("stats", where).stdout
    assert re.search(r"^ *insert_failed +0 *$", text, re.MULTILINE)
    assert re.search(r"^ *expect_create +0 *$", text, re.MULTILINE)
    assert f"flows: 6 of {full.limit:,} (0.0 %)" in text
    by_cpu = nlct_("stats", where, "--cpu").stdout
    assert all(f"cpu {cpu}" in by_cpu for cpu in found["cpus"])
    assert "all processors" not in by_cpu
    assert nlct_("stats", where, "--per-cpu").exit_code == 2


def test_count_says_how_full_the_table_is_to_people(full: nlct.Conntrack, where: str) -> None:
    """A program gets the bare number; so do people where they filter."""
    assert nlct_("count", where).stdout == "6\n"
    assert f"6 of {full.limit:,} (0.0 %)\r\n" in at_terminal("count", where)[1]
    code, text = at_terminal("count", where, "--zone", "1")
    assert code == 0
    assert text.endswith("3\r\n")
    assert " of " not in text


def test_zero(full: nlct.Conntrack, where: str) -> None:
    """It prints what dump prints, and everything must be meant."""
    listed = nlct_("dump", where, "--zone", "1")
    zeroed = nlct_("dump", where, "--zone", "1", "--zero")
    # Time goes on, and whoever looks a flow up uses it.
    moving = re.compile(r"\d+ (?=src=10)|use=\d")
    assert moving.sub("", zeroed.stdout) == moving.sub("", listed.stdout)
    assert zeroed.stdout.count("\n") == 3
    lines = nlct_("dump", where, "--zero", "--all", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert sorted(each["id"] for each in found) == sorted(flow.id or 0 for flow in full.dump())
    assert "--all" in refused(nlct_("dump", where, "--zero"), 2)
    for wrong in (
        ("--zero", "--all", "--zone", "1"),
        ("--zero", "--all", "--output", "zeroed"),
        ("--zero", "--all", "--columns", "src"),
        ("--zero", "--all", "--list", "dying"),
        ("--list", "dying", "--format", "arrow", "--output", "zeroed"),
        ("--all",),
    ):
        refused(nlct_("dump", where, *wrong), 2)


def test_zero_writes_what_it_zeroed_before_it_ends(full: nlct.Conntrack, where: str) -> None:
    """Ctrl-C in the middle of a batch: the batch is written, and no other is begun."""
    code = (
        "import os, signal\n"
        "from nlct.cli import special\n"
        "from nlct.cli.commands import cli\n"
        "special.ROWS = 2\n"
        "write = special._write\n"
        "def interrupted(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    write(*arguments)\n"
        "special._write = interrupted\n"
        "cli()\n"
    )
    done = subprocess.run(
        [NLCT[0], "-c", code, "dump", where, "--zero", "--all"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert len(done.stdout.splitlines()) == 2
    assert full.count() == 6


def test_lists(full: nlct.Conntrack, where: str) -> None:
    """They are empty, and the table is not among them."""
    for which in ("dying", "unconfirmed"):
        for form in ((), ("--json",)):
            done = nlct_("dump", where, "--list", which, *form)
            assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert full.count() == 6


@pytest.mark.usefixtures("full")
def test_notes(netns: nlct.Netns, where: str) -> None:
    """A line on standard error for each sysctl or rule that is missing, and none otherwise."""
    fd = netns.open_file("/proc/sys/net/netfilter/nf_conntrack_acct", os.O_WRONLY)
    os.write(fd, b"0")
    columns = ("dump", where, "--columns", "src,bytes_orig,bytes_reply,labels")
    done = nlct_(*columns)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 6
    first, second = done.stderr.splitlines()
    assert first.startswith(f"nlct: {NO_COUNTERS}: sysctl -w net.netfilter.nf_conntrack_acct=1")
    assert second.startswith(f"nlct: {NO_LABELS}")
    for command in (("count", where), ("delete", where, "--dry-run"), ("dump", where, "--json")):
        assert NO_LABELS in nlct_(*command, "--label", "3").stderr
        assert nlct_(*command, "--zone", "1").stderr == ""
    os.write(fd, b"1")
    os.close(fd)
    assert NO_COUNTERS not in nlct_(*columns).stderr
