"""What a case is made of: contenders that take turns, a round each (A B C A B C)."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, NoReturn

import pytest

from bench.lab import Lab, NoRoomError
from bench.peers import Answer, MissingError, Peer, Peers, Program
from bench.scale import Scale
from nlct.cli.measure import SyntheticTable


@dataclass(frozen=True)
class Case:
    """Who is measured in a case; see case()."""

    contenders: tuple[str, ...]
    slow: tuple[str, ...]
    rounds: int
    least: int
    limit: float
    sizes: dict[str, Any]


def case(
    *contenders: str,
    slow: tuple[str, ...] = (),
    rounds: int = 9,
    least: int = 2,
    limit: float = math.inf,
    **sizes: Any,
) -> pytest.MarkDecorator:
    """Mark a test as a case of the benchmark, for which it asks for ``turn``.

    ``contenders``: each a peer, or a peer and what it does ("nlct.table"); the reports hold the
    others against the first. ``slow``: more of them, which take part in every tenth round.
    ``rounds``: at most. ``limit``: seconds after which no further round begins, once there were
    ``least``. ``sizes``: arguments of the test, each with its values, or the field of Scale that
    has them; each combination is a group with a table of results.
    """
    return pytest.mark.case(Case(contenders, slow, rounds, least, limit, sizes))


class Clock:
    """A clock that runs while a contender works, by the contender's own clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

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
            # For all of a round alike.
            self.round = number
            late = time.monotonic() - self.started > min(self.case.limit, self.limit)
            self.over = number >= self.case.least and late
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
    left_out: dict[str, list[str]] = field(default_factory=dict)


class Turn:
    """One contender's turn in one round. ``benchmark``: pytest-benchmark's.

    ``who``: its peer's name, without a version of nlct. ``does``: what it is to do, where a peer
    stands for several contenders.
    """

    def __init__(self, bench: Bench, benchmark: Any, case: Case) -> None:
        self.lab, self.scale = bench.lab, bench.scale
        self._bench, self._benchmark = bench, benchmark
        # Until it is measured, so that pytest-benchmark does not complain if it never is.
        benchmark.skipped = True
        sizes = {**benchmark.params}
        number, self._contender = sizes.pop("turn_number"), sizes.pop("contender")
        name, _, version = self._contender.partition("@")
        self.who, _, self.does = name.partition(".")
        self._peer = self.who + f"@{version}" * bool(version)
        self._file, _, test = benchmark.fullname.partition("[")[0].partition("::")
        benchmark.group = " ".join(map(str, (test.partition("_")[2], *sizes.values())))
        self._group = bench.groups.setdefault(benchmark.group, Group(case, bench.scale.limit))
        why_not = self._group.why_not(self._contender, number)
        if why_not:
            pytest.skip(f"{benchmark.group}: {why_not}")

    @property
    def peer(self) -> Peer:
        """Who does the work."""
        return self.peer_named(self._peer)

    def peer_named(self, name: str) -> Peer:
        """Return somebody else, or skip where that is not here."""
        return self._try(self._bench.peers.get, name)

    def _try(self, find: Callable[..., Any], name: str, *flags: str) -> Any:
        try:
            return find(name, *flags)
        except MissingError as exc:
            self.leave_out(f"MISSING: {name}: {exc}")

    def fresh(self, *flags: str) -> closing[Program]:
        """Start the peer anew, so that it has done nothing yet; it ends with a `with` block."""
        return closing(self._try(self._bench.peers.make, self._peer, *flags))

    def leave_out(self, text: str) -> NoReturn:
        """Skip this turn, and have the report say why."""
        texts = self._bench.left_out.setdefault(self._file, [])
        if text not in texts:
            texts.append(text)
        pytest.skip(text)

    def hold(self, table: type[SyntheticTable], *arguments: Any, buckets: int = 0) -> None:
        """Have a table in the lab, or skip where the kernel does not take it."""
        try:
            self.lab.hold(table, *arguments, buckets=buckets)
        except NoRoomError as exc:
            self.leave_out(str(exc))

    def even(self, flows: int | None = None) -> None:
        """Have the usual table in the lab, or one of another size."""
        self.hold(SyntheticTable, self.scale.flows if flows is None else flows, self.scale.zones)

    def at_most(self, most: int, amount: int) -> None:
        """Skip where the amount of work would take this contender too long."""
        if amount > most:
            self.leave_out(f"{self._benchmark.group}: {self._contender}, which takes too long")

    def run(self, operation: str, *arguments: object) -> None:
        """Have the peer do an operation, and record its time."""
        self.record(partial(self.peer.run, operation, *arguments))

    def record(self, work: Callable[[], Answer]) -> None:
        """Have ``work`` done once, and record the time that it tells."""

        def target() -> Answer:
            answer = work()
            CLOCK.seconds += answer.seconds
            return answer

        answer = self._benchmark.pedantic(target, rounds=1, iterations=1)
        self._benchmark.extra_info.update(answer.notes)

    def failed(self) -> None:
        """Take part no more, and leave nothing to the others that may be broken."""
        self._benchmark.has_error = True
        self._group.failed.add(self._contender)
        self.lab.forget()
