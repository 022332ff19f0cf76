"""Counts of flows by the values of their fields, kept up to date by events and dumps."""

from __future__ import annotations

import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Callable, NamedTuple

from nlct._closing import Closing
from nlct._dump import undisturbed
from nlct.conntrack import Conntrack
from nlct.counts import COUNT_SIZE, GROUPS, Counts, Group
from nlct.enums import EventKind
from nlct.errors import PrivilegeError, UnsupportedError
from nlct.events import Events
from nlct.filter import Filter

BUFFER = 64 << 20
# How many fields there may be: the event takes the place of one.
MOST_FIELDS = GROUPS - 1
BYTES = ("bytes_orig", "bytes_reply")
# What never changes while a flow lives, so that both its events tell it.
_SIDES = ("src", "dst", "proto", "sport", "dport", "icmp_id", "icmp_type", "icmp_code")
SETTLED = frozenset(
    (*_SIDES, *(f"reply_{one}" for one in _SIDES), "family", "zone", "orig_zone", "reply_zone")
)
# A struct nlct_count whose first value is the event: the count, the event, two values, if these are
# there, and the family.
_ROW = struct.Struct(f"=QB15x32sx3s{COUNT_SIZE - 60}x")

# A group's values, packed; see LiveCounts.values().
Key = bytes


class Sample(NamedTuple):
    """What LiveCounts has counted.

    ``flows``: how many each group has now.
    ``new``, ``gone``: how many began and ended since the sample before; of each group, or, where
    events do not tell the group, all of them by the key b"".
    ``traffic``: bytes of each group between the latest two dumps; None before the second dump and
    where bytes are not asked for. A group is absent if its flows have no counters.
    ``change``: how many more flows the latest dump showed than the one before, likewise.
    ``seconds``: since the sample before. ``between``: between the latest two dumps, 0 before.
    ``dumped``: how long ago the latest dump ended; ``took``: how long it took.
    ``meanwhile``: how many flows began or ended during it: by so many ``flows`` may be wrong.
    ``overruns``: how often the kernel has dropped events; the next dump corrects what was missed.
    """

    flows: Mapping[Key, int]
    new: Mapping[Key, int]
    gone: Mapping[Key, int]
    traffic: Mapping[Key, int] | None
    change: Mapping[Key, int] | None
    seconds: float
    between: float
    dumped: float
    took: float
    meanwhile: int
    overruns: int


class LiveCounts(Closing):
    """Counts by one or two fields. A dump counts them, and events keep the counts up to date.

    ``fields``, ``filter``: as for Conntrack.count_by(). If they ask for what may change while a
    flow lives, as its state does, only dumps count: ``told`` is False.
    ``traffic``: also add up bytes; see Conntrack.missing().
    ``listen``: False never listens.

    Call read() often, and dump() whenever it is worth its time: a dump corrects what events do not
    tell. ``reason`` says why there are no events, or what they leave out; "" if nothing.

    One thread at a time may use it; values() and order() are for any.

    Raises TypeError unless there are one or two fields, and ValueError for one that is none.
    """

    def __init__(
        self,
        ct: Conntrack,
        *fields: str,
        filter: Filter | None = None,
        traffic: bool = False,
        listen: bool = True,
    ) -> None:
        if len(fields) not in range(1, MOST_FIELDS + 1):
            raise TypeError(f"fields must be from one to {MOST_FIELDS}, not {len(fields)}")
        self.fields = fields
        self._ct, self._filter = ct, Filter() if filter is None else filter
        self._of = BYTES if traffic else ()
        self._by = Counts(("event", *fields), self._of)
        self._groups = [Group.read(field) for field in fields]
        named = {group.field.name for group in self._groups}
        self.reason = _unsettled(self._filter.fields, "the filter asks for") if listen else "off"
        self._events = None if self.reason else self._begin()
        self._events_by = Counts(("event", *fields), self._of)
        self.told = self._events is not None
        if self.told and named - SETTLED:
            self.told, self.reason = False, _unsettled(named, "it counts by")
            self._events_by = Counts(("event",))
        self._sink = self._events_by.make_sink()
        self.overruns = 0
        self._flows: dict[Key, int] = {}
        self._sums: dict[Key, int] = {}
        self._traffic: dict[Key, int] | None = None
        self._change: dict[Key, int] | None = None
        self._new: Counter[Key] = Counter()
        self._gone: Counter[Key] = Counter()
        # Bytes of flows that ended since the latest dump.
        self._ended: defaultdict[Key, int] = defaultdict(int)
        self._sampled = time.monotonic()
        self._dumped, self._between, self._took, self._meanwhile = 0.0, 0.0, 0.0, 0

    def _begin(self) -> Events | None:
        """Listen if that can be; ``reason`` says why not."""
        try:
            try:
                events = self._ct.events(filter=self._filter, buffer=BUFFER)
            except PrivilegeError:
                # What the system allows.
                events = self._ct.events(filter=self._filter)
        except UnsupportedError as exc:
            self.reason = exc.reason or str(exc)
            return None
        if events.mode > 1:
            self.reason = "flows older than this may end unheard, until the next dump"
        return events

    @property
    def listening(self) -> bool:
        """True if it is told of flows that begin and end."""
        return self._events is not None

    def fileno(self) -> int:
        """Return the descriptor of the events, readable when some are queued.

        Raises ValueError where there are none, and after close().
        """
        if self._events is None:
            raise ValueError("there are no events")
        return self._events.fileno()

    def read(self) -> None:
        """Count the events that are queued; does not wait.

        Raises ValueError after close(), and InvalidRequestError for a malformed event.
        """
        if self._events is not None:
            self.overruns += self._events._feed_sink(self._sink) is not None

    def dump(self, progress: Callable[[int], None] | None = None) -> None:
        """Count anew, in one dump; meanwhile it reads events, and calls ``progress``.

        ``progress``: called with the number of flows scanned so far. If it raises, the counts stay
        those of the dump before. Raises InterruptedDumpError as Conntrack.count_by() does.
        """

        def step(scanned: int) -> None:
            self.read()
            if progress is not None:
                progress(scanned)

        self.read()
        self._take(self._flows)
        began = time.monotonic()
        undisturbed(self._ct._handle, self._filter, "count_by", self._by.make_sink, step)
        now = time.monotonic()
        rows = _ROW.iter_unpack(self._by.packed())
        flows = {values + there: count for count, _, values, there in rows}
        totals = zip(flows, self._by.totals()) if self._of else ()
        sums = {key: total for key, total in totals if total is not None}
        self.read()
        # Only now: a dump that ends early leaves all as it was.
        ended, self._ended = self._ended, defaultdict(int)
        if self._dumped:
            self._between = now - self._dumped
            self._compare(flows, sums, ended)
        # Of the flows that began or ended meanwhile the dump has seen half, more or less.
        self._flows, self._sums, self._dumped, self._took = flows, sums, now, now - began
        self._meanwhile = self._take(flows, 2)

    def _compare(
        self, flows: dict[Key, int], sums: dict[Key, int], ended: Mapping[Key, int]
    ) -> None:
        if self._of:
            counted = sums.keys() | ended.keys()
            self._traffic = {
                key: max(0, sums.get(key, 0) + ended.get(key, 0) - self._sums.get(key, 0))
                for key in counted
            }
        if not self.told:
            self._change = {
                key: flows.get(key, 0) - self._flows.get(key, 0)
                for key in flows.keys() | self._flows.keys()
            }

    def _take(self, flows: dict[Key, int], share: int = 1) -> int:
        """Apply the events that were read, or one in ``share``; return how many there are."""
        taken, made, more = 0, self._events_by, Counter[Key]()
        totals = made.totals() if self._of and self.told else repeat(None)
        for (count, kind, values, there), total in zip(_ROW.iter_unpack(made.packed()), totals):
            began = kind == EventKind.NEW
            key = values + there if self.told else b""
            (self._new if began else self._gone)[key] += count
            taken += count
            if self.told:
                more[key] += count // share if began else -(count // share)
                if total and not began:
                    self._ended[key] += total
        for key, count in more.items():
            flows[key] = flows.get(key, 0) + count
            if flows[key] <= 0:
                del flows[key]
        self._sink = made.make_sink()
        return taken

    def sample(self) -> Sample:
        """Return what was counted, and count what begins and ends from now on."""
        self.read()
        self._take(self._flows)
        now = time.monotonic()
        found = Sample(
            dict(self._flows),
            self._new,
            self._gone,
            self._traffic,
            self._change,
            now - self._sampled,
            self._between,
            now - self._dumped,
            self._took,
            self._meanwhile,
            self.overruns,
        )
        self._new, self._gone, self._sampled = Counter(), Counter(), now
        return found

    def values(self, key: Key) -> tuple[Any, ...]:
        """Return the values of a group, one for each field; None where its flows have none."""
        return self._by.unpacked(_ROW.pack(0, 0, key[:32], key[32:]))[1:]

    def order(self, key: Key) -> tuple[bool | int, ...]:
        """Return what puts groups in the order of their values; nothing is decoded for it."""
        there, family = key[32:-1], key[-1]
        values = (
            int.from_bytes(key[at : at + 16], "big" if group.is_address else sys.byteorder)
            for at, group in zip((0, 16), self._groups)
        )
        return (family, *(part for pair in zip(there, values) for part in pair))

    def close(self) -> None:
        """Stop listening. The Conntrack stays open."""
        if self._events is not None:
            self._events.close()


def _unsettled(fields: Sequence[str] | set[str] | frozenset[str], why: str) -> str:
    changing = sorted(set(fields) - SETTLED)
    return f"{why} {', '.join(changing)}, which may change while a flow lives" if changing else ""
