"""Which way flushes the fastest: what is known, and what to do. No request is made here.

A scan dumps the table and deletes each match by its id; one kernel flush deletes a whole zone, goes
over the hash table as a dump does, and says nothing of what it did. ``auto`` scans at first, for
nobody knows beforehand how much a zone holds, and decides as one rents skis: where the deletes that
the rest of the dump promises cost more than a kernel flush of what is left, the kernel does the
rest. A scan wins a tie: it counts, and keeps nobody waiting.
"""

from __future__ import annotations

from typing import NamedTuple

STRATEGIES = ("auto", "scan", "kernel")

# Seconds, measured on machines of one kind with 20,000 to 500,000 flows in 65,536 to 1,048,576
# buckets. What a dump that is sent nothing takes for a bucket and for a flow of the table: only
# where to begin, since other namespaces have flows in the same hash table.
BUCKET = 30e-9
FLOW = 0.2e-6
# What a kernel flush takes for a bucket; for a flow of the table it takes as long as a dump.
FLUSH_BUCKET = 3e-9
# What a flow adds that is sent, and deleted meanwhile, in a dump of the whole table; that is sent
# and deleted in a dump of one zone, at most; and that a kernel flush deletes.
SENT = 1.5e-6
DELETED = 3e-6
FLUSHED = 0.4e-6

# A kernel flush must promise to be faster by this factor: it takes as long as a dump, give or take.
TIE = 1.2
# Before the first flow comes a dump takes this long, whatever the table holds.
BEGIN = 1.5e-3
# A dump may be slower than estimated by this factor before the estimate is corrected.
UNEVEN = 1.25
# What a scan does in this time is left to it, however fast the kernel would be.
SOON = 0.02


class Facts(NamedTuple):
    """What is known of a flush when it begins, or in the middle of a dump.

    ``zones``: how many are to be flushed; 0 where that is not by zones alone.
    ``flows``, ``buckets``: of the table and of the machine's hash table; None where not known.
    ``filtered``: asked for one zone, the kernel sends no other.
    ``dump_seconds``: what a dump took here that was sent nothing, None as long as there was none.
    ``each``: how the zones are dumped (see Plan), None where that is to be decided.
    ``kernel``: the kernel may flush these zones, as it has been seen to do; None where it was not
    asked yet, and ``questions`` are open, which take a dump each.
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

    ``each``: a dump for each zone, of which the kernel sends no more; else one for all.
    ``kernel``: the kernel does what is left.
    ``scan_seconds``, ``kernel_seconds``: what is left should take, for the one and the other.
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
    """Decide how to dump, and whether the kernel does what is left of it."""
    empty = _empty(facts)
    whole = empty + SENT * facts.flows
    each = facts.each
    if each is None:
        each = facts.filtered and 0 < facts.zones * empty <= whole
    seconds = max(facts.seconds - BEGIN, 0)
    if each:
        # The kernel does not say how far it is: what deleting did not take, the dump took.
        seen = min(max((seconds - DELETED * facts.deleted) / empty, 0), 1)
        left = facts.zones - seen
    else:
        seen = min(facts.scanned / max(facts.flows, 1), 1)
        left = 1 - seen
        pace = seconds / max(seen, 0.01) / whole
        if pace > UNEVEN:
            # Other namespaces may have many flows, of which no estimate knows.
            whole *= pace
            empty *= pace if facts.dump_seconds is None else 1
    flush = max(empty - (BUCKET - FLUSH_BUCKET) * (facts.buckets or 0), 0)
    # As much in what is left as in what was seen.
    more = facts.matched * left / max(seen, 0.01)
    scan = left * empty + DELETED * more if each else left * whole
    kernel = facts.zones * flush + FLUSHED * more
    # A handle that has seen a dump is no one-off: its next flush wants to know, too.
    asking = facts.questions * flush if facts.dump_seconds is None else 0
    wins = facts.seconds + scan > TIE * (facts.seconds + kernel + asking)
    may = facts.zones > 0 and facts.kernel is not False and facts.seconds > 0
    return Plan(each, may and wins and scan > SOON, scan, kernel)


def _empty(facts: Facts) -> float:
    """Return what a dump takes that is sent nothing."""
    if facts.dump_seconds is not None:
        return facts.dump_seconds
    return max(BUCKET * (facts.buckets or 0) + FLOW * facts.flows, 1e-6)


def learned(seconds: float, deleted: int, before: float | None) -> float | None:
    """Return what a dump took without its deletes, of which the cost is a guess.

    Where they were much of it, ``before`` is the better guess, and where they were most, None.
    Whatever disturbs a dump makes it longer, so a longer one is believed by half.
    """
    took = seconds - DELETED * deleted
    if before is None:
        return took if took > seconds / 2 else None
    if took < seconds * 7 / 8:
        return before
    return min(took, (took + before) / 2)
