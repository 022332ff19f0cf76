"""Which flows are meant: a filter, and the tests that the core makes of it."""

from __future__ import annotations

import copy
import enum
import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Union

from nlct import _check, _guard
from nlct._expression import (
    EVERYTHING,
    MASK,
    PREFIX,
    RANGE,
    And,
    Node,
    Not,
    Or,
    Test,
    all_of,
    any_of,
    depth,
)
from nlct._ffi import ffi, lib, slot
from nlct._fields import FIELDS, NumberField
from nlct.enums import DccpState, Proto, SctpState, Status, TcpState
from nlct.errors import check

Zones = Union[int, Iterable[int]]

_FAMILIES = {
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
    socket.AF_INET: socket.AF_INET,
    socket.AF_INET6: socket.AF_INET6,
}
_ADDRESS_TYPES = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
_EVERY_BIT = 2**32 - 1


# Programs ----------------------------------------------------------------------------------------


class _Program:
    """The tests of an expression in a row, each of which leads on to a later one or to the end."""

    def __init__(self, node: Node) -> None:
        # From the last test to the first, since a test must know where it leads to.
        self._backwards: list[tuple[Test, int, int]] = []
        start = self._add(node, lib.NLCT_MATCH, lib.NLCT_DROP)
        # What was added after the start is never reached, but would be taken for the start.
        del self._backwards[max(start, -1) + 1 :]
        if start == lib.NLCT_DROP:
            nothing = Test("family", lib.NLCT_TEST_RANGES, ())
            self._backwards = [(nothing, lib.NLCT_DROP, lib.NLCT_DROP)]

    def _add(self, node: Node, yes: int, no: int) -> int:
        """Add what leads to 'yes' where the node is true; return where it begins."""
        if isinstance(node, Not):
            return self._add(node.part, no, yes)
        if isinstance(node, And):
            for part in reversed(node.parts):
                yes = self._add(part, yes, no)
            return yes
        if isinstance(node, Or):
            for part in reversed(node.parts):
                no = self._add(part, yes, no)
            return no
        self._backwards.append((node, yes, no))
        return len(self._backwards) - 1

    def to_c(self) -> ffi.CData:
        """Compile it."""
        count = len(self._backwards)
        tests = ffi.new("struct nlct_test[]", count)
        keep = []
        for test, (node, yes, no) in zip(tests, reversed(self._backwards)):
            keep.append(ffi.from_buffer(b"".join(node.values)))
            test.field = FIELDS[node.field].number
            test.kind = node.kind
            test.yes, test.no = (to if to < 0 else count - 1 - to for to in (yes, no))
            test.count = len(node.values)
            test.values = keep[-1]
        made = slot("struct nlct_filter **", lib.nlct_filter_free)
        check(lib.nlct_filter_new(made, tests, count), "compile a filter")
        return made


# Values ------------------------------------------------------------------------------------------


def _items(value: Any) -> Iterator[Any]:
    """The alternatives: of a set, a list or any other collection, or the value itself."""
    # Flags, which are integers, would fall into their bits.
    single = (int, str, bytes, tuple, range, ipaddress.IPv4Network, ipaddress.IPv6Network)
    if isinstance(value, Iterable) and not isinstance(value, single):
        yield from value
    else:
        yield value


def zone_set(value: Zones) -> frozenset[int]:
    """Return the zones as a set; None is no zone, least of all every zone."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return frozenset(_check.integer("zone", zone, 0, _check.U16) for zone in value)
    return frozenset((_check.integer("zone", value, 0, _check.U16),))


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The numbers as ranges, both ends included."""
    first = last = None
    for number in sorted(numbers):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def _bounds(name: str, value: Any, high: int) -> tuple[int, int] | None:
    """Read a range or a slice, whose end is excluded; None where there is nothing in it."""
    if (value.step or 1) != 1:
        raise ValueError(f"{name} must be a range in steps of one, not {value!r}")
    first = 0 if value.start is None else _check.integer(name, value.start, 0, high)
    last = high if value.stop is None else _check.integer(name, value.stop, 0, high + 1) - 1
    return (first, last) if first <= last else None


def _numbers(
    field: str,
    name: str,
    value: Any,
    *,
    pairs: bool = False,
    bits: bool = False,
) -> Node:
    """Test a number: alternatives of numbers, names, ranges, slices and (value, mask) pairs.

    ``bits``: a number alone means all of its bits, not equality.
    """
    one = FIELDS[field]
    assert isinstance(one, NumberField)
    high = one.highest
    singles: set[int] = set()
    ranges: list[bytes] = []
    masks: list[bytes] = []
    for item in _items(value):
        if pairs and isinstance(item, tuple):
            masks.append(_pair(name, item, high))
        elif isinstance(item, (range, slice)):
            bounds = _bounds(name, item, high)
            ranges += [] if bounds is None else [RANGE.pack(*bounds)]
        else:
            number = one.check(item, name)
            if bits:
                masks.append(_mask(name, number, number))
            else:
                singles.add(int(number))
    ranges += [RANGE.pack(*run) for run in _runs(singles)]
    tests: list[Node] = []
    if ranges or not masks:
        tests.append(Test(field, lib.NLCT_TEST_RANGES, tuple(ranges)))
    if masks:
        tests.append(Test(field, lib.NLCT_TEST_MASKS, tuple(masks)))
    return any_of(tests)


def _pair(name: str, pair: tuple[Any, ...], high: int) -> bytes:
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair (value, mask), not {pair!r}")
    value, mask = (_check.integer(name, part, 0, high) for part in pair)
    return _mask(name, value, mask)


def _mask(name: str, value: int, mask: int) -> bytes:
    _check_mask(name, "bit", value, mask)
    return MASK.pack(value, 0, mask, 0)


def _check_mask(name: str, bit: str, value: int, mask: int) -> None:
    """Refuse what every value would agree with, and what none would."""
    if not mask:
        raise ValueError(f"{name} must name a {bit} at least, or have a mask that is not 0")
    if value & ~mask:
        raise ValueError(
            f"{name} must be within its mask: {value:#x} has bits outside of {mask:#x}"
        )


def _family(value: Any) -> Node:
    known = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not known or value not in _FAMILIES:
        raise ValueError(
            f"family must be 'ipv4', 'ipv6', socket.AF_INET or AF_INET6, not {value!r}"
        )
    return _numbers("family", "family", int(_FAMILIES[value]))


def _network(name: str, value: Any) -> Any:
    """Read an address or a network."""
    if isinstance(value, ipaddress.IPv6Address) and value.scope_id is not None:
        value = str(value)
    if isinstance(value, (ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        value = str(value)
    if isinstance(value, _ADDRESS_TYPES):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be addresses or networks, not {value!r}")
    try:
        return read_network(value)
    except ValueError as exc:
        raise ValueError(f"{name} must be an address or a network, not {value!r}: {exc}") from None


def read_network(text: str) -> Any:
    """Read an address or a network; the error says what may have been meant."""
    if "%" in text:
        raise ValueError(f"{text} names an interface, which no flow does")
    mask = text.partition("/")[2]
    try:
        found: Any = ipaddress.ip_network(text) if mask else ipaddress.ip_address(text)
    except ValueError as exc:
        try:
            meant = ipaddress.ip_interface(text)
        except ValueError:
            raise exc from None
        raise ValueError(
            f"{text} is an address in the network {meant.network}: give one of both"
        ) from None
    # ipaddress takes the inverse of a netmask as well, which not everybody reads alike.
    if "." in mask and mask != str(found.netmask):
        raise ValueError(f"{mask} is no netmask; {found} is a network of as many addresses")
    return found


def _prefix(network: Any) -> bytes:
    single = isinstance(network, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    start = network if single else network.network_address
    length = network.max_prefixlen if single else network.prefixlen
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return PREFIX.pack(start.packed, family, length)


def _addresses(field: str, name: str, value: Any) -> Node:
    prefixes = {_prefix(_network(name, item)) for item in _items(value)}
    return Test(field, lib.NLCT_TEST_PREFIXES, tuple(sorted(prefixes)))


def _texts(field: str, name: str, value: Any) -> Node:
    prefixes = {PREFIX.pack(FIELDS[field].pack(item, name), 0, 128) for item in _items(value)}
    return Test(field, lib.NLCT_TEST_PREFIXES, tuple(sorted(prefixes)))


def _labels(name: str, value: Any) -> Node:
    masks = []
    for item in _items(value):
        pair = item if isinstance(item, tuple) and len(item) == 2 else (item, item)
        number, mask = (_check.integer(name, part, 0, 2**128 - 1) for part in pair)
        _check_mask(name, "label", number, mask)
        masks.append(FIELDS["labels"].pack(number) + FIELDS["labels"].pack(mask))
    return Test("labels", lib.NLCT_TEST_MASKS, tuple(sorted(masks)))


class _Stateful(NamedTuple):
    """A protocol that has states: their names, and the field that holds one."""

    proto: Proto
    names: type[enum.IntEnum]
    field: str

    def known(self) -> str:
        return f"{self.proto.name.lower()}'s {', '.join(self.names.__members__).lower()}"


_STATEFUL = (
    _Stateful(Proto.TCP, TcpState, "tcp_state"),
    _Stateful(Proto.SCTP, SctpState, "sctp_state"),
    _Stateful(Proto.DCCP, DccpState, "dccp_state"),
)


def _states(value: Any, proto: Node | None) -> Node:
    """Test the state that each of the protocols has; without any that are given, that of TCP."""
    given = _with_states(proto)
    by_field: dict[str, list[Any]] = {}
    for item in _items(value):
        for one in _stateful(item, given):
            by_field.setdefault(one.field, []).append(item)
    if not by_field:
        return _numbers("tcp_state", "state", [])
    return any_of(
        _numbers(one.field, "state", by_field[one.field])
        for one in _STATEFUL
        if one.field in by_field
    )


def _with_states(proto: Node | None) -> tuple[_Stateful, ...] | None:
    """Return those of the protocols that have states; None where no protocol is given."""
    if not isinstance(proto, Test) or not proto.values:
        return None
    ranges = [RANGE.unpack(packed) for packed in proto.values]
    found = (one for one in _STATEFUL if any(low <= one.proto <= high for low, high in ranges))
    return tuple(found)


def _stateful(item: Any, given: tuple[_Stateful, ...] | None) -> tuple[_Stateful, ...]:
    """Return the protocols of which this is a state: its own, or those that know the name."""
    own = tuple(one for one in _STATEFUL if isinstance(item, one.names))
    if given is None:
        found = own or _STATEFUL[:1]
    else:
        found = tuple(one for one in given if one in own) if own else given
    if isinstance(item, str):
        found = tuple(one for one in found if item.upper() in one.names.__members__)
    if not found:
        if not given and given is not None:
            raise ValueError("state must go with a proto that has states: tcp, sctp or dccp")
        known = " or ".join(one.known() for one in given or _STATEFUL[:1])
        raise ValueError(f"state must be from 0 to 255 or one of {known}, not {item!r}")
    return found


def _translated(name: str, value: Any, ways: dict[Status, str]) -> Node:
    """Test for NAT by the status; an address is that which stands in the reply."""
    if value is False:
        return Not(_translated(name, True, ways))
    nodes: list[Node] = []
    for status, field in ways.items():
        node = _numbers("status", name, int(status), bits=True)
        nodes.append(node if value is True else all_of((node, _addresses(field, name, value))))
    return any_of(nodes)


_SOURCE = {Status.SRC_NAT: "reply_dst"}
_DESTINATION = {Status.DST_NAT: "reply_src"}
_NUMBERS = (
    "sport",
    "dport",
    "reply_sport",
    "reply_dport",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    "timeout",
    "id",
    "packets_orig",
    "bytes_orig",
    "packets_reply",
    "bytes_reply",
)
_ADDRESSES = ("src", "dst", "reply_src", "reply_dst")


def _node(name: str, value: Any, proto: Node | None) -> Node:
    if name in _ADDRESSES:
        return _addresses(name, name, value)
    if name in _NUMBERS:
        return _numbers(name, name, value)
    if name == "zone":
        return _numbers("zone", "zone", value if isinstance(value, slice) else zone_set(value))
    if name == "family":
        return _family(value)
    if name == "proto":
        return _numbers("proto", "proto", value)
    if name == "mark":
        return _numbers("mark", "mark", value, pairs=True)
    if name == "status":
        return _numbers("status", "status", _status(value), pairs=True, bits=True)
    if name == "status_none":
        return _none_of("status_none", value)
    if name == "state":
        return _states(value, proto)
    if name == "labels":
        return _labels("labels", value)
    if name == "helper":
        return _texts("helper", "helper", value)
    ways = {"snat": _SOURCE, "dnat": _DESTINATION, "any_nat": {**_SOURCE, **_DESTINATION}}
    return _translated(name, value, ways[name])


def _none_of(name: str, value: Any) -> Node:
    bits = 0
    for item in _items(value):
        bits |= _check.integer(name, _status(item), 0, _EVERY_BIT)
    return Test("status", lib.NLCT_TEST_MASKS, (_mask(name, 0, bits),))


def _status(value: Any) -> Any:
    """Names of bits may stand for them."""
    if isinstance(value, str):
        try:
            return Status[value.upper()]
        except KeyError:
            known = ", ".join(bit.name.lower() for bit in Status if bit.name)
            raise ValueError(f"status must be bits or one of {known}, not {value!r}") from None
    if isinstance(value, (set, frozenset, list)):
        return [_status(item) for item in value]
    return value


# Families ----------------------------------------------------------------------------------------


class _Families(NamedTuple):
    """The families of flows that may match, and of those that may not; the fields that say so."""

    matched: frozenset[int]
    missed: frozenset[int]
    names: tuple[str, ...] = ()

    def both(self, other: _Families) -> _Families:
        """Return those of what is joined by "and"; refuse it where none is left."""
        matched = self.matched & other.matched
        if self.matched and other.matched and not matched:
            raise ValueError(
                f"{self._named()} and {other._named()} must be of one family, not "
                f"{_FAMILY_NAMES[min(self.matched)]} and {_FAMILY_NAMES[min(other.matched)]}"
            )
        names = self.names if len(self.matched) < len(other.matched) else other.names
        return _Families(matched, self.missed | other.missed, names or self.names)

    def either(self, other: _Families) -> _Families:
        """Return those of what is joined by "or"."""
        return _Families(
            self.matched | other.matched,
            self.missed & other.missed,
            tuple(dict.fromkeys(self.names + other.names)),
        )

    def inverse(self) -> _Families:
        return _Families(self.missed, self.matched, self.names)

    def _named(self) -> str:
        return " or ".join(self.names)


_FAMILY_NAMES: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
_ANY_FAMILY = frozenset(_FAMILY_NAMES)
_NO_FAMILY: frozenset[int] = frozenset()


def _families(node: Node, name: str) -> _Families:
    """Return the families of what a field was given."""
    if isinstance(node, Test):
        return _families_of_test(node, name)
    if isinstance(node, Not):
        return _families(node.part, name).inverse()
    parts = (_families(part, name) for part in node.parts)
    if isinstance(node, Or):
        return functools.reduce(_Families.either, parts)
    return functools.reduce(_Families.both, parts, _Families(_ANY_FAMILY, _NO_FAMILY))


def _families_of_test(test: Test, name: str) -> _Families:
    if test.field == "family":
        matched = frozenset(RANGE.unpack(packed)[0] for packed in test.values)
        return _Families(matched, _ANY_FAMILY - matched, (name,))
    # An empty set contradicts nothing.
    if FIELDS[test.field].kind != lib.NLCT_ADDRESS or not test.values:
        return _Families(_ANY_FAMILY, _ANY_FAMILY)
    prefixes = [PREFIX.unpack(packed) for packed in test.values]
    whole = {family for _, family, length in prefixes if length == 0}
    matched = frozenset(family for _, family, _ in prefixes)
    return _Families(matched, _ANY_FAMILY - whole, (name,))


_STATUS = ("status", "status_none", "snat", "dnat", "any_nat")


def _check_status(nodes: dict[str, Node]) -> None:
    """Refuse bits of the status that exclude each other."""
    given = [name for name in _STATUS if name in nodes]
    if len(given) > 1:
        given = [name for name in given if not _matches_nothing(nodes[name])]
        if _matches_nothing(all_of(nodes[name] for name in given)):
            raise ValueError(f"{' and '.join(given)} must not exclude each other, as these bits do")


def _matches_nothing(node: Node) -> bool:
    return _guard.cover(node, True) is _guard.Cover.WHOLE


# Filters -----------------------------------------------------------------------------------------

# Joins inside of each other. Python's own limit is met by 1,000 calls, of which a copy or a
# comparison takes several to a level.
MOST_DEEP = 100


class _Made(NamedTuple):
    """How a filter was made: of others, joined by a word; and what is known before it is asked."""

    word: str
    depth: int
    families: _Families
    parts: tuple[Filter, ...] = ()


class Filter:
    """Which flows are meant. Fields are ANDed; a set, list or range inside a field is ORed.

    A field that is None, or not given, matches everything; an empty set matches nothing, and a
    flow without the field does not match it. Numbers may be given as ``range(1000, 2000)``, which
    leaves out its end, or ``slice(1000, None)``, which is open there.

    ``zone``: ids from 0 to 65535, whichever direction they apply to (``CTA_ZONE``, ``-w``).
    ``family``: "ipv4" or "ipv6", or ``socket.AF_INET`` or ``AF_INET6`` (``-f``).
    ``proto``: 0 to 255 or a name, "tcp", "udp", ... (``-p``).
    ``src``, ``dst``, ``reply_src``, ``reply_dst``: addresses and networks, as text or objects of
    ipaddress (``-s``, ``-d``, ``-r``, ``-q``).
    ``sport``, ``dport``, ``reply_sport``, ``reply_dport``: 0 to 65535 (``--sport``, ``--dport``,
    ``--reply-port-src``, ``--reply-port-dst``).
    ``icmp_type``, ``icmp_code``: 0 to 255. ``icmp_id``: 0 to 65535.
    ``mark``: 0 to 2**32 - 1, or pairs (value, mask), the value within the mask (``-m``).
    ``status``: bits that are all set, at least one, as a Status or by name, or pairs (value, mask)
    (``-u``). ``status_none``: bits of which none is set.
    ``state``: a name or a number, the state that TCP, SCTP or DCCP has by it: each of them that
    ``proto`` in the same filter names, TCP alone where no ``proto`` is given; "listen" is TCP's
    SYN_SENT2 (``--state``). A TcpState, SctpState or DccpState says of itself whose state it is.
    ``labels``: a number whose bits, the labels, are all set; or pairs (value, mask) (``-l``).
    ``helper``: a name, up to 15 bytes.
    ``timeout``: seconds left, 0 to 2**32 - 1. ``id``: 0 to 2**32 - 1.
    ``packets_orig``, ``bytes_orig``, ``packets_reply``, ``bytes_reply``: 0 to 2**64 - 1.
    ``snat``, ``dnat``, ``any_nat``: True for flows that are translated in this way, False for
    those that are not; or the addresses and networks that they are translated to (``-n``, ``-g``,
    ``-j``).

    Filters can be joined: ``a & b``, ``a | b``, ``~a``; up to 100 joins inside of each other, while
    a chain such as ``a | b | c`` may be of any length.

    Raises TypeError or ValueError, naming the field and its range; ValueError as well for what
    contradicts itself: IPv4 and IPv6 in one filter or joined by ``&``, a ``state`` that ``proto``
    lacks, bits of the status that exclude each other. To have no value in common is no
    contradiction where filters are joined: ``Filter(zone=1) & Filter(zone=2)`` matches nothing.
    """

    _made: _Made
    # The expression and the text; of a join, as soon as they are asked for.
    _known: tuple[Node, str] | None = None
    _cover: _guard.Cover | None = None

    def __init__(
        self,
        *,
        zone: Zones | slice | None = None,
        family: int | str | None = None,
        proto: Any = None,
        src: Any = None,
        dst: Any = None,
        sport: Any = None,
        dport: Any = None,
        reply_src: Any = None,
        reply_dst: Any = None,
        reply_sport: Any = None,
        reply_dport: Any = None,
        icmp_type: Any = None,
        icmp_code: Any = None,
        icmp_id: Any = None,
        mark: Any = None,
        status: Any = None,
        status_none: Any = None,
        state: Any = None,
        labels: Any = None,
        helper: Any = None,
        timeout: Any = None,
        id: Any = None,
        packets_orig: Any = None,
        bytes_orig: Any = None,
        packets_reply: Any = None,
        bytes_reply: Any = None,
        snat: Any = None,
        dnat: Any = None,
        any_nat: Any = None,
    ) -> None:
        """Check the fields."""
        given = {k: v for k, v in locals().items() if k != "self" and v is not None}
        nodes: dict[str, Node] = {}
        families = _Families(_ANY_FAMILY, _NO_FAMILY)
        for name, value in given.items():
            # A generator would be empty the second time.
            kept = list(value) if isinstance(value, Iterator) else value
            given[name] = kept
            nodes[name] = _node(name, kept, nodes.get("proto"))
            families = families.both(_families(nodes[name], name))
        _check_status(nodes)
        node = all_of(nodes.values())
        text = f"Filter({', '.join(f'{k}={v!r}' for k, v in given.items())})"
        word = "" if isinstance(node, Test) else node.word
        self._made = _Made(word, depth(node), families)
        self._known = node, text

    @classmethod
    def _of(cls, made: _Made, known: tuple[Node, str] | None = None) -> Filter:
        new = object.__new__(Filter)
        new._made = made
        new._known = known
        return new

    def _join(self, word: str, families: _Families, *parts: Filter) -> Filter:
        # Of its own word it becomes one chain.
        deep = (one._made.depth + (word == "not" or one._made.word != word) for one in parts)
        made = _Made(word, max(deep), families, parts)
        if made.depth > MOST_DEEP:
            raise ValueError(
                f"filters must be nested at most {MOST_DEEP} deep; a & b & c, or a | b | c, is not"
            )
        return self._of(made)

    def _plain(self) -> Filter:
        """Return a filter that says the same, but not that everything is meant on purpose."""
        return Filter() if self.matches_everything else self

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if self.matches_everything or other.matches_everything:
            return (other if self.matches_everything else self)._plain()
        families = self._made.families.both(other._made.families)
        return self._join("and", families, self, other)

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if self.matches_everything or other.matches_everything:
            return Filter()
        families = self._made.families.either(other._made.families)
        return self._join("or", families, self, other)

    def __invert__(self) -> Filter:
        # Not to match everything by accident, "not not" is what it was.
        if self._made.word == "not" and self._made.parts:
            return self._made.parts[0]._plain()
        return self._join("not", self._made.families.inverse(), self)

    def _expression(self) -> tuple[Node, str]:
        """Put together what was joined. A chain of joins may be very long."""
        if self._known is None:
            word, parts = self._made.word, self._chain()
            nodes = [part._node for part in parts]
            texts = [repr(part) for part in parts]
            if word == "not":
                (node,) = nodes
                node = node.part if isinstance(node, Not) else Not(node)
                self._known = node, f"~({texts[0]})"
            elif word == "and":
                self._known = all_of(nodes), " & ".join(texts)
            else:
                self._known = any_of(nodes), f"({' | '.join(texts)})"
        return self._known

    def _chain(self) -> list[Filter]:
        """Return what is joined by the same word, in order."""
        found = []
        todo = list(reversed(self._made.parts))
        while todo:
            part = todo.pop()
            if part._made.word == self._made.word != "not" and part._known is None:
                todo += reversed(part._made.parts)
            else:
                found.append(part)
        return found

    @property
    def _node(self) -> Node:
        return self._expression()[0]

    def __eq__(self, other: object) -> bool:
        return self._node == other._node if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._node)

    def __repr__(self) -> str:
        return self._expression()[1]

    def __reduce__(self) -> Any:
        made = self._made
        # The expression tells it all, but what "not not" was.
        parts = made.parts if made.word == "not" else ()
        return Filter._of, (made._replace(parts=parts), self._expression())

    def __deepcopy__(self, _memo: Any) -> Filter:
        return copy.copy(self)

    @property
    def matches_everything(self) -> bool:
        """True for a filter without any restriction."""
        return self._known is not None and self._known[0] == EVERYTHING

    @property
    def matches_nothing(self) -> bool:
        """True for a filter with an empty set in it."""
        return any(not test.values for test in self._required())

    @property
    def restricts_nothing(self) -> bool:
        """True where it matches whatever flow there may be, and where that cannot be told.

        That is told exactly of what each field by itself is given, in one filter or in several that
        are joined by ``&``, ``|`` and ``~``: of any number of numbers, ranges and networks, and of
        up to 1,000 masked values, beyond which (and where to tell takes very long) they count as
        everything. That several fields together leave out nothing is not noticed, nor that a bit
        of the status other than CONFIRMED, or a number that no state has, is never met in a table.
        """
        return self._covered() is not _guard.Cover.PART

    def _covered(self) -> _guard.Cover:
        if self._cover is None:
            self._cover = _guard.cover(self._node)
        return self._cover

    @property
    def zone(self) -> frozenset[int] | None:
        """The zones that it is restricted to; None where it is not, or not to zones alone."""
        test = self._only("zone")
        if test is None or test.kind != lib.NLCT_TEST_RANGES:
            return None
        runs = (RANGE.unpack(run) for run in test.values)
        return frozenset(zone for low, high in runs for zone in range(low, high + 1))

    @property
    def is_zones(self) -> bool:
        """True for a filter by zones and nothing else."""
        return isinstance(self._node, Test) and self._node.field == "zone"

    def _required(self) -> Iterator[Test]:
        """The tests that every match must pass."""
        parts = self._node.parts if isinstance(self._node, And) else (self._node,)
        return (part for part in parts if isinstance(part, Test))

    def _only(self, field: str) -> Test | None:
        return next((test for test in self._required() if test.field == field), None)

    def to_c(self) -> ffi.CData:
        """Make the filter, for as long as the ``struct nlct_filter **`` lives."""
        return _Program(self._node).to_c()

    def ask(self, zone_request: int) -> ffi.CData:
        """Make the ``struct nlct_kernel_filter *``: what the kernel may leave out, for speed alone.

        ``zone_request``: how it is asked for a zone.
        """
        ask = ffi.new("struct nlct_kernel_filter *")
        for test in self._required():
            if len(test.values) == 1:
                _ask_for(ask, test, zone_request)
        return ask


def _ask_for(ask: ffi.CData, test: Test, zone_request: int) -> None:
    """Ask for one value, where the test is for just one."""
    if test.kind == lib.NLCT_TEST_RANGES:
        low, high = RANGE.unpack(test.values[0])
        if low == high:
            _ask_for_number(ask, test.field, low, zone_request)
    elif test.kind == lib.NLCT_TEST_MASKS and test.field in ("mark", "status"):
        value, _, mask, _ = MASK.unpack(test.values[0])
        # The kernel refuses a status of 0.
        if value or test.field == "mark":
            setattr(ask, test.field, value)
            setattr(ask, f"{test.field}_mask", mask)
    elif test.kind == lib.NLCT_TEST_PREFIXES and test.field in ("src", "dst"):
        packed, family, length = PREFIX.unpack(test.values[0])
        if family == socket.AF_INET and length == 32:
            ffi.memmove(getattr(ask.orig, test.field), packed, len(packed))
            ask.family = ask.orig.family = family
            ask.orig.present |= 1 << getattr(lib, f"NLCT_TUPLE_{test.field.upper()}")


def _ask_for_number(ask: ffi.CData, field: str, number: int, zone_request: int) -> None:
    if field == "zone":
        ask.zone_request = zone_request
        ask.zone = number
    elif field == "family":
        ask.family = ask.orig.family = number
    elif field == "mark":
        ask.mark = number
        ask.mark_mask = _EVERY_BIT
    elif field in ("proto", "sport", "dport"):
        setattr(ask.orig, field, number)
        ask.orig.present |= 1 << getattr(lib, f"NLCT_TUPLE_{field.upper()}")


class _All(Filter):
    """Every flow there is, said on purpose."""

    def __repr__(self) -> str:
        return "nlct.ALL"

    def __reduce__(self) -> str:
        return "ALL"


ALL = _All()


def to_delete(filter: Filter) -> Filter:
    """Refuse a filter that would delete every flow, unless that is said on purpose."""
    if not isinstance(filter, Filter):
        raise TypeError(f"filter must be a Filter, not {filter!r}")
    reason = too_wide(filter)
    if reason is not None and filter is not ALL:
        raise ValueError(f"filter {reason}; nlct.ALL deletes every flow there is")
    return filter


def too_wide(filter: Filter) -> str | None:
    """Say why a filter is not let through; None where it is."""
    covered = filter._covered()
    if covered is _guard.Cover.PART:
        return None
    if covered is _guard.Cover.WHOLE:
        return "must restrict something"
    return (
        f"has so many masked values of one field (more than {_guard.MOST_MASKED:,}, or too many "
        "combinations of them) that they count as everything"
    )
