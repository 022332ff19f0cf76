"""What a case is made of: contenders that take turns, a round each (A B C A B C)."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, NamedTuple

import pytest

from bench.lab import Lab
from bench.peers import Answer, Peer, Peers, Program
from nlct.cli.measure import SyntheticTable


class Scale(NamedTuple):
    """The usual table, and how long to measure it.

    ``samples``: the most rounds of any case. ``limit``: seconds after which no further round of a
    group begins. ``quick``: only to see that all of it runs.
    """

    flows: int = 500_000
    zones: int = 500
    samples: int = 250
    limit: float = 400
    quick: bool = False


FULL = Scale()
QUICK = Scale(flows=10_000, zones=20, samples=2, limit=10, quick=True)


class Sizes(NamedTuple):
    """The values of an argument of a test."""

    full: tuple[Any, ...]
    quick: tuple[Any, ...]

    def of(self, scale: Scale) -> tuple[Any, ...]:
        """Return the values for a scale."""
        return self.quick if scale.quick else self.full


class Case:
    """A case of the benchmark: a test with the mark ``case``, which asks for ``turn``.

    ``contenders``: each a peer, or a peer and what it does ("nlct.table"); the reports compare the
    others with the first. ``slow``: more contenders, which take part in every tenth round.
    ``rounds``: at most. ``limit``: seconds after which no further round begins, once there were
    two. ``sizes``: arguments of the test, each with its values; each combination is a group, within
    which contenders are compared.
    """

    def __init__(
        self,
        *contenders: str,
        slow: tuple[str, ...] = (),
        rounds: int = 9,
        limit: float = math.inf,
        **sizes: Any,
    ) -> None:
        self.contenders, self.slow = contenders, slow
        self.rounds, self.limit, self.sizes = rounds, limit, sizes


case = pytest.mark.case


@dataclass
class Clock:
    """A clock that adds up what the contenders' own clocks say."""

    seconds: float = 0

    def read(self) -> float:
        """Return how long all of them have worked."""
        return self.seconds


SLOW = 10
# What pytest-benchmark reads before and after each turn.
CLOCK = Clock()


@dataclass
class Group:
    """A case at one of its sizes, while it is measured: who takes part in which round."""

    case: Case
    limit: float
    started: float = field(default_factory=time.monotonic)
    round: int = 0
    over: bool = False
    failed: set[str] = field(default_factory=set)

    def why_not(self, contender: str, number: int) -> str | None:
        """Say why a contender takes no part in a round."""
        if number > self.round:
            # The same for a whole round.
            self.round = number
            late = time.monotonic() - self.started > min(self.case.limit, self.limit)
            self.over = number > 1 and late
        if self.over:
            return "its time is over"
        if contender in self.case.slow and number % SLOW:
            return f"{contender} takes part in one round of {SLOW}"
        return f"{contender} failed before" if contender in self.failed else None


@dataclass
class Bench:
    """What all cases share."""

    lab: Lab
    peers: Peers
    scale: Scale
    groups: dict[str, Group] = field(default_factory=dict)
    left_out: dict[str, dict[str, None]] = field(default_factory=dict)


class Turn:
    """One contender's turn in one round. ``benchmark``: pytest-benchmark's.

    ``who``: its peer's name, without a version of nlct. ``does``: what it is to do, if one peer is
    several contenders.
    """

    def __init__(self, bench: Bench, benchmark: Any, case: Case) -> None:
        self.lab, self.peers, self.scale = bench.lab, bench.peers, bench.scale
        self._benchmark = benchmark
        sizes = {**benchmark.params}
        number, self._contender = sizes.pop("turn_number"), sizes.pop("contender")
        name, _, version = self._contender.partition("@")
        self.who, _, self.does = name.partition(".")
        self._peer = self.who + f"@{version}" * bool(version)
        test = benchmark.name.partition("[")[0].partition("_")[2]
        benchmark.group = " ".join(map(str, (test, *sizes.values())))
        self._group = bench.groups.setdefault(benchmark.group, Group(case, bench.scale.limit))
        why_not = self._group.why_not(self._contender, number)
        if why_not:
            pytest.skip(f"{benchmark.group}: {why_not}")

    @property
    def peer(self) -> Peer:
        """The peer that does the work."""
        return self.peers.get(self._peer)

    def fresh(self, *flags: str) -> closing[Program]:
        """Start the peer anew, so that it has done nothing yet; it ends with a `with` block."""
        return closing(self.peers.make(self._peer, *flags))

    def even(self, flows: int | None = None) -> None:
        """Have the usual table in the lab, or one of another size."""
        flows = self.scale.flows if flows is None else flows
        self.lab.hold(SyntheticTable, flows, self.scale.zones)

    def at_most(self, most: int, amount: int) -> None:
        """Skip if the amount of work would take this contender too long."""
        if amount > most:
            pytest.skip(f"{self._benchmark.group}: {self._contender}, which takes too long")

    def run(self, operation: str, *arguments: object) -> None:
        """Let the peer do an operation, and record its time."""
        self.record(partial(self.peer.run, operation, *arguments))

    def record(self, work: Callable[[], Answer]) -> None:
        """Do ``work`` once, and record the time that it returns."""

        def target() -> Answer:
            answer = work()
            CLOCK.seconds += answer.seconds
            return answer

        answer = self._benchmark.pedantic(target, rounds=1, iterations=1)
        self._benchmark.extra_info.update(answer.notes)

    def failed(self) -> None:
        """Take part no more, and leave no broken table to the others."""
        self._benchmark.has_error = True
        self._group.failed.add(self._contender)
        self.lab.forget()
