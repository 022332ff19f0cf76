"""The benchmark, on pytest-benchmark; docs/benchmarks.md says how to run it.

A case is a test with the mark ``case`` (turn.py) that asks for ``turn``. It is collected once for
each round and contender, round by round, so that a drift of the machine affects all alike. The
rounds of a contender become one benchmark before pytest-benchmark reports.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from bench import machine, results
from bench.lab import Lab
from bench.peers import Peers
from bench.targets import figures
from bench.turn import CLOCK, FULL, QUICK, Bench, Case, Scale, Sizes, Turn

BENCH = pytest.StashKey[Bench]()
EVENTS = "/proc/sys/net/netfilter/nf_conntrack_events"
RULE = """
table inet bench {
    chain input { type filter hook input priority 0; ct state new counter accept; }
}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that the Makefile's variables stand for."""
    group = parser.getgroup("nlct's benchmark")
    group.addoption("--quick", action="store_true", help="small: only to see that all of it runs")
    group.addoption("--flows", type=int, help="in the table")
    group.addoption("--zones", type=int, help="that hold them")
    group.addoption("--samples", type=int, help="rounds, at most")
    group.addoption("--limit", type=float, help="seconds that a table of results may take")
    group.addoption("--ovstest", help="path of Open vSwitch's ovstest")
    group.addoption("--old", type=Path, help="another checkout of nlct, built, to measure beside")


def _scale(config: pytest.Config) -> Scale:
    given = {name: config.getoption(name) for name in ("flows", "zones", "samples", "limit")}
    chosen = {name: value for name, value in given.items() if value is not None}
    return (QUICK if config.getoption("quick") else FULL)._replace(**chosen)


def _case(item: Any) -> Case | None:
    mark = item.get_closest_marker("case")
    return Case(*mark.args, **mark.kwargs) if mark else None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Collect a case once for each size, round and contender, in this order."""
    case = _case(metafunc.definition)
    if case is None:
        return
    # The test takes neither: ``turn`` finds them in pytest-benchmark's fixture.
    metafunc.fixturenames += ["turn_number", "contender"]
    scale = _scale(metafunc.config)
    for name, values in case.sizes.items():
        metafunc.parametrize(name, values.of(scale) if isinstance(values, Sizes) else values)
    metafunc.parametrize("turn_number", range(min(case.rounds, scale.samples)))
    metafunc.parametrize("contender", list(_with_old(case, metafunc.config.getoption("old"))))


def _with_old(case: Case, old: Path | None) -> Iterator[str]:
    for contender in (*case.contenders, *case.slow):
        yield contender
        if old and contender.startswith("nlct"):
            yield f"{contender}@old"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have pytest-benchmark read the contenders' own clocks, and let a case take its time."""
    for item in items:
        if _case(item):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK.read))
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    """Make the lab and the peers. They are cleared away at the very end, whatever happens."""
    config, ovstest = request.config, request.config.getoption("ovstest")
    if os.geteuid() != 0:
        pytest.exit("it takes root, to enter namespaces and to make room in the table", 4)
    if ovstest and not os.access(ovstest, os.X_OK):
        pytest.exit(f"no program: {ovstest}", 4)
    stack = ExitStack()
    config.add_cleanup(stack.close)
    settings = machine.Settings()
    machine.stop_once()
    stack.callback(settings.put_back)
    lab = stack.enter_context(closing(Lab(settings)))
    peers = stack.enter_context(closing(Peers(lab.inside, ovstest, config.getoption("old"))))
    config.stash[BENCH] = Bench(lab, peers, _scale(config))
    return config.stash[BENCH]


@pytest.fixture(scope="module")
def rule(bench: Bench) -> Iterator[None]:
    """A rule that uses conntrack, so that what is sent over loopback becomes flows."""
    if not shutil.which("nft"):
        pytest.skip("MISSING: nft")
    nft = [*bench.lab.inside, "nft"]
    subprocess.run([*nft, "-f", "-"], input=RULE, text=True, check=True)
    yield
    subprocess.run([*nft, "delete table inet bench"], check=True)
    bench.lab.ct.flush_zone(0)


@pytest.fixture(scope="module")
def announced(bench: Bench) -> Iterator[None]:
    """Have events for every flow, also for those that are made while nobody listens.

    By default these announce no end, and a delete or a flush seems to cost less than it does.
    """
    shell = [*bench.lab.inside, "sh", "-c"]
    before = subprocess.check_output([*shell, f"cat {EVENTS}"], text=True).strip()

    def set_events(value: str) -> None:
        subprocess.run([*shell, f"echo {value} >{EVENTS}"], check=True)
        bench.lab.forget()

    set_events("1")
    yield
    set_events(before)


@pytest.fixture
def turn(request: pytest.FixtureRequest, bench: Bench, benchmark: Any) -> Turn:
    """One contender's turn in one round."""
    case = _case(request.node)
    assert case is not None
    return Turn(bench, benchmark, case)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, Any, Any]:
    """Note which contender failed, and what a skipped test left out."""
    report = yield
    turn = getattr(item, "funcargs", {}).get("turn")
    if turn is not None and report.failed:
        turn.failed()
    if turn is not None and report.skipped:
        reason = report.longrepr[2].partition(": ")[2]
        item.config.stash[BENCH].left_out.setdefault(report.fspath, {})[reason] = None
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Make one benchmark of a contender's rounds before pytest-benchmark looks at them."""
    measured = session.config.pluginmanager.get_plugin("pytest-benchmark")
    measured.benchmarks[:] = results.merge(measured.benchmarks)
    return (yield)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keep nothing that distinguishes this machine from others of its kind."""
    machine_info.clear()
    machine_info.update(machine=machine.describe(), versions=machine.versions())


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add the scale and what was left out; drop the project's name, which is that of a folder."""
    output_json["commit_info"].pop("project", None)
    bench = config.stash[BENCH]
    output_json["scale"] = {"flows": bench.scale.flows, "zones": bench.scale.zones}
    output_json["left_out"] = {file: list(reasons) for file, reasons in bench.left_out.items()}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the ratios of pairs, and the targets."""
    measured = config.pluginmanager.get_plugin("pytest-benchmark")
    found = results.groups(each.as_dict() for each in measured.benchmarks)
    if not found:
        return
    terminalreporter.section("ratios of pairs: median (quartiles)")
    for group in found.values():
        first, *others = group.entries
        for other in others:
            terminalreporter.line(f"{group.name}: {other} to {first}: {group.ratio(other, first)}")
    terminalreporter.section("targets")
    for figure in figures(found):
        missed = "  MISSED" * figure.missed
        terminalreporter.line(f"{figure.says}: {figure.value} (at most {figure.target}){missed}")
