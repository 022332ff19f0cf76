"""What keeps a mirror in step with the kernel: a thread that listens, dumps and audits.

To be in step is earned. The order matters: listen; wait until no packet is under way that came
before; take what is queued; then dump the whole table, while the events go on. What the dump misses
the events tell. Being in step is lost when the kernel drops an event, or when the sysctl changes
that says which flows have events. Another dump earns it again.

Some flows are never announced: a rule hides the event, or the kernel does not make it. So an audit,
a slow dump, goes round and round and compares. It finds such flows, and ghosts: flows that ended
without an event.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from nlct import _log, _lookup, _threads
from nlct._dump import dump
from nlct._ffi import ffi, lib, slot
from nlct._forks import process
from nlct._handle import EVENTS, Handle, Socket, everything
from nlct._memory import Memory
from nlct.enums import EventKind
from nlct.errors import Error, error
from nlct.filter import Filter
from nlct.flow import Flow
from nlct.stream import LEAST_BUFFER, mode_of

# Seconds between two looks while events come: many at a time cost a third of one at a time.
LOOK = 0.004
# Milliseconds without any event, after which the thread sees what else there is to do.
IDLE = 100
# The buffer grows up to this with each loss.
GROWS_TO = 512 << 20
# How often to take events, 8,192 at most, before a caller no longer waits for an empty queue.
MOST_TAKES = 64

# Seconds until the next try to earn being in step: the first of these, then twice as long after
# each, up to the second. It begins anew if the mirror has been in step for CALM seconds.
FIRST_DELAY, LONGEST_DELAY = 0.05, 30.0
CALM = 60.0
# Seconds until the first audit, which makes sure of the dump at the start.
MAKE_SURE = 2.0
# Seconds to wait for the event of a flow that an audit has met and the memory does not know.
ON_ITS_WAY = 1.0
# Milliseconds that an audit works at a time, and seconds that it takes for a flow, roughly.
AUDIT_STEP = 1
AUDIT_FLOW = 5e-6
# Flows that an audit has met and does not know, looked up without a pause.
LOOKED_UP = 200

# A flow that an audit does not know: when it was met, and whether it is looked at again.
Met = tuple[float, Flow, bool]

# Lines for the log that are kept until a caller comes.
MOST_SAID = 100

_WATCHED = 1 << EventKind.NEW | 1 << EventKind.DESTROY
# Errors after which a stream goes on.
_GOES_ON = (errno.EBADMSG, errno.EMSGSIZE, errno.ENOMEM)


def _stream() -> ffi.CData:
    return slot("struct nlct_events **", lib.nlct_events_close)


class Keeper:
    """Keeps a memory in step with the table of a namespace.

    ``buffer``: bytes of events that may be queued.
    ``interval``: seconds within which a flow is found that was never announced.

    Hold the memory's lock to read or change anything about being in step.
    """

    def __init__(self, handle: Handle, addresses: bool, buffer: int, interval: float) -> None:
        self.handle = handle
        self.memory = Memory(addresses)
        self.lock = self.memory.lock
        self.process = process()
        self._interval = interval
        # The stream of events, and a socket that keeps the kernel making them.
        self.buffer = buffer
        self._everything = everything()
        self._events, self._anchor = _stream(), _stream()
        # The socket for deletes: their events need not come back.
        self.sock: Socket | None = None
        # In step or not, since when and why, and the losses so far.
        self.in_step = False
        self.since = time.time()
        self.reason = "the first dump is under way"
        self.mode = 0
        self._losses = self._unanswered = 0
        self._delay = FIRST_DELAY
        self._earn_at = 0.0
        self._earned_at = 0.0
        # The program closed our descriptors, or the like: begin anew.
        self._broken = False
        # What an audit has found: zones with flows that are never announced, and zones without any.
        self.hidden_zones: set[int] = set()
        self.audited_zones: set[int] = set()
        self.audited = False
        # What was amiss when the latest audit ended.
        self._amiss_then: tuple[int, ...] | None = None
        self._audit: Iterator[None] | None = None
        self._audit_at = self._next_audit_at = 0.0
        # What has happened.
        self.received = self.overruns = self.lost = self.dumps = self.audits = self.hidden = 0
        self.said: list[_log.Said] = []
        self._subscribe()
        self._stopped = False
        self._stop = _threads.latch()
        self._thread = _threads.Thread(self._serve)
        self._ident = 0

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if none can be started."""
        self._thread.start()

    # Listening -------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        """Begin to listen. Raises UnsupportedError where no flow has events."""
        with self.lock.real:
            before = self._events, self._anchor
            self.received = self.events()
            events, anchor = _stream(), _stream()
            matching = self._everything
            self.handle.open_events(anchor, lib.NLCT_LISTENS, matching, ffi.NULL, LEAST_BUFFER)
            self.handle.open_events(events, _WATCHED, matching, ffi.NULL, self.buffer)
            # Only now: as long as anybody listens, the kernel goes on making events.
            self._events, self._anchor = events, anchor
            for stream in before:
                ffi.release(stream)
            self._broken = False
            self.open_socket()
            self.mode = mode_of(self.handle)
            self._forget_audits()

    def open_socket(self) -> Socket:
        """Open the socket for deletes anew, and mute it."""
        if self.sock is not None:
            self.sock.close()
        self.sock = self.handle.open_socket()
        port = lib.nlct_socket_port(self.sock.handle)
        if self._events[0] and lib.nlct_events_mute(self._events[0], port) < 0:
            # The program has closed the stream's descriptor.
            self._broken = True
            self.lose("one's own deletes cannot be muted")
        return self.sock

    def deleting_socket(self) -> Socket:
        """Return the socket for deletes, a new one if ours has failed or the program closed it."""
        self.memory.check_open()
        if self.sock is None or not lib.nlct_socket_is(self.sock.handle):
            return self.open_socket()
        return self.sock

    def renew_socket(self) -> None:
        """Use no socket any more on which an exchange has failed."""
        # It is closed when nobody uses it any more: a signal handler may have interrupted its user.
        with self.lock.real:
            self.sock = None
            self.miss_answers()
            # Its port, which may become somebody else's, must not stay muted.
            with suppress(Error):
                self.open_socket()

    def miss_answers(self) -> None:
        """Note that flows may be deleted which stay in memory until an audit does not find them."""
        self._unanswered += 1

    def drain(self) -> bool:
        """Take all events that are queued; tell if the queue was seen empty."""
        count = ffi.new("uint64_t *")
        for _ in range(MOST_TAKES):
            # Between two calls a signal handler may fork, or close.
            if self._broken:
                return False
            rc = lib.nlct_events_take(self._events[0], self.memory.feed[0])
            if self._broken:
                return False
            if lib.nlct_events_lost(self._events[0], count):
                self.overruns += 1
                self.lost += count[0]
                self._grow()
                self.lose(f"the kernel dropped events, {self.lost:,} so far")
                lib.nlct_events_told(self._events[0])
            if rc < 0:
                self._broken = -rc not in _GOES_ON
                self.lose(str(error(-rc, "receive events")))
                return False
            if rc == 0:
                return True
        return False

    def _grow(self) -> None:
        """Let more events be queued."""
        self.buffer = min(2 * self.buffer, max(self.buffer, GROWS_TO))
        if self._events[0]:
            lib.nlct_events_resize(self._events[0], self.buffer)

    def room(self) -> int:
        """Return how many bytes of events the kernel may queue: less where it bounds them."""
        size = ffi.new("size_t *")
        events = self._events[0]
        if events == ffi.NULL or lib.nlct_events_buffer(events, size) < 0:
            return self.buffer
        return int(size[0])

    def events(self) -> int:
        """Return how many events the kernel has sent, but for those of one's own deletes."""
        progress = ffi.new("struct nlct_events_progress *")
        if self._events[0]:
            lib.nlct_events_progress(self._events[0], progress)
        return self.received + int(progress.received)

    # In step or not --------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Take what is queued, and tell if the memory has every flow announced before this."""
        return self.in_step and self._look_at_mode() and self.drain() and self.in_step

    def _look_at_mode(self) -> bool:
        """Look which flows have events, and tell if that is as it was."""
        mode = self.handle.read_number(EVENTS)
        if mode == self.mode:
            return True
        self.lose(f"the sysctl nf_conntrack_events went from {self.mode} to {mode}")
        self._forget_audits()
        return False

    def _forget_audits(self) -> None:
        """Take nothing that audits have shown for true any more, but for hidden flows.

        Flows may have come of which no event tells, not even of their end.
        """
        self.audited = False
        self.audited_zones = set()

    def lose(self, reason: str) -> None:
        """Be no longer in step. Another dump is needed."""
        was_in_step, self.in_step = self.in_step, False
        self._losses += 1
        self._audit = None
        self.reason = reason
        if not was_in_step:
            return
        self.since = time.time()
        now = time.monotonic()
        if now - self._earned_at > CALM:
            self._delay = FIRST_DELAY
        self._earn_at = now + self._delay
        self._say(_log.WARNING, "mirror: no longer in step: %s", reason)

    def _say(self, level: int, text: str, *values: object) -> None:
        """Keep it for a caller to log: the lock is held."""
        self.said.append((level, text, values))
        del self.said[:-MOST_SAID]

    def _earn(self) -> None:
        """Dump the whole table while events go on, to be in step afterwards."""
        if self._broken:
            self._subscribe()
        with self.lock.real:
            mode = mode_of(self.handle)
            if mode != self.mode:
                self.mode = mode
                self._forget_audits()
            if not self.drain():
                return
        lib.nlct_grace_period()
        losses = self._losses
        with self.lock.real:
            self.memory.begin()
        if not self._dump(losses):
            with self.lock.real:
                self.memory.drop()
            return
        more = True
        while more:
            with self.lock.real:
                more = self.memory.end()
        with self.lock.real:
            if not self.drain() or losses != self._losses or not self._look_at_mode():
                return
            self.in_step = True
            self.dumps += 1
            self.since, self.reason = time.time(), ""
            self._earned_at = time.monotonic()
            self._audit_at = self._earned_at + MAKE_SURE
            self._say(_log.INFO, "mirror: in step, with %d flows", self.memory.count())

    def _dump(self, losses: int) -> bool:
        """Dump the whole table into the memory, and tell if nothing disturbed that."""
        with dump(self.handle, Filter()) as made:
            steps = made.steps(self.memory.feed)
            while not made.ended:
                with self.lock.real:
                    next(steps)
                    self.drain()
                if self._stopped or losses != self._losses:
                    return False
        return not made.disturbed

    # Auditing --------------------------------------------------------------------------------

    def _audited(self, losses: int) -> Iterator[None]:
        """Compare the memory with a slow dump; yield after each step.

        ``losses``: how many there were when it was in step.
        """
        met: deque[Met] = deque()
        with self.lock.real:
            zones = self.memory.zones()
            amiss = self._amiss()
            self.memory.begin(audit=True)
        try:
            with dump(self.handle, Filter()) as made:
                made.receive_alone()
                steps = made.steps(self.memory.audit, AUDIT_STEP)
                while not made.ended:
                    # Not under the lock: it may take as long as the walk over a large table.
                    next(steps)
                    with self.lock.real:
                        strangers = self.memory.strangers()
                    met.extend((time.monotonic(), flow, False) for flow in strangers)
                    self._look_up(met, losses)
                    yield
            while met:
                self._look_up(met, losses)
                yield
            more = not made.disturbed and losses == self._losses
            if not more:
                return
            while more:
                with self.lock.real:
                    more = self.memory.end()
            with self.lock.real:
                zones &= self.memory.zones()
                self.audited_zones = zones - self.hidden_zones
                self.audited = True
                self._amiss_then = amiss if amiss == self._amiss() else None
                self.audits += 1
        finally:
            with self.lock.real, suppress(ValueError):
                self.memory.drop()

    def _look_up(self, met: deque[Met], losses: int) -> None:
        """Find out which flows that the audit has met are never announced.

        One that is there without an event is looked at again: in that very moment it may have been
        made anew, in the same place.
        """
        before = time.monotonic() - ON_ITS_WAY
        for _ in range(LOOKED_UP):
            if not met or met[0][0] > before:
                return
            _, flow, again = met.popleft()
            if not self._is_hidden(flow, losses):
                continue
            if not again:
                met.append((time.monotonic(), flow, True))
                continue
            with self.lock.real:
                if losses == self._losses and self.memory.add(flow):
                    self.hidden += 1
                    self._hide(flow.zone)

    def _is_hidden(self, flow: Flow, losses: int) -> bool:
        """Tell if a flow is there, and no event that has come tells of it."""
        if self._has_come(flow, losses):
            return False
        try:
            _lookup.find(self.handle, flow, "look at a flow")
        except Error:
            # It is gone, or cannot be looked up. The next round may tell.
            return False
        return not self._has_come(flow, losses)

    def _has_come(self, flow: Flow, losses: int) -> bool:
        """Tell if the event of a flow has come, or may have been among those lost or queued."""
        with self.lock.real:
            return not self.drain() or losses != self._losses or self.memory.has(flow)

    def _amiss(self) -> tuple[int, ...]:
        """Return what makes counts inexact, as often as it has happened."""
        counters = self.memory.counters()
        # A stranger's end may be that of a flow whose events came in another order than expected.
        told = counters.ghosts, counters.strangers
        return (*told, self.hidden, self._losses, self._unanswered)

    @property
    def exact(self) -> bool:
        """True if nothing was amiss in the latest audit, nor since."""
        return self.in_step and self._amiss_then == self._amiss()

    def hides(self, zones: frozenset[int] | None) -> bool:
        """Tell if flows in any of these zones are not announced; None stands for all zones."""
        return bool(self.hidden_zones if zones is None else self.hidden_zones & zones)

    def knows(self, zones: frozenset[int] | None) -> bool:
        """Tell if an audit has shown that flows in these zones are announced; None: in all."""
        if zones is None:
            if not self.audited or self.hidden_zones:
                return False
            zones = frozenset(self.memory.zones())
        return zones <= self.audited_zones

    def _hide(self, zone: int) -> None:
        """Note that flows in this zone are not announced."""
        if zone not in self.hidden_zones:
            self.hidden_zones.add(zone)
            self.audited_zones.discard(zone)
            self._say(_log.WARNING, "mirror: a flow in zone %d was never announced", zone)

    def _audit_some(self, now: float) -> None:
        """Go on with the audit, if it is time to."""
        if not self.in_step or now < self._audit_at:
            return
        with self.lock.real:
            # Losing step takes it away.
            audit, before = self._audit, self.audits
            if audit is None:
                if not self.in_step:
                    return
                audit = self._audit = self._audited(self._losses)
                self._next_audit_at = now + self._interval / 2
        try:
            next(audit)
        except StopIteration:
            self._audit = None
            # A round that was disturbed begins anew.
            whole = self.audits > before
            self._audit_at = self._next_audit_at if whole else now + MAKE_SURE
            return
        except (OSError, MemoryError) as exc:
            # No event is lost by this.
            self._audit = None
            self._audit_at = now + MAKE_SURE
            self._say(_log.WARNING, "mirror: an audit failed: %s", str(exc) or type(exc).__name__)
            return
        # The first one does not take its time, nor one that is late.
        if self.audited and now < self._next_audit_at:
            with self.lock.real:
                flows = self.memory.count()
            steps = max(1.0, flows * AUDIT_FLOW * 1000 / AUDIT_STEP)
            # So that it ends in time before the next one.
            self._audit_at = now + self._interval / 3 / steps

    # The thread ------------------------------------------------------------------------------

    def _serve(self, _thread: _threads.Thread) -> None:
        self._ident = _threads.get_ident()
        with _log.keep(self.said):
            while not self._stopped:
                try:
                    self._turn()
                except Exception as exc:
                    # Memory may be short for this as well.
                    with suppress(MemoryError), self.lock.real:
                        self.lose(str(exc) or type(exc).__name__)
                    with suppress(MemoryError):
                        self._pause(FIRST_DELAY)
        self._let_go()

    def _turn(self) -> None:
        now = time.monotonic()
        if not self.in_step and now >= self._earn_at:
            self._earn_at = now + self._delay
            self._delay = min(2 * self._delay, LONGEST_DELAY)
            self._earn()
        self._audit_some(now)
        due = self._audit_at if self.in_step else self._earn_at
        wait = min(IDLE, max(1, int((due - now) * 1000)))
        with self.lock.real:
            fd = -1 if self._broken else lib.nlct_events_fd(self._events[0])
        if fd < 0:
            self._pause(wait / 1000)
        elif lib.nlct_readable(fd, wait) != -errno.EAGAIN:
            # Also where nobody can tell, and not without a pause.
            self._pause(LOOK)
            with self.lock.real:
                self.drain()
        with self.lock.real:
            if self.in_step:
                self._look_at_mode()

    def _pause(self, seconds: float) -> None:
        """Wait, but not for stop()."""
        if self._stop.acquire(timeout=seconds):
            self._stop.release()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread, wait for its end, and let go of everything.

        Without ``wait``, or in a signal handler that has interrupted what the thread may wait for,
        the thread lets go by itself.
        """
        if not self._stopped:
            self._stopped = True
            # Another thread may do the same.
            with suppress(RuntimeError):
                self._stop.release()
        if self._thread.is_alive():
            if not wait or self.lock.real._is_owned() or _threads.get_ident() == self._ident:
                return
            self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        with self.lock.real:
            self._audit = None
            self.memory.close()
            self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close the sockets, as a forked child must: it shares them with its parent."""
        self._broken = True
        self.in_step = False
        ffi.release(self._events)
        ffi.release(self._anchor)
        if self.sock is not None:
            self.sock.close()
