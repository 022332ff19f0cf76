"""Events of flows: what happens to them, as the kernel tells it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, Callable, NamedTuple, TypeVar

from nlct import _check
from nlct._dump import require
from nlct._ffi import ffi, lib, new_sink
from nlct._fields import FIELDS, FLOW_SIZE
from nlct._handle import Bytes, Handle
from nlct._values import Values
from nlct.enums import EventKind
from nlct.filter import Filter
from nlct.flow import Flow, Lines, flows_from
from nlct.stream import WORDS, Overrun, Room, Stream, failure
from nlct.table import Columns, FlowTable, column_set

ROWS = 256
TEXT_BYTES = 65536
ROUNDS = 16


class Event(NamedTuple):
    """Something happened to a flow.

    ``kind``: a word, no EventKind: "new", "update" or "destroy" (``IPCTNL_MSG_CT_NEW``,
    ``IPCTNL_MSG_CT_DELETE``).
    ``flow``: what the event says of the flow. Events say less than a dump: never ``use``; "destroy"
    no helper, labels, master or synproxy either, and before Linux 5.13 no timeout. A mark of 0 may
    be absent. A filter sees no more than that.
    """

    kind: str
    flow: Flow

    def to_dict(self) -> dict[str, Any]:
        """Return the event for JSON: Flow.to_dict() with "event" in front."""
        return {"event": self.kind, **self.flow.to_dict()}

    def __str__(self) -> str:
        return str(self.flow)


# Reading ------------------------------------------------------------------------------------------

Taken = TypeVar("Taken", FlowTable, bytes)
_AT = FIELDS["event"].offset


class _Room(Room[Event]):
    """Rows of flows."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = ffi.new("struct nlct_flow[]", ROWS)
        self._data = Bytes()
        self._sink = new_sink(lib.nlct_rows_new, self._rows, ROWS, self._data.c)

    def take(self, events: ffi.CData) -> int:
        return int(lib.nlct_events_take(events, self._sink[0]))

    def _make(self) -> Iterable[Event]:
        rows = ffi.buffer(self._rows, lib.nlct_rows_count(self._sink[0]) * FLOW_SIZE)[:]
        kinds = map(WORDS.__getitem__, rows[_AT::FLOW_SIZE])
        flows = flows_from(rows, self._data.copy())
        # As Event(kind, flow) does, but three times as fast.
        return map(tuple.__new__, repeat(Event), zip(kinds, flows))

    def _clear(self) -> None:
        lib.nlct_rows_take(self._sink[0])
        self._data.c.size = 0


class Events(Stream[Event]):
    """A stream of events of flows; see Conntrack.events().

    Iterate over it, with ``for`` or ``async for``, or ask get(). It ends only when it is closed.
    Any number of threads and tasks may read it; each event goes to one of them. It does not outlive
    a fork: in the child, reading raises RuntimeError.
    """

    _room_of = _Room

    def __init__(
        self, handle: Handle, kinds: tuple[str | EventKind, ...], wanted: Filter, buffer: int | None
    ) -> None:
        if any(isinstance(kind, Filter) for kind in kinds):
            raise TypeError("give the filter by its name: filter=...")
        # They must outlive the stream.
        self._wanted, self._matching = wanted, wanted.to_c()
        super().__init__(handle, kinds, buffer)

    def _begin(self, handle: Handle, kinds: int, buffer: int) -> None:
        require(handle, self._wanted.zone)
        kernel_filter = ffi.NULL
        if handle.kernel_filter:
            kernel_filter = self._wanted.kernel_filter(lib.NLCT_ZONE_PLAIN)
        handle.open_events(self._events, kinds, self._matching, kernel_filter, buffer)

    def _about(self) -> str:
        return f"{self._wanted!r}, "

    def batches(
        self, *, columns: Iterable[str] | None = None, rows: int = 65536
    ) -> Iterator[FlowTable | Overrun]:
        """Yield what is queued as tables with a column "event", as soon as there is something.

        ``columns``, ``rows``: see Conntrack.batches(). An Overrun comes by itself, in its place.
        """
        kept = column_set(columns)
        _check.integer("rows", rows, 1, _check.U32)
        collector = Columns(None if kept is None else kept | {"event"}, rows)
        return self._fed(collector.sink, collector.take, None)

    def text(self, *, timeout: float | None = None) -> Iterator[bytes | Overrun]:
        """Yield what is queued as the lines that ``conntrack -E`` prints, many at a time.

        ``timeout``: end when nothing has come for so many seconds; 0 does not wait, None never
        ends. An Overrun comes by itself, in its place. This is several times as fast as str() of
        each event.
        """
        if timeout is not None:
            _check.seconds("timeout", timeout)
        lines = Lines(TEXT_BYTES, lib.NLCT_FORM_LIST)
        return self._fed(lines.sink, lines.take, timeout)

    def json(self, *, timeout: float | None = None) -> Iterator[bytes | Overrun]:
        """Yield what is queued as lines of JSON, json.dumps() of Event.to_dict(), many at a time.

        Otherwise this is like text().
        """
        if timeout is not None:
            _check.seconds("timeout", timeout)
        values = Values(json=True, event=True)
        return self._fed(values.sink, values.take, timeout)

    def _feed_sink(self, sink: ffi.CData) -> Overrun | None:
        """Feed a sink of the core with what is queued; return what was lost.

        It takes ROUNDS times some milliseconds at most, however many come meanwhile.
        """
        rc, overrun = 1, None
        for _ in range(ROUNDS):
            rc, overrun = self._feed(lambda events: int(lib.nlct_events_take(events, sink[0])))
            if rc != 1 or overrun is not None:
                break
        if overrun is not None:
            self._told()
        if rc < 0:
            raise failure(rc)
        return overrun

    def _fed(
        self, sink: ffi.CData, take: Callable[[], Taken], timeout: float | None
    ) -> Iterator[Taken | Overrun]:
        """Feed a sink with what is queued, and yield what it took, until nothing comes."""
        while True:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    rc, lost = self._feed(lambda events: int(lib.nlct_events_take(events, sink[0])))
                except ValueError:
                    if self._closed:
                        return
                    raise
                taken = take()
                if rc or len(taken) or lost is not None:
                    break
                if not self._wait(deadline):
                    return
            if len(taken):
                yield taken
            if lost is not None:
                self._told()
                yield lost
            if rc < 0:
                raise failure(rc)
