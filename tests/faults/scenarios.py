"""What is done while a call fails: what it may change, and what must be true of its result."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

import nlct
from nlct import Filter, Flow, FlushResult, Tuple, _keeper
from tests.support import flows, oracle
from tests.support.oracle import Table

# As long as any run.
TIMEOUT = 864000
ZONES = (1, 2, 3, 4)
# What scenarios create is in a zone of its own.
NEW_ZONE = 9
SMALL, LARGE = 10, 300
CHANGED = Tuple("10.0.0.1", "192.0.2.1", "udp", 1024, 53)


def content(each: int) -> Iterator[Flow]:
    """A table with so many flows in each zone, beside some of every kind."""
    for flow in flows.menagerie((0, flows.DIRECTIONAL, 65535)):
        yield flow.replace(timeout=TIMEOUT)
    for zone in ZONES:
        for number in range(each):
            yield flows.udp(number, zone, TIMEOUT).replace(mark=number)


class Place:
    """Where a scenario runs: a namespace, and what it holds there."""

    def __init__(self, path: str, home: int) -> None:
        self.path = path
        self.home = home
        # What was raised in threads.
        self.errors: list[BaseException] = []
        self._ct: nlct.Conntrack | None = None
        self.mirror: nlct.Mirror | None = None

    @property
    def ct(self) -> nlct.Conntrack:
        """The object that is used throughout."""
        if self._ct is None:
            self._ct = nlct.Conntrack(self.path)
        return self._ct

    def close(self) -> None:
        """Let go of it."""
        if self.mirror is not None:
            self.mirror.close()
        if self._ct is not None:
            self._ct.close()


class Scenario(NamedTuple):
    """Something to do.

    ``check``: says what is wrong with a result, given the table before and after.
    ``named``: the entries that may be deleted; ``makes``: may create in NEW_ZONE;
    ``changes``: may change the flow CHANGED in zone 1.
    ``before``: done before anything fails. ``tolerant``: why it may succeed whatever fails.
    """

    run: Callable[[Place], Any]
    check: Callable[[Any, Table, Table], Iterable[str]]
    named: Callable[[Table], Table] = lambda _table: {}
    makes: bool = False
    changes: bool = False
    large: bool = False
    before: Callable[[], object] = lambda: None
    tolerant: str = ""
    # Likewise of the result of a second time, without a fault, where more must be true of it.
    check_again: Callable[[Any], Iterable[str]] = lambda _result: ()
    # Faults after which it may succeed, as they are printed, and why.
    harmless: Mapping[str, str] = MappingProxyType({})


def _ids(table: Table) -> Counter[int]:
    return Counter(int.from_bytes(entry[oracle.ID], "big") for entry in table.values())


def _equal(what: str, found: object, wanted: object) -> list[str]:
    if found == wanted:
        return []
    return [f"{what}: {found!r:.300} where {wanted!r:.300} was right"]


# Looking ------------------------------------------------------------------------------------------


def _all_ids(found: list[int], _before: Table, after: Table) -> list[str]:
    return _equal("flows seen", Counter(found), _ids(after))


def _batches(place: Place) -> list[int]:
    return [number for table in place.ct.batches(rows=17) for number in table.column("id")]


def _count_by(place: Place) -> tuple[dict[int, int], int]:
    groups = place.ct.count_by("src", "zone")
    return place.ct.count_by("zone"), sum(groups.values())


def _counts(found: tuple[dict[int, int], int], _before: Table, after: Table) -> list[str]:
    return [
        *_equal("flows by zone", found[0], oracle.by_zone(after)),
        *_equal("flows in groups", found[1], len(after)),
    ]


def _stats(place: Place) -> tuple[bool, bool]:
    # None is what a missing file is said to mean.
    return place.ct.limit > 0, place.ct.buckets in (None, int(oracle.BUCKETS.read_text()))


def _lookups(place: Place) -> list[int]:
    found = [place.ct.get(CHANGED, zone).id for zone in ZONES]
    return [number for number in found if number is not None]


# Deleting -----------------------------------------------------------------------------------------


def _in_zones(*zones: int) -> Callable[[Table], Table]:
    return lambda table: oracle.inside(table, zones)


def _flushed(named: Callable[[Table], Table]) -> Callable[[Any, Table, Table], Iterator[str]]:
    """What a FlushResult says must agree with what is gone."""

    def check(result: FlushResult, before: Table, after: Table) -> Iterator[str]:
        left = named(after)
        gone = len(named(before)) - len(left)
        if result.complete and left:
            yield f"complete, but {len(left)} are left: {result}"
        if result.already_gone:
            yield f"nobody else deletes, but some were gone: {result}"
        if result.deleted is None:
            return
        if result.deleted > gone or (result.complete and result.deleted != gone):
            yield f"{gone} are gone: {result}"
        if result.matched != result.deleted + sum(result.failed.values()):
            yield f"matches are not accounted for: {result}"
        if result.complete and result.failed:
            yield f"complete in spite of failures: {result}"

    return check


def _flush(named: Callable[[Table], Table], run: Callable[[Place], Any], **more: Any) -> Scenario:
    return Scenario(run, _flushed(named), named, **more)


def _udp(*zones: int) -> Callable[[Table], Table]:
    """The UDP flows of the numbered sort."""
    server = socket.inet_aton("192.0.2.1")
    return lambda table: {
        key: entry for key, entry in oracle.inside(table, zones).items() if server in key.orig
    }


def _delete_flows(place: Place) -> FlushResult:
    return place.ct.delete_flows(list(place.ct.dump(zone=1)))


def _delete_flow(place: Place) -> bool:
    try:
        place.ct.delete_flow(Flow(CHANGED, zone=1))
    except nlct.NotFoundError as exc:
        # The second time; what else is not found is another matter.
        if not exc.operation.startswith("find"):
            raise
    return True


def _deleted_flow(_result: bool, _before: Table, after: Table) -> list[str]:
    return _equal("flows left", len(changed(after)), 0)


def changed(table: Table) -> Table:
    """The flow that is named by CHANGED and zone 1."""
    source = socket.inet_aton(str(CHANGED.src)) + bytes((8, 0, 2, 0, 192, 0, 2, 1))
    return {k: entry for k, entry in table.items() if k.zone == 1 and source in k.orig}


# Changing -----------------------------------------------------------------------------------------


def _create(place: Place) -> bool:
    # The second time it is there.
    with suppress(nlct.ExistsError):
        place.ct.create(flows.udp(7, NEW_ZONE, TIMEOUT))
    return True


def _created(_result: bool, _before: Table, after: Table) -> list[str]:
    return _equal("new flows", len(oracle.inside(after, (NEW_ZONE,))), 1)


def _update(place: Place) -> bool:
    place.ct.update(Flow(CHANGED, zone=1, mark=77))
    return True


def _updated(_result: bool, _before: Table, after: Table) -> list[str]:
    (entry,) = changed(after).values()
    return _equal("mark", entry[8], (77).to_bytes(4, "big"))


def _update_all(place: Place) -> nlct.UpdateResult:
    named = Filter(zone=1, src=CHANGED.src, sport=CHANGED.sport)
    return place.ct.update_all(named, mark=77)


def _updated_all(result: nlct.UpdateResult, before: Table, after: Table) -> Iterator[str]:
    """What an UpdateResult says must agree with what was changed."""
    (entry,) = changed(after).values()
    if result.complete:
        yield from _equal("mark", entry[8], (77).to_bytes(4, "big"))
    if result.updated and entry == changed(before).popitem()[1]:
        yield f"updated, but nothing was changed: {result}"


LOADED = 700


def _load(place: Place) -> nlct.LoadResult:
    """New ones, and here and there one that is there: each batch has refusals."""
    return place.ct.load(
        flows.udp(number % SMALL if number % 20 == 0 else number, zone, TIMEOUT)
        for number in range(LOADED)
        for zone in (1 if number % 20 == 0 else NEW_ZONE,)
    )


def _loaded(result: nlct.LoadResult, before: Table, after: Table) -> Iterator[str]:
    there = len(oracle.inside(before, (NEW_ZONE,)))
    new = len(oracle.inside(after, (NEW_ZONE,))) - there
    answered = result.created + sum(result.failed.values())
    yield from _equal("flows accounted for", answered, LOADED)
    if result.created > new or (set(result.failed) <= {errno.EEXIST} and result.created != new):
        yield f"{new} are new: {result}"


# Events -------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """What a stream told of flows that came and went, and whether it spoke of a loss."""

    created: int
    deleted: int
    kinds: list[str]
    overruns: int


def _events(place: Place) -> Told:
    with place.ct.events(filter=Filter(zone=NEW_ZONE, proto="udp")) as events:
        created = place.ct.load(flows.udp(number, NEW_ZONE, TIMEOUT) for number in range(5)).created
        deleted = place.ct.flush_zone(NEW_ZONE, strategy="scan").deleted or 0
        found: list[Any] = []
        # All of it is there; to wait is for who is told that there is none.
        while len(found) < created + deleted and (item := events.get(timeout=5)) is not None:
            found.append(item)
        found += iter(lambda: events.get(timeout=0), None)
    kinds = [item.kind for item in found if isinstance(item, nlct.Event)]
    return Told(created, deleted, kinds, len(found) - len(kinds))


def _event_batches(place: Place) -> Told:
    with place.ct.events("new") as events:
        created = place.ct.load(flows.udp(number, NEW_ZONE, TIMEOUT) for number in range(5)).created
        deleted = place.ct.flush_zone(NEW_ZONE, strategy="scan").deleted or 0
        kinds: list[str] = []
        overruns = 0
        for item in events.batches(rows=2) if created else ():
            if isinstance(item, nlct.Overrun):
                overruns += 1
                continue
            kinds += ["new"] * len(item)
            if len(kinds) >= created:
                break
    return Told(created, deleted, kinds, overruns)


def _told(found: Told, _before: Table, _after: Table) -> Iterator[str]:
    for kind, least in (("new", found.created), ("destroy", found.deleted)):
        count = found.kinds.count(kind)
        if kind in found.kinds and not least <= count <= 5:
            yield f"{least} {kind}, but {count} events of it"
    if found.created and "new" not in found.kinds:
        yield "no events"


# Mirror -------------------------------------------------------------------------------------------

# Seconds to wait for one whose calls may go on failing, and for one whose calls no longer fail.
BRIEFLY, AT_MOST = 0.5, 30.0
MARK = 8


class Mirrored(NamedTuple):
    """What came of each step that raised nothing, and how the mirror was then."""

    done: dict[str, Any]
    in_step: bool
    reason: str


def _mirror(place: Place) -> Mirrored:
    # The second time nothing fails any more, and the very same mirror must get in step.
    patience = BRIEFLY if place.mirror is None else AT_MOST
    if place.mirror is None:
        place.mirror = nlct.Mirror(place.path, index=("zone", "address"))
    mirror = place.mirror
    steps: dict[str, Callable[[], Any]] = {
        "wait": lambda: mirror.wait(patience),
        "flush": lambda: mirror.flush_zone(1),
        # Each mark is looked up.
        "delete": lambda: mirror.delete(Filter(zone=3, mark=range(5, SMALL))),
        "make": lambda: place.ct.load(flows.udp(n, NEW_ZONE, TIMEOUT) for n in range(5)),
        "flush new": lambda: mirror.flush_zone(NEW_ZONE),
        "audit": lambda: _wait_for_audit(mirror, patience),
        "flush audited": lambda: mirror.flush_zone(2),
        "verify": lambda: mirror.delete(Filter(zone=3, sport=1), verify=True),
        "count": lambda: mirror.count(zone=4),
        "count by": lambda: mirror.count_by("zone"),
    }
    done = {}
    for name, step in steps.items():
        try:
            done[name] = step()
        except Exception as exc:
            place.errors.append(exc)
    in_step = mirror.wait(patience)
    return Mirrored(done, in_step, mirror.state.reason)


def _audit_at_once() -> None:
    _keeper.MAKE_SURE = 0.0


def _wait_for_audit(mirror: nlct.Mirror, patience: float) -> None:
    until = time.monotonic() + patience
    while not mirror.state.audits and time.monotonic() < until:
        time.sleep(0.005)


def _marked(table: Table) -> Table:
    return {
        key: entry
        for key, entry in _udp(3)(table).items()
        if int.from_bytes(entry.get(MARK, b""), "big") in range(5, SMALL)
    }


MIRRORED = {
    "flush": _in_zones(1),
    "delete": _marked,
    "flush new": _in_zones(NEW_ZONE),
    "flush audited": _in_zones(2),
    "verify": lambda _table: {},
}


def _mirrorable(table: Table) -> Table:
    return {key: entry for named in MIRRORED.values() for key, entry in named(table).items()}


def _mirrored(found: Mirrored, before: Table, after: Table) -> Iterator[str]:
    if found.in_step == bool(found.reason):
        yield f"in step is {found.in_step}, but the reason is {found.reason!r}"
    for name, named in MIRRORED.items():
        if name in found.done:
            for text in _mirror_flushed(found.done[name], len(named(before)), len(named(after))):
                yield f"{name}: {text}: {found.done[name]}"
    # What no event tells is an upper bound; nothing in this zone is deleted.
    there = oracle.by_zone(after)
    yield from _equal("count", found.done.get("count", there[4]), there[4])
    counts = found.done.get("count by", there)
    if any(counts.get(zone, 0) < number for zone, number in there.items()):
        yield f"counted less than there is: {counts} where there is {there}"


def _mirror_flushed(result: FlushResult, before: int, left: int) -> Iterator[str]:
    # All was announced, or seen by the dump at the start.
    knows = result.strategy.startswith("mirror") and not result.failed
    if left and (result.complete or knows):
        yield f"{left} are left"
    if result.complete and result.failed:
        yield "complete in spite of failures"
    deleted = result.deleted or 0
    # What was deleted without an answer is found to be gone the next time.
    if result.matched != deleted + result.already_gone + sum(result.failed.values()):
        yield "matches are not accounted for"
    if before and deleted > before - left:
        yield f"{before - left} are gone"


# Flusher ------------------------------------------------------------------------------------------


STORM = (
    (lambda flusher: flusher.flush_zone(1), _in_zones(1)),
    (lambda flusher: flusher.flush_zone(2), _in_zones(2)),
    (lambda flusher: flusher.delete(Filter(zone=3, proto="udp")), _udp(3)),
)


def _storm(place: Place) -> list[FlushResult | None]:
    """Ask in three threads at once."""
    results: list[FlushResult | None] = [None] * len(STORM)

    def ask(number: int) -> None:
        try:
            results[number] = STORM[number][0](flusher)
        except Exception as exc:
            place.errors.append(exc)

    with nlct.Flusher(place.ct) as flusher:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(STORM))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


def _stormed(results: list[FlushResult | None], before: Table, after: Table) -> Iterator[str]:
    for result, (_, named) in zip(results, STORM):
        if result is not None:
            yield from _flushed(named)(result, before, after)


def _stormy(table: Table) -> Table:
    return {key: entry for _, named in STORM for key, entry in named(table).items()}


# Namespaces ---------------------------------------------------------------------------------------


class Scratched(NamedTuple):
    """What a scratch namespace was like."""

    is_home: bool
    found: int
    zones: dict[int, int]
    result: FlushResult


def _scratch(place: Place) -> Scratched:
    with nlct.Netns.scratch() as netns, nlct.Conntrack(netns) as ct:
        found = ct.count_by("zone")
        for zone in (0, 1):
            ct.create(flows.udp(0, zone))
        result = ct.flush_zone(0, strategy="scan")
        is_home = os.fstat(netns.fileno()).st_ino == place.home
        return Scratched(is_home, sum(found.values()), ct.count_by("zone"), result)


def _scratched(found: Scratched, _before: Table, _after: Table) -> Iterator[str]:
    yield from _equal("the caller's own namespace", found.is_home, False)
    yield from _equal("flows in a new namespace", found.found, 0)
    if found.result.complete:
        yield from _equal("flows by zone after a flush of zone 0", found.zones, {1: 1})


def _open(place: Place) -> list[int]:
    """By path, by descriptor, and what is opened inside."""
    inodes = []
    with nlct.Netns.open(place.path) as netns, nlct.Netns.open(netns.fileno()) as again:
        inodes += [os.fstat(each.fileno()).st_ino for each in (netns, again)]
        with again.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # SIOCGSKNS
            fd = _namespace_of(sock)
        inodes.append(os.fstat(fd).st_ino)
        os.close(fd)
        os.close(again.open_file("/proc/self/net/netlink"))
    return [*inodes, place.home]


def _namespace_of(sock: socket.socket) -> int:
    import fcntl  # noqa: PLC0415

    return fcntl.ioctl(sock.fileno(), 0x894C)


def _opened(inodes: list[int], _before: Table, _after: Table) -> Iterator[str]:
    *found, home = inodes
    yield from _equal("the namespace", len(set(found)), 1)
    if home in found:
        yield "what was opened is in the caller's own namespace"


def _claimed(found: nlct.Capabilities) -> set[str]:
    return {name for name in CLAIMS if getattr(found, name) is True}


def _probed(found: nlct.Capabilities, _before: Table, _after: Table) -> list[str]:
    return _equal("claims beyond the truth", sorted(_claimed(found) - _truth), [])


def _probed_again(found: nlct.Capabilities) -> list[str]:
    return _equal("claims", sorted(_claimed(found)), sorted(_truth))


CLAIMS = ("zones", "zone_filter", "zone_dump", "zone_flush", "zone0_flush")
_truth: set[str] = set()


def learn_truth(found: nlct.Capabilities) -> None:
    """Say what this kernel can do."""
    _truth.update(_claimed(found))


def has_zone_flush() -> bool:
    """Tell if the kernel may flush zones."""
    return {"zone_flush", "zone0_flush"} <= _truth


def scenarios() -> dict[str, Scenario]:
    """All that this kernel can do."""
    found = dict(SCENARIOS)
    if not has_zone_flush():
        del found["flush kernel"]
    return found


ESTIMATES = "how long a dump takes is estimated, also from the size of the table"
DROPS = "how much a socket has dropped is looked at again"
AHEAD = "what is received ahead, after the end of the table, is not looked at"
RECOVERS = "what fails in the mirror's thread is told by its state, and tried again"
ANSWERS = "what cannot be measured is False"

SCENARIOS: dict[str, Scenario] = {
    "dump": Scenario(lambda place: [flow.id for flow in place.ct.dump()], _all_ids),
    "text": Scenario(
        lambda place: b"".join(place.ct.dump_text()).count(b"\n"),
        lambda found, _before, after: _equal("lines", found, len(after)),
    ),
    "table": Scenario(lambda place: list(place.ct.table().column("id")), _all_ids),
    "batches": Scenario(_batches, _all_ids),
    "count by": Scenario(_count_by, _counts),
    "count": Scenario(
        lambda place: place.ct.count(zone=2),
        lambda found, _before, after: _equal("count", found, oracle.by_zone(after)[2]),
    ),
    "stats": Scenario(_stats, lambda found, _before, _after: _equal("stats", found, (True, True))),
    "get": Scenario(
        _lookups, lambda found, _before, _after: _equal("flows found", len(found), len(ZONES))
    ),
    "flush scan": _flush(
        _in_zones(1, 2),
        lambda place: place.ct.flush_zones({1, 2}, strategy="scan"),
        tolerant=ESTIMATES,
    ),
    "flush auto": _flush(
        _in_zones(0), lambda place: place.ct.flush_zone(0), tolerant="a probe that fails is no harm"
    ),
    "flush kernel": _flush(
        _in_zones(3),
        lambda place: place.ct.flush_zone(3, strategy="kernel"),
        before=nlct.probe,
        tolerant=ESTIMATES,
    ),
    "flush all": _flush(
        lambda table: table, lambda place: place.ct.flush_all(), tolerant=ESTIMATES
    ),
    "delete": _flush(
        _udp(1, 3),
        lambda place: place.ct.delete(Filter(zone={1, 3}, dst="192.0.2.1")),
        tolerant=ESTIMATES,
    ),
    "delete flows": _flush(_in_zones(1), _delete_flows),
    "delete flow": Scenario(_delete_flow, _deleted_flow, changed),
    "create": Scenario(_create, _created, makes=True),
    "update": Scenario(_update, _updated, changes=True),
    "update all": Scenario(_update_all, _updated_all, changes=True),
    "load": Scenario(_load, _loaded, makes=True),
    "events": Scenario(_events, _told, _in_zones(NEW_ZONE), makes=True, tolerant=DROPS),
    "event batches": Scenario(
        _event_batches, _told, _in_zones(NEW_ZONE), makes=True, tolerant=DROPS
    ),
    "mirror": Scenario(
        _mirror,
        _mirrored,
        _mirrorable,
        makes=True,
        before=_audit_at_once,
        tolerant=RECOVERS,
        check_again=lambda found: _equal("in step", found.in_step, True),
    ),
    "flusher": Scenario(_storm, _stormed, _stormy, before=nlct.probe, tolerant=ESTIMATES),
    "probe": Scenario(
        lambda _place: nlct.probe(), _probed, tolerant=ANSWERS, check_again=_probed_again
    ),
    "scratch": Scenario(
        _scratch, _scratched, harmless={"open:1:EACCES": "process 1 need not be seen"}
    ),
    "open": Scenario(_open, _opened),
    "dump large": Scenario(
        lambda place: [flow.id for flow in place.ct.dump()], _all_ids, large=True, tolerant=AHEAD
    ),
    "table large": Scenario(
        lambda place: list(place.ct.table().column("id")), _all_ids, large=True, tolerant=AHEAD
    ),
    "count by large": Scenario(_count_by, _counts, large=True, tolerant=AHEAD),
    "delete large": _flush(
        _udp(4), lambda place: place.ct.delete(Filter(zone=4, dport=53)), large=True, tolerant=AHEAD
    ),
    "flusher large": Scenario(
        _storm, _stormed, _stormy, large=True, before=nlct.probe, tolerant=ESTIMATES
    ),
}
