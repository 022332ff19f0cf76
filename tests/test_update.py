"""Changing one flow: what is named changes, nothing else does, nothing is lost in silence."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import pytest

import nlct
from nlct import Flow, Status, TcpState, Tuple
from tests.support import filters, flows, oracle

TCP = Tuple("10.0.0.1", "10.0.0.2", "tcp", 1000, 80)
BACK = flows.reverse(TCP)
SCTP = TCP.replace(proto="sctp")
ALIVE = Status.SEEN_REPLY | Status.ASSURED
SCALED = {"tcp_flags_orig": 1, "tcp_flags_reply": 1}


def established(ct: nlct.Conntrack, zone: int = 0) -> Flow:
    """A TCP flow, as a look-up tells it."""
    ct.create(Flow(TCP, zone=zone, timeout=3600, status=ALIVE, mark=1, tcp_state="established"))
    return ct.get(TCP, zone=zone)


def told(ct: nlct.Conntrack, zone: int = 0) -> dict[str, Any]:
    """All that is known of that flow, but for what runs by itself."""
    return {**ct.get(TCP, zone=zone).to_dict(), "timeout": None, "use": None}


# What is named -----------------------------------------------------------------------------------


def test_a_snapshot_names_a_flow_and_no_more(ct: nlct.Conntrack) -> None:
    """A mark set by an old flow leaves state, timeout and flags as they have become since."""
    old = established(ct)
    now = {"tcp_state": TcpState.CLOSE_WAIT, "timeout": 60, "tcp_flags_orig": 0x0A}
    ct.update(Flow(TCP, **now))
    ct.update(old, mark=7)
    found = ct.get(TCP)
    assert (found.mark, found.tcp_state, found.tcp_flags_orig) == (7, TcpState.CLOSE_WAIT, 0x0A)
    assert found.timeout is not None
    assert found.timeout <= 60
    # Whatever else it says: what it holds does not count.
    wrong = old.replace(mark=9, reply=BACK.replace(dport=9), master=TCP, labels=1, helper="x")
    ct.update(wrong, mark=8)
    assert ct.get(TCP).mark == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout": 100},
        {"mark": 0},
        {"mark": 0xFFFFFFFF},
        {"status": ALIVE | Status.FIXED_TIMEOUT},
        {"tcp_state": TcpState.TIME_WAIT},
        {"tcp_state": "close"},
        {"tcp_flags_orig": 0x0B},
        {"tcp_flags_reply": 0x08},
        {"tcp_wscale_orig": 7, "tcp_wscale_reply": 9, **SCALED},
        {"seqadj_orig_pos": 1, "seqadj_orig_before": 2, "seqadj_orig_after": 3},
        {"seqadj_reply_pos": 4, "seqadj_reply_before": 5, "seqadj_reply_after": 6},
        {"mark": 5, "timeout": 50, "tcp_state": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("zone", [0, 7])
def test_each_name_changes_its_field_alone(
    ct: nlct.Conntrack, changes: dict[str, Any], zone: int
) -> None:
    """The rest of the flow, and the same flow in another zone, are as they were."""
    flow = established(ct, zone)
    established(ct, 8)
    before, spared = told(ct, zone), told(ct, 8)
    ct.update(flow, **changes)
    found, after = ct.get(TCP, zone=zone), told(ct, zone)
    for name, value in changes.items():
        is_said = getattr(found, name)
        if name == "timeout":
            assert value - 60 < is_said <= value
        elif name == "status":
            assert is_said == value | Status.CONFIRMED
        elif name == "tcp_state":
            assert is_said == (TcpState.CLOSE if value == "close" else value)
        else:
            assert is_said == value
    # The kernel then tells of both directions, and says so in the status.
    adjusted = any(name.startswith("seqadj_") for name in changes)
    moved = {*changes}
    if adjusted:
        moved |= {"status", *(name for name in after if name.startswith("seqadj_"))}
    assert {n: v for n, v in after.items() if n not in moved} == {
        n: v for n, v in before.items() if n not in moved
    }
    assert told(ct, 8) == spared


def test_a_timeout_of_0_ends_a_flow(ct: nlct.Conntrack) -> None:
    """It is gone; one that is too long is cut down by the kernel."""
    ct.update(established(ct), timeout=2**32 - 1)
    assert 8_589_900 < (ct.get(TCP).timeout or 0) <= 8_589_934
    ct.update(Flow(TCP), timeout=0)
    with pytest.raises(nlct.NotFoundError):
        ct.get(TCP)


def test_an_id_guards(ct: nlct.Conntrack) -> None:
    """The flow with this tuple, but with another id, is another flow."""
    flow = established(ct)
    assert flow.id is not None
    for other in (flow.replace(id=flow.id ^ 1), Flow(TCP, id=0)):
        with pytest.raises(nlct.NotFoundError):
            ct.update(other, mark=7)
    ct.update(Flow(TCP, id=flow.id), mark=7)
    ct.update(Flow(TCP, id=flow.id, timeout=100))
    assert ct.get(TCP).mark == 7


# What is refused before it is sent ---------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [
        {"use": 1},
        {"packets_orig": 0},
        {"bytes_reply": 5},
        {"timestamp_start": 1},
        {"secctx": "a:b:c"},
        {"unknown": {99: b"x"}},
    ],
    ids=str,
)
def test_what_the_kernel_gave_is_not_put_back(ct: nlct.Conntrack, own: dict[str, Any]) -> None:
    """A flow that holds it was looked up: ValueError with the right call, and nothing is sent."""
    established(ct)
    before = told(ct)
    with pytest.raises(ValueError, match=rf"{next(iter(own))}.*update\(flow, mark=7\)"):
        ct.update(Flow(TCP, mark=7, **own))
    assert told(ct) == before


def test_a_snapshot_is_not_put_back(ct: nlct.Conntrack) -> None:
    """The very case: an old flow with another mark."""
    old = established(ct)
    ct.update(old, tcp_state="close")
    with pytest.raises(ValueError, match=r"update\(flow, mark=7\)"):
        ct.update(old.replace(mark=7))
    assert ct.get(TCP).tcp_state == TcpState.CLOSE


def test_what_update_cannot_change(ct: nlct.Conntrack) -> None:
    """Each field that it would not send is named in the error."""
    established(ct)
    before = told(ct)
    with pytest.raises(ValueError, match="master"):
        ct.update(Flow(TCP, mark=7, master=TCP))
    for nothing in (Flow(TCP), Flow(TCP, BACK), Flow(TCP, id=5)):
        with pytest.raises(ValueError, match="nothing to change"):
            ct.update(nothing)
    for name in ("use", "id", "zone", "reply", "master", "orig", "secctx", "colour"):
        with pytest.raises(TypeError, match=f"timeout, mark.*'{name}'"):
            ct.update(Flow(TCP), **{name: 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mark must not be None"):
        ct.update(Flow(TCP), mark=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="helper must be a name"):
        ct.update(Flow(TCP), helper="")
    with pytest.raises(ValueError, match="mark must be from 0 to 4294967295"):
        ct.update(Flow(TCP), mark=2**32)
    with pytest.raises(TypeError, match="mark must be an integer"):
        ct.update(Flow(TCP), mark="7")  # type: ignore[arg-type]
    for flags in (0x20, 0x2B, 0x04, 0xFF):
        with pytest.raises(ValueError, match=r"tcp_flags_reply.*0x01, 0x02 and 0x08"):
            ct.update(Flow(TCP), tcp_flags_reply=flags)
        with pytest.raises(ValueError, match="tcp_flags_orig"):
            ct.update(Flow(TCP, tcp_flags_orig=flags))
    assert told(ct) == before


def test_a_reply_cannot_be_changed(ct: nlct.Conntrack) -> None:
    """The right one may be said, in both directions; another one is refused by name."""
    established(ct)
    for orig, reply in ((TCP, BACK), (BACK, TCP)):
        ct.update(Flow(orig, reply, mark=5))
        for other in (reply.replace(dport=9), reply.replace(src="10.9.9.9"), orig):
            with pytest.raises(nlct.InvalidRequestError, match="reply") as caught:
                ct.update(Flow(orig, other, mark=7))
            assert caught.value.errno == errno.EINVAL
    assert ct.get(TCP).mark == 5


class Refusal(NamedTuple):
    """A change that is no change to this flow, and what the error says."""

    changes: dict[str, Any]
    number: int
    says: str
    kind: type[nlct.Error] = nlct.Error


TAGS = {"sctp_vtag_orig": 1, "sctp_vtag_reply": 2}
REFUSED = (
    Refusal({"status": ALIVE | Status.DYING}, errno.EBUSY, "status: dying"),
    Refusal({"status": ALIVE | Status.EXPECTED}, errno.EBUSY, "status: expected"),
    Refusal({"status": ALIVE | Status.OFFLOAD}, errno.EBUSY, "status: offload"),
    Refusal({"status": ALIVE | Status.SRC_NAT}, errno.EBUSY, "status: src_nat"),
    Refusal({"status": ALIVE | 1 << 20}, errno.EBUSY, "status: 0x100000"),
    Refusal({"status": Status.ASSURED}, errno.EBUSY, "status: seen_reply cannot be cleared"),
    Refusal({"status": Status.SEEN_REPLY}, errno.EBUSY, "status: assured cannot be cleared"),
    Refusal({"sctp_state": 3, **TAGS}, errno.EINVAL, "sctp_state is of SCTP"),
    Refusal({"dccp_state": 3, "dccp_role": 0}, errno.EINVAL, "dccp_state is of DCCP"),
    Refusal({"tcp_state": 200}, errno.ERANGE, "tcp_state 200"),
    Refusal({"tcp_wscale_orig": 7, **SCALED}, errno.EINVAL, "only together"),
    Refusal({"tcp_wscale_orig": 7, "tcp_wscale_reply": 7}, errno.EINVAL, "tcp_flags_orig"),
    Refusal({"tcp_wscale_orig": 15, "tcp_wscale_reply": 7, **SCALED}, errno.ERANGE, "0 to 14"),
    Refusal({"seqadj_orig_pos": 1}, errno.EINVAL, "seqadj_orig_before, seqadj_orig_after"),
    Refusal({"helper_info": b"x"}, errno.EINVAL, "only with helper"),
    Refusal({"labels": 1}, errno.ENOSPC, "labels: no rule.*ct label"),
    Refusal({"helper": "no such"}, errno.EOPNOTSUPP, "helper.*no such", nlct.UnsupportedError),
)


@pytest.mark.parametrize("refusal", REFUSED, ids=lambda refusal: str(refusal.changes))
def test_a_refusal_names_its_field(ct: nlct.Conntrack, netns: nlct.Netns, refusal: Refusal) -> None:
    """By name and without: what the kernel would say, or drop, with the field and why."""
    flow = established(ct)
    before = oracle.dump(netns)
    for call in (
        lambda: ct.update(flow, **refusal.changes),
        lambda: ct.update(Flow(TCP, **refusal.changes)),
    ):
        with pytest.raises(refusal.kind, match=refusal.says) as caught:
            call()
        # Kernels before policies had ranges say EINVAL.
        assert caught.value.errno in {refusal.number, errno.EINVAL}
        assert caught.value.reason
        assert caught.value.operation == "update a flow"
    assert oracle.dump(netns) == before


def test_a_fixed_timeout_is_no_lack_of_privilege(ct: nlct.Conntrack) -> None:
    """The kernel says EPERM of it; nobody is sent to look for a capability."""
    flow = established(ct)
    ct.update(flow, status=ALIVE | Status.FIXED_TIMEOUT)
    with pytest.raises(nlct.Error, match=r"timeout.*fixed_timeout") as caught:
        ct.update(flow, timeout=5)
    assert caught.value.errno == errno.EPERM
    assert not isinstance(caught.value, PermissionError)
    ct.update(flow, mark=5)


def test_sctp_goes_with_both_tags(ct: nlct.Conntrack) -> None:
    """EINVAL for a missing tag names the tag."""
    ct.create(Flow(SCTP, timeout=3600))
    for changes in ({"sctp_state": "established"}, {"sctp_state": 4, "sctp_vtag_orig": 1}):
        with pytest.raises(nlct.InvalidRequestError, match="sctp_vtag_reply"):
            ct.update(Flow(SCTP), **changes)  # type: ignore[arg-type]
    with pytest.raises(nlct.InvalidRequestError, match=r"tcp_state is of TCP.*SCTP"):
        ct.update(Flow(SCTP), tcp_state=3)
    ct.update(Flow(SCTP), sctp_state="established", **TAGS)  # type: ignore[arg-type]
    assert ct.get(SCTP).sctp_vtag_reply == 2


@pytest.mark.usefixtures("root")
def test_what_packets_made_has_no_room_for_more(ct: nlct.Conntrack, netns: nlct.Netns) -> None:
    """Sequence adjustment that the kernel accepts and drops is an error."""
    filters.prepare(netns)
    filters.talk(netns)
    flow = next(flow for flow in ct.dump() if (flow.status or 0) & Status.SEEN_REPLY)
    numbers = {"seqadj_reply_pos": 1, "seqadj_reply_before": 2, "seqadj_reply_after": 3}
    with pytest.raises(nlct.InvalidRequestError, match="seqadj_reply_pos was dropped"):
        ct.update(flow, **numbers)  # type: ignore[arg-type]
    ct.update(flow, labels=1 << 9, mark=3)
    found = ct.get(flow.orig)
    assert (found.labels, found.mark) == (1 << 9, 3)


# Whose zone --------------------------------------------------------------------------------------

ORIG = Tuple("10.0.0.1", "10.0.0.2", "udp", 1000, 53)
REPLY = flows.reverse(ORIG)
KINDS = {
    "no zone": Flow(ORIG, timeout=3600),
    "both directions": Flow(ORIG, zone=5, timeout=3600),
    "orig alone": Flow(ORIG.replace(zone=5), timeout=3600),
    "reply alone": Flow(ORIG, REPLY.replace(zone=5), timeout=3600),
}


def ways(flow: Flow) -> list[Flow]:
    """Every way to name a flow: by either tuple, as dumped or with the zone beside it."""
    assert flow.reply is not None
    found = [flow.replace(id=None), Flow(flow.orig), Flow(flow.reply), Flow(flow.orig, flow.reply)]
    found += [Flow(flow.reply, flow.orig)]
    found += [Flow(one.replace(zone=None), zone=flow.zone) for one in (flow.orig, flow.reply)]
    # A tuple that has no zone of its own says nothing of one.
    return [way for way in found if way.zone == flow.zone]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_name_a_flow_finds_it(
    ct: nlct.Conntrack, netns: nlct.Netns, kind: str
) -> None:
    """get(), update() and delete_flow(), and never the flow of another zone."""
    ct.create(KINDS[kind])
    (flow,) = ct.dump()
    # The same tuples elsewhere.
    ct.create(Flow(ORIG, zone=6, timeout=3600))
    other = oracle.inside(oracle.dump(netns), {6})
    for number, way in enumerate(ways(flow), 1):
        found = ct.get(way.orig, zone=None if way.orig.zone is not None else way.zone)
        assert (found.id, found.zone) == (flow.id, flow.zone)
        ct.update(way, mark=number)
        assert ct.get(flow.orig, zone=flow.zone).mark == number
        for zone in {0, 5, 7} - {flow.zone}:
            elsewhere = Flow(way.orig.replace(zone=None), zone=zone)
            for call in (lambda flow: ct.update(flow, mark=99), ct.delete_flow):
                with pytest.raises(nlct.NotFoundError):
                    call(elsewhere)
    for way in ways(flow):
        ct.delete_flow(way)
        assert oracle.dump(netns) == other
        ct.create(KINDS[kind])
        (again,) = ct.dump(zone=flow.zone)
        ct.delete_flow(Flow(way.orig, way.reply, zone=way.zone, id=again.id))
        assert oracle.dump(netns) == other
        ct.create(KINDS[kind])


@pytest.mark.parametrize("which", [0, 1])
def test_two_flows_of_one_zone_with_one_tuple(ct: nlct.Conntrack, which: int) -> None:
    """The zone of both directions and that of the reply alone: a flow that says which is heard."""
    ct.create(Flow(ORIG, REPLY, zone=5, timeout=3600))
    ct.create(Flow(ORIG, REPLY.replace(dport=2000, zone=5), timeout=3600))
    both = sorted(ct.dump(), key=lambda flow: flow.reply.zone is not None)  # type: ignore[union-attr]
    meant = both[which].replace(id=None)
    ct.update(meant, mark=7)
    assert [flow.mark for flow in sorted(ct.dump(), key=both.index)] == [
        7 if number == which else 0 for number in (0, 1)
    ]
    ct.delete_flow(meant)
    assert [flow.id for flow in ct.dump()] == [both[1 - which].id]


def test_a_tuple_is_not_found_by_half(ct: nlct.Conntrack) -> None:
    """Ports that the protocol does not have are no name of the flow without them."""
    plain = Tuple("10.0.0.1", "10.0.0.2", 50)
    ct.create(Flow(plain, timeout=3600))
    other = plain.replace(sport=1, dport=2)
    with pytest.raises(nlct.NotFoundError):
        ct.get(other)
    for call in (lambda flow: ct.update(flow, mark=9), ct.delete_flow):
        with pytest.raises(nlct.NotFoundError):
            call(Flow(other))
    assert ct.get(plain).mark == 0


def test_a_right_id_in_a_wrong_zone_deletes_nothing(ct: nlct.Conntrack) -> None:
    """By the tuple that a one-direction zone does not apply to, the kernel would find the flow."""
    orig = Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2)
    for whole in (
        Flow(orig, flows.reverse(orig, 7), timeout=600),
        Flow(orig.replace(zone=7), timeout=600),
    ):
        ct.create(whole)
        (flow,) = ct.dump()
        assert flow.zone == 7
        tuples = (flow.orig.replace(zone=None), flow.reply.replace(zone=None))
        for one in tuples:
            for zone in (None, 0, 8):
                with pytest.raises(nlct.NotFoundError):
                    ct.delete_flow(Flow(one, zone=zone, id=flow.id))
        ct.delete_flow(Flow(tuples[0], zone=7, id=flow.id))
        assert ct.count() == 0
