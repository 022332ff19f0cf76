"""Expressions: tests of one field each, joined by and, or, not."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple, Union

# How the core wants values to be packed.
RANGE = struct.Struct("=QQ")
MASK = struct.Struct("=QQQQ")
PREFIX = struct.Struct("=16sBB")


class Test(NamedTuple):
    """Does a field agree with any of these values? Packed as the core wants them."""

    field: str
    kind: int
    values: tuple[bytes, ...]


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
