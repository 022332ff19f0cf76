"""The rule of auto, fact by fact. Nothing is sent here, and no clock is read."""

from __future__ import annotations

from typing import Any

import pytest

import nlct
from nlct import strategy
from nlct.strategy import SOON, Facts, Plan, choose

# 500,000 flows in 262,144 buckets, of which a dump that is sent nothing takes 0.1 s.
LARGE = Facts(zones=1, flows=500_000, buckets=262_144, filtered=True, dump_seconds=0.1, kernel=True)


def at(part: float, of_zone: int, facts: Facts = LARGE, **more: Any) -> Facts:
    """Facts in a dump that has seen a part of the table, of a zone that has so many flows."""
    deleted = int(part * of_zone)
    assert facts.dump_seconds is not None
    if facts.filtered and facts.zones == 1:
        scanned, seconds = deleted, part * facts.dump_seconds + strategy.DELETED * deleted
    else:
        scanned = int(part * facts.flows)
        seconds = part * (facts.dump_seconds + strategy.SENT * facts.flows)
    seconds += strategy.BEGIN
    seen = {"seconds": seconds, "scanned": scanned, "matched": deleted, "deleted": deleted}
    return facts._replace(**seen, **more)


# 10,000 flows in 1,048,576 buckets: a dump takes ten times as long as a kernel flush.
SPARSE = Facts(
    zones=1, flows=10_000, buckets=1_048_576, filtered=True, dump_seconds=0.033, kernel=True
)

# A dump of 20,000 flows, of which nothing is known but their number.
FIVE = Facts(zones=5, flows=20_000, buckets=262_144, filtered=True, kernel=True)
SMALL = FIVE._replace(zones=1, dump_seconds=0.012)


def seen_of_five(seconds: float, scanned: int) -> Facts:
    """Facts in a dump of everything for five zones that hold a twentieth of it."""
    return FIVE._replace(seconds=seconds, scanned=scanned, matched=scanned // 20)


@pytest.mark.parametrize(
    ("facts", "each"),
    [
        # One zone is one dump; a few are one each; many, one for all.
        (LARGE, True),
        (LARGE._replace(zones=5), True),
        (LARGE._replace(zones=8), True),
        (LARGE._replace(zones=9), False),
        (LARGE._replace(zones=50), False),
        # Where the table holds little, sending it all costs little.
        (LARGE._replace(zones=2, flows=1000, dump_seconds=0.01), False),
        # Another filter, or a kernel that sends other zones all the same.
        (LARGE._replace(zones=0), False),
        (LARGE._replace(filtered=False), False),
        (LARGE._replace(zones=2, filtered=False), False),
        # What a dump takes here is not known yet: estimated from the size of the table.
        (LARGE._replace(zones=7, dump_seconds=None), True),
        (LARGE._replace(zones=8, dump_seconds=None), False),
        (LARGE._replace(zones=5, dump_seconds=None, flows=100), False),
        (LARGE._replace(zones=5, dump_seconds=None, buckets=None), True),
        (Facts(zones=1, flows=0, buckets=None, filtered=True), True),
        # A dump that has begun goes on as it was begun.
        (LARGE._replace(zones=50, each=True), True),
        (LARGE._replace(each=False), False),
    ],
)
def test_a_dump_for_each_or_one_for_all(facts: Facts, each: bool) -> None:
    """Whichever should take less; nobody asks the kernel before anything was seen."""
    plan = choose(facts._replace(kernel=None))
    assert (plan.each, plan.kernel) == (each, False)


@pytest.mark.parametrize(
    ("facts", "kernel"),
    [
        (SPARSE, True),
        (SPARSE._replace(zones=3), True),
        # Before the first dump the size of the table tells enough.
        (SPARSE._replace(dump_seconds=None), True),
        # It is not worth asking for, and not where it was refused.
        (SPARSE._replace(kernel=None, questions=1), False),
        (SPARSE._replace(kernel=False), False),
        (SPARSE._replace(filtered=False), True),
        # For so many zones one dump of everything takes less.
        (SPARSE._replace(zones=40), False),
        # The kernel saves 7 ms of 28.
        (SPARSE._replace(flows=100_000, buckets=262_144, dump_seconds=0.028), False),
        (LARGE, False),
    ],
)
def test_no_dump_begins_where_the_kernel_is_far_faster(facts: Facts, kernel: bool) -> None:
    """In a large hash table that holds little; and only if it is known to honour the zones."""
    assert choose(facts).kernel is kernel


@pytest.mark.parametrize(
    ("facts", "kernel"),
    [
        # A zone that holds much of the table, from the first step on; and one that holds little.
        (at(0.01, 500_000), True),
        (at(0.01, 100_000), True),
        (at(0.05, 50_000), True),
        (at(0.05, 5_000), False),
        (at(0.05, 1_000), False),
        (at(0.05, 0), False),
        # Towards the end little is left to gain, and a kernel flush begins from the beginning.
        (at(0.5, 50_000), False),
        (at(0.9, 500_000), False),
        # It may not, or nobody has asked it yet: a question takes a dump, and must be worth it.
        (at(0.01, 500_000, kernel=False), False),
        (at(0.01, 500_000, kernel=None, questions=1), True),
        (at(0.05, 30_000, kernel=None, questions=1, dump_seconds=None), False),
        (at(0.05, 50_000, kernel=None, questions=1, dump_seconds=None), False),
        (at(0.05, 80_000, kernel=None, questions=1, dump_seconds=None), True),
        (at(0.05, 80_000, kernel=None, questions=2, dump_seconds=None), False),
        # Once a dump was seen there will be more of them, and the answer is worth it.
        (at(0.05, 30_000, kernel=None, questions=1), True),
        # What is soon done is left to the scan.
        (at(0.1, 5_000, LARGE._replace(flows=10_000, dump_seconds=0.002)), False),
        (at(0.1, 90_000, LARGE._replace(flows=90_000, dump_seconds=0.002)), True),
        # One dump for several zones: each would be a flush of its own. Flows of other namespaces,
        # which no estimate knows of, make it slow.
        (at(0.1, 400_000, LARGE._replace(zones=2, filtered=False)), True),
        (at(0.1, 400_000, LARGE._replace(zones=50)), False),
        (at(0.1, 4_000, LARGE._replace(flows=20_000, zones=9, dump_seconds=0.009)), True),
        (
            at(0.1, 4_000, LARGE._replace(flows=20_000, zones=9, dump_seconds=0.009))._replace(
                seconds=0.03, dump_seconds=None
            ),
            False,
        ),
        # Where a dump is known not to take long, it is the sending that does.
        (
            at(0.1, 4_000, LARGE._replace(flows=20_000, zones=9, dump_seconds=0.009))._replace(
                seconds=0.03
            ),
            True,
        ),
        # 20,000 flows and five zones: five kernel flushes take half of one dump of everything. The
        # dump begins slowly, which says nothing of how it goes on.
        (seen_of_five(seconds=0.0051, scanned=1782), True),
        (seen_of_five(seconds=0.0051, scanned=1782)._replace(kernel=None, questions=1), True),
        (seen_of_five(seconds=0.0101, scanned=2000), False),
        # So they do if the zones hold all of it, since each leaves fewer flows to the next.
        (seen_of_five(0.0051, 1782)._replace(matched=1782, kernel=None, questions=1), True),
        # A small table whose dump is held up is left to the scan.
        (seen_of_five(seconds=0.05, scanned=200)._replace(flows=2_000, dump_seconds=0.01), False),
        (
            Facts(3, 5_000, 262_144, True, 0.013, None, True, 0, 0.02, 100, 10, 0),
            False,
        ),
        # A dump for each of several zones: what the kernel saves with each adds up.
        (at(0.3, 1_000, SMALL), False),
        (at(0.3, 1_000, SMALL)._replace(zones=3, each=True), True),
        # A hash table of a million buckets, where a dump takes long, and a kernel flush does not.
        (at(0.1, 0, LARGE._replace(flows=1000, buckets=1 << 20, dump_seconds=0.035)), True),
        # No clock, no size: never a division by nothing.
        (Facts(1, 9, 9, True, 0.0, True, seconds=1, scanned=1, matched=1, deleted=1), False),
        (Facts(2, 0, 0, False, 0.0, True, seconds=1, scanned=0, matched=1, deleted=1), False),
        (Facts(1, 0, 0, True, 0.0001, True, seconds=0, scanned=0, matched=1, deleted=1), False),
        (Facts(2, 0, 0, False, None, True, seconds=1, scanned=0, matched=1, deleted=1), False),
    ],
)
def test_the_kernel_does_the_rest(facts: Facts, kernel: bool) -> None:
    """Where the deletes to come, as many as so far, cost more than a flush of what is left."""
    assert choose(facts).kernel == kernel


def true_costs(part: float, of_zones: int, facts: Facts) -> tuple[float, float]:
    """What the rest takes of a scan that has seen a part, and what kernel flushes take instead.

    Of a table whose zones, all alike, hold so many flows, evenly spread.
    """
    assert facts.dump_seconds is not None
    assert facts.buckets is not None
    scan = (1 - part) * facts.dump_seconds
    left = int((1 - part) * of_zones)
    scan += (
        left * strategy.DELETED if facts.zones == 1 else (1 - part) * facts.flows * strategy.SENT
    )
    saved = (strategy.BUCKET - strategy.FLUSH_BUCKET) * facts.buckets
    kernel = 0.0
    for flushed in range(facts.zones):
        # The first flush meets the whole table, each later one what is left of it.
        gone = flushed * left / facts.zones
        kernel += max(facts.dump_seconds - saved, 0) - strategy.FLOW * gone
    return scan, max(kernel, 0) + strategy.FLUSHED * left


@pytest.mark.parametrize("zones", [1, 3])
def test_what_is_chosen_costs_little_more_than_the_other(zones: int) -> None:
    """Whatever the zones hold and whatever was seen, and whichever of both is the better.

    The kernel begins from the beginning, so it is not left to it what is nearly done.
    """
    chosen = set()
    for flows in (1_000, 20_000, 100_000, 500_000):
        for dump_seconds in (0.005, 0.02, 0.1, 0.3):
            size = LARGE._replace(zones=zones, filtered=zones == 1)
            size = size._replace(flows=flows, dump_seconds=dump_seconds)
            for part in (0.01, 0.1, 0.3, 0.7, 1.0):
                for share in (0, 0.002, 0.01, 0.05, 0.2, 0.6, 1):
                    held = int(share * flows)
                    facts = at(part, held, size)
                    costs = [facts.seconds + cost for cost in true_costs(part, held, size)]
                    kernel, best = choose(facts).kernel, min(costs)
                    assert costs[kernel] <= max(strategy.TIE * best, best + SOON), (facts, costs)
                    chosen.add(kernel)
    assert chosen == {True, False}


@pytest.mark.parametrize(
    ("zones", "held", "flows", "dump_seconds", "kernel"),
    [
        # Much of a large table, in a zone or two.
        (1, 250_000, 500_000, 0.1, True),
        (2, 500_000, 500_000, 0.1, True),
        # What a dump takes is not known yet.
        (1, 262_144, 262_144, None, True),
        # Little, or as much in many zones: the kernel would go over the table for each.
        (1, 1_000, 500_000, 0.1, False),
        (1, 50_000, 500_000, 0.1, False),
        (50, 250_000, 500_000, 0.1, False),
        # A dump takes long here, and so would the kernel.
        (1, 250_000, 500_000, 1.0, False),
        # All of it, but it is quick either way.
        (1, 5_000, 5_000, 0.01, False),
        (1, 0, 500_000, 0.1, False),
    ],
)
def test_a_mirror_leaves_large_zones_to_the_kernel(
    zones: int, held: int, flows: int, dump_seconds: float | None, kernel: bool
) -> None:
    """Where the kernel is clearly faster, though it makes an event for each flow."""
    assert strategy.kernel_beats_mirror(zones, held, flows, 262_144, dump_seconds) == kernel


def test_it_is_a_function_of_facts_alone() -> None:
    """The same facts, the same plan; and it says what it expects."""
    facts = at(0.05, 100_000)
    assert choose(facts) == choose(facts) == choose(Facts(*facts))
    plan = choose(LARGE)
    buckets = (strategy.BUCKET - strategy.FLUSH_BUCKET) * 262_144
    assert plan == Plan(each=True, kernel=False, scan_seconds=0.1, kernel_seconds=0.1 - buckets)
    whole = choose(LARGE._replace(zones=50))
    assert whole.scan_seconds == pytest.approx(0.1 + 500_000 * strategy.SENT)
    assert whole.kernel_seconds == pytest.approx(50 * (0.1 - buckets))


@pytest.mark.parametrize(
    ("seconds", "deleted", "before", "learned"),
    [
        (0.1, 0, None, 0.1),
        (0.1, 10_000, None, 0.07),
        (0.1, 20_000, None, None),
        (0.1, 10_000, 0.2, 0.2),
        (0.1, 2_000, 0.2, 0.094),
        # Whatever disturbs a dump makes it longer: a longer one is believed by half.
        (0.3, 0, 0.1, 0.2),
        (0.001, 1_000_000, None, None),
        # A clock that stands still says little, and nothing that cannot be.
        (0.0, 0, None, None),
        (0.0, 0, 0.1, strategy.SHORTEST),
    ],
)
def test_what_a_dump_takes_is_learned_where_it_was_not_mostly_deletes(
    seconds: float, deleted: int, before: float | None, learned: float | None
) -> None:
    """What deleting took is an estimate, and may be wrong by half."""
    assert strategy.learned(seconds, deleted, before) == pytest.approx(learned)


@pytest.mark.parametrize("name", ["Auto", "", "fast", None, 1])
def test_another_strategy_is_refused(name: Any) -> None:
    """With those that there are, and before anything is sent."""
    with pytest.raises(ValueError, match="strategy must be one of auto, scan, kernel, not"):
        strategy.check(name)


def test_a_handle_learns_what_a_dump_takes(ct: nlct.Conntrack) -> None:
    """Of one zone that the kernel sends alone; nothing of it belongs to the process."""
    if not nlct.probe().zone_dump:
        pytest.skip("MISSING: a kernel that filters a dump by zone")
    assert ct._handle.dump_seconds is None
    ct.delete(nlct.Filter(zone={1, 2}), strategy="scan")
    ct.delete(nlct.Filter(proto="udp"))
    assert ct._handle.dump_seconds is None
    ct.flush_zone(7)
    assert ct._handle.dump_seconds is not None
