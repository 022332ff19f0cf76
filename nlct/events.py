"""Events: what happens to flows, as the kernel tells it."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import repeat
from types import TracebackType
from typing import Any, Callable, NamedTuple, TypeVar, Union
from weakref import ref

from nlct import _check, _threads
from nlct._closing import Closing
from nlct._dump import require
from nlct._ffi import ffi, lib, new_sink, slot
from nlct._fields import FIELDS, FLOW_SIZE
from nlct._forks import process
from nlct._handle import EVENTS, Bytes, Handle
from nlct._values import Values
from nlct.enums import EventKind
from nlct.errors import PrivilegeError, UnsupportedError, error
from nlct.filter import Filter
from nlct.flow import Flow, Lines, flows_from
from nlct.table import Columns, FlowTable, column_set

KINDS = tuple(kind.name.lower() for kind in EventKind)
# An event takes some 1.2 KiB of it, so this is room for a burst of 13,000.
BUFFER = 16 << 20
# The kernel doubles it, and keeps it in 32 bits.
LEAST_BUFFER, MOST_BUFFER = 4096, (1 << 30) - 1
ROWS = 256
TEXT_BYTES = 65536


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


class Overrun(NamedTuple):
    """The kernel has dropped events, since the queue was full. The stream goes on.

    If you dump the table after reading this, the dump shows what was missed.

    ``lost``: how many; None where the kernel does not say, as before Linux 4.12, or could not even
    make an event. With a filter these are events that the kernel's part of it let through.
    """

    lost: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: ``{"event": "overrun", "lost": ...}``."""
        return {"event": "overrun", "lost": self.lost}


Item = Union[Event, Overrun]
Taken = TypeVar("Taken", FlowTable, bytes)


class Events(Closing):
    """A stream of events; see Conntrack.events().

    Iterate over it, with ``for`` or ``async for``, or ask get(). It ends only when it is closed.
    Any number of threads and tasks may read it; each event goes to one of them. It does not outlive
    a fork: in the child, reading raises RuntimeError.
    """

    def __init__(
        self, handle: Handle, kinds: Iterable[str | EventKind], wanted: Filter, buffer: int | None
    ) -> None:
        numbers = _kinds(kinds)
        if buffer is not None:
            _check.integer("buffer", buffer, LEAST_BUFFER, MOST_BUFFER)
        require(handle, wanted.zone)
        # They must outlive the stream.
        self._wanted, self._matching = wanted, wanted.to_c()
        self._events = slot("struct nlct_events **", lib.nlct_events_close)
        kernel_filter = ffi.NULL
        if handle.kernel_filter:
            kernel_filter = wanted.kernel_filter(lib.NLCT_ZONE_PLAIN)
        handle.open_events(self._events, numbers, self._matching, kernel_filter, buffer or BUFFER)
        try:
            # Only now: to listen may be what loads conntrack.
            self._mode = mode_of(handle)
            self._buffer = self._read_buffer(buffer)
        except BaseException:
            ffi.release(self._events)
            raise
        self._process = process()
        self._lock = _threads.Lock()
        self._closed = False
        # Where to receive; None while it is in use.
        self._room: _Room | None = None
        # What was received and not yet asked for. An error waits for what came before it.
        self._ready: deque[Event | Overrun | Exception] = deque()
        # Tasks that wait, each with its event loop.
        self._waiting: set[tuple[Any, Any]] = set()
        _streams.add(ref(self, _streams.discard))

    def _read_buffer(self, wanted: int | None) -> int:
        size = ffi.new("size_t *")
        rc = lib.nlct_events_buffer(self._events[0], size)
        if rc < 0:
            raise error(-rc, "read the size of the buffer")
        granted = int(size[0])
        if wanted is not None and granted < wanted:
            raise PrivilegeError(
                errno.EPERM,
                f"queue {wanted:,} bytes of events",
                reason="without it in the initial user namespace the sysctl net.core.rmem_max "
                f"allows {granted:,}",
            )
        return granted

    # What it is --------------------------------------------------------------------------------

    @property
    def mode(self) -> int:
        """The sysctl nf_conntrack_events when the stream began.

        1: every flow has events. 2, the default since Linux 6.0: a flow that was made while nobody
        on the whole host listened has none, not even when it goes.
        """
        return self._mode

    @property
    def buffer(self) -> int:
        """Bytes of events that the kernel queues before it drops some (``SO_RCVBUF``)."""
        return self._buffer

    @property
    def received(self) -> int:
        """Events that the kernel sent so far, also those that the filter then excluded."""
        with self._held():
            progress = ffi.new("struct nlct_events_progress *")
            lib.nlct_events_progress(self._open()[0], progress)
        return int(progress.received)

    def fileno(self) -> int:
        """Return the descriptor, readable when events are queued: for select, poll, epoll.

        Events that were received already do not make it readable, so ask get(timeout=0) until it
        returns None before you wait. Raises ValueError after close().
        """
        with self._held():
            return int(lib.nlct_events_fd(self._open()[0]))

    def _held(self) -> Any:
        """Return the lock, which in the child of a fork somebody may hold for ever."""
        if self._process != process():
            raise RuntimeError("a stream of events does not outlive a fork: begin a new one")
        return self._lock.real

    def _open(self) -> ffi.CData:
        """Return the ``struct nlct_events **``, for whoever holds the lock.

        It lives as long as it is referred to: a signal handler may close the stream at any point.
        """
        if self._closed:
            raise ValueError("this stream of events is closed")
        return self._events

    # Reading -----------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> Item | None:
        """Return the next event or overrun; None if there is none within ``timeout`` seconds.

        ``timeout``: 0 does not wait, None waits for as long as it takes.

        Raises ValueError after close(), also by another thread; InvalidRequestError for a malformed
        event, after which the stream goes on.
        """
        deadline = (
            None if timeout is None else time.monotonic() + _check.seconds("timeout", timeout)
        )
        while True:
            if self._ready:
                try:
                    return _item(self._ready.popleft())
                except IndexError:
                    continue
            if not self._receive() and not self._wait(deadline):
                return None

    def __next__(self) -> Item:
        return next(iter(self))

    def __iter__(self) -> Iterator[Item]:
        """Yield events and overruns until the stream is closed."""
        ready = self._ready
        while True:
            try:
                while ready:
                    item = ready.popleft()
                    if isinstance(item, Exception):
                        raise item
                    yield item
            except IndexError:
                continue
            try:
                if not self._receive():
                    self._wait(None)
            except ValueError:
                if self._closed:
                    return
                raise

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

    def _fed(
        self, sink: ffi.CData, take: Callable[[], Taken], timeout: float | None
    ) -> Iterator[Taken | Overrun]:
        """Feed a sink with what is queued, and yield what it took, until nothing comes."""
        while True:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    rc, lost = self._feed(sink)
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
                raise _failure(rc)

    def _feed(self, sink: ffi.CData) -> tuple[int, Overrun | None]:
        """Feed a sink with what is queued. Return what the core said, and an overrun behind it."""
        with self._held():
            events = self._open()
            try:
                rc = int(lib.nlct_events_take(events[0], sink[0]))
                count = ffi.new("uint64_t *")
                lost = lib.nlct_events_lost(events[0], count)
            finally:
                # A traceback must not keep it open.
                del events
            return rc, Overrun(int(count[0]) or None) if lost else None

    def _told(self) -> None:
        """Tell the core that the overrun was handed over."""
        with self._held():
            if not self._closed:
                lib.nlct_events_told(self._events[0])

    def _receive(self) -> bool:
        """Receive what is queued, and tell if that was anything."""
        with self._held():
            # The lock is reentrant: a signal handler may read in the middle of this, or raise.
            room, self._room = self._room or _Room(), None
            try:
                before = len(self._ready)
                # What was left there when a handler raised.
                room.empty(self._ready, self._told)
                rc, lost = self._feed(room.sink)
                room.hold(lost, _failure(rc) if rc < 0 else None)
                room.empty(self._ready, self._told)
            finally:
                self._room = room
            # There may be more than we take.
            _wake_all(self._waiting)
            return rc != 0 or len(self._ready) > before

    def _wait(self, deadline: float | None) -> bool:
        """Wait a while for something to be queued, and tell if there is time left."""
        seconds = _threads.PATIENCE
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
            if seconds <= 0:
                return False
        # Without the lock: others may read, or close the stream.
        rc = lib.nlct_readable(self.fileno(), max(1, int(seconds * 1000)))
        if rc not in (0, -errno.EAGAIN, -errno.EINTR):
            raise error(-rc, "wait for events")
        return True

    # Asyncio -----------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        """Return the next event or overrun. A cancelled task loses none."""
        # Imported here: its caller has it already, and all others need not load it.
        import asyncio  # noqa: PLC0415

        while True:
            if self._ready:
                try:
                    return _item(self._ready.popleft())
                except IndexError:
                    continue
            try:
                if self._receive():
                    # Other tasks want to run, too, however busy the stream is.
                    await asyncio.sleep(0)
                else:
                    await self._readable()
            except ValueError:
                if self._closed:
                    raise StopAsyncIteration from None
                raise

    async def _readable(self) -> None:
        """Wait in the event loop for something to be queued, or for close()."""
        # Imported here: its caller has it already, and all others need not load it.
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        me = loop, woken
        # One of its own: each loop and task may wait for a descriptor only once, and close() must
        # not take it away from under them.
        with self._held():
            fd = os.dup(self.fileno())
        try:
            self._waiting.add(me)
            loop.add_reader(fd, _wake, woken)
            # Another thread may have done something before we were among those who wait.
            if not self._ready and not self._closed:
                await woken
        finally:
            self._waiting.discard(me)
            # The loop may be closed by now.
            with suppress(RuntimeError):
                loop.remove_reader(fd)
            os.close(fd)

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Ending ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop listening. Iterations end, in any thread and task. May be called again."""
        # In the child of a fork nobody else is there, and the lock may be held for ever.
        with self._lock.real if self._process == process() else nullcontext():
            self._closed = True
            self._events = None
            self._ready.clear()
        _wake_all(self._waiting)
        self._waiting.clear()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"mode {self._mode}, buffer {self._buffer:,}"
        return f"<nlct.Events: {self._wanted!r}, {state}>"


# Items --------------------------------------------------------------------------------------------

_WORDS = {int(kind): kind.name.lower() for kind in EventKind}
_AT = FIELDS["event"].offset


class _Room:
    """Where events are received, in the core."""

    def __init__(self) -> None:
        self._rows = ffi.new("struct nlct_flow[]", ROWS)
        self._data = Bytes()
        self.sink = new_sink(lib.nlct_rows_new, self._rows, ROWS, self._data.c)
        # What comes behind them.
        self._behind: list[Overrun | Exception] = []
        # What was made of all that, on its way out.
        self._made: Iterator[Event | Overrun | Exception] | None = None

    def hold(self, *behind: Overrun | Exception | None) -> None:
        """Keep what comes behind the events that were received."""
        self._behind = [one for one in behind if one is not None]

    def empty(self, into: deque[Event | Overrun | Exception], told: Callable[[], None]) -> None:
        """Move what was received. If a signal handler raises meanwhile, the next call goes on.

        ``told``: called when an overrun was moved.
        """
        if self._made is None:
            rows = ffi.buffer(self._rows, lib.nlct_rows_count(self.sink[0]) * FLOW_SIZE)[:]
            kinds = map(_WORDS.__getitem__, rows[_AT::FLOW_SIZE])
            flows = flows_from(rows, self._data.copy())
            # As Event(kind, flow) does, but three times as fast.
            made = map(tuple.__new__, repeat(Event), zip(kinds, flows))
            self._made = iter([*made, *self._behind])
        # No handler runs in here, and each comes out of the iterator once.
        into.extend(self._made)
        lib.nlct_rows_take(self.sink[0])
        self._data.c.size = 0
        if any(isinstance(one, Overrun) for one in self._behind):
            told()
        self._behind = []
        self._made = None


# All that are there: what was received and who waits is the parent's, not a child's.
# Not a WeakSet: list() copies a plain set at once, whatever other threads do to it.
_streams: set[ref[Events]] = set()


def _forget() -> None:
    for reference in list(_streams):
        stream = reference()
        if stream is not None:
            stream._ready.clear()
            stream._waiting.clear()


os.register_at_fork(after_in_child=_forget)


def _item(found: Event | Overrun | Exception) -> Item:
    if isinstance(found, Exception):
        raise found
    return found


def _failure(rc: int) -> Exception:
    operation = "receive events"
    if rc == -errno.EBADF:
        return error(errno.EBADF, operation, reason="the program has closed their descriptor")
    return MemoryError() if rc == -errno.ENOMEM else error(-rc, operation)


def _wake(woken: Any) -> None:
    if not woken.done():
        woken.set_result(None)


def _wake_all(waiting: Iterable[tuple[Any, Any]]) -> None:
    """Wake tasks, perhaps of other threads."""
    for loop, woken in tuple(waiting):
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, woken)


def _kinds(kinds: Iterable[str | EventKind]) -> int:
    """Return the bits of the kinds that are asked for; without any, of new and destroy."""
    bits = 0
    for kind in kinds:
        name = kind.name.lower() if isinstance(kind, EventKind) else kind
        if isinstance(kind, Filter):
            raise TypeError("give the filter by its name: filter=...")
        if name not in KINDS:
            raise ValueError(f"an event must be one of {', '.join(KINDS)}, not {kind!r}")
        bits |= 1 << EventKind[name.upper()]
    return bits or 1 << EventKind.NEW | 1 << EventKind.DESTROY


def mode_of(handle: Handle) -> int:
    """Return the sysctl nf_conntrack_events. Raises UnsupportedError where no flow has events."""
    mode = handle.read_number(EVENTS)
    if mode:
        return mode
    reason = "the sysctl net.netfilter.nf_conntrack_events is 0; set it to 1 or 2"
    if mode is None:
        reason = "the kernel was built without conntrack events"
    raise UnsupportedError(errno.EOPNOTSUPP, "listen to events", reason=reason)
