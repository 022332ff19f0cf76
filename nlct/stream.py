"""A stream of what the kernel tells: how it is received, waited for and handed over.

What the events are of, flows or expectations, stands above.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Callable, Generic, NamedTuple, TypeVar
from weakref import ref

from nlct import _check, _threads
from nlct._closing import Closing
from nlct._ffi import ffi, lib, slot
from nlct._forks import process
from nlct._handle import EVENTS, Handle
from nlct.enums import EventKind
from nlct.errors import PrivilegeError, UnsupportedError, error

# The words for what happened, by the core's numbers.
WORDS = {int(kind): kind.name.lower() for kind in EventKind}
KINDS = tuple(WORDS.values())
# An event takes some 1.2 KiB of it, so this is room for a burst of 13,000.
BUFFER = 16 << 20
# The kernel doubles it, and keeps it in 32 bits.
LEAST_BUFFER, MOST_BUFFER = 4096, (1 << 30) - 1

Told = TypeVar("Told")
_Self = TypeVar("_Self", bound="Stream[Any]")


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


class Room(Generic[Told]):
    """Where events are received, in the core."""

    def __init__(self) -> None:
        # What comes behind them.
        self._behind: list[Overrun | Exception] = []
        # What was made of all that, on its way out.
        self._made: Iterator[Told | Overrun | Exception] | None = None

    def take(self, events: ffi.CData) -> int:
        """Receive what a ``struct nlct_events *`` has queued; see nlct_events_take()."""
        raise NotImplementedError

    def _make(self) -> Iterable[Told | Exception]:
        """Make events of what was received, and an error of each that is malformed."""
        raise NotImplementedError

    def _clear(self) -> None:
        """Forget what was received."""
        raise NotImplementedError

    def hold(self, *behind: Overrun | Exception | None) -> None:
        """Keep what comes behind the events that were received."""
        self._behind = [one for one in behind if one is not None]

    def empty(self, into: deque[Told | Overrun | Exception], told: Callable[[], None]) -> None:
        """Move what was received. If a signal handler raises meanwhile, the next call goes on.

        ``told``: called when an overrun was moved.
        """
        if self._made is None:
            self._made = iter([*self._make(), *self._behind])
        # No handler runs in here, and each comes out of the iterator once.
        into.extend(self._made)
        self._clear()
        if any(isinstance(one, Overrun) for one in self._behind):
            told()
        self._behind = []
        self._made = None


class Stream(Closing, Generic[Told]):
    """A stream of events.

    Iterate over it, with ``for`` or ``async for``, or ask get(). It ends only when it is closed.
    Any number of threads and tasks may read it; each event goes to one of them. It does not outlive
    a fork: in the child, reading raises RuntimeError.
    """

    # What a stream is of.
    _room_of: type[Room[Told]]

    def __init__(
        self, handle: Handle, kinds: Iterable[str | EventKind], buffer: int | None
    ) -> None:
        numbers = _kinds(kinds)
        if buffer is not None:
            _check.integer("buffer", buffer, LEAST_BUFFER, MOST_BUFFER)
        self._events = slot("struct nlct_events **", lib.nlct_events_close)
        self._begin(handle, numbers, buffer or BUFFER)
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
        self._room: Room[Told] | None = None
        # What was received and not yet asked for. An error waits for what came before it.
        self._ready: deque[Told | Overrun | Exception] = deque()
        # Tasks that wait, each with its event loop.
        self._waiting: set[tuple[Any, Any]] = set()
        _streams.add(ref(self, _streams.discard))

    def _begin(self, handle: Handle, kinds: int, buffer: int) -> None:
        """Begin to listen, in ``self._events``."""
        raise NotImplementedError

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
        on the whole host listened has none, not even when it goes; nor have its expectations.
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

    def get(self, timeout: float | None = None) -> Told | Overrun | None:
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

    def __next__(self) -> Told | Overrun:
        return next(iter(self))

    def __iter__(self) -> Iterator[Told | Overrun]:
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

    def _feed(self, take: Callable[[ffi.CData], int]) -> tuple[int, Overrun | None]:
        """Take what is queued. Return what the core said, and an overrun behind it."""
        with self._held():
            events = self._open()
            try:
                rc = take(events[0])
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
            room, self._room = self._room or self._room_of(), None
            try:
                before = len(self._ready)
                # What was left there when a handler raised.
                room.empty(self._ready, self._told)
                rc, lost = self._feed(room.take)
                room.hold(lost, failure(rc) if rc < 0 else None)
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

    def __aiter__(self) -> AsyncIterator[Told | Overrun]:
        return self

    async def __anext__(self) -> Told | Overrun:
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

    async def __aenter__(self: _Self) -> _Self:
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
        return f"<nlct.{type(self).__name__}: {self._about()}{state}>"

    def _about(self) -> str:
        """Say what is special about it."""
        return ""


# Every open stream. After a fork the child drops what its parent had received, and its waiters.
# Not a WeakSet: list() copies a plain set at once, whatever other threads do to it.
_streams: set[ref[Stream[Any]]] = set()


def _forget() -> None:
    for reference in list(_streams):
        stream = reference()
        if stream is not None:
            stream._ready.clear()
            stream._waiting.clear()


os.register_at_fork(after_in_child=_forget)


def _item(found: Told | Overrun | Exception) -> Told | Overrun:
    if isinstance(found, Exception):
        raise found
    return found


def failure(rc: int) -> Exception:
    """Return what to raise where the core could not receive."""
    operation = "receive events"
    if rc == -errno.EBADF:
        return error(errno.EBADF, operation, reason="the program has closed their descriptor")
    return MemoryError() if rc == -errno.ENOMEM else error(-rc, operation)


def _wake(woken: Any) -> None:
    if not woken.done():
        woken.set_result(None)


def _wake_all(waiting: Iterable[tuple[Any, Any]]) -> None:
    """Wake tasks, perhaps of other threads."""
    for loop, woken in list(waiting):
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, woken)


def _kinds(kinds: Iterable[str | EventKind]) -> int:
    """Return the bits of the kinds that are asked for; without any, of new and destroy."""
    bits = 0
    for kind in kinds:
        name = kind.name.lower() if isinstance(kind, EventKind) else kind
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
