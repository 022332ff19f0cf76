"""Observers: told of each flush of this process once, and unable to disturb it."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import pytest

import nlct
from nlct.fill import fill

Told = list[nlct.Flushed]


@pytest.fixture
def told() -> Iterator[Told]:
    """What an observer is told."""
    found: Told = []
    with nlct.observe(found.append):
        yield found


def _async(work: Callable[..., Any], *args: Any) -> Any:
    async def run() -> Any:
        return await work(*args)

    return asyncio.run(run())


ZONE = nlct.Filter(zone=3)
WAYS: dict[str, tuple[str, frozenset[int] | None, Callable[[nlct.Conntrack], Any]]] = {
    "flush_zone": ("flush", frozenset({3}), lambda ct: ct.flush_zone(3)),
    "flush_zones": ("flush", frozenset({3, 4}), lambda ct: ct.flush_zones(iter([3, 4]))),
    "flush_all": ("flush", None, lambda ct: ct.flush_all()),
    "delete": ("delete", frozenset({3}), lambda ct: ct.delete(ZONE)),
    "delete_by_port": ("delete", None, lambda ct: ct.delete(nlct.Filter(dport=53))),
    "delete_flows": ("delete_flows", None, lambda ct: ct.delete_flows(ct.dump(zone=3))),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_told_once(ct: nlct.Conntrack, told: Told, way: str) -> None:
    """What it was for, how long it took, and its very result."""
    fill(ct, flows=100, zones=10)
    operation, zones, work = WAYS[way]
    result = work(ct)
    (found,) = told
    assert (found.operation, found.zones, found.errno) == (operation, zones, None)
    assert found.result is result
    assert found.strategy == result.strategy
    assert found.seconds >= result.seconds > 0


def test_a_flusher_tells_once(ct: nlct.Conntrack, told: Told) -> None:
    """The caller's wait, for each caller; in threads and tasks."""
    fill(ct, flows=100, zones=10)
    with nlct.Flusher(ct) as flusher:
        results = [
            flusher.flush_zone(1),
            flusher.delete(ZONE),
            _async(flusher.aflush_zone, 5),
            _async(flusher.adelete, nlct.Filter(zone=6)),
        ]
    assert [each.result for each in told] == results
    assert [each.operation for each in told] == ["flush", "delete", "flush", "delete"]
    assert [each.zones for each in told] == [{1}, {3}, {5}, {6}]


@pytest.mark.parametrize("in_step", [True, False], ids=["in step", "scanning"])
def test_a_mirror_tells_once(
    ct: nlct.Conntrack, told: Told, in_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has others do the work."""
    fill(ct, flows=100, zones=10)
    with nlct.Mirror(ct) as mirror:
        assert mirror.wait(30)
        if not in_step:
            monkeypatch.setattr(mirror._keeper, "in_step", False)
        results = [
            mirror.flush_zone(1),
            mirror.flush_zones([2, 3]),
            mirror.delete(nlct.Filter(zone=4), verify=True),
            _async(mirror.aflush_zone, 5),
            mirror.delete_flows(list(ct.dump(zone=6))),
        ]
        monkeypatch.undo()
    assert [each.result for each in told] == results
    assert [result.deleted for result in results] == [10, 20, 10, 10, 10]


def test_nobody_is_told_of_a_dry_run_or_a_bad_argument(ct: nlct.Conntrack, told: Told) -> None:
    """Nothing was to be flushed."""
    fill(ct, flows=10, zones=1)
    ct.flush_zone(1, dry_run=True)
    ct.delete(nlct.Filter(zone=1), dry_run=True)
    with nlct.Mirror(ct) as mirror:
        mirror.flush_zone(1, dry_run=True)
    for wrong in (partial(ct.flush_zone, -1), partial(ct.delete, nlct.Filter())):
        with pytest.raises(ValueError, match=r"zone|filter"):
            wrong()
    assert told == []


def test_an_error_is_told_by_its_errno(ct: nlct.Conntrack, told: Told) -> None:
    """And raised."""
    with pytest.raises(nlct.UnsupportedError):
        ct.delete(nlct.Filter(mark=1), strategy="kernel")
    (found,) = told
    assert (found.operation, found.result, found.strategy) == ("delete", None, None)
    assert found.errno == errno.EOPNOTSUPP


def test_an_observer_that_raises_breaks_nothing(
    ct: nlct.Conntrack, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the flush is done, and the others are told."""

    def fails(_flushed: nlct.Flushed) -> None:
        raise RuntimeError("this observer is broken")

    fill(ct, flows=100, zones=10)
    also: Told = []
    with nlct.observe(fails), nlct.observe(also.append), caplog.at_level(logging.WARNING, "nlct"):
        assert ct.flush_zone(3).deleted == 10
    assert len(told) == len(also) == 1
    assert ["this observer is broken" in record.getMessage() for record in caplog.records] == [True]


def test_an_observation_ends(ct: nlct.Conntrack) -> None:
    """With its block, or when it is closed, once or twice."""
    found: Told = []
    observation = nlct.observe(found.append)
    ct.flush_zone(1)
    observation.close()
    observation.close()
    ct.flush_zone(1)
    assert len(found) == 1
    with pytest.raises(TypeError, match="callback must be callable"):
        nlct.observe("print")  # type: ignore[arg-type]
