"""The kernel's numbers, by name."""

from __future__ import annotations

import enum


class Proto(enum.IntEnum):
    """Protocols above IP, by IANA's names (``CTA_PROTO_NUM``, ``conntrack -p``).

    They are shown in lower case and with hyphens: "esp", "mpls-in-ip". Every other number from 0 to
    255 is valid too. conntrack(8) prints only icmp, tcp, udp, dccp, gre, icmpv6, sctp and udplite
    by name, and all others as "unknown".
    """

    ICMP = 1
    IGMP = 2
    IPENCAP = 4
    IPV4 = 4  # what IANA calls it
    TCP = 6
    EGP = 8
    IGP = 9
    UDP = 17
    RDP = 27
    DCCP = 33
    IPV6 = 41
    IPV6_ROUTE = 43
    IPV6_FRAG = 44
    RSVP = 46
    GRE = 47
    ESP = 50
    AH = 51
    ICMPV6 = 58
    IPV6_ICMP = 58  # what IANA calls it
    IPV6_NONXT = 59
    IPV6_OPTS = 60
    EIGRP = 88
    OSPF = 89
    OSPFIGP = 89  # what IANA calls it
    IPIP = 94  # IPv4 in IPv4 is 4
    ETHERIP = 97
    ENCAP = 98
    PIM = 103
    IPCOMP = 108
    VRRP = 112
    PGM = 113
    L2TP = 115
    ISIS = 124
    SCTP = 132
    FC = 133
    MOBILITY_HEADER = 135
    UDPLITE = 136
    MPLS_IN_IP = 137
    MANET = 138
    HIP = 139
    SHIM6 = 140
    WESP = 141
    ROHC = 142
    ETHERNET = 143


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
    HEARTBEAT_ACKED = 9  # of older kernels; a request cannot set it


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
