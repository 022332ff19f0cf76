"""IPv4 or IPv6: which of them a filter is about, so that one about both at once is refused."""

from __future__ import annotations

import functools
from typing import NamedTuple

from nlct._expression import And, Node, Not, Test
from nlct._fields import FIELDS, IPV4, IPV6, AddressField

_WORDS = {IPV4: "IPv4", IPV6: "IPv6"}
_BOTH = frozenset(_WORDS)
_NONE: frozenset[int] = frozenset()


class Families(NamedTuple):
    """The families of flows that may match, and of those that may not; the fields that say so."""

    matched: frozenset[int] = _BOTH
    missed: frozenset[int] = _BOTH
    names: tuple[str, ...] = ()

    def both(self, other: Families) -> Families:
        """Return those of what is joined by "and"; raise ValueError where none is left."""
        matched = self.matched & other.matched
        if self.matched and other.matched and not matched:
            one, another = (" or ".join(which.names) for which in (self, other))
            raise ValueError(
                f"{one} and {another} must be of one family, not "
                f"{_WORDS[min(self.matched)]} and {_WORDS[min(other.matched)]}"
            )
        names = self.names if len(self.matched) < len(other.matched) else other.names
        return Families(matched, self.missed | other.missed, names or self.names)

    def either(self, other: Families) -> Families:
        """Return those of what is joined by "or"."""
        names = dict.fromkeys(self.names + other.names)
        return Families(self.matched | other.matched, self.missed & other.missed, tuple(names))

    def inverse(self) -> Families:
        """Return those of what is inverted."""
        return Families(self.missed, self.matched, self.names)


ALL_MATCH = Families(missed=_NONE)


def families_of(node: Node, name: str) -> Families:
    """Return the families of what the argument ``name`` was given."""
    if isinstance(node, Not):
        return families_of(node.part, name).inverse()
    if isinstance(node, Test):
        return _of_test(node, name)
    parts = (families_of(part, name) for part in node.parts)
    if isinstance(node, And):
        return functools.reduce(Families.both, parts, ALL_MATCH)
    return functools.reduce(Families.either, parts, ALL_MATCH.inverse())


def _of_test(test: Test, name: str) -> Families:
    field = FIELDS[test.field]
    if test.field == "family":
        matched = whole = frozenset(family for family, _ in test.values)
    elif isinstance(field, AddressField) and test.values:
        # They are sorted, IPv4 before IPv6.
        matched = frozenset(field.family(low) for low, _ in (test.values[0], test.values[-1]))
        whole = frozenset(family for family in matched if field.whole[family] in test.values)
        # Few flows have a master: of any family, most do not match.
        if field.part == "master":
            whole = _NONE
    else:
        # An empty set contradicts nothing.
        return Families()
    return Families(matched, _BOTH - whole, (name,))
