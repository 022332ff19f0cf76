"""The soak itself: it passes, and whatever is broken on purpose makes it fail."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import checks, machine
from tests.soak.__main__ import MORE
from tests.soak.breaks import BREAKS
from tests.soak.tally import Tally
from tests.support.examples import telling
from tests.support.traffic import site

ROOT = Path(__file__).parent.parent.parent
SMALL = ("--round-seconds", "0.5", "--flows", "2000", "--clients", "1", "--no-limit")

# What the soak must say, where a thing was broken so; and how many rounds it takes to see it.
SAYS = {
    "kept": (r"kept flows: 1 lost", 1),
    "reborn": (r"kept flows: 0 lost, 1 changed", 1),
    "silence": (r"flows of who talks: \d+ lost", 1),
    "leftover": (r"one by one of .*: 0 lost, 0 changed, \d+ new", 1),
    "too_much": (r"one by one of .*: \d+ lost", 1),
    "mirror": (r"mirror own: (.*\n)*?AssertionError: 1 of \d+ are left", 3),
    "worker": (r"(load|refill): (.*\n)*?LookupError: on purpose", 3),
    "client": (r"a client ended with 1", 1),
    "straggler": (r"sockets of clients that have ended", 1),
    "listener": (r"events and losses: ", 1),
    "descriptor": (r"descriptors: .* became .*/dev/null", 1),
    "memory": (r"resident KiB grew by", 6),
    "thread": (r"threads are left: Thread-", 1),
}


@pytest.fixture
def able() -> None:
    """Skip where namespaces cannot be joined or zones not be set by rules."""
    with site(1):
        pass


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.soak", *SMALL, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("able")
def test_it_passes() -> None:
    """With nothing broken it exits with 0, and says what it has done."""
    done = soak("--rounds", "2", "--no-resizes", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rounds, seed 3" in done.stdout
    assert "VIOLATION" not in done.stdout


@pytest.mark.usefixtures("able")
# The rest is about the soak, not about nlct.
@pytest.mark.parametrize("name", telling(BREAKS, {"kept", "client"}))
def test_what_is_broken_is_found(name: str) -> None:
    """The soak exits with 1 and says what it found."""
    says, rounds = SAYS[name]
    done = soak("--rounds", str(rounds), "--no-resizes", "--seed", "5", "--break", name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(f"VIOLATION: .*{says}", done.stdout), done.stdout


@pytest.mark.usefixtures("able")
def test_what_never_happens_is_found() -> None:
    """Further rounds are tried; then the soak exits with 1 and says what is missing."""
    short = ("--minutes", "0", "--round-seconds", "0.05", "--threads", "0", "--clients", "0")
    done = soak(*short, "--no-resizes", "--seed", "7")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATION: never happened: create," in done.stdout
    assert f"\n{MORE} rounds, seed 7" in done.stdout


@pytest.mark.usefixtures("able", "alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_all_is_put_back(number: int) -> None:
    """Settings of the machine are what they were, and no namespace is left."""
    before = [path.read_text() for path in (machine.LIMIT, machine.BUCKETS)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.soak", *SMALL, "--minutes", "60"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "round 1" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        said = process.communicate()[0]
    assert process.returncode in (128 + number, -number)
    assert "operations:" in said
    assert [path.read_text() for path in (machine.LIMIT, machine.BUCKETS)] == before
    assert not list(Path("/run/netns").glob(f"nlct{process.pid}*"))


def test_only_what_is_expected_where_it_is_expected_is_no_violation() -> None:
    """The same error is a violation where nobody has said why it may come."""
    tally = Tally()
    tally.error("talk", TimeoutError())
    assert tally.violations == []
    tally.error("table", TimeoutError())
    assert len(tally.violations) == 1
    tally.error("flush zone", 1, 5)
    assert tally.violations[1:] == ["flush zone: EPERM"]
    assert tally.counts("errors") == {
        "flush zone: EPERM": 5,
        "table: TimeoutError": 1,
        "talk: TimeoutError": 1,
    }


@pytest.mark.parametrize(
    ("series", "grows"),
    [
        ([0, 9000, 9000, 9000, 9000, 9000, 9000], False),
        ([0, 0, 0, 0, 9000, 0, 0, 0, 9000, 0, 0, 0], False),
        (list(range(0, 12000, 1000)), True),
        ([0, 0, 0, 0, 0, 0, 99000], True),
    ],
    ids=["warm-up", "noise", "leak", "late"],
)
def test_memory_that_grows_is_told_from_noise(series: list[int], grows: bool) -> None:
    """What matters is the end against what was there when all was warm."""
    tally, footprint = Tally(), checks.Footprint()
    footprint.series["resident KiB"] = series
    footprint.check(tally)
    assert bool(tally.violations) == grows
