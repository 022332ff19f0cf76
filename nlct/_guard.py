"""Does an expression restrict anything? What changes flows checks this before it trusts a filter.

The answer is exact unless a filter is too large, and as far as the fields of a flow are independent
of each other. For one field a test is a set of numbers, and sets are joined and inverted as the
tests are. A flow without the field counts as one more number. Masked values are no
intervals: a search, bit by bit, looks for a number that agrees with none of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from itertools import chain

from nlct._expression import EVERYTHING, And, Node, Not, Or, Pair, Test, all_of, any_of, joined
from nlct._fields import FIELDS, IPV4, IPV6, AddressField
from nlct.enums import Status

# Beyond so many masked values of one field, or steps of the search, the answer is UNTOLD.
MOST_MASKED = 1000
MOST_STEPS = 2_000_000
# Alternatives about several fields: beyond so many each is judged by itself.
MOST_JOINT = 64
MOST_CLAUSES = 1000

_TELL_FAMILY = ("family", "src", "dst", "reply_src", "reply_dst")
_IN_EVERY_FLOW = (*_TELL_FAMILY, "zone", "proto", "status", "timeout", "mark", "id", "use")
_ABSENT = -1


class Cover(enum.IntEnum):
    """How many of all possible flows match. PART: not all, as far as nlct knows. WHOLE: all.

    UNTOLD: it would take too long to tell.
    """

    PART = 0
    UNTOLD = 1
    WHOLE = 2


def cover(node: Node, inverted: bool = False) -> Cover:
    """Tell how many flows match an expression or, if ``inverted``, do not match it."""
    return _cover(_normal(node, inverted))


def _normal(node: Node, inverted: bool) -> Node:
    """Return an equal expression, with "not" only around single tests."""
    if isinstance(node, Not):
        return _normal(node.part, not inverted)
    if isinstance(node, Test):
        return Not(node) if inverted else node
    join = any_of if isinstance(node, Or) is not inverted else all_of
    return join(_normal(part, inverted) for part in node.parts)


def _cover(node: Node) -> Cover:
    if isinstance(node, And):
        least = Cover.WHOLE
        for part in node.parts:
            least = min(least, _cover(part))
            if least is Cover.PART:
                break
        return least
    alone, joint = _split(_alternatives(node))
    if len(joint) > MOST_JOINT:
        return max(_cover_alone(alone), *map(_cover, joint))
    return _cover_clauses(alone, joint, [MOST_CLAUSES])


def _split(parts: Iterable[Node]) -> tuple[list[Node], list[And]]:
    """Return the alternatives about one field each, and those about several."""
    alone: list[Node] = []
    joint: list[And] = []
    for part in parts:
        if isinstance(part, And) and len({test.field for test in _tests(part)}) != 1:
            joint.append(part)
        else:
            alone.append(part)
    return alone, joint


def _cover_alone(parts: list[Node]) -> Cover:
    """Judge alternatives about one field each: they are everything if those of one field are.

    Fields that tell the family count together.
    """
    by_field: dict[str, list[Node]] = {}
    for part in parts:
        by_field.setdefault(next(_tests(part)).field, []).append(part)
    if _cover_families(by_field):
        return Cover.WHOLE
    return max((_cover_of(*one) for one in by_field.items()), default=Cover.PART)


def _cover_families(by_field: dict[str, list[Node]]) -> bool:
    """Tell if each family matches: any address tells it, as the family does."""
    found = {field: by_field[field] for field in _TELL_FAMILY if field in by_field}
    # One field is judged like any other.
    if len(found) < 2:
        return False
    sets = {field: _set(any_of(parts), field) for field, parts in found.items()}

    def matches(family: int) -> bool:
        for field, intervals in sets.items():
            whole = AddressField.whole[family] if field != "family" else (family, family)
            if any(low <= whole[0] and whole[1] <= high for low, high in intervals):
                return True
        return False

    return matches(IPV4) and matches(IPV6)


def _cover_clauses(alone: list[Node], joint: list[And], left: list[int]) -> Cover:
    """Judge alternatives: "a and b, or c" is "a or c" and "b or c", until no "and" is left.

    ``left``: how many such steps may be taken; beyond them a filter counts as PART.
    """
    found = _cover_alone(alone)
    if found is Cover.WHOLE or not joint:
        return found
    left[0] -= 1
    if left[0] < 0:
        return Cover.PART
    least = Cover.WHOLE
    for part in joint[0].parts:
        more_alone, more_joint = _split(_alternatives(part))
        clause = _cover_clauses(alone + more_alone, joint[1:] + more_joint, left)
        least = min(least, clause)
        if least is Cover.PART:
            break
    return least


def _alternatives(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Or) else (node,)


def _tests(node: Node) -> Iterator[Test]:
    if isinstance(node, Test):
        yield node
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from _tests(part)


def _cover_of(field: str, parts: list[Node]) -> Cover:
    """Tell how many flows match any of these alternatives, all about one field."""
    node = any_of(parts)
    masks = {value for test in _tests(node) if test.masked for value in test.values}
    if len(masks) > MOST_MASKED:
        return Cover.UNTOLD
    if masks or field == "status":
        return _cover_by_bits(field, node)
    found = _set(node, field)
    whole = all(
        any(low <= first and last <= high for low, high in found) for first, last in _domain(field)
    )
    return Cover.WHOLE if whole else Cover.PART


# Sets of numbers ---------------------------------------------------------------------------------


def _bounds(field: str) -> Pair:
    """Return the lowest and the highest number that stand for a value of the field."""
    return 0 if field in _IN_EVERY_FLOW else _ABSENT, FIELDS[field].highest


def _domain(field: str) -> list[Pair]:
    """Return the numbers that the field may have."""
    return [(IPV4, IPV4), (IPV6, IPV6)] if field == "family" else [_bounds(field)]


def _set(node: Node, field: str) -> list[Pair]:
    """Return the numbers that agree with an expression about this field, without masks."""
    if isinstance(node, Test):
        return joined(node.values)
    if isinstance(node, Not):
        return _inverse(_set(node.part, field), field)
    if isinstance(node, Or):
        return joined(chain.from_iterable(_set(part, field) for part in node.parts))
    # A number in each of the parts is in none of their inverses.
    left_out = (_inverse(_set(part, field), field) for part in node.parts)
    return _inverse(joined(chain.from_iterable(left_out)), field)


def _inverse(intervals: list[Pair], field: str) -> list[Pair]:
    following, highest = _bounds(field)
    found = []
    for low, high in intervals:
        if low > following:
            found.append((following, low - 1))
        following = high + 1
    if following <= highest:
        found.append((following, highest))
    return found


# Masks -------------------------------------------------------------------------------------------

_NOTHING = Or(())


class _TooLongError(Exception):
    pass


def _cover_by_bits(field: str, node: Node) -> Cover:
    if field not in _IN_EVERY_FLOW and not _lets_absent_through(node):
        return Cover.PART
    search = _Search()
    node = _masked(node, field)
    if field == "labels":
        # The kernel sends no labels if none is set: no flow has the number 0.
        node = any_of((node, Test(field, ((0, FIELDS[field].highest),), masked=True)))
    # Every flow in a table has this bit.
    known = int(Status.CONFIRMED) if field == "status" else 0
    try:
        return Cover.WHOLE if search.is_whole(search.fixed(node, known, True)) else Cover.PART
    except _TooLongError:
        return Cover.UNTOLD


def _lets_absent_through(node: Node) -> bool:
    """Tell if a flow that lacks the field matches."""
    if isinstance(node, (Test, Not)):
        return isinstance(node, Not)
    settles = any if isinstance(node, Or) else all
    return settles(map(_lets_absent_through, node.parts))


def _masked(node: Node, field: str) -> Node:
    """Return an equal expression of masked values alone."""
    if isinstance(node, (And, Or)):
        join = all_of if isinstance(node, And) else any_of
        return join(_masked(part, field) for part in node.parts)
    if next(_tests(node)).masked:
        return node
    blocks = _blocks(_set(node, field), FIELDS[field].highest)
    return Test(field, tuple(blocks), masked=True)


def _blocks(intervals: list[Pair], top: int) -> Iterator[Pair]:
    """Cut intervals into blocks that a mask of leading bits describes."""
    for low, last in intervals:
        first = low
        while first <= last:
            size = 1 << (last - first + 1).bit_length() - 1
            if first:
                size = min(size, first & -first)
            yield first, top ^ (size - 1)
            first += size


class _Search:
    """Look for a number that does not agree: fix a bit of it, then the next one."""

    def __init__(self) -> None:
        self._steps = 0

    def is_whole(self, node: Node) -> bool:
        """Tell if every number agrees with what fixed() has returned."""
        if isinstance(node, And):
            return all(map(self.is_whole, node.parts))
        if isinstance(node, Not):
            return False
        masked = [one for test in _tests(node) for one in test.values]
        simple = all(isinstance(part, Test) for part in _alternatives(node))
        # At most so many numbers agree, fewer than there are.
        if simple and sum(1 << 128 - _bits(mask) for _, mask in masked) < 1 << 128:
            return False
        value, mask = min(masked, key=lambda one: _bits(one[1]))
        bit = mask & -mask
        # Begin with the half of the numbers that this value excludes.
        one = bool(value & bit)
        return all(self.is_whole(self.fixed(node, bit, way)) for way in (not one, one))

    def fixed(self, node: Node, bit: int, one: bool) -> Node:
        """Return what is left once a bit is known; no test in it is settled."""
        if isinstance(node, Test):
            return self._fixed_test(node, bit, one)
        if isinstance(node, Not):
            part = self.fixed(node.part, bit, one)
            if isinstance(part, Test):
                return Not(part)
            return _NOTHING if part == EVERYTHING else EVERYTHING
        end, join = (_NOTHING, all_of) if isinstance(node, And) else (EVERYTHING, any_of)
        parts = [self.fixed(part, bit, one) for part in node.parts]
        return end if end in parts else join(parts)

    def _fixed_test(self, test: Test, bit: int, one: bool) -> Node:
        self._steps += 1 + len(test.values)
        if self._steps > MOST_STEPS:
            raise _TooLongError
        left = tuple(
            (value & ~bit, mask & ~bit)
            for value, mask in test.values
            if not mask & bit or bool(value & bit) == one
        )
        if not left:
            return _NOTHING
        return test._replace(values=left) if all(mask for _, mask in left) else EVERYTHING


def _bits(mask: int) -> int:
    return bin(mask).count("1")
