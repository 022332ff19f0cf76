"""Names the field that the kernel refuses or silently drops; the kernel itself says only EINVAL."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nlct._ffi import lib
from nlct._fields import FIELDS, GIVEN, SETTABLE, status_names
from nlct.enums import Proto, Status, TcpState
from nlct.errors import Error, error
from nlct.flow import Flow, Tuple

# Bits of the status that a request may set.
SETTABLE_BITS = (
    Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED | Status.FIXED_TIMEOUT | Status.HELPER
)
# Protocols that a kernel may be built without. It then knows neither their ports nor their states.
OPTIONAL = (Proto.DCCP, Proto.GRE, Proto.SCTP, Proto.UDPLITE)
# What a kernel may drop from a flow that it creates; ports only of the optional protocols.
DROPPABLE = (
    *("labels", "mark", "sctp_state", "dccp_state"),
    *("synproxy_isn", "synproxy_its", "synproxy_tsoff"),
)
# What crashes kernels if a flow is created with it.
NEVER_SENT = "helper_info"
PORTS = ("sport", "dport")
_ICMP_FIELDS = ("icmp_id", "icmp_type", "icmp_code")
# The same by column, each with the protocol whose flows are at risk, None for any.
AT_RISK: tuple[tuple[str, int | None], ...] = (
    *((name, None) for name in (*DROPPABLE, NEVER_SENT)),
    *((name, int(proto)) for name in PORTS for proto in OPTIONAL),
)

GRE_CRASH = (
    "many kernels crash when a GRE flow ends whose master does not have the helper of PPTP, so "
    "nlct creates none"
)
NO_RULE = (
    "no rule used labels in this namespace when the flow was made (nftables: ct label; iptables: "
    "-m connlabel), so it has no room for them"
)

_WITH_PORTS = (Proto.TCP, Proto.UDP, *OPTIONAL)
_ICMP_TYPES = {Proto.ICMP: (0, 8, *range(13, 19)), Proto.ICMPV6: (128, 129, 139, 140)}
# Fields that the kernel takes only all together.
_TOGETHER = (
    ("sctp_state", "sctp_vtag_orig", "sctp_vtag_reply"),
    ("dccp_state", "dccp_role"),
    ("seqadj_orig_pos", "seqadj_orig_before", "seqadj_orig_after"),
    ("seqadj_reply_pos", "seqadj_reply_before", "seqadj_reply_after"),
    ("synproxy_isn", "synproxy_its", "synproxy_tsoff"),
)
_STATES: Mapping[str, Collection[int]] = {
    "tcp_state": list(TcpState),
    "sctp_state": range(lib.NLCT_SCTP_STATE_MAX + 1),
}
_WSCALE_FLAG = 0x01


@contextmanager
def explained(flow: Flow, *, new: bool = False) -> Iterator[None]:
    """Add to an error that is raised inside which field of ``flow`` was wrong."""
    try:
        yield
    except Error as exc:
        reason = "; ".join(_reasons(exc.errno or 0, flow, new))
        if exc.reason or not reason:
            raise
        raise error(exc.errno or 0, exc.operation, exc.kernel_message, reason) from None


def _reasons(number: int, flow: Flow, new: bool) -> Iterator[str]:
    if number in (errno.EINVAL, errno.ERANGE):
        yield from _malformed(flow, new)
    elif number == errno.EOPNOTSUPP:
        yield from _unsupported(flow, new)
    elif number == errno.EBUSY:
        yield from _busy(flow)
    elif number == errno.ENOSPC and flow.labels is not None:
        yield f"labels: {NO_RULE}"
    elif number == errno.ENOENT and new and flow.master is not None:
        yield "master: there is no such flow"


def _malformed(flow: Flow, new: bool) -> Iterator[str]:
    for name in ("orig", "reply", "master") if new else ("orig",):
        one: Tuple | None = getattr(flow, name)
        if one is None:
            continue
        # With NAT the reply says only what the flow is translated to.
        if name == "reply" and _nat(flow):
            proto = flow.orig.proto if one.proto is None else one.proto
        else:
            proto = one.proto
            yield from _incomplete(name, one)
        yield from _misplaced_ports(name, one, proto)
    if new and flow.timeout is None:
        yield "timeout is missing, without which the kernel creates no flow"
    reply = flow.reply
    if new and _nat(flow) and (reply is None or None in (reply.src, reply.dst)):
        yield f"status has {_bits(_nat(flow))}, and no reply with src and dst says to what"
    elif new and reply is not None and not _is_of_protocol(reply, flow):
        yield "reply must be of the protocol of orig"
    yield from _malformed_values(flow)


def _malformed_values(flow: Flow) -> Iterator[str]:
    for together in _TOGETHER:
        given = [name for name in together if getattr(flow, name) is not None]
        missing = [name for name in together if name not in given]
        if given and missing:
            yield f"{_list(given)} goes only with {_list(missing)}"
    if flow.helper_info is not None and flow.helper is None:
        yield "helper_info goes only with helper"
    yield from misplaced(flow, flow.orig.proto)
    for name, states in _STATES.items():
        value = getattr(flow, name)
        if value is not None and value not in states:
            yield f"{name} {value} is no state that every kernel knows"
    yield from _too_far(flow)


def _too_far(flow: Flow) -> Iterator[str]:
    for name in ("tcp_wscale_orig", "tcp_wscale_reply"):
        value = getattr(flow, name)
        if value is not None and value > lib.NLCT_WSCALE_MAX:
            yield f"{name} must be from 0 to {lib.NLCT_WSCALE_MAX}, not {value}"


def misplaced(flow: Flow, proto: int | None) -> Iterator[str]:
    """Tell which fields belong to another protocol than the flow's."""
    for name in SETTABLE:
        of = FIELDS[name].proto
        if of not in (None, proto) and getattr(flow, name):
            yield f"{name} is of {of.name}, and the flow is of {_proto(proto)}"


def _is_of_protocol(reply: Tuple, flow: Flow) -> bool:
    """Tell if a reply is of the flow's protocol; with NAT it need not say so."""
    return reply.proto == flow.orig.proto or (reply.proto is None and bool(_nat(flow)))


def _ports_of(proto: int | None) -> tuple[str, ...]:
    """Return the fields that stand for ports in tuples of this protocol."""
    if proto in _WITH_PORTS:
        return PORTS
    return _ICMP_FIELDS if proto in _ICMP_TYPES else ()


def missing(one: Tuple) -> list[str]:
    """Return the fields without which a tuple of its protocol names no flow."""
    wanted = ("src", "dst", "proto", *_ports_of(one.proto))
    return [field for field in wanted if getattr(one, field) is None]


def _incomplete(name: str, one: Tuple) -> Iterator[str]:
    lacks = missing(one)
    if lacks:
        yield f"{name} must have {_list(lacks)}"
    types = icmp_types(one)
    if types:
        yield f"{name}'s icmp_type must be one of {types}, not {one.icmp_type}"


def icmp_types(one: Tuple) -> str:
    """Return which types of ICMP name a flow, if that of a tuple does not; else ""."""
    known = _ICMP_TYPES.get(one.proto)  # type: ignore[call-overload]
    if not known or one.icmp_type in (None, *known):
        return ""
    return _list(known)


def _misplaced_ports(name: str, one: Tuple, proto: int | None) -> Iterator[str]:
    for field in (*PORTS, *_ICMP_FIELDS):
        if getattr(one, field) and field not in _ports_of(proto) and proto is not None:
            yield f"{name} must have no {field}: {_proto(proto)} has none"


def _unsupported(flow: Flow, new: bool) -> Iterator[str]:
    if new and flow.master is not None and flow.orig.proto == Proto.GRE:
        yield f"master: a GRE flow may have none; {GRE_CRASH}"
        return
    if new and flow.helper_info is not None:
        yield (
            "helper_info: kernels before 6.0 crash; create the flow without it, then "
            "update(flow, helper=..., helper_info=...)"
        )
        return
    if flow.helper is not None and not new:
        yield (
            f"helper: this kernel has none named {flow.helper!r}, or the flow was made with "
            "another or without one"
        )
    elif flow.helper is not None:
        yield f"helper: this kernel has none named {flow.helper!r} for such a flow"
    if new and _nat(flow):
        yield f"status has {_bits(_nat(flow))}, and this kernel may lack NAT"


def _busy(flow: Flow) -> Iterator[str]:
    never = Status.DYING if flow.master is not None else Status.DYING | Status.EXPECTED
    refused = (flow.status or 0) & never
    if refused:
        yield f"status: {_bits(refused)} is the kernel's to set"
    if flow.helper is not None:
        yield "helper: the flow has another, or belongs to a master"


def refused_change(number: int, given: Collection[str]) -> str:
    """Tell why the kernel refuses a change of a flow, by the errno and what was to change; ""."""
    if number == errno.ENOSPC and "labels" in given:
        return f"labels: {NO_RULE}"
    if number == errno.EOPNOTSUPP and "helper" in given:
        return "helper: this kernel has none of this name, or the flow was made without a helper"
    if number == errno.EPERM and "timeout" in given:
        return "timeout: the flow has the status fixed_timeout"
    if number == errno.EBUSY:
        reasons = {
            "status": "status: assured goes only with seen_reply",
            "helper": "helper: the flow has another, or belongs to a master",
        }
        return "; ".join(reason for name, reason in reasons.items() if name in given)
    return ""


def changes(flow: Flow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what update() shall change: what is given by name, or else what the flow holds.

    Raises TypeError and ValueError for what it would not send.
    """
    for name, value in given.items():
        if name not in SETTABLE:
            raise TypeError(f"update can change {', '.join(SETTABLE)}, not {name!r}")
        if value is None:
            raise TypeError(f"{name} must not be None; what is not given stays as it is")
    found = dict(given) or _held(flow)
    if not found:
        raise ValueError("nothing to change: name it, as in update(flow, mark=7)")
    for name in ("tcp_flags_orig", "tcp_flags_reply"):
        value = found.get(name)
        if isinstance(value, int) and value & ~lib.NLCT_TCP_FLAGS:
            raise ValueError(
                f"{name} must be of the flags 0x01, 0x02 and 0x08, which a request may change, "
                f"not {value:#04x}"
            )
    if "helper" in found:
        refuse_no_helper(found["helper"])
    return found


def refuse_no_helper(helper: str) -> None:
    """Raise ValueError for a change that would take the helper of a flow away."""
    if helper == "":
        raise ValueError(
            "helper must be a name: kernels take a helper away while it looks at a packet, "
            "and some crash"
        )


def _held(flow: Flow) -> dict[str, Any]:
    held = {name: getattr(flow, name) for name in SETTABLE}
    held = {name: value for name, value in held.items() if value is not None}
    own = [name for name in GIVEN if getattr(flow, name) is not None]
    if own:
        mark = 7 if flow.mark is None else flow.mark
        raise ValueError(
            f"the flow is as the kernel gave it ({_list(own)}), and all that it holds would be put "
            f"back; name what shall change, as in update(flow, mark={mark})"
        )
    if flow.master is not None:
        raise ValueError("master cannot be changed: a flow gets it when it is created")
    return held


def unfit(change: Flow, wanted: Collection[str], found: Flow) -> Iterator[str]:
    """Tell which wanted fields the kernel would accept and drop, given the flow as it is."""
    for name in wanted:
        of = FIELDS[name].proto
        if of is None:
            continue
        if found.orig.proto != of:
            yield f"{name} is of {of.name}, and the flow is of {_proto(found.orig.proto)}"
        elif getattr(found, f"{of.name.lower()}_state") is None:
            yield f"{name}: the flow has none"
    yield from _unfit_wscale(change, found)
    for name in ("timeout", "mark", "synproxy_isn"):
        if name in wanted and getattr(found, name) is None:
            yield f"{name}: the flow has none"


def _unfit_wscale(change: Flow, found: Flow) -> Iterator[str]:
    scales = (change.tcp_wscale_orig, change.tcp_wscale_reply)
    if scales == (None, None):
        return
    if None in scales:
        yield "tcp_wscale_orig and tcp_wscale_reply go only together"
    # Not every kernel refuses that.
    yield from _too_far(change)
    for name in ("tcp_flags_orig", "tcp_flags_reply"):
        flags = getattr(change, name)
        if flags is None:
            flags = getattr(found, name) or 0
        if not flags & _WSCALE_FLAG:
            yield f"tcp_wscale goes only with the flag {_WSCALE_FLAG:#04x} in {name}"


def refused_status(change: Flow, found: Flow) -> str:
    """Tell which bits of the status would be refused, or accepted and not set; "" for none."""
    if change.status is None or found.status is None:
        return ""
    # As numbers: inverted flags lose the bits without a name.
    wanted, has = int(change.status), int(found.status)
    # Every flow is confirmed, so that bit need not be given.
    lost = has & ~wanted & ~int(Status.CONFIRMED)
    if lost:
        return f"status: {_bits(lost)} cannot be cleared"
    refused = wanted & ~has & ~int(SETTABLE_BITS)
    return f"status: {_bits(refused)} cannot be set" if refused else ""


def dropped(flow: Flow, found: Flow) -> list[str]:
    """Return the fields that a flow was created without; a zero is no loss."""
    lost = [name for name in DROPPABLE if getattr(flow, name) and getattr(found, name) is None]
    if flow.helper_info is not None:
        lost.append(NEVER_SENT)
    if flow.orig.proto in OPTIONAL:
        mine, its = flow.orig, found.orig
        lost += [name for name in PORTS if getattr(mine, name) and getattr(its, name) is None]
    return lost


def may_be_dropped(flow: Flow) -> bool:
    """Tell if a flow has what kernels may drop."""
    return flow.orig.proto in OPTIONAL or any(getattr(flow, name) for name in DROPPABLE)


def why_dropped(lost: Collection[str]) -> str:
    """Say what was dropped, and why."""
    others = [name for name in lost if name != "labels"]
    reasons = [f"labels: {NO_RULE}"] * ("labels" in lost)
    if others:
        reasons.append(f"{_list(others)}: this kernel drops it")
    return "; ".join(reasons)


def _nat(flow: Flow) -> int:
    return int(flow.status or 0) & (Status.SRC_NAT | Status.DST_NAT)


def _bits(status: int) -> str:
    return _list(status_names(int(status)))


def _proto(proto: int | None) -> str:
    return Proto(proto).name if proto in list(Proto) else f"protocol {proto}"


def _list(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
