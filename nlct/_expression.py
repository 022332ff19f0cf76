"""Expressions: tests of one field each, joined by and, or, not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Union

Pair = tuple[int, int]


class Test(NamedTuple):
    """Asks whether a field agrees with any of these values.

    They are intervals with both ends or, if ``masked``, values with their masks. Addresses, labels
    and texts are numbers too, see Field.highest.
    """

    field: str
    values: tuple[Pair, ...]
    masked: bool = False


# The words keep tuples of the same parts apart.
class And(NamedTuple):
    """Each of the parts."""

    parts: tuple[Node, ...]
    word: str = "and"


class Or(NamedTuple):
    """Any of the parts."""

    parts: tuple[Node, ...]
    word: str = "or"


class Not(NamedTuple):
    """What the part is not."""

    part: Node
    word: str = "not"


Node = Union[Test, And, Or, Not]
EVERYTHING = And(())


def all_of(nodes: Iterable[Node]) -> Node:
    """Join by "and"; flat, since a long chain would be a deep one."""
    parts: list[Node] = []
    for node in nodes:
        parts += node.parts if isinstance(node, And) else (node,)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def any_of(nodes: Iterable[Node]) -> Node:
    """Join by "or", likewise."""
    parts: list[Node] = []
    for node in nodes:
        parts += node.parts if isinstance(node, Or) else (node,)
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def depth(node: Node) -> int:
    """Count the joins around the innermost test."""
    if isinstance(node, Test):
        return 0
    parts = (node.part,) if isinstance(node, Not) else node.parts
    return 1 + max(map(depth, parts), default=0)


def asked(node: Node) -> set[str]:
    """Return the fields that are asked about."""
    if isinstance(node, Test):
        return {node.field}
    parts = (node.part,) if isinstance(node, Not) else node.parts
    return set().union(*map(asked, parts))


def joined(intervals: Iterable[Pair]) -> list[Pair]:
    """Return the same numbers in sorted intervals with gaps between them."""
    firsts: list[int] = []
    lasts: list[int] = []
    for low, high in sorted(intervals):
        if lasts and low <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], high)
        else:
            firsts.append(low)
            lasts.append(high)
    return [*zip(firsts, lasts)]
