"""What a mirror does.

nlct keeps a mirror in its own turns only: everybody else works while nobody listens. A mirror that
is measured is in step and has flushed an empty zone before. The bare C loop deletes flows whose
names it kept, 256 a send; "floor.heard" does so while a mirror listens, which is what the mirror's
own deletes would take if their events came back. "loop-on-old-kernel" is Open vSwitch's loop in
bare C: it receives the whole table and deletes each flow of the zone by tuple, zone and id, one
request each. Left out: the audit, but in its own case.

Every flow has events, also those that were made while nobody listened.

The ways to flush a zone that is a share of the table are measured while the mirror listens, since
the kernel tells it of what it flushes by itself, too.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import IPv4Address

import pytest

from bench.lab import Shares, Sources
from bench.peers import Answer, Program
from bench.turn import Sizes, Turn, case
from nlct.cli.measure import SyntheticTable
from nlct.fill import FIRST_SOURCE

pytestmark = pytest.mark.usefixtures("announced")

CONTENT = ("some", "empty")
ZONES = Sizes((1, 10, 50, 200), quick=(1, 10))
# A kernel flush for each zone, one after another, takes 0.2 seconds each.
SLOW_ABOVE = 50
OF_EACH_SOURCE = 100
SHARES = (10, 50, 100)
# Its hash table is the usual one, and it fits below the usual limit.
SHARED = Sizes((262_144,), quick=(10_000,))
STEADY = 20_000
EVENTS = Sizes((100_000,), quick=(2_000,))


@contextmanager
def listening(turn: Turn, *index: str) -> Iterator[None]:
    """Have a mirror in the process of nlct."""
    peer = turn.peers.get("nlct")
    peer.run("listen", *(index or ("zone",)))
    try:
        yield
    finally:
        peer.run("close")


@case(
    *("floor", "floor.heard", "nlct", "kernel", "loop-on-old-kernel", "ovs-on-old-kernel"),
    rounds=60,
    content=CONTENT,
)
def test_mirror_flush(turn: Turn, content: str) -> None:
    """Flush of a zone with some flows, and of an empty one."""
    turn.even()
    zone = min(7, turn.scale.zones) if content == "some" else turn.scale.zones + 1
    if turn.who == "floor":
        turn.peer.run("keep", zone, 1)
        with listening(turn) if turn.does else nullcontext():
            turn.run("delete_kept")
    elif turn.who == "nlct":
        with listening(turn):
            turn.run("mirror_flush_zone", zone)
    elif turn.who == "loop-on-old-kernel":
        turn.run("flush_by_name", zone)
    else:
        turn.run("flush_zone", zone)
    turn.lab.put_back(zone)


@case("floor", "nlct", slow=("kernel",), rounds=31, limit=240, zones=ZONES)
def test_mirror_storm(turn: Turn, zones: int) -> None:
    """So many zones, each flushed by a thread of its own, all at once."""
    turn.even()
    flushed = range(1, zones + 1)
    if turn.who == "floor":
        turn.peer.run("keep", 1, zones)
        turn.run("delete_kept")
    elif turn.who == "nlct":
        with listening(turn):
            turn.run("mirror_storm", 1, zones)
    else:
        turn.record(lambda: total(turn.peer.run("flush_zone", zone) for zone in flushed))
    turn.lab.put_back(*flushed)


def total(answers: Iterable[Answer]) -> Answer:
    """Add up what was done one after another."""
    return Answer(math.fsum(answer.seconds for answer in answers), {})


@case("conntrack", "nlct", rounds=15)
def test_mirror_delete(turn: Turn) -> None:
    """Delete the flows of one source, with the index "address"."""
    scale = turn.scale
    turn.lab.hold(Sources, scale.flows, scale.zones, OF_EACH_SOURCE)
    source = IPv4Address(FIRST_SOURCE + scale.flows // OF_EACH_SOURCE // 2)
    if turn.who == "nlct":
        with listening(turn, "zone", "address"):
            turn.run("mirror_delete", source)
    else:
        turn.run("delete", source)
    turn.lab.fill_up(OF_EACH_SOURCE)


@case("nlct.walk", "nlct.mirror", rounds=15)
def test_mirror_count(turn: Turn) -> None:
    """Count by zone."""
    turn.even()
    if turn.does == "walk":
        turn.run("count_by", "zone")
    else:
        with listening(turn):
            turn.run("mirror_count_by", "zone")


@case("floor", "nlct.zone", "nlct.address", rounds=25)
def test_mirror_start(turn: Turn) -> None:
    """Start: listen, dump, index. The bare C loop receives the table."""
    turn.even()
    if turn.who == "floor":
        turn.run("dump")
    else:
        turn.run("listen", *("zone", turn.does)[turn.does == "zone" :])
        turn.peer.run("close")


@case("nlct.zone", "nlct.address", rounds=1)
def test_mirror_memory(turn: Turn) -> None:
    """Memory: MiB that a mirror adds to the most that its process ever held."""
    turn.even()
    with turn.fresh() as worker:
        index = ("zone", turn.does)[turn.does == "zone" :]
        turn.record(lambda: most_per_flow(worker.run("peak", "listen", *index), turn))


def most_per_flow(answer: Answer, turn: Turn) -> Answer:
    """Add how much that is for each flow."""
    most = answer.notes["added_mib"] * 2**20 / turn.scale.flows
    return answer._replace(notes={**answer.notes, "most_per_flow": round(most, 1)})


@case("listener", "nlct", rounds=15, rate=("burst", "steady"), events=EVENTS)
def test_mirror_events(turn: Turn, rate: str, events: int) -> None:
    """Processor time of following events.

    Half of them tell of new flows, half of their end, beside the usual table: as fast as the kernel
    can make them, or the new ones at 20,000 a second. The bare C loop looks every 4 ms, as a mirror
    does, and parses nothing.
    """
    turn.even()
    peer = turn.peer
    assert isinstance(peer, Program)
    peer.run(*("open",) if turn.who == "listener" else ("listen", "zone"))
    if turn.who == "nlct":
        peer.run("settle")

    def work() -> Answer:
        peer.tell("follow", events)
        turn.lab.pass_by(events // 2, STEADY if rate == "steady" else math.inf)
        return peer.answer()

    turn.record(work)
    peer.run("close")


@case("nlct", rounds=3)
def test_mirror_audit(turn: Turn) -> None:
    """Processor time of a round of the audit."""
    turn.even()
    turn.run("audit", 1 if turn.scale.quick else 20)
    turn.peer.run("close")


@case("kernel", "nlct.deletes", "nlct.flush_zone", rounds=15, flows=SHARED, share=SHARES)
def test_mirror_ways(turn: Turn, flows: int, share: int) -> None:
    """Flush of a zone that is a share of the table, in percent, while a mirror listens."""
    if share == 100:
        turn.lab.hold(SyntheticTable, flows, 1)
    else:
        turn.lab.hold(Shares, flows, (share,))
    with listening(turn):
        if turn.who == "kernel":
            turn.run("flush_zone", 1)
        else:
            turn.run("mirror_delete_zone" if turn.does == "deletes" else "mirror_flush_zone", 1)
    turn.lab.put_back(1)
