"""Expectations: the flows that helpers expect, such as the data connections of FTP."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from nlct import _check, _lookup, _reasons
from nlct._dump import MAX_DUMPS, require
from nlct._ffi import ffi, lib, text
from nlct._fields import IPV6
from nlct._handle import Bytes, Handle
from nlct.enums import EventKind, ExpectFlags, Proto
from nlct.errors import (
    Error,
    InterruptedDumpError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedError,
    check,
    error,
)
from nlct.flow import Tuple, tuple_from
from nlct.stream import WORDS, Room, Stream

# Of events, received at a time.
ROWS = 64
_SIZE = ffi.sizeof("struct nlct_expect")
_TUPLES = ("tuple", "mask", "master", "nat")
# The most bytes of each text, and the highest of each number.
_TEXTS = {"helper": 15, "function": 31}
_NUMBERS = {
    **dict.fromkeys(("timeout", "flags", "expect_class", "nat_direction", "id"), _check.U32),
    "zone": _check.U16,
}
_BITS = {
    name: 1 << getattr(lib, f"NLCT_EXPECT_{name.upper()}".replace("EXPECT_EXPECT", "EXPECT"))
    for name in (*_TUPLES, *_TEXTS, *_NUMBERS)
}


def _pointer(row: bytes) -> ffi.CData:
    return ffi.from_buffer("struct nlct_expect *", row)


def _of_row(name: str, make: Any = None) -> Any:
    """Make the property that reads a field; ``make`` turns a number into what is shown."""

    def get(self: Expectation) -> Any:
        row = _pointer(self._row)
        if not row.present & _BITS[name]:
            return None
        value = getattr(row, name)
        if name in _TUPLES:
            return tuple_from(ffi.buffer(ffi.addressof(value))[:])
        if name in _TEXTS:
            return text(value)
        return int(value) if make is None else make(value)

    return property(get)


def _store(row: ffi.CData, name: str, value: Any) -> None:
    """Check a field, and put it into a row."""
    if name in _TUPLES:
        _store_tuple(row, name, value)
    elif name in _TEXTS:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be text, not {value!r}")
        packed = value.encode()
        if len(packed) > _TEXTS[name] or b"\0" in packed:
            raise ValueError(f"{name} must be of up to {_TEXTS[name]} bytes, not {value!r}")
        setattr(row, name, packed)
    else:
        setattr(row, name, _check.integer(name, value, 0, _NUMBERS[name]))
    row.present |= _BITS[name]


def _store_tuple(row: ffi.CData, name: str, value: Any) -> None:
    if not isinstance(value, Tuple):
        raise TypeError(f"{name} must be a Tuple, not {value!r}")
    if value.family is None:
        raise ValueError(f"{name} must have a src or a dst address")
    if row.family not in (0, value.family):
        raise ValueError("tuple, mask, master and nat must be of one family")
    row.family = value.family
    ffi.memmove(ffi.addressof(row, name), value._row, len(value._row))


class Expectation:
    """A flow that a helper expects. Absent fields are None.

    ``tuple``: that of the flow (``CTA_EXPECT_TUPLE``, ``--tuple-src`` ...).
    ``mask``: which bits of it count (``CTA_EXPECT_MASK``, ``--mask-src`` ...). The kernel lets only
    those of the source be chosen; of the rest all count. Without one, create() has all count that
    the tuple has, a port 0 too, and what its source lacks (None) may be anything.
    ``master``: the original tuple of the flow that it belongs to, for FTP the control connection
    (``CTA_EXPECT_MASTER``, ``--orig-src`` ...).
    ``zone``: that of the master, 0 to 65535 (``CTA_EXPECT_ZONE``, ``-w``). Kernels do not tell it:
    it is None unless you asked by zone.
    ``timeout``: seconds left, 0 to 2**32 - 1 (``CTA_EXPECT_TIMEOUT``, ``-t``).
    ``flags``: see ExpectFlags, 0 to 2**32 - 1 (``CTA_EXPECT_FLAGS``).
    ``expect_class``: which of its helper's kinds of expectation it is, 0 to 2**32 - 1
    (``CTA_EXPECT_CLASS``). ``helper``: its name, up to 15 bytes (``CTA_EXPECT_HELP_NAME``).
    ``nat``: the flow will be translated to the source of this tuple, in the original direction if
    ``nat_direction`` is 0, in that of the reply if it is 1 (``CTA_EXPECT_NAT``).
    ``function``: the kernel's name of what it does when the flow comes, up to 31 bytes
    (``CTA_EXPECT_FN``).
    ``id``: the kernel's id of this very expectation (``CTA_EXPECT_ID``).

    ``str()`` is the line that ``conntrack -L expect`` prints. Expectations compare by what names
    one: tuple, zone and id. To compare everything, compare to_dict().
    """

    __slots__ = ("_row",)
    _row: bytes

    def __init__(
        self,
        tuple: Tuple,
        mask: Tuple | None = None,
        master: Tuple | None = None,
        zone: int | None = None,
        timeout: int | None = None,
        flags: int | None = None,
        expect_class: int | None = None,
        helper: str | None = None,
        nat: Tuple | None = None,
        nat_direction: int | None = None,
        function: str | None = None,
        id: int | None = None,
    ) -> None:
        """Check the fields. Raises TypeError or ValueError, naming the field and its range."""
        row = ffi.new("struct nlct_expect *")
        _store(row, "tuple", tuple)
        for name, value in {
            **{"mask": mask, "master": master, "zone": zone, "timeout": timeout, "flags": flags},
            **{"expect_class": expect_class, "helper": helper, "function": function, "id": id},
            **{"nat": nat, "nat_direction": nat_direction},
        }.items():
            if value is not None:
                _store(row, name, value)
        self._row = ffi.buffer(row)[:]

    tuple: Tuple = _of_row("tuple")
    mask: Tuple | None = _of_row("mask")
    master: Tuple | None = _of_row("master")
    zone: int | None = _of_row("zone")
    timeout: int | None = _of_row("timeout")
    flags: ExpectFlags | None = _of_row("flags", ExpectFlags)
    expect_class: int | None = _of_row("expect_class")
    helper: str | None = _of_row("helper")
    nat: Tuple | None = _of_row("nat")
    nat_direction: int | None = _of_row("nat_direction")
    function: str | None = _of_row("function")
    id: int | None = _of_row("id")

    @property
    def family(self) -> int:
        """``socket.AF_INET`` or ``AF_INET6``."""
        return int(_pointer(self._row).family)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NAMES}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, those without a value as None; flags are names."""
        return {name: _plain(value) for name, value in self._fields().items()}

    def replace(self, **changes: Any) -> Expectation:
        """Return a copy with some fields changed; None takes a field away.

        Raises TypeError or ValueError as the class itself does.
        """
        return Expectation(**{**self._fields(), **changes})

    def __str__(self) -> str:
        return _line(_pointer(self._row))

    def __repr__(self) -> str:
        values = (item for item in self._fields().items() if item[1] is not None)
        return f"Expectation({', '.join(f'{name}={value!r}' for name, value in values)})"

    def __reduce__(self) -> Any:
        return _expectation_of, (self._fields(),)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Expectation) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> Any:
        return self.tuple, self.zone, self.id


def _line(row: ffi.CData) -> str:
    buffer = ffi.new("char[]", lib.NLCT_TEXT_MAX)
    rc = lib.nlct_expect_text(row, buffer, lib.NLCT_TEXT_MAX)
    size = check(rc, "write an expectation")
    return bytes(ffi.buffer(buffer, size)).decode(errors="replace").rstrip("\n")


_NAMES = (
    *("tuple", "mask", "master", "zone", "timeout", "flags", "expect_class", "helper"),
    *("nat", "nat_direction", "function", "id"),
)


def _plain(value: Any) -> Any:
    if isinstance(value, ExpectFlags):
        bits = (1 << number for number in range(32) if value >> number & 1)
        return [(ExpectFlags(bit).name or hex(bit)).lower() for bit in bits]
    return value.to_dict() if isinstance(value, Tuple) else value


def _expectation_of(fields: dict[str, Any]) -> Expectation:
    return Expectation(**fields)


def _from_row(row: bytes, zone: int | None) -> Expectation:
    """Make an expectation of a ``struct nlct_expect`` that was found in a zone, if one was asked.

    Raises InvalidRequestError without a tuple.
    """
    made: Expectation = object.__new__(Expectation)
    made._row = row
    if not _pointer(row).present & _BITS["tuple"]:
        raise error(errno.EBADMSG, "read an expectation", reason="it has no tuple")
    if zone is None:
        return made
    copy = _copy(row)
    _store(copy, "zone", zone)
    made._row = ffi.buffer(copy)[:]
    return made


def _copy(row: bytes) -> ffi.CData:
    copy = ffi.new("struct nlct_expect *")
    ffi.memmove(copy, row, _SIZE)
    return copy


# Events -------------------------------------------------------------------------------------------


class ExpectationEvent(NamedTuple):
    """Something happened to an expectation.

    ``kind``: a word, no EventKind: "new" or "destroy" (``IPCTNL_MSG_EXP_NEW``,
    ``IPCTNL_MSG_EXP_DELETE``). "destroy" also if it was fulfilled.
    ``expectation``: what it was then, with the seconds it had left. The kernel does not tell its
    zone.
    """

    kind: str
    expectation: Expectation

    def to_dict(self) -> dict[str, Any]:
        """Return the event for JSON: Expectation.to_dict() with "event" in front."""
        return {"event": self.kind, **self.expectation.to_dict()}

    def __str__(self) -> str:
        row = _copy(self.expectation._row)
        row.event = EventKind[self.kind.upper()]
        return _line(row)


class _Room(Room[ExpectationEvent]):
    """Rows of expectations."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = ffi.new("struct nlct_expect[]", ROWS)
        self._count = ffi.new("size_t *")

    def take(self, events: ffi.CData) -> int:
        return int(lib.nlct_expect_events_take(events, self._rows, ROWS, self._count))

    def _make(self) -> Iterable[ExpectationEvent | Exception]:
        rows = ffi.buffer(self._rows, self._count[0] * _SIZE)[:]
        return [_event_of(rows[at : at + _SIZE]) for at in range(0, len(rows), _SIZE)]

    def _clear(self) -> None:
        self._count[0] = 0


def _event_of(row: bytes) -> ExpectationEvent | Exception:
    copy = _copy(row)
    kind, copy.event = WORDS[copy.event], 0
    try:
        return ExpectationEvent(kind, _from_row(ffi.buffer(copy)[:], None))
    except InvalidRequestError as exc:
        return exc


class ExpectationEvents(Stream[ExpectationEvent]):
    """A stream of events of expectations; see Expectations.events().

    Iterate over it, with ``for`` or ``async for``, or ask get(). It ends only when it is closed.
    Any number of threads and tasks may read it; each event goes to one of them. It does not outlive
    a fork: in the child, reading raises RuntimeError.
    """

    _room_of = _Room

    def _begin(self, handle: Handle, kinds: int, buffer: int) -> None:
        handle.open_expect_events(self._events, kinds, buffer)


# The table ----------------------------------------------------------------------------------------


class Expectations:
    """The expectations of one network namespace: ``ct.expectations``.

    All operations need CAP_NET_ADMIN, as those of Conntrack do. A zone other than 0 raises
    UnsupportedError if the kernel was built without zones.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def dump(self, *, zone: int | None = None) -> Iterator[Expectation]:
        """Yield the expectations (``conntrack -L expect``), those of one zone or all.

        The kernel does not tell the zone of an expectation. With ``zone``, 0 to 65535, nlct looks
        each of them up there, and leaves out whose it is not; ``zone`` of the others then says so.
        It also leaves out one that hides behind another, which any flow that fulfils it would
        fulfil first: the look-up finds that other one.

        Raises InterruptedDumpError if one dump after another is inconsistent.
        """
        return iter(self._dump(self._zone(zone)))

    def count(self, *, zone: int | None = None) -> int:
        """Return the number of expectations, in one zone or in all, by a dump.

        Raises InterruptedDumpError as dump() does.
        """
        return len(self._dump(self._zone(zone)))

    def get(self, tuple: Tuple, zone: int | None = None) -> Expectation:
        """Return the first expectation that a flow with this tuple fulfils (``conntrack -G``).

        It need not have the very tuple: what its mask leaves out may differ. ``zone``: 0 to 65535,
        that of the flow; None is zone 0.

        Raises NotFoundError if there is none, and InvalidRequestError for a tuple that cannot name
        a flow, such as TCP without ports.
        """
        wanted = Expectation(tuple, zone=zone)
        self._zone(zone)
        found = self._find(wanted)
        if found is None:
            raise NotFoundError(errno.ENOENT, "get an expectation")
        return _from_row(found, zone or 0)

    def create(self, expectation: Expectation) -> None:
        """Create an expectation (``conntrack -I expect``).

        It needs a master, a flow that is there and has a helper. Without a mask the whole tuple
        counts; what the tuple lacks of its source (``src``, ``sport``) may then be anything. The
        kernel gives the id and, by the helper, the timeout; USERSPACE in the flags it ignores.

        DANGER: a helper allows each flow only so many expectations of a class, that of FTP one. One
        more, and the kernel drops the flow's oldest.

        Raises ValueError without a master, with only one of ``nat`` and ``nat_direction``, for a
        direction but 0 and 1, and for a ``function`` without ``nat``. Raises ExistsError for a
        tuple that another one takes already; NotFoundError if there is no such master;
        UnsupportedError for GRE, which crashes many kernels; InvalidRequestError, also for a helper
        that is not the one of the master; Error (EOPNOTSUPP) if the master has no helper; Error
        (EBUSY, EALREADY) if a flow could fulfil this one and another.
        """
        self._require(expectation)
        master = expectation.master
        if master is None:
            raise ValueError("expectation must have a master")
        if (expectation.nat is None) != (expectation.nat_direction is None):
            raise ValueError("nat and nat_direction go together")
        # Kernels read beyond a flow for another direction, and leave it unset without NAT.
        if expectation.nat_direction not in (None, 0, 1):
            raise ValueError(f"nat_direction must be 0 or 1, not {expectation.nat_direction}")
        if expectation.function is not None and expectation.nat is None:
            raise ValueError("function goes only with nat and nat_direction")
        self._zone(expectation.zone)
        operation = "create an expectation"
        if expectation.tuple.proto == Proto.GRE:
            reason = f"tuple: GRE cannot be expected; {_reasons.GRE_CRASH}"
            raise error(errno.EOPNOTSUPP, operation, reason=reason)
        try:
            if expectation.helper is not None:
                expectation = self._with_own_helper(expectation, master)
            row = _whole(expectation)._row
            self._handle.run(operation, lib.nlct_expect_create, _pointer(row))
        except NotFoundError as exc:
            reason = f"master: there is no such flow in zone {expectation.zone or 0}"
            raise NotFoundError(errno.ENOENT, operation, exc.kernel_message, reason) from None
        except UnsupportedError as exc:
            # Not the kernel's fault, but the kernel says it with the same number.
            if not self._has_helper(master, expectation.zone):
                reason = "master: the flow has no helper"
                raise Error(exc.errno or 0, operation, exc.kernel_message, reason) from None
            raise

    def _with_own_helper(self, expectation: Expectation, master: Tuple) -> Expectation:
        """Return what to send. Raises InvalidRequestError for a helper that is not the master's.

        Many kernels look its class up among those of the master's helper, and give the helper to
        the new flow, whatever its protocol. So it is left out for a tuple of another protocol: a
        dump names the master's helper for every expectation.
        """
        operation = "create an expectation"
        lacks = _reasons.missing(master)
        if lacks:
            raise error(errno.EINVAL, operation, reason=f"master must have {', '.join(lacks)}")
        found = _lookup.find_tuple(self._handle, master, expectation.zone)
        if found.helper is None:
            raise Error(errno.EOPNOTSUPP, operation, reason="master: the flow has no helper")
        if found.helper != expectation.helper:
            reason = f"helper must be that of the master, {found.helper!r}, or left out"
            raise error(errno.EINVAL, operation, reason=reason)
        if found.orig.proto == expectation.tuple.proto:
            return expectation
        if expectation.expect_class:
            reason = "expect_class must be 0 for a tuple of another protocol than the master's"
            raise error(errno.EINVAL, operation, reason=reason)
        return expectation.replace(helper=None)

    def _has_helper(self, master: Tuple, zone: int | None) -> bool:
        """Tell if a flow has a helper, or is gone meanwhile."""
        try:
            return _lookup.find_tuple(self._handle, master, zone).helper is not None
        except NotFoundError:
            return True

    def delete(self, expectation: Expectation) -> None:
        """Delete this very expectation and nothing else (``conntrack -D expect``).

        Its tuple, zone and id must be those of the kernel, as get() or dump(zone=...) gave them.
        Without a zone it is looked for in zone 0.

        Raises ValueError without an id. Raises NotFoundError if it is gone, and also if the kernel
        finds another one first, whose mask lets both be fulfilled by the same flow. Raises
        UnsupportedError where the kernel gives one id and compares another, as Linux 5.10 does.
        """
        self._require(expectation)
        if expectation.id is None:
            raise ValueError(f"expectation must have an id, as the kernel gave it: {expectation!r}")
        self._zone(expectation.zone)
        row = _pointer(expectation._row)
        with self._handle.pool.lend() as sock:
            rc = lib.nlct_expect_delete(sock.handle, row)
            if rc != -errno.ENOENT:
                sock.check(rc, "delete an expectation")
        if rc == -errno.ENOENT and self._is_in(expectation, expectation.zone or 0):
            why = "this kernel does not find an expectation by its id"
            raise error(errno.EOPNOTSUPP, "delete an expectation", reason=why)
        if rc == -errno.ENOENT:
            reason = "" if expectation.zone is not None else "none in zone 0, as no zone is given"
            raise NotFoundError(errno.ENOENT, "delete an expectation", reason=reason)

    def flush_all(self) -> None:
        """Delete all expectations of all zones (``conntrack -F expect``)."""
        self._handle.run("flush all expectations", lib.nlct_expect_flush_all)

    def events(self, *kinds: str | EventKind, buffer: int | None = None) -> ExpectationEvents:
        """Listen (``conntrack -E expect``): a stream of ExpectationEvent and Overrun.

        ``kinds``: "new", "destroy", and "update", of which no kernel makes any (``-e``); without
        any, "new" and "destroy".
        ``buffer``: bytes that the kernel queues before it drops events, 4,096 to 2**30 - 1; an
        event takes some 1,200. None is 16 MiB, or what ``net.core.rmem_max`` allows without
        CAP_NET_ADMIN in the initial user namespace; to insist on a size then raises
        PermissionError.

        The stream stays open when the Conntrack is closed. While anybody on the host listens, every
        new flow costs more, in every namespace. The kernel announces no expectation of a flow that
        has no events; see ExpectationEvents.mode.

        Raises UnsupportedError if the sysctl nf_conntrack_events is 0, which hides every event.
        """
        return ExpectationEvents(self._handle, kinds, buffer)

    def _zone(self, zone: int | None) -> int | None:
        """Check a zone. Refuses one where the kernel was built without."""
        checked = _check.optional("zone", zone, 0, _check.U16)
        require(self._handle, frozenset(() if checked is None else (checked,)))
        return checked

    @staticmethod
    def _require(expectation: Expectation) -> None:
        if not isinstance(expectation, Expectation):
            raise TypeError(f"expectation must be an Expectation, not {expectation!r}")

    def _dump(self, zone: int | None) -> list[Expectation]:
        for _ in range(MAX_DUMPS):
            data = Bytes()
            with self._handle.pool.lend() as sock:
                rc = lib.nlct_expect_dump(sock.handle, data.c)
                if rc != -errno.EINTR:
                    sock.check(rc, "dump the expectations")
                    return self._unique(data.take(), zone)
        raise InterruptedDumpError(errno.EINTR, "dump the expectations")

    def _unique(self, rows: bytes, zone: int | None) -> list[Expectation]:
        """Return each expectation once, those of a zone if one is given."""
        found: dict[Any, Expectation] = {}
        for at in range(0, len(rows), _SIZE):
            one = _from_row(rows[at : at + _SIZE], None)
            found[one.tuple, one.id] = one
        if zone is None:
            return list(found.values())
        return [_from_row(one._row, zone) for one in found.values() if self._is_in(one, zone)]

    def _is_in(self, one: Expectation, zone: int) -> bool:
        """Tell if this very expectation is in the zone."""
        found = self._find(one.replace(zone=zone))
        return found is not None and _from_row(found, None).id == one.id

    def _find(self, key: Expectation) -> bytes | None:
        """Return what the kernel finds by a tuple and a zone, None if that is nothing."""
        found = ffi.new("struct nlct_expect *")
        with self._handle.pool.lend() as sock:
            rc = lib.nlct_expect_get(sock.handle, _pointer(key._row), found)
            if rc == -errno.ENOENT:
                return None
            sock.check(rc, "get an expectation")
        row: bytes = ffi.buffer(found)[:]
        return row


def _whole(expectation: Expectation) -> Expectation:
    """Return a new expectation as the kernel wants it: with a whole tuple and a mask."""
    if expectation.mask is not None:
        return expectation
    one = expectation.tuple
    every, none = ("255.255.255.255", "0.0.0.0")
    if expectation.family == IPV6:
        every, none = str(ipaddress.IPv6Address(2**128 - 1)), "::"
    mask = Tuple(src=none if one.src is None else every, dst=every, proto=one.proto)
    if one.dport is not None:
        mask = mask.replace(sport=0 if one.sport is None else 0xFFFF, dport=0xFFFF)
        one = one.replace(sport=one.sport or 0)
    return expectation.replace(tuple=one.replace(src=one.src or none), mask=mask)
