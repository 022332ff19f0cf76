"""The kernel's numbers, by name."""

from __future__ import annotations

import enum


class Proto(enum.IntEnum):
    """Layer-4 protocols with a name in conntrack (``CTA_PROTO_NUM``, ``conntrack -p``).

    Every other number from 0 to 255 is valid too.
    """

    ICMP = 1
    TCP = 6
    UDP = 17
    DCCP = 33
    GRE = 47
    ICMPV6 = 58
    SCTP = 132
    UDPLITE = 136


class Status(enum.IntFlag):
    """The bits of a flow's status (``CTA_STATUS``, ``conntrack -u``).

    OFFLOAD came with Linux 4.16, HW_OFFLOAD with 5.8.
    """

    EXPECTED = 0x1
    SEEN_REPLY = 0x2
    ASSURED = 0x4
    CONFIRMED = 0x8
    SRC_NAT = 0x10
    DST_NAT = 0x20
    SEQ_ADJUST = 0x40
    SRC_NAT_DONE = 0x80
    DST_NAT_DONE = 0x100
    DYING = 0x200
    FIXED_TIMEOUT = 0x400
    TEMPLATE = 0x800
    UNTRACKED = 0x1000
    HELPER = 0x2000
    OFFLOAD = 0x4000
    HW_OFFLOAD = 0x8000


class ExpectFlags(enum.IntFlag):
    """The flags of an expectation (``CTA_EXPECT_FLAGS``).

    PERMANENT: it stays when a flow fulfils it. INACTIVE: no flow fulfils it. USERSPACE: it comes
    from a helper in user space.
    """

    PERMANENT = 0x1
    INACTIVE = 0x2
    USERSPACE = 0x4


class TcpState(enum.IntEnum):
    """States of a TCP connection (``CTA_PROTOINFO_TCP_STATE``, ``conntrack --state``)."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9
    LISTEN = 9  # what conntrack(8) calls it


class EventKind(enum.IntEnum):
    """What happened to a flow that an event tells of (``-e``)."""

    NEW = 1
    UPDATE = 2
    DESTROY = 3


class SctpState(enum.IntEnum):
    """States of an SCTP association (``CTA_PROTOINFO_SCTP_STATE``)."""

    NONE = 0
    CLOSED = 1
    COOKIE_WAIT = 2
    COOKIE_ECHOED = 3
    ESTABLISHED = 4
    SHUTDOWN_SENT = 5
    SHUTDOWN_RECD = 6
    SHUTDOWN_ACK_SENT = 7
    HEARTBEAT_SENT = 8
    HEARTBEAT_ACKED = 9


class DccpState(enum.IntEnum):
    """States of a DCCP connection (``CTA_PROTOINFO_DCCP_STATE``)."""

    NONE = 0
    REQUEST = 1
    RESPOND = 2
    PARTOPEN = 3
    OPEN = 4
    CLOSEREQ = 5
    CLOSING = 6
    TIMEWAIT = 7
    IGNORE = 8
    INVALID = 9
