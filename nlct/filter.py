"""What may be asked of a flow."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import NamedTuple, Union

from nlct import _check
from nlct._ffi import ffi, lib

Zones = Union[int, Iterable[int]]

_FAMILIES = {
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
    socket.AF_INET: socket.AF_INET,
    socket.AF_INET6: socket.AF_INET6,
}


def zone_set(value: Zones) -> frozenset[int]:
    """Return the zones as a set; None is no zone, least of all every zone."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return frozenset(_check.integer("zone", zone, 0, _check.U16) for zone in value)
    return frozenset((_check.integer("zone", value, 0, _check.U16),))


def _family(value: int | str) -> int:
    known = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not known or value not in _FAMILIES:
        raise ValueError(
            f"family must be 'ipv4', 'ipv6', socket.AF_INET or AF_INET6, not {value!r}"
        )
    return int(_FAMILIES[value])


class _FilterFields(NamedTuple):
    zone: frozenset[int] | None
    family: int | None


class Filter(_FilterFields):
    """Which flows are meant. Fields are ANDed; a set, list or range inside a field is ORed.

    ``zone``: a zone id from 0 to 65535, or several (``CTA_ZONE``, ``-w``). Zones match by id,
    whichever direction they apply to. An empty set matches nothing.
    ``family``: "ipv4" or "ipv6", or ``socket.AF_INET`` or ``AF_INET6`` (``-f``).
    A field that is None matches everything.

    Raises TypeError or ValueError, naming the field and its range.
    """

    __slots__ = ()

    def __new__(cls, zone: Zones | None = None, family: int | str | None = None) -> Filter:
        """Check and compile the fields."""
        return super().__new__(
            cls,
            zone=None if zone is None else zone_set(zone),
            family=None if family is None else _family(family),
        )

    def to_c(self) -> ffi.CData:
        """Make the ``struct nlct_filter *``."""
        compiled = ffi.new("struct nlct_filter *")
        if self.family is not None:
            compiled.family = self.family
            compiled.present |= lib.NLCT_FILTER_FAMILY
        if self.zone is not None:
            bits = ffi.buffer(compiled.zones)
            for zone in self.zone:
                index = zone // 8
                bits[index] = bytes((bits[index][0] | 1 << zone % 8,))
            compiled.present |= lib.NLCT_FILTER_ZONE
        return compiled
