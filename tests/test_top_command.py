"""`nlct top` on a terminal, as a person sees it, and what is left of the terminal afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import nlct
from nlct import Flow, Tuple
from nlct.cli.live import Live
from nlct.fill import fill
from tests.support import filters
from tests.support.command import NLCT, nlct_, process, refused
from tests.support.examples import telling
from tests.support.hidden import until
from tests.support.terminal import Terminal, on_terminal

QUICK = ("--interval", "0.2")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m")


def flow(zone: int, number: int) -> Flow:
    """One flow of many."""
    return Flow(
        Tuple(f"10.9.{number // 200}.{number % 200 + 1}", "10.1.0.1", "udp", 1000, 53),
        zone=zone,
        timeout=1000,
    )


# What it shows -----------------------------------------------------------------------------------


def test_counts_follow_what_happens(ct: nlct.Conntrack, where: str) -> None:
    """Rows appear, grow, are sorted, searched and counted by other fields; q ends it."""
    fill(ct, flows=100, zones=4)
    with on_terminal("top", where, *QUICK) as terminal:
        terminal.shows(r"1-4 of 4")
        terminal.wait(lambda: terminal.row("3")[1:3] == ["25", "25.0%"], "25 flows of zone 3")
        assert any(re.match(r"table .* 100 of [\d,]+ \(0.\d %\)", line) for line in terminal.lines)
        for number in range(60):
            ct.create(flow(7, number))
        # In the first row, as the largest.
        terminal.wait(lambda: terminal.lines[7].split()[:2] == ["7", "60"], "the largest zone")
        terminal.press("r")
        terminal.wait(lambda: terminal.lines[7].split()[0] == "1", "the smallest zone")
        ct.flush_zone(7)
        terminal.wait(lambda: terminal.row("7") == [], "the end of zone 7")
        terminal.press("/4\r")
        terminal.shows(r"1-1 of 1   with '4'")
        assert (terminal.row("3"), terminal.row("4")[:2]) == ([], ["4", "25"])
        terminal.press("p")
        terminal.wait(lambda: terminal.row("udp")[:2] == ["udp", "100"], "100 flows of UDP")
        terminal.press("s")
        terminal.shows("counted  by dumps alone")
        terminal.shows("it counts by tcp_state, which may change")
        terminal.press("b\x15src/16,zone\r")
        terminal.shows(r"^SRC/16 +ZONE +FLOWS")
        terminal.wait(lambda: terminal.row("10.0.0.0/16")[2:3] == ["25"], "zones of a network")
        terminal.press("?")
        terminal.shows(r"q +quit")
        terminal.press("x")
        terminal.shows(r"^SRC/16")
        terminal.press("q")
        assert terminal.exit_code() == 0
        assert terminal.is_restored()


def test_rates_and_a_filter(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """New and gone a second, of the flows that the options select."""
    filters.write(netns, "acct", 1)
    numbers = iter(range(100000))
    with on_terminal("top", where, *QUICK, "-z", "7", "--sort", "new") as terminal:
        terminal.shows(r"^ZONE .*NEW/S▼ +GONE/S +BYTES/S")
        terminal.shows("^only +--zone 7$")

        def rates() -> bool:
            for zone in (7, 8):
                made = flow(zone, next(numbers) % 10000)
                ct.create(made)
                ct.delete_flow(made)
            row = terminal.row("7")
            return len(row) > 4 and float(row[3]) > 0 and row[3] == row[4]

        terminal.wait(rates, "rates of zone 7")
        assert terminal.row("8") == []
        terminal.shows(r"^flows .* new [1-9][\d.,]*/s +gone [1-9]")


def test_it_says_why_there_are_no_events_and_no_bytes(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str
) -> None:
    """The sysctls, by their names."""
    filters.write(netns, "acct", 0)
    filters.write(netns, "events", 0)
    ct.create(flow(7, 1))
    with on_terminal("top", where, *QUICK) as terminal:
        terminal.shows(r"no bytes: nf_conntrack_acct=0")
        terminal.shows(r"^counted  by dumps alone")
        terminal.shows(r"nf_conntrack_events is 0")
        ct.create(flow(7, 2))
        terminal.wait(lambda: terminal.row("7")[1:2] == ["2"], "two flows")
        assert "CHANGE/S" in "".join(terminal.lines)


# `make test` tries the least size; others are of the usual one.
@pytest.mark.parametrize("size", telling([(80, 24), (40, 10), (200, 60)], [(40, 10)]), ids=str)
def test_it_fits(ct: nlct.Conntrack, where: str, size: tuple[int, int]) -> None:
    """The title on the first line and the keys on the last, whatever the size."""
    fill(ct, flows=1000, zones=100)
    with on_terminal("top", where, *QUICK, size=size) as terminal:
        terminal.shows("of 100$")
        assert terminal.lines[0].startswith("nlct top")
        assert terminal.lines[-1].startswith("? keys  q quit   1-")
        assert all(terminal.lines[8:])


def test_a_window_of_another_size(ct: nlct.Conntrack, where: str) -> None:
    """At once, without leftovers; too small is one line, and large again is all of it."""
    fill(ct, flows=1000, zones=100)
    with on_terminal("top", where, "--interval", "3600") as terminal:
        terminal.shows("1-16 of 100$")
        terminal.resize(120, 40)
        terminal.shows("1-32 of 100$")
        assert len(terminal.lines[0]) == 120
        terminal.resize(30, 5)
        terminal.shows("nlct top needs 40x10")
        assert not any(terminal.lines[1:])
        terminal.resize(40, 12)
        terminal.shows("1-8 of 100$")
        assert terminal.lines[-1].startswith("? keys")


# The option and the variable do the same; `make test` tries the option.
@pytest.mark.parametrize("way", telling(["NO_COLOR", "--no-color", ""], ["--no-color", ""]))
def test_colours(ct: nlct.Conntrack, where: str, way: str) -> None:
    """None where nobody wants them; the headings stand out without."""
    ct.create(flow(7, 1))
    env = {"NO_COLOR": "1"} if way == "NO_COLOR" else {}
    options = (way,) if way.startswith("--") else ()
    with on_terminal("top", where, *QUICK, *options, env=env) as terminal:
        terminal.shows("1-1 of 1$")
        terminal.press("q")
        assert terminal.exit_code() == 0
        assert bool(COLOUR.search(terminal.printed)) == (not way)
        assert b"\x1b[1;7m" in terminal.printed


def test_fields_that_are_taken_back_at_once(ct: nlct.Conntrack) -> None:
    """Whether the thread has seen them or not, there is something to show again."""
    fill(ct, flows=100, zones=10)
    with closing(Live(ct, nlct.Filter(), ("zone",), 3600, True)) as live:
        until(live.take)
        for _ in range(20):
            live.ask(("proto",), 3600)
            live.ask(("zone",), 3600)
            until(live.take)


def test_a_terminal_that_stops_does_not_hold_the_counts_up(ct: nlct.Conntrack, where: str) -> None:
    """Nothing is read of it while events come: none is lost, and the counts are right."""
    with on_terminal("top", where, "--interval", "0.1") as terminal:
        terminal.shows("0-0 of 0")
        fill(ct, flows=15000, zones=1000)
        ct.flush_zones(range(2, 1000))
        terminal.wait(lambda: terminal.row("1")[1:2] == ["15"], "15 flows of zone 1")
        terminal.shows("of 2$")
        assert "losses" not in "".join(terminal.lines)


# How it ends -------------------------------------------------------------------------------------


WAYS = {
    "q": ("q", 0),
    "Ctrl-C": ("\x03", 130),
    "SIGTERM": (signal.SIGTERM, 143),
    "SIGHUP": (signal.SIGHUP, 129),
    "SIGINT": (signal.SIGINT, 130),
}


# `make test` tries the two keys; of signals, test_without_a_keyboard tries one.
@pytest.mark.parametrize("way", telling(WAYS, ["q", "Ctrl-C"]))
def test_it_leaves_the_terminal_as_it_was(where: str, way: str) -> None:
    """Its screen, its cursor, its echo; and it prints nothing more."""
    how, code = WAYS[way]
    with on_terminal("top", where, *QUICK) as terminal:
        terminal.shows("0-0 of 0")
        assert termios.tcgetattr(terminal.end) != terminal.before
        if isinstance(how, str):
            terminal.press(how)
        else:
            terminal.process.send_signal(how)
        assert terminal.exit_code() == code
        assert terminal.is_restored()
        # Of Ctrl-C the terminal and click make an empty line.
        assert terminal.printed.rstrip().endswith(b"\x1b[?1049l")


def test_a_terminal_that_goes_away_ends_it(where: str) -> None:
    """As that of a connection that broke."""
    with on_terminal("top", where, *QUICK) as terminal:
        terminal.shows("0-0 of 0")
        os.close(terminal.end)
        assert terminal.process.wait(60) in (-signal.SIGHUP, 129, 1)


def stopped(terminal: Terminal) -> bool:
    """Tell if the program is stopped."""
    with open(f"/proc/{terminal.process.pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(") ")[2][0] == "T"


def test_it_stops_and_goes_on(ct: nlct.Conntrack, where: str) -> None:
    """Ctrl-Z gives the terminal back; going on takes it, and shows what is now."""
    with on_terminal("top", where, *QUICK) as terminal:
        terminal.shows("0-0 of 0")
        for zone in (7, 8):
            terminal.press("\x1a")
            terminal.wait(lambda: stopped(terminal), "the stop")
            terminal.wait(terminal.is_restored, "the terminal as it was")
            terminal.screen.reset()
            ct.create(flow(zone, 1))
            terminal.process.send_signal(signal.SIGCONT)
            terminal.wait(lambda zone=zone: terminal.row(str(zone))[1:2] == ["1"], "the new flow")  # type: ignore[misc]
            assert terminal.lines[0].startswith("nlct top")
        terminal.press("q")
        assert terminal.exit_code() == 0
        assert terminal.is_restored()


SHELL = """
import os, signal, subprocess, sys, termios, tty

def own_group():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)

def wait():
    return os.waitpid(child, os.WUNTRACED)[1]

signal.signal(signal.SIGTTOU, signal.SIG_IGN)
mode = termios.tcgetattr(0)
child = subprocess.Popen(sys.argv[1:], preexec_fn=own_group).pid
for _ in range(2):
    # It is in the background, while we set the terminal as a line editor does.
    tty.setraw(0)
    assert os.WIFSTOPPED(wait())
    termios.tcsetattr(0, termios.TCSANOW, mode)
    os.tcsetpgrp(0, child)
    os.killpg(child, signal.SIGCONT)
    assert os.WIFSTOPPED(wait())
    os.tcsetpgrp(0, os.getpgrp())
    assert termios.tcgetattr(0) == mode
    os.killpg(child, signal.SIGCONT)
assert os.WIFSTOPPED(wait())
os.killpg(child, signal.SIGTERM)
os.killpg(child, signal.SIGCONT)
status = wait()
assert os.WIFEXITED(status)
sys.exit(os.WEXITSTATUS(status))
"""


def test_it_waits_in_the_background(where: str) -> None:
    """Started there or sent there, it goes on in front, and ends without touching the terminal."""
    words = (sys.executable, "-c", SHELL, *NLCT)
    with on_terminal("top", where, *QUICK, words=words) as terminal:
        for turn in (1, 2):
            terminal.wait(lambda turn=turn: terminal.printed.count(b"\x1b[?1049h") == turn, "it")  # type: ignore[misc]
            terminal.screen.reset()
            terminal.shows("0-0 of 0")
            terminal.press("\x1a")
        assert terminal.exit_code() == 143
        assert termios.tcgetattr(terminal.end) == terminal.before


FAILS = """
import sys
import nlct.cli, nlct.cli.live
from nlct.errors import PrivilegeError

class Fails(nlct.cli.live.LiveCounts):
    dumps = 0
    def dump(self, progress=None):
        Fails.dumps += 1
        if Fails.dumps > 1:
            raise PrivilegeError(1, "dump", reason="made up")
        super().dump(progress)

nlct.cli.live.LiveCounts = Fails
nlct.cli.live.CORRECT = 0
nlct.cli.main()
"""


def test_an_error_is_told_on_a_terminal_that_is_restored(where: str) -> None:
    """In one line behind all else, with the exit code of its kind."""
    words = (sys.executable, "-c", FAILS)
    with on_terminal("top", where, *QUICK, words=words) as terminal:
        assert terminal.exit_code() == 3
        assert terminal.is_restored()
        assert re.search(rb"\x1b\[\?1049lnlct: [^\n]*made up[^\n]*\n$", terminal.printed)


def test_without_a_keyboard(ct: nlct.Conntrack, where: str) -> None:
    """Keys do nothing, and signals end it."""
    with on_terminal("top", where, *QUICK, stdin=subprocess.DEVNULL) as terminal:
        terminal.shows("0-0 of 0")
        terminal.press("q")
        ct.create(flow(7, 1))
        terminal.shows("1-1 of 1")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.exit_code() == 143
        assert terminal.is_restored()


# Without a terminal ------------------------------------------------------------------------------


def test_a_batch_prints_plain_text(ct: nlct.Conntrack, where: str) -> None:
    """As often as it is told, with rates from the second time on."""
    fill(ct, flows=1000, zones=100)
    options = ("--batch", "2", "--top", "3", *QUICK)
    done = subprocess.run(
        [*NLCT, "top", where, *options], capture_output=True, text=True, check=True, timeout=120
    )
    assert "\x1b" not in done.stdout + done.stderr
    first, second = done.stdout.split("\n\n" + "nlct top")
    # The first sample has no rates; if printing begins late, it is not the first.
    for printed, rates in ((first, ("-", "0")), (second, ("0",))):
        found = [line.split() for line in printed.splitlines()[-3:]]
        assert [row[:3] for row in found] == [[zone, "10", "1.0%"] for zone in "123"]
        assert {rate for row in found for rate in row[3:]} <= set(rates)
    once = nlct_("top", where, "--once", "--by", "proto")
    assert once.exit_code == 0
    assert once.stdout.splitlines()[-1].split()[:2] == ["udp", "1,000"]


def test_names_that_speak_to_terminals(netns: nlct.Netns, tmp_path: Path) -> None:
    """Of a namespace: what is no character to print is a question mark."""
    name = tmp_path / "\x1b]0;x\x07\x9b\nä"
    name.symlink_to(f"/proc/{os.getpid()}/fd/{netns.fileno()}")
    done = nlct_("top", "--once", "--netns", str(name))
    assert done.exit_code == 0
    assert done.stdout.startswith(f"nlct top  {tmp_path}/?]0;x???ä  ")


def test_a_reader_that_has_seen_enough(where: str) -> None:
    """It ends with the exit code of a broken pipe, and says nothing."""
    with process("top", where, "--batch", "1000000", "--interval", "0.1") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(60) == 141
        assert running.stderr is not None
        assert running.stderr.read() == b""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "standard output is not a terminal: add --once"),
        (("--once", "--batch", "2"), "contradict each other"),
        (("--by", "nonsense"), "'nonsense'"),
        (("--by", "zone,src,dst"), "up to 2"),
        (("--interval", "0"), "from 0.1 to 3600"),
        (("--interval", "nan"), "from 0.1 to 3600"),
        (("--sort", "size"), "size"),
        (("--batch", "0"), "0"),
        (("--netns", "/proc/self/ns/net"), "only one --netns"),
    ],
)
def test_wrong_usage(where: str, args: tuple[str, ...], says: str) -> None:
    """One line that says what is wrong, before anything is done."""
    assert says in refused(nlct_("top", where, *args), 2)


def test_a_terminal_without_a_screen(where: str) -> None:
    """It is told what to do instead."""
    with on_terminal("top", where, env={"TERM": "dumb"}) as terminal:
        assert terminal.exit_code() == 2
        assert b"\x1b" not in terminal.printed
        assert b"TERM is dumb or not set): add --batch N" in terminal.printed


def test_what_the_filter_means_is_what_count_says(ct: nlct.Conntrack, where: str) -> None:
    """The same options, the same flows."""
    fill(ct, flows=1000, zones=10)
    options = (where, "--not-zone", "3", "--src", "10.0.0.0/24", "--by", "zone")
    counted = json.loads(nlct_("count", *options, "--json").stdout)["counts"]
    shown = nlct_("top", *options, "--once", "--sort", "key").stdout.splitlines()
    at = next(number for number, line in enumerate(shown) if line.startswith("ZONE"))
    rows = {line.split()[0]: int(line.split()[1]) for line in shown[at + 1 :]}
    assert rows == counted
    assert len(rows) == 9
