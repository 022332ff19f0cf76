"""What nlct_worker.py does with events: mirrors, and streams."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any, Callable

import nlct

Work = Callable[[], Any]

# A zone that no table here has.
EMPTY = 65535
# A mirror or a stream of events, from its "listen" or "events" to "close".
kept: list[Any] = []


def listen(ct: nlct.Conntrack, *index: str) -> Work:
    """A mirror, until it is in step. "elsewhere": of another namespace, which is empty."""
    place: Any = ct
    if "elsewhere" in index:
        place, index = nlct.Netns.scratch(), ("zone",)

    def work() -> dict[str, Any]:
        # An audit is measured by itself.
        mirror = nlct.Mirror(place, index=index, audit_interval=86400)
        kept.append(mirror)
        mirror.wait()
        state = mirror.state
        return {"bytes_per_flow": round(state.memory / state.flows, 1)} if state.flows else {}

    return work


def ready_mirror() -> nlct.Mirror:
    """The mirror, once it has done all that it does only once."""
    mirror: nlct.Mirror = kept[-1]
    mirror.wait()
    mirror.flush_zone(EMPTY)
    mirror.delete(nlct.Filter(zone=EMPTY, src="192.0.2.255"))
    return mirror


def told(result: nlct.FlushResult) -> dict[str, Any]:
    """Check a mirror's result and return its notes. It is never complete: no audit runs here."""
    if result.failed:
        raise RuntimeError(str(result))
    return {"strategy": result.strategy, "deleted": result.deleted}


def mirror_flush_zone(zone: str) -> Work:
    mirror = ready_mirror()
    return lambda: told(mirror.flush_zone(int(zone)))


def mirror_delete(src: str) -> Work:
    mirror = ready_mirror()
    return lambda: told(mirror.delete(nlct.Filter(src=src)))


def mirror_delete_zone(zone: str) -> Work:
    """By deletes, whatever the zone holds."""
    mirror = ready_mirror()
    return lambda: told(mirror.delete(nlct.Filter(zone=int(zone))))


def mirror_storm(first: str, count: str) -> Work:
    return all_at_once(ready_mirror().flush_zone, zones(first, count))


def mirror_count_by(field: str) -> Work:
    return partial(ready_mirror().count_by, field)


def close() -> Work:
    return lambda: kept.pop().close()


def settle() -> Work:
    """Let a mirror do what it does some seconds after its start."""

    def work() -> None:
        while not kept[-1].state.audits:
            time.sleep(0.05)

    return work


def follow(events: str) -> Work:
    """So many events since the mirror began to listen, in processor time."""
    mirror = kept[-1]
    began, deadline = time.process_time(), time.monotonic() + 60

    def work() -> dict[str, Any]:
        while mirror.state.events < int(events):
            if mirror.state.overruns or time.monotonic() > deadline:
                raise RuntimeError(f"not all events came: {mirror.state}")
            time.sleep(0.02)
        return {"seconds": time.process_time() - began}

    return work


def audit(ct: nlct.Conntrack, interval: str) -> Work:
    """A round of the audit, in processor time, and its share of a processor by default."""
    from nlct.mirror import AUDIT_INTERVAL  # noqa: PLC0415

    kept.append(nlct.Mirror(ct, audit_interval=float(interval)))

    def begin_of_round(number: int) -> float:
        while kept[-1].state.audits < number:
            time.sleep(0.05)
        return time.process_time()

    def work() -> dict[str, Any]:
        # The first one hurries.
        seconds = begin_of_round(2) - begin_of_round(1)
        # Two rounds in the time that is asked for.
        return {"seconds": seconds, "percent": round(200 * seconds / AUDIT_INTERVAL, 2)}

    return work


def events(ct: nlct.Conntrack) -> Work:
    """A stream of them, with room for all of a case."""
    return lambda: kept.append(ct.events(buffer=1 << 29))


def events_loop(count: str) -> Work:
    """So many events, of which some things are read, in processor time."""
    stream, left = kept[-1], int(count)

    def work() -> dict[str, Any]:
        nonlocal left
        began = time.process_time()
        for event in stream:
            _ = event.kind, event.flow.orig.src, event.flow.zone
            left -= 1
            if not left:
                break
        return {"seconds": time.process_time() - began}

    return work


def events_batches(count: str) -> Work:
    """So many events, as tables with every column, in processor time."""
    stream, left = kept[-1], int(count)

    def work() -> dict[str, Any]:
        nonlocal left
        began = time.process_time()
        for batch in stream.batches():
            left -= len(batch)
            if left <= 0:
                break
        return {"seconds": time.process_time() - began}

    return work


def zones(first: str, count: str) -> range:
    return range(int(first), int(first) + int(count))


def all_at_once(flush_zone: Callable[[int], object], wanted: range) -> Work:
    """Call it in a thread for each zone."""
    together = threading.Barrier(len(wanted) + 1)

    def ask(zone: int) -> None:
        together.wait()
        flush_zone(zone)

    threads = [threading.Thread(target=ask, args=(zone,)) for zone in wanted]
    for thread in threads:
        thread.start()

    def work() -> None:
        together.wait()
        for thread in threads:
            thread.join()

    return work


# They need no Conntrack.
OPERATIONS: dict[str, Callable[..., Work]] = {
    make.__name__: make
    for make in (
        close,
        settle,
        follow,
        mirror_flush_zone,
        mirror_delete,
        mirror_delete_zone,
        mirror_storm,
        mirror_count_by,
        events_loop,
        events_batches,
    )
}
