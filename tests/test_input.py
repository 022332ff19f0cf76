"""Bad input: the right exception, nothing sent, nothing deleted."""

from __future__ import annotations

import errno
import ipaddress
import signal
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import nlct
from nlct import Filter, _handle
from nlct._ffi import lib
from tests.support import flows, oracle
from tests.support.core import Lib
from tests.support.descriptors import descriptors
from tests.support.processes import Script

BAD_ZONES = [
    -1,
    65536,
    2**64,
    "x",
    "7",
    b"1",
    True,
    False,
    1.5,
    7.0,
    pytest.param(object(), id="object()"),
]


@pytest.fixture
def untouched(ct: nlct.Conntrack, netns: nlct.Netns) -> Iterator[nlct.Conntrack]:
    """A table that must be the same afterwards."""
    flows.populate(ct)
    before = oracle.dump(netns)
    yield ct
    assert oracle.dump(netns) == before


@pytest.mark.parametrize("zone", BAD_ZONES, ids=repr)
def test_a_bad_zone_is_refused(untouched: nlct.Conntrack, zone: int) -> None:
    """ValueError where it is out of range, TypeError where it is no number; alone and in a set."""
    expected = ValueError if type(zone) is int else TypeError
    calls: list[Callable[[], object]] = [
        lambda: untouched.flush_zone(zone),
        lambda: untouched.flush_zone(zone, strategy="kernel"),
        lambda: untouched.flush_zones(zone),
        lambda: untouched.flush_zones([7, zone]),
        lambda: untouched.flush_zones([7, zone], strategy="scan"),
        lambda: untouched.dump(zone=zone),
        lambda: untouched.count(zone=zone),
        lambda: untouched.count_by("zone", zone=[zone]),
        lambda: Filter(zone=zone),
    ]
    for call in calls:
        with pytest.raises(expected, match=r"zone"):
            call()


@pytest.mark.parametrize("strategy", ["auto", "scan", "kernel"])
def test_no_zone_is_not_every_zone(untouched: nlct.Conntrack, strategy: str) -> None:
    """None, as an unset variable would be, never flushes the table."""
    for call in (untouched.flush_zone, untouched.flush_zones):
        for dry_run in (True, False):
            with pytest.raises(TypeError, match="zone"):
                call(None, strategy=strategy, dry_run=dry_run)  # type: ignore[arg-type]
    for bad in ({None}, [None, 7]):
        with pytest.raises(TypeError, match="zone"):
            untouched.flush_zones(bad, strategy=strategy)  # type: ignore[arg-type]


def test_flush_zone_takes_one_zone(untouched: nlct.Conntrack) -> None:
    """A set belongs to flush_zones()."""
    for zones in ([7], {7}, range(7), (), Filter(zone=7)):
        with pytest.raises(TypeError, match="zone"):
            untouched.flush_zone(zones)  # type: ignore[arg-type]


def test_a_filter_is_no_set_of_zones(untouched: nlct.Conntrack) -> None:
    """Neither a Filter nor a flow is taken for zones by accident."""
    for wrong in (Filter(zone=7), Filter(), flows.udp(1)):
        with pytest.raises(TypeError, match="zone"):
            untouched.flush_zones(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"strategy": "fast"}, {"strategy": ""}, {"strategy": None}])
def test_a_bad_strategy_is_refused(untouched: nlct.Conntrack, options: dict[str, str]) -> None:
    """The error names the strategies there are."""
    for call in (untouched.flush_all, lambda **o: untouched.flush_zones({7}, **o)):
        with pytest.raises(ValueError, match="auto, scan, kernel"):
            call(**options)


@pytest.mark.parametrize("passes", [0, -1, 1001, True, 1.0, "2", None])
def test_bad_passes_are_refused(untouched: nlct.Conntrack, passes: int) -> None:
    """A number of dumps that makes no sense."""
    for call in (untouched.flush_all, lambda **o: untouched.flush_zone(7, **o)):
        with pytest.raises((ValueError, TypeError), match="passes"):
            call(passes=passes)


@pytest.mark.parametrize("family", ["ipv5", "", 0, 3, -1, True, 2.5, None.__class__])
def test_a_bad_family_is_refused(family: object) -> None:
    """Only the two families that conntrack knows."""
    with pytest.raises((ValueError, TypeError), match="family"):
        Filter(family=family)  # type: ignore[arg-type]


def test_wrong_arguments_of_the_rest(untouched: nlct.Conntrack) -> None:
    """What is no filter, no field, no flow."""
    for call in (untouched.count, untouched.dump):
        for wrong in (7, "zone", {"zone": 7}):
            with pytest.raises(TypeError, match="filter"):
                call(wrong)  # type: ignore[arg-type]
    for what in ("zones", "", "unknown"):
        with pytest.raises(ValueError, match="zone"):
            untouched.count_by(what)
    for nothing in (None, "10.0.0.1", 7):
        with pytest.raises((TypeError, AttributeError)):
            untouched.create(nothing)  # type: ignore[arg-type]
        with pytest.raises((TypeError, AttributeError)):
            untouched.load([nothing])  # type: ignore[list-item]


METHODS: dict[str, Callable[[nlct.Conntrack], object]] = {
    "count": lambda ct: ct.count(),
    "count-zone": lambda ct: ct.count(zone=7),
    "count_by": lambda ct: ct.count_by("zone"),
    "dump": lambda ct: list(ct.dump()),
    "dump-zone": lambda ct: list(ct.dump(zone=7)),
    "get": lambda ct: ct.get(flows.udp(1).orig),
    "create": lambda ct: ct.create(flows.udp(1)),
    "load": lambda ct: ct.load([flows.udp(1)]),
    "limit": lambda ct: ct.limit,
    "flush_zone": lambda ct: ct.flush_zone(7),
    "flush_zone-scan": lambda ct: ct.flush_zone(7, strategy="scan"),
    "flush_zone-0": lambda ct: ct.flush_zone(0),
    "flush_zones": lambda ct: ct.flush_zones({1, 2}),
    "flush_zones-of-none": lambda ct: ct.flush_zones(()),
    "flush_all": lambda ct: ct.flush_all(),
    "flush_all-dry": lambda ct: ct.flush_all(dry_run=True),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_a_closed_table_says_so(
    netns: nlct.Netns, method: Callable[[nlct.Conntrack], object], used: bool
) -> None:
    """Every method raises ValueError, deletes nothing, and close() may be called again."""
    ct = nlct.Conntrack(netns)
    flows.populate(ct)
    if used:
        ct.count(zone=7)
    before = oracle.dump(netns)
    ct.close()
    ct.close()
    with pytest.raises(ValueError, match="closed"):
        method(ct)
    assert oracle.dump(netns) == before


def test_the_context_manager_closes(netns: nlct.Netns) -> None:
    """After the block the table is closed, and no descriptor is left."""
    before = descriptors()
    with nlct.Conntrack(netns) as ct:
        ct.count()
    with pytest.raises(ValueError, match="closed"):
        ct.count()
    assert descriptors() == before


# No privilege ----------------------------------------------------------------------------------

DENIED = """
# Into the scratch namespace first, then down to a user who owns nothing there.
assert ctypes.CDLL(None).setns({fd}, 0x40000000) == 0
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ct = nlct.Conntrack()
flow = tests.support.flows.udp(1, 7)
calls = (
    lambda: ct.flush_all(),
    lambda: ct.flush_all(strategy="scan"),
    lambda: ct.flush_zone(7),
    lambda: ct.flush_zone(0),
    lambda: ct.flush_zone(7, strategy="scan"),
    lambda: ct.flush_zones({{0, 7}}),
    lambda: list(ct.dump()),
    lambda: ct.count(),
    lambda: ct.count(zone=7),
    lambda: ct.count_by("zone"),
    lambda: ct.limit,
    lambda: ct.get(flow.orig, zone=7),
    lambda: ct.create(flow),
    lambda: ct.load([flow]),
)
for call in calls:
    try:
        call()
    except PermissionError as exc:
        assert isinstance(exc, nlct.Error), exc
        assert exc.errno == errno.EPERM, exc
        assert "CAP_NET_ADMIN" in str(exc), exc
    else:
        raise AssertionError("allowed")
try:
    nlct.Conntrack({fd}).count()
except PermissionError as exc:
    assert "CAP_NET_ADMIN" in str(exc), exc
else:
    raise AssertionError("entered")
print("denied")
"""


@pytest.mark.usefixtures("root")
def test_without_privilege_everything_is_denied(
    untouched: nlct.Conntrack, netns: nlct.Netns, script: Script
) -> None:
    """PermissionError that is also nlct.Error and names CAP_NET_ADMIN; nothing is deleted."""
    assert untouched.count() > 0
    code = (
        "import ctypes, errno, logging, os, nlct, nlct.fill\nimport tests.support.flows\n"
        + DENIED.format(fd=netns.fileno())
    )
    assert script(code, pass_fds=(netns.fileno(),)) == "denied"


# A kernel without zones ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "scan", "kernel"])
def test_a_kernel_without_zones_refuses_them(
    ct: nlct.Conntrack, netns: nlct.Netns, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Zone 7 is unsupported and nothing is sent; zone 0 and everything can be flushed."""

    def get(sock: object, key: object, found: object, heap: object) -> int:
        if key.zone:  # type: ignore[attr-defined]
            return -errno.EOPNOTSUPP
        return int(lib.nlct_get(sock, key, found, heap))

    flows.populate(ct)
    before = oracle.dump(netns)
    nlct.probe()  # what it finds out is remembered
    monkeypatch.setattr(_handle, "lib", Lib(nlct_get=get))
    calls: list[Callable[[], object]] = [
        lambda: ct.flush_zone(7, strategy=strategy),
        lambda: ct.flush_zones({0, 7}, strategy=strategy),
        lambda: ct.flush_zone(7, strategy=strategy, dry_run=True),
        lambda: ct.dump(zone=7),
        lambda: ct.count(zone=7),
        lambda: ct.count_by("zone", zone=[7]),
    ]
    for call in calls:
        with pytest.raises(nlct.UnsupportedError, match="zone") as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
    assert oracle.dump(netns) == before
    if strategy != "kernel":
        ct.flush_zone(0, strategy=strategy)
        assert oracle.dump(netns) == oracle.outside(before, {0})
    ct.flush_all(strategy=strategy)
    assert oracle.dump(netns) == {}


def test_errors_say_what_was_asked(ct: nlct.Conntrack) -> None:
    """Number, operation and the meaning of the number; and they survive pickling."""
    import pickle  # noqa: PLC0415

    with pytest.raises(nlct.NotFoundError) as caught:
        ct.get(flows.udp(1).orig, zone=7)
    error = caught.value
    assert isinstance(error, (nlct.Error, OSError))
    assert (error.errno, error.operation) == (errno.ENOENT, "get a flow")
    assert "get a flow" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, nlct.NotFoundError),
        (errno.EEXIST, nlct.ExistsError),
        (errno.EOPNOTSUPP, nlct.UnsupportedError),
        (errno.ENOMEM, nlct.Error),
        (errno.EINVAL, nlct.InvalidRequestError),
        (errno.ENOBUFS, nlct.OverrunError),
        (errno.EPROTONOSUPPORT, nlct.UnsupportedError),
        (errno.EAFNOSUPPORT, nlct.UnsupportedError),
        (errno.EPERM, nlct.PrivilegeError),
        (errno.EACCES, PermissionError),
        (errno.EBUSY, nlct.Error),
    ],
)
def test_each_errno_has_its_exception(number: int, kind: type[nlct.Error]) -> None:
    """One door from a number to a class."""
    from nlct.errors import check  # noqa: PLC0415

    with pytest.raises(kind) as caught:
        check(-number, "try")
    assert caught.value.errno == number
    assert check(3, "try") == 3


def test_the_signal_that_ended_a_child_is_a_reason() -> None:
    """It is nlct that says so, not the kernel's extended ack; the core gives its number."""
    from nlct import errors  # noqa: PLC0415

    assert errors._KILLED == lib.NLCT_KILLED
    with pytest.raises(nlct.Error) as caught:
        errors.check(-lib.NLCT_KILLED - signal.SIGKILL, "try")
    assert caught.value.errno == errno.ECHILD
    assert (caught.value.reason, caught.value.kernel_message) == ("it was ended by SIGKILL", "")


class Three:
    """A number that multiplies lists as an array does."""

    def __index__(self) -> int:
        return 3

    def __rmul__(self, zones: list[int]) -> list[int]:
        return [3 * zone for zone in zones]


@pytest.mark.usefixtures("kernel_flush")
def test_odd_numbers_are_numbers(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Passes that are no plain int do not turn zone 7 into zone 21."""
    for zone in (7, 21):
        ct.create(flows.udp(1, zone))
    result = ct.flush_zone(7, strategy="kernel", passes=Three())  # type: ignore[arg-type]
    assert oracle.by_zone(oracle.dump(netns)) == {21: 1}
    assert type(result.passes) is int


@pytest.mark.parametrize("zones", [bytearray(b"\x07"), memoryview(b"\x07")])
def test_bytes_are_no_zones(ct: nlct.Conntrack, zones: object) -> None:
    """Bytes that can be iterated are no set of zones."""
    with pytest.raises(TypeError, match="zone"):
        ct.flush_zones(zones)  # type: ignore[arg-type]


def test_what_is_no_flow_is_refused(ct: nlct.Conntrack) -> None:
    """create() and load() say what they want, and so do callbacks and families."""
    for call in (
        lambda: ct.create(None),  # type: ignore[arg-type]
        lambda: ct.load([1]),  # type: ignore[list-item]
        lambda: ct.load("x"),  # type: ignore[arg-type]
        lambda: ct.load([], progress=5),  # type: ignore[arg-type]
        lambda: ct.count(zone=7, progress=5),  # type: ignore[arg-type]
        lambda: ct.flush_all(progress=5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="must be"):
            call()
    with pytest.raises(ValueError, match="family"):
        Filter(family=[])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one family"):
        nlct.Flow(nlct.Tuple("10.0.0.1", "10.0.0.2"), nlct.Tuple("fd00::1", "fd00::2"))


@pytest.mark.parametrize("code", ["h", "b", "c"])
def test_columns_of_another_kind_are_refused(code: str) -> None:
    """Two bytes are not yet an unsigned number."""
    with pytest.raises(ValueError, match="zone"):
        nlct.FlowTable({"family": b"\2", "zone": memoryview(b"\0\7").cast(code)})


@pytest.mark.parametrize("scoped", ["fe80::1%lo", ipaddress.ip_address("fe80::1%lo")])
def test_an_address_has_no_interface(scoped: Any) -> None:
    """It would be lost, and the flow another one."""
    with pytest.raises(ValueError, match="dst must be an address without an interface"):
        nlct.Tuple("fe80::2", scoped, "udp", 1, 2)
