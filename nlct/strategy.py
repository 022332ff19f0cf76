"""Which way flushes the fastest: facts in, a plan out. This module sends nothing.

A scan dumps the table and deletes each match by its id. A kernel flush deletes a whole zone; it
goes over the hash table as a dump does, and does not say what it deleted. ``auto`` scans at first,
since nobody knows beforehand how much a zone holds, and decides as one rents skis: if the rest of
the dump, and the deletes to expect in it, should clearly take longer than a kernel flush, the
kernel does the rest. It does all if even an empty zone should take it far less than a scan, as in a
large hash table that holds little. A scan wins a tie: it counts, and keeps no other caller waiting.
"""

from __future__ import annotations

from typing import NamedTuple

STRATEGIES = ("auto", "scan", "kernel")

# Seconds, measured on machines of one kind with 20,000 to 500,000 flows in 65,536 to 1,048,576
# buckets. What a bucket and a flow of the table cost in a dump in which the kernel sends nothing:
# a first estimate only, since other namespaces have flows in the same hash table.
BUCKET = 30e-9
FLOW = 0.2e-6
# What a bucket costs in a kernel flush. A flow of the table costs what it does in a dump.
FLUSH_BUCKET = 3e-9
# What a flow adds if it is sent, and perhaps deleted meanwhile, in a dump of the whole table; if it
# is sent and deleted in a dump of one zone, at most; and if a kernel flush deletes it.
SENT = 1.5e-6
DELETED = 3e-6
FLUSHED = 0.4e-6
# The same while somebody listens to its event. A delete takes about DELETED then, too.
ANNOUNCED = 1.5e-6

# A kernel flush must promise to be faster by this factor: it takes as long as a dump, give or take.
TIE = 1.2
# How long a dump takes until its first flow comes, whatever the table holds.
BEGIN = 1.5e-3
# A dump may be slower than estimated by this factor before the estimate is corrected.
UNEVEN = 1.25
# A scan that needs no longer than this goes on, however fast the kernel would be.
SOON = 0.02
# No dump takes less than this, whatever a clock says.
SHORTEST = 1e-6


class Facts(NamedTuple):
    """What is known of a flush when it begins, or in the middle of a dump.

    ``zones``: how many are still to be flushed; 0 if the target is not zones alone.
    ``flows``, ``buckets``: of the table and of the machine's hash table, None if not known.
    ``filtered``: asked for one zone, the kernel sends no other.
    ``dump_seconds``: what a dump took on this handle in which the kernel sent nothing, None before
    the first one.
    ``each``: how the zones are dumped (see Plan), None if that is to be decided.
    ``kernel``: this kernel has been seen to flush such zones, or not to; None if that is not known
    yet. ``questions``: how many the probe would have to answer for that, each with a dump.
    ``seconds``, ``scanned``, ``matched``, ``deleted``: of the dump under way.
    """

    zones: int
    flows: int
    buckets: int | None
    filtered: bool
    dump_seconds: float | None = None
    each: bool | None = None
    kernel: bool | None = False
    questions: int = 0
    seconds: float = 0.0
    scanned: int = 0
    matched: int = 0
    deleted: int = 0


class Plan(NamedTuple):
    """What to do.

    ``each``: make a filtered dump for each zone; else one dump of everything.
    ``kernel``: let the kernel flush what is left.
    ``scan_seconds``, ``kernel_seconds``: how long a scan and the kernel should take for the rest.
    """

    each: bool
    kernel: bool
    scan_seconds: float
    kernel_seconds: float


def check(strategy: str) -> None:
    """Refuse a strategy that does not exist."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")


def choose(facts: Facts) -> Plan:
    """Decide how to dump, and whether the kernel flushes what is left."""
    by_size = max(BUCKET * (facts.buckets or 0) + FLOW * facts.flows, SHORTEST)
    empty = by_size if facts.dump_seconds is None else max(facts.dump_seconds, SHORTEST)
    slack = max(empty - by_size, 0)
    whole = empty + SENT * facts.flows
    each = facts.each
    if each is None:
        each = facts.filtered and 0 < facts.zones * empty <= whole
    seconds = max(facts.seconds - BEGIN, 0)
    pace = 1.0
    if each:
        # The kernel does not say how far it is: the time that no delete took tells.
        seen = min(max((seconds - DELETED * facts.deleted) / empty, 0), 1)
        left = facts.zones - seen
    else:
        seen = min(facts.scanned / max(facts.flows, 1), 1)
        left = 1 - seen
        slower = seconds / max(seen, 0.01) / whole
        if slower > UNEVEN:
            # Other namespaces may have many flows, which no estimate counts.
            pace = slower
            empty *= pace if facts.dump_seconds is None else 1
    flush = max(empty - (BUCKET - FLUSH_BUCKET) * (facts.buckets or 0), 0)
    # The rest should hold as much as what was seen.
    more = facts.matched * left / max(seen, 0.01)
    scan = left * empty + DELETED * more if each else left * whole
    # Each flush of a zone leaves fewer flows to the next.
    fewer = FLOW * max(facts.zones - 1, 0) / 2
    kernel = max(facts.zones * flush + (FLUSHED - fewer) * more, 0)
    # A handle that has seen a dump is no one-off: its next flush wants to know, too.
    asking = facts.questions * flush if facts.dump_seconds is None else 0
    wins = facts.seconds + pace * scan > TIE * (facts.seconds + kernel + asking)
    # A dump in which the kernel sends nothing comes back at its end only. So none begins where the
    # kernel may flush these zones, and should save much whatever they hold.
    begun = facts.seconds > 0 or (facts.kernel is True and scan - kernel > SOON)
    may = facts.zones > 0 and facts.kernel is not False and begun
    # A small table is left to the scan, however slowly it goes just now or went before.
    soon = scan - left * slack <= SOON
    return Plan(each, may and wins and not soon, pace * scan, kernel)


def whole_dump(flows: int, buckets: int | None) -> float:
    """Estimate the seconds that a dump of everything takes."""
    return BUCKET * (buckets or 0) + (FLOW + SENT) * flows


def kernel_beats_mirror(
    zones: int, held: int, flows: int, buckets: int | None, dump_seconds: float | None
) -> bool:
    """Decide whether the kernel should flush zones, where a mirror knows that they hold ``held``.

    ``flows``, ``buckets``, ``dump_seconds``: see Facts. While somebody listens, a kernel flush
    makes an event for each flow as well.
    """
    empty = BUCKET * (buckets or 0) + FLOW * flows if dump_seconds is None else dump_seconds
    flush = max(empty - (BUCKET - FLUSH_BUCKET) * (buckets or 0), 0)
    kernel = zones * flush + ANNOUNCED * held
    return DELETED * held > TIE * kernel + SOON


def learned(seconds: float, deleted: int, before: float | None) -> float | None:
    """Return the new dump_seconds: what a dump took without its deletes.

    What deletes take is a guess. If they took much of the dump, ``before`` is the better value; if
    they took most of it, nothing is learned. Whatever disturbs a dump makes it longer, so a longer
    one counts by half.
    """
    took = seconds - DELETED * deleted
    if before is None:
        return took if took > seconds / 2 else None
    if took < seconds * 7 / 8:
        return before
    return max(min(took, (took + before) / 2), SHORTEST)
