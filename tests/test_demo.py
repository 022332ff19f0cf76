"""The demo: what it measures, how it makes room, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

from rich.console import Console

import nlct
from nlct import capabilities
from nlct.cli import limit, signals
from nlct.cli.demo import ORDER, Report, run
from nlct.cli.measure import ratio, summary
from nlct.cli.picture import in_short
from nlct.cli.report import show
from tests.support import flows as made
from tests.support import oracle
from tests.support.command import nlct_, process, refused
from tests.support.descriptors import descriptors

SMALL = ("demo", "--flows", "2000", "--zones", "10", "--samples", "3")
WAITING = b"another demo is running, and only one may change nf_conntrack_max: waiting for it\n"
# The machine's: some tests put others in their place.
LIMIT, LOCK = limit.LIMIT, limit.LOCK
FIGURES = {"min", "median", "p90", "p99", "max", "mean", "total", "count"}


@pytest.fixture(autouse=True)
def nothing_left(netns: nlct.Netns) -> Iterator[None]:
    """No descriptor, no handler and no raised limit is left; ``netns`` skips where none is had."""
    before = state()
    yield
    assert state() == before
    assert netns.fileno() >= 0


def state() -> tuple[object, ...]:
    """What a demo might leave."""
    handlers = [signal.getsignal(number) for number in signals.STOP]
    return descriptors(), handlers, limit_now()


@contextmanager
def locked(kind: int) -> Iterator[int]:
    """The lock of all demos of the machine, held; nobody has raised the limit then."""
    lock = os.open(LOCK, os.O_RDONLY)
    try:
        fcntl.flock(lock, kind)
        yield lock
    finally:
        os.close(lock)


def limit_now() -> str:
    """The limit of the namespace we are in, where no demo has raised it, of whoever."""
    with locked(fcntl.LOCK_SH):
        return LIMIT.read_text() if LIMIT.exists() else ""


@contextmanager
def waiting() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A demo that waits, and the lock that it waits for."""
    with locked(fcntl.LOCK_EX) as lock, process(*SMALL) as demo:
        assert demo.stderr is not None
        assert demo.stderr.readline() == WAITING
        yield demo, lock


def first_words(demo: subprocess.Popen[bytes]) -> str:
    """The first line of standard error, but for waiting for demos of others."""
    assert demo.stderr is not None
    return next(line for line in demo.stderr if line != WAITING).decode()


# Figures -----------------------------------------------------------------------------------------


def test_a_summary_of_known_times() -> None:
    """Percentiles lie between the times next to them."""
    found = summary([float(n) for n in range(101)])
    assert (found.min, found.median, found.p90, found.p99, found.max) == (0, 50, 90, 99, 100)
    assert (found.mean, found.total, found.count) == (50, 5050, 101)


def test_a_summary_of_one_time() -> None:
    """One sample is each of its figures."""
    found = summary([7.0])
    assert {found.min, found.median, found.p90, found.p99, found.max, found.mean} == {7}
    assert found.count == 1


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A drift that hits both of a pair cancels out, which the ratio of medians does not."""
    pairs = [(1.0, 2.0), (10.0, 20.0), (100.0, 200.0), (5.0, 1.0)]
    assert ratio(pairs[:3]) == 0.5
    assert ratio(pairs) == statistics.median([0.5, 0.5, 0.5, 5.0])


# Runs --------------------------------------------------------------------------------------------


def test_the_report_as_text() -> None:
    """It has the facts, a row a figure with a column a strategy, and fits 80 columns."""
    result = nlct_(*SMALL)
    assert result.exit_code == 0
    text = result.stdout
    assert max(map(len, text.splitlines())) <= 80
    assert os.uname().release in text
    assert "2,000 in 10 zones" in text
    ways = len(ORDER) + 1
    columns = ways - (not nlct.probe().zone_flush)
    for label in ("min", "median", "90 %ile", "99 %ile", "max", "mean", "total", "count"):
        rows = re.findall(rf"^ +{label}((?: +[\d,.-]+)+) *$", text, re.M)
        assert [len(row.split()) for row in rows] == [ways] * 2
        assert all(len(re.findall(r"\d+(?:\.\d+)?(?: |$)", row)) == columns for row in rows)
    assert "A zone of 200 flows" in text
    assert "An empty zone" in text
    assert "every other zone kept all its flows" in text


def test_the_report_as_json() -> None:
    """One object with the same figures, and nothing else on standard output."""
    report = json.loads(nlct_(*SMALL, "--json").stdout)
    assert (report["flows"], report["zones"], report["samples"]) == (2000, 10, 3)
    assert report["probe"] == nlct.probe()._asdict()
    assert report["exact"] is True
    kernel = {"kernel"} if nlct.probe().zone_flush else set()
    for case, flows in (("zone", 200), ("empty_zone", 0)):
        found = report[case]
        assert found["zone_flows"] == flows
        assert set(found["times"]) == {"auto", "scan", "old", "mirror"} | kernel
        assert set(found["to_kernel"]) == (set(found["times"]) if kernel else set())
        assert found["mirror_used"] == ["mirror"]
        for name, times in found["times"].items():
            assert set(times) == FIGURES
            assert times["count"] == (1 if name == "old" else 3)
            assert 0 < times["min"] <= times["median"] <= times["p90"] <= times["max"]
    assert report["many_zones"]["zones"] == 10
    assert report["many_zones"]["one_pass"] > 0
    assert report["flush_all"] > 0


def said_of(report: Report) -> str:
    """The report as text, in one line."""
    out = io.StringIO()
    show(report, Console(width=80, file=out))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return " ".join(out.getvalue().split())


def test_a_small_table_explains_its_figures() -> None:
    """Only where going over buckets was measured to take most of the time, and a scan more."""
    report = run(1000, 5, 1)
    report = replace(report, empty_zone=replace(report.empty_zone, times=report.zone.times))
    quick = {"scan": replace(report.zone.times["scan"], median=0.1)}
    slower = replace(report.zone, to_kernel={**report.zone.to_kernel, "scan": 1.2})
    faster = replace(report.zone, to_kernel={**report.zone.to_kernel, "scan": 0.9})
    unknown = replace(report.zone, to_kernel={})
    says = "This table is small: 1,000 flows in 5,000 buckets. Whoever looks for a zone goes over"
    for zone, buckets, small in (
        (slower, 5000, True),
        (slower, 1000, False),
        (slower, None, False),
        (faster, 5000, False),
        (unknown, 5000, False),
    ):
        said = said_of(replace(report, zone=zone, buckets=buckets))
        assert (says in said) == small
        assert ("table is small" in said) == small
    empty = replace(report.empty_zone, times={**report.zone.times, **quick})
    said = said_of(replace(report, zone=slower, empty_zone=empty, buckets=5000))
    assert "table is small" not in said


def test_a_picture(tmp_path: Path) -> None:
    """It shows the medians of both zones, each way named, and loads nothing from elsewhere."""
    pytest.importorskip("pygal", reason="MISSING: pygal")
    file = tmp_path / "figures.svg"
    report = json.loads(nlct_(*SMALL, "--json", "--picture", str(file)).stdout)
    text = file.read_text()
    words = {word.strip() for word in ElementTree.fromstring(text).itertext()}
    assert {"a zone of 200 flows", "an empty zone", "auto", "scan, old kernel"} <= words
    for case in ("zone", "empty_zone"):
        for times in report[case]["times"].values():
            assert in_short(times["median"]) in words
    shown = [in_short(time) for time in (1234.5, 100, 23.34, 0.0931)]
    assert shown == ["1,234", "100", "23.3", "0.0931"]
    assert set(re.findall(r"""(?:href|src)=["']([^"']*)""", text)) == set()


def test_a_picture_that_cannot_be_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before the demo begins; a file that is there stays, also when the demo fails."""
    file = tmp_path / "figures.svg"
    file.write_text("old")
    picture = (*SMALL, "--picture")

    def refuse(*_: int) -> Report:
        raise nlct.Error(errno.EIO, "the demo ran")

    monkeypatch.setattr("nlct.cli.commands.demo.run", refuse)
    assert "must end in .svg" in refused(nlct_(*picture, "figures.png"), 2)
    assert "is empty" in refused(nlct_(*picture, ""), 2)
    if find_spec("pygal"):
        nowhere = str(tmp_path / "nowhere/x.svg")
        assert "No such file" in refused(nlct_(*picture, nowhere), 1)
        assert "the demo ran" in refused(nlct_(*picture, str(file)), 1)
    monkeypatch.setitem(sys.modules, "pygal", None)
    assert "pip install 'nlct[picture]'" in refused(nlct_(*picture, str(file)), 1)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_kernel_that_cannot_flush_by_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its column says so, there is no ratio, and it is not asked to."""
    found = nlct.probe()._replace(zone_flush=False, zone0_flush=False)
    monkeypatch.setitem(capabilities._known, found.release, found)
    report = run(1000, 5, 2)
    assert set(report.zone.times) == {"auto", "scan", "old", "mirror"}
    assert report.zone.to_kernel == {}
    assert report.many_zones.kernel_one_by_one is report.many_zones.ratio is None
    assert report.exact
    text = nlct_(*SMALL).stdout
    assert "(cannot)" in text
    assert not re.search(r"^ +to kernel +[\d.]", text, re.M)


def test_a_kernel_that_makes_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no mirror then: its column says so, and all others are measured."""

    def no_mirror(_: nlct.Conntrack) -> nlct.Mirror:
        raise nlct.UnsupportedError(errno.EOPNOTSUPP, "listen to events")

    monkeypatch.setattr("nlct.cli.demo.Mirror", no_mirror)
    report = run(1000, 5, 2)
    assert "mirror" not in report.zone.times
    assert report.zone.mirror_used == report.empty_zone.mirror_used == []
    assert report.exact
    text = nlct_(*SMALL).stdout
    assert "nf_conntrack_events, which is 0" in text
    assert len(re.findall(r"\(cannot\)", text)) == 2 * (2 - nlct.probe().zone_flush)


def test_a_mirror_that_leaves_flows_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other way."""

    def flush_nothing(_: nlct.Mirror, zone: int) -> nlct.FlushResult:
        with nlct.Mirror(nlct.Netns.scratch()) as empty:
            return empty.flush_zones({zone})

    monkeypatch.setattr(nlct.Mirror, "flush_zone", flush_nothing)
    assert not run(1000, 5, 1).exact


def test_a_kernel_without_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to measure: exit code 4."""
    found = nlct.probe()._replace(zones=False, zone_flush=False)
    monkeypatch.setitem(capabilities._known, found.release, found)
    refused(nlct_(*SMALL), 4)


def test_more_zones_than_flows() -> None:
    """Each zone then has one flow."""
    report = run(5, 100, 1)
    assert (report.flows, report.zones, report.zone.zone_flows) == (5, 5, 1)
    assert report.exact


def test_flows_that_were_lost_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that takes more than its zone is exit code 1, and the report says so."""
    flush_zone = nlct.Conntrack.flush_zone

    def flush_too_much(ct: nlct.Conntrack, zone: int, *, strategy: str) -> nlct.FlushResult:
        flush_zone(ct, 3)
        return flush_zone(ct, zone, strategy=strategy)

    monkeypatch.setattr(nlct.Conntrack, "flush_zone", flush_too_much)
    result = nlct_(*SMALL)
    assert result.exit_code == 1
    assert "NOT EXACT" in result.stdout


# The limit ---------------------------------------------------------------------------------------


@pytest.fixture
def raisable(ct: nlct.Conntrack, alone: None) -> int:  # noqa: ARG001
    """The limit, where we may write it."""
    with locked(fcntl.LOCK_SH):
        found = ct.limit
    if not os.access(LIMIT, os.W_OK) or not 0 < found < 2**24:
        pytest.skip("MISSING: a writable nf_conntrack_max, which only the initial namespace has")
    return found


def test_the_limit_is_put_back(
    raisable: int, ct: nlct.Conntrack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within, there is room; afterwards all is as before, after an error too; and it says so."""
    assert limit.with_room(ct, raisable + 1, lambda flows: (flows, ct.limit)) == (raisable + 1,) * 2
    assert int(limit_now()) == raisable
    said = capsys.readouterr().err
    assert f"raised from {raisable} to {raisable + 1}" in said
    assert f"put back to {raisable}" in said
    with pytest.raises(ZeroDivisionError):
        limit.with_room(ct, raisable + 1, lambda flows: flows // 0)
    assert int(limit_now()) == raisable


def limit_of_its_own(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Path:
    """A file that stands for the limit, which is 1500."""
    file = directory / "limit"
    file.write_text("1500\n")
    monkeypatch.setattr(limit, "LIMIT", file)
    monkeypatch.setattr(nlct.Conntrack, "limit", 1500)
    return file


def test_no_signal_comes_in_place_of_putting_the_limit_back(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that comes in the middle of that is raised afterwards; one before, from what is done."""
    file = limit_of_its_own(monkeypatch, tmp_path)
    read_limit, write_limit = limit._read_limit, limit._write_limit
    values: list[int] = []
    now: list[str] = []

    def read_and_be_stopped() -> int | None:
        if values:
            signal.raise_signal(signal.SIGINT)
        return read_limit()

    def write(value: int) -> bool:
        values.append(value)
        return write_limit(value)

    monkeypatch.setattr(limit, "_write_limit", write)
    monkeypatch.setattr(limit, "_read_limit", read_and_be_stopped)
    with pytest.raises(KeyboardInterrupt), signals.stoppable():
        limit.with_room(ct, 2000, lambda _: now.append(file.read_text()))
    assert now == ["2000\n"]
    assert file.read_text() == "1500\n"

    def write_and_be_stopped(value: int) -> bool:
        signal.raise_signal(signal.SIGINT)
        return write_limit(value)

    monkeypatch.setattr(limit, "_write_limit", write_and_be_stopped)
    monkeypatch.setattr(limit, "_read_limit", read_limit)
    with pytest.raises(KeyboardInterrupt), signals.stoppable():
        limit.with_room(ct, 2000, lambda _: now.append("begun"))
    assert len(now) == 1
    assert file.read_text() == "1500\n"


def test_a_signal_while_the_limit_is_raised(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wherever it comes, the limit is put back, and the user told."""
    file = limit_of_its_own(monkeypatch, tmp_path)
    write_limit = limit._write_limit
    said: list[str] = []
    raised = False
    steps = 0

    def write(value: int) -> bool:
        nonlocal raised
        raised = value == 2000
        return write_limit(value)

    def trace(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal steps
        # Python looks for signals where functions begin and have ended.
        if raised and event in ("call", "return"):
            steps -= 1
            if steps == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    def demo() -> None:
        sys.settrace(trace)
        try:
            limit.with_room(ct, 2000, lambda _: None)
        finally:
            sys.settrace(None)

    monkeypatch.setattr(limit, "_write_limit", write)
    monkeypatch.setattr(limit, "note", said.append)
    step = 0
    while steps <= 0:
        step += 1
        steps = step
        with suppress(KeyboardInterrupt), signals.stoppable():
            demo()
        assert file.read_text() == "1500\n", step
        assert said[-1] == "nf_conntrack_max put back to 1500", step
        said.clear()
    assert step > 20


def test_a_limit_that_others_changed_is_theirs(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is not put back over their head."""
    file = limit_of_its_own(monkeypatch, tmp_path)

    def work(_: int) -> None:
        assert file.read_text() == "2000\n"
        file.write_text("3000\n")

    limit.with_room(ct, 2000, work)
    assert file.read_text() == "3000\n"


def test_a_limit_that_is_large_enough_is_left_alone(
    ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write, not even of the same value."""
    monkeypatch.setattr(limit, "LIMIT", Path("/proc/version"))
    assert limit.with_room(ct, 1, lambda flows: flows) == 1


def test_where_the_limit_cannot_be_raised_fewer_flows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to raise it, and measures with what fits."""
    monkeypatch.setattr(limit, "LIMIT", Path("/proc/nowhere"))
    monkeypatch.setattr(nlct.Conntrack, "limit", 1500)
    result = nlct_(*SMALL, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["flows"] == 1500
    assert "sysctl -w net.netfilter.nf_conntrack_max=2000" in result.stderr


def test_two_demos_at_once_put_the_limit_back(raisable: int) -> None:
    """Who comes second waits until the first has put it back, and then finds what was there."""
    raised = "nf_conntrack_max raised from {} to {} for the demo\n"
    with process("demo", "--flows", str(raisable + 1)) as first:
        assert first_words(first) == raised.format(raisable, raisable + 1)
        with process("demo", "--flows", str(raisable + 2)) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == WAITING
            first.terminate()
            assert first_words(second) == raised.format(raisable, raisable + 2)
            second.terminate()
    assert int(limit_now()) == raisable


def test_a_demo_waits_while_another_has_raised_the_limit() -> None:
    """Though its own flows would fit: they may not when the limit is put back."""
    with waiting() as (demo, lock):
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, error = demo.communicate()
    assert (demo.returncode, error) == (0, b"")


def test_the_limit_waits_for_a_demo_that_needs_its_room(raisable: int, ct: nlct.Conntrack) -> None:
    """Demos that raise nothing run side by side; one that is killed holds up nobody."""
    args = ("demo", "--flows", str(raisable + 1))

    def work(_: int) -> None:
        with process(*args) as demo:
            assert demo.stderr is not None
            assert demo.stderr.readline() == WAITING
            assert ct.limit == raisable
            demo.kill()

    limit.with_room(ct, 1, lambda _: limit.with_room(ct, 1, work))
    assert limit.with_room(ct, raisable + 1, lambda _: ct.limit) == raisable + 1
    assert int(limit_now()) == raisable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_waits_can_be_ended(number: signal.Signals) -> None:
    """As one that runs."""
    with waiting() as (demo, _):
        demo.send_signal(number)
        output, error = demo.communicate(timeout=240)
    assert (demo.returncode, output, error.strip()) == (128 + number, b"", b"")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_puts_the_limit_back(raisable: int, number: signal.Signals, code: int) -> None:
    """Even if more of them follow at once; nothing is printed but that."""
    with process("demo", "--flows", str(raisable + 1)) as demo:
        assert first_words(demo).startswith("nf_conntrack_max raised")
        demo.send_signal(number)
        demo.send_signal(signal.SIGTERM)
        output, error = demo.communicate(timeout=240)
    assert demo.returncode in (code, 143)
    assert output == b""
    assert error.decode().split("\n")[0] == f"nf_conntrack_max put back to {raisable}"
    assert b"Traceback" not in error
    assert int(limit_now()) == raisable


def catches(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Tell if a process handles a signal by now; before, Python has not even begun to."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.M)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def test_sigint_alone_is_exit_code_130() -> None:
    """At any time, with nothing printed."""
    with process("demo", "--flows", "200000", "--samples", "1000") as demo:
        while not catches(demo, signal.SIGTERM):
            assert demo.poll() is None
            time.sleep(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            demo.wait(timeout=0.5)
        demo.send_signal(signal.SIGINT)
        output, error = demo.communicate(timeout=240)
    error = error.replace(WAITING, b"").strip()
    assert (demo.returncode, output, error) == (130, b"", b"")


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    code = (
        "import signal; from nlct.cli.signals import stoppable\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with stoppable(): signal.raise_signal(signal.SIGHUP)\n"
        "print('here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"


def test_it_keeps_off_a_table_with_flows(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deletes nothing in a namespace that holds a flow."""
    ct.create(made.udp(1, 1))
    monkeypatch.setattr(nlct.Netns, "scratch", lambda: nlct.Netns.open(netns))
    with pytest.raises(nlct.Error, match="1 flows are there"):
        run(10, 1, 1)
    assert oracle.by_zone(oracle.dump(netns)) == {1: 1}


def test_a_signal_waits_for_a_work_that_is_not_to_be_stopped() -> None:
    """Though another thread takes it, such as one of Arrow's."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    here, there = socket.socketpair()
    there.setblocking(False)
    before = signal.set_wakeup_fd(there.fileno())
    done: list[signal.Signals] = []

    def work() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert here.recv(1) == bytes((number,))
            done.append(number)

    try:
        with pytest.raises(SystemExit) as exit_, signals.stoppable(), signals.unstoppable():
            work()
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        thread.join()
        here.close()
        there.close()
    assert done == [signal.SIGTERM, signal.SIGINT]
    assert exit_.value.code == 128 + signal.SIGTERM


def test_beside_the_main_thread_no_handler_is_replaced() -> None:
    """Python would refuse that."""
    done = []

    def work() -> None:
        with signals.stoppable(), signals.unstoppable():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_a_handler_from_c_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not be put back."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with signals.stoppable(), signals.unstoppable():
        assert signal.signal(signal.SIGTERM, before) == signal.SIG_DFL
