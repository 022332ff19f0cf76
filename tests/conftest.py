"""What every test may use: a scratch network namespace of its own, and its conntrack table."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest

import nlct
from tests.support import examples, processes, turns
from tests.support.namespaces import scratch
from tests.support.processes import Script

examples.register()

# Whoever runs the tests may ignore these, as nohup(1) does and a shell in the background; what the
# tests start would ignore them as well.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # no timeout runs meanwhile
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test when it is its turn, with its fixtures of any scope."""
    with turns.turn(alone="alone" in getattr(item, "fixturenames", ())):
        return (yield)


@pytest.fixture
def alone() -> None:
    """For who changes what all namespaces share: no other test runs meanwhile."""


@pytest.fixture
def netns() -> Iterator[nlct.Netns]:
    """A scratch network namespace; without root it comes with a user namespace."""
    with scratch() as made:
        yield made


@pytest.fixture
def ct(netns: nlct.Netns) -> Iterator[nlct.Conntrack]:
    """The empty table of a scratch namespace."""
    with nlct.Conntrack(netns) as conntrack:
        yield conntrack


@pytest.fixture
def where(netns: nlct.Netns) -> str:
    """How a command reaches the test's namespace."""
    return f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"


@pytest.fixture
def kernel_flush() -> None:
    """Skip where the kernel's own zone flush would empty the table."""
    found = nlct.probe()
    if not (found.zone_flush and found.zone0_flush):
        pytest.skip(f"MISSING: a zone flush of the kernel's own on Linux {found.release}")


@pytest.fixture
def root() -> None:
    """Skip without root."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root")


@pytest.fixture
def script() -> Script:
    """Run Python code in a process of its own, perhaps without privilege; return its output."""
    return processes.script
