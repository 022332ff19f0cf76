"""Counting flows by the values of their fields, and adding up their counters."""

from __future__ import annotations

import ipaddress
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nlct._ffi import ffi, lib, new_sink
from nlct._fields import FIELDS, IPV4, IPV6, AddressField, Field, NumberField, SpanField

_ALIASES = {"state": "tcp_state"}
_BITS = {IPV4: 32, IPV6: 128}
# What flows can be grouped by.
FIXED = tuple(name for name, field in FIELDS.items() if not isinstance(field, SpanField))
# By how many of them at once.
GROUPS: int = lib.NLCT_GROUPS
# What can be added up.
COUNTERS = ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply")


class Group(NamedTuple):
    """What flows are grouped by: a field; of an address perhaps only the first bits.

    ``prefix``: how many by family, None for whole addresses, which are no networks then.
    """

    field: Field
    prefix: dict[int, int] | None = None

    @classmethod
    def read(cls, given: str) -> Group:
        """Read a column's name, with a prefix or two behind an address: "src/24", "src/24/64"."""
        name, slash, rest = given.partition("/") if isinstance(given, str) else ("", "", "")
        field = FIELDS.get(_ALIASES.get(name, name))
        if field is None or isinstance(field, SpanField):
            hint = "" if isinstance(given, str) else "; give a Filter as filter=..."
            raise ValueError(
                "fields must be 'zone', 'proto', 'state', 'mark', 'src', 'src/24', 'dst', 'dport', "
                f"'status' or another column of fixed size, not {given!r}{hint}"
            )
        return cls(field, _prefix(field, given, rest) if slash else None)

    @property
    def packed(self) -> tuple[int, int, int]:
        """The group as the core has it."""
        bits = self.prefix or _BITS
        return self.field.number, bits[IPV4], bits[IPV6]

    @property
    def is_address(self) -> bool:
        """True if its values are addresses or networks."""
        return isinstance(self.field, AddressField)

    def value(self, packed: bytes | None, family: int) -> Any:
        """Read what a group's flows have in common; None where it is absent."""
        if packed is None:
            return None
        value = self.field.value(packed, family)
        return value if self.prefix is None else ipaddress.ip_network((value, self.prefix[family]))


def _prefix(field: Field, given: str, rest: str) -> dict[int, int]:
    """Read "24", the bits of one family, or "24/64", those of each."""
    found = re.fullmatch("(0|[1-9][0-9]{0,2})(?:/(0|[1-9][0-9]{0,2}))?", rest)
    ipv4, ipv6 = (int(found[1]), int(found[2] or _BITS[IPV6])) if found else (-1, -1)
    # A number alone is of one family; of the other, addresses stay whole.
    if found and found[2] is None and ipv4 > _BITS[IPV4]:
        ipv4, ipv6 = _BITS[IPV4], ipv4
    fine = 0 <= ipv4 <= _BITS[IPV4] and 0 <= ipv6 <= _BITS[IPV6]
    if not (fine and isinstance(field, AddressField)):
        raise ValueError(
            "fields may have the length of a prefix behind an address: 'src/24' (to 32 of IPv4), "
            f"'src/64' (33 to 128 of IPv6), or of both, 'src/24/64', not {given!r}"
        )
    return {IPV4: ipv4, IPV6: ipv6}


class Counts:
    """Counts by up to three fields, and sums of counters, in the core."""

    def __init__(self, fields: Sequence[str], of: Sequence[str] = ()) -> None:
        if len(fields) not in range(1, GROUPS + 1):
            raise TypeError(f"fields must be from one to {GROUPS}, not {len(fields)}")
        self._groups = [Group.read(given) for given in fields]
        self._of = _counters(of)

    def make_sink(self) -> ffi.CData:
        """Make a sink that counts, from nothing."""
        groups = ffi.new("struct nlct_group[]", [group.packed for group in self._groups])
        of = [field.number for field in self._of]
        self._sink = new_sink(lib.nlct_counts_new, groups, len(groups), of, len(of))
        return self._sink

    def counts(self) -> dict[Any, int]:
        """Return what it counted, by value or by values, in their order."""
        return by_value(self._groups, self._rows())

    def sums(self) -> dict[Any, tuple[int | None, ...]]:
        """Return the sums likewise, one for each counter; None where no flow of a group has it."""
        rows, each = self._rows(), len(self._of)
        if not rows:
            return {}
        size = len(rows) // COUNT_SIZE * each * _SUM.size
        sums = ffi.buffer(lib.nlct_counts_sums(self._sink[0]), size)
        values = [
            low | high << 64 if count else None for low, high, count in _SUM.iter_unpack(sums)
        ]
        return {
            key: tuple(values[at * each : (at + 1) * each])
            for key, at, _ in _in_order(self._groups, rows)
        }

    def packed(self) -> Any:
        """Return ``struct nlct_count``s as they are. To decode many of them takes long."""
        return self._rows()

    def totals(self) -> list[int | None]:
        """Return for each of them all its sums together; None if no flow has a counter."""
        each = len(self._of)
        size = len(self._rows()) // COUNT_SIZE * each * _SUM.size
        found = lib.nlct_counts_sums(self._sink[0])
        sums = _SUM.iter_unpack(ffi.buffer(found, size) if size else b"")
        there = (
            [low | high << 64 for low, high, many in one if many] for one in zip(*[sums] * each)
        )
        return [sum(one) if one else None for one in there]

    def unpacked(self, row: bytes) -> tuple[Any, ...]:
        """Return the values of a ``struct nlct_count``, one for each field."""
        _, *values, first, second, third, family = _COUNT.unpack(row)
        return tuple(
            group.value(packed if there else None, family)
            for group, packed, there in zip(self._groups, values, (first, second, third))
        )

    def _rows(self) -> Any:
        size = ffi.new("size_t *")
        counts = lib.nlct_counts_get(self._sink[0], size)
        return ffi.buffer(counts, size[0] * COUNT_SIZE) if size[0] else b""


def _counters(of: Sequence[str]) -> list[Field]:
    for name in of:
        if name not in COUNTERS:
            raise ValueError(f"of must be one or several of {', '.join(COUNTERS)}, not {name!r}")
    if len(set(of)) < len(of):
        raise ValueError("of must name each counter once")
    return [FIELDS[name] for name in of]


def by_value(groups: Sequence[Group], counts: Any) -> dict[Any, int]:
    """Read ``struct nlct_count``s: counts by value or by values, in their order."""
    return {key: count for key, _, count in _in_order(groups, counts)}


def _in_order(groups: Sequence[Group], counts: Any) -> Iterator[tuple[Any, int, int]]:
    """Yield what each group of flows has in common, where it stands in ``counts``, and its count.

    What is absent comes first, IPv4 before IPv6.
    """

    def order(numbered: tuple[int, _Row]) -> tuple[object, ...]:
        row = numbered[1]
        return (row[7], *map(_key, groups, row[1:4], row[4:7]))

    for at, row in sorted(enumerate(_COUNT.iter_unpack(counts)), key=order):
        family = row[7]
        values = [
            group.value(packed if there else None, family)
            for group, packed, there in zip(groups, row[1:4], row[4:7])
        ]
        yield tuple(values) if len(values) > 1 else values[0], at, row[0]


def _key(group: Group, packed: bytes, there: int) -> tuple[bool, int | bytes]:
    if not there:
        return False, 0
    if isinstance(group.field, NumberField):
        return True, int.from_bytes(packed[: group.field.size], sys.byteorder)
    return True, packed


# A struct nlct_count: count, three values, whether they are there, family.
_Row = tuple[int, bytes, bytes, bytes, int, int, int, int]
COUNT_SIZE = ffi.sizeof("struct nlct_count")
_PADDING = COUNT_SIZE - struct.calcsize("=Q16s16s16sBBBB")
_COUNT = struct.Struct(f"=Q16s16s16sBBBB{_PADDING}x")
# A struct nlct_sum: its two halves, and of how many flows.
_SUM = struct.Struct("=QQQ")
