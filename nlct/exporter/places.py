"""The namespaces whose tables are shown, as they come and go.

A namespace that somebody holds lives on without its name. So what has lost its name is let go.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client.core import Sample

from nlct import _log
from nlct._closing import Closing
from nlct.conntrack import Conntrack
from nlct.errors import PrivilegeError
from nlct.exporter.flows import Breakdown
from nlct.mirror import Mirror
from nlct.netns import NAMED, Identity, Netns

# The name of the namespace that the object was made in. No other can have it.
OWN = ""


class Place(Closing):
    """One namespace: its table, and what the worker keeps of it."""

    def __init__(self, name: str, ct: Conntrack, identity: Identity | None = None) -> None:
        self.name, self.ct, self.identity = name, ct, identity
        self.mirror: Mirror | None = None
        self.samples: dict[Breakdown, list[Sample]] = {}
        self.counted_at: float | None = None
        self.counting_seconds = 0.0
        # Why it could not be counted in full the last time.
        self.failure = ""
        self.closed = False

    def keep_mirror(self) -> None:
        """Make a mirror if there is none. Raises OSError if that cannot be."""
        if self.mirror is None:
            mirror = self.mirror = Mirror(self.ct)
            # The place may have been closed meanwhile.
            if self.closed:
                mirror.close()

    def close(self) -> None:
        """Let go of the namespace."""
        self.closed = True
        if self.mirror is not None:
            self.mirror.close()
        self.ct.close()


class Places(Closing):
    """The namespaces of ``names``; none of them: the calling thread's own.

    ``every``: besides these, the own one and each that has a name under /run/netns.
    """

    def __init__(self, names: Iterable[str], every: bool) -> None:
        self._named = tuple(dict.fromkeys(map(_name, names)))
        self._every = every
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        # Why some could not be opened the last time.
        self._refused: list[PrivilegeError] = []
        # Those that have lost their name, until release().
        self._gone: list[Place] = []
        self._closed = False
        # Only here: it is the namespace of the thread that makes the object.
        if every or not self._named:
            self._places[OWN] = Place(OWN, Conntrack())

    def look(self) -> dict[str, Place | None]:
        """Return the namespaces there are, by name; None where one cannot be worked in.

        What has appeared is opened, and what is gone is for release() to let go.
        """
        with self._lock:
            if self._closed:
                return {}
            wanted = self._wanted()
            for name in self._places.keys() - {OWN}:
                if name not in wanted or _identity(name) != self._places[name].identity:
                    self._gone.append(self._places.pop(name))
            self._refused.clear()
            for name in wanted:
                if name not in self._places:
                    self._open(name)
            own = {OWN: self._places[OWN]} if OWN in self._places else {}
            return {**own, **{name: self._places.get(name) for name in wanted}}

    def release(self) -> None:
        """Let go of what is gone. Not for a scrape: to close a mirror takes a while."""
        with self._lock:
            gone, self._gone = self._gone, []
        for place in gone:
            place.close()

    def require_privilege(self) -> None:
        """Raise PrivilegeError if a namespace may not be entered, or its table not be read."""
        for place in self.look().values():
            if place is not None:
                place.ct.stats()
        for exc in self._refused:
            raise exc

    def _wanted(self) -> tuple[str, ...]:
        found: list[str] = []
        if self._every:
            with suppress(OSError):
                found = sorted(os.listdir(NAMED))
        return tuple(dict.fromkeys((*self._named, *found)))

    def _open(self, name: str) -> None:
        # It may be gone again, or be the file that a name leaves behind.
        try:
            with Netns.open(name) as netns:
                self._places[name] = Place(name, Conntrack(netns), netns.identity)
        except PrivilegeError as exc:
            self._refused.append(exc)
        except (OSError, ValueError) as exc:
            _log.say(_log.DEBUG, "network namespace %s cannot be read: %s", name, exc)

    def close(self) -> None:
        """Let go of all of them. May be called again."""
        with self._lock:
            self._closed = True
            self._gone += self._places.values()
            self._places.clear()
        self.release()


def _name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"netns must be names or paths, not {name!r}")
    if name == OWN:
        raise ValueError("netns must not be empty")
    return name


def _identity(name: str) -> Identity | None:
    try:
        found = os.stat(name if "/" in name else f"{NAMED}/{name}")
    except OSError:
        return None
    return found.st_dev, found.st_ino
