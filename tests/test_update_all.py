"""Changing every flow that matches: masks, what cannot be changed, and nothing else."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest

import nlct
from nlct import ALL, Filter, Flow, Status, Tuple, labels
from nlct.update import Change
from tests.support import flows, oracle

UDP = Tuple("10.0.0.1", "10.0.0.2", "udp", 1000, 53)
BACK = flows.reverse(UDP)


def marks(ct: nlct.Conntrack) -> dict[int | None, int]:
    """The mark of each flow, by its id."""
    return {flow.id: flow.mark or 0 for flow in ct.dump()}


def rest(ct: nlct.Conntrack) -> dict[int | None, Any]:
    """All that is known of each flow but its mark, and what runs by itself."""
    other = {"mark": None, "timeout": None, "use": None}
    return {flow.id: {**flow.to_dict(), **other} for flow in ct.dump()}


def test_random_masks_on_every_kind_of_flow(ct: nlct.Conntrack) -> None:
    """New mark = old & ~mask | value, in the flows that match; no other attribute changes."""
    ct.load([flow.replace(timeout=3600) for flow in flows.menagerie((0, 5, 65535))])
    untouched = rest(ct)
    numbers = random.Random(7)
    for number in range(30):
        mask = numbers.choice((0xFFFFFFFF, 1 << number, numbers.getrandbits(32) or 1))
        value = numbers.getrandbits(32) & mask
        zone = numbers.choice((None, 0, 5, 65535))
        wanted = ALL if zone is None else Filter(zone=zone)
        before = marks(ct)
        meant = {flow.id for flow in ct.dump(wanted)}
        result = ct.update_all(wanted, mark=(value, mask))
        after = {old: m & ~mask | value if old in meant else m for old, m in before.items()}
        assert marks(ct) == after
        changed = sum(before[one] != after[one] for one in before)
        assert (result.matched, result.updated) == (len(meant), changed)
        assert result.unchanged == len(meant) - changed
        assert result.complete
    assert rest(ct) == untouched


def test_a_zone_of_one_direction_names_its_own_flow(ct: nlct.Conntrack) -> None:
    """Its original tuple leads the kernel to the younger flow, which is left alone."""
    for zone in (5, 256):
        ct.create(Flow(UDP, reply=BACK.replace(zone=5), timeout=600))
        ct.create(Flow(BACK.replace(zone=256), reply=UDP, timeout=600))
        result = ct.update_all(Filter(zone=zone), mark=7)
        assert (result.updated, result.complete) == (1, True)
        assert {flow.zone: flow.mark for flow in ct.dump()} == {zone: 7, 261 - zone: 0}
        ct.flush_all()


def test_the_other_fields(
    ct: nlct.Conntrack, netns: nlct.Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and timeout together; what is so already is not sent; refusals are counted."""
    ct.load(flows.udp(number, 1 + number % 2, 600) for number in range(600))
    both = Status.SEEN_REPLY | Status.ASSURED
    result = ct.update_all(Filter(zone=1), status=both, timeout=5000, mark=3)
    assert (result.matched, result.updated, result.failed) == (300, 300, {})
    for flow in ct.dump():
        is_meant = flow.zone == 1
        assert ((flow.status or 0) & both == both) == is_meant
        assert ((flow.timeout or 0) > 4000) == is_meant
    result = ct.update_all(ALL, status="seen_reply")
    assert (result.updated, result.unchanged) == (300, 300)
    assert ct.update_all(Filter(zone=1), status=["assured", "SEEN_REPLY"]).unchanged == 300
    # No rule uses labels, no flow has a helper.
    result = ct.update_all(ALL, labels=(4, 6))
    assert (result.updated, result.failed, result.complete) == (0, {errno.ENOSPC: 600}, False)
    assert result.to_dict()["failed"] == {"ENOSPC": 600}
    assert ct.update_all(ALL, labels=(0, 6)).unchanged == 600
    names = tmp_path / "connlabel.conf"
    names.write_text("0 slow\n127 bulk\n")
    monkeypatch.setattr(labels, "PATH", str(names))
    for named, bits in (("bulk", 1 << 127), ({"bulk", "slow"}, 1 << 127 | 1)):
        change = Change(None, None, named, None, None).c
        to = list(change.to.labels), list(change.labels_mask)
        assert to == ([bits % 2**64, bits >> 64],) * 2
    assert ct.update_all(ALL, labels="bulk").failed == {errno.ENOSPC: 600}
    assert ct.update_all(ALL, helper="ftp").failed == {errno.EOPNOTSUPP: 600}
    before = oracle.dump(netns)
    seen: list[int] = []
    result = ct.update_all(ALL, mark=9, dry_run=True, progress=seen.append)
    assert (result.matched, result.updated, result.complete) == (600, 0, False)
    assert seen[-1] == 600
    assert len(before) == 600
    assert 9 not in marks(ct).values()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "nothing to change"),
        ({"mark": (3, 2)}, "mark 0x3 has bits outside of its mask 0x2"),
        ({"mark": (0, 0)}, "the mask of mark must be from 1"),
        ({"mark": 2**32}, "mark must be from 0 to 4294967295"),
        ({"labels": (1, 2)}, "labels 0x1 has bits outside"),
        ({"timeout": 0}, "timeout must be from 1"),
        ({"status": Status.DYING}, "not dying"),
        ({"status": ["assured", "dying"]}, "not dying"),
        ({"status": "unreplied"}, "names of seen_reply, assured, .*, not 'unreplied'"),
        ({"status": []}, "status must be of the bits"),
        ({"labels": "no-such"}, "not 'no-such'"),
        ({"labels": set()}, "the mask of labels"),
        ({"helper": "x" * 16}, "helper must be"),
        ({"helper": ""}, "helper must be a name"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    ct: nlct.Conntrack, changes: dict[str, Any], says: str
) -> None:
    """Before anything is sent; and so is a filter that restricts nothing."""
    with pytest.raises(ValueError, match=says):
        ct.update_all(ALL, **changes)
    with pytest.raises(ValueError, match=r"nlct\.ALL changes every flow"):
        ct.update_all(Filter(), mark=1)
