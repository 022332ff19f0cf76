"""Does an expression restrict anything? What delete() asks before it believes a filter.

Where one field is concerned this is exact: what a test says of it is a set of numbers, and sets are
joined and inverted as the tests are. A flow without the field is one more number. Masked values are
no intervals, and are searched bit by bit for a number that none of them agrees with.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nlct._expression import MASK, PREFIX, RANGE, And, Node, Not, Or, Test
from nlct._ffi import lib
from nlct._fields import FIELDS
from nlct.enums import Status

# Masked values of one field, and steps of the search, up to which it is told.
MOST_MASKED = 1000
MOST_STEPS = 2_000_000

_IN_EVERY_FLOW = (
    *("family", "zone", "src", "dst", "reply_src", "reply_dst", "proto"),
    *("status", "timeout", "mark", "id"),
)
_ABSENT = -1
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Behind all of IPv4's.
_FIRST_OF_IPV6 = 2**32


class Cover(enum.IntEnum):
    """How much it matches of what there may be; PART where that is not known to be the whole."""

    PART = 0
    UNTOLD = 1
    WHOLE = 2


# Both ends of an interval are in it.
_Intervals = list[tuple[int, int]]
# A node and whether it is inverted.
_Signed = tuple[Node, bool]
# Value and mask.
_Masked = tuple[int, int]


def cover(node: Node, inverted: bool = False) -> Cover:
    """Tell how much of what there may be it matches, or does not match."""
    if isinstance(node, Not):
        return cover(node.part, not inverted)
    if isinstance(node, Or if inverted else And):
        least = Cover.WHOLE
        for part in node.parts:
            least = min(least, cover(part, inverted))
            if least is Cover.PART:
                break
        return least
    most = Cover.PART
    by_field: dict[str, list[_Signed]] = {}
    for part, sign in _alternatives(node, inverted):
        fields = set(_fields(part))
        if len(fields) == 1:
            by_field.setdefault(fields.pop(), []).append((part, sign))
        else:
            most = max(most, cover(part, sign))
    return max((most, *(_cover_of(field, parts) for field, parts in by_field.items())))


def _alternatives(node: Node, inverted: bool) -> Iterator[_Signed]:
    """Yield the parts of "or", and of what comes to the same."""
    if isinstance(node, Not):
        yield from _alternatives(node.part, not inverted)
    elif isinstance(node, And if inverted else Or):
        for part in node.parts:
            yield from _alternatives(part, inverted)
    else:
        yield node, inverted


def _fields(node: Node) -> Iterator[str]:
    if isinstance(node, Test):
        yield node.field
    elif isinstance(node, Not):
        yield from _fields(node.part)
    else:
        for part in node.parts:
            yield from _fields(part)


def _tests(parts: Iterable[_Signed]) -> Iterator[Test]:
    for node, inverted in parts:
        if isinstance(node, Test):
            yield node
        else:
            inner = (node.part,) if isinstance(node, Not) else node.parts
            yield from _tests((part, inverted) for part in inner)


def _cover_of(field: str, parts: list[_Signed]) -> Cover:
    """Tell it of alternatives about one field."""
    masks = {
        value for test in _tests(parts) if test.kind == lib.NLCT_TEST_MASKS for value in test.values
    }
    if len(masks) > MOST_MASKED:
        return Cover.UNTOLD
    if masks or field == "status":
        return _cover_by_bits(field, parts)
    found = _joined(_set(part, inverted, field) for part, inverted in parts)
    whole = all(
        any(low <= first and last <= high for low, high in found) for first, last in _domain(field)
    )
    return Cover.WHOLE if whole else Cover.PART


# Sets of numbers ---------------------------------------------------------------------------------


def _bounds(field: str) -> tuple[int, int]:
    """Return the lowest and the highest number that stand for a value of the field."""
    lowest = 0 if field in _IN_EVERY_FLOW else _ABSENT
    if FIELDS[field].kind == lib.NLCT_ADDRESS:
        return lowest, _FIRST_OF_IPV6 + 2**128 - 1
    return lowest, 2 ** (8 * FIELDS[field].size) - 1


def _domain(field: str) -> _Intervals:
    """Return the numbers that there may be."""
    return [(n, n) for n in _FAMILIES] if field == "family" else [_bounds(field)]


def _set(node: Node, inverted: bool, field: str) -> _Intervals:
    """Return the numbers that agree with an expression about this field, without masks."""
    if isinstance(node, Not):
        return _set(node.part, not inverted, field)
    if isinstance(node, Test):
        found = _joined([[_interval(node, packed) for packed in node.values]])
        return _inverse(found, *_bounds(field)) if inverted else found
    if isinstance(node, And if inverted else Or):
        return _joined(_set(part, inverted, field) for part in node.parts)
    # All of them: what is in none of their inverses.
    left_out = _joined(_set(part, not inverted, field) for part in node.parts)
    return _inverse(left_out, *_bounds(field))


def _interval(test: Test, packed: bytes) -> tuple[int, int]:
    if test.kind == lib.NLCT_TEST_RANGES:
        low, high = RANGE.unpack(packed)
        return low, high
    start, family, length = PREFIX.unpack(packed)
    if family == socket.AF_INET:
        first = int.from_bytes(start[:4], "big")
        return first, first + 2 ** (32 - length) - 1
    first = int.from_bytes(start, "big") + (_FIRST_OF_IPV6 if family else 0)
    return first, first + 2 ** (128 - length) - 1


def _joined(sets: Iterable[_Intervals]) -> _Intervals:
    """Join sets: sorted, apart from each other."""
    found: _Intervals = []
    for low, high in sorted(interval for one in sets for interval in one):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def _inverse(intervals: _Intervals, lowest: int, highest: int) -> _Intervals:
    found = []
    following = lowest
    for low, high in intervals:
        if low > following:
            found.append((following, low - 1))
        following = high + 1
    if following <= highest:
        found.append((following, highest))
    return found


# Masks -------------------------------------------------------------------------------------------


class _Clause(NamedTuple):
    """Alternatives: a number agrees with a masked value, or with each clause of a group."""

    masked: list[_Masked]
    groups: list[list[_Clause]]


class _TooLongError(Exception):
    pass


def _cover_by_bits(field: str, parts: list[_Signed]) -> Cover:
    if field not in _IN_EVERY_FLOW and not any(_without_it(*part) for part in parts):
        return Cover.PART
    clause = _clause(parts)
    if field == "labels" and clause is not None:
        # No flow has it: labels of which none is set are not sent.
        clause.masked.append((0, 2**128 - 1))
    search = _Search()
    try:
        if field == "status":
            # Every flow in a table has this bit.
            clause = search.fixed(clause, Status.CONFIRMED, True)
        return Cover.WHOLE if search.is_whole(clause) else Cover.PART
    except _TooLongError:
        return Cover.UNTOLD


def _without_it(node: Node, inverted: bool) -> bool:
    """Tell what becomes of a flow that lacks the field."""
    if isinstance(node, Test):
        return inverted
    if isinstance(node, Not):
        return _without_it(node.part, not inverted)
    settles = any if isinstance(node, And if inverted else Or) else all
    return settles(_without_it(part, inverted) for part in node.parts)


def _clause(parts: Iterable[_Signed]) -> _Clause | None:
    """Make the clause of alternatives about one field; None where every number agrees."""
    clause = _Clause([], [])
    for node, inverted in (one for part in parts for one in _alternatives(*part)):
        whole = False
        if not isinstance(node, Test):
            assert not isinstance(node, Not)
            whole = _add(clause, [_clause([(part, inverted)]) for part in node.parts])
        elif node.kind == lib.NLCT_TEST_RANGES:
            top = _bounds(node.field)[1]
            blocks = [
                b for low, high in _set(node, inverted, node.field) for b in _blocks(low, high, top)
            ]
            whole = any(not mask for _, mask in blocks)
            clause.masked.extend(blocks)
        elif inverted:
            whole = _add(clause, [_others(*_masked(packed)) for packed in node.values])
        else:
            clause.masked.extend(map(_masked, node.values))
        if whole:
            return None
    return clause


def _add(clause: _Clause, group: Iterable[_Clause | None]) -> bool:
    """Add a group to the alternatives; return whether every number agrees with it."""
    parts = [part for part in group if part is not None]
    if len(parts) == 1:
        clause.masked.extend(parts[0].masked)
        clause.groups.extend(parts[0].groups)
    elif all(part.masked or part.groups for part in parts):
        clause.groups.append(parts)
    return not parts


def _masked(packed: bytes) -> _Masked:
    low, high, low_mask, high_mask = MASK.unpack(packed)
    return low | high << 64, low_mask | high_mask << 64


def _others(value: int, mask: int) -> _Clause:
    """Return what differs from a masked value: in any of its bits."""
    bits = (1 << number for number in range(mask.bit_length()) if mask >> number & 1)
    return _Clause([(~value & bit, bit) for bit in bits], [])


def _blocks(low: int, high: int, top: int) -> Iterator[_Masked]:
    """Cut an interval into those that a mask of leading bits describes."""
    while low <= high:
        size = 1 << (high - low + 1).bit_length() - 1
        if low:
            size = min(size, low & -low)
        yield low, top ^ (size - 1)
        low += size


class _Search:
    """Look for a number outside of a clause: fix a bit of it, then the next one."""

    def __init__(self) -> None:
        self._steps = 0

    def is_whole(self, clause: _Clause | None) -> bool:
        """Tell if every number agrees; None is a clause with which each does."""
        if clause is None:
            return True
        if not clause.groups and sum(_share(mask) for _, mask in clause.masked) < _share(0):
            return False
        if not clause.masked and len(clause.groups) == 1:
            return all(self.is_whole(part) for part in clause.groups[0])
        value, mask = _shortest(clause)
        bit = mask & -mask
        # First where this value is out of the question.
        one = bool(value & bit)
        return all(self.is_whole(self.fixed(clause, bit, way)) for way in (not one, one))

    def fixed(self, clause: _Clause | None, bit: int, one: bool) -> _Clause | None:
        """Return what is left of a clause where a bit is known; None where it is all agreed."""
        if clause is None:
            return None
        self._steps += 1 + len(clause.masked)
        if self._steps > MOST_STEPS:
            raise _TooLongError
        left = _Clause([], [])
        for value, mask in clause.masked:
            if not mask & bit:
                left.masked.append((value, mask))
            elif bool(value & bit) == one:
                if mask == bit:
                    return None
                left.masked.append((value & ~bit, mask & ~bit))
        for group in clause.groups:
            if _add(left, [self.fixed(part, bit, one) for part in group]):
                return None
        return left


def _share(mask: int) -> int:
    """Return how many of all numbers agree with a masked value."""
    return 1 << 128 - bin(mask).count("1")


def _shortest(clause: _Clause) -> _Masked:
    while not clause.masked:
        clause = clause.groups[0][0]
    return min(clause.masked, key=lambda masked: bin(masked[1]).count("1"))
