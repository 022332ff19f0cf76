"""A scrape of `nlct exporter`, as Prometheus makes it: connect, ask, read to the end.

The exporter is a process of its own. "full" scrapes the usual table, "empty" a table in another
namespace that holds nothing. With "zone" it has also counted by zone, once: no scrape waits for
that. The full table then has 51 more series, and each series takes its time. Beside it, as in
neighbours, somebody looks up one flow every millisecond, while somebody scrapes every 50 ms or
nobody does; recorded is the longest wait of a round.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from subprocess import PIPE
from typing import Callable

import pytest

import nlct
from bench.peers import Answer, Program, start
from bench.test_neighbours import QUIET
from bench.turn import Turn, case
from tests.support.command import NLCT

WHAT = {"counters": (), "zone": ("--by", "zone", "--interval", "3600")}
# Scrapes a round: one takes a few milliseconds.
SCRAPES = 10

# Returns where the exporter of a namespace serves, with these options.
Exporters = Callable[[nlct.Netns, str], str]


@pytest.fixture(scope="module")
def exporters() -> Iterator[Exporters]:
    """Each is started when it is first needed, and stays."""
    with ExitStack() as stack:
        urls: dict[tuple[int, str], str] = {}

        def find(netns: nlct.Netns, what: str) -> str:
            key = netns.fileno(), what
            if key not in urls:
                urls[key] = stack.enter_context(served(netns, *WHAT[what]))
            return urls[key]

        yield find


@pytest.fixture(scope="module")
def nothing() -> Iterator[nlct.Netns]:
    """A namespace whose table is empty."""
    with nlct.Netns.scratch() as made:
        yield made


@contextmanager
def served(netns: nlct.Netns, *options: str) -> Iterator[str]:
    """Start the exporter for a namespace, and yield where it serves."""
    where = f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"
    process = start([*NLCT, "exporter", "--listen", "127.0.0.1:0", where, *options], stderr=PIPE)
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        # It has counted.
        while options and "flows_counted" not in scrape(url):
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.communicate()


def scrape(url: str) -> str:
    """Scrape once."""
    with urllib.request.urlopen(url) as answer:
        return str(answer.read())


def seconds(url: str) -> float:
    """Say how long a scrape takes."""
    started = time.perf_counter()
    scrape(url)
    return time.perf_counter() - started


@case("exporter.empty", "exporter.full", rounds=25, what=tuple(WHAT))
def test_scrape(turn: Turn, exporters: Exporters, nothing: nlct.Netns, what: str) -> None:
    """Time of a scrape: the median of ten."""
    turn.even()
    full = turn.does == "full"
    url = exporters(turn.lab.netns if full else nothing, what)
    assert (f"}} {turn.scale.flows}.0" in scrape(url)) is full
    turn.record(lambda: Answer(median(seconds(url) for _ in range(SCRAPES)), {}))


@case("nobody", "exporter", rounds=25)
def test_scrape_beside(turn: Turn, exporters: Exporters) -> None:
    """Waits: median / 99 % / longest of all, microseconds."""
    turn.even()
    neighbour = turn.peers.get("neighbour")
    assert isinstance(neighbour, Program)
    url = exporters(turn.lab.netns, "counters")

    def work() -> Answer:
        neighbour.tell("get", turn.scale.flows, turn.scale.zones)
        for _ in range(3):
            due = time.perf_counter() + QUIET / 3
            if turn.who == "exporter":
                scrape(url)
            time.sleep(max(0, due - time.perf_counter()))
        neighbour.tell("stop")
        waits = [float(wait) for wait in neighbour.hear().split()]
        return Answer(max(waits) / 1e6, {"waits": waits})

    turn.record(work)
