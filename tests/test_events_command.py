"""`nlct events` beside `conntrack -E`, and how it begins, ends and fails."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import nlct
from nlct import Filter, Flow, Status, Tuple
from nlct.cli import follow
from nlct.cli.output import NamedOutput
from nlct.fill import fill
from tests.support import everything, listeners, tool
from tests.support.command import in_shell, nlct_, process, refused
from tests.support.everything import Everything
from tests.support.examples import telling

SETTING = "/proc/sys/net/netfilter/nf_conntrack_events"
FLOW = Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1000, 53), zone=7, timeout=100)
OTHER = Flow(Tuple("10.0.0.1", "10.0.0.2", "udp", 1001, 53), zone=8, timeout=100)


# Beside conntrack -E -----------------------------------------------------------------------------


def change(ct: nlct.Conntrack) -> None:
    """Change flows in every way that makes an event."""
    ct.create(FLOW)
    ct.update(FLOW, mark=7)
    ct.update(FLOW, timeout=50)
    ct.update(FLOW, status=Status.SEEN_REPLY | Status.ASSURED)
    ct.update(FLOW, labels=1 << 9)
    # Born again.
    ct.delete_flow(FLOW)
    ct.create(FLOW)


def expire(ct: nlct.Conntrack) -> None:
    """Let the timeouts of both families run out."""
    for source, destination in (("10.0.0.3", "10.0.0.4"), ("fd00::3", "fd00::4")):
        ct.create(Flow(Tuple(source, destination, "udp", 1, 2), zone=4000, timeout=1))
    # A dump that meets such a flow makes the kernel collect it.
    listeners.wait_until(lambda: not list(ct.dump(zone=4000)), "timeouts that run out")


def happen(table: Everything, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Make everything happen; return what `conntrack -E` and `nlct events` print meanwhile."""
    netns, theirs, ours = table.netns, tmp_path / "theirs", tmp_path / "ours"
    with (
        nlct.Conntrack(netns) as ct,
        listeners.listening(netns, theirs, "conntrack", "-E") as tools,
        listeners.listening(netns, ours, *listeners.nlct_events()) as nlcts,
    ):

        def pause() -> None:
            listeners.catch_up(ct, tools, nlcts)

        # The tool has room for some 200 events: its --buffer-size goes to another socket.
        everything.fill(table, pause)
        change(ct)
        pause()
        expire(ct)
        ct.flush_zone(256)
        pause()
        numbers = [flow.id or 0 for flow in ct.dump()]
        for first in range(0, len(numbers), 50):
            ct.delete(Filter(id=set(numbers[first : first + 50])))
            pause()
        return tools.lines(), nlcts.lines()


def by_flow(lines: list[str]) -> dict[tuple[str, ...], list[str]]:
    """The lines of each flow in their order; a flow is its protocol, tuples and zones."""
    found = defaultdict(list)
    for line in lines:
        names = re.findall(r"] +(\S+)|((?:src|dst|[sd]port|[sd]\w+key|id|zone\S*)=\S+)", line)
        found[tuple(map("".join, names))].append(line)
    return dict(found)


@pytest.mark.parametrize("full", telling([True, False], [True]), ids=["full", "bare"])
def test_every_line_is_the_tools(tmp_path: Path, full: bool) -> None:
    """Of each flow in the same order, with accounting and timestamps, and without them.

    The one difference: of what a request did, the tool adds who asked.
    """
    if tool.version() < tool.WHOLE:
        pytest.skip("MISSING: conntrack 1.4.7: those before have names for other states of DCCP")
    with everything.prepared(acct=full, timestamp=full) as table:
        theirs, ours = happen(table, tmp_path)
    who = re.compile(r" \[USERSPACE\] portid=\d+ progname=\S+$")
    assert any(map(who.search, theirs))
    assert by_flow(ours) == by_flow([who.sub("", line) for line in theirs])
    # Everything that comes goes, or is changed first.
    kinds = Counter(line[:10].strip() for line in ours)
    assert kinds["[NEW]"] == kinds["[DESTROY]"] > 200
    assert kinds["[UPDATE]"] > 100


# What it shows -----------------------------------------------------------------------------------


@contextmanager
def following(
    netns: nlct.Netns, where: str, *options: str, **more: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command until the end of the block, which begins when it listens."""
    before = listeners.count(netns)
    with process("events", where, *options, **more) as begun:
        try:
            listeners.wait_until(
                lambda: listeners.count(netns) > before or begun.poll() is not None, "it listens"
            )
            yield begun
        finally:
            begun.kill()


def ended(begun: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for its end; return its exit code and what it printed."""
    output, error = begun.communicate(timeout=240)
    return begun.returncode, output.decode(), error.decode()


def some_events(ct: nlct.Conntrack) -> None:
    """Six: each kind, in zone 7 and in zone 8."""
    for flow in (FLOW, OTHER):
        ct.create(flow)
        ct.update(flow, mark=1)
        ct.delete_flow(flow)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_event_is_what_the_library_says(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str, as_json: bool
) -> None:
    """Its line or its object; --count is the number of events, and the end."""
    options = ["--count", "6", *["--json"] * as_json]
    with following(netns, where, *options) as begun, ct.events(*nlct.stream.KINDS) as events:
        some_events(ct)
        code, output, error = ended(begun)
        found = [events.get(timeout=60) for _ in range(6)]
    assert (code, error) == (0, "")
    if as_json:
        assert [json.loads(line) for line in output.splitlines()] == [
            each and each.to_dict() for each in found
        ]
    else:
        assert output.splitlines() == [str(each) for each in found]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--new", "new 7, new 8"),
        ("--update", "update 7, update 8"),
        ("--destroy", "destroy 7, destroy 8"),
        ("--new --destroy", "new 7, destroy 7, new 8, destroy 8"),
        ("--zone 8", "new 8, update 8, destroy 8"),
        ("--sport 1000 --new", "new 7"),
        ("--mark 1", "update 7, destroy 7, update 8, destroy 8"),
    ],
)
def test_only_what_is_asked_for(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str, options: str, expected: str
) -> None:
    """Kinds, and the options that select flows; --count counts what is shown."""
    count = str(expected.count(",") + 1)
    with following(netns, where, "--json", "--count", count, *options.split()) as begun:
        some_events(ct)
        code, output, error = ended(begun)
    assert (code, error) == (0, "")
    found = map(json.loads, output.splitlines())
    assert ", ".join(f"{each['event']} {each['zone']}" for each in found) == expected


@pytest.mark.parametrize("form", ["", "--json"])
def test_the_count_is_exact(ct: nlct.Conntrack, netns: nlct.Netns, where: str, form: str) -> None:
    """However many come at once."""
    with following(netns, where, "--count=37", *form.split()) as begun:
        begun.send_signal(signal.SIGSTOP)
        os.waitpid(begun.pid, os.WUNTRACED)
        fill(ct, 1000, 10)
        begun.send_signal(signal.SIGCONT)
        code, output, error = ended(begun)
    assert (code, output.count("\n"), error) == (0, 37, "")


def test_text_is_the_text_of_each_event(ct: nlct.Conntrack) -> None:
    """Many at a time, or none where nothing comes."""
    with ct.events(*nlct.stream.KINDS) as events, ct.events(*nlct.stream.KINDS) as others:
        assert list(events.text(timeout=0)) == []
        assert list(events.text(timeout=0.01)) == []
        some_events(ct)
        fill(ct, 1000, 10)
        found = [events.text(timeout=0), others.text()]
        lines = b"".join(each for each in found[0] if isinstance(each, bytes))
        each = next(found[1])
        assert isinstance(each, bytes)
        assert lines.startswith(each)
        assert lines.count(b"\n") == 1006
        with pytest.raises(ValueError, match="timeout"):
            events.text(timeout=-1)
    # It ends with the stream.
    assert list(found[1]) == []


# How it ends -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ct")
@pytest.mark.parametrize("seconds", ["0", "0.1"])
def test_it_ends_when_its_time_is_over(where: str, seconds: str) -> None:
    """That is no failure; standard input and error may be closed."""
    for closed in ("", "<&-", "2>&-", "<&- 2>&-"):
        assert in_shell(closed, "events", where, "--timeout", seconds) == (0, "", "")


def test_it_ends_though_events_come_all_the_time(ct: nlct.Conntrack) -> None:
    """Its time is over in the midst of them."""
    with ct.events() as events, open(os.devnull, "wb") as nowhere:
        found = follow._follow(
            events, lambda: itertools.repeat(b"line\n"), 0.05, NamedOutput(nowhere, "nowhere")
        )
        assert set(found) == {b"line\n"}


@pytest.mark.usefixtures("ct")
def test_it_needs_an_output(where: str) -> None:
    """It says so, if it can."""
    assert in_shell(">&-", "events", where) == (1, "", "nlct: standard output is closed\n")
    assert in_shell(">&- 2>&-", "events", where) == (1, "", "")


def test_a_full_output_is_an_error(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """One line, when there is something to print."""
    with open("/dev/full", "wb") as full, following(netns, where, stdout=full) as begun:
        ct.create(FLOW)
        _, error = begun.communicate(timeout=240)
    assert begun.returncode == 1
    assert error == b"nlct: standard output: No space left on device\n"


@pytest.mark.parametrize("form", ["", "--json"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str, form: str, unbuffered: str
) -> None:
    """`nlct events | head -1` is silent, gets its line at once, and waits for no other event."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with following(netns, where, *form.split(), env=env) as begun:
        ct.create(FLOW)
        assert begun.stdout is not None
        assert b"10.0.0.2" in begun.stdout.readline()
        begun.stdout.close()
        assert begun.wait(timeout=240) == 141
        assert begun.stderr is not None
        assert begun.stderr.read() == b""


def test_ctrl_c_ends_it(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Without a traceback, and without losing what has come."""
    with following(netns, where) as begun:
        ct.create(FLOW)
        assert begun.stdout is not None
        assert begun.stdout.readline().startswith(b"    [NEW] udp ")
        begun.send_signal(signal.SIGINT)
        code, output, error = ended(begun)
    assert (code, output, error.strip()) == (130, "", "")


def test_ctrl_c_ends_it_though_its_reader_does_not_read(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str
) -> None:
    """It waits for nobody."""
    with following(netns, where) as begun:
        fill(ct, 2000, 1)
        # Some of it is written, and the pipe has no room for the rest.
        assert begun.stdout is not None
        assert begun.stdout.read(1)
        begun.send_signal(signal.SIGINT)
        assert begun.wait(timeout=240) == 130
        assert begun.stderr is not None
        assert begun.stderr.read().strip() == b""


# Overruns ----------------------------------------------------------------------------------------

FLOWS = 2000


@pytest.fixture
def stopped(
    ct: nlct.Conntrack, netns: nlct.Netns, where: str, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which was stopped while more happened than its small queue holds."""
    with following(netns, where, "--buffer", "4096", *request.param) as begun:
        begun.send_signal(signal.SIGSTOP)
        os.waitpid(begun.pid, os.WUNTRACED)
        fill(ct, FLOWS, 10)
        begun.send_signal(signal.SIGCONT)
        yield begun


def finish(ct: nlct.Conntrack, begun: subprocess.Popen[bytes]) -> tuple[int, list[str], str]:
    """Make one more event, to show that it goes on, and end it."""
    ct.create(FLOW)
    assert begun.stdout is not None
    lines = []
    while not lines or "sport=1000" not in lines[-1].replace('"sport": 1000,', "sport=1000"):
        lines.append(begun.stdout.readline().decode())
    begun.send_signal(signal.SIGINT)
    code, output, error = ended(begun)
    assert output == ""
    return code, lines[:-1], error.rstrip() + "\n"


@pytest.mark.parametrize("stopped", [[]], indirect=True)
def test_an_overrun_is_a_line_and_not_the_end(
    ct: nlct.Conntrack, stopped: subprocess.Popen[bytes]
) -> None:
    """What was lost and what was shown is what was sent; at the end it is summed up."""
    assert stopped.stderr is not None
    told = re.fullmatch(r"nlct: (1,\d{3}) events lost\n", stopped.stderr.readline().decode())
    assert told
    code, shown, error = finish(ct, stopped)
    assert (code, error) == (130, f"nlct: {told[1]} events lost in 1 overrun\n")
    assert len(shown) + int(told[1].replace(",", "")) == FLOWS


@pytest.mark.parametrize("stopped", [["--json"]], indirect=True)
def test_an_overrun_is_an_object(ct: nlct.Conntrack, stopped: subprocess.Popen[bytes]) -> None:
    """In its place among the events; the sum is for people."""
    assert stopped.stdout is not None
    shown = [json.loads(stopped.stdout.readline())]
    while shown[-1]["event"] != "overrun":
        shown.append(json.loads(stopped.stdout.readline()))
    *events, overrun = shown
    assert len(events) + overrun["lost"] == FLOWS
    code, more, error = finish(ct, stopped)
    assert (code, more) == (130, [])
    assert error == f"nlct: {overrun['lost']:,} events lost in 1 overrun\n"


def test_a_loss_that_nobody_counted() -> None:
    """As on kernels before 4.12: no number is made up."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "note", told.append)
        losses = follow._Losses(None)
        losses.sum_up()
        for lost in (None, 1, 2000):
            losses.add(nlct.Overrun(lost))
        losses.sum_up()
    assert told == [
        "nlct: events lost; the kernel does not say how many",
        "nlct: 1 event lost",
        "nlct: 2,000 events lost",
        "nlct: at least 2,001 events lost in 3 overruns",
    ]


# How it fails ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ct", "root")
def test_where_events_are_off_it_names_the_setting(netns: nlct.Netns, where: str) -> None:
    """Exit code 4; nothing would ever come."""
    fd = netns.open_file(SETTING, os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)
    assert "nf_conntrack_events is 0" in refused(nlct_("events", where), 4)


def test_no_privilege_is_exit_code_3() -> None:
    """Run as a user without any, for real."""
    code = (
        "import os, nlct.cli.commands.events, nlct.cli.commands as c, nlct.conntrack\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "c.cli.main(['events'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"nlct: [^\n]*CAP_NET_ADMIN[^\n]*\n", done.stderr)


@pytest.mark.usefixtures("ct")
def test_wrong_usage(where: str) -> None:
    """Exit code 2, and the option is named."""
    for options in (
        *("--count 0", "--timeout -1", "--timeout nan", "--timeout 1 --timeout 2"),
        *("--buffer 4095", "--buffer 1073741825", "--zone 65536"),
    ):
        name = options.split()[0]
        assert name in refused(nlct_("events", where, *options.split()), 2)
    with nlct.Netns.scratch() as other:
        also = f"--netns=/proc/{os.getpid()}/fd/{other.fileno()}"
        assert "one --netns" in refused(nlct_("events", where, also), 2)
