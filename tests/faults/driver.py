"""Runs cases, each in a child of this process, and judges what came of them."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import nlct
from nlct import FlushResult, LoadResult, UpdateResult
from tests.faults import expected, scenarios
from tests.faults.child import Child
from tests.faults.injector import FAULTS, Fault, Injector, lasts
from tests.faults.memory import grown
from tests.faults.scenarios import Place, Scenario
from tests.support import flows, oracle
from tests.support.oracle import Table

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
# Nothing takes as long on any machine, unless it hangs.
PATIENCE = 90
# One case of so many is repeated, to see whether memory grows.
REPEATED = 40
# The first so many calls of a sort are made to fail, and some of the rest.
MOST = 100
# Nothing tries as often, unless it goes round and round.
MOST_TRIES = 5000


# Of the namespace we live in, where nothing may change; quicker than a dump after each case.
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


class Missing(Exception):  # noqa: N818
    """It cannot run here, and why."""


class Report(NamedTuple):
    """What a child says: of the call that met the fault, of the same again, and of what is left."""

    value: Any
    errors: list[tuple[str, int | None, str]]
    fired: int
    counts: dict[str, int]
    after: Table
    again: Any
    again_error: str | None
    left: list[str]


class Outcome(NamedTuple):
    """What was wrong, and how many cases of each scenario ended how."""

    violations: list[str]
    verdicts: dict[str, Counter[str]]

    def add(self, other: Outcome) -> None:
        """Add that of another process."""
        self.violations.extend(other.violations)
        for name, found in other.verdicts.items():
            self.verdicts.setdefault(name, Counter()).update(found)

    def summary(self) -> str:
        """Say it in a table."""
        lines = [
            f"{name:14} " + ", ".join(f"{number} {what}" for what, number in sorted(found.items()))
            for name, found in self.verdicts.items()
        ]
        cases = sum(sum(found.values()) for found in self.verdicts.values())
        return "\n".join([*lines, f"{cases} cases"])


class Site:
    """A namespace with a table that is put back after each case."""

    def __init__(self, content: Iterable[nlct.Flow], netns: nlct.Netns) -> None:
        self._content = list(content)
        self.netns = netns
        self.path = f"/proc/{os.getpid()}/fd/{netns.fileno()}"
        self._put_back()

    def _put_back(self) -> None:
        with nlct.Conntrack(self.netns) as ct:
            ct.load(self._content)
        self.table = oracle.dump(self.netns)

    def restore(self, found: Table) -> None:
        """Put back what is missing of what was found, and take away what is new or was changed."""
        if found == self.table:
            return
        for key, entry in found.items():
            if self.table.get(key) != entry:
                oracle.delete(self.netns, key, entry)
        self._put_back()


class Driver:
    """All scenarios, with all that they need; a context manager."""

    def __init__(self, chosen: list[str] | None = None) -> None:
        self.outcome = Outcome([], {})
        _leave()
        home = nlct.Netns.open("/proc/self/ns/net")
        # What takes 0 for a descriptor acts on the table that must not be touched.
        os.dup2(home.fileno(), 0)
        self._injector = Injector()
        self._home = Site((flows.udp(n, n % 4, scenarios.TIMEOUT) for n in range(24)), home)
        self._inode = os.fstat(home.fileno()).st_ino
        self._small = Site(scenarios.content(scenarios.SMALL), nlct.Netns.scratch())
        self._large = Site(scenarios.content(scenarios.LARGE), nlct.Netns.scratch())
        scenarios.learn_truth(Child(nlct.probe).answer(PATIENCE))
        self._scenarios = scenarios.scenarios()
        if chosen is not None:
            self._scenarios = {name: self._scenarios[name] for name in chosen}
        # What is there now is no garbage; so each child is quick to see what is.
        gc.collect()
        gc.freeze()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        # What the counter does not tell.
        self.outcome.violations.extend(self._judge_home())
        for site in (self._home, self._small, self._large):
            site.netns.close()

    # Children ----------------------------------------------------------------------------------

    def _site(self, scenario: Scenario) -> Site:
        return self._large if scenario.large else self._small

    def _try(self, scenario: Scenario, fault: Fault | None) -> Report:
        """What a child does."""
        site = self._site(scenario)
        scenario.before()
        place = Place(site.path, self._inode)
        value = again = again_error = None
        open_before, held_before = _descriptors(), self._injector.held()
        if fault is None:
            self._injector.disarm()
        else:
            self._injector.arm(fault)
        try:
            value = scenario.run(place)
        except Exception as exc:
            place.errors.append(exc)
        fired, counts = self._injector.fired(), self._injector.counts()
        self._injector.disarm()
        errors = [_describe(exc) for exc in place.errors]
        place.errors.clear()
        after = oracle.dump(site.netns)
        try:
            again = scenario.run(place)
            again_error = ", ".join(map(str, place.errors)) or None
        except Exception as exc:
            again_error = repr(exc)
        place.errors.clear()
        place.close()
        del place
        gc.collect()
        left = []
        if _descriptors() != open_before:
            left.append(f"descriptors: {open_before} became {_descriptors()}")
        if not _single():
            left.append("a thread is left")
        held = self._injector.held() - held_before
        if held:
            left.append(f"{held} blocks or mappings of the core are left")
        return Report(value, errors, fired, counts, after, again, again_error, left)

    def _repeat(self, scenario: Scenario, fault: Fault) -> str | None:
        """What a child does to see whether memory grows with each fault."""
        site = self._site(scenario)
        scenario.before()

        def once() -> None:
            place = Place(site.path, self._inode)
            self._injector.arm(fault)
            with suppress(Exception):
                scenario.run(place)
            self._injector.disarm()
            place.errors.clear()
            place.close()

        return grown(once)

    # Judging -----------------------------------------------------------------------------------

    def case(self, name: str, fault: Fault | None) -> str:
        """Run one case, and say what came of it."""
        scenario = self._scenarios[name]
        site = self._site(scenario)
        before = site.table
        wrong: list[str] = []
        verdict, report = "broken", None
        try:
            report = Child(lambda: self._try(scenario, fault)).answer(PATIENCE)
        except (ChildProcessError, TimeoutError) as exc:
            wrong.append(str(exc))
        at_end = oracle.dump(site.netns)
        if report is not None:
            verdict = _verdict(scenario, fault, report, wrong)
            self._counts = report.counts
            wrong += _judge(scenario, before, report, at_end)
            wrong += [text for text in report.left if not _may_be_left(fault, text)]
        wrong += self._judge_tables(scenario, site, at_end)
        self._note(name, fault, verdict, wrong)
        return f"{name}/{fault}: {verdict}"

    def _judge_tables(self, scenario: Scenario, site: Site, found: Table) -> Iterator[str]:
        """Say what was changed that was not named, and put everything back."""
        yield from _differences(scenario, site.table, found)
        site.restore(found)
        if int(COUNT.read_text()) != len(self._home.table):
            yield from self._judge_home()

    def _judge_home(self) -> Iterator[str]:
        found = oracle.dump(self._home.netns)
        if found != self._home.table:
            yield "the table of the caller's own namespace was changed"
            self._home.restore(found)

    def _note(self, name: str, fault: Fault | None, verdict: str, wrong: Iterable[str]) -> None:
        self.outcome.verdicts.setdefault(name, Counter())[verdict] += 1
        found = dict.fromkeys(f"{name}/{fault}: {text:.400}" for text in wrong)
        self.outcome.violations.extend(found)

    # Exploring ---------------------------------------------------------------------------------

    def explore(self, seed: int, until: float, part: int = 0, parts: int = 1) -> Outcome:
        """Run cases at random until a moment: each call and kind once, and then more of them.

        Every process that does so with the same seed takes another part of them.
        """
        cases = self._all_cases(random.Random(seed))[part::parts]
        for done, (name, fault) in enumerate(cases, 1):
            if time.monotonic() > until:
                break
            self.case(name, fault)
            if done % REPEATED == 0:
                self._look_for_growth(name, fault)
        return self.outcome

    def _all_cases(self, dice: random.Random) -> list[tuple[str, Fault]]:
        cases = []
        for name in self._scenarios:
            self.case(name, None)
            for call, count in self._counts.items():
                for kind in FAULTS.get(call, ()):
                    for always in lasts(call, kind):
                        numbers = dice.sample(range(1, count + 1), min(count, MOST))
                        for rank, number in enumerate(numbers):
                            cases.append((rank, name, Fault(call, number, kind, always)))
        dice.shuffle(cases)
        return [(name, fault) for _, name, fault in sorted(cases, key=lambda case: case[0])]

    def _look_for_growth(self, name: str, fault: Fault) -> None:
        scenario = self._scenarios[name]
        try:
            text = Child(lambda: self._repeat(scenario, fault)).answer(PATIENCE)
            wrong = [] if text is None else [f"again and again: {text}"]
        except (ChildProcessError, TimeoutError) as exc:
            wrong = [f"again and again: {exc}"]
        site = self._site(scenario)
        wrong += self._judge_tables(scenario, site, oracle.dump(site.netns))
        self._note(name, fault, "repeated", wrong)


def _leave() -> None:
    """Leave the machine's own table for a namespace of our own."""
    kinds = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds) < 0:
        raise Missing(f"a namespace of our own: {os.strerror(ctypes.get_errno())}")


def _descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
    return sorted(found)


def _single(patience: float = 10) -> bool:
    """Tell if there is one thread; who was joined may take a moment to leave the kernel."""
    until = time.monotonic() + patience
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def _describe(exc: BaseException) -> tuple[str, int | None, str]:
    kind = "OSError" if isinstance(exc, OSError) else type(exc).__name__
    return kind, getattr(exc, "errno", None), repr(exc)


def _differences(scenario: Scenario, before: Table, after: Table) -> Iterator[str]:
    """Say what happened to flows that were not named."""
    named = scenario.named(before)
    lost = [key for key in before if key not in after and key not in named]
    new = [key for key in after if key not in before]
    may_change = scenarios.changed(before) if scenario.changes else {}
    changed = [
        key
        for key, entry in before.items()
        if after.get(key, entry) != entry and key not in may_change
    ]
    if lost:
        yield f"{len(lost)} flows are gone that were not named: {lost[0]}"
    if any(key.zone != scenarios.NEW_ZONE or not scenario.makes for key in new):
        yield f"{len(new)} flows are new: {new[0]}"
    if changed:
        yield f"{len(changed)} flows were changed: {changed[0]}"


def _results(value: Any) -> Iterator[FlushResult | LoadResult | UpdateResult]:
    """What of a value says by itself that it is not complete."""
    if isinstance(value, (FlushResult, LoadResult, UpdateResult)):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _results(each)


def _verdict(scenario: Scenario, fault: Fault | None, report: Report, wrong: list[str]) -> str:
    """Say how the call took the fault, and what is wrong about that."""
    refused = {n: each for each in _results(report.value) for n in each.failed if n != errno.EEXIST}
    if fault is None or not report.fired:
        wrong += [f"an error without a fault: {text}" for _, _, text in report.errors]
        wrong += [f"refused without a fault: {each}" for each in refused.values()]
        return "without a fault" if fault is None else "not reached"
    for kind, number, text in report.errors:
        if not expected.may_raise(fault, kind, number):
            wrong.append(f"the wrong exception: {text}")
    for number, each in refused.items():
        if not expected.may_fail(fault, number):
            wrong.append(f"the wrong refusal: {each}")
    if report.errors:
        return "raised"
    if refused:
        return "partial"
    harmless = scenario.tolerant or scenario.harmless.get(str(fault)) or expected.tolerated(fault)
    if not harmless:
        wrong.append(f"the fault was swallowed: {report.value!r:.200}")
    return "tolerated"


def _may_be_left(fault: Fault | None, text: str) -> bool:
    return fault is not None and text.startswith("descriptors") and expected.may_leave_open(fault)


def _judge(scenario: Scenario, before: Table, report: Report, at_end: Table) -> Iterator[str]:
    """Say what is wrong with results, and with what is left."""
    yield from _differences(scenario, before, report.after)
    if report.fired > MOST_TRIES:
        yield f"it was tried {report.fired} times"
    if report.value is not None:
        yield from scenario.check(report.value, before, report.after)
    if report.again_error:
        yield f"afterwards the same fails: {report.again_error}"
    elif report.again is not None:
        found = scenario.check(report.again, report.after, at_end)
        for text in (*found, *scenario.check_again(report.again)):
            yield f"afterwards: {text}"
        for each in _results(report.again):
            if set(each.failed) - {errno.EEXIST}:
                yield f"afterwards: {each}"
