"""A hash table that changes its size in the middle of a dump, without a word from the kernel."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import nlct
from nlct import _dump, _handle, capabilities, flush
from nlct._ffi import lib
from nlct._handle import Dump
from nlct.fill import fill
from tests.support import oracle

BUCKETS = Path(_handle.BUCKETS)
FLOWS, ZONES = int(os.environ.get("NLCT_TEST_FLOWS", "20000")), 10
EACH = FLOWS // ZONES
# The hash table fills whole pages.
PAGE = 512
SIZES = pytest.mark.parametrize("size", [65536, 524288], ids=["shrunk", "grown"])


@pytest.fixture
def buckets(alone: None) -> Iterator[Path]:  # noqa: ARG001
    """The size of the machine's hash table, put back afterwards."""
    try:
        before = BUCKETS.read_text()
        BUCKETS.write_text(before)
    except OSError as exc:
        pytest.skip(f"MISSING: the right to resize the hash table: {exc}")
    yield BUCKETS
    BUCKETS.write_text(before)


@pytest.fixture
def table(netns: nlct.Netns) -> Iterator[nlct.Conntrack]:
    """A table that takes several steps to dump, as an old kernel would send it."""
    with nlct.Conntrack(netns, kernel_filter=False) as ct:
        if ct.limit < FLOWS:
            pytest.skip(f"MISSING: room for {FLOWS} flows (nf_conntrack_max)")
        assert fill(ct, FLOWS, ZONES).failed == {}
        yield ct


class Resizing(Dump):
    """A dump in whose first step the table is resized, once or each time."""

    sizes: Iterator[int]
    done: int

    def steps(self, *arguments: object) -> Iterator[None]:
        """Go on, and resize after the first step."""
        first = True
        for step in super().steps(*arguments):
            yield step
            if first:
                for size in Resizing.sizes:
                    BUCKETS.write_text(str(size))
                    Resizing.done += 1
                    break
            first = False


@pytest.fixture
def resizing(monkeypatch: pytest.MonkeyPatch, buckets: Path) -> type[Resizing]:
    """Let each of Resizing.sizes disturb a dump of the table."""
    assert buckets == BUCKETS
    monkeypatch.setattr(_dump, "Dump", Resizing)
    monkeypatch.setattr(Resizing, "done", 0, raising=False)
    return Resizing


@SIZES
def test_a_flush_dumps_again(
    table: nlct.Conntrack, netns: nlct.Netns, buckets: Path, size: int
) -> None:
    """Triggered by the callback: the zones are wholly gone, the rest is untouched."""
    before = oracle.dump(netns)
    assert len(before) == FLOWS
    calls: list[int] = []

    def on_progress(scanned: int) -> None:
        if not calls:
            buckets.write_text(str(size))
        calls.append(scanned)

    result = table.flush_zones({3, 4}, strategy="scan", progress=on_progress)
    buckets.write_text("262144")
    assert result.passes >= 2
    assert result.complete
    assert (result.deleted, result.failed) == (2 * EACH, {})
    assert oracle.dump(netns) == oracle.outside(before, {3, 4})


def test_a_table_resized_again_and_again_is_not_called_complete(
    table: nlct.Conntrack,
    resizing: type[Resizing],
    netns: nlct.Netns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more than so many dumps, then the result says that it is unsure, and counting raises."""
    monkeypatch.setattr(_dump, "MAX_DUMPS", 3)
    monkeypatch.setattr(flush, "MAX_DUMPS", 3)
    before = oracle.dump(netns)
    resizing.sizes = itertools.cycle([65536, 131072])
    result = table.flush_zone(3, strategy="scan")
    assert not result.complete
    assert result.passes == 3
    assert oracle.outside(oracle.dump(netns), {3}) == oracle.outside(before, {3})
    for name, ask in LOOKS.items():
        with pytest.raises(nlct.InterruptedDumpError, match=rf"^\[Errno 4\] {name}: ") as caught:
            ask(table)
        assert caught.value.operation == name


LOOKS: dict[str, Callable[[nlct.Conntrack], object]] = {
    "count": lambda table: table.count(zone=4),
    "count_by": lambda table: table.count_by("zone"),
    "table": lambda table: table.table(zone=4),
    "flush": lambda table: table.flush_zone(4, dry_run=True),
    "delete": lambda table: table.delete(nlct.Filter(zone=4), dry_run=True),
    "dump": lambda table: list(table.dump(zone=4)),
    "dump_text": lambda table: list(table.dump_text(zone=4)),
    "dump_json": lambda table: list(table.dump_json(zone=4)),
    "batches": lambda table: list(table.batches(zone=4)),
}


@SIZES
def test_counts_are_right(table: nlct.Conntrack, resizing: type[Resizing], size: int) -> None:
    """count(), count_by() and a dry run dump again until a dump was not disturbed."""
    resizing.sizes = iter([size])
    assert table.count(zone={3, 4}) == 2 * EACH
    assert resizing.done == 1
    resizing.sizes = iter([262144])
    assert table.count_by("zone") == dict.fromkeys(range(1, ZONES + 1), EACH)
    resizing.sizes = iter([size])
    assert table.flush_zones({3, 4}, dry_run=True).matched == 2 * EACH
    assert resizing.done == 3


@SIZES
def test_a_dump_says_so_at_its_end(table: nlct.Conntrack, buckets: Path, size: int) -> None:
    """It yields what came and then raises InterruptedDumpError: it cannot take flows back."""
    seen = 0

    def watch() -> None:
        nonlocal seen
        for _ in table.dump():
            seen += 1
            if seen == 5000:
                buckets.write_text(str(size))

    with pytest.raises(nlct.InterruptedDumpError, match="resized"):
        watch()
    assert seen > 5000
    buckets.write_text("262144")
    assert sum(1 for _ in table.dump(zone=3)) == EACH


def test_a_resize_before_or_after_a_pass_is_none_of_its_business(
    table: nlct.Conntrack, buckets: Path
) -> None:
    """Only what happens between the first and the last byte makes a dump doubtful."""
    buckets.write_text("131072")
    result = table.flush_zone(1, strategy="scan")
    assert (result.passes, result.deleted) == (1, EACH)
    buckets.write_text("262144")
    assert table.buckets == 262144
    assert sum(1 for _ in table.dump(zone=2)) == EACH


def other_sizes(buckets: Path) -> Iterator[int]:
    """Sizes up and down of which none comes twice: it is all that tells of a resize."""
    before = int(buckets.read_text())
    for turn in itertools.count(1):
        yield before // (1 + turn % 2) + turn * PAGE


@pytest.mark.exhaustive  # a race of seconds; the next test has its outcomes, one by one
def test_a_probe_beside_resizes_measures_what_it_measures_alone(buckets: Path) -> None:
    """A flow that is missed for a moment is no answer: it would be remembered."""
    alone = capabilities.measure("alone")
    begun, enough = threading.Event(), threading.Event()

    def resize() -> None:
        """Resize once in each measurement, sooner or later."""
        for turn, size in enumerate(other_sizes(buckets)):
            begun.wait()
            begun.clear()
            if enough.wait(turn % 10 / 1000):
                break
            buckets.write_text(str(size))

    resizer = threading.Thread(target=resize)
    resizer.start()
    try:
        for _ in range(50):
            begun.set()
            assert capabilities.measure("alone") == alone
    finally:
        enough.set()
        begun.set()
        resizer.join()


def test_a_probe_that_resizes_disturb_again_and_again_remembers_nothing(
    buckets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a wrong answer nor an error counts while the table is resized."""
    real, sizes = capabilities._measure, other_sizes(buckets)
    wrong: list[dict[str, bool] | nlct.Error] = [{}, nlct.ExistsError(errno.EEXIST, "create")]

    def disturbed(*arguments: Any) -> dict[str, bool]:
        if not wrong:
            return real(*arguments)
        buckets.write_text(str(next(sizes)))
        answer = wrong.pop()
        if isinstance(answer, nlct.Error):
            raise answer
        return answer

    alone = capabilities.measure("alone")
    monkeypatch.setattr(capabilities, "_known", {})
    monkeypatch.setattr(capabilities, "_measure", disturbed)
    assert capabilities.measure("alone") == alone
    assert not wrong
    wrong.extend([{}] * capabilities.MAX_TIMES)
    with caplog.at_level("DEBUG"):
        assert nlct.probe().evidence["zone_flush"] == "release"
    assert "the table was resized while it was dumped" in caplog.text
    assert not wrong
    assert nlct.probe().evidence["zone_flush"] == "measured"


def test_a_probe_ends_whose_dump_repeats_flows(
    buckets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that ignores the zone sends every flow there is, and some of them twice."""
    alone = capabilities.measure("alone", ["zone_dump"])
    sizes = [1048576]

    class Unfiltered(Dump):
        """Asks for everything; while the answer is under way the table grows, the first time."""

        def __init__(self, sock: Any, matching: Any, asked: Any, *rest: Any, **more: Any) -> None:
            if asked.zone_request == lib.NLCT_ZONE_PLAIN:
                asked.zone_request = lib.NLCT_ZONE_UNASKED
            super().__init__(sock, matching, asked, *rest, **more)
            if asked.zone_request == lib.NLCT_ZONE_UNASKED and sizes:
                buckets.write_text(str(sizes.pop()))

    monkeypatch.setattr(capabilities, "Dump", Unfiltered)
    found = capabilities.measure("alone", ["zone_dump"])
    if not alone.zone_filter:
        assert sizes == []
        assert not found.zone_dump
    assert found.evidence["zone_dump"] == "measured"


@SIZES
def test_auto_dumps_again(
    table: nlct.Conntrack, resizing: type[Resizing], netns: nlct.Netns, size: int
) -> None:
    """One zone, and several, by whichever dumps auto takes."""
    before = oracle.dump(netns)
    table._handle.kernel_filter = True
    for zones in ({3}, {4, 5}):
        resizing.sizes = iter([size if zones == {3} else 262144])
        # Which counts: no kernel does the rest.
        result = table.delete(nlct.Filter(zone=zones))
        assert (result.complete, result.deleted) == (True, EACH * len(zones))
        assert result.passes > 1
    assert oracle.dump(netns) == oracle.outside(before, {3, 4, 5})
