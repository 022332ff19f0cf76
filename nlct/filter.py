"""Which flows are meant: a filter, and the tests that the core makes of it."""

from __future__ import annotations

import enum
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Union

from nlct import _check
from nlct._ffi import ffi, lib, slot
from nlct._fields import FIELDS
from nlct.enums import DccpState, Proto, SctpState, Status, TcpState
from nlct.errors import check
from nlct.flow import labels_to, number_or_name, pack_text

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
_RANGE = struct.Struct("=QQ")
_MASK = struct.Struct("=QQQQ")
_PREFIX = struct.Struct("=16sBB")
_EVERY_BIT = 2**32 - 1
_IN_EVERY_FLOW = ("family", "zone", "src", "dst", "proto", "status", "timeout", "mark", "id")


# Expressions: tests joined by and, or, not -------------------------------------------------------


class _Test(NamedTuple):
    """Does a field agree with any of these values? Packed as the core wants them."""

    field: str
    kind: int
    values: tuple[bytes, ...]


# The words keep tuples of the same parts apart.
class _And(NamedTuple):
    parts: tuple[_Node, ...]
    word: str = "and"


class _Or(NamedTuple):
    parts: tuple[_Node, ...]
    word: str = "or"


class _Not(NamedTuple):
    part: _Node
    word: str = "not"


_Node = Union[_Test, _And, _Or, _Not]
_EVERYTHING = _And(())


def _both(left: _Node, right: _Node) -> _Node:
    parts = (left.parts if isinstance(left, _And) else (left,)) + (
        right.parts if isinstance(right, _And) else (right,)
    )
    return parts[0] if len(parts) == 1 else _And(parts)


def _either(nodes: Iterable[_Node]) -> _Node:
    # Flat, since a long chain of "or" would be a deep one.
    parts: tuple[_Node, ...] = ()
    for node in nodes:
        parts += node.parts if isinstance(node, _Or) else (node,)
    return parts[0] if len(parts) == 1 else _Or(parts)


def _verdict(node: _Node) -> bool | None:
    """Return what a node says of whatever flow there may be; None where it depends."""
    if isinstance(node, _Not):
        verdict = _verdict(node.part)
        return None if verdict is None else not verdict
    if isinstance(node, _Test):
        return _verdict_of_test(node)
    # The verdict of one part that settles the whole.
    settles = isinstance(node, _Or)
    parts = _merged(node.parts) if settles else node.parts
    verdicts = {_verdict(part) for part in parts}
    if settles in verdicts:
        return settles
    return None if None in verdicts else not settles


def _merged(parts: Iterable[_Node]) -> list[_Node]:
    """Alternatives, in which those about one field are one test."""
    tests: dict[tuple[str, int], tuple[bytes, ...]] = {}
    others: list[_Node] = []
    for part in parts:
        if isinstance(part, _Test):
            key = part.field, part.kind
            tests[key] = tests.get(key, ()) + part.values
        elif isinstance(part, _Or):
            others += _merged(part.parts)
        else:
            others.append(part)
    return [*(_Test(*key, values) for key, values in tests.items()), *others]


def _verdict_of_test(test: _Test) -> bool | None:
    if not test.values:
        return False
    if test.field not in _IN_EVERY_FLOW:
        return None
    if test.field == "family":
        whole = all(_has(test.values, family) for family in (socket.AF_INET, socket.AF_INET6))
    elif test.kind == lib.NLCT_TEST_MASKS:
        whole = test.field == "status" and any(map(_is_confirmed, test.values))
    elif test.kind == lib.NLCT_TEST_RANGES:
        whole = _covers(test.values, 2 ** (8 * FIELDS[test.field].size) - 1)
    else:
        whole = _covers_addresses(test.values)
    return True if whole else None


def _has(ranges: Iterable[bytes], number: int) -> bool:
    return any(low <= number <= high for low, high in map(_RANGE.unpack, ranges))


def _is_confirmed(mask: bytes) -> bool:
    """Tell if this is what the status of every flow in a table has."""
    value, _, bits, _ = _MASK.unpack(mask)
    return bool(value == bits == Status.CONFIRMED)


def _covers_addresses(prefixes: Iterable[bytes]) -> bool:
    """Tell if networks leave out no address, neither of IPv4 nor of IPv6."""
    # So many would cover everything by an exotic plan only.
    networks = [_PREFIX.unpack(packed) for packed in prefixes][:1000]
    ipv4 = [
        ipaddress.IPv4Network((packed[:4], length))
        for packed, family, length in networks
        if family == socket.AF_INET
    ]
    ipv6 = [
        ipaddress.IPv6Network((packed, length))
        for packed, family, length in networks
        if family == socket.AF_INET6
    ]
    whole4 = [network.prefixlen for network in ipaddress.collapse_addresses(ipv4)]
    whole6 = [network.prefixlen for network in ipaddress.collapse_addresses(ipv6)]
    return whole4 == whole6 == [0]


def _covers(ranges: Iterable[bytes], high: int) -> bool:
    """Tell if ranges leave out no number up to this one."""
    following = 0
    for low, last in sorted(_RANGE.unpack(packed) for packed in ranges):
        if low > following:
            return False
        following = max(following, last + 1)
    return following > high


class _Program:
    """The tests of an expression in a row, each of which leads on to a later one or to the end."""

    def __init__(self, node: _Node) -> None:
        # From the last test to the first, since a test must know where it leads to.
        self._backwards: list[tuple[_Test, int, int]] = []
        start = self._add(node, lib.NLCT_MATCH, lib.NLCT_DROP)
        # What was added after the start is never reached, but would be taken for the start.
        del self._backwards[max(start, -1) + 1 :]
        if start == lib.NLCT_DROP:
            nothing = _Test("family", lib.NLCT_TEST_RANGES, ())
            self._backwards = [(nothing, lib.NLCT_DROP, lib.NLCT_DROP)]

    def _add(self, node: _Node, yes: int, no: int) -> int:
        """Add what leads to 'yes' where the node is true; return where it begins."""
        if isinstance(node, _Not):
            return self._add(node.part, no, yes)
        if isinstance(node, _And):
            for part in reversed(node.parts):
                yes = self._add(part, yes, no)
            return yes
        if isinstance(node, _Or):
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
    names: type[enum.IntEnum] | None = None,
    *,
    pairs: bool = False,
    bits: bool = False,
) -> _Node:
    """Test a number: alternatives of numbers, names, ranges, slices and (value, mask) pairs.

    ``bits``: a number alone means all of its bits, not equality.
    """
    high = 2 ** (8 * FIELDS[field].size) - 1
    singles: set[int] = set()
    ranges: list[bytes] = []
    masks: list[bytes] = []
    for item in _items(value):
        if pairs and isinstance(item, tuple):
            masks.append(_pair(name, item, high))
        elif isinstance(item, (range, slice)):
            bounds = _bounds(name, item, high)
            ranges += [] if bounds is None else [_RANGE.pack(*bounds)]
        else:
            number = (
                _check.integer(name, item, 0, high)
                if names is None
                else number_or_name(name, item, names, high)
            )
            if bits:
                masks.append(_mask(name, number, number))
            else:
                singles.add(int(number))
    ranges += [_RANGE.pack(*run) for run in _runs(singles)]
    tests: list[_Node] = []
    if ranges or not masks:
        tests.append(_Test(field, lib.NLCT_TEST_RANGES, tuple(ranges)))
    if masks:
        tests.append(_Test(field, lib.NLCT_TEST_MASKS, tuple(masks)))
    return _either(tests)


def _pair(name: str, pair: tuple[Any, ...], high: int) -> bytes:
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair (value, mask), not {pair!r}")
    value, mask = (_check.integer(name, part, 0, high) for part in pair)
    return _mask(name, value, mask)


def _mask(name: str, value: int, mask: int) -> bytes:
    """Refuse what every value would agree with: a filter that restricts nothing by accident."""
    if not mask:
        raise ValueError(f"{name} must name a bit at least, or have a mask that is not 0")
    return _MASK.pack(value, 0, mask, 0)


def _family(value: Any) -> _Node:
    known = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not known or value not in _FAMILIES:
        raise ValueError(
            f"family must be 'ipv4', 'ipv6', socket.AF_INET or AF_INET6, not {value!r}"
        )
    return _numbers("family", "family", int(_FAMILIES[value]))


def _network(name: str, value: Any) -> Any:
    """Read an address or a network."""
    if isinstance(value, _ADDRESS_TYPES):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be addresses or networks, not {value!r}")
    try:
        return ipaddress.ip_network(value)
    except ValueError as exc:
        raise ValueError(f"{name} must be an address or a network, not {value!r}: {exc}") from None


def _prefix(network: Any) -> bytes:
    single = isinstance(network, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    start = network if single else network.network_address
    length = network.max_prefixlen if single else network.prefixlen
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return _PREFIX.pack(start.packed, family, length)


def _addresses(field: str, name: str, value: Any) -> _Node:
    prefixes = {_prefix(_network(name, item)) for item in _items(value)}
    return _Test(field, lib.NLCT_TEST_PREFIXES, tuple(sorted(prefixes)))


def _texts(field: str, name: str, value: Any) -> _Node:
    prefixes = {_PREFIX.pack(pack_text(name, item), 0, 128) for item in _items(value)}
    return _Test(field, lib.NLCT_TEST_PREFIXES, tuple(sorted(prefixes)))


def _labels(name: str, value: Any) -> _Node:
    masks = []
    for item in _items(value):
        pair = item if isinstance(item, tuple) and len(item) == 2 else (item, item)
        if not _check.integer(name, pair[1], 0, 2**128 - 1):
            raise ValueError(f"{name} must name a label at least, or have a mask that is not 0")
        parts = [labels_to(_check.integer(name, part, 0, 2**128 - 1)) for part in pair]
        masks.append(b"".join(parts))
    return _Test("labels", lib.NLCT_TEST_MASKS, tuple(sorted(masks)))


_STATES: dict[type[enum.IntEnum], str] = {
    TcpState: "tcp_state",
    SctpState: "sctp_state",
    DccpState: "dccp_state",
}


def _states(value: Any) -> _Node:
    by_field: dict[str, list[Any]] = {}
    for item in _items(value):
        by_field.setdefault(_STATES.get(type(item), "tcp_state"), []).append(item)
    if not by_field:
        return _numbers("tcp_state", "state", [])
    return _either(
        _numbers(field, "state", items, TcpState if field == "tcp_state" else None)
        for field, items in by_field.items()
    )


def _translated(name: str, value: Any, ways: dict[Status, str]) -> _Node:
    """Test for NAT by the status; an address is that which stands in the reply."""
    if value is False:
        return _Not(_translated(name, True, ways))
    nodes: list[_Node] = []
    for status, field in ways.items():
        node = _numbers("status", name, int(status), bits=True)
        nodes.append(node if value is True else _both(node, _addresses(field, name, value)))
    return _either(nodes)


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


def _node(name: str, value: Any) -> _Node:
    if name in _ADDRESSES:
        return _addresses(name, name, value)
    if name in _NUMBERS:
        return _numbers(name, name, value)
    if name == "zone":
        return _numbers("zone", "zone", value if isinstance(value, slice) else zone_set(value))
    if name == "family":
        return _family(value)
    if name == "proto":
        return _numbers("proto", "proto", value, Proto)
    if name == "mark":
        return _numbers("mark", "mark", value, pairs=True)
    if name == "status":
        return _numbers("status", "status", _status(value), pairs=True, bits=True)
    if name == "status_none":
        return _none_of("status_none", value)
    if name == "state":
        return _states(value)
    if name == "labels":
        return _labels("labels", value)
    if name == "helper":
        return _texts("helper", "helper", value)
    ways = {"snat": _SOURCE, "dnat": _DESTINATION, "any_nat": {**_SOURCE, **_DESTINATION}}
    return _translated(name, value, ways[name])


def _none_of(name: str, value: Any) -> _Node:
    bits = 0
    for item in _items(value):
        bits |= _check.integer(name, _status(item), 0, _EVERY_BIT)
    return _Test("status", lib.NLCT_TEST_MASKS, (_mask(name, 0, bits),))


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


# Filters -----------------------------------------------------------------------------------------


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
    ``mark``: 0 to 2**32 - 1, or pairs (value, mask) (``-m``).
    ``status``: bits that are all set, at least one, as a Status or by name, or pairs (value, mask)
    (``-u``). ``status_none``: bits of which none is set.
    ``state``: a TcpState, its number or its name (``--state``); or a SctpState, or a DccpState.
    ``labels``: a number whose bits, the labels, are all set; or pairs (value, mask) (``-l``).
    ``helper``: a name, up to 15 bytes.
    ``timeout``: seconds left, 0 to 2**32 - 1. ``id``: 0 to 2**32 - 1.
    ``packets_orig``, ``bytes_orig``, ``packets_reply``, ``bytes_reply``: 0 to 2**64 - 1.
    ``snat``, ``dnat``, ``any_nat``: True for flows that are translated in this way, False for
    those that are not; or the addresses and networks that they are translated to (``-n``, ``-g``,
    ``-j``).

    Filters can be joined: ``a & b``, ``a | b``, ``~a``.

    Raises TypeError or ValueError, naming the field and its range.
    """

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
        node: _Node = _EVERYTHING
        for name, value in given.items():
            # A generator would be empty the second time.
            kept = list(value) if isinstance(value, Iterator) else value
            given[name] = kept
            node = _both(node, _node(name, kept))
        self._node = node
        self._text = f"Filter({', '.join(f'{k}={v!r}' for k, v in given.items())})"

    @classmethod
    def _of(cls, node: _Node, text: str) -> Filter:
        new = object.__new__(Filter)
        new._node = node
        new._text = text
        return new

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return self._of(_both(self._node, other._node), f"{self!r} & {other!r}")

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        if _EVERYTHING in (self._node, other._node):
            return Filter()
        return self._of(_either((self._node, other._node)), f"({self!r} | {other!r})")

    def __invert__(self) -> Filter:
        node = self._node
        # Not to match everything by accident, "not not" is what it was.
        inverse = node.part if isinstance(node, _Not) else _Not(node)
        return self._of(inverse, f"~({self!r})")

    def __eq__(self, other: object) -> bool:
        return self._node == other._node if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._node)

    def __repr__(self) -> str:
        return self._text

    @property
    def matches_everything(self) -> bool:
        """True for a filter without any restriction."""
        return self._node == _EVERYTHING

    @property
    def matches_nothing(self) -> bool:
        """True for a filter with an empty set in it."""
        return any(not test.values for test in self._required())

    @property
    def restricts_nothing(self) -> bool:
        """True where it matches whatever flow there may be.

        That is known of what one field is given, in one filter or in several that are joined by
        ``|``; a tautology of another kind goes unnoticed.
        """
        return _verdict(self._node) is True

    @property
    def zone(self) -> frozenset[int] | None:
        """The zones that it is restricted to; None where it is not, or not to zones alone."""
        test = self._only("zone")
        if test is None or test.kind != lib.NLCT_TEST_RANGES:
            return None
        runs = (_RANGE.unpack(run) for run in test.values)
        return frozenset(zone for low, high in runs for zone in range(low, high + 1))

    @property
    def is_zones(self) -> bool:
        """True for a filter by zones and nothing else."""
        return isinstance(self._node, _Test) and self._node.field == "zone"

    def _required(self) -> Iterator[_Test]:
        """The tests that every match must pass."""
        parts = self._node.parts if isinstance(self._node, _And) else (self._node,)
        return (part for part in parts if isinstance(part, _Test))

    def _only(self, field: str) -> _Test | None:
        return next((test for test in self._required() if test.field == field), None)

    def to_c(self) -> ffi.CData:
        """Make the filter, for as long as the ``struct nlct_filter **`` lives."""
        return _Program(self._node).to_c()

    def ask(self, zone_request: int) -> ffi.CData:
        """Make the ``struct nlct_ask *``: what the kernel may leave out, for speed alone.

        ``zone_request``: how it is asked for a zone.
        """
        ask = ffi.new("struct nlct_ask *")
        for test in self._required():
            if len(test.values) == 1:
                _ask_for(ask, test, zone_request)
        return ask


def _ask_for(ask: ffi.CData, test: _Test, zone_request: int) -> None:
    """Ask for one value, where the test is for just one."""
    if test.kind == lib.NLCT_TEST_RANGES:
        low, high = _RANGE.unpack(test.values[0])
        if low == high:
            _ask_for_number(ask, test.field, low, zone_request)
    elif test.kind == lib.NLCT_TEST_MASKS and test.field in ("mark", "status"):
        value, _, mask, _ = _MASK.unpack(test.values[0])
        # A value outside of its mask matches nothing, and a status of 0 is refused.
        if mask and not value & ~mask and (value or test.field == "mark"):
            setattr(ask, test.field, value)
            setattr(ask, f"{test.field}_mask", mask)
    elif test.kind == lib.NLCT_TEST_PREFIXES and test.field in ("src", "dst"):
        packed, family, length = _PREFIX.unpack(test.values[0])
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
    if filter.restricts_nothing and filter is not ALL:
        raise ValueError("filter must restrict something; nlct.ALL deletes every flow there is")
    return filter
