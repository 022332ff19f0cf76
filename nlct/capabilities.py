"""What can this kernel do? Measured in a scratch network namespace, once per process."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from nlct import _buckets, _log, _socket, _threads
from nlct._dump import NOTHING, Dump
from nlct._ffi import ffi, lib, slot
from nlct.errors import Error, InterruptedDumpError, NotFoundError, UnsupportedError
from nlct.filter import Filter
from nlct.flow import Flow, Tuple, to_c
from nlct.netns import Netns

MEASURED = "measured"
RELEASE = "release"
_USE_SCRATCH = "use a scratch network namespace"


class Capabilities(NamedTuple):
    """What this kernel does with conntrack zones.

    ``release``: the kernel's release, as ``uname -r`` says it.
    ``zones``: flows may have a zone (CONFIG_NF_CONNTRACK_ZONES).
    ``zone_filter``: the explicit zone filter (``CTA_FILTER_ZONE``) works, which kernels that do not
    know it refuse instead of ignoring it. Where it does, zones are asked for in this way.
    ``zone_dump``: asked for one zone, the kernel sends that zone alone.
    ``zone_flush``: asked to flush one zone, it deletes that zone and nothing else; kernels that do
    not (before 6.8, if not backported) empty the whole table.
    ``zone0_flush``: the same for zone 0, which early kernels got wrong.
    ``evidence``: by name, "measured" in a scratch namespace, or "release" where no namespace
    could be had. A release number proves too little to send a zone flush, so there both
    flushes are False; ``zones`` is measured there too where a look at the caller's own table is
    allowed, and otherwise False.
    """

    release: str
    zones: bool
    zone_filter: bool
    zone_dump: bool
    zone_flush: bool
    zone0_flush: bool
    evidence: Mapping[str, str]


_FIELDS = ("zones", "zone_filter", "zone_dump", "zone_flush", "zone0_flush")
# Reentrant: a signal handler may ask while the main thread measures.
_lock = _threads.Lock()
# What was measured, by release.
_known: dict[str, Capabilities] = {}
# Releases of which it was said that their zones are flushed by scanning.
_warned: set[str] = set()


def _after_fork() -> None:
    """Let go of a lock that a thread of the parent may have held."""
    global _lock  # noqa: PLW0603
    _lock = _threads.Lock()


os.register_at_fork(after_in_child=_after_fork)


def probe() -> Capabilities:
    """Find out what this kernel can do, without touching any table but a scratch one.

    The first call measures, later ones remember; where measuring was not possible the next call
    tries again. Needs no privilege where user namespaces are allowed. Measuring walks the
    machine's hash table three times: some 15 ms, up to half a second where that holds half a
    million flows, of whatever namespace. It measures again where that table is resized meanwhile.
    """
    release = os.uname().release
    said: list[_log.Said] = []
    with _log.keep(said), _lock.real:
        found = _known.get(release) or _probe(release)
    _log.say_all(said)
    return found


def known() -> Capabilities | None:
    """Return what probe() has measured in this process, None as long as it has not."""
    return _known.get(os.uname().release)


def zone_request() -> int:
    """Return how to ask this kernel for a zone, as far as is known."""
    found = known()
    explicit = found is not None and found.zone_filter
    return int(lib.NLCT_ZONE_EXPLICIT if explicit else lib.NLCT_ZONE_PLAIN)


def _probe(release: str) -> Capabilities:
    try:
        found = _known[release] = measure(release)
    except Error as exc:
        _log.say(_log.DEBUG, "no scratch namespace to measure the kernel in: %s", exc)
        found = _with_zones(by_release(release))
    if not found.zone_flush and release not in _warned:
        _warned.add(release)
        _log.say(
            _log.WARNING,
            "Linux %s has not been seen to honour a zone flush (%s): zones are flushed by scanning",
            release,
            found.evidence["zone_flush"],
        )
    return found


def _with_zones(found: Capabilities) -> Capabilities:
    """Add what one look-up in the caller's own table tells: whether flows may have a zone."""
    try:
        with Netns.current() as netns:
            sock = _socket.Socket(netns)
        try:
            zones = has_zones(sock)
        finally:
            sock.close()
    except Error:
        return found
    return found._replace(zones=zones, evidence={**found.evidence, "zones": MEASURED})


def has_zones(sock: _socket.Socket) -> bool:
    """Ask for a flow in a zone: a kernel without zones refuses that."""
    try:
        _find(sock, 1)
    except UnsupportedError as exc:
        return _refused(exc)
    return True


def by_release(release: str) -> Capabilities:
    """Say what is sure from a release number alone."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    version = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
    # Upstream has the filter since 6.8; to be asked in vain costs time only.
    return Capabilities(
        release=release,
        zones=False,
        zone_filter=False,
        zone_dump=version >= (6, 8),
        zone_flush=False,
        zone0_flush=False,
        evidence=dict.fromkeys(_FIELDS, RELEASE),
    )


def example(zone: int) -> Flow:
    """Make a flow to try things with; its addresses are for documentation."""
    orig = Tuple(src="192.0.2.1", dst="192.0.2.2", proto="udp", sport=1, dport=1)
    return Flow(orig, zone=zone, timeout=60)


def _find(sock: _socket.Socket, zone: int) -> bool:
    """Tell if the example of a zone is there."""
    row, _heap = to_c(example(zone))
    found = ffi.new("struct nlct_flow *")
    heap = slot("struct nlct_bytes *", lib.nlct_bytes_free)
    try:
        sock.check(lib.nlct_get(sock.handle, row, found, heap), f"find the flow in zone {zone}")
    except NotFoundError:
        return False
    return True


class _Bench:
    """A scratch namespace with one flow in each of some zones."""

    def __init__(self, sock: _socket.Socket, zones: tuple[int, ...]) -> None:
        self._sock = sock
        self._zones = zones

    def fill(self) -> None:
        for zone in self._zones:
            if not _find(self._sock, zone):
                rc = lib.nlct_create(self._sock.handle, *to_c(example(zone)))
                self._sock.check(rc, f"create a flow in zone {zone}")

    def dumps_one_zone(self, zone: int, ask: int) -> bool:
        """Tell if a dump of 'zone' shows its flow and no other."""
        self.fill()
        try:
            walk = Dump(self._sock, Filter(zone=zone), ask, NOTHING)
            for _ in walk.steps():
                pass
        except Error as exc:
            return _refused(exc)
        return (walk.scanned, walk.matched) == (1, 1)

    def flushes_one_zone(self, zone: int, ask: int) -> bool:
        """Tell if a flush of 'zone' deletes its flow and no other."""
        self.fill()
        try:
            rc = lib.nlct_flush_zone(self._sock.handle, zone, ask)
            self._sock.check(rc, f"flush zone {zone}")
        except Error as exc:
            return _refused(exc)
        return [z for z in self._zones if not _find(self._sock, z)] == [zone]


def _refused(exc: Error) -> bool:
    """Return False where the kernel does not know what it was asked for.

    Any other error says nothing of the kernel, and is raised.
    """
    if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
        raise exc
    return False


def measure(release: str) -> Capabilities:
    """Try it all in a scratch namespace. Raises Error where none can be had, or it fails."""
    with Netns.scratch() as netns:
        sock = _socket.Socket(netns)
        try:
            require_empty(_count(sock))
            # Only now: the first request may make the kernel load conntrack, and with it the file.
            answers = _measure_undisturbed(sock, _buckets.watch(netns))
        finally:
            sock.close()
    return Capabilities(release, **answers, evidence=dict.fromkeys(_FIELDS, MEASURED))


def _measure_undisturbed(sock: _socket.Socket, buckets: ffi.CData) -> dict[str, bool]:
    """Measure until no resize fell into it: flows seem to be missing while the table is resized."""
    for _ in range(_buckets.MAX_PASSES):
        before = _buckets.read(buckets)
        try:
            answers = _measure(sock)
        except Error:
            if _buckets.read(buckets) == before:
                raise
            continue
        if _buckets.read(buckets) == before:
            return answers
    raise InterruptedDumpError(errno.EINTR, "measure what the kernel does")


def require_empty(flows: int) -> None:
    """Refuse a table that holds flows: it is nobody's scratch."""
    if flows:
        raise Error(errno.EEXIST, _USE_SCRATCH, reason=f"{flows} flows are there already")


def _count(sock: _socket.Socket) -> int:
    entries = ffi.new("uint32_t *")
    sock.check(lib.nlct_stats(sock.handle, entries, ffi.new("uint32_t *")), _USE_SCRATCH)
    return int(entries[0])


def _measure(sock: _socket.Socket) -> dict[str, bool]:
    bench = _Bench(sock, (0, 1, 2))
    try:
        bench.fill()
    except UnsupportedError:
        return dict.fromkeys(_FIELDS, False)
    # The explicit filter first: a refusal says more than silence.
    explicit = bench.dumps_one_zone(1, lib.NLCT_ZONE_EXPLICIT)
    ask = lib.NLCT_ZONE_EXPLICIT if explicit else lib.NLCT_ZONE_PLAIN
    return {
        "zones": True,
        "zone_filter": explicit,
        "zone_dump": explicit or bench.dumps_one_zone(1, ask),
        "zone_flush": bench.flushes_one_zone(1, ask),
        "zone0_flush": bench.flushes_one_zone(0, ask),
    }
