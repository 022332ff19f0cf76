"""What a mirror remembers: which flows there are, in the core.

The core's objects belong to one thread at a time: whoever calls holds ``lock``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, NamedTuple

from nlct import _threads
from nlct._closing import Closing
from nlct._expression import joined
from nlct._ffi import ffi, lib, new_sink, slot
from nlct._fields import FIELDS, FLOW_SIZE, AddressField
from nlct._forks import process
from nlct._handle import Socket
from nlct.counts import COUNT_SIZE, Group, by_value
from nlct.errors import check
from nlct.filter import Filter
from nlct.flow import Flow, flows_from, pointers

INDEXES = ("zone", "address")
# What names a flow. It never changes, so a filter that asks for nothing else can be matched here.
KEPT = frozenset(
    name
    for name, field in FIELDS.items()
    if field.part in ("orig", "reply") or name in ("zone", "family", "id")
)
# The lists that there are, by the field whose value they share.
_LISTS = {
    "zone": lib.NLCT_LIST_ZONE,
    "src": lib.NLCT_LIST_SRC,
    "dst": lib.NLCT_LIST_DST,
    "reply_src": lib.NLCT_LIST_REPLY_SRC,
    "reply_dst": lib.NLCT_LIST_REPLY_DST,
}
# With more lists than these, it is better to go through all flows.
MOST_LISTS = 10_000
ROWS = 256
# Flows of an audit between two looks at the mirror.
AUDITED = 1024
# Places of the core's table to look at without a pause: less than a millisecond.
PLACES = 10_000
MILLISECONDS = 5
HAND_OVER = 0.0001


class Lists(NamedTuple):
    """Lists that together hold every flow that a filter matches.

    ``lists``: each a ``struct nlct_list *``. ``flows``: how many are in them.
    ``indexed``: False if they are simply all flows.
    """

    lists: list[ffi.CData]
    flows: int
    indexed: bool


class Counters(NamedTuple):
    """What has happened so far; see ``struct nlct_mirror_counters``."""

    inserted: int
    repeated: int
    destroyed: int
    strangers: int
    deleted: int
    outdated: int
    ghosts: int


class Memory(Closing):
    """The flows that a mirror knows of.

    ``addresses``: keep a list for each address, too.
    """

    def __init__(self, addresses: bool) -> None:
        self.lock = _threads.Lock()
        self._names = tuple(_LISTS) if addresses else ("zone",)
        # Those under way, each a ``struct nlct_walk **``.
        self._walks: list[ffi.CData] = []
        self._process = process()
        self.closed = False
        self._mirror = slot("struct nlct_mirror **", lib.nlct_mirror_free)
        check(lib.nlct_mirror_new(self._mirror, addresses), "make a mirror")
        # Takes events, and the flows of a dump.
        self.feed = new_sink(lib.nlct_feed_new, self._mirror[0])
        # Takes the flows of a dump that are to be compared with those known.
        self._audited = ffi.new("struct nlct_flow[]", AUDITED)
        self.audit = new_sink(lib.nlct_audit_new, self._mirror[0], self._audited, AUDITED)

    def close(self) -> None:
        """Forget everything, as soon as no walk is under way."""
        self.closed = True
        if not self._walks:
            # In this order.
            ffi.release(self.feed)
            ffi.release(self.audit)
            ffi.release(self._mirror)

    def __del__(self) -> None:
        if hasattr(self, "audit"):
            self.close()

    def check_open(self) -> None:
        """Raise ValueError after close(), and RuntimeError in a forked child."""
        if self.closed:
            raise ValueError("this Mirror is closed")
        if self._process != process():
            raise RuntimeError("what a mirror was at does not outlive a fork: begin anew")

    def _open(self) -> ffi.CData:
        """Return the ``struct nlct_mirror *``."""
        self.check_open()
        return self._mirror[0]

    # Looking ---------------------------------------------------------------------------------

    def count(self, one: ffi.CData | None = None) -> int:
        """Return how many flows are in a list, or how many there are."""
        return int(lib.nlct_mirror_count(self._open(), _all() if one is None else one))

    def zones(self) -> set[int]:
        """Return the zones that hold flows."""
        return set(by_value([Group(FIELDS["zone"])], self.counts_by("zone")))

    def counts_by(self, name: str) -> bytearray | None:
        """Return how many flows each value of a field has, for counts.by_value().

        None if there are no such lists.
        """
        if name not in self._names:
            return None
        counts = ffi.new("struct nlct_count[]", ROWS)
        at = ffi.new("uint32_t *")
        packed = bytearray()
        arguments = self._open(), _LISTS[name], at, counts, ROWS
        while n := check(lib.nlct_mirror_lists(*arguments), "count flows"):
            packed += ffi.buffer(counts, n * COUNT_SIZE)
        return packed

    def counters(self) -> Counters:
        """Return what has happened so far."""
        found = ffi.new("struct nlct_mirror_counters *")
        lib.nlct_mirror_counters(self._open(), found)
        return Counters(*(int(getattr(found, name)) for name in Counters._fields))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return int(lib.nlct_mirror_bytes(self._open()))

    def lists(self, wanted: Filter) -> Lists:
        """Return the lists with the fewest flows that hold all that a filter matches."""
        ways = [lists for name in self._names if (lists := self._by(name, wanted)) is not None]
        return min(ways, key=lambda one: one.flows, default=Lists([_all()], self.count(), False))

    def _by(self, name: str, wanted: Filter) -> Lists | None:
        """Return the lists of the values that a filter asks of one field."""
        given = wanted.only(name)
        # Intervals may overlap.
        asked = joined(given or ())
        if given is None or sum(high - low + 1 for low, high in asked) > MOST_LISTS:
            return None
        kind, field = _LISTS[name], FIELDS[name]
        lists = []
        for value in (value for low, high in asked for value in range(low, high + 1)):
            one = {"kind": kind}
            if isinstance(field, AddressField):
                packed, family, _ = field.prefix(value, value)
                one.update(family=family, address=packed)
            else:
                one["zone"] = value
            made = ffi.new("struct nlct_list *", one)
            if self.count(made):
                lists.append(made)
        return Lists(lists, sum(map(self.count, lists)), True)

    # Walking ---------------------------------------------------------------------------------

    def rows(self, one: ffi.CData, wanted: Filter) -> Iterator[bytes]:
        """Yield the flows in a list that match, many at a time, as ``struct nlct_flow``.

        ``wanted``: asks for what is in KEPT. It takes the lock for each step, not in between.
        """
        rows = ffi.new("struct nlct_flow[]", ROWS)
        count = ffi.new("size_t *")
        matching = wanted.to_c()
        with self._walk(one) as walk:
            more = 1
            while more:
                self.check_open()
                with self.lock.real:
                    self._open()
                    more = lib.nlct_walk_rows(walk[0], matching[0], rows, ROWS, count)
                check(more, "walk over a mirror")
                yield ffi.buffer(rows, count[0] * FLOW_SIZE)[:]

    def delete(
        self, one: ffi.CData, wanted: Filter, sock: Callable[[], Socket], tally: ffi.CData
    ) -> Iterator[None]:
        """Delete the flows in a list that match, and count the results; yield after each step.

        ``wanted``: as for rows(). ``sock``: returns the socket for a step. It takes the lock for
        each step, not in between.
        """
        matching = wanted.to_c()
        with self._walk(one) as walk:
            more = 1
            while more:
                self.check_open()
                with self.lock.real:
                    self._open()
                    used = sock()
                    # A signal handler may have forked: the child has no socket.
                    if not used.handle:
                        raise RuntimeError("a delete does not outlive a fork: ask again")
                    arguments = walk[0], used.handle, matching[0], MILLISECONDS, tally
                    more = used.check(lib.nlct_walk_delete(*arguments), "delete flows")
                if more:
                    # Who waits for the lock would not get it, were it taken again at once.
                    _threads.sleep(HAND_OVER)
                yield

    @contextmanager
    def _walk(self, one: ffi.CData) -> Iterator[ffi.CData]:
        """Begin a walk over a list, a ``struct nlct_walk **``, and end it in time."""
        # In a forked child the lock may be held for ever.
        self.check_open()
        walk = slot("struct nlct_walk **", lib.nlct_walk_free)
        self._walks.append(walk)
        try:
            with self.lock.real:
                check(lib.nlct_walk_new(walk, self._open(), one), "walk over a mirror")
            yield walk
        finally:
            if self._process == process():
                with self.lock.real:
                    ffi.release(walk)
                    self._walks.remove(walk)
                    if self.closed:
                        self.close()

    # Changing --------------------------------------------------------------------------------

    def has(self, flow: Flow) -> bool:
        """Tell if it knows this very flow."""
        return bool(check(lib.nlct_mirror_has(self._open(), pointers(flow)[0]), "find a flow"))

    def add(self, flow: Flow) -> bool:
        """Add a flow that was seen in the table, and tell if that is news."""
        return bool(check(lib.nlct_mirror_add(self._open(), pointers(flow)[0]), "add a flow"))

    def remove(self, flow: Flow) -> None:
        """Remove a flow whose delete the kernel has acknowledged."""
        check(lib.nlct_mirror_remove(self._open(), pointers(flow)[0]), "remove a flow")

    def begin(self, audit: bool = False) -> None:
        """Begin to compare with a dump that goes to ``feed``, or to ``audit``."""
        kind = lib.NLCT_ROUND_AUDIT if audit else lib.NLCT_ROUND_FEED
        lib.nlct_mirror_round_begin(self._open(), kind)

    def strangers(self) -> list[Flow]:
        """Compare what the audit has met since the last time; return the flows not known."""
        count = lib.nlct_audit_take(self.audit[0])
        rows = ffi.buffer(self._audited, count * FLOW_SIZE)[:]
        return list(flows_from(rows, b""))

    def end(self) -> bool:
        """Forget what a whole undisturbed dump did not show; tell if there is more to do."""
        return bool(check(lib.nlct_mirror_round_end(self._open(), PLACES), "end a round"))

    def drop(self) -> None:
        """Forget about the dump, whose end was not reached or which was disturbed."""
        lib.nlct_mirror_round_drop(self._open())


def _all() -> ffi.CData:
    return ffi.new("struct nlct_list *", {"kind": lib.NLCT_LIST_ALL})
