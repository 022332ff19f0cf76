"""The guard of delete(): what it lets through restricts something, by all that can be told."""

from __future__ import annotations

import copy
import functools
import ipaddress
import itertools
import operator
import pickle
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nlct
from nlct import ALL, Filter, Status, _guard
from tests.support import filters
from tests.support.examples import examples

BOUND = 1000


def refused(ct: nlct.Conntrack, wanted: Filter, match: str) -> None:
    """A delete raises, and so does its dry run."""
    assert wanted.restricts_nothing
    for dry_run in (True, False):
        with pytest.raises(ValueError, match=match):
            ct.delete(wanted, dry_run=dry_run)


# Against every value there is --------------------------------------------------------------------


def numbers(*usual: int) -> st.SearchStrategy[Any]:
    """Numbers and ranges of them, open ones too."""
    number = st.sampled_from(usual)
    ends = st.tuples(number, number)
    ranges = ends.map(lambda two: range(*two)) | ends.map(lambda two: slice(*sorted(two)))
    half = number.map(lambda one: slice(one, None)) | number.map(lambda one: slice(None, one))
    return st.lists(number | ranges | half | half, max_size=4)


def masked(*bits: int) -> st.SearchStrategy[Any]:
    """Pairs of a value and a mask out of these bits."""
    mask = st.lists(st.sampled_from(bits), min_size=1, unique=True).map(sum)
    return st.tuples(st.integers(0), mask).map(lambda two: (two[0] % 2**128 & two[1], two[1]))


def subsets(*bits: int) -> list[int]:
    """Every number that has none but these bits."""
    return [sum(some) for n in range(len(bits) + 1) for some in itertools.combinations(bits, n)]


BITS = (1, 2, 4, 8)
LABELS = (1, 1 << 63, 1 << 64, 1 << 127)
STATUSES = (Status.SEEN_REPLY, Status.ASSURED, Status.CONFIRMED, Status.SRC_NAT, Status.DST_NAT)
NETWORKS = [
    *(f"{n}.0.0.0/{length}" for length in range(4) for n in range(0, 256, 256 >> length)),
    *(f"{n:x}00::/{length}" for length in range(4) for n in range(0, 256, 256 >> length)),
    *("0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]
ADDRESSES = {
    address
    for text in NETWORKS
    for network in (ipaddress.ip_network(text),)
    for address in (network[0], network[-1], network[network.num_addresses // 2])
}
ADDRESSES |= {ipaddress.ip_address("224.0.0.1"), ipaddress.ip_address("::1")}
ADDRESSES |= {ipaddress.ip_address("255.255.255.254"), ipaddress.ip_address("0.0.0.1")}

# By field: what it is given, and values of which every one that there may be behaves like one.
SMALL: dict[str, tuple[dict[str, st.SearchStrategy[Any]], list[Any]]] = {
    "proto": ({"proto": numbers(0, 1, 6, 254, 255)}, list(range(256))),
    "icmp_type": ({"icmp_type": numbers(0, 1, 8, 254, 255)}, [None, *range(256)]),
    "zone": (
        {"zone": st.sampled_from([0, [0, 65535], range(5), range(3, 65536), slice(1, None), []])},
        [*range(8), *range(65530, 65536)],
    ),
    "bytes_orig": (
        {"bytes_orig": numbers(0, 1, 5, 2**64 - 1)},
        [None, *range(8), *range(2**64 - 3, 2**64)],
    ),
    "family": ({"family": st.sampled_from(("ipv4", "ipv6"))}, [2, 10]),
    "mark": (
        {"mark": st.lists(masked(*BITS) | st.integers(0, 20), max_size=9) | numbers(0, 3, 8, 30)},
        list(range(64)),
    ),
    "labels": (
        {"labels": st.lists(masked(*LABELS), max_size=9)},
        # With one that no filter names: the kernel sends no labels where none is set.
        [None, *filter(None, subsets(*LABELS, 1 << 5))],
    ),
    "status": (
        {
            "status": st.lists(masked(*STATUSES), max_size=9),
            "status_none": st.lists(st.sampled_from(STATUSES), min_size=1, max_size=2),
            "snat": st.booleans(),
            "any_nat": st.booleans(),
        },
        [bits for bits in subsets(*STATUSES) if bits & Status.CONFIRMED],
    ),
    "src": ({"src": st.lists(st.sampled_from(NETWORKS), max_size=9)}, sorted(ADDRESSES, key=str)),
    "helper": (
        {"helper": st.lists(st.sampled_from(("", "a", "ftp")), max_size=2)},
        [None, "", "a", "ftp", "b", "sip"],
    ),
}


@pytest.mark.hypothesis
@pytest.mark.parametrize("field", SMALL)
def test_it_is_exact_of_one_field(field: str) -> None:
    """However it is joined: against every value, and none at all."""
    arguments, values = SMALL[field]
    facts = [{} if value is None else {field: value} for value in values]
    leaves = st.sampled_from(sorted(arguments)).flatmap(
        lambda name: st.fixed_dictionaries({name: arguments[name]})
    )

    @examples(100)
    @given(filters.joined(leaves))
    def check(spec: filters.Spec) -> None:
        assume(not filters.contradicts(spec))
        whole = all(filters.matches(spec, fact) for fact in facts)
        assert filters.build(spec).restricts_nothing is whole

    check()


@examples(100)
@given(
    filters.joined(
        st.fixed_dictionaries(
            {},
            optional={
                "proto": numbers(0, 128, 255),
                "mark": st.lists(masked(1, 2), max_size=3),
                "icmp_type": numbers(0, 255),
                "snat": st.booleans(),
            },
        )
    )
)
def test_several_fields(spec: filters.Spec) -> None:
    """What it refuses does match everything."""
    assume(not filters.contradicts(spec))
    if filters.build(spec).restricts_nothing:
        for proto, mark, icmp, status in itertools.product(
            (0, 1, 127, 128, 129, 254, 255), range(4), (None, 0, 1, 254, 255), (8, 8 | 16)
        ):
            facts = {"proto": proto, "mark": mark, "status": status}
            if icmp is not None:
                facts["icmp_type"] = icmp
            assert filters.matches(spec, facts)


# Every value of these behaves like one of those.
SEVERAL: dict[str, tuple[st.SearchStrategy[Any], list[Any]]] = {
    "mark": (st.sampled_from([(0, 1), (1, 1), 7, slice(8, None)]), [0, 1, 7, 8, 9]),
    "zone": (st.sampled_from([0, range(1, 65536), slice(None)]), [0, 1]),
    "sport": (st.sampled_from([range(100), slice(100, None)]), [None, 0, 100]),
}


JOINED = filters.joined(
    st.lists(st.sampled_from(sorted(SEVERAL)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: SEVERAL[name][0] for name in names})
    )
)


@examples(150)
@given(JOINED | JOINED.map(lambda spec: ("or", spec, ("not", spec))))
def test_several_fields_that_are_joined(spec: filters.Spec) -> None:
    """However they are joined, inverted and nested: the answer is exact."""
    names = list(SEVERAL)
    every = (
        {name: value for name, value in zip(names, values) if value is not None}
        for values in itertools.product(*(SEVERAL[name][1] for name in names))
    )
    whole = all(filters.matches(spec, facts) for facts in every)
    assert filters.build(spec).restricts_nothing is whole


def test_a_field_among_others(ct: nlct.Conntrack) -> None:
    """Its alternatives are seen wherever they stand, and so are those of several fields."""
    low, high = Filter(mark=range(2**31)), Filter(mark=slice(2**31, None))
    udp = Filter(proto="udp", dport=53)
    for whole in (udp | ~udp, low | udp | high, udp | (low | (udp | high)), ~(~low & ~udp & ~high)):
        refused(ct, whole, r"nlct\.ALL")
    for part in (low, low | udp, (low | high) & udp, ~(low | high) | udp, low & high):
        assert not part.restricts_nothing
    # Beyond so many alternatives each of them is judged by itself.
    for count in (_guard.MOST_JOINT - 2, _guard.MOST_JOINT):
        others = (Filter(zone=zone, mark=7) for zone in range(count))
        many = functools.reduce(operator.or_, others, udp | ~udp)
        assert many.restricts_nothing is (count < _guard.MOST_JOINT)


def test_very_many_values_of_one_field(ct: nlct.Conntrack) -> None:
    """As exact as few: with one of them missing it is let through."""
    rng = random.Random(1)
    whole = [range(n, n + 300_000) for n in range(0, 2**32 - 300_000, 300_000)]
    whole.append(slice(whole[-1].stop, None))
    rng.shuffle(whole)
    refused(ct, Filter(mark=whole), r"nlct\.ALL")
    assert not Filter(mark=whole[:-1]).restricts_nothing
    assert not Filter(mark=whole[1:]).restricts_nothing
    networks = [f"{n >> 4}.{(n & 15) << 4}.0.0/12" for n in range(4096)]
    rest = Filter(src="::/0")
    refused(ct, Filter(src=networks) | rest, r"nlct\.ALL")
    for missing in (0, 2047, 4095):
        wanted = Filter(src=networks[:missing] + networks[missing + 1 :])
        assert not (wanted | rest).restricts_nothing
        refused(ct, ~wanted | wanted | rest, r"nlct\.ALL")


def test_fields_that_tell_the_family(ct: nlct.Conntrack) -> None:
    """An address says of which family a flow is, so together they may leave nothing out."""
    ipv4, ipv6 = Filter(family="ipv4"), Filter(family="ipv6")
    for wanted in (
        Filter(src="0.0.0.0/0") | ipv6,
        ipv4 | Filter(reply_dst="::/0"),
        Filter(dst="0.0.0.0/0") | Filter(src="::/0"),
        Filter(src=["0.0.0.0/1"])
        | ~Filter(dst=["::/0"], zone=7)
        | Filter(src="128.0.0.0/1")
        | ipv6,
    ):
        refused(ct, wanted, r"nlct\.ALL")
    for wanted in (
        Filter(src="0.0.0.0/1") | ipv6,
        Filter(src="0.0.0.0/1") | Filter(dst="128.0.0.0/1") | ipv6,
        Filter(src="0.0.0.0/0") | ipv4,
        Filter(src="0.0.0.0/0", zone=7) | ipv6,
    ):
        assert not wanted.restricts_nothing


# Masked values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mark", "labels", "status"])
def test_masked_values_up_to_the_bound(ct: nlct.Conntrack, name: str) -> None:
    """Exact up to 1,000, and beyond that as if they were everything."""
    top = {"mark": 31, "labels": 127, "status": 31}[name]
    few = [(n << (top - 15), 0xFFFF << (top - 15)) for n in range(BOUND)]
    assert not Filter(**{name: few}).restricts_nothing
    assert not (~Filter(**{name: few})).restricts_nothing
    assert ct.delete(Filter(**{name: few})).complete
    many = [*few, (BOUND << (top - 15), 0xFFFF << (top - 15))]
    for wanted in (Filter(**{name: many}), ~Filter(**{name: many}), Filter(**{name: many}) | ~ALL):
        refused(ct, wanted, r"has so many masked values of one field \(more than 1,000.*nlct\.ALL")
    # They are no obstacle where something else restricts, nor to those who do not delete.
    assert ct.delete(Filter(**{name: many}, zone=1)).complete
    assert ct.count(Filter(**{name: many})) == 0


def test_masked_values_that_cover_everything(ct: nlct.Conntrack) -> None:
    """With all of them, in whatever order; and not with one of them missing."""
    whole = [(n << 20, 0x1FF << 20) for n in range(512)]
    random.Random(2).shuffle(whole)
    refused(ct, Filter(mark=whole), r"must restrict something.*nlct\.ALL")
    refused(ct, Filter(mark=whole[:256]) | ~~Filter(mark=whole[256:]), r"must restrict something")
    refused(ct, Filter(mark=whole[:100]) | ~Filter(mark=whole[:100]), r"must restrict something")
    assert not Filter(mark=whole[:-1]).restricts_nothing
    assert not Filter(mark=whole[1:]).restricts_nothing
    # Masks of which each leaves the next bit to the others, and the last number to none.
    steps = [(1 << bit, (2 << bit) - 1) for bit in range(32)]
    assert not Filter(mark=steps).restricts_nothing
    refused(ct, Filter(mark=[*steps, 0]), r"must restrict something")


def test_what_would_take_too_long(ct: nlct.Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as everything, too."""
    pairs = [(n << bit, 3 << bit) for bit in range(0, 32, 2) for n in range(1, 4)]
    wanted = Filter(mark=pairs)
    assert not wanted.restricts_nothing
    monkeypatch.setattr(_guard, "MOST_STEPS", 20)
    refused(ct, Filter(mark=pairs), "too many combinations of them")


# Depth and length --------------------------------------------------------------------------------


def test_depth_has_a_bound() -> None:
    """What goes through a filter never runs out of stack, and what is deeper is refused."""
    made = Filter(dport=1)
    for number in range(50):
        made = ~(made & Filter(mark=number))
    check(made)
    for join in (lambda: made & Filter(mark=1), lambda: Filter(mark=1) | made):
        with pytest.raises(ValueError, match="nested at most 100 deep"):
            join()


@pytest.mark.parametrize("word", ["and", "or"])
def test_length_has_none(word: str) -> None:
    """A chain of 20,000, from the left as from the right, is a flat one; so is one of two."""
    made = back = Filter(dport=1)
    for number in range(20_000):
        other = Filter(mark=number)
        made = made & other if word == "and" else made | other
        back = other & back if word == "and" else other | back
    check(made)
    check(back)
    assert (made & back if word == "and" else made | back).restricts_nothing is False
    assert repr(made).count("Filter(") == 20_001


def test_a_chain_costs_what_it_is_long() -> None:
    """Nothing of it is put together before somebody asks."""
    made = Filter(dport=1)
    marks = [Filter(mark=number) for number in range(100)]
    for number in range(100_000):
        made = made | marks[number % 100]
        assert made._known is None
    assert hash(made) == hash(~~made)
    assert len(made._node.parts) == 100_001  # type: ignore[union-attr]


def test_not_not_is_what_it_was() -> None:
    """After pickling as before."""
    for made in (Filter(mark=1), Filter(snat=False), Filter(mark=1, zone=1), ~Filter(mark=1)):
        inverse = ~made
        for same in (inverse, *copies(inverse)):
            assert ~same == made
            assert ~~same == inverse
    assert (~Filter(snat=False)) == Filter(snat=True)


def test_a_filter_of_another_class_stays_what_it_is() -> None:
    """Nothing that is done to it takes away what restricts it."""

    class Own(Filter):
        pass

    own = Own(mark=1)
    for same in (own & ALL, ALL & own, ~~own, own & Filter(), *copies(own)):
        assert same == own == Filter(mark=1)
        assert not same.restricts_nothing


def copies(made: Filter) -> list[Filter]:
    """What is made of a filter by pickling and copying."""
    return [pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)]


def check(made: Filter) -> None:
    """Do with a filter all that there is to do."""
    for other in copies(made):
        assert (other, hash(other), repr(other)) == (made, hash(made), repr(made))
    made.to_c()
    assert not made.restricts_nothing
    assert not made.matches_nothing
