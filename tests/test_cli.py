"""The command line, on the real kernel: what it prints, what it deletes, how it ends."""

from __future__ import annotations

import errno
import inspect
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

from click.testing import CliRunner, Result

import nlct
from nlct import Flow, Tuple, capabilities
from nlct.cli.commands import cli
from nlct.cli.options import zone_names
from nlct.cli.output import flow_line
from nlct.fill import fill
from tests import flows

NLCT = (sys.executable, "-m", "nlct")
ENOUGH_TO_WATCH = 20000
# Before click 8.2 the two outputs are one unless it is told.
APART = "mix_stderr" in inspect.signature(CliRunner).parameters


def nlct_(*args: str) -> Result:
    """Run a command in this process, with no terminal anywhere."""
    return CliRunner(**({"mix_stderr": False} if APART else {})).invoke(cli, args)


def process(*args: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen([*NLCT, *args], **{**pipes, **options})  # type: ignore[call-overload]


def at_terminal(*args: str, answer: bytes = b"") -> tuple[int, str]:
    """Run a command on a terminal of its own; answer its question."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="80")
        os.execv(sys.executable, [*NLCT, *args])
    output = b""
    answered = False
    try:
        while True:
            readable, _, _ = select.select([terminal], [], [], 1)
            output += os.read(terminal, 65536) if readable else b""
            # Again where nothing comes of it: Ctrl-C may hit the moment before it begins to read.
            if b"[y/N]" in output and (not answered or not readable):
                answered = os.write(terminal, answer) > 0
    except OSError:
        # So a terminal says that nobody is left at the other end.
        pass
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), output.decode()


@pytest.fixture
def where(netns: nlct.Netns) -> str:
    """How a command reaches the test's namespace."""
    return f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"


@pytest.fixture
def zones(ct: nlct.Conntrack) -> Iterator[dict[int, int]]:
    """A table with 100 flows in each of the zones 1 to 10."""
    fill(ct, 1000, 10)
    counts = dict.fromkeys(range(1, 11), 100)
    assert ct.count_by("zone") == counts
    return counts


def refused(result: Result, code: int) -> str:
    """The one line that a command ended with, having printed nothing else."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(r"nlct: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def only(counts: dict[int, int], *gone: int) -> dict[int, int]:
    """The zones without some."""
    return {zone: count for zone, count in counts.items() if zone not in gone}


# probe, count, dump ------------------------------------------------------------------------------


def test_probe_says_each_capability_with_its_evidence() -> None:
    """Text and JSON are what nlct.probe() returns."""
    found = nlct.probe()
    assert json.loads(nlct_("probe", "--json").stdout) == found._asdict()
    text = nlct_("probe").stdout
    assert f"Linux {found.release}" in text
    for name, evidence in found.evidence.items():
        answer = "yes" if getattr(found, name) else "no"
        assert re.search(rf"^\s*{name}\s+{answer}\s+{evidence}\s", text, re.M)


@pytest.mark.usefixtures("zones")
def test_count_is_the_table(where: str) -> None:
    """All flows, and those of repeated zones and ranges, each zone once."""
    assert nlct_("count", where).stdout == "1000\n"
    assert json.loads(nlct_("count", where, "--json").stdout) == {"count": 1000}
    args = ("count", where, "--zone", "3", "-z", "5-7", "--zone", "6-8", "--zone", "99")
    assert nlct_(*args).stdout == "500\n"
    assert json.loads(nlct_(*args, "--json").stdout) == {"count": 500}


def test_count_by_zone(zones: dict[int, int], where: str) -> None:
    """A row a zone and their sum; only the zones that were asked for."""
    text = nlct_("count", where, "--by", "zone", "--zone", "2-3").stdout
    assert re.findall(r"^\s*(\w+)\s+(\d+)\b", text, re.M) == [
        ("2", "100"),
        ("3", "100"),
        ("all", "200"),
    ]
    found = json.loads(nlct_("count", where, "--by", "zone", "--json").stdout)
    assert found == {"count": 1000, "by": "zone", "counts": {str(z): n for z, n in zones.items()}}


@pytest.mark.usefixtures("ct")
def test_count_by_zone_of_nothing(where: str) -> None:
    """An empty table is no error."""
    assert nlct_("count", where, "--by", "zone").exit_code == 0
    empty = nlct_("count", where, "--by", "zone", "--json")
    assert json.loads(empty.stdout) == {"count": 0, "by": "zone", "counts": {}}


def from_json(line: str) -> Flow:
    """The flow of a line of `nlct dump --json`."""
    fields = json.loads(line)
    status = sum(nlct.Status[name.upper()] for name in fields["status"])
    protocol = fields.pop("protocol")
    assert Tuple(proto=protocol).proto == fields["orig"]["proto"]
    reply = fields.pop("reply")
    return Flow(Tuple(**fields.pop("orig")), Tuple(**reply), **{**fields, "status": status})


def ageless(found: list[Flow]) -> set[Flow]:
    """The flows, whatever the time."""
    return {flow.replace(timeout=None) for flow in found}


def test_dump_as_json_loses_nothing(ct: nlct.Conntrack, where: str) -> None:
    """The lines rebuild every flow of every kind and zone, directional ones included."""
    flows.populate(ct)
    lines = nlct_("dump", where, "--json").stdout.splitlines()
    assert len(lines) == ct.count()
    assert ageless([from_json(line) for line in lines]) == ageless(list(ct.dump()))


def test_dump_lists_only_the_zones_asked_for(ct: nlct.Conntrack, where: str) -> None:
    """One line a flow; zone 0 is a zone like any other."""
    flows.populate(ct)
    for zone in (0, 5, 7, 99):
        lines = nlct_("dump", where, "--zone", str(zone)).stdout.splitlines()
        found = nlct_("dump", where, "--zone", str(zone), "--json").stdout.splitlines()
        assert len(lines) == len(found) == ct.count(zone=zone)
        assert {json.loads(line)["zone"] for line in found} <= {zone}


@pytest.mark.usefixtures("root")
def test_dump_reads_like_conntrack(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Lines for UDP and ICMP are those of `conntrack -L`, but for the seconds left."""
    if not shutil.which("conntrack") or not shutil.which("nsenter"):
        pytest.skip("MISSING: conntrack(8) or nsenter(1)")
    flows.populate(ct)
    listing = subprocess.run(
        ["nsenter", f"--net=/proc/{os.getpid()}/fd/{netns.fileno()}", "conntrack", "-L"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    def lines(text: str) -> list[str]:
        seconds = re.compile(r"^((?:udp|icmp|icmpv6) +\d+) \d+ ")
        return sorted(
            seconds.sub(r"\1 ", line) for line in text.splitlines() if seconds.match(line)
        )

    ours = nlct_("dump", where).stdout
    assert lines(listing)
    assert lines(listing) == lines(ours)


def test_a_flow_line_leaves_out_what_is_absent() -> None:
    """An offloaded flow has no timeout; unknown protocols show their number."""
    orig = Tuple("10.0.0.1", "10.0.0.2", 200)
    bits = nlct.Status.SEEN_REPLY | nlct.Status.ASSURED | nlct.Status.OFFLOAD
    line = flow_line(Flow(orig, status=bits))
    assert line.split() == [
        "200",
        "200",
        "-",
        "src=10.0.0.1",
        "dst=10.0.0.2",
        "[ASSURED]",
        "[OFFLOAD]",
    ]


# flush -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "scan", "kernel"])
def test_flush_deletes_the_zones_named_and_no_other(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, strategy: str
) -> None:
    """With ranges, in text and in JSON; a zone without flows is done as well."""
    if strategy == "kernel" and not nlct.probe().zone_flush:
        pytest.skip("MISSING: a zone flush of the kernel's own")
    args = ("flush", where, "--strategy", strategy)
    text = nlct_(*args, "--zone", "7")
    assert text.exit_code == 0
    assert text.stdout.startswith("zone 7: ")
    assert ct.count_by("zone") == only(zones, 7)
    done = nlct_(*args, "--zone", "2-4", "--zone", "9", "--json")
    assert done.exit_code == 0
    assert ct.count_by("zone") == only(zones, 7, 2, 3, 4, 9)
    result = json.loads(done.stdout)
    assert set(result) == {*nlct.FlushResult._fields, "dry_run"}
    assert result["complete"]
    assert result["deleted"] in (400, None)
    assert (result["deleted"] is None) == ("kernel" in result["strategy"])
    assert nlct_(*args, "--zone", "7").exit_code == 0


@pytest.mark.usefixtures("zones")
def test_flush_says_how_many(where: str) -> None:
    """What a scan deleted is said to people too, and passes are walked."""
    text = nlct_("flush", where, "--zone", "1-2", "--strategy", "scan", "--passes", "3").stdout
    assert re.fullmatch(
        r"zones 1-2: 200 flows deleted \(scan, 1,800 scanned, 2 passes, [\d.]+ m?s\)\n", text
    )


@pytest.mark.parametrize("everything", [(), ("--all",), ("--zone", "1-3")])
def test_a_dry_run_counts_and_deletes_nothing(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, everything: tuple[str, ...]
) -> None:
    """Nor does it need a confirmation."""
    matched = 300 if "--zone" in everything else 1000
    text = nlct_("flush", where, "--dry-run", *everything)
    assert text.exit_code == 0
    assert f"{matched:,} flows would be deleted" in text.stdout
    result = json.loads(nlct_("flush", where, "-n", *everything, "--json").stdout)
    assert (result["matched"], result["deleted"], result["dry_run"]) == (matched, 0, True)
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize(
    "args",
    [(), ("--all",), ("--yes",), ("--all", "--zone", "1"), ("--all", "--yes", "--zone", "1")],
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_nothing_is_flushed_by_accident(
    ct: nlct.Conntrack,
    zones: dict[int, int],
    where: str,
    args: tuple[str, ...],
    as_json: tuple[str, ...],
) -> None:
    """In a script everything goes with --all --yes, not with less nor with a zone beside it."""
    refused(nlct_("flush", where, *args, *as_json), 2)
    assert ct.count_by("zone") == zones


@pytest.mark.usefixtures("zones")
def test_flush_everything(ct: nlct.Conntrack, where: str) -> None:
    """With --all --yes the table is empty, by a scan as well."""
    assert json.loads(nlct_("flush", where, "--all", "--yes", "--json").stdout)["complete"]
    assert ct.count_by("zone") == {}
    fill(ct, 100, 10)
    args = ("flush", where, "--all", "--yes", "--strategy", "scan")
    assert nlct_(*args).stdout.startswith("all zones: 100 flows deleted")
    assert ct.count_by("zone") == {}


@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1000), (b"\n", 1, 1000)]
)
@pytest.mark.parametrize("args", [(), ("--all",), ("--json",)])
@pytest.mark.usefixtures("zones")
def test_flush_asks_on_a_terminal(
    ct: nlct.Conntrack,
    where: str,
    args: tuple[str, ...],
    answer: bytes,
    code: int,
    left: int,
) -> None:
    """It says how many flows; only yes deletes them."""
    ended, output = at_terminal("flush", where, *args, answer=answer)
    assert "Delete all 1,000 flows" in output
    assert (ended, ct.count()) == (code, left)


@pytest.mark.usefixtures("zones")
def test_ctrl_c_at_the_question_deletes_nothing(ct: nlct.Conntrack, where: str) -> None:
    """It ends as any interrupted program does."""
    ended, output = at_terminal("flush", where, answer=b"\x03")
    assert (ended, ct.count()) == (130, 1000)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "zone", ["-1", "65536", "1-65536", "20-10", "x", "", "1,2", "-", "7-", "0x7", "7.0", "\u0667"]
)
@pytest.mark.parametrize("command", ["count", "dump", "flush"])
def test_a_bad_zone_is_wrong_usage(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, command: str, zone: str
) -> None:
    """It is refused by name before anything is sent."""
    assert "zone" in refused(nlct_(command, where, "--zone", zone, "--json"), 2)
    assert ct.count_by("zone") == zones


def test_zones_are_named_in_few_words() -> None:
    """Runs are written as ranges; very many zones as their number."""
    assert zone_names({7}) == "zone 7"
    assert zone_names({9, 1, 3, 2, 65535}) == "zones 1-3, 9, 65535"
    assert zone_names(range(0, 40, 2)) == "20 zones"


# Exit codes --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("zones")
def test_deletes_that_failed_are_exit_code_1(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is printed all the same; standard error says what failed."""
    result = nlct.FlushResult(9, 9, 6, 1, {errno.EBUSY: 2}, complete=False)
    monkeypatch.setattr(nlct.Conntrack, "flush_zones", lambda *_, **__: result)
    done = nlct_("flush", where, "--zone", "1", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == {"EBUSY": 2}
    assert re.fullmatch(r"nlct: not complete: .*2 [^\n]*\n", done.stderr)


def test_no_privilege_is_exit_code_3() -> None:
    """Run as a user without any, for real."""
    code = (
        "import os, nlct.cli.commands as c\n"
        # What is imported late, that user may not be able to read.
        "c.Bar('', 1)\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "c.cli.main(['count', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"nlct: [^\n]*CAP_NET_ADMIN[^\n]*\n", done.stderr)


def test_what_this_kernel_cannot_is_exit_code_4(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's flush is refused where it was not seen to work, and nothing is deleted."""
    found = nlct.probe()._replace(zone_flush=False)
    monkeypatch.setitem(capabilities._known, found.release, found)
    refused(nlct_("flush", where, "--zone", "1", "--strategy", "kernel", "--json"), 4)
    assert ct.count_by("zone") == zones
    assert json.loads(nlct_("probe", "--json").stdout)["zone_flush"] is False


@pytest.mark.parametrize(
    "args",
    [
        ("count", "--netns", "no-such-namespace"),
        ("count", "--netns", "/etc/passwd"),
        ("count", "--by", "colour"),
        ("flush", "--zone", "1", "--strategy", "hope"),
        ("flush", "--zone", "1", "--passes", "0"),
        ("fill", "--flows", "0", "--zones", "1"),
        ("fill", "--flows", "1", "--zones", "65536"),
        ("completion", "cmd"),
        ("nonsense",),
        ("--nonsense",),
    ],
)
def test_wrong_usage_is_exit_code_2(args: tuple[str, ...]) -> None:
    """One line on standard error says what is wrong and where help is."""
    assert "--help" in refused(nlct_(*args), 2)


def test_without_a_command_there_is_help() -> None:
    """It goes to standard error: it was not asked for."""
    result = nlct_()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: nlct" in result.stderr


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_each_command_has_help_with_examples(command: str) -> None:
    """Examples keep their lines."""
    text = nlct_(command, "--help").stdout
    assert re.search(rf"^  Examples:\n.*\bnlct {command}\b", text, re.M | re.S)
    assert "\b" not in text


# fill --------------------------------------------------------------------------------------------


def test_fill_makes_the_table(ct: nlct.Conntrack, where: str) -> None:
    """So many flows in so many zones; a second time they are there already, which is a failure."""
    assert nlct_("fill", where, "--flows", "1001", "--zones", "10").stdout.startswith(
        "1,001 flows created in 10 zones ("
    )
    assert ct.count_by("zone") == {**dict.fromkeys(range(1, 11), 100), 1: 101}
    again = nlct_("fill", where, "--flows", "1002", "--zones", "10", "--json")
    assert again.exit_code == 1
    result = json.loads(again.stdout)
    assert (result["created"], result["failed"]) == (1, {"EEXIST": 1001})


def test_fill_keeps_off_the_namespace_you_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --netns it opens no table at all, unless it is told to."""

    def opened(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "opened")

    monkeypatch.setattr(nlct, "Conntrack", opened)
    assert "--netns" in refused(nlct_("fill", "--flows", "1", "--zones", "1"), 2)
    args = ("fill", "--flows", "1", "--zones", "1", "--yes-in-this-namespace")
    assert "opened" in refused(nlct_(*args), 1)


def test_fill_says_when_the_flows_do_not_fit(ct: nlct.Conntrack, where: str) -> None:
    """It creates none of them, and says what to do."""
    fill(ct, 1, 1)
    if not 0 < ct.limit < 2**24:
        pytest.skip("MISSING: an nf_conntrack_max below 16,777,216")
    message = refused(nlct_("fill", where, "--flows", str(ct.limit), "--zones", "1"), 1)
    assert f"nf_conntrack_max={ct.limit + 1}" in message
    assert ct.count() == 1


# As a process ------------------------------------------------------------------------------------


def test_version() -> None:
    """`python -m nlct` is the command, and calls itself so."""
    done = subprocess.run([*NLCT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nlct {nlct.__version__}\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_there_is_one_clear_line(missing: str) -> None:
    """The core does not need it, and the command says how to get it."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport nlct, nlct.cli\nnlct.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.fullmatch(r"nlct: [^\n]*pip install 'nlct\[cli\]'\n", done.stderr)


def test_the_core_does_not_import_the_extra() -> None:
    """`import nlct` stays lean."""
    code = "import sys, nlct, nlct.fill; print({'click', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_reader_that_has_seen_enough_is_no_error(ct: nlct.Conntrack, where: str) -> None:
    """`nlct dump | head -1` is silent."""
    fill(ct, ENOUGH_TO_WATCH, 1)
    with process("dump", where) as dump:
        assert dump.stdout is not None
        assert dump.stdout.readline().startswith(b"udp ")
        dump.stdout.close()
        assert dump.stderr is not None
        assert dump.stderr.read() == b""
    assert dump.returncode == 141


@pytest.mark.usefixtures("zones")
def test_output_that_cannot_be_written_is_an_error(where: str) -> None:
    """A full disk is one line and exit code 1."""
    with open("/dev/full", "wb") as full, process("dump", where, stdout=full) as dump:
        _, error = dump.communicate(timeout=60)
    assert dump.returncode == 1
    assert re.fullmatch(r"nlct: [^\n]+\n", error.decode())


def test_ctrl_c_ends_a_command_whose_reader_does_not_read(ct: nlct.Conntrack, where: str) -> None:
    """Without a traceback, as any interrupted program."""
    fill(ct, ENOUGH_TO_WATCH, 1)
    with process("dump", where) as dump:
        assert dump.stdout is not None
        dump.stdout.readline()
        dump.send_signal(signal.SIGINT)
        assert dump.wait(timeout=60) == 130
        assert dump.stderr is not None
        assert dump.stderr.read().strip() == b""


def test_progress_is_shown_on_a_terminal_only(ct: nlct.Conntrack, where: str) -> None:
    """And wiped away; what is left is the result."""
    fill(ct, ENOUGH_TO_WATCH, 10)
    args = ("flush", where, "--zone", "1-2", "--strategy", "scan")
    ended, output = at_terminal(*args)
    assert ended == 0
    assert "flushing" in output
    assert "100%" in output
    assert output.splitlines()[-1].endswith(" ms)")
    with process(*args) as flush:
        output_, error = flush.communicate(timeout=60)
    assert output_.startswith(b"zones 1-2: 0 flows deleted (scan")
    assert error == b""


# Completion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    """One that asks nlct itself."""
    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("MISSING: bash")
    result = nlct_("completion", shell)
    assert result.exit_code == 0
    assert f"_NLCT_COMPLETE={shell}_complete" in result.stdout


def complete(*words: str) -> set[str]:
    """What bash would be offered for the last of the words."""
    done = subprocess.run(
        NLCT,
        env={
            **os.environ,
            "_NLCT_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("nlct", *words)),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_completion_offers_commands_options_and_values() -> None:
    """Also behind a --netns that does not exist."""
    assert complete("fl") == {"flush"}
    assert {"--zone", "--netns", "--dry-run"} <= complete("flush", "--")
    assert complete("flush", "--netns", "no-such-namespace", "--strategy", "") == {
        "auto",
        "scan",
        "kernel",
    }


@pytest.mark.usefixtures("root")
def test_completion_offers_namespaces() -> None:
    """Those of `ip netns`, by their beginning."""
    if not shutil.which("ip"):
        pytest.skip("MISSING: ip(8)")
    name = f"nlct-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert Path("/run/netns", name).exists()
        assert complete("count", "--netns", "nlct-test-") == {name}
        assert nlct_("count", "--netns", name).stdout == "0\n"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
