"""The command, as root.

    make soak                       two minutes
    make soak MINUTES=30            longer
    make soak SEED=7                each worker does the same operations in the same order again
    make soak FLOWS=50000           a smaller table; nf_conntrack_max is lowered meanwhile
    make soak SOAK="--no-limit --no-resizes"    leaves the settings of the machine alone

Exits with 1 if anything was not as it must be.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Callable

import nlct
from nlct import Filter, FlushResult
from nlct.cli.signals import stoppable
from nlct.mirror import BUFFER
from tests.soak import checks, content, machine, traffic
from tests.soak.breaks import BREAKS
from tests.soak.client import Client
from tests.soak.content import CHURN, FLUSHED, KEPT, STRANGERS, TALKING
from tests.soak.listener import Listener
from tests.soak.operations import OPERATIONS, Place, Worker
from tests.soak.tally import EXPECTED, Tally, name_of
from tests.support import oracle
from tests.support.traffic import Site

FLOWS = 65536
# A full table has room for the kept flows and what talks, and then for no more than this part.
SHARE = 1.1
AT_THE_LIMIT = ("ENOMEM", "TableFullError")
# So many rounds more, at most, for what has not happened yet when the time is over.
MORE = 20
# How often a client is killed and the hash table resized, in seconds, at random.
KILLS, RESIZES = (0.5, 2.5), (0.2, 1.0)
# One heap for all threads and for Python's objects: what is free there goes back to the system, and
# what stays resident is what is held. Otherwise it creeps up for as long as the pieces fit badly.
ONE_HEAP = {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"}


class Soak:
    """One soak, from the first flow to the last."""

    def __init__(self, args: argparse.Namespace, stack: ExitStack) -> None:
        self._args = args
        self.tally = Tally()
        self._dice = random.Random(args.seed)
        self._site = Site((*TALKING, *STRANGERS), stack)
        self.netns = self._site.server
        self._resizer = machine.Resizer(self._dice, not args.no_resizes)
        stack.callback(self._resizer.put_back)
        self.listener = Listener(self.netns, self.tally)
        stack.callback(self.listener.close)
        echo = traffic.Echo(self.netns, traffic.KEPT_PORT)
        stack.callback(echo.stop)
        echo.start()
        talker = traffic.Talker(self._site, self.tally)
        talker.start()
        stack.callback(talker.stop)
        self._known, self._talking = self._fill()
        total = int(args.flows * SHARE)
        kept, own = content.ids(self._known), content.own_zones(0)
        self.place = Place(self.netns, total, kept, self.tally, own, BUFFER)
        stack.callback(self.place.close)
        where = f"/proc/{os.getpid()}/fd/{self.netns.fileno()}"
        self.order = {"netns": where, "total": total, "kept": self.place.kept}
        self._clients: list[Client] = []
        self._started = 0
        self._footprint = checks.Footprint()
        self._break: Callable[[Any], None] = BREAKS.get(args.break_, lambda _: None)
        self.rounds = 0

    def _fill(self) -> tuple[oracle.Table, oracle.Table]:
        """Create what is kept; return that, and the entries of those who talk."""
        with nlct.Conntrack(self.netns) as ct:
            # Of zone 0 is also what the kernel itself says.
            ct.flush_zone(0)
            for flow in content.kept_flows():
                ct.create(flow)
            table = oracle.dump(self.netns)
            return oracle.inside(table, KEPT), oracle.inside(table, TALKING)

    def run(self) -> None:
        """Round after round; a soak in which something never happened is none."""
        until = time.monotonic() + 60 * self._args.minutes
        while self.rounds < self._args.rounds if self._args.rounds else time.monotonic() < until:
            self._round()
        if not self._args.rounds:
            self._complete()
        self._flush_everything()
        self._footprint.check(self.tally)

    def _complete(self) -> None:
        """Some rounds more until everything has happened: a slow machine does less in its time."""
        missing, most = self._missing(), self.rounds + MORE
        while missing and self.rounds < most:
            self._round(missing)
            missing = self._missing()
        if missing:
            self.tally.violation(f"never happened: {', '.join(missing)}")

    def _seed(self, who: str) -> str:
        return f"{self._args.seed} round {self.rounds} {who}"

    # A round ---------------------------------------------------------------------------------

    def _round(self, first: Collection[str] = ()) -> None:
        """A round, in which a worker begins with these operations."""
        with nlct.Conntrack(self.netns) as ct:
            # So that workers meet a table at its limit, however slow they are.
            content.fill_up(ct, self.place.total)
        with traffic.strangers(self._site, self._seed("round"), self.tally):
            self._work(first)
        self._pause()
        self._footprint.measure()
        self.rounds += 1
        print(f"round {self.rounds}: {self._progress()}", flush=True)

    def _work(self, first: Collection[str]) -> None:
        self._break(self)
        stop = threading.Event()
        workers = [
            Worker(self.place, self._seed(f"worker {n}"), stop, first if n == 0 else ())
            for n in range(self._args.threads)
        ]
        try:
            for worker in workers:
                worker.start()
            for number in range(1, self._args.clients + 1):
                self._start_client(content.own_zones(number))
            self._disturb(time.monotonic() + self._args.round_seconds)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
            while self._clients:
                self._clients.pop().end(self.tally, kill=False)

    def _start_client(self, own: Sequence[int]) -> None:
        self._started += 1
        seed = self._seed(f"client {self._started}")
        self._clients.append(Client({**self.order, "seed": seed, "own": list(own)}))

    def _disturb(self, until: float) -> None:
        """Kill and resize until a moment."""
        events: list[tuple[tuple[float, float], Callable[[], None]]] = []
        if self._args.clients:
            events.append((KILLS, self._kill))
        if self._resizer.able:
            events.append((RESIZES, self._resize))
        due = [time.monotonic() + self._dice.uniform(*span) for span, _ in events]
        while time.monotonic() < until:
            time.sleep(min(0.05, self._args.round_seconds))
            for number, (span, disturb) in enumerate(events):
                if time.monotonic() >= due[number]:
                    disturb()
                    due[number] = time.monotonic() + self._dice.uniform(*span)

    def _kill(self) -> None:
        victim = self._clients.pop(self._dice.randrange(len(self._clients)))
        victim.end(self.tally, kill=True)
        self.tally.count("events", "clients killed")
        # Nobody else is in its zones now.
        self._start_client(victim.order["own"])

    def _resize(self) -> None:
        self._resizer.resize()
        self.tally.count("events", "resizes")

    # A pause ---------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Nobody writes now but us, and those who talk in zones of their own."""
        with nlct.Conntrack(self.netns) as ct:
            content.fill_up(ct, self.place.total)
            content.make_room(ct)
        left = checks.foreign_sockets(self.netns)
        if left:
            self._verdict(f"sockets of clients that have ended: {left}")
        self._verdict(self.listener.difference())
        before = oracle.dump(self.netns)
        self._verdict(checks.known("kept flows", self._known, before))
        self._verdict(checks.same_ids("flows of who talks", self._talking, before))
        self._verdict(
            checks.mirrored(self.place.mirror, oracle.inside(before, (*KEPT, *TALKING, *CHURN)))
        )
        dice = random.Random(self._seed("pause"))
        zones = dice.sample(CHURN, dice.randrange(1, 12))
        self._flush(zones, before)

    def _flush(self, zones: Sequence[int], before: oracle.Table) -> None:
        """Flush some zones in one of the ways; exactly their flows must be gone."""
        how, flush = list(self._ways().items())[self.rounds % len(self._ways())]
        results = flush(zones)
        wanted = oracle.inside(oracle.outside(before, zones), (*KEPT, *CHURN))
        found = oracle.inside(oracle.dump(self.netns), (*KEPT, *CHURN))
        self._verdict(checks.differences(f"{how} of {zones}", wanted, found))
        counts = [result.deleted for result in results]
        there = len(oracle.inside(before, zones))
        if None not in counts and sum(filter(None, counts)) != there:
            self.tally.violation(f"{how} of {zones}: deleted {counts} of {there}")
        if not all(result.complete for result in results):
            self.tally.violation(f"{how} of {zones}: not complete: {results}")
        self.tally.count("events", how)

    def _ways(self) -> dict[str, Callable[[Sequence[int]], list[FlushResult]]]:
        ct, flusher, mirror = self.place.ct, self.place.flusher, self.place.mirror
        ways: dict[str, Callable[[Sequence[int]], list[FlushResult]]] = {
            "pause: one by one": lambda zones: [ct.flush_zone(zone) for zone in zones],
            "pause: all at once": lambda zones: [ct.flush_zones(zones)],
            "pause: scan": lambda zones: [ct.flush_zones(zones, strategy="scan")],
            "pause: filter": lambda zones: [ct.delete(Filter(zone=zones))],
            "pause: storm": lambda zones: _storm(flusher, zones),
            "pause: mirror": lambda zones: [mirror.flush_zones(zones, verify=True)],
        }
        if nlct.probe().zone_flush:
            ways["pause: kernel"] = lambda zones: [ct.flush_zones(zones, strategy="kernel")]
        return ways

    def _flush_everything(self) -> None:
        """At the end all that may go goes; what must live lives."""
        _storm(self.place.flusher, FLUSHED)
        table = oracle.dump(self.netns)
        self._verdict(checks.known("kept flows at the end", self._known, table))
        self._verdict(checks.same_ids("who talks at the end", self._talking, table))
        self._verdict(checks.differences("flushed zones", {}, oracle.inside(table, FLUSHED)))

    def _verdict(self, violation: str | None) -> None:
        if violation is not None:
            self.tally.violation(f"round {self.rounds}: {violation}")

    def _missing(self) -> list[str]:
        """What a soak is for, and has not happened yet."""
        happened = {**self.tally.counts("operations"), **self.tally.counts("events")}
        happened["audits"] = self.place.mirror.state.audits
        wanted = [each.name for each in OPERATIONS] + ["talk", "turns of kept connections"]
        wanted += ["events told", "overruns", "by mirror", "audits"]
        wanted += ["clients killed"] * bool(self._args.clients) + ["resizes"] * self._resizer.able
        missing = [name for name in wanted if not happened.get(name)]
        met = self.tally.counts("errors")
        if not self._args.no_limit and not any(name.endswith(AT_THE_LIMIT) for name in met):
            missing.append("a full table")
        return missing

    # The end ---------------------------------------------------------------------------------

    def _progress(self) -> str:
        done, flows = self.tally.counts("operations"), self.tally.counts("flows")
        return (
            f"{sum(done.values()):,} operations, {flows.get('created', 0):,} flows created, "
            f"{sum(self.tally.counts('errors').values()):,} errors counted, "
            f"{len(self.tally.violations)} violations"
        )

    def summary(self) -> Iterator[str]:
        """Say what was done and met."""
        yield f"{self.rounds} rounds, seed {self._args.seed}"
        for what in ("operations", "errors", "flows", "events"):
            yield f"{what}:"
            for name, number in self.tally.counts(what).items():
                yield f"  {number:>12,}  {name}{_reason(name) if what == 'errors' else ''}"
        yield "at each pause:"
        for name, series in self._footprint.series.items():
            yield f"  {name}: {' '.join(map(str, series))}"


def _reason(counted: str) -> str:
    operation, _, name = counted.partition(": ")
    for each in EXPECTED:
        if operation in each.operations and name in _names(each.kind):
            return f" ({each.reason})"
    return ""


def _names(kind: type[BaseException] | int) -> set[str]:
    return {name_of(kind)} if isinstance(kind, int) else {kind.__name__}


def _storm(flusher: nlct.Flusher, zones: Sequence[int]) -> list[FlushResult]:
    """Ask for each zone from a thread of its own."""
    with ThreadPoolExecutor(len(zones)) as pool:
        return list(pool.map(flusher.flush_zone, zones))


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2, help="how long")
    parser.add_argument("--rounds", type=int, default=0, help="this many in place of minutes")
    parser.add_argument("--round-seconds", type=float, default=6, help="from pause to pause")
    parser.add_argument("--flows", type=int, default=FLOWS, help="the limit of the table")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--threads", type=int, default=3, help="of the long-running process")
    parser.add_argument("--clients", type=int, default=2, help="other processes at a time")
    parser.add_argument("--no-resizes", action="store_true", help="leave the hash table alone")
    parser.add_argument("--no-limit", action="store_true", help="leave nf_conntrack_max alone")
    parser.add_argument("--break", dest="break_", choices=BREAKS, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    args = _arguments(given)
    if os.geteuid() != 0:
        print("the soak needs root, to join namespaces", file=sys.stderr)
        return 2
    print(f"seed {args.seed}", flush=True)
    open_before = checks.descriptors()
    with stoppable(), _limit(args), ExitStack() as stack:
        soak = Soak(args, stack)
        try:
            soak.run()
        finally:
            print("\n".join(soak.summary()))
    checks.check_ended(soak.tally, open_before)
    for text in soak.tally.violations:
        print(f"VIOLATION: {text}")
    if soak.tally.violations:
        # The workers do the same again, in as many rounds; what meets when is another matter.
        again = [*(sys.argv[1:] if given is None else given), "--seed", str(args.seed)]
        print(f"failed; again: python -m tests.soak {shlex.join(again)}", flush=True)
        return 1
    print("all is as it must be", flush=True)
    return 0


@contextmanager
def _limit(args: argparse.Namespace) -> Iterator[None]:
    if args.no_limit:
        yield
        return
    with machine.limit(args.flows):
        yield


if __name__ == "__main__":
    if not ONE_HEAP.items() <= os.environ.items():
        again = [sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ONE_HEAP})
    sys.exit(main())
