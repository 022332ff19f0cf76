"""The command with standard streams that are closed, full, or a terminal."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

import nlct
from nlct.fill import fill
from tests.support.command import at_terminal, in_shell, process
from tests.support.examples import telling

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
ENOUGH_TO_WATCH = 20000
UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])


@pytest.fixture
def zones(ct: nlct.Conntrack) -> dict[int, int]:
    """A table with 10 flows in each of three zones."""
    fill(ct, 30, 3)
    return {1: 10, 2: 10, 3: 10}


# Closed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.usefixtures("zones")
def test_what_changes_a_table_is_done_with_closed_streams(
    ct: nlct.Conntrack, where: str, closed: str
) -> None:
    """It succeeds, and prints nothing but its result."""
    for args, left in (
        (("flush", where, "--zone", "1"), {2: 10, 3: 10}),
        (("flush", where, "--zone", "2", "--json"), {3: 10}),
        (("delete", where, "--zone", "3", "--sport", "0-"), {}),
        (("fill", where, "--flows", "4", "--zones", "2"), {1: 2, 2: 2}),
    ):
        code, output, error = in_shell(closed, *args)
        assert (code, error) == (0, "")
        assert (output == "") == (">&-" in closed.split())
        assert ct.count_by("zone") == left


# With other streams closed as well it is the same code, but for the message.
@pytest.mark.parametrize(
    "closed",
    telling([each for each in CLOSED if ">&-" in each.split()], {">&-", "<&- >&- 2>&-"}),
)
@pytest.mark.parametrize(
    "args",
    [
        *("count", "count --json", "count --by zone", "dump", "dump --json", "dump --format arrow"),
        *("flush --zone 1 --dry-run", "delete --zone 1 --dry-run --json"),
    ],
)
def test_what_only_prints_fails_without_standard_output(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, closed: str, args: str
) -> None:
    """It says so on standard error, if there is one."""
    command, *options = args.split()
    if "arrow" in options:
        pytest.importorskip("pyarrow", reason="MISSING: pyarrow, which nlct[parquet] brings")
        pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow, which nlct[parquet] brings")
    code, output, error = in_shell(closed, command, where, *options)
    assert (code, output) == (1, "")
    assert error == ("" if "2>&-" in closed else "nlct: standard output is closed\n")
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize(
    "args", ["probe", "demo --flows 9 --samples 1", "--help", "--version", "completion bash"]
)
def test_what_needs_no_table_fails_alike(args: str) -> None:
    """Help is asked for to be read."""
    code, output, error = in_shell(">&-", *args.split())
    assert (code, output, error) == (1, "", "nlct: standard output is closed\n")


@pytest.mark.usefixtures("zones")
def test_a_dump_into_a_file_needs_no_standard_output(where: str, tmp_path: Path) -> None:
    """Nor any other stream."""
    file = tmp_path / "flows"
    code, _, _ = in_shell("<&- >&- 2>&-", "dump", where, "--output", str(file))
    assert code == 0
    assert len(file.read_text().splitlines()) == 30


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.usefixtures("zones")
def test_a_dump_into_a_closed_output_fails(where: str, tmp_path: Path, path: str) -> None:
    """By whatever name; /dev/null itself is a place to dump to."""
    if path == "link":
        link = tmp_path / "link"
        link.symlink_to("/dev/stdout")
        path = str(link)
    error = f"nlct: {path}: standard output is closed\n"
    assert in_shell(">&-", "dump", where, "--output", path) == (1, "", error)
    assert in_shell(">&-", "dump", where, "--output", "/dev/null") == (0, "", "")
    assert in_shell("2>&-", "dump", where, "--output", "/dev/stderr") == (1, "", "")


def test_what_reads_or_writes_itself_fails_on_a_closed_stream() -> None:
    """As it would have, had nothing been opened in its place."""
    code = (
        "import os; from nlct.cli.streams import open_closed; open_closed()\n"
        "for work in (lambda: os.read(0, 1), lambda: os.write(1, b'x')):\n"
        "    try: work()\n"
        "    except OSError as exc: os.write(2, f'{exc.errno} '.encode())\n"
    )
    words = ("sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", code)
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=True, timeout=240)
    assert done.stderr.split() == [str(errno.EBADF)] * 2


@pytest.mark.parametrize("command", ["delete", "count"])
def test_addresses_from_a_closed_input_are_refused(
    ct: nlct.Conntrack, zones: dict[int, int], where: str, command: str
) -> None:
    """They are not taken for none at all."""
    code, output, error = in_shell("<&-", command, where, "--src", "@-")
    assert (code, output) == (2, "")
    assert re.fullmatch(r"nlct: [^\n]*--src[^\n]*cannot read '-'[^\n]*\n", error)
    assert ct.count_by("zone") == zones


@pytest.mark.parametrize("closed", CLOSED)
def test_no_socket_becomes_a_standard_stream(tmp_path: Path, closed: str) -> None:
    """Whoever starts the command: python -m nlct, or the script that pip makes."""
    file = tmp_path / "streams"
    code = (
        "import os, runpy, sys, nlct, nlct.cli.commands as commands\n"
        "def look(**_):\n"
        "    open(sys.argv[1], 'w').write('\\n'.join(os.readlink(f'/proc/self/fd/{n}')\n"
        "                                           for n in range(3)))\n"
        "commands.cli.main = look\n"
        "if sys.argv[2] == 'module':\n"
        "    runpy.run_module('nlct', run_name='__main__')\n"
        "else:\n"
        "    from nlct.cli import main\n"
        "    main()\n"
    )
    script = f'exec "$@" {closed}'
    for way in ("module", "script"):
        words = ("sh", "-c", script, "sh", sys.executable, "-c", code, str(file), way)
        subprocess.run(words, check=True, timeout=240)
        streams = file.read_text().splitlines()
        numbers = [{"<&-": 0, ">&-": 1, "2>&-": 2}[each] for each in closed.split()]
        assert [streams[number] for number in numbers] == ["/dev/null"] * len(numbers)


@pytest.mark.usefixtures("ct")
def test_a_failure_without_standard_error_keeps_its_exit_code(where: str) -> None:
    """Closed or full."""
    for closed in ("2>&-", "2>/dev/full", "<&- >&- 2>&-"):
        assert in_shell(closed, "flush", where)[0] == 2
        assert in_shell(closed, "count", "--netns", "no-such-namespace")[0] == 2


# Full --------------------------------------------------------------------------------------------


@UNBUFFERED
@pytest.mark.usefixtures("zones")
def test_a_full_output_does_not_stop_a_flush(
    ct: nlct.Conntrack, where: str, unbuffered: str
) -> None:
    """It is done, in each namespace; that its result is lost is exit code 1."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    code, _, error = in_shell(">/dev/full", "flush", where, "--zone", "1", env=env)
    assert (code, error) == (1, "nlct: standard output: No space left on device\n")
    assert ct.count_by("zone") == {2: 10, 3: 10}
    with nlct.Netns.scratch() as other, nlct.Conntrack(other) as there:
        fill(there, 30, 3)
        also = f"--netns=/proc/{os.getpid()}/fd/{other.fileno()}"
        code, _, error = in_shell(">/dev/full", "flush", where, also, "--zone", "2", env=env)
        assert code == 1
        assert "standard output: No space left on device" in error
        assert ct.count_by("zone") == {3: 10}
        assert there.count_by("zone") == {1: 10, 3: 10}


@UNBUFFERED
@pytest.mark.usefixtures("zones")
def test_what_cannot_be_printed_is_one_line(where: str, unbuffered: str) -> None:
    """And exit code 1, whatever was to be printed."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    for args in (
        *(("count", where), ("count", where, "--by", "zone"), ("dump", where), ("probe",)),
        *(("--version",), ("count", "--help"), ("completion", "bash")),
    ):
        code, _, error = in_shell(">/dev/full", *args, env=env)
        assert code == 1
        assert error == "nlct: standard output: No space left on device\n"


# Terminals ---------------------------------------------------------------------------------------


@pytest.fixture
def watched(ct: nlct.Conntrack) -> None:
    """A table that takes a while to dump."""
    fill(ct, ENOUGH_TO_WATCH, 10)


@pytest.mark.parametrize(
    ("output", "pipeline"),
    [
        ("-", "| head -2"),
        ("-", "| cat"),
        ("-", ">/dev/tty"),
        ("-", ""),
        ("/dev/stdout", ""),
        ("/dev/tty", ""),
        ("/dev/fd/1", "| cat"),
    ],
)
@pytest.mark.usefixtures("watched")
def test_no_bar_stands_in_the_flows(where: str, output: str, pipeline: str) -> None:
    """Where they may be read on the bar's own terminal."""
    _, text = at_terminal("dump", where, "--output", output, pipeline=pipeline)
    # A terminal whose last program ends may lose what was not read yet.
    lines = text.splitlines()[:-1]
    assert lines
    assert [line for line in lines if not line.startswith("udp ")] == []


def read_terminal(terminal: int) -> Iterator[bytes]:
    """What was printed to a terminal that nobody has open any more."""
    try:
        while True:
            yield os.read(terminal, 65536)
    except OSError:
        pass


@pytest.mark.parametrize("out", ["file", "null", "terminal"])
@pytest.mark.usefixtures("watched")
def test_there_is_a_bar_where_the_flows_go_elsewhere(where: str, tmp_path: Path, out: str) -> None:
    """To a file, to nowhere, to another terminal."""
    terminal, end = pty.openpty()
    other, other_end = pty.openpty()
    file = os.open(tmp_path / "flows", os.O_WRONLY | os.O_CREAT)
    null = os.open(os.devnull, os.O_WRONLY)
    to = {"file": file, "null": null, "terminal": other_end}[out]
    env = {**os.environ, "TERM": "xterm"}
    # The other terminal would not take all of them unless it is read.
    zone = () if out != "terminal" else ("--zone", "99")
    with process("dump", where, *zone, stdout=to, stderr=end, env=env) as dump:
        for each in (end, other_end, file, null):
            os.close(each)
        shown = b"".join(read_terminal(terminal))
    os.close(terminal)
    os.close(other)
    assert dump.returncode == 0
    assert b"listing" in shown


@pytest.mark.parametrize(
    "args", ["flush", "flush --all", "flush --json", "delete --all", "delete --all --json"]
)
@pytest.mark.usefixtures("ct")
def test_nobody_is_asked_whether_to_delete_nothing(where: str, args: str) -> None:
    """That there is nothing is said, and is no failure."""
    command, *options = args.split()
    code, output = at_terminal(command, where, *options, answer=b"n\n")
    assert code == 0
    assert "?" not in output
    if "--json" in options:
        result = json.loads(output)
        assert set(result) == {*nlct.FlushResult._fields, "dry_run"}
        assert (result["deleted"], result["complete"]) == (0, True)
    else:
        assert output.split() == ["there", "is", "nothing", "to", "delete"]
