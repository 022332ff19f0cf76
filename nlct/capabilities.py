"""What this kernel can do, measured in a scratch network namespace once per process."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from nlct import _log, _threads
from nlct._ffi import ffi, lib
from nlct._handle import NOTHING, Dump, Handle, everything
from nlct.counts import Counts
from nlct.errors import Error, InterruptedDumpError, NotFoundError, UnsupportedError
from nlct.flow import Flow, Tuple, to_c
from nlct.netns import Netns

MEASURED = "measured"
RELEASE = "release"
_USE_SCRATCH = "use a scratch network namespace"


class Capabilities(NamedTuple):
    """What this kernel does with conntrack zones.

    ``release``: the kernel's release, as ``uname -r`` says it.
    ``zones``: flows may have a zone (CONFIG_NF_CONNTRACK_ZONES).
    ``zone_filter``: the explicit zone filter (``CTA_FILTER_ZONE``) works. Kernels that do not know
    it refuse it instead of ignoring it, so zones are asked for in this way if it works.
    ``zone_dump``: asked for one zone, the kernel sends that zone alone.
    ``zone_flush``: asked to flush one zone, it deletes that zone and nothing else. Kernels that do
    not know the filter (before 6.8, unless backported) empty the whole table.
    ``zone0_flush``: the same for zone 0, which early kernels got wrong.
    ``evidence``: by name, "measured" in a scratch namespace, or "release" if no namespace could be
    made. A release number proves too little to send a zone flush, so both flushes are False then.
    ``zones`` is then measured by a request to the caller's own table if that is allowed, and
    otherwise False.
    """

    release: str
    zones: bool
    zone_filter: bool
    zone_dump: bool
    zone_flush: bool
    zone0_flush: bool
    evidence: Mapping[str, str]


_FIELDS = ("zones", "zone_filter", "zone_dump", "zone_flush", "zone0_flush")
_ZONES = (0, 1, 2)
# How often a measurement is made, before it counts as failed because resizes disturb it.
MAX_TIMES = 10
# Reentrant: a signal handler may ask while the main thread measures.
_lock = _threads.Lock()
# What was measured, by release. Answers that were not are those of by_release().
_known: dict[str, Capabilities] = {}
# Releases that the warning about scanning was given for.
_warned: set[str] = set()


def _after_fork() -> None:
    """Replace a lock that a thread of the parent may have held."""
    global _lock  # noqa: PLW0603
    _lock = _threads.Lock()


os.register_at_fork(after_in_child=_after_fork)


def probe() -> Capabilities:
    """Find out what this kernel can do, without touching any table but a scratch one.

    It remembers what it measures, and measures only the rest. If measuring is not possible, the
    next call tries again. It needs no privilege where user namespaces are allowed. To measure
    everything takes a dump and two flushes of a scratch namespace, each over the machine's whole
    hash table: some 15 ms, up to half a second if that table holds half a million flows of any
    namespace. If the table is resized meanwhile, it measures again.
    """
    return _ask(_FIELDS)


def known() -> Capabilities:
    """Return what this process has measured; the rest by the release."""
    release = os.uname().release
    return _known.get(release) or by_release(release)


def zone_request() -> int:
    """Return how to ask this kernel for a zone (``lib.NLCT_ZONE_...``)."""
    return _zone_request(known())


def _zone_request(found: Capabilities) -> int:
    return int(lib.NLCT_ZONE_EXPLICIT if found.zone_filter else lib.NLCT_ZONE_PLAIN)


def may_flush(zones: frozenset[int]) -> bool:
    """Tell if this kernel has been seen to flush each of these zones, and nothing more.

    It measures what it does not know yet, and no more.
    """
    questions = _questions(zones)
    found = _ask(questions)
    return all(getattr(found, each) and _is_measured(found, each) for each in questions)


def unasked(zones: frozenset[int]) -> int:
    """Return how many questions may_flush() would measure; each takes about as long as a dump."""
    return len(_missing(known(), _questions(zones)))


def _questions(zones: frozenset[int]) -> list[str]:
    return ["zone0_flush"] * (0 in zones) + ["zone_flush"] * bool(zones - {0})


def _is_measured(found: Capabilities, name: str) -> bool:
    return found.evidence[name] == MEASURED


def _ask(names: Collection[str]) -> Capabilities:
    """Return what is known after measuring these answers, if that is possible.

    Where they are known already, this waits for no other thread.
    """
    found = known()
    if not _missing(found, names):
        return found
    said: list[_log.Said] = []
    with _log.keep(said), _lock.real:
        found = _answer(names)
    _log.say_all(said)
    return found


def _missing(found: Capabilities, names: Collection[str]) -> list[str]:
    return [name for name in names if not _is_measured(found, name)]


def _answer(names: Collection[str]) -> Capabilities:
    found, release = known(), os.uname().release
    missing = _missing(found, names)
    try:
        if missing:
            found = _known[release] = measure(release, missing)
    except Error as exc:
        _log.say(_log.DEBUG, "no scratch namespace to measure the kernel in: %s", exc)
        if "zones" in names:
            found = _with_zones(found)
    if "zone_flush" in names and not found.zone_flush and release not in _warned:
        _warned.add(release)
        _log.say(
            _log.WARNING,
            "Linux %s has not been seen to honour a zone flush (%s): zones are flushed by scanning",
            release,
            found.evidence["zone_flush"],
        )
    return found


def _with_zones(found: Capabilities) -> Capabilities:
    """Add whether flows may have a zone, which one request to the caller's own table tells."""
    try:
        with Handle(Netns.current()) as handle:
            return _with(found, {"zones": has_zones(handle)})
    except Error:
        return found


def _with(found: Capabilities, answers: dict[str, Any]) -> Capabilities:
    """Add what was measured."""
    evidence = {**found.evidence, **dict.fromkeys(answers, MEASURED)}
    return found._replace(**answers, evidence=evidence)


def has_zones(handle: Handle) -> bool:
    """Ask for a flow in a zone: a kernel without zones refuses that."""
    try:
        _is_there(handle, 1)
    except UnsupportedError as exc:
        return _refused(exc)
    return True


def by_release(release: str) -> Capabilities:
    """Return what a release number alone can promise."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    version = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
    # Upstream has the filter since 6.8. A wrong True here costs time, and deletes nothing.
    return Capabilities(
        release=release,
        zones=False,
        zone_filter=False,
        zone_dump=version >= (6, 8),
        zone_flush=False,
        zone0_flush=False,
        evidence=dict.fromkeys(_FIELDS, RELEASE),
    )


# Measuring ---------------------------------------------------------------------------------------


def example(zone: int) -> Flow:
    """Make a flow to try things with; its addresses are for documentation."""
    orig = Tuple(src="192.0.2.1", dst="192.0.2.2", proto="udp", sport=1, dport=1)
    return Flow(orig, zone=zone, timeout=60)


def _is_there(handle: Handle, zone: int) -> bool:
    """Tell if the example of a zone is there."""
    key, _heap = to_c(example(zone))
    try:
        handle.get(key, f"find the flow in zone {zone}")
    except NotFoundError:
        return False
    return True


def _fill(handle: Handle) -> None:
    """Have one flow in each of some zones."""
    for zone in _ZONES:
        if not _is_there(handle, zone):
            handle.create(*to_c(example(zone)))


def _dumps_one_zone(handle: Handle, zone: int, request: int) -> bool:
    """Tell if a dump of ``zone`` holds its flow and no other."""
    _fill(handle)
    # Never full, however often a resize repeats a flow.
    counts = Counts(("zone",))
    asked = ffi.new("struct nlct_kernel_filter *", {"zone_request": request, "zone": zone})
    try:
        with (
            handle.pool.lend() as sock,
            Dump(sock, everything(), asked, NOTHING, insist=True) as dump,
        ):
            for _ in dump.steps(counts.make_sink()):
                pass
    except Error as exc:
        return _refused(exc)
    return counts.counts() == {zone: 1}


def _flushes_one_zone(handle: Handle, zone: int, request: int) -> bool:
    """Tell if a flush of ``zone`` deletes its flow and no other."""
    _fill(handle)
    try:
        handle.flush_zone(zone, request)
    except Error as exc:
        return _refused(exc)
    return [each for each in _ZONES if not _is_there(handle, each)] == [zone]


def _refused(exc: Error) -> bool:
    """Return False if the error means that the kernel does not know the request.

    Raises any other error, which says nothing about that.
    """
    if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
        raise exc
    return False


def measure(release: str, names: Collection[str] = _FIELDS) -> Capabilities:
    """Measure these answers in a scratch namespace, and add them to what is known of the release.

    Raises Error if no namespace can be made, or if measuring fails.
    """
    found = _known.get(release) or by_release(release)
    with Handle(Netns.scratch()) as handle:
        require_empty(handle.stats()[0])
        return _with(found, _measure_undisturbed(handle, found, names))


def _measure_undisturbed(
    handle: Handle, found: Capabilities, names: Collection[str]
) -> dict[str, bool]:
    """Measure until no resize disturbs it: during one, flows seem to be missing."""
    for _ in range(MAX_TIMES):
        before = handle.read_buckets()
        try:
            answers = _measure(handle, found, names)
        except Error:
            if handle.read_buckets() == before:
                raise
            continue
        if handle.read_buckets() == before:
            return answers
    raise InterruptedDumpError(errno.EINTR, "measure what the kernel does")


def require_empty(flows: int) -> None:
    """Refuse a table that holds flows: it is no scratch namespace."""
    if flows:
        raise Error(errno.EEXIST, _USE_SCRATCH, reason=f"{flows} flows are there already")


def _measure(handle: Handle, found: Capabilities, names: Collection[str]) -> dict[str, bool]:
    """Measure these answers, and those that they depend on."""
    try:
        _fill(handle)
    except UnsupportedError:
        return dict.fromkeys(_FIELDS, False)
    answers = {"zones": True}
    # The explicit filter comes first: if it works, all other requests use it.
    if not _is_measured(found, "zone_filter"):
        answers["zone_filter"] = _dumps_one_zone(handle, 1, lib.NLCT_ZONE_EXPLICIT)
    found = _with(found, answers)
    request = _zone_request(found)
    if "zone_dump" in names:
        answers["zone_dump"] = found.zone_filter or _dumps_one_zone(handle, 1, request)
    if "zone_flush" in names:
        answers["zone_flush"] = _flushes_one_zone(handle, 1, request)
    if "zone0_flush" in names:
        answers["zone0_flush"] = _flushes_one_zone(handle, 0, request)
    return answers
