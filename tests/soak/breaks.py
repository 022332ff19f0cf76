"""Ways to break it on purpose: each must make the soak fail, which its own test shows.

Each is done once in every round.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

import nlct
from tests.soak.content import CHURN, KEPT, TALKING
from tests.support import netlink, oracle

if TYPE_CHECKING:
    from tests.soak.__main__ import Soak

held: list[Any] = []


def kept(soak: Soak) -> None:
    """Delete one of the kept flows."""
    for key, entry in oracle.inside(oracle.dump(soak.netns), KEPT).items():
        oracle.delete(soak.netns, key, entry)
        return


def reborn(soak: Soak) -> None:
    """Delete one of the kept flows and create it anew, with another mark."""
    with nlct.Conntrack(soak.netns) as ct:
        flow = next(flow for flow in ct.dump(zone=KEPT[0]) if flow.orig.proto == nlct.Proto.UDP)
        ct.delete_flow(flow)
        ct.create(nlct.Flow(flow.orig, zone=flow.zone, timeout=600, status=flow.status, mark=77))


def silence(soak: Soak) -> None:
    """Delete the entry of a connection that must go on talking."""
    with nlct.Conntrack(soak.netns) as ct:
        ct.flush_zone(TALKING[0])


def leftover(soak: Soak) -> None:
    """Have every flush of zones leave a flow behind."""

    def flush_zones(zones: Any, **_: Any) -> nlct.FlushResult:
        flows = list(soak.place.ct.dump(zone=zones))
        for flow in flows[1:]:
            with contextlib.suppress(nlct.NotFoundError):
                soak.place.ct.delete_flow(flow)
        return nlct.FlushResult(len(flows), len(flows), len(flows), 0, {})

    soak.place.ct.flush_zones = flush_zones  # type: ignore[method-assign]


def too_much(soak: Soak) -> None:
    """Have every flush of zones delete half of the others' flows."""
    real = nlct.Conntrack(soak.netns)
    held.append(real)

    def flush_zones(zones: Any, **how: Any) -> nlct.FlushResult:
        real.delete(nlct.Filter(zone=range(CHURN[0], CHURN[-1], 2)))
        return real.flush_zones(zones, **how)

    soak.place.ct.flush_zones = flush_zones  # type: ignore[method-assign]


def mirror(soak: Soak) -> None:
    """Have the mirror forget a flow of each zone that it flushes."""
    real = soak.place.mirror.flush_zone

    def flush_zone(zone: int, **how: Any) -> nlct.FlushResult:
        spared = next(iter(soak.place.ct.dump(zone=zone)), None)
        result = real(zone, **how)
        if spared is not None:
            soak.place.ct.load([spared])
        return result

    soak.place.mirror.flush_zone = flush_zone  # type: ignore[method-assign]


def worker(soak: Soak) -> None:
    """Have an operation raise what nobody expects."""

    def load(*_: Any, **__: Any) -> nlct.LoadResult:
        raise LookupError("on purpose")

    soak.place.ct.load = load  # type: ignore[method-assign]


def client(soak: Soak) -> None:
    """Give the clients nothing to work on."""
    soak.order["netns"] = "/dev/null"


def straggler(soak: Soak) -> None:
    """Have a process that lives on with a socket to conntrack."""
    with netlink.connect(soak.netns) as sock:
        sock.bind((0, 0))
        fds = (sock.fileno(),)
        held.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=fds))


def listener(soak: Soak) -> None:
    """Count an event that was not told."""
    soak.listener.miscount()


def descriptor(_: Soak) -> None:
    """Leak a descriptor."""
    held.append(os.open("/dev/null", os.O_RDONLY))


def memory(_: Soak) -> None:
    """Leak memory."""
    held.append(bytearray(os.urandom(4 << 20)))


def thread(_: Soak) -> None:
    """Leave a thread behind."""
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def _all() -> Iterator[Callable[[Any], None]]:
    yield from (kept, reborn, silence, leftover, too_much, mirror, worker, client)
    yield from (straggler, listener, descriptor, memory, thread)


BREAKS = {each.__name__: each for each in _all()}
